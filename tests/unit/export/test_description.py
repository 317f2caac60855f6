"""What is said of where trained weights come from."""

from __future__ import annotations

import pytest

from nas.export.description import ORIGIN_KEYS, make_origin


def test_facts_come_in_the_order_in_which_people_read_them():
    origin = make_origin(wall_s=2.5, data="digits", seed=3)
    assert list(origin) == ["seed", "data", "wall_s", "versions", "git_commit"]
    assert (origin["seed"], origin["data"], origin["wall_s"]) == (3, "digits", 2.5)
    assert "torch" in origin["versions"]


def test_what_a_study_recorded_stays_as_it_was():
    origin = make_origin(versions={"torch": "2.0"}, git_commit=None, finished=None)
    assert origin == {"versions": {"torch": "2.0"}, "git_commit": None, "finished": None}
    assert list(make_origin(**dict.fromkeys(ORIGIN_KEYS))) == list(ORIGIN_KEYS)


def test_a_fact_of_another_name_is_refused():
    with pytest.raises(KeyError, match="an origin has no seeds"):
        make_origin(seeds=3)
