"""The limit of a budget: decided once, whatever is measured, restarted or released later."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from helpers.untrained import FACTS, Driver, report, spec

from nas.search.budget import Budget
from nas.search.open_search import open_budget
from nas.utils.formatting import GIB, gib
from nas.utils.gpu_share import cap_bytes
from search_spaces.layout import Layout
from workers.trial_config import TrialConfigBuilder

LIKE = "C2-C1-T3-T2@16"


def train_on_a_card(driver: Driver, factor: float = 0.9) -> None:
    """One candidate that a card was measured to need less for than predicted."""
    assignment = driver.study.ask()
    peak_bytes = round(factor * assignment.memory_predicted_bytes)
    done = report(0.5, 2, memory_peak_bytes=peak_bytes, device="a card")
    driver.study.report(assignment.number, done)


@pytest.mark.parametrize("mode", ["cap", "equalize"])
def test_measured_trials_move_predictions_but_not_the_limit(tmp_path: Path, mode: str):
    flags = {"budget.like": LIKE, "budget.mode": mode, "budget.tolerance": 0.3, "search.trials": 9}
    driver = Driver(tmp_path, **flags)
    budget = driver.study.budget
    limit_bytes, like = budget.limit_bytes, Layout.parse(LIKE)
    assert limit_bytes == Budget(driver.spec, FACTS).predicted_bytes(like)
    for _ in range(3):
        train_on_a_card(driver)
    assert budget.correction is not None
    assert budget.predicted_bytes(like) < limit_bytes
    assert budget.limit_bytes == limit_bytes
    if budget.equalizer:
        assert budget.equalizer.budget_bytes == limit_bytes
    assert driver.study.study.user_attrs["nas_budget_gib"] == gib(limit_bytes)
    configs = TrialConfigBuilder(driver.study, 2, {})
    assert configs.build(driver.study.ask())["cap_bytes"] == cap_bytes(limit_bytes)

    booked = open_budget(driver.spec, FACTS)  # what a restart books its workers by
    again = Driver(tmp_path, **flags)
    assert again.study.budget.correction is not None
    assert booked.limit_bytes == again.study.budget.limit_bytes == limit_bytes


def test_a_study_keeps_the_limit_that_it_was_made_with(tmp_path: Path):
    """As after a release that predicts something else."""
    flags = {"budget.like": LIKE, "search.trials": 9}
    driver = Driver(tmp_path, **flags)
    recorded_gib = gib(driver.study.budget.limit_bytes) + 0.01
    driver.study.study.set_user_attr("nas_budget_gib", recorded_gib)
    again = Driver(tmp_path, **flags)
    assert again.study.budget.limit_bytes == round(recorded_gib * GIB)
    assert again.study.study.user_attrs["nas_budget_gib"] == recorded_gib
    other = dataclasses.replace(FACTS, fingerprint="other")
    assert Budget(again.spec, other).limit_bytes == driver.study.budget.limit_bytes


def test_without_a_study_nothing_is_made(tmp_path: Path):
    request = spec(tmp_path, **{"budget.like": LIKE})
    assert open_budget(request, FACTS).limit_bytes == Budget(request, FACTS).limit_bytes
    assert list(tmp_path.iterdir()) == []


def test_a_limit_in_bytes_is_that_of_the_request(tmp_path: Path):
    request = spec(tmp_path, **{"budget.memory": "1537MiB"})
    assert Budget(request, FACTS, recorded_gib=99.0).limit_bytes == 1537 * 2**20
