from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from copy import deepcopy

import pytest

from nas.config.sections import BudgetSpec, RunSpec, SearchSettings
from nas.config.sizes import CacheSize, Count, Duration, MemorySize, TimeLimit
from nas.errors import SpecError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("16GiB", 17_179_869_184),
        ("16 gib", 17_179_869_184),
        ("16GB", 16_000_000_000),
        ("16384MiB", 17_179_869_184),
        ("1.5KiB", 1536),
        ("0.5TB", 500_000_000_000),
    ],
)
def test_sizes(text: str, size: int):
    assert MemorySize(text) == size


@pytest.mark.parametrize(
    "text", ["16", "GiB", "16G", "16 GiBs", "-1GiB", "1e3GiB", "", "0GiB", "0.0001KB"]
)
def test_what_is_no_size(text: str):
    with pytest.raises(SpecError, match="size of memory must be above 0|number and a unit"):
        MemorySize(text)


@pytest.mark.parametrize("copied", [deepcopy, lambda size: pickle.loads(pickle.dumps(size))])
def test_a_size_is_bytes_that_show_how_they_were_written(copied: Callable):
    size = copied(MemorySize("1.5KiB"))
    assert (size, size + 1, str(size), f"{size}") == (1536, 1537, "1.5KiB", "1.5KiB")
    assert json.dumps(size) == "1536"


def test_a_request_takes_and_dumps_the_text():
    budget = BudgetSpec.model_validate({"memory": "16 gib"})
    assert budget.memory == BudgetSpec().memory == 2**34
    assert [budget.model_dump(mode=mode)["memory"] for mode in ("python", "json")] == ["16 gib"] * 2
    assert BudgetSpec.model_validate(budget.model_dump()) == budget


def test_a_cache_may_have_nothing():
    assert RunSpec.model_validate({"image_cache": 0}).image_cache == CacheSize("0") == 0
    assert RunSpec.model_validate({"image_cache": "1KB"}).model_dump()["image_cache"] == "1KB"
    with pytest.raises(SpecError, match="must be above 0"):
        CacheSize("0GiB")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Duration, "20ms", 0.02),
        (Duration, "0.5 s", 0.5),
        (Count, "25M", 25e6),
        (Count, "1.5G", 1.5e9),
    ],
)
def test_quantities(kind: type, text: str, value: float):
    quantity = pickle.loads(pickle.dumps(kind(text)))
    assert quantity == pytest.approx(value)
    assert str(quantity) == text


@pytest.mark.parametrize("text", ["20", "ms", "0ms", "-1ms", "20 minutes", "20MS", "1e3ms", ""])
def test_what_is_no_time(text: str):
    with pytest.raises(SpecError, match=r"a time is a number above 0 and a unit \(ms, s\)"):
        Duration(text)


def test_quantities_in_a_request():
    budget = BudgetSpec.model_validate({"latency": "20ms", "flops": "5G"})
    assert (budget.latency, budget.flops, budget.params) == (0.02, 5e9, None)
    written = budget.model_dump(mode="json")
    assert (written["latency"], written["flops"], written["params"]) == ("20ms", "5G", None)
    assert BudgetSpec.model_validate(written) == budget


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90s", 90),
        ("20m", 1200),
        ("8h", 28_800),
        ("1h30m", 5400),
        (" 1.5h ", 5400),
        ("2d 1h 1m 1s", 176_461),
    ],
)
def test_time_limits(text: str, seconds: float):
    limit = pickle.loads(pickle.dumps(TimeLimit(text)))
    assert (limit, str(limit)) == (seconds, text)


@pytest.mark.parametrize("text", ["", "5", "20min", "30m1h", "0s", "-5m", "1e3s", "h", "20ms"])
def test_what_is_no_time_limit(text: str):
    with pytest.raises(SpecError, match=r"a time limit is above 0, in d, h, m, s, .*; got '"):
        TimeLimit(text)


def test_a_time_limit_decides_other_defaults():
    without, timed = SearchSettings(), SearchSettings.model_validate({"time_limit": "8h"})
    assert (without.trials, without.baselines, without.finish) == (40, True, "none")
    assert (timed.trials, timed.baselines, timed.finish) == (1000, False, "train")
    assert (without.of_trials, timed.of_trials) == ("of 40 trials", "trials")
    by_hand = {"time_limit": "8h", "trials": 5, "baselines": True, "finish": "none"}
    asked = SearchSettings.model_validate(by_hand)
    assert asked.model_dump(mode="json") | by_hand == asked.model_dump(mode="json")
    assert asked.of_trials == "of 5 trials"
