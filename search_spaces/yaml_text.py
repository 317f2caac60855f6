"""YAML as requests, spaces and descriptions use it: values alone, of a size that the text shows."""

from __future__ import annotations

from typing import Any

import yaml

MOST_CHARACTERS = 2**24
MOST_DEPTH = 64
MOST_DIGITS = 1000


class _Loader(yaml.SafeLoader):
    """Without aliases, by which a few lines become gigabytes; dates stay text."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Compose a value, unless it is an alias or lies too deep."""
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("an alias (*NAME): write the value out")
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise yaml.YAMLError(f"more than {MOST_DEPTH} levels of values within values")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

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
        return yaml.load(text, _Loader)  # a subclass of the safe one
    except (ValueError, RecursionError, OverflowError) as error:
        raise yaml.YAMLError(f"a value that cannot be read: {error}") from None
