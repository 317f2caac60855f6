"""The budget in a whole search: what is predicted not to fit never reaches a worker, whatever
sampler suggests it.
"""

from __future__ import annotations

import statistics
from itertools import islice
from pathlib import Path
from typing import get_args

import pytest
from optuna.trial import TrialState

from nas.config.choices import SamplerName
from nas.config.spec import SearchSpec, load_spec
from nas.errors import StudyError
from nas.reports import CocoMetrics, DatasetSummary, EpochReport
from nas.search.budget import Budget
from nas.search.open_search import open_search
from nas.search.preview import preview
from nas.search.search import Search

FACTS = DatasetSummary("fingerprint", ("a", "b"), 64, 200, 16, 50, 9, (2, 3, 64, 96), {}, {})
TRIALS = 16  # the first ten of a sampler that learns are random


def spec(tmp_path: Path, **flags: object) -> SearchSpec:
    return load_spec(
        None,
        {
            "data.root": "cells",
            "space": "free",
            "storage": f"sqlite:///{tmp_path}/nas.db",
            "recipe": "tiny",
            "recipe.epochs": 1,
            "run.output": str(tmp_path / "runs"),
            "search.trials": TRIALS,
            "search.baselines": False,
            **flags,
        },
    )


class CountingWorker:
    """Trains nothing; counts what it is given, by its own prediction."""

    def __init__(self, study: Search) -> None:
        self.study, self.budget = study, Budget(study.spec, FACTS)
        self.sizes: list[int] = []

    def run(self) -> None:
        while not self.study.finished:
            assignment = self.study.ask()
            if assignment is None:
                continue
            self.sizes.append(self.budget.predicted_bytes(assignment.layout))
            value = assignment.layout.depths[2] / 100
            metrics = CocoMetrics(
                value, value, value, None, value, value, 0.1, 0.2, 0.3, None, 0.3, 0.3, {}
            )
            self.study.report(
                assignment.number,
                EpochReport(1, 1, 1.0, 0.1, metrics, 20.0, 10.0, 12.0, None, "cpu", None),
            )


@pytest.fixture(scope="module")
def median_bytes(tmp_path_factory: pytest.TempPathFactory) -> int:
    request = spec(tmp_path_factory.mktemp("median"))
    layouts = islice(request.search_space().shuffled(7), 60)
    return int(statistics.median(map(Budget(request, FACTS).predicted_bytes, layouts)))


@pytest.mark.parametrize("sampler", get_args(SamplerName))
def test_no_over_budget_candidate_reaches_a_worker(tmp_path: Path, median_bytes: int, sampler: str):
    request = spec(
        tmp_path, **{"search.sampler": sampler, "budget.memory": f"{median_bytes / 2**20:.2f}MiB"}
    )
    assert 0.3 < preview(Budget(request, FACTS), lambda *_: None)["share_that_fits"] < 0.7
    study = open_search(request, FACTS)
    worker = CountingWorker(study)
    worker.run()
    assert len(worker.sizes) == TRIALS
    assert max(worker.sizes) <= study.budget.limit_bytes
    takes_what_fits = sampler in ("grid", "multifidelity")
    assert (study.refusals()["over_budget"] > 0) == (not takes_what_fits)
    trials = study.study.trials
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * TRIALS
    assert len({trial.user_attrs["layout_id"] for trial in trials}) == TRIALS


@pytest.mark.parametrize("vary", ["depth", "width"])
def test_equal_memory_from_start_to_end(tmp_path: Path, vary: str):
    like = "C2-C2-T12-T4"
    flags = {
        "space": "paper",
        "budget.like": like,
        "budget.mode": "equalize",
        "budget.vary": vary,
        "search.trials": 4,
        "search.try": [like],
    }
    study = open_search(spec(tmp_path, **flags), FACTS)
    worker = CountingWorker(study)
    worker.run()
    assert all(
        0.95 * study.budget.limit_bytes <= size <= study.budget.limit_bytes for size in worker.sizes
    )
    assert worker.sizes[0] == study.budget.limit_bytes
    assert study.study.trials[0].user_attrs["layout"] == like
    again = open_search(spec(tmp_path, **{**flags, "search.trials": 5}), FACTS)
    CountingWorker(again).run()
    assert len({trial.user_attrs["layout_id"] for trial in again.study.trials}) == 5
    recorded = again.study.user_attrs["nas_refusals"]["patterns"]
    assert recorded.keys() == {fit.pattern for fit in again.unsolved_patterns}


def test_what_cannot_be_is_said(tmp_path: Path):
    with pytest.raises(
        StudyError,
        match="no layout of space 'free' fits into 0.0488 GiB: the smallest is C1-C1-C2-C1 with",
    ):
        open_search(spec(tmp_path, **{"budget.memory": "50MiB"}), FACTS)
    flags = {"budget.mode": "equalize", "budget.memory": "8TiB"}
    with pytest.raises(
        StudyError,
        match="no layout of space 'free' meets the budget.*the nearest is T.*budget.tolerance",
    ):
        open_search(spec(tmp_path, **flags), FACTS)
    flags = {"budget.mode": "equalize", "budget.like": "T2-T2-T6-T2", "search.try": ["C1-C1-C2-C1"]}
    with pytest.raises(
        StudyError,
        match=r"search.try: C1-C1-C2-C1 needs .* GiB, the budget is .* \(that of T2-T2-T6-T2\)",
    ):
        open_search(spec(tmp_path, **flags), FACTS)
    assert not (tmp_path / "nas.db").exists()
