"""Trials as rows: what leaderboards, listings, exports and pages are made from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from nas.reports.metrics import METRICS, TEST_METRICS


@dataclass(frozen=True)
class TrialRow:
    """One trial of a study. A study that is no search of ours has trials without most of this.

    The fields after `value` are attributes of `nas.study.schema.TRIAL`, None where the trial has
    not got them.

    Args:
        number: Optuna's number of the trial.
        state: `COMPLETE`, `PRUNED`, `INFEASIBLE` (over the memory budget), `FAIL`, `RUNNING` or
            `WAITING` (for the next command of its search).
        value: the first objective; None before the end.
        layout: the backbone in text form.
        role: `candidate`, `taken over`, `baseline` or `replicate`; empty where it is not recorded.
        replicate: which repetition of its layout, 0 for the first training.
        epochs: how many have been trained.
        params: number of parameters.
        flops: multiply-adds for one image.
        memory_predicted_gib: predicted peak of a training step, GiB.
        memory_peak_gib: measured peak, GiB.
        memory_parts_gib: what the prediction consists of, GiB by part.
        scores: by name of a metric, and with `test_` before it, fractions 0 to 1; only those that
            the trial has.
        fps: images a second of the detector alone.
        train_s: seconds of training.
        gpu_s: seconds on the worker times its share of GPUs.
        device: `cpu` or the name of the GPU.
        calibration: what calibration measured and set, as plain JSON.
        checkpoint: path or URL of the weights.
        fail_reason: why it failed.
        infeasible_reason: why it counts as over the budget.
        attributes: all that the study keeps of it, as plain JSON.
    """

    number: int
    state: str
    value: float | None
    layout: str | None
    role: str
    replicate: int
    epochs: int
    params: int | None
    flops: int | None
    memory_predicted_gib: float | None
    memory_peak_gib: float | None
    memory_parts_gib: Mapping[str, float]
    scores: Mapping[str, float | None]
    fps: float | None
    train_s: float | None
    gpu_s: float | None
    device: str | None
    calibration: Mapping[str, Any] | None
    checkpoint: str | None
    fail_reason: str | None
    infeasible_reason: str | None
    attributes: Mapping[str, Any]

    @classmethod
    def from_attributes(
        cls, number: int, state: str, value: float | None, attributes: Mapping[str, Any]
    ) -> Self:
        """A row from Optuna's number, state and first value of a trial and its user attributes.

        With an `infeasible_reason` among them the state is `INFEASIBLE`, whatever Optuna calls it.
        """
        get = attributes.get
        names = [*(metric.name for metric in METRICS), *(m.test_name for m in TEST_METRICS)]
        return cls(
            number=number,
            state="INFEASIBLE" if "infeasible_reason" in attributes else state,
            value=value,
            layout=get("layout"),
            role=get("role", ""),
            replicate=get("replicate", 0),
            epochs=get("epochs", 0),
            params=get("params"),
            flops=get("flops"),
            memory_predicted_gib=get("memory_predicted_gib"),
            memory_peak_gib=get("memory_peak_gib"),
            memory_parts_gib=get("memory_parts_gib") or {},
            scores={name: attributes[name] for name in names if name in attributes},
            fps=get("fps"),
            train_s=get("train_s"),
            gpu_s=get("gpu_s"),
            device=get("device"),
            calibration=get("calibration"),
            checkpoint=get("checkpoint"),
            fail_reason=get("fail_reason"),
            infeasible_reason=get("infeasible_reason"),
            attributes=attributes,
        )

    @property
    def map(self) -> float | None:
        """COCO mAP on the validation split, 0 to 1."""
        return self.scores.get("map")

    @property
    def latency_ms(self) -> float | None:
        """Milliseconds of the backbone for one image; None where the search does not look at it."""
        found: float | None = self.attributes.get("latency_ms")
        return found

    @property
    def memory_gib(self) -> float | None:
        """Peak of a training step in GiB: measured where it was measured, else predicted."""
        return measured_or_predicted_gib(self.attributes)

    @property
    def reason(self) -> str | None:
        """Why the trial is infeasible or failed; None where it did neither.

        A trial can have both reasons: its driver died while it recorded a failure, and the next
        one found it too large. The second decides its state, and so it is the one told.
        """
        return self.infeasible_reason or self.fail_reason

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: number, state, value and the trial's attributes as they are."""
        first = {"number": self.number, "state": self.state, "value": self.value}
        return {**first, **self.attributes}


@dataclass(frozen=True)
class LeaderboardRow(TrialRow):
    """A completed candidate within the budget, and what other trainings of its layout say of it.

    Args:
        replicates: how many trainings with other seeds than the first have completed.
        map_again: mean of their mAP; None without any.
        within_noise: the candidate may be as good as the first row, as far as the deviation
            between seeds tells; None where no layout was trained with several seeds.
        pareto: no other candidate beats it in every objective; None with one objective.
        map_expected: posterior mean of the layout's mAP, by the model of sampler `multifidelity`
            from all candidates; None where it was not asked or too little is trained.
        map_low: lower end of the 95 % interval of the layout's mAP, by the same model.
        map_high: its upper end.
    """

    replicates: int
    map_again: float | None
    within_noise: bool | None
    pareto: bool | None
    map_expected: float | None = None
    map_low: float | None = None
    map_high: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON: that of the trial and the fields of this class, `pareto` and what is expected
        where it is told.
        """
        more = {
            "replicates": self.replicates,
            "map_again": self.map_again,
            "within_noise": self.within_noise,
        }
        told = {
            name: getattr(self, name)
            for name in ("pareto", "map_expected", "map_low", "map_high")
            if getattr(self, name) is not None
        }
        return {**super().to_dict(), **more, **told}


@dataclass(frozen=True)
class BaselineRow:
    """A published backbone at the memory of the search, beside the best candidate.

    Args:
        name: of the backbone.
        layout: its layout at the memory of the search.
        memory_predicted_gib: predicted peak of a training step, GiB.
        trainings: how many have completed.
        map: mean of their mAP; None without any.
        deviation: standard deviation of their mAP; None with fewer than two.
        difference: mAP of the best candidate minus `map`; None where one of the two has no score.
        difference_low, difference_high: 95 % interval of the difference (Welch's t-test); None
            where one of the two has fewer than two scores.
        verdict: the best candidate is `better`, `worse` or `within noise`; or `no interval`,
            `the best itself`, `no candidate yet`, or why the baseline was not trained.
    """

    name: str
    layout: str
    memory_predicted_gib: float
    trainings: int
    map: float | None
    deviation: float | None
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


@dataclass(frozen=True)
class SearchFindings:
    """What a search has found.

    Args:
        study: its name.
        ended: candidates that reached a worker and ended COMPLETE, PRUNED or infeasible.
        stop_reason: why there are fewer than asked for; None where there are not.
        refusals: attribute `nas_refusals` of the study, see `nas.study.schema`.
        leaderboard: completed candidates within the budget, the best first.
        baselines: published backbones beside the best candidate.
    """

    study: str
    ended: int
    stop_reason: str | None
    refusals: Mapping[str, Any]
    leaderboard: Sequence[LeaderboardRow]
    baselines: Sequence[BaselineRow]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, as `nas submit --json` prints it."""
        return {
            "study": self.study,
            "ended": self.ended,
            "stop_reason": self.stop_reason,
            "refusals": self.refusals,
            "leaderboard": [row.to_dict() for row in self.leaderboard],
            "baselines": [row.to_dict() for row in self.baselines],
        }


def measured_or_predicted_gib(attributes: Mapping[str, Any]) -> float | None:
    """Peak memory of a training step in GiB from the attributes of a trial: measured where there
    was a GPU to measure it on, else predicted; None where neither is recorded.
    """
    peak: float | None = attributes.get("memory_peak_gib")
    return peak or attributes.get("memory_predicted_gib")
