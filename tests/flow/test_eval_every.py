"""Epochs that are not scored: the training is the same, and what is said of it is about others."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from helpers.candidates import candidate, comparable, killed_and_resumed

from nas.artifacts.history import read_reports
from nas.artifacts.paths import CURVES, LOG, WEIGHTS
from nas.data.coco import CocoSplit
from nas.data.validation import check_split
from nas.evaluation.coco import evaluate
from nas.reports import EpochReport
from nas.training.candidate import Candidate, CandidateEpochs, train_candidate
from nas.training.epochs import Epochs
from nas.training.trainer import CandidateTrainer


@pytest.fixture(scope="module")
def splits(digits: Path) -> tuple[CocoSplit, CocoSplit]:
    return check_split(digits, "train").split, check_split(digits, "val").split


@pytest.fixture
def falling(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let epoch k have the mAP 1 / k, whatever is detected."""
    score = CandidateEpochs.score

    def with_map(self: CandidateEpochs, loss: float, lr: float) -> EpochReport:
        def evaluated(*arguments: Any) -> tuple:
            metrics, *others = evaluate(*arguments)
            return dataclasses.replace(metrics, map=1 / (self.run.epoch + 1)), *others

        monkeypatch.setattr("nas.training.candidate.evaluate", evaluated)
        return score(self, loss, lr)

    monkeypatch.setattr(CandidateEpochs, "score", with_map)


def scored_every(n: int, folder: Path, checkpoint_s: float = 600, **keys: Any) -> Candidate:
    recipe = candidate(folder).recipe.model_copy(update={"eval_every": n, **keys})
    return candidate(folder, recipe=recipe, checkpoint_s=checkpoint_s)


def test_the_training_is_the_same_and_the_last_epoch_is_scored(
    tmp_path: Path, splits: tuple[CocoSplit, CocoSplit]
):
    often, seldom = (scored_every(n, tmp_path / str(n), ema=0.5) for n in (1, 2))
    expected = list(map(comparable, train_candidate(often, *splits)))
    reports = list(map(comparable, train_candidate(seldom, *splits)))
    assert [report.epoch for report in expected] == [1, 2, 3]
    assert reports == expected[1:]
    assert (seldom.folder / WEIGHTS).read_bytes() == (often.folder / WEIGHTS).read_bytes()
    assert list(map(comparable, read_reports(seldom.folder))) == reports
    assert len((seldom.folder / CURVES).read_text().splitlines()) == 1 + 2
    logged = [json.loads(line)["epoch"] for line in (seldom.folder / LOG).read_text().splitlines()]
    assert logged == [1, 2, 3]  # the loss of each


@pytest.mark.parametrize("killed_after", [1, 4, 8])
def test_a_killed_run_ends_like_one_that_was_not(
    tmp_path: Path, splits: tuple[CocoSplit, CocoSplit], falling: None, killed_after: int
):
    whole, killed = (
        scored_every(2, tmp_path / name, checkpoint_s=0, keep="best", ema=0.5)
        for name in ("whole", "killed")
    )
    expected = list(map(comparable, train_candidate(whole, *splits)))
    assert [(report.epoch, report.best_epoch) for report in expected] == [(2, 2), (3, 2)]
    assert killed_and_resumed(killed, splits, killed_after) == expected
    assert (killed.folder / WEIGHTS).read_bytes() == (whole.folder / WEIGHTS).read_bytes()


def test_a_stop_after_the_checkpoint_of_an_unscored_epoch_leaves_the_best_weights_alone(
    tmp_path: Path,
    splits: tuple[CocoSplit, CocoSplit],
    falling: None,
    monkeypatch: pytest.MonkeyPatch,
):
    made = scored_every(2, tmp_path, keep="best", epochs=4)
    run, end = train_candidate(made, *splits), CandidateTrainer.end_unscored_epoch
    next(run)
    best = (tmp_path / WEIGHTS).read_bytes()

    def end_and_stop(self: CandidateTrainer) -> None:
        end(self)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(CandidateTrainer, "end_unscored_epoch", end_and_stop)
        with pytest.raises(KeyboardInterrupt):
            next(run)
    again = train_candidate(made, *splits)
    assert next(again).epoch == 2
    assert (tmp_path / WEIGHTS).read_bytes() == best
    assert next(again).epoch == 4


def test_saturation_waits_for_scored_epochs(
    tmp_path: Path, splits: tuple[CocoSplit, CocoSplit], monkeypatch: pytest.MonkeyPatch
):
    told = Epochs.has_converged
    monkeypatch.setattr(Epochs, "has_converged", lambda self, score: told(self, 0.5))
    made = scored_every(2, tmp_path, schedule="saturate", epochs=9, patience=1, lr=1e-3)
    reports = list(train_candidate(made, *splits))
    assert [report.epoch for report in reports] == [2, 4, 6]  # a gain, a decay, the end
    assert [report.lr for report in reports] == pytest.approx([1e-3, 1e-3, 1e-4])
    assert reports[-1].converged
