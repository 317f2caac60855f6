"""The callback by which something that takes a while says how far it is."""

from __future__ import annotations

from typing import Protocol


class CountProgress(Protocol):
    """A callback that is told after each of many items: images of a split, layouts, rows."""

    def __call__(self, what: str, done: int, total: int, /) -> None:
        """Take note of one more item.

        Args:
            what: the items, for people: the name of a split, `layouts`.
            done: items that are through, from 1.
            total: items there are.
        """
