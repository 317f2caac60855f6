"""The rules of the plan, one for each key that it decides: the value, and why.

A rule sees the fingerprint of the training split and what it is for; it never sees a score. Where a
number comes from a measurement of ours, docs/evidence.md has it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nas.config.sections import DetectorSpec
from nas.planning.fingerprint import Fingerprint
from nas.planning.levels import ANCHOR_SIDE, LEVELS, RATIOS, finest_stride
from nas.utils.formatting import GIB

# Cells of the finest level that small objects are to span; a GPU has the time for more.
SMALL_CELLS = {"cpu": 2.5, "cuda": 5.0}
OBJECT_SCALES = (1.0, 0.5, 2.0, 0.25)  # of equally good ones the first
ALIKE = 0.5  # overlap from which on an anchor is like an object
SIZE_STEP = 32
LEAST_SIZE = 128
LARGEST_SIZE = {"cpu": 320, "cuda": 800}
DETECTIONS, MOST_DETECTIONS = 100, 1000  # of an image
DETECTIONS_OVER_OBJECTS = 1.5
STEPS_PER_EPOCH = 40
BATCHES = (4, 8, 16)
# Of one image of 800 x 1344 at 96 channels, with Faster R-CNN and T2-T2-T6-T2: `nas profile`
# predicts 12.6 GiB of the card for two of them.
GIB_PER_IMAGE, AT_SIZE, AT_WIDTH = 5.5, 800, 96
PAPER_BUDGET_BYTES = 16 * GIB
FEW_FOR_BATCH_NORM = 4
NORM = "space.layout.norm"
LEAST_STEPS = 1000
LEAST_EPOCHS, MOST_EPOCHS = 8, 300
MEASURED_LR = (16, 3e-3)  # width of the first stage, and its rate: docs/evidence.md
WARMUP_SHARE = 0.1
AVERAGED_SHARE = 0.05  # of the steps, that the average of the weights looks back on


@dataclass(frozen=True)
class Situation:
    """What rules decide for.

    Args:
        data: fingerprint of the training split.
        detector: that is trained.
        width: channels of the first stage, the largest of the space.
        device: `cpu` or `cuda`.
        budget_bytes: memory of one GPU that a candidate may take.
        processes: that train a candidate together, each with a GPU of its own.
    """

    data: Fingerprint
    detector: DetectorSpec
    width: int
    device: str
    budget_bytes: int = PAPER_BUDGET_BYTES
    processes: int = 1

    @property
    def stride(self) -> int:
        """Stride of the pyramid's finest level, pixels."""
        return finest_stride(self.detector)

    def steps(self, batch: int) -> int:
        """Count the steps of an epoch."""
        return math.ceil(self.data.images / batch)


@dataclass(frozen=True)
class Decision:
    """One key of a request as the plan sets it.

    Args:
        key: dotted, `recipe.epochs`.
        value: of the key.
        reason: why, in a sentence.
    """

    key: str
    value: Any
    reason: str


Rule = Callable[[Situation, dict[str, Any]], Decision]


def image_size(situation: Situation, decided: dict[str, Any]) -> Decision:
    """Small objects span 2.5 cells of the finest level, on a GPU 5: with half of the former, blood
    platelets are not found at all (docs/tutorial.md).
    """
    key, most = "recipe.image_size", LARGEST_SIZE[situation.device]
    own = int(situation.data.short_sides[2])
    share = situation.data.small_share
    if share is None:
        return Decision(key, _rounded(min(own, most)), "no objects: the images' own size")
    wanted = SMALL_CELLS[situation.device] * situation.stride / share
    value = _rounded(min(max(wanted, LEAST_SIZE), max(own, LEAST_SIZE), most))
    why = f"small objects are {share:.1%} of the short side and span {share * value:.0f} pixels"
    if value < wanted - SIZE_STEP:
        limit = "the images' own size" if own <= most else f"the most on a {situation.device}"
        why += f"; {_rounded(wanted)} would be wanted, {limit} is {_rounded(min(own, most))}"
    return Decision(key, value, why)


def object_scale(situation: Situation, decided: dict[str, Any]) -> Decision:
    """Anchors of a quarter, half, once or twice the published size: those that overlap by half with
    as many of the objects' percentiles as can be, all taken for squares.
    """
    key, name = "detector.object_scale", situation.detector.name
    if name not in RATIOS or not situation.data.object_shares:
        return Decision(key, 1.0, "the published sizes")
    sides = [share * decided["recipe.image_size"] for share in situation.data.object_shares]
    value = max(OBJECT_SCALES, key=lambda scale: _covered(sides, situation.stride, scale))
    smallest = ANCHOR_SIDE * situation.stride * value
    return Decision(
        key,
        value,
        f"anchors from {smallest:g} pixels on; objects of {sides[0]:.0f} to {sides[-1]:.0f}",
    )


def _covered(sides: list[float], stride: int, scale: float) -> int:
    """Number of squares that an anchor of some level overlaps with by half."""
    anchors = [ANCHOR_SIDE * scale * stride * 2**level for level in range(LEVELS)]
    likeness = [max(min(a / side, side / a) ** 2 for a in anchors) for side in sides]
    return sum(overlap >= ALIKE for overlap in likeness)


def detections_per_image(situation: Situation, decided: dict[str, Any]) -> Decision:
    """A hundred, as COCO; where an image has more objects, half as many again as it has."""
    most = situation.data.most_objects
    wanted = math.ceil(DETECTIONS_OVER_OBJECTS * most / 100) * 100
    value = DETECTIONS if most <= DETECTIONS else min(wanted, MOST_DETECTIONS)
    return Decision(
        "detector.detections_per_image", value, f"up to {most} objects an image; COCO's is 100"
    )


def batch(situation: Situation, decided: dict[str, Any]) -> Decision:
    """At least forty steps an epoch, and no batch norm over fewer than four images: at equal time
    small batches win on small data.
    """
    images = situation.data.images
    fitting = [size for size in BATCHES if size * STEPS_PER_EPOCH <= images]
    value = max(fitting, default=BATCHES[0])
    return Decision(
        "recipe.batch",
        value,
        f"{images} images make {situation.steps(value)} steps an epoch; 16 is the paper's",
    )


def images_per_gpu(situation: Situation, decided: dict[str, Any]) -> Decision:
    """On a GPU as many as a candidate of usual depth fits into the budget, a power of two; the
    gradients of several such parts add up. Without a GPU the whole batch.
    """
    key, batch = "recipe.images_per_gpu", decided["recipe.batch"]
    if situation.device == "cpu":
        return Decision(key, None, "without a GPU the whole batch at once")
    cells = (decided["recipe.image_size"] / AT_SIZE) ** 2 * situation.width / AT_WIDTH
    fitting = situation.budget_bytes / (GIB_PER_IMAGE * GIB * cells)
    part = max(1, batch // situation.processes)
    value = max(n for n in (1, 2, 4, 8, 16) if n == 1 or (n <= fitting and part % n == 0))
    budget = situation.budget_bytes / GIB
    return Decision(
        key, value, f"about {fitting:.1f} fit into {budget:.3g} GiB, {part} are a step's"
    )


def norm(situation: Situation, decided: dict[str, Any]) -> Decision:
    """Group norm in C stages where fewer than four images are normalised at once: batch norm's
    error rises steeply there (Wu and He, Group Normalization, ECCV 2018, figure 1).
    """
    at_once = decided["recipe.images_per_gpu"] or decided["recipe.batch"]
    value = "gn" if at_once < FEW_FOR_BATCH_NORM else "bn"
    return Decision(NORM, value, f"{_images(at_once)} at once; group norm below 4")


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"


def least_steps(situation: Situation, decided: dict[str, Any]) -> Decision:
    """A detector from scratch needs a number of steps, whatever the number of images."""
    return Decision(
        "recipe.least_steps", LEAST_STEPS, "fewer steps rank candidates by their warm-up"
    )


def epochs(situation: Situation, decided: dict[str, Any]) -> Decision:
    """As many as the least steps take, eight at least."""
    steps = situation.steps(decided["recipe.batch"])
    wanted = math.ceil(decided["recipe.least_steps"] / steps)
    value = min(max(wanted, LEAST_EPOCHS), MOST_EPOCHS)
    return Decision(
        "recipe.epochs", value, f"{value * steps} steps, {steps} an epoch; {LEAST_STEPS} at least"
    )


def lr(situation: Situation, decided: dict[str, Any]) -> Decision:
    """Measured on narrow networks in small batches; by width as its inverse, as AdamW's rates
    transfer (Yang et al., Tensor Programs V, 2022). A larger batch does not raise it: the paper's
    is lower still.
    """
    width, rate = MEASURED_LR
    value = float(f"{rate * width / situation.width:.2g}")
    return Decision("recipe.lr", value, f"width {situation.width}; {rate:g} at {width}")


def ema(situation: Situation, decided: dict[str, Any]) -> Decision:
    """An average over the last twentieth of the steps."""
    steps = decided["recipe.epochs"] * situation.steps(decided["recipe.batch"])
    return Decision("recipe.ema", averaging(steps), f"looks back on a twentieth of {steps} steps")


def averaging(steps: int) -> float:
    """Decay of an average over the last twentieth of so many steps, or over ten."""
    return round(1 - 1 / max(10.0, AVERAGED_SHARE * steps), 4)


def fixed(key: str, value: Any, reason: str) -> Rule:
    """A rule that every data set has alike."""
    return lambda situation, decided: Decision(key, value, reason)


RULES: tuple[Rule, ...] = (
    image_size,
    object_scale,
    detections_per_image,
    batch,
    images_per_gpu,
    norm,
    least_steps,
    epochs,
    fixed("recipe.schedule", "cosine", "ends at a low rate however few the steps"),
    fixed("recipe.warmup_steps", 500, "the usual limit"),
    fixed("recipe.warmup_share", WARMUP_SHARE, "no short training is all warm-up"),
    lr,
    fixed("recipe.clip_norm", 1.0, "as the published Sparse R-CNN; bears a high rate"),
    fixed("recipe.init", "swin", "better than He's in stages of attention"),
    fixed("recipe.keep", "best", "the last epoch of a small data set may be a bad one"),
    ema,
)


def _rounded(side: float) -> int:
    return max(SIZE_STEP, math.ceil(side / SIZE_STEP - 0.25) * SIZE_STEP)
