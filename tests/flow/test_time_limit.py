"""From a folder to a bundle in a given time; of the seconds only that they end is looked at, for
machines are busy.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from helpers.candidates import candidate, comparable, part
from helpers.commands import Run, run_here
from helpers.studies import trials_so_far
from torch import Tensor

import nas as package
from nas.api.callbacks import TrainingCallback
from nas.api.finishing import search_and_finish
from nas.artifacts.paths import WEIGHTS
from nas.config.spec import SearchSpec, load_spec
from nas.data.coco import CocoSplit
from nas.data.validation import check_split
from nas.errors import OutOfTime, StudyError
from nas.reports import EpochReport, PretrainingReport
from nas.study.leaderboard import load_study
from nas.study.storage import open_storage
from nas.training.candidate import train_candidate
from nas.training.pace import TimeSlot

SMALL = ("--space", "tiny", "--detector", "fcos", "--image-size", "48", "--epochs", "2")


@pytest.fixture(scope="module")
def splits(digits: Path) -> tuple[CocoSplit, CocoSplit]:
    return check_split(digits, "train").split, check_split(digits, "val").split


def command(digits: Path, folder: Path, *words: object) -> tuple[object, ...]:
    where = ("--storage", f"sqlite:///{folder}/nas.db", "--output", folder / "runs")
    return ("nas-submit", "--local", "--study", "timed", "--data", digits, *SMALL, *where, *words)


def request(digits: Path, folder: Path, **flags: object) -> SearchSpec:
    small = {"space": "tiny", "detector.name": "fcos", "recipe.image_size": 48, "recipe.epochs": 2}
    where = {"storage": f"sqlite:///{folder}/nas.db", "run.output": str(folder / "runs")}
    asked = {"study": "timed", "data.root": str(digits), "search.trials": 1, **small, **where}
    return load_spec(None, {**asked, **flags})


def test_a_time_limit_ends_in_a_bundle(digits: Path, tmp_path: Path, nas: Run):
    ended = run_here(*command(digits, tmp_path, "--time-limit", "75s"))
    assert ended.code == 0, ended.err
    assert "time limit 75 s" in ended.err
    bundle = Path(ended.out.splitlines()[-1].partition(": ")[0])
    assert nas("verify", bundle).code == 0

    storage = f"sqlite:///{tmp_path}/nas.db"
    winner = load_study(open_storage(storage, create=False), "timed").user_attrs["nas_winner"]
    assert winner["done"]
    opened = package.load_study(storage, "timed").bundle
    assert opened is not None
    assert opened.folder == bundle
    assert opened.layout == winner["layout"]
    trials = len(trials_so_far(storage, "timed"))

    again = run_here(*command(digits, tmp_path, "--time-limit", "75s"))
    assert again.code == 0, again.err
    assert "nothing was left to do" in again.out
    assert again.out.splitlines()[-1] == ended.out.splitlines()[-1]
    assert len(trials_so_far(storage, "timed")) == trials


class Interrupting(TrainingCallback):
    """Ctrl-C in the first step after an epoch was reported."""

    def __init__(self) -> None:
        self.epochs: list[int] = []

    def on_report(self, report: EpochReport | PretrainingReport) -> None:
        self.epochs.append(report.epoch)

    def on_step(self, step: int, steps: int, loss: Tensor | float) -> None:
        if self.epochs:
            raise KeyboardInterrupt


def test_the_full_training_goes_on_after_an_interrupt(digits: Path, tmp_path: Path):
    """One candidate, and the rest of half an hour for its full training, which nobody waits for."""
    spec = request(digits, tmp_path, **{"search.time_limit": "30m"})
    for epochs in ([1], [1, 2], [2, 3]):  # the last report comes again
        seen = Interrupting() if len(epochs) == 1 else Twice()
        with pytest.raises(KeyboardInterrupt):
            search_and_finish(spec, training=lambda seen=seen: seen, local=True)
        assert seen.epochs == epochs
    study = load_study(open_storage(spec.storage, create=False), "timed")
    assert len(study.trials) == 1
    assert len(study.user_attrs["nas_commands"]) == 3
    assert not study.user_attrs["nas_winner"]["done"]
    assert package.load_study(spec.storage, "timed").bundle is None

    study.set_user_attr("nas_commands", {"yesterday": [0.0, 1800.0]})  # all of the time
    found = search_and_finish(spec, local=True)
    assert found.bundle is not None  # of what was trained until then, unless the candidate's
    assert not any("there was no time left" in note for note in found.notes)


class Twice(Interrupting):
    """Ctrl-C in the first step after two reports."""

    def on_step(self, step: int, steps: int, loss: Tensor | float) -> None:
        if len(self.epochs) == 2:
            raise KeyboardInterrupt


def test_without_a_limit_the_winner_is_trained_four_times_as_long(digits: Path, tmp_path: Path):
    spec = request(
        digits,
        tmp_path,
        **{"search.finish": "train", "recipe.epochs": 1, "search.baselines": False},
    )
    found = search_and_finish(spec, local=True)
    opened = package.load_study(spec.storage, "timed").bundle
    assert opened is not None
    assert opened.folder == found.bundle
    exported = opened.figures["map"] == found.search.table.trials[0].values[0]
    assert opened.figures["epochs"] == (1 if exported else 4)


def test_what_is_too_short_says_what_it_needs(digits: Path, tmp_path: Path):
    spec = request(digits, tmp_path, **{"search.time_limit": "1s"})
    with pytest.raises(StudyError, match=r"the time limit must be at least .* got 1\.0 s"):
        search_and_finish(spec, local=True)
    assert not (tmp_path / "nas.db").exists()


def test_a_run_whose_time_is_over_stops_between_two_steps(
    tmp_path: Path, splits: tuple[CocoSplit, CocoSplit]
):
    """And goes on, where there is more time, as if nothing had happened."""
    whole = list(train_candidate(candidate(tmp_path / "whole"), *splits))
    stopped = candidate(tmp_path / "stopped", stop_at=0.0)
    with pytest.raises(OutOfTime):
        next(train_candidate(stopped, *splits))
    assert part(stopped.folder, "extra")["steps"] == 1
    reports = list(train_candidate(dataclasses.replace(stopped, stop_at=None), *splits))
    assert [*map(comparable, reports)] == [*map(comparable, whole)]


def test_a_training_without_any_time_is_a_step_and_its_score(
    tmp_path: Path, splits: tuple[CocoSplit, CocoSplit]
):
    late = candidate(tmp_path, slot=TimeSlot(ends_at=0.0, step_s=1.0, score_s=1.0))
    (report,) = train_candidate(late, *splits)
    assert (report.epoch, report.epochs, report.last) == (1, 1, True)
    assert report.lr == late.recipe.lr  # of one step, which is the first
    assert (tmp_path / WEIGHTS).exists()
