"""Commands that are printed: whatever their words hold, they can be pasted into a shell."""

from __future__ import annotations

import json
import shlex

import yaml

from search_spaces.yaml_text import parse_yaml


def command_line(*words: object, comment: str = "") -> str:
    """Write a command for a POSIX shell, each word quoted where it needs to be.

    Args:
        words: of the command, the program first.
        comment: for its reader, after a `#`; none where it is empty.
    """
    line = shlex.join(map(str, words))
    return f"{line}  # {comment}" if comment else line


def setting(key: str, text: str) -> str:
    """The word after `--set` that gives a key a text, which is read as YAML."""
    try:
        plain = parse_yaml(text) == text
    except (yaml.YAMLError, ValueError):
        plain = False
    return f"{key}={text if plain else json.dumps(text)}"
