"""What a check of a data set met: issues that were repaired, that cost data, or that mislead."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class DataIssue:
    """One issue of a data set.

    Args:
        kind: what is wrong, equal for all issues of the kind: `box of zero area`.
        repaired: the image or box is used, repaired; else it is left out.
        file: the image or annotation file that it is about.
        annotation_id: COCO's number of the annotation, None where it is about a file.
        detail: values that are wrong, or what was done about them.
        warning: nothing is changed about it, but the results may mislead; `repaired` is true then.
    """

    kind: str
    repaired: bool
    file: str
    annotation_id: int | None = None
    detail: str = ""
    warning: bool = False

    @property
    def done(self) -> str:
        """What becomes of it: `repaired`, `left out` or, of a warning, `kept`."""
        return "kept" if self.warning else "repaired" if self.repaired else "left out"

    @property
    def where(self) -> str:
        """File and annotation, for people."""
        number = self.annotation_id
        return self.file if number is None else f"{self.file}, annotation {number}"

    def __str__(self) -> str:
        return f"{self.where}: {self.kind}" + (f" ({self.detail})" if self.detail else "")


@dataclass
class Findings:
    """The issues of a check in the order they were met."""

    problems: list[DataIssue] = field(default_factory=list)

    def repaired(
        self, kind: str, file: str, annotation_id: int | None = None, detail: str = ""
    ) -> None:
        """Note an issue whose image or box is used all the same."""
        self.problems.append(DataIssue(kind, True, file, annotation_id, detail))

    def lost(
        self, kind: str, file: str, annotation_id: int | None = None, detail: str = ""
    ) -> None:
        """Note an issue whose image or box is left out."""
        self.problems.append(DataIssue(kind, False, file, annotation_id, detail))
