"""Annotation files with changed values, keys, structure and bytes: read, or refused in one line."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import mutations
from helpers.coco_files import GOOD, write

from nas.data.validation import usable_splits
from nas.errors import DataError

VALUES: list[Any] = [
    *mutations.VALUES,
    [[1, 2, 3, 4, 5, 6]],
    [5, 5, "5", 5],
    {"size": [60, 100], "counts": [6000]},
    {"size": [10**9, 10**9], "counts": "PPP"},
    {"size": None, "counts": 3},
]
NAMES = ["id", "name", "bbox", "iscrowd", "x"]
PIECES = [b"[", b"]", b"{", b"}", b'"', b",", b"9", b"e", b"-"]
SLOWEST_S = 5.0


def changed(rng: random.Random) -> bytes:
    """A good file with some values, keys or entries changed."""
    return json.dumps(mutations.changed(GOOD, rng, NAMES, VALUES)).encode()


def damaged(rng: random.Random) -> bytes:
    """A good file with some bytes changed, missing or repeated."""
    content = json.dumps(GOOD, indent=rng.choice([None, 1])).encode()
    return mutations.damaged(content, rng, PIECES)


@mutations.number_of_times(200, 25_000)
@pytest.mark.parametrize("seed", [0, 1, 5, 6])
@pytest.mark.parametrize("mutate", [changed, damaged])
def test_any_file_is_read_or_refused_in_a_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    mutate: Callable[[random.Random], bytes],
    seed: int,
    times: int,
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = write(tmp_path / "data", GOOD)
    file, rng, outcomes = folder / "instances_train.json", random.Random(seed), set[str]()
    for number in range(times):
        content = mutate(rng)
        file.write_bytes(content)
        started = time.process_time()
        try:
            usable_splits(tmp_path / "data", ("train",), skip_broken=False)
            outcomes.add("read")
        except DataError as error:
            said = str(error)
            outcomes.add("refused")
            assert said, (number, content)
            assert "Traceback" not in said, (number, content)
        except Exception as error:
            raise AssertionError(f"seed {seed}, number {number}: {content!r}") from error
        assert time.process_time() - started < SLOWEST_S, (number, content)
    assert outcomes == {"read", "refused"}
