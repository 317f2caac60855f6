"""Results as they travel between the parts: frozen, JSON in `vars`, units in the names."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Self

HEADLINES = ("map", "map_50", "map_segm", "map_segm_50")


@dataclass(frozen=True)
class CocoMetrics:
    """COCO's twelve figures, fractions 0 to 1; None where the ground truth has nothing of the kind
    (no small objects, say).

    `map` is over IoU 0.50 to 0.95 and 100 detections an image; `ar_N` is the recall with N
    detections an image. `map_segm` and so on are the same figures of instance masks; None where
    detector or ground truth has none.
    """

    map: float | None
    map_50: float | None
    map_75: float | None
    map_small: float | None
    map_medium: float | None
    map_large: float | None
    ar_1: float | None
    ar_10: float | None
    ar_100: float | None
    ar_small: float | None
    ar_medium: float | None
    ar_large: float | None
    map_per_class: dict[str, float | None] = field(default_factory=dict)
    map_segm: float | None = None
    map_segm_50: float | None = None
    map_segm_75: float | None = None
    map_segm_small: float | None = None
    map_segm_medium: float | None = None
    map_segm_large: float | None = None

    def precisions(self) -> dict[str, Any]:
        """All mAP by name, those of masks only where there are masks."""
        figures = {name: value for name, value in vars(self).items() if name.startswith("map")}
        return {
            name: value
            for name, value in figures.items()
            if value is not None or "segm" not in name
        }


@dataclass(frozen=True)
class ClassificationMetrics:
    """Shares of the validation images, 0 to 1, whose class is the first or among the first five (of
    fewer classes: always), and the mean cross-entropy, without label smoothing.
    """

    top1: float
    top5: float
    val_loss: float


@dataclass(frozen=True)
class MemoryEstimate:
    """Predicted GPU memory of one training step, in bytes.

    `peak_bytes` is the highest sum of allocated blocks, `reserved_bytes` what the caching allocator
    takes from the card for it. The other fields say what the peak consists of: `activations` is
    what the forward pass of each part of the network made and the backward pass still needs,
    `transients` what the backward pass made, `workspace` is cuBLAS's, `rounding` what the allocator
    adds to blocks. `moment` is `forward`, `backward` or `update`.
    """

    peak_bytes: int
    reserved_bytes: int
    parameters_bytes: int
    optimizer_bytes: int
    gradients_bytes: int
    inputs_bytes: int
    activations_bytes: dict[str, int]
    transients_bytes: int
    workspace_bytes: int
    rounding_bytes: int
    moment: str

    def parts(self) -> dict[str, int]:
        """The parts by name; their sum is the peak."""
        plain = (
            "parameters",
            "optimizer",
            "gradients",
            "inputs",
            "transients",
            "workspace",
            "rounding",
        )
        return {
            **{name: getattr(self, f"{name}_bytes") for name in plain},
            **self.activations_bytes,
        }


@dataclass(frozen=True)
class CalibrationReport:
    """What calibration did. Spreads are standard deviations of log C over the layers; factors are
    what weights were scaled by.
    """

    layers: int
    skipped: tuple[str, ...]
    passes: int
    spread_before: float
    spread_after: float
    ratio_before: float
    ratio_after: float
    loss_before: float
    loss_after: float
    factor_min: float
    factor_max: float
    group_means_before: dict[str, float]
    group_means_after: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self) | {"skipped": list(self.skipped)}


@dataclass(frozen=True)
class Report:
    """One epoch, in every kind of training.

    `loss` is the mean of the epoch, `lr` that of its last step. `converged` says that the recipe
    ends before `epochs`.
    """

    epoch: int
    epochs: int
    loss: float
    lr: float
    converged: bool = field(default=False, kw_only=True)
    figures: ClassVar[type]  # what `metrics` is

    @property
    def last(self) -> bool:
        """The recipe ends here."""
        return self.converged or self.epoch >= self.epochs

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """The inverse of `dataclasses.asdict`."""
        metrics = {
            name: cls.figures(**fields[name]) for name in ("metrics", "test") if fields.get(name)
        }
        return cls(**{**fields, **metrics})


@dataclass(frozen=True)
class EpochReport(Report):
    """One epoch of one candidate, as it leaves training.

    `train_s` is all training so far and `elapsed_s` that with calibration and evaluation; `fps`
    counts images a second of the detector alone; `memory_peak_bytes` is what the GPU allocated at
    most, None on the CPU. `test` has the metrics on the test split, of the last epoch where there
    is such a split. `hardware` is what it ran on (see `nas.utils.device.hardware`).
    """

    metrics: CocoMetrics
    fps: float
    train_s: float
    elapsed_s: float
    memory_peak_bytes: int | None
    device: str
    calibration: dict[str, Any] | None
    test: CocoMetrics | None = None
    hardware: dict[str, Any] = field(default_factory=dict)
    figures: ClassVar[type] = CocoMetrics

    @property
    def test_scores(self) -> dict[str, float | None]:
        """The headline figures, by the names of their attributes."""
        if self.test is None:
            return {}
        return {
            f"test_{name}": value
            for name, value in self.test.precisions().items()
            if name in HEADLINES
        }


@dataclass(frozen=True)
class PretrainingReport(Report):
    """One epoch of a pre-training by classification; its times and memory are those of
    `EpochReport`.
    """

    metrics: ClassificationMetrics
    train_s: float
    elapsed_s: float
    memory_peak_bytes: int | None
    device: str
    figures: ClassVar[type] = ClassificationMetrics


@dataclass(frozen=True)
class DatasetSummary:
    """A checked data set in a few figures, plain JSON. `masks` says that objects to train on have
    masks, and that the detector learns them.
    """

    fingerprint: str
    categories: tuple[str, ...]
    train_images: int
    train_boxes: int
    val_images: int
    val_boxes: int
    max_boxes_per_image: int
    batch_shape: tuple[int, int, int, int]
    repaired: dict[str, int]
    left_out: dict[str, int]
    masks: bool = False

    @property
    def num_classes(self) -> int:
        """Without the background."""
        return len(self.categories)
