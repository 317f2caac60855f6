"""A number of its own for every annotation."""

from __future__ import annotations

from typing import Any

from nas.data.findings import Findings
from nas.data.ids import MOST_ID, NO_ID, as_id


class AnnotationNumbers:
    """Numbers annotations: each has its own id where that is usable and no other had it before.

    Ids begin at 1: COCO's evaluation takes a match with annotation 0 for none.

    Args:
        highest: usable id that any annotation of the file has; 0 without one.
    """

    def __init__(self, highest: int) -> None:
        self._next = highest + 1
        self._seen: dict[int, dict[str, Any]] = {}

    def of(self, entry: dict[str, Any], file: str, findings: Findings) -> int | None:
        """Number an annotation; None where it is a copy of an earlier one.

        Args:
            entry: the annotation.
            file: that findings are about.
            findings: takes what was renumbered.
        """
        number = as_id(entry.get("id"))
        if self._seen.get(number) == entry:
            findings.repaired("annotation listed twice", file, number)
            return None
        if fault := self._fault(number):
            known = None if number == NO_ID else number
            findings.repaired(fault, file, known, f"renumbered to {self._next}")
            number, self._next = self._next, self._next + 1
        self._seen[number] = entry
        return number

    def _fault(self, number: int) -> str | None:
        if number == NO_ID:
            return "annotation without a number"
        if not 0 < number <= MOST_ID:
            return "annotation id outside 1 to 2^53"
        return "duplicate annotation id" if number in self._seen else None
