"""What a search trains next: what a dead driver left, then candidates, then what is trained beside
them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial, Trial

from nas.search.equalizer import PatternFit
from nas.search.extra_trials import ExtraTrial, ExtraTrials, beside_candidates
from nas.search.parts import SearchParts
from nas.search.running import RunningTrial
from nas.search.samplers import distributions, suggest
from nas.study.optuna_internals import reopen_trial, start_trial
from nas.study.roles import CANDIDATE
from nas.utils.formatting import gib
from search_spaces.layout import Layout


@dataclass(frozen=True)
class TrialAssignment:
    """One training to be done.

    Attributes:
        number: of the trial in its study.
        layout: what is trained.
        seed: of initialisation, data order and augmentation.
        folder: where the trial's files go; it may hold a checkpoint to go on from.
        memory_predicted_bytes: predicted peak of allocated GPU memory.
    """

    number: int
    layout: Layout
    seed: int
    folder: Path
    memory_predicted_bytes: int


class TrialQueue:
    """Hands out the trainings of one search. The caller reads the table before each call and lets
    one driver at a time in.

    Args:
        parts: the parts of the search.
        extra_trials: what is trained beside the candidates.
        unsolved_patterns: patterns of which no layout uses the budget.

    Attributes:
        exhausted_reason: why there are fewer candidates than asked for; None where there are not.
    """

    def __init__(
        self, parts: SearchParts, extra_trials: ExtraTrials, unsolved_patterns: list[PatternFit]
    ) -> None:
        self.spec, self.budget, self.study = parts.spec, parts.budget, parts.study
        self.table, self.lease, self.layout_filter = parts.table, parts.lease, parts.layout_filter
        self.files, self.running, self.callback = parts.files, parts.running, parts.callback
        self.extra_trials, self.unsolved_patterns = extra_trials, unsolved_patterns
        self.clock = parts.clock
        self.exhausted_reason: str | None = None
        self._recorded_refusals: dict[str, Any] = {}

    def left_behind(self) -> list[FrozenTrial]:
        """List the running trials that nobody trains: those of dead drivers, and of this one's dead
        workers.
        """
        running = [trial for trial in self.table.running if trial.number not in self.running]
        of_others = self.lease.of_others() if running else set()
        return [trial for trial in running if trial.number not in of_others]

    def adopt(self, left_behind: FrozenTrial) -> TrialAssignment | None:
        """Go on with a trial that nobody trains, under its number and with its checkpoint.

        Returns:
            What is to be trained; None where the driver died before it had chosen a layout and what
            it had chosen cannot be trained. The trial is in this process's hands in any case.
        """
        trial = reopen_trial(self.study, left_behind)
        if before := self.lease.take(trial.number):
            self.files.inherit(trial.number, before)
        self.table.forget_end(trial)
        attributes = left_behind.user_attrs
        if attributes.keys() >= {"layout", "seed"}:
            reported = set(left_behind.intermediate_values)
            losses, val_losses = (
                dict(attributes.get(name, {})) for name in ("losses", "val_losses")
            )
            return self._assign(RunningTrial(trial, attributes, reported, losses, val_losses))
        parameters = {
            name: suggest(trial, name, distribution)
            for name, distribution in distributions(self.budget.space).items()
        }
        if self.layout_filter.accept(self.budget.space.decode(parameters)):
            return self._describe_candidate(trial)
        self.running.add(RunningTrial(trial))
        return None

    def next(self) -> TrialAssignment | None:
        """Begin the next candidate or, where all candidates are there, the next training beside
        them; None where there is nothing to begin now.
        """
        if self._wants_candidates() and not self._is_exhausted():
            trial = self.study.ask(distributions(self.budget.space))
            self.lease.take(trial.number)
            self._record_refusals()
            return self._describe_candidate(trial)
        extra = self.extra_trials.next() if self.has_time else None
        return self._begin_extra(extra) if extra else None

    def is_empty(self) -> bool:
        """Whether nothing is left to begin, as far as that is known while trials run."""
        if not self.has_time:
            return True
        enough = not self._wants_candidates() or self.exhausted_reason is not None
        return enough and self.extra_trials.next() is None

    @property
    def has_time(self) -> bool:
        """Whether a training that begins now can end before the time is over."""
        return self.clock is None or self.clock.may_begin()

    def _wants_candidates(self) -> bool:
        """Whether there are fewer than asked for, and the time for one more and what is trained
        beside them.
        """
        return self.table.started < self.spec.search.trials and (
            self.clock is None or self.clock.may_begin(beside_candidates(self.spec))
        )

    def refusals(self) -> dict[str, Any]:
        """Count what was not trained, and why, by the names that `nas_refusals` has in
        `nas.study.schema`.
        """
        patterns = {
            fit.pattern: {"layout": str(fit.layout), "memory_predicted_gib": gib(fit.peak_bytes)}
            for fit in self.unsolved_patterns
        }
        return {**self.layout_filter.refusals(), "patterns": patterns}

    def _is_exhausted(self) -> bool:
        if not self.layout_filter.exhausted():
            return False
        if not self.running:  # one that runs may fail, and release its layout
            what = "search.try" if self.layout_filter.listed else "space"
            self.exhausted_reason = f"{what} exhausted"
        return True

    def _describe_candidate(self, trial: Trial) -> TrialAssignment:
        layout = self.layout_filter.resolve(self.budget.space.decode(trial.params))
        assert layout  # the sampler suggests nothing else
        attributes = self._attributes(layout, CANDIDATE, 0)
        self.table.set(trial, **attributes)
        return self._assign_new(trial, layout, attributes)

    def _begin_extra(self, extra: ExtraTrial) -> TrialAssignment:
        attributes = self._attributes(extra.layout, extra.role, extra.replicate)
        trial = start_trial(self.study, attributes)
        self.lease.take(trial.number)
        return self._assign_new(trial, extra.layout, attributes)

    def _attributes(self, layout: Layout, role: str, replicate: int) -> dict[str, Any]:
        seed = (self.spec.search.seed + replicate) % 2**31
        known = {"role": role, "replicate": replicate, "seed": seed}
        return {**self.budget.figures(layout), **known}

    def _assign_new(
        self, trial: Trial, layout: Layout, attributes: dict[str, Any]
    ) -> TrialAssignment:
        excess_bytes = self.budget.predicted_bytes(layout) - self.budget.limit_bytes
        self.table.constrain(trial, "memory_predicted", excess_bytes)
        return self._assign(RunningTrial(trial, attributes))

    def _assign(self, running: RunningTrial) -> TrialAssignment:
        layout = Layout.parse(running.attributes["layout"])
        predicted_bytes = self.budget.predicted_bytes(layout)
        self.running.add(running)
        self.callback.on_event(running.event("started", memory_predicted_bytes=predicted_bytes))
        folder, seed = self.files.folder(running.number), running.attributes["seed"]
        return TrialAssignment(running.number, layout, seed, folder, predicted_bytes)

    def _record_refusals(self) -> None:
        if self._recorded_refusals != (refusals := self.refusals()):
            self.study.set_user_attr("nas_refusals", refusals)
            self._recorded_refusals = refusals
