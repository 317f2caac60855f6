"""Ids as files have them: numbers, text, floats, hashes."""

from __future__ import annotations

import re

NO_ID = -(2**63)  # stands for what can be no id: nothing, a list, a fraction
MOST_ID = 2**53  # pycocotools and JSON readers of others keep whole numbers exactly up to here
_NUMBER = re.compile(r"[+-]?\d+(\.0+)?")


def as_id(value: object) -> int:
    """Take a value for a number: whole numbers, whole floats and their text; else `NO_ID`."""
    if type(value) is int:
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        return int(value.strip().partition(".")[0])
    return NO_ID


def common_name(value: object) -> int | str | None:
    """Give what two spellings of an id have in common; None for what can be no id."""
    number = as_id(value)
    if number != NO_ID:
        return number
    return value if isinstance(value, str) and value else None
