"""Spaces of a size that can be counted, drawn from and kept in memory."""

from __future__ import annotations

from typing import Any

import pytest

from search_spaces.errors import SpaceError
from search_spaces.loading import space_from_dict


def space(depths: Any, channels: Any = (16,)) -> dict[str, Any]:
    stages = [{"kinds": ["C", "T"], "depths": depths}] * 4
    return {"name": "mine", "stages": stages, "channels": list(channels)}


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (space({"low": 1, "high": 10**10}), "depths must be at most 1000 numbers; got 10000000000"),
        (space([1], range(4, 8000, 4)), "channels must be at most 1000 numbers; got 1999"),
        (space({"low": 1, "high": 30}), "at most 10,000,000 layouts; got 12,960,000"),
    ],
)
def test_larger_ones_are_refused(written: dict[str, Any], words: str):
    with pytest.raises(SpaceError, match=words):
        space_from_dict(written, "here")


def test_a_large_one_is_drawn_from():
    large = space_from_dict(space({"low": 1, "high": 12}), "here")
    assert len(large) == 16 * 12**4
    assert next(large.shuffled(0)) in large
