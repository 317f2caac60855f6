"""The root of the exception tree: what a user can mend. `nas.errors` grows the rest.

UserError                 a wrong request; commands print it as one line and exit with 2
|-- LayoutError           a layout that the grammar does not allow
`-- SpaceError            a search space that cannot be read or used
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from difflib import get_close_matches

LONGEST = 3000  # characters of a message
LONGEST_VALUE = 200  # of a value in it
_VALUES = reprlib.Repr()
_VALUES.maxlevel = 4
_VALUES.maxlist = _VALUES.maxtuple = _VALUES.maxdict = _VALUES.maxset = 8
_VALUES.maxstring = _VALUES.maxlong = _VALUES.maxother = LONGEST_VALUE


class UserError(ValueError):
    """A request that its author can correct: the text names the rule, the value and the choices.

    Args:
        message: what is longer than `LONGEST` characters is told without its middle.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(shortened(message))


class LayoutError(UserError):
    """A layout that the grammar does not allow."""


class SpaceError(UserError):
    """A search space that cannot be found, read or used."""


def quoted(value: object) -> str:
    """Write a value that is refused as Python does, without the middle of what is long."""
    return shortened(_VALUES.repr(value), 2 * LONGEST_VALUE)


def shortened(text: str, most: int = LONGEST) -> str:
    """Leave out the middle of a text of more than `most` characters, and say how much that is."""
    if len(text) <= most:
        return text
    end = most // 4
    left_out = f"[{len(text) - most:,} characters more]"
    return f"{text[: most - end]} {left_out} {text[-end:]}"


def one_of(what: str, value: object, choices: Iterable[object]) -> str:
    """Write the sentence about a value that is none of the choices, with the choice that it
    resembles, if any.

    Args:
        what: the key or thing that has the value.
        value: the value.
        choices: all values that are allowed.
    """
    names = [str(choice) for choice in choices]
    near = get_close_matches(str(value)[:LONGEST_VALUE], names, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"{what} must be one of {shortened(', '.join(names), 1500)}; got {quoted(value)}{hint}"
