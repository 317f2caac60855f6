"""The winner of a search that has ended: which it is, its full training, its bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial

from nas.api.callbacks import TrainingCallback, TrainingCallbackList
from nas.api.finishing import Finished
from nas.api.training import train_bundle, work_folder
from nas.artifacts.history import read_reports
from nas.config.spec import SearchSpec
from nas.errors import CandidateError, StudyError
from nas.export.bundle import read_description
from nas.export.from_study import write_trial
from nas.export.manifest import MANIFEST
from nas.planning.lengthening import with_epochs
from nas.search.search import Search
from nas.search.time_limit.division import ONNX_FROM_S
from nas.search.time_limit.plan import TimePlan
from nas.study.attributes import study_attributes
from nas.study.leaderboard import leaderboard
from nas.study.time_account import TimeAccount
from nas.training.pace import TimeSlot, fitting_steps
from nas.utils.folders import remove_claimed
from nas.utils.formatting import percent
from search_spaces.layout import Layout
from workers.resources import runs_elsewhere

if TYPE_CHECKING:
    from torch import Tensor

FULL_TIMES = 4  # epochs of a candidate that its full training has without a time limit
END_S = 2.0  # from the last epoch on, to draw a few images


class Winner:
    """The winner of a search and the folder of its bundle.

    Args:
        search: a search that has ended.
        out: the folder.
    """

    def __init__(self, search: Search, out: Path) -> None:
        self.search, self.spec, self.out, self.plan = search, search.spec, out, search.plan
        self.best = next(iter(leaderboard(search.study)), None)
        self.known: dict[str, Any] = dict(study_attributes(search.study).get("nas_winner", {}))

    def finish(self, training: Callable[[], TrainingCallback]) -> Finished:
        """Do what the request says, unless that has been done.

        Args:
            training: makes the callback of the full training, when that begins.

        Raises:
            StudyError: there is neither a candidate that completed nor the time for a training.
            UserError, CandidateError: as `nas.api.training.train_bundle`.
        """
        if self._is_done():
            return self._finished("nothing was left to do")
        if self.spec.search.finish == "export" or runs_elsewhere(self.spec):
            return self._exported()
        if self.plan and not self._goes_on() and self._steps() is None:
            return self._exported("there was no time left to train it in full")
        return self._trained(training())

    def _is_done(self) -> bool:
        """Whether a command with the same limit, and the same winner, has been here before."""
        done = self._is_known() and bool(self.known["done"])
        return done and (self.out / MANIFEST).exists()

    def _goes_on(self) -> bool:
        """Whether such a command has begun the full training, which has come to an epoch's end."""
        return self._is_known() and bool(read_reports(work_folder(self.out)))

    def _is_known(self) -> bool:
        return {**self.known, **self._task()} == self.known

    def _task(self) -> dict[str, Any]:
        """What is done, for the next command to know."""
        limit_s = self.plan.division.limit_s if self.plan else None
        return {
            "finish": self.spec.search.finish,
            "layout": str(self._layout()),
            "limit_s": limit_s,
        }

    def _layout(self) -> Layout:
        return self._chosen()[0]

    def _chosen(self) -> tuple[Layout, str]:
        """The layout, and why it is that: the best that completed, else the best so far, else a
        typical one.
        """
        if self.best:
            return Layout.parse(self.best.user_attrs["layout"]), "the best candidate"
        scored = [trial for trial in self.search.table.candidates if trial.intermediate_values]
        if likely := max(scored, key=_last_score, default=None):
            layout = Layout.parse(likely.user_attrs["layout"])
            return layout, "no candidate has ended, and this was the best until then"
        assert self.plan
        tried = "no candidate has ended an epoch" if self.plan.division.candidates else "no search"
        chosen = "the first of search.try" if self.spec.search.try_first else "of median size"
        return self.plan.typical.layout, f"{chosen}: {tried}"

    def _steps(self) -> int | None:
        """Steps of the full training that fit into the time; None where it is not worth while."""
        assert self.plan
        slot, n = self._slot(self.plan), self.plan.typical.steps_per_epoch
        left_s = self.plan.left_s - self.plan.typical.cost.begin_s - slot.end_s
        if left_s < slot.score_s + slot.step_s:
            return None
        steps = fitting_steps(left_s, slot.step_s, slot.score_s, n)
        return None if self.best and steps < n * self.best.user_attrs["epochs"] else steps

    def _slot(self, plan: TimePlan) -> TimeSlot:
        """When the training ends, by what the winner took as a candidate where that is known."""
        cost, known = plan.typical.cost, self.best.user_attrs if self.best else {}
        slower = known["train_s"] / known["epochs"] / cost.train_s if known else 1.0
        slower = slower or 1.0
        return TimeSlot(
            plan.ends_at - plan.division.reserve_s,
            slower * cost.train_s / plan.typical.steps_per_epoch,
            slower * (cost.epoch_s - cost.train_s),
            slower * cost.end_s + END_S,
        )

    def _epochs(self) -> int:
        """Epochs of the full training; those that it began with, where it goes on."""
        if self._is_known():
            return int(self.known["epochs"])
        remove_claimed(work_folder(self.out))  # of another training
        if not self.plan:
            return FULL_TIMES * self.spec.recipe.epochs
        return max(1, round((self._steps() or 1) / self.plan.typical.steps_per_epoch))

    def _trained(self, callback: TrainingCallback) -> Finished:
        search, plan, epochs, (layout, why) = self.search, self.plan, self._epochs(), self._chosen()
        callback.on_note(f"full training of {layout} ({why})")
        self._note(epochs=epochs, done=False)
        onnx = not plan or plan.division.limit_s >= ONNX_FROM_S
        account = plan.account(search.study) if plan else None
        try:
            with search.lease():
                trained, left_out = train_bundle(
                    layout,
                    self._full(epochs),
                    self.out,
                    TrainingCallbackList((callback, _Noting(account))),
                    onnx=onnx,
                    slot=self._slot(plan) if plan else None,
                )
        except CandidateError as error:
            if not self.best:
                raise
            return self._exported(f"its full training ended: {error}")
        score = trained.figures["map"]
        if self.best and (score or 0.0) < self.best.values[0]:
            return self._exported(f"its full training reached {percent(score)}, which is less")
        self._note(epochs=epochs, done=True)
        return self._finished(
            *(left_out if onnx else ["ONNX files take minutes: a limit of 1h or more has them"])
        )

    def _full(self, epochs: int) -> SearchSpec:
        spec = with_epochs(
            self.spec, epochs, self.search.facts.train_images, "the winner's full training"
        )
        if spec.recipe.keep != "last":
            return spec
        recipe = spec.recipe.model_copy(update={"keep": "best"})
        return spec.model_copy(update={"recipe": recipe})

    def _exported(self, *notes: str) -> Finished:
        if not self.best:
            raise StudyError(
                f"study {self.spec.study!r} has nothing to export, and no time is left: the same "
                "command with a longer --time-limit goes on"
            )
        left_out = write_trial(self.out, self.search.study, self.best, onnx=not self.plan)
        self._note(epochs=self.spec.recipe.epochs, done=True)
        trial = f"the bundle has the weights of trial {self.best.number}"
        return self._finished(*(f"{trial}: {note}" for note in notes), *left_out)

    def _note(self, *, epochs: int, done: bool) -> None:
        written = {**self._task(), "epochs": epochs, "bundle": str(self.out), "done": done}
        self.search.study.set_user_attr("nas_winner", written)

    def _finished(self, *notes: str) -> Finished:
        trained = read_description(self.out)
        if self.plan:
            self.plan.account(self.search.study).note(at_once=True)
        score = trained.figures.get("map")
        return Finished(self.search, self.out, str(trained.layout), score, notes)


def _last_score(trial: FrozenTrial) -> float:
    return float(trial.intermediate_values[max(trial.intermediate_values)])


class _Noting(TrainingCallback):
    """Notes that the command runs."""

    def __init__(self, account: TimeAccount | None) -> None:
        self.account = account

    def on_step(self, step: int, steps: int, loss: Tensor | float) -> None:
        if self.account:
            self.account.note()
