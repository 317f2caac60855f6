"""Changes of good content, at random, for tests of what reads the content of others."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest

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
    [1, 2, 3, 4],
]
HOSTILE_VALUES: list[Any] = [
    "\x00",
    "\x1b[31mred\r\n",
    "{{$HOME:x}}",
    "a:b",
    "os:abort",
    "http://me:secret@host/x?y=z",
    "/etc/passwd",
    "2024-02-30",
    "1e999",
    "nan",
    "-1GiB",
    "1" * 400,
    "x" * 100_000,
    10**12,
    -(2**63),
    1e-320,
    [None],
    [{}],
    {"": None},
    {"low": 1, "high": 10**10},
    {"low": 3, "high": 1, "step": 0},
    [["a"] * 3] * 3,
]


def number_of_times(quick: int, many: int) -> Callable[[Any], Any]:
    """Decorate a test with the number of its mutations, `times`: few, and in long tests many."""
    return pytest.mark.parametrize(
        "times",
        [
            pytest.param(quick, id="quick"),
            pytest.param(many, id="many", marks=pytest.mark.long),
        ],
    )


def places(content: Any) -> list[tuple[Any, Any]]:
    """Every container in nested lists and mappings, with each of its keys."""
    if isinstance(content, dict):
        pairs: list[tuple[Any, Any]] = [(content, key) for key in content]
    elif isinstance(content, list):
        pairs = [(content, index) for index in range(len(content))]
    else:
        return []
    return pairs + [pair for inner, key in pairs for pair in places(inner[key])]


def changed(
    content: Any, rng: random.Random, names: Sequence[str], values: Sequence[Any] = VALUES
) -> Any:
    """A copy with some values, keys or entries changed.

    Args:
        content: nested lists and mappings.
        rng: decides.
        names: keys that others are renamed to.
        values: what is put in place of others, beside values from elsewhere in the content.
    """
    content = copy.deepcopy(content)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        found = places(content)
        if not found:
            break
        container, key = rng.choice(found)
        what = rng.randrange(5)
        if what == 0 and isinstance(container, dict):
            container[rng.choice(names)] = container.pop(key)
        elif what == 1:
            del container[key]
        elif what == 2 and isinstance(container, list):
            container.insert(key, copy.deepcopy(rng.choice([container[key], *values])))
        elif what == 3:
            other, place = rng.choice(found)
            container[key] = copy.deepcopy(other[place])
        else:
            container[key] = copy.deepcopy(rng.choice(values))
    return content


def damaged(content: bytes, rng: random.Random, pieces: Sequence[bytes]) -> bytes:
    """Content with some bytes changed, missing or repeated, and pieces put in place of others."""
    damaged = bytearray(content)
    for _ in range(rng.choice([1, 1, 3, 10])):
        at, length = rng.randrange(len(damaged) or 1), rng.randrange(40)
        what = rng.randrange(5)
        if what == 0:
            damaged[at : at + 1] = bytes([rng.randrange(256)])
        elif what == 1:
            del damaged[at : at + length]
        elif what == 2:
            damaged[at:at] = damaged[at : at + length]
        elif what == 3:
            damaged[at:at] = rng.choice(pieces)
        else:
            piece = rng.choice(pieces)
            damaged[at : at + len(piece)] = piece
    return bytes(damaged)
