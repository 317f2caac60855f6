"""Limits beside memory: what passes them is never trained, and what is trained was measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from helpers.untrained import Driver, report
from optuna.storages import InMemoryStorage

from nas.errors import StudyError
from nas.search.caps import Caps
from nas.study.leaderboard import find_front, pareto_front
from search_spaces.layout import Layout


class Meter:
    """A block takes a millisecond by prediction; T blocks take a tenth more as measured."""

    def __init__(self) -> None:
        self.measured: list[Layout] = []
        self.target = self

    def describe(self) -> dict[str, str]:
        return {"device": "a clock"}

    def predicted_s(self, layout: Layout) -> float:
        return 1e-3 * sum(layout.depths)

    def measured_s(self, layout: Layout) -> float:
        self.measured.append(layout)
        more = sum(stage.depth for stage in layout.stages if stage.kind == "T")
        return 1e-3 * (sum(layout.depths) + 0.1 * more)


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> Meter:
    made = Meter()
    monkeypatch.setattr(Caps, "meter", made)
    return made


def trained(driver: Driver, most: int = 99) -> list[dict[str, Any]]:
    """Attributes of all candidates of a search, at most so many."""
    for _ in range(most):
        assignment = driver.study.ask()
        if assignment is None:
            break
        driver.study.report(assignment.number, report(0.5, 2))
    return [trial.user_attrs for trial in driver.study.study.trials]


@pytest.mark.parametrize("sampler", ["random", "multifidelity", "grid", "tpe"])
def test_nothing_too_slow_is_trained_and_all_else_is(tmp_path: Path, meter: Meter, sampler: str):
    keys = {"budget.latency": "4.35ms", "search.trials": 500, "search.sampler": sampler}
    driver = Driver(tmp_path, memory=InMemoryStorage(), **keys)
    found = trained(driver)
    assert all(each["latency_ms"] <= 4.35 for each in found)
    space = driver.study.budget.space
    allowed = {str(x) for x in space if Meter().measured_s(x) <= 4.35e-3}
    assert len(allowed) == 8
    assert {each["layout"] for each in found} == allowed
    assert any(layout.pattern == "T-T-T-T" for layout in meter.measured)  # predicted to fit
    assert driver.study.stop_reason == "space exhausted"
    assert driver.study.refusals()["over_budget"] > 0
    assert driver.study.study.user_attrs["nas_latency"]["device"] == "a clock"


@pytest.mark.parametrize(("key", "limit"), [("flops", "7M"), ("params", "3M")])
def test_counts_have_limits(tmp_path: Path, key: str, limit: str):
    free = trained(Driver(tmp_path, **{"search.trials": 30, "study": "free"}), 30)
    most = sorted(each[key] for each in free)[10]
    driver = Driver(
        tmp_path, **{f"budget.{key}": f"{most / 1e6}M", "search.trials": 12, "study": "limited"}
    )
    found = trained(driver, 12)
    assert len(found) == 12
    assert max(each[key] for each in found) <= most
    assert "latency_ms" not in found[0]


def test_several_limits_at_once_with_equal_memory(tmp_path: Path, meter: Meter):
    """What is made equal in memory must be within the other limits too."""
    flags = {"budget.like": "C1-C1-T2-T1@16", "budget.mode": "equalize", "budget.tolerance": 0.3}
    driver = Driver(tmp_path, **flags, **{"budget.latency": "5ms", "search.trials": 8})
    for each in trained(driver, 8):
        assert each["latency_ms"] <= 5
        assert each["memory_predicted_gib"] <= driver.study.study.user_attrs["nas_budget_gib"]


def test_latency_as_an_objective(tmp_path: Path, meter: Meter):
    keys = {"search.objectives": ["map", "latency"], "search.trials": 6}
    driver = Driver(tmp_path, **keys, **{"run.keep_best": 1})
    for value in (0.2, 0.3, 0.4, 0.1, 0.5, 0.3):
        driver.train(value)
    study = driver.study.study
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert all(trial.values[1] == trial.user_attrs["latency_ms"] for trial in study.trials)
    front = find_front(study)
    assert {trial.number for trial in front} == pareto_front(study)
    assert front[0].values[0] == 0.5


def test_a_study_of_one_objective_has_no_front(tmp_path: Path):
    driver = Driver(tmp_path)
    driver.train()
    with pytest.raises(StudyError, match="has one objective and no Pareto front"):
        find_front(driver.study.study)


def test_limits_that_nothing_meets_are_refused_before_there_is_a_study(
    tmp_path: Path, meter: Meter
):
    with pytest.raises(StudyError, match=r"beside memory: C1-C1-C1-C1@16 takes 4 ms \(budget.lat"):
        Driver(tmp_path, **{"budget.latency": "3ms"})
    with pytest.raises(StudyError, match=r"has [0-9.]+[MG] multiply-adds \(budget.flops is 1K\)"):
        Driver(tmp_path, **{"budget.flops": "1K"})
    with pytest.raises(StudyError, match=r"has [0-9.]+[MK] parameters \(budget.params is 1K\)"):
        Driver(tmp_path, **{"budget.params": "1K"})
    with pytest.raises(StudyError, match=r"search.try: C1-C1-T3-T1@16 takes 6 ms"):
        Driver(tmp_path, **{"budget.latency": "5ms", "search.try": ["C1-C1-T3-T1@16"]})
    assert list(tmp_path.iterdir()) == []


def test_limits_in_words(tmp_path: Path, meter: Meter):
    keys = {"budget.latency": "20ms", "budget.flops": "50G", "budget.params": "30M"}
    said = Driver(tmp_path, **keys).study.budget.describe()
    assert said.endswith("GiB, 50G multiply-adds, 30M parameters, 20ms on the cpu")
