"""Attributes that others have written: what is not of its kind is as good as not there, what a
search writes stays.
"""

from __future__ import annotations

from typing import Any

import pytest
from helpers.studies import KNOWN, SPEC, frozen, study_of

from nas.study.attributes import STUDY, TRIAL, readable, study_attributes, study_trials
from nas.study.schema import STUDY as STUDY_NAMES
from nas.study.schema import TRIAL as TRIAL_NAMES


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


def test_unknown_names_stay():
    assert readable({"mine": object, "map": 1}, TRIAL)["mine"] is object
