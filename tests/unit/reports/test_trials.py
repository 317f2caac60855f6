"""Rows of trials: what they read from attributes, and that their JSON is the attributes."""

from __future__ import annotations

import pytest

from nas.reports import LeaderboardRow, TrialRow
from nas.reports.trials import measured_or_predicted_gib


def row(state: str = "COMPLETE", **attributes: object) -> TrialRow:
    return TrialRow.from_attributes(3, state, 0.5, attributes)


def test_the_json_of_a_row_is_number_state_value_and_the_attributes_as_they_are():
    attributes = {"zeta": [1], "layout": "C1-C1-C1-C1@16", "map": 0.25, "test_map": None}
    seen = row(**attributes)
    first = [("number", 3), ("state", "COMPLETE"), ("value", 0.5)]
    assert list(seen.to_dict().items()) == [*first, *attributes.items()]
    assert (seen.layout, seen.map) == ("C1-C1-C1-C1@16", 0.25)
    assert dict(seen.scores) == {"map": 0.25, "test_map": None}


def test_a_trial_of_a_foreign_study_has_nothing():
    seen = row(state="RUNNING")
    assert (seen.state, seen.layout, seen.role, seen.replicate) == ("RUNNING", None, "", 0)
    assert (seen.map, seen.memory_gib, seen.reason, seen.epochs) == (None, None, None, 0)


def test_what_was_over_the_budget_is_infeasible_whatever_else_happened():
    both = row("PRUNED", infeasible_reason="needs 2 GiB", fail_reason="its driver died")
    assert (both.state, both.reason) == ("INFEASIBLE", "needs 2 GiB")
    failed = row("FAIL", fail_reason="NonFiniteLoss: nan")
    assert (failed.state, failed.reason) == ("FAIL", "NonFiniteLoss: nan")


@pytest.mark.parametrize(
    ("predicted", "measured", "expected"),
    [(2.0, 3.0, 3.0), (2.0, None, 2.0), (None, 3.0, 3.0), (None, None, None)],
)
def test_memory_is_measured_else_predicted(
    predicted: float | None, measured: float | None, expected: float | None
):
    attributes = {"memory_predicted_gib": predicted, "memory_peak_gib": measured}
    assert measured_or_predicted_gib(attributes) == row(**attributes).memory_gib == expected


@pytest.mark.parametrize("pareto", [None, True, False])
def test_the_front_is_told_with_several_objectives_only(pareto: bool | None):
    more = {"replicates": 2, "map_again": 0.4, "within_noise": True}
    seen = LeaderboardRow(**vars(row(map=0.5)), **more, pareto=pareto)
    front = {} if pareto is None else {"pareto": pareto}
    assert seen.to_dict() == {**row(map=0.5).to_dict(), **more, **front}
