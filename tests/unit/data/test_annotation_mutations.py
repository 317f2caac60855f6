"""Annotation files with changed values, keys, structure and bytes: read, or refused in one line."""

from __future__ import annotations

import copy
import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers.coco_files import GOOD, write

from nas.data.validation import usable_splits
from nas.errors import DataError

VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    7.5,
    -0.0,
    1e308,
    10**400,
    2**63,
    float("nan"),
    float("inf"),
    "",
    "1",
    "yes",
    "a.jpg",
    "../../etc/passwd",
    "\\x00",
    "\ud800",
    "é" * 300,
    [],
    {},
    [[]],
    [[1, 2, 3, 4, 5, 6]],
    [1, 2, 3, 4],
    [5, 5, "5", 5],
    {"size": [60, 100], "counts": [6000]},
    {"size": [10**9, 10**9], "counts": "PPP"},
    {"size": None, "counts": 3},
]
SLOWEST_S = 5.0


def places(content: Any) -> list[tuple[Any, Any]]:
    """Every container in nested lists and mappings, with each of its keys."""
    if isinstance(content, dict):
        pairs: list[tuple[Any, Any]] = [(content, key) for key in content]
    elif isinstance(content, list):
        pairs = [(content, index) for index in range(len(content))]
    else:
        return []
    return pairs + [pair for inner, key in pairs for pair in places(inner[key])]


def changed(rng: random.Random) -> bytes:
    """A good file with some values, keys or entries changed."""
    content = copy.deepcopy(GOOD)
    for _ in range(rng.choice([1, 1, 2, 4])):
        found = places(content)
        if not found:
            break
        container, key = rng.choice(found)
        what = rng.randrange(4)
        if what == 0 and isinstance(container, dict):
            container[rng.choice(["id", "name", "bbox", "iscrowd", "x"])] = container.pop(key)
        elif what == 1:
            del container[key]
        elif what == 2 and isinstance(container, list):
            container.insert(key, copy.deepcopy(rng.choice([container[key], *VALUES])))
        else:
            container[key] = copy.deepcopy(rng.choice(VALUES))
    return json.dumps(content).encode()


def damaged(rng: random.Random) -> bytes:
    """A good file with some bytes changed, missing or repeated."""
    content = bytearray(json.dumps(GOOD, indent=rng.choice([None, 1])).encode())
    for _ in range(rng.choice([1, 1, 3, 10])):
        at, length = rng.randrange(len(content)), rng.randrange(40)
        what = rng.randrange(4)
        if what == 0:
            content[at] = rng.randrange(256)
        elif what == 1:
            del content[at : at + length]
        elif what == 2:
            content[at:at] = content[at : at + length]
        else:
            content[at : at + 1] = rng.choice(
                [b"[", b"]", b"{", b"}", b'"', b",", b"9", b"e", b"-"]
            )
    return bytes(content)


@pytest.mark.parametrize("times", [200, pytest.param(25_000, marks=pytest.mark.long)])
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
