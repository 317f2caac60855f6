"""Text of others as a terminal may show it: nothing in it moves the cursor, colours, or turns the
order of what is read.
"""

from __future__ import annotations

import unicodedata

_KEPT = "\n\t"
_FORMULA = frozenset("=+-@")  # begin one in a cell of a spreadsheet
_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Co", "Zl", "Zp"))  # controls, marks, halves of characters


def shown(text: str) -> str:
    """Write controls and invisible marks of a text by their numbers, as Python does; ends of lines
    and tabs stay.
    """
    return "".join(map(_shown, text))


def in_one_line(text: str) -> str:
    """The same, ends of lines and tabs too."""
    return shown(text).replace("\n", "\\n").replace("\t", "\\t")


def whole(text: str) -> str:
    """Put a mark in the place of each half of a character (a surrogate), which JSON can write and
    no file or page can.
    """
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def csv_cell(text: str) -> str:
    """Write a text for a cell of a table: spreadsheets run what begins like a formula, and an
    apostrophe before it says that it is none.
    """
    return f"'{text}" if text.lstrip()[:1] in _FORMULA or text[:1].isspace() else text


def _shown(character: str) -> str:
    if character in _KEPT or unicodedata.category(character) not in _HIDDEN:
        return character
    return character.encode("unicode_escape").decode()
