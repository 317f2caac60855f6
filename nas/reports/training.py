"""What training says after every epoch: frozen, units in the names."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Self

from nas.reports.metrics import TEST_METRICS, ClassificationMetrics, CocoMetrics


@dataclass(frozen=True)
class CalibrationReport:
    """What gradient calibration measured and did, C being the mean square of a layer's gradient.

    Args:
        layers: how many were calibrated.
        skipped: names of layers without a gradient, which were not.
        passes: rounds of scaling that were kept.
        spread_before, spread_after: standard deviation of log C over the layers.
        ratio_before, ratio_after: largest C over smallest C.
        loss_before, loss_after: loss of the calibration batch.
        factor_min, factor_max: smallest and largest factor that weights were scaled by.
        bounded: how many layers had their factor cut off at the limits of a pass, 1/4 and 4.
        group_means_before, group_means_after: mean of log C by group of layers.
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
    bounded: int
    group_means_before: dict[str, float]
    group_means_after: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, as trials keep it."""
        return asdict(self) | {"skipped": list(self.skipped)}


def calibration_warning(calibration: dict[str, Any] | None) -> str:
    """Warn, in a sentence, of a gradient calibration whose factors were cut off; empty where none
    was.

    Args:
        calibration: what reports and trials keep of it, plain JSON.
    """
    found = calibration or {}
    if not found.get("bounded"):
        return ""
    return (
        f"calibration scales {found['bounded']} of {found['layers']} layers less than their "
        "gradients ask for, which is beyond 1/4 or 4 times; compare with "
        "calibration.definition=outputs"
    )


@dataclass(frozen=True)
class Report:
    """One epoch, whatever is trained.

    Args:
        epoch: its number, from 1.
        epochs: how many the recipe has at most.
        loss: mean over the steps of the epoch.
        lr: learning rate of the last step.
        converged: the recipe ends here, before `epochs`.
    """

    epoch: int
    epochs: int
    loss: float
    lr: float
    converged: bool = field(default=False, kw_only=True)
    figures: ClassVar[type]  # class of the field `metrics`, which subclasses add

    @property
    def last(self) -> bool:
        """Whether the recipe ends with this epoch."""
        return self.converged or self.epoch >= self.epochs

    @property
    def kept_epoch(self) -> int:
        """Epoch of the weights that are kept."""
        return self.epoch

    @property
    def keeps(self) -> bool:
        """Whether the weights of this epoch are written: those of the last one, or with a best
        epoch those of the best one so far.
        """
        return self.last

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """A report from the JSON of `dataclasses.asdict`.

        Raises:
            TypeError: a field is missing or unknown.
        """
        metrics = {
            name: cls.figures(**fields[name])
            for name in ("metrics", "test", "best")
            if fields.get(name)
        }
        return cls(**{**fields, **metrics})


@dataclass(frozen=True)
class EpochReport(Report):
    """One epoch of one candidate.

    Args:
        metrics: on the validation split.
        fps: images a second of the detector alone, in evaluation.
        train_s: seconds of training so far, without calibration and evaluation.
        elapsed_s: seconds so far, with calibration and evaluation.
        memory_peak_bytes: the most that the GPU allocated so far; None on the CPU.
        device: `cpu` or the name of the GPU.
        calibration: what calibration measured and set, as plain JSON with its `definition`; None
            where it is off.
        test: metrics on the test split, after the last epoch where there is such a split.
        best: metrics on the validation split of the epoch with the highest mAP so far, where the
            recipe keeps the weights of that one; they were chosen on the split that they were
            scored on. None where it keeps those of the last epoch.
        best_epoch: its number; None like `best`.
        hardware: what it ran on, as `nas.utils.device.hardware` describes it.
        val_loss: mean loss of the validation split, of the weights that are scored and by the norms
            of evaluation; without augmentation, so that it may well be below `loss`. None where it
            is not finite, and in reports of versions before 0.2.0.
    """

    metrics: CocoMetrics
    fps: float
    train_s: float
    elapsed_s: float
    memory_peak_bytes: int | None
    device: str
    calibration: dict[str, Any] | None
    test: CocoMetrics | None = None
    best: CocoMetrics | None = None
    best_epoch: int | None = None
    hardware: dict[str, Any] = field(default_factory=dict)
    val_loss: float | None = None
    figures: ClassVar[type] = CocoMetrics

    @property
    def kept(self) -> CocoMetrics:
        """Metrics on the validation split of the weights that are kept."""
        return self.best or self.metrics

    @property
    def kept_epoch(self) -> int:
        return self.best_epoch or self.epoch

    @property
    def keeps(self) -> bool:
        return self.last if self.best_epoch is None else self.best_epoch == self.epoch

    @property
    def test_scores(self) -> dict[str, float | None]:
        """Figures of the test split by attribute of a trial; empty where it was not scored."""
        if self.test is None:
            return {}
        scores = self.test.precisions()
        return {m.test_name: scores[m.name] for m in TEST_METRICS if m.name in scores}


@dataclass(frozen=True)
class PretrainingReport(Report):
    """One epoch of a pre-training by classification.

    Args:
        metrics: on the validation images.
        train_s: seconds of training so far, without evaluation.
        elapsed_s: seconds so far, with evaluation.
        memory_peak_bytes: the most that the GPU allocated so far; None on the CPU.
        device: `cpu` or the name of the GPU.
    """

    metrics: ClassificationMetrics
    train_s: float
    elapsed_s: float
    memory_peak_bytes: int | None
    device: str
    figures: ClassVar[type] = ClassificationMetrics
