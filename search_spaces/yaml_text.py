"""YAML as requests, spaces and descriptions use it: values alone, of a size that the text shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

MOST_CHARACTERS = 2**24
MOST_VALUES = 300_000
MOST_DEPTH = 64
MOST_DIGITS = 1000
if TYPE_CHECKING:
    _Safe = yaml.SafeLoader
else:
    _Safe = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # of libyaml, where it is: much faster


class _Loader(_Safe):
    """Dates stay text."""

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """Read a number that can be written out again, however it is written here."""
        if len(node.value) > MOST_DIGITS:
            raise ValueError(f"a number of more than {MOST_DIGITS:,} digits")
        number: int = super().construct_yaml_int(node)
        return number


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag != "tag:yaml.org,2002:timestamp"]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parse_yaml(text: str) -> Any:
    """Parse YAML into plain values: mappings, lists, text, numbers, truth values and None.

    Raises:
        yaml.YAMLError: it is none, has aliases, or is larger or deeper than is sensible.
    """
    if len(text) > MOST_CHARACTERS:
        raise yaml.YAMLError(f"more than {MOST_CHARACTERS:,} characters")
    try:
        _check_structure(text)
        return yaml.load(text, _Loader)  # a subclass of the safe one
    except (ValueError, RecursionError, OverflowError) as error:
        raise yaml.YAMLError(f"a value that cannot be read: {error}") from None


def _check_structure(text: str) -> None:
    """Refuse aliases, by which a few lines become gigabytes, and what is too deep or too much
    before any of it is made.
    """
    depth = 0
    for number, event in enumerate(yaml.parse(text, _Safe)):
        if isinstance(event, yaml.AliasEvent):
            raise yaml.YAMLError("an alias (*NAME): write the value out")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > MOST_DEPTH:
            raise yaml.YAMLError(f"more than {MOST_DEPTH} levels of values within values")
        if number > MOST_VALUES:
            raise yaml.YAMLError(f"more than {MOST_VALUES:,} values")
