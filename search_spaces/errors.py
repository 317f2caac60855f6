"""The root of the exception tree: what a user can mend. `nas.errors` grows the rest.

UserError                 a wrong request; commands print it as one line and exit with 2
|-- LayoutError           a layout that the grammar does not allow
`-- SpaceError            a search space that cannot be read or used
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class UserError(ValueError):
    """A request that its author can correct: the text names the rule, the value and the choices."""


class LayoutError(UserError):
    """A layout that the grammar does not allow."""


class SpaceError(UserError):
    """A search space that cannot be found, read or used."""


def one_of(what: str, value: object, choices: Iterable[object]) -> str:
    """Write the sentence about a value that is none of the choices, with the choice that it
    resembles, if any.

    Args:
        what: the key or thing that has the value.
        value: the value.
        choices: all values that are allowed.
    """
    names = [str(choice) for choice in choices]
    near = get_close_matches(str(value), names, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    return f"{what} must be one of {', '.join(names)}; got {value!r}{hint}"
