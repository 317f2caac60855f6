"""The study is the truth: it decides what is trained next and keeps everything that came of it.

A driver asks `next`, trains what it is given, calls `report` after every epoch and one of
`complete`, `prune`, `fail` and `infeasible` at the end. States mean what they say: COMPLETE ended
by its recipe, PRUNED was stopped by the pruner or proved too large for the budget
(`infeasible_reason`), FAIL is an error and releases its layout. Trials that a dead driver left
RUNNING are handed out again first, under their own number, with their checkpoint.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import InMemoryStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from nas.artifacts.trial_files import TrialFiles, check_output, drop_result
from nas.config.spec import SearchSpec
from nas.reports import DatasetSummary, EpochReport
from nas.reports.trials import measured_or_predicted_gib
from nas.search.baselines import equalized
from nas.search.budget import Budget
from nas.search.extra_trials import ExtraTrial, ExtraTrials
from nas.search.layout_filter import LayoutFilter
from nas.search.pruners import make_pruner
from nas.search.samplers import BudgetedSampler, distributions, make_sampler, suggest
from nas.search.warm_start import earlier_studies, take_over
from nas.study.events import Event
from nas.study.leaderboard import TOP, ranked
from nas.study.lease import lease_of
from nas.study.optuna_internals import CandidateStudy, reopen_trial, start_trial
from nas.study.provenance import match_or_describe
from nas.study.retry import retry_while_unreachable
from nas.study.roles import CANDIDATE
from nas.study.storage import open_storage
from nas.study.trials import TrialTable
from nas.utils.formatting import GIB, gib
from nas.utils.paths import to_path
from search_spaces.layout import Layout

FAILS_IN_A_ROW = 10
_MAXIMIZED = ("map", "fps")


@dataclass(frozen=True)
class TrialAssignment:
    """One candidate to train: its trial number, its layout, its seed and the folder of its
    files.
    """

    number: int
    layout: Layout
    seed: int
    folder: Path
    memory_predicted_bytes: int


class Search:
    """One search in its database, for the one process that drives it.

    Args:
        spec: the request.
        facts: of the checked data set.
        on_event: told of everything that happens to a trial.
        storage: in place of the database that the request names: Optuna's in memory, for searches
            that nobody keeps.

    Raises:
        StudyError: a study of that name exists and is no search, or was made from another request;
            or nothing in the space fits into the budget; or the output folder cannot be written.
    """

    def __init__(
        self,
        spec: SearchSpec,
        facts: DatasetSummary,
        on_event: Callable[[Event], None] = lambda event: None,
        storage: InMemoryStorage | None = None,
    ) -> None:
        self.spec, self.facts, self.on_event = spec, facts, on_event
        self.budget = Budget(spec, facts)
        self.space = self.budget.space
        self.stop_reason: str | None = None  # why there are fewer candidates than asked for
        self.failed = False  # too many in a row: nothing more is started
        self.halted: str | None = (
            None  # why nothing more can be started, though the search is not over
        )
        first = [Layout.parse(text) for text in spec.search.try_first]
        listed = first if spec.search.try_only else []
        self.filter = LayoutFilter(
            self.budget, lambda: self.table.trained_layout_ids(spec.run.retries), listed
        )
        self.budget.check(self.filter.resolve)
        earlier = earlier_studies(spec)
        check_output(spec.run.output)
        self.storage = storage or open_storage(spec.storage, create=True)
        at_cost_in = self.budget if spec.search.prune_at == "cost" else None
        warmup = spec.recipe.warmup_epochs(facts.train_images)
        optuna.create_study(
            study_name=spec.study,
            storage=self.storage,
            load_if_exists=True,
            directions=[
                "maximize" if name in _MAXIMIZED else "minimize" for name in spec.search.objectives
            ],
        )
        pruner = make_pruner(spec.search.pruner, warmup, spec.recipe.epochs, at_cost_in)
        self.study = CandidateStudy(spec.study, self.storage, pruner=pruner)
        self.table = TrialTable(self.study, self.storage)
        self.beside = ExtraTrials(spec, self.table, self._baselines)
        self._lease = lease_of(self.storage, spec.study)
        with self._lease.exclusive():
            match_or_describe(
                self.study, bool(self.table.trials), spec, facts, self.budget.limit_bytes
            )
        self._lease.study_uuid = self.study.user_attrs["nas_uuid"]
        self.files = TrialFiles(
            spec.run.output, spec.study, self._lease.study_uuid, self._lease.token
        )
        base = (
            None
            if listed
            else make_sampler(spec.search.sampler, spec.search.seed + len(self.table.candidates))
        )
        self.study.sampler = BudgetedSampler(base, self.filter, [] if listed else first)
        self._mine: dict[int, Trial] = {}
        self._known: dict[int, dict[str, Any]] = {}  # attributes of the trials in our hands
        self._reported: dict[int, set[int]] = {}  # their epochs
        self._deaths: Counter[int] = Counter()
        self._noted: dict[str, Any] = {}
        self._learn_memory()
        self._warm_start(earlier)

    # ----------------------------------------------------------------------------------------------

    @retry_while_unreachable
    def ask(self) -> TrialAssignment | None:
        """The next candidate, or None when there is nothing to start now: see `finished` and
        `stop_reason`.
        """
        with self._lease.exclusive():
            self.table.read()
            if self.halted:
                return None
            for left_behind in self._left_behind():
                if adopted := self._adopt(left_behind):
                    return adopted
            if self.failed:
                return None
            if self.table.started < self.spec.search.trials and not self._exhausted():
                trial = self.study.ask(distributions(self.space))
                self._lease.take(trial.number)
                self._note_refusals()
                return self._describe(trial)
            return self._begin(extra) if (extra := self.beside.next()) else None

    @property
    @retry_while_unreachable
    def finished(self) -> bool:
        """Nothing runs here and nothing is left to start; other drivers may still be busy."""
        self.table.read()
        if self.halted:
            return not self._mine
        if self._mine or self._left_behind():
            return False
        enough = self.stop_reason is not None or self.table.started >= self.spec.search.trials
        return self.failed or (enough and self.beside.next() is None)

    def refusals(self) -> dict[str, Any]:
        """What was not trained, and why: see `nas.study.schema`."""
        unsolved = [
            (fit.pattern, str(fit.layout), gib(fit.peak_bytes)) for fit in self.budget.unsolved
        ]
        patterns = {
            pattern: {"layout": layout, "memory_predicted_gib": size}
            for pattern, layout, size in unsolved
        }
        return {**self.filter.refusals(), "patterns": patterns}

    @property
    def running(self) -> int:
        """Trials that this process has handed out and not heard the end of."""
        return len(self._mine)

    def is_running(self, number: int) -> bool:
        """Whether this process has handed out a trial and not heard its end."""
        return number in self._mine

    @property
    @retry_while_unreachable
    def ended(self) -> int:
        """Candidates that reached a worker and ended COMPLETE, PRUNED or infeasible."""
        self.table.read()
        return self.table.ended

    def lease(self) -> AbstractContextManager[None]:
        """Be known as a driver of the study; see `Lease.held`."""
        return self._lease.held()

    # ---------------------------------------------------------------------------------------------

    @retry_while_unreachable
    def report(self, number: int, report: EpochReport, *, gpus: float = 0.0) -> bool:
        """Keep an epoch's results. Returns whether the trial is to go on: not after the last epoch,
        or when it was pruned or belongs to another driver by now.
        """
        if self._lost(number):
            return False
        trial, alone = self._mine[number], len(self.spec.search.objectives) == 1
        if alone and report.epoch not in self._reported[number]:
            trial.report(report.metrics.map or 0.0, report.epoch)
            self._reported[number].add(report.epoch)
        peak_bytes = report.memory_peak_bytes
        over = peak_bytes is not None and peak_bytes > self.budget.limit_bytes
        values = {
            **report.metrics.precisions(),
            "epochs": report.epoch,
            "fps": report.fps,
            "train_s": report.train_s,
            "gpu_s": report.elapsed_s * gpus,
            "device": report.device,
            "memory_peak_gib": None if peak_bytes is None else gib(peak_bytes),
            "calibration": report.calibration,
            "hardware": report.hardware,
            **report.test_scores,
        }
        if report.last and not over:
            values["checkpoint"] = str(self.files.weights(number))
        self.table.set(trial, **values)
        self._tell_watcher("epoch", number, report)
        if over:
            budget = gib(self.budget.limit_bytes)
            self._infeasible(
                number,
                f"needs {values['memory_peak_gib']} GiB, the budget is {budget} GiB",
                peak_bytes or 0,
            )
        elif report.last:
            if peak_bytes is not None:
                self.table.constrain(trial, "memory_peak", peak_bytes - self.budget.limit_bytes)
            self._finish(
                number, TrialState.COMPLETE, self._objectives(self._known[number] | values)
            )
            self._learn_memory()
            self._tell_watcher("complete", number, report)
        elif alone and self._known[number]["role"] == CANDIDATE and trial.should_prune():
            self._finish(number, TrialState.PRUNED)
            self._tell_watcher("pruned", number, report)
        return number in self._mine

    @retry_while_unreachable
    def fail(self, number: int, reason: str) -> None:
        """The candidate ended by an error; its layout may be tried again."""
        if not self._lost(number):
            self._fail(number, reason)

    @retry_while_unreachable
    def infeasible(self, number: int, reason: str, peak_bytes: int) -> None:
        """The candidate was measured to need more than the budget: never the best, never tried
        again.
        """
        if not self._lost(number):
            self._infeasible(number, reason, peak_bytes)

    @retry_while_unreachable
    def requeue(self, number: int, reason: str) -> None:
        """The candidate's worker died, perhaps through no fault of its own: it goes on from its
        checkpoint, `run.retries` times at most.
        """
        if self._lost(number):
            return
        self._deaths[number] += 1
        if self._deaths[number] > self.spec.run.retries:
            self._fail(number, f"{reason}, {self._deaths[number]} times")
            return
        del self._mine[number]
        self._tell_watcher("requeued", number, reason=reason)

    def on_away(self, reason: str, pause_s: float) -> None:
        """The database does not answer; the call is repeated after a pause."""
        self._note(f"the database is away ({reason}); trying again in {pause_s} s")

    def suspend(self, number: int, reason: str) -> None:
        """Put a trial down, as it is, for the next driver: what stops it would stop every other
        one.
        """
        self.halted = reason
        del self._mine[number]
        self._tell_watcher("halted", number, reason=reason)

    # ----------------------------------------------------------------------------------------------

    def _fail(self, number: int, reason: str) -> None:
        self.table.set(self._mine[number], fail_reason=reason)
        self._finish(number, TrialState.FAIL)
        self._tell_watcher("failed", number, reason=reason)
        if self.table.fails_in_a_row() >= FAILS_IN_A_ROW:
            self.failed = True
            self.stop_reason = (
                f"{FAILS_IN_A_ROW} candidates in a row failed, the last with: {reason}"
            )

    def _infeasible(self, number: int, reason: str, peak_bytes: int) -> None:
        trial = self._mine[number]
        self.table.set(trial, infeasible_reason=reason, memory_peak_gib=gib(peak_bytes))
        self.table.constrain(trial, "memory_peak", max(peak_bytes - self.budget.limit_bytes, 1))
        self._finish(number, TrialState.PRUNED)
        self._tell_watcher("infeasible", number, reason=reason)

    def _lost(self, number: int) -> bool:
        """Whether another driver has the trial, because it took this one for dead: what comes of it
        here does not count.
        """
        if number not in self._mine:
            return True
        if self._lease.owns(number):
            return False
        del self._mine[number]
        self._tell_watcher("lost", number, reason="taken over by another driver")
        return True

    def _learn_memory(self) -> None:
        """Correct the prediction by what completed trials were measured to need, on the card of the
        latest.
        """
        done = [
            t
            for t in self.table.trained
            if t.state == TrialState.COMPLETE and t.user_attrs.get("memory_peak_gib")
        ]
        if not done:
            return
        device = max(
            (trial.datetime_complete, trial.number, trial.user_attrs["device"]) for trial in done
        )[2]
        seen = [trial.user_attrs for trial in done if trial.user_attrs["device"] == device]
        pairs = [
            (Layout.parse(known["layout"]), round(known["memory_peak_gib"] * GIB)) for known in seen
        ]
        self.study.set_user_attr(
            "nas_memory_correction", asdict(self.budget.fit_correction(device, pairs))
        )
        self.filter.clear_cache()

    def _warm_start(self, studies: list[optuna.Study]) -> None:
        """Every time: what was taken over is not taken again, what has been trained there since
        is.
        """
        for earlier in studies:
            with self._lease.exclusive():
                self.table.read()
                fingerprint = self.facts.fingerprint
                self._note(
                    take_over(
                        self.table, earlier, self.spec, fingerprint, self.filter, self._objectives
                    )
                )
            self.table.read()

    def _objectives(self, known: dict[str, Any]) -> list[float]:
        """The values of a trial with these attributes."""
        memory_gib = measured_or_predicted_gib(known)
        values = {**known, "map": known["map"] or 0.0, "memory": memory_gib}
        return [float(values[name]) for name in self.spec.search.objectives]

    def _finish(self, number: int, state: TrialState, values: list[float] | None = None) -> None:
        self.study.tell(number, values, state, skip_if_finished=True)
        self.table.read()
        self._tidy(number)
        del self._mine[number]

    def _exhausted(self) -> bool:
        if not self.filter.exhausted():
            return False
        reason = "search.try exhausted" if self.filter.listed else "space exhausted"
        self.stop_reason = self.stop_reason or (reason if not self._mine else None)
        return True

    def _describe(self, trial: Trial) -> TrialAssignment:
        layout = self.filter.resolve(self.space.decode(trial.params))
        assert layout
        known = {
            **self.budget.figures(layout),
            "role": CANDIDATE,
            "replicate": 0,
            "seed": self.spec.search.seed,
        }
        self.table.set(trial, **known)
        self.table.constrain(trial, "memory_predicted", self._excess_bytes(layout))
        return self._assign(trial, layout, known, set())

    def _begin(self, extra: ExtraTrial) -> TrialAssignment:
        """A trial that no sampler chose, described from its first moment."""
        seed = (self.spec.search.seed + extra.replicate) % 2**31
        known = {
            **self.budget.figures(extra.layout),
            "role": extra.role,
            "replicate": extra.replicate,
            "seed": seed,
        }
        trial = start_trial(self.study, known)
        self._lease.take(trial.number)
        self.table.constrain(trial, "memory_predicted", self._excess_bytes(extra.layout))
        return self._assign(trial, extra.layout, known, set())

    def _excess_bytes(self, layout: Layout) -> int:
        return self.budget.predicted_bytes(layout) - self.budget.limit_bytes

    def _baselines(self) -> list[Layout]:
        """Chosen once in a study: what it measures may change predictions later."""
        if "nas_baselines" not in self.study.user_attrs:
            self.study.set_user_attr(
                "nas_baselines", [baseline.to_dict() for baseline in equalized(self.budget)]
            )
        return [Layout.parse(known["layout"]) for known in self.study.user_attrs["nas_baselines"]]

    def _adopt(self, left_behind: FrozenTrial) -> TrialAssignment | None:
        """Go on with a trial of a dead driver; None where it cannot be, and is a failure."""
        trial = reopen_trial(self.study, left_behind)
        before = self._lease.take(trial.number)
        if before:
            self.files.inherit(trial.number, before)
        if "layout" in left_behind.user_attrs:
            layout = Layout.parse(left_behind.user_attrs["layout"])
            return self._assign(
                trial, layout, left_behind.user_attrs, set(left_behind.intermediate_values)
            )
        # Its driver died while it was choosing: choose what is missing.
        parameters = {
            name: suggest(trial, name, distribution)
            for name, distribution in distributions(self.space).items()
        }
        if self.filter.accept(self.space.decode(parameters)):
            return self._describe(trial)
        self._mine[trial.number], self._known[trial.number] = trial, {}
        self._fail(trial.number, "the driver died before it had chosen a layout")
        return None

    def _assign(
        self, trial: Trial, layout: Layout, known: dict[str, Any], reported: set[int]
    ) -> TrialAssignment:
        number, predicted_bytes = trial.number, self.budget.predicted_bytes(layout)
        self._mine[number], self._known[number], self._reported[number] = trial, known, reported
        self._tell_watcher("started", number, memory_predicted_bytes=predicted_bytes)
        return TrialAssignment(
            number, layout, known["seed"], self.files.folder(number), predicted_bytes
        )

    def _left_behind(self) -> list[FrozenTrial]:
        """Trials of dead drivers, and of this one's dead workers."""
        running = [trial for trial in self.table.running if trial.number not in self._mine]
        theirs = self._lease.of_others() if running else set()
        return [trial for trial in running if trial.number not in theirs]

    def _note_refusals(self) -> None:
        if self._noted != (refusals := self.refusals()):
            self.study.set_user_attr("nas_refusals", refusals)
            self._noted = refusals

    def _note(self, text: str) -> None:
        self.on_event(Event("note", -1, "", reason=text))

    def _tell_watcher(
        self, kind: str, number: int, report: EpochReport | None = None, **more: Any
    ) -> None:
        known = self._known[number]
        role, replicate = known.get("role", CANDIDATE), known.get("replicate", 0)
        self.on_event(
            Event(
                kind,
                number,
                known.get("layout", ""),
                report,
                role=role,
                replicate=replicate,
                **more,
            )
        )

    def _tidy(self, number: int) -> None:
        """Checkpoints are for running trials, weights and drawn detections for the best few."""
        self.files.drop_checkpoints(number)
        kept = max(self.spec.run.keep_best, TOP if self.spec.search.replicates > 1 else 1)
        dropped = ranked(self.table.trained)[kept:]
        dropped += [self.table[number]] if self._known[number].get("replicate") else []
        for trial in dropped:
            if weights := trial.user_attrs.get("checkpoint"):
                drop_result(to_path(weights))
