"""What is set before the first step from the training data: outputs or weights, as the request
says.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader

from nas.config.recipe import Recipe
from nas.config.sections import CalibrationSpec
from nas.data.coco import CocoSplit
from nas.data.dataloader import make_loader
from nas.data.dataset import Batch, DetectionDataset, DetectionItem
from nas.data.samplers import AspectRatioBatchSampler, DistributedBatchSampler
from nas.data.transforms import train_transforms
from nas.models.detectors import Detector
from nas.models.detectors.output_calibration import TrainingSample
from nas.models.detectors.transform import ImageStatistics
from nas.training.gradient_calibration import calibrate_gradients, undisturbed
from nas.utils.distributed import World

SAMPLED_VIEWS = 1000  # of training images, whose boxes are looked at
MOST_ROUNDS = 8  # views of one image
MOST_PIXELS = 200_000_000  # of all these together: anchors of large images take long to match
LEAST_VIEWS = 64
SAMPLED_PIXELS = 64  # images that are decoded, for what follows from the network
AT_ONCE = 8  # of them in memory


@dataclass(frozen=True)
class CalibrationData:
    """The training images that a detector is calibrated on.

    Args:
        split: the training split.
        recipe: how its images are resized and augmented, and their number in memory.
        seed: of the training.
        cache_bytes: what decoded images may take of this machine's disk.
        device: of the detector.
    """

    split: CocoSplit
    recipe: Recipe
    seed: int
    cache_bytes: int
    device: torch.device

    def loader(self, size: int, world: World) -> DataLoader[DetectionItem]:
        """Load augmented batches of `size` images, of which each process has its share."""
        order = AspectRatioBatchSampler(self.split.images, size, self.seed)
        view = train_transforms(self.recipe)
        shared = DistributedBatchSampler(order, world)
        return make_loader(self.split, view, shared, workers=0, cache_bytes=self.cache_bytes)


def calibrate(
    detector: Detector, spec: CalibrationSpec, data: CalibrationData
) -> dict[str, Any] | None:
    """Calibrate a detector that was just initialised, in place, as a request says.

    Args:
        detector: its mode and running statistics are as before on return.
        spec: whether and how.
        data: training images.

    Returns:
        What was measured and set, plain JSON with the key `definition`; None where calibration is
        off.

    Raises:
        NonFiniteLoss: with a definition by gradients: the loss or a gradient is not a number.
    """
    if not spec.enabled:
        return None
    found: dict[str, Any] = {"definition": spec.definition}
    outputs, own_inputs = spec.definition == "outputs", spec.inputs == "data"
    batches = sampled_batches(data) if outputs or own_inputs else []
    if own_inputs:
        statistics = ImageStatistics.of_images([image for b in batches for image in b.images])
        detector.transform.set_statistics(statistics)
        found["inputs"] = {"mean": list(statistics.mean), "std": list(statistics.std)}
    if outputs:
        return found | _calibrate_outputs(detector, data, batches)
    return found | calibrate_gradients(detector, _gradient_batches(data), spec).to_dict()


def _calibrate_outputs(
    detector: Detector, data: CalibrationData, batches: Sequence[Batch]
) -> dict[str, Any]:
    """The same on every process, whatever their number."""
    devices = [data.device] if data.device.type == "cuda" else []
    with undisturbed(detector), torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)  # the sampling of regions
        sample = training_sample(data, batches)
        return {"views": len(sample.targets), **detector.calibrate_outputs(sample)}


def training_sample(data: CalibrationData, batches: Sequence[Batch]) -> TrainingSample:
    """Draw up to 1000 views of training images with their boxes, every image equally often and at
    most eight times; the same draw for the same data, recipe and seed.

    Args:
        data: training images.
        batches: a few of them with their pixels, as `sampled_batches` gives them.
    """
    dataset = DetectionDataset(data.split, train_transforms(data.recipe), data.cache_bytes)
    generator = torch.Generator().manual_seed(data.seed)
    order = torch.randperm(len(dataset), generator=generator).tolist()
    pixels = data.recipe.long_side * max(data.recipe.short_sides)
    most = min(SAMPLED_VIEWS, max(LEAST_VIEWS, MOST_PIXELS // pixels))
    rounds = min(MOST_ROUNDS, max(1, most // len(order)))
    views = [dataset.target(index, seed) for seed in range(rounds) for index in order[:most]]
    targets = [{key: value.to(data.device) for key, value in target.items()} for target, _ in views]
    return TrainingSample(targets, [draw.size for _, draw in views], batches)


def sampled_batches(data: CalibrationData) -> list[Batch]:
    """Decode 64 training images or a few more, on the device; on every process the same ones."""
    size = data.recipe.images_per_gpu or min(data.recipe.batch, AT_ONCE)
    loaded = itertools.islice(data.loader(size, World()), -(-SAMPLED_PIXELS // size))
    return [batch.to(data.device) for batch in loaded]


def _gradient_batches(data: CalibrationData) -> list[Batch]:
    """One batch of training images, in pieces that take no more memory than a training step."""
    world = World.current()
    size = data.recipe.images_at_once(world.size)
    if data.recipe.precision == "bf16" and size % (2 * world.size) == 0:
        size //= 2  # calibration runs in fp32
    loader = data.loader(size, world)
    return [batch.to(data.device) for batch in itertools.islice(loader, data.recipe.batch // size)]
