"""Text of others in files that this program writes: quoted by one function for each language."""

from __future__ import annotations

import re
import string

_PYTHON_PLAIN = frozenset(string.ascii_letters + string.digits + " _-.,:;()/+&@!?*=<>#%|~^[]")
_MARKDOWN = re.compile(r"([\\`*\[\]<>|$&!~]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9]))")


def python_text(text: str) -> str:
    """Write a text as a literal of Python 3 that says the same under any template language.

    All that could end it, or that mmengine takes for a variable of its own (`{{`, `$`), is written
    by its number.
    """
    return '"' + "".join(map(_python_character, text)) + '"'


def _python_character(character: str) -> str:
    if character in _PYTHON_PLAIN:
        return character
    number = ord(character)
    return f"\\u{number:04x}" if number < 2**16 else f"\\U{number:08x}"


def markdown_text(text: str) -> str:
    """Write a text as one line of Markdown that shows it, without markup, HTML or controls."""
    shown = "".join(each if each.isprintable() else " " for each in " ".join(text.split()))
    return _MARKDOWN.sub(r"\\\1", shown)
