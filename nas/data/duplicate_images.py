"""Images that a data set has more than once, told by their bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nas.data.findings import DataIssue

BETWEEN = "image that another split has too"
WITHIN = "image that its split has twice"


def duplicate_images(splits: Sequence[tuple[str, Mapping[str, str]]]) -> dict[str, list[DataIssue]]:
    """Find image files of equal bytes. A score on images that were trained on tells nothing.

    Args:
        splits: for each its name, and digests of its files by their names.

    Returns:
        For each split, by its name, a warning for each of its files that comes a second time.
    """
    first: dict[str, tuple[str, str]] = {}
    found: dict[str, list[DataIssue]] = {name: [] for name, _ in splits}
    for name, digests in splits:
        for file, digest in digests.items():
            where, earlier = first.setdefault(digest, (name, file))
            if where != name:
                said = f"{earlier} of {where!r}"
                found[name].append(DataIssue(BETWEEN, True, file, detail=said, warning=True))
            elif earlier != file:
                said = f"as {earlier}"
                found[name].append(DataIssue(WITHIN, True, file, detail=said, warning=True))
    return found
