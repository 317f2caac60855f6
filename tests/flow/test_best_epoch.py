"""The weights of the best epoch, and their average: which are kept, scored, and found again."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from helpers.candidates import candidate, comparable, killed_and_resumed, part
from safetensors.torch import load_file

from nas.artifacts.history import read_reports
from nas.artifacts.paths import DETECTIONS, LAST_WEIGHTS, WEIGHTS
from nas.data.coco import CocoSplit
from nas.data.validation import check_split
from nas.evaluation.coco import evaluate
from nas.reports import EpochReport
from nas.training.candidate import Candidate, CandidateEpochs, train_candidate
from nas.training.checkpoint import save_checkpoint


@pytest.fixture(scope="module")
def splits(digits: Path) -> tuple[CocoSplit, CocoSplit]:
    return check_split(digits, "train").split, check_split(digits, "val").split


MAPS = (0.1, 0.3, 0.2)


class Scored(NamedTuple):
    """What was scored, in its order: the epoch, how many images, and the network's state."""

    epoch: int
    images: int
    state: dict[str, torch.Tensor]


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[Scored]:
    """Let the epochs have the mAPs of `MAPS`, whatever is detected."""
    seen: list[Scored] = []
    score = CandidateEpochs.score

    def with_map(self: CandidateEpochs, loss: float, lr: float) -> EpochReport:
        def evaluated(network: torch.nn.Module, *rest: Any) -> tuple:
            state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
            seen.append(Scored(self.run.epoch + 1, len(rest[1].images), state))
            metrics, *others = evaluate(network, *rest)
            return dataclasses.replace(metrics, map=MAPS[self.run.epoch]), *others

        monkeypatch.setattr("nas.training.candidate.evaluate", evaluated)
        return score(self, loss, lr)

    monkeypatch.setattr(CandidateEpochs, "score", with_map)
    return seen


def keeping(
    folder: Path, ema: float, keep: str = "best", checkpoint_s: float = 600, **keys: object
) -> Candidate:
    """A candidate that keeps its best epoch; `keys` are of its recipe."""
    recipe = candidate(folder).recipe.model_copy(update={"keep": keep, "ema": ema, **keys})
    return candidate(folder, recipe=recipe, checkpoint_s=checkpoint_s)


def same(mine: dict[str, torch.Tensor], yours: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(mine[name], tensor) for name, tensor in yours.items())


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_the_weights_of_the_best_epoch_are_kept(
    tmp_path: Path, splits: tuple[CocoSplit, CocoSplit], scored: list[Scored], ema: float
):
    train, val = splits
    made = keeping(tmp_path, ema)
    reports, averages = [], []
    for report in train_candidate(made, train, val, val):
        reports.append(report)
        averages.append(part(tmp_path, "average" if ema else "detector"))
        averages[-1].pop("updates", None)
    assert [(report.best_epoch, report.best.map) for report in reports] == [
        (1, 0.1),
        (2, 0.3),
        (2, 0.3),
    ]
    assert [report.keeps for report in reports] == [True, True, False]
    assert (reports[-1].kept, reports[-1].kept_epoch) == (reports[1].metrics, 2)
    weights = load_file(tmp_path / WEIGHTS)
    assert same(weights, averages[1])
    assert not same(weights, averages[2])
    # After the last epoch: its own weights on all images, the best ones on those drawn and tested.
    assert [(each.epoch, each.images) for each in scored] == [
        (1, 8),
        (2, 8),
        (3, 8),
        (3, 4),
        (3, 8),
    ]
    assert [same(weights, each.state) for each in scored] == [False, True, False, True, True]
    assert same(scored[2].state, averages[2])
    assert reports[-1].test is not None
    assert len(list((tmp_path / DETECTIONS).glob("*.png"))) == 4


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_keeping_the_best_epoch_does_not_change_the_training(
    tmp_path: Path, splits: tuple[CocoSplit, CocoSplit], scored: list[Scored], ema: float
):
    best, last = (keeping(tmp_path / keep, ema, keep) for keep in ("best", "last"))
    for made in (best, last):
        list(train_candidate(made, *splits))
    for name in ("detector", "average") if ema else ("detector",):
        assert same(part(best.folder, name), part(last.folder, name))
    assert same(load_file(last.folder / WEIGHTS), scored[-1].state)


@pytest.mark.parametrize("killed_after", [1, 4, 5, 8])
@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_a_killed_run_keeps_the_same_best_epoch(
    tmp_path: Path,
    splits: tuple[CocoSplit, CocoSplit],
    scored: list[Scored],
    ema: float,
    killed_after: int,
):
    whole, killed = (
        keeping(
            tmp_path / name,
            ema,
            checkpoint_s=0,
            augmentation="strong",
            drop_path=0.3,
            quarter_turns=0.5,
            repeat_threshold=0.9,
            iou_crop=0.5,
        )
        for name in ("whole", "killed")
    )
    expected = list(map(comparable, train_candidate(whole, *splits)))
    heard = killed_and_resumed(killed, splits, killed_after)
    assert heard == expected[3 - len(heard) :]
    assert (killed.folder / WEIGHTS).read_bytes() == (whole.folder / WEIGHTS).read_bytes()
    for name in ("detector", "average") if ema else ("detector",):
        assert same(part(killed.folder, name), part(whole.folder, name))


@pytest.mark.parametrize("written", [False, True])
@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_a_run_killed_at_the_checkpoint_of_its_best_epoch_keeps_that(
    tmp_path: Path,
    splits: tuple[CocoSplit, CocoSplit],
    scored: list[Scored],
    monkeypatch: pytest.MonkeyPatch,
    ema: float,
    written: bool,
):
    def kill(*parts: Any, **values: Any) -> None:
        if written:
            save_checkpoint(*parts, **values)
        raise KeyboardInterrupt

    whole, made = keeping(tmp_path / "whole", ema), keeping(tmp_path / "killed", ema)
    expected = list(map(comparable, train_candidate(whole, *splits)))
    run = train_candidate(made, *splits)
    next(run)
    with monkeypatch.context() as patch:
        patch.setattr("nas.training.trainer.save_checkpoint", kill)
        with pytest.raises(KeyboardInterrupt):
            next(run)
    again = list(map(comparable, train_candidate(made, *splits)))
    assert again == (expected[1:] if written else expected)
    assert list(map(comparable, read_reports(made.folder))) == expected
    assert (made.folder / WEIGHTS).read_bytes() == (whole.folder / WEIGHTS).read_bytes()


def test_a_finished_run_leaves_its_best_weights_alone(
    tmp_path: Path, splits: tuple[CocoSplit, CocoSplit], scored: list[Scored]
):
    reports = list(train_candidate(keeping(tmp_path, 0.5), *splits))
    before = (tmp_path / WEIGHTS).read_bytes()
    assert list(train_candidate(keeping(tmp_path, 0.5), *splits)) == reports[-1:]
    assert (tmp_path / WEIGHTS).read_bytes() == before


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_the_weights_of_the_last_epoch_are_kept_beside_those_of_the_best(
    tmp_path: Path, splits: tuple[CocoSplit, CocoSplit], scored: list[Scored], ema: float
):
    best, both, last = (
        keeping(tmp_path / keep, ema, keep) for keep in ("best", "best_and_last", "last")
    )
    reports = {made.folder: list(train_candidate(made, *splits)) for made in (best, both, last)}
    assert list(map(comparable, reports[both.folder])) == list(
        map(comparable, reports[best.folder])
    )
    assert reports[both.folder][-1].kept_epoch == 2
    assert (both.folder / WEIGHTS).read_bytes() == (best.folder / WEIGHTS).read_bytes()
    assert (both.folder / LAST_WEIGHTS).read_bytes() == (last.folder / WEIGHTS).read_bytes()
    assert not (best.folder / LAST_WEIGHTS).exists()
    assert not (last.folder / LAST_WEIGHTS).exists()
    (both.folder / LAST_WEIGHTS).unlink()  # as if it had been killed before it wrote them
    list(train_candidate(both, *splits))
    assert (both.folder / LAST_WEIGHTS).read_bytes() == (last.folder / WEIGHTS).read_bytes()


def test_the_last_epoch_is_kept_where_it_is_the_best_too(
    tmp_path: Path, splits: tuple[CocoSplit, CocoSplit]
):
    recipe = {"keep": "best_and_last", "epochs": 1}
    list(train_candidate(keeping(tmp_path, 0.0, **recipe), *splits))
    assert (tmp_path / LAST_WEIGHTS).read_bytes() == (tmp_path / WEIGHTS).read_bytes()
