"""The categories of several splits made those of the first, by their names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from nas.data.coco import CocoSplit
from nas.data.findings import DataIssue


def with_categories_of(
    split: CocoSplit, first: CocoSplit, first_name: str, source: str
) -> tuple[CocoSplit, list[DataIssue]]:
    """Give a split the categories of the first one: a split may lack some, number them otherwise,
    or list more as long as no box has them.

    Args:
        split: its boxes of categories that the first does not have are left out.
        first: whose categories count.
        first_name: name of the first split, for findings.
        source: the split's annotation file, for findings.

    Returns:
        The split, and what was found.
    """
    if split.categories == first.categories:
        return split, []
    numbers = {name: number for number, name in first.categories}
    names = dict(split.categories)
    renumbered = {old: numbers[name] for old, name in names.items() if name in numbers}
    boxes = split.boxes.select(np.isin(split.boxes.category_ids, [*renumbered]))
    kinds = np.array([renumbered[old] for old in boxes.category_ids.tolist()], dtype=np.int64)
    boxes = replace(boxes, category_ids=kinds)
    changed = replace(split, boxes=boxes, categories=first.categories)
    return changed, _differences(split, numbers, first_name, source)


def _differences(
    split: CocoSplit, numbers: dict[str, int], first_name: str, source: str
) -> list[DataIssue]:
    names = dict(split.categories)
    counts = Counter(names[number] for number in split.boxes.category_ids.tolist())
    unknown = [name for name in names.values() if name not in numbers]
    lost = [
        DataIssue(
            f"category that {first_name!r} does not have",
            False,
            source,
            detail=f"{name!r}, {counts[name]} boxes; its own are {_listed([*numbers])}",
        )
        for name in unknown
        if counts[name]
    ]
    renumbered = [name for number, name in names.items() if numbers.get(name, number) != number]
    told = (
        ("lacks", [name for name in numbers if name not in names.values()]),
        ("lists without boxes", [name for name in unknown if not counts[name]]),
        ("numbers otherwise", renumbered),
    )
    said = "; ".join(f"{verb} {_listed(which)}" for verb, which in told if which)
    repaired = DataIssue(f"categories other than those of {first_name!r}", True, source, None, said)
    return [*lost, *([repaired] if said else [])]


def _listed(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(repr, names[:most])) + more
