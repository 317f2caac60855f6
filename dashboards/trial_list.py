"""The trials of a study a page at a time, as the address of the page asks for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from dashboards.study_view import STATES
from nas.reports import TrialRow

PAGE_ROWS = 100
ORDERS: dict[str, Callable[[TrialRow], tuple[float, int]]] = {
    "number": lambda row: (0.0, row.number),
    "latest": lambda row: (0.0, -row.number),
    "map": lambda row: (-row.map if row.map is not None else 1.0, row.number),
    "memory": lambda row: (row.memory_gib if row.memory_gib is not None else 1e9, row.number),
}


@dataclass(frozen=True)
class TrialList:
    """Some of a study's trials.

    Args:
        rows: those of this page.
        total: of all pages.
        page: from 1.
        pages: at least 1.
        state: of all of them, lower case; empty: of any.
        order: one of `ORDERS`.
        states: those that can be asked for, lower case.
    """

    rows: Sequence[TrialRow]
    total: int
    page: int
    pages: int
    state: str
    order: str
    states: Sequence[str]

    @classmethod
    def asked(cls, rows: Sequence[TrialRow], query: Mapping[str, str]) -> TrialList:
        """What a query asks for: `page`, `state` and `order`; what it has not, or what cannot be,
        is the first page, any state and the order of the numbers.
        """
        present = {row.state for row in rows}
        states = [state.lower() for state in STATES if state in present]
        state = query.get("state", "") if query.get("state") in states else ""
        order = query.get("order", "") if query.get("order") in ORDERS else "number"
        chosen = [row for row in rows if not state or row.state.lower() == state]
        chosen.sort(key=ORDERS[order])
        pages = max(1, -(-len(chosen) // PAGE_ROWS))
        asked = query.get("page", "")
        page = min(max(1, int(asked)), pages) if asked.isdecimal() and len(asked) < 9 else 1
        shown = chosen[(page - 1) * PAGE_ROWS : page * PAGE_ROWS]
        return cls(shown, len(chosen), page, pages, state, order, states)

    @classmethod
    def whole(cls, rows: Sequence[TrialRow]) -> TrialList:
        """All of them on one page, for a file."""
        return cls(rows, len(rows), 1, 1, "", "number", [])

    @property
    def orders(self) -> Sequence[str]:
        """Orders that can be asked for."""
        return [*ORDERS]

    def link(self, **changes: str | int) -> str:
        """Query and fragment of a page like this one but for `changes`."""
        wanted = {"page": 1, "state": self.state, "order": self.order, **changes}
        return "?" + urlencode({name: value for name, value in wanted.items() if value}) + "#trials"
