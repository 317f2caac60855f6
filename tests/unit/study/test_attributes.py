"""Attributes that others have written: what is not of its kind is as good as not there, what a
search writes stays.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest
from helpers.studies import KNOWN, SPEC, frozen, study_of

from nas.search.forecast.runtime_model import CandidateCost
from nas.search.time_limit.clock import SearchClock
from nas.search.time_limit.division import Division
from nas.search.time_limit.plan import TimePlan, Typical
from nas.study.attributes import STUDY, TRIAL, readable, study_attributes, study_trials
from nas.study.schema import STUDY as STUDY_NAMES
from nas.study.schema import TRIAL as TRIAL_NAMES
from search_spaces.layout import Layout


def test_every_documented_attribute_has_a_kind():
    assert set(STUDY) == set(STUDY_NAMES)
    assert set(TRIAL) == set(TRIAL_NAMES)


def test_what_a_search_writes_is_read_as_it_is():
    study = study_of([frozen(0), frozen(1, role="replicate", replicate=1)])
    assert study_attributes(study) == KNOWN
    assert study_trials(study) == study.get_trials(deepcopy=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("map", "0.5"),
        ("map", float("nan")),
        ("map", True),
        ("params", {"lr": 1}),
        ("params", "12"),
        ("params", 1.5),
        ("epochs", -1),
        ("layout", 5),
        ("memory_parts_gib", "x"),
        ("losses", {"1": "low"}),
        ("fail_reason", ["x"]),
    ],
)
def test_an_attribute_of_another_kind_is_left_out_and_no_other(name: str, value: Any):
    (trial,) = study_trials(study_of([frozen(0, **{name: value})]))
    assert name not in trial.user_attrs
    expected = {**frozen(0).user_attrs}
    expected.pop(name, None)
    assert trial.user_attrs == expected


@pytest.mark.parametrize("odd", [None, {"data": "x"}, {**SPEC, "search": 5}, "x"], ids=str)
def test_a_study_whose_request_is_none_of_ours_is_no_search(odd: Any):
    known = study_attributes(study_of([frozen(0)], nas_spec=odd))
    assert not {"nas_spec", "nas_uuid", "nas_data", "nas_budget_gib"} & set(known)
    assert known["nas_versions"] == KNOWN["nas_versions"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("nas_time", {"limit_s": 60.0}),
        ("nas_time", [60.0]),
        ("nas_commands", {"token": [1.0]}),
        ("nas_commands", {"token": ["x", "y"]}),
        ("nas_winner", {"done": True}),
        ("nas_winner", {"done": "yes", "layout": "x", "epochs": 1, "bundle": "/b"}),
        ("nas_winner", {"done": True, "layout": "x", "epochs": 1, "bundle": 5}),
    ],
)
def test_what_no_search_says_of_its_time_and_its_winner_is_not_there(name: str, value: Any):
    assert name not in study_attributes(study_of([frozen(0)], **{name: value}))


def test_what_searches_say_of_their_time_and_their_winner_is_read():
    division = Division(60.0, 30.0, 40.0, 20.0, 10.0, 4, 0, 3, 1, 12.0)
    cost = CandidateCost(*[1.0] * len(fields(CandidateCost)))
    typical = Typical(Layout.parse("C1-C1-C1-C1@16"), cost, 3)
    plan = TimePlan(division, typical, SearchClock(30.0, cost, 4), "token", 5.0, 65.0, 30.0)
    said = {
        "nas_time": plan.to_dict(),
        "nas_commands": {"token": [5.0, 7.5]},
        "nas_winner": {
            **{"finish": "train", "layout": "C1-C1-C1-C1@16", "limit_s": None, "epochs": 4},
            **{"bundle": "/b", "done": False},
        },
    }
    assert study_attributes(study_of([frozen(0)], **said)) == {**KNOWN, **said}


def test_unknown_names_stay():
    assert readable({"mine": object, "map": 1}, TRIAL)["mine"] is object
