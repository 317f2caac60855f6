"""What layouts cost: parameters, multiply-adds and training memory, predicted and measured."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import torch

from nas.config.recipe import ASPECT_LIMIT, LARGEST_STRIDE
from nas.config.sections import DetectorSpec
from nas.profiling.flops import PAPER_RULE, RULE, count_cost
from nas.profiling.memory import Training, predict_memory, predict_reserved_bytes
from nas.profiling.memory.measurement import measure_memory
from nas.utils.formatting import gib
from nas.utils.gpu_presence import has_hopper
from nas.utils.gpu_share import card_share_bytes
from search_spaces.layout import Layout

if TYPE_CHECKING:
    from nas.profiling.module_costs import ModuleCosts


@dataclass(frozen=True)
class MeasuredStep:
    """One training step on this machine's GPU, whose model is `device`.

    Args:
        device: model of the GPU.
        memory_peak_gib: allocated at the peak, GiB.
        memory_reserved_gib: reserved by the allocator, GiB.
        step_s: seconds of a step.
        fps: images a second in evaluation.
        out_of_memory: the step did not fit; then all others are None.
    """

    device: str
    memory_peak_gib: float | None = None
    memory_reserved_gib: float | None = None
    step_s: float | None = None
    fps: float | None = None
    out_of_memory: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: either the figures, or that the step did not fit."""
        if self.out_of_memory:
            return {"device": self.device, "out_of_memory": True}
        return {key: value for key, value in asdict(self).items() if key != "out_of_memory"}


@dataclass(frozen=True)
class LayoutProfile:
    """What a layout costs in a detector.

    Args:
        layout: the backbone that was counted.
        layout_id: its identity, equal for equal networks.
        detector: name of what is around it.
        classes: how many, the background not counted.
        params: parameters of the whole detector.
        backbone_params: parameters of its backbone.
        flops: multiply-adds of one image by `flops_rule`.
        paper_flops: those of the paper's tables, by `paper_flops_rule`.
        batch_shape: images, channels, height and width of the training batch.
        precision: of the training step.
        optimizer: of the training step.
        checkpointing: which activations the step computes twice.
        memory_predicted_gib: allocated at the peak of a training step, GiB.
        memory_reserved_gib: with what the allocator keeps where all batches have one shape, GiB.
        memory_card_gib: what a search books of a card for it (`nas.utils.gpu_share`), which batches
            of all shapes hold within, GiB.
        memory_by_part_gib: `memory_predicted_gib` divided among the parts of the detector.
        memory_peak_moment: when the peak is: `forward`, `backward` or `update`.
        measured: the same on this machine's GPU; None where there is none.
    """

    layout: str
    layout_id: str
    detector: str
    classes: int
    params: int
    backbone_params: int
    flops: int
    flops_rule: str
    paper_flops: int
    paper_flops_rule: str
    batch_shape: list[int]
    precision: str
    optimizer: str
    checkpointing: str
    memory_predicted_gib: float
    memory_reserved_gib: float
    memory_card_gib: float
    memory_by_part_gib: dict[str, float]
    memory_peak_moment: str
    measured: MeasuredStep | None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self) | {"measured": self.measured and self.measured.to_dict()}


def padded_size(short_side: int) -> tuple[int, int]:
    """Height and width, pixels, of the largest images whose short side is `short_side`, padded for
    the backbone's strides.
    """
    height, width = (
        -(-side // LARGEST_STRIDE) * LARGEST_STRIDE
        for side in (short_side, int(short_side * ASPECT_LIMIT))
    )
    return height, width


def profiled_training(images: int, image_size: int, **choices: Any) -> Training:
    """Describe the training step of a profile, on this machine's GPU.

    Args:
        images: of one step.
        image_size: short side, pixels; see `padded_size`.
        choices: other fields of `Training`.
    """
    return Training((images, 3, *padded_size(image_size)), **choices, hopper=has_hopper())


def profile_layout(
    layout: Layout, detector: DetectorSpec, classes: int, training: Training
) -> LayoutProfile:
    """Count and predict what a layout costs; where there is a GPU, measure as well.

    Args:
        layout: the backbone.
        detector: what is around it.
        classes: how many, the background not counted.
        training: shape of a batch, and how a step is done.

    Raises:
        UserError: the detector cannot be built.
    """
    cost = count_cost(layout, detector, classes, training.batch_shape[2:])
    memory = predict_memory(layout, detector, classes, training)
    return LayoutProfile(
        layout=str(layout),
        layout_id=layout.layout_id,
        detector=detector.name,
        classes=classes,
        params=cost.params,
        backbone_params=cost.backbone_params,
        flops=cost.flops,
        flops_rule=RULE,
        paper_flops=cost.paper_flops,
        paper_flops_rule=PAPER_RULE,
        batch_shape=list(training.batch_shape),
        precision=training.precision,
        optimizer=training.optimizer,
        checkpointing=training.checkpointing,
        memory_predicted_gib=gib(memory.peak_bytes),
        memory_reserved_gib=gib(predict_reserved_bytes(layout, detector, classes, training)),
        memory_card_gib=gib(card_share_bytes(memory.peak_bytes)),
        memory_by_part_gib={part: gib(size) for part, size in memory.parts().items()},
        memory_peak_moment=memory.moment,
        measured=_measure(layout, detector, classes, training),
    )


def count_modules(
    layout: Layout, detector: DetectorSpec, classes: int, training: Training
) -> ModuleCosts:
    """Count a layout's detector module by module; arguments and errors as of `profile_layout`."""
    from nas.profiling.module_costs import ModuleCosts  # fvcore compiles when it is imported

    return ModuleCosts(layout, detector, classes, training.batch_shape[2:])


def _measure(
    layout: Layout, detector: DetectorSpec, classes: int, training: Training
) -> MeasuredStep | None:
    if not torch.cuda.is_available():
        return None
    try:
        measured = measure_memory(layout, detector, classes, training, torch.device("cuda"))
    except torch.OutOfMemoryError:
        return MeasuredStep(torch.cuda.get_device_name(), out_of_memory=True)
    finally:
        torch.cuda.empty_cache()
    assert measured.reserved_bytes is not None
    return MeasuredStep(
        measured.device,
        gib(measured.peak_bytes),
        gib(measured.reserved_bytes),
        measured.step_s,
        measured.fps,
    )
