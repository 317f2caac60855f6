"""What a check of a data set met: repaired, or lost."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class DataIssue:
    """One finding. `repaired` says that image and box are used; else the image or the box cannot
    be.
    """

    kind: str
    repaired: bool
    file: str
    annotation_id: int | None = None
    detail: str = ""

    def __str__(self) -> str:
        where = (
            self.file
            if self.annotation_id is None
            else f"{self.file}, annotation {self.annotation_id}"
        )
        return f"{where}: {self.kind}" + (f" ({self.detail})" if self.detail else "")


@dataclass
class Findings:
    """Problems in the order they were met."""

    problems: list[DataIssue] = field(default_factory=list)

    def repaired(
        self, kind: str, file: str, annotation_id: int | None = None, detail: str = ""
    ) -> None:
        self.problems.append(DataIssue(kind, True, file, annotation_id, detail))

    def lost(
        self, kind: str, file: str, annotation_id: int | None = None, detail: str = ""
    ) -> None:
        self.problems.append(DataIssue(kind, False, file, annotation_id, detail))
