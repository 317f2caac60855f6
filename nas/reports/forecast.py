"""What a search is predicted to take, and the measurements behind it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Timing:
    """What one layout took on this machine.

    Args:
        layout: in text form.
        flops: multiply-adds for one image.
        memory_bytes: predicted peak of a training step.
        begin_s: seconds to build and calibrate it.
        step_s: seconds of a training step.
        score_s: seconds for a scored image.
        keep_s: seconds for the checkpoint after an epoch.
    """

    layout: str
    flops: int
    memory_bytes: int
    begin_s: float
    step_s: float
    score_s: float
    keep_s: float


@dataclass(frozen=True)
class EpochTime:
    """Seconds that one epoch of a layout is predicted to take."""

    layout: str
    epoch_s: float


@dataclass(frozen=True)
class ForecastTotals:
    """A whole search, at one end of the range that pruning leaves open.

    Args:
        epochs_per_trial: mean over the candidates.
        train_s: seconds of training, summed over all trainings.
        candidates_s: seconds of workers, summed over all trainings, with building, scoring and
            checkpoints.
        wall_s: seconds from the start of the first training to the end of the last.
        cpu_hours: `candidates_s` times the cores of a worker, in hours.
        gpu_hours: `candidates_s` times the GPUs of a worker, in hours.
    """

    epochs_per_trial: float
    train_s: float
    candidates_s: float
    wall_s: float
    cpu_hours: float
    gpu_hours: float


@dataclass(frozen=True)
class SearchForecast:
    """What a search will take on this machine.

    Args:
        trials: candidates that will be trained.
        baselines: trainings of published backbones beside them.
        replicates: further trainings of the best candidates.
        device: `cpu` or the name of the GPU that layouts were measured on.
        cpu: name of the processor.
        cores: of this machine.
        local: the search runs in one process, without Ray.
        concurrent: trainings at a time.
        cpus_per_trial, threads_per_trial, gpus_per_trial: what each of them has.
        candidates_per_gpu: how many share a GPU; None without GPUs.
        measured_side_by_side: processes that measured at the same time, as trainings will run.
        steps_per_epoch: training steps.
        scored_images_per_epoch: validation images, all scored after each epoch that is.
        epochs_are_a_limit: the schedule ends by itself; epochs and times are the most it can take.
        small, median, large: layouts of the space whose epoch is the quickest, the median and the
            slowest.
        candidate_s_spread: standard deviation of a candidate's time over the space, divided by the
            mean.
        low, high: the totals, equal where nothing is left open.
        start_s: seconds before the first training starts.
        coefficients: of the runtime model, see `nas.search.forecast.runtime_model.CostModel`.
        measured: the measurements.
        measuring_s: seconds that they took.
        notes: sentences on how the figures are to be read.
    """

    trials: int
    baselines: int
    replicates: int
    device: str
    cpu: str
    cores: int | None
    local: bool
    concurrent: int
    cpus_per_trial: int
    threads_per_trial: int
    gpus_per_trial: float
    candidates_per_gpu: int | None
    measured_side_by_side: int
    steps_per_epoch: int
    scored_images_per_epoch: int
    epochs_are_a_limit: bool
    small: EpochTime
    median: EpochTime
    large: EpochTime
    candidate_s_spread: float
    low: ForecastTotals
    high: ForecastTotals
    start_s: float
    coefficients: dict[str, tuple[float, float, float]]
    measured: tuple[Timing, ...]
    measuring_s: float
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, flat: `layout_small`, `epoch_s_small`, `wall_s_low` and so on."""
        flat: dict[str, Any] = {}
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, EpochTime):
                flat[f"layout_{field.name}"] = value.layout
                flat[f"epoch_s_{field.name}"] = value.epoch_s
            elif isinstance(value, ForecastTotals):
                flat |= {f"{name}_{field.name}": total for name, total in vars(value).items()}
            else:
                flat[field.name] = value
        measured = [asdict(timing) for timing in self.measured]
        return flat | {"measured": measured, "notes": list(self.notes)}

    def summary_dict(self) -> dict[str, Any]:
        """Plain JSON for `nas_cost_predicted`: no measurements, coefficients and notes."""
        details = ("coefficients", "measured", "notes")
        return {name: value for name, value in self.to_dict().items() if name not in details}
