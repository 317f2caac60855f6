"""Images and categories of a file numbered anew where their ids are none that COCO's tools take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from nas.data.annotation_list import AnnotationList
from nas.data.findings import Findings
from nas.data.ids import MOST_ID, common_name

Entries = Sequence[Any]  # dictionaries, annotations perhaps as `AnnotationEntry`


def with_own_ids(
    content: Mapping[str, Entries], source: str, findings: Findings
) -> dict[str, Entries]:
    """Number images and categories of a file anew where their ids are no whole numbers of at most
    53 bits, and let its annotations follow.

    Args:
        content: lists `images`, `annotations` and `categories`; they stay as they are.
        source: the file, for findings.
        findings: takes what was renumbered.

    Returns:
        The lists; a reference that leads nowhere is `NO_ID`.
    """
    numbered = dict(content)
    for key, reference in (("images", "image_id"), ("categories", "category_id")):
        entries = content[key]
        if _plain(entries, "id") and _plain(numbered["annotations"], reference):
            continue
        numbers = _numbers([entry.get("id") for entry in entries])
        stated = (e["id"] for e in entries if common_name(e.get("id")) in numbers)
        changed = [each for each in stated if each != numbers[common_name(each)]]
        if changed:
            example = f"{changed[0]!r} is {numbers[common_name(changed[0])]} now"
            findings.repaired(
                f"id of {key} that is no number", source, detail=f"{len(changed)}; {example}"
            )
        numbered[key] = _renumbered(entries, "id", numbers)
        numbered["annotations"] = _renumbered(numbered["annotations"], reference, numbers)
    return numbered


def _renumbered(entries: Entries, key: str, numbers: Mapping[Any, int]) -> Entries:
    return [_with(e, key, numbers.get(common_name(e.get(key)), e.get(key))) for e in entries]


def _with(entry: Any, key: str, value: object) -> Any:
    if isinstance(entry, msgspec.Struct):
        return msgspec.structs.replace(entry, **{key: value})
    return {**entry, key: value}


def _plain(entries: Entries, key: str) -> bool:
    if isinstance(entries, AnnotationList) and entries.stated.plain.all():
        return True
    return all(type(value := entry.get(key)) is int and abs(value) <= MOST_ID for entry in entries)


def _numbers(ids: Sequence[object]) -> dict[int | str | None, int]:
    """A number for each id: its own where it has a usable one, else one that is free."""
    names = list(dict.fromkeys(name for value in ids if (name := common_name(value)) is not None))
    own = dict.fromkeys(n for n in names if isinstance(n, int) and abs(n) <= MOST_ID)
    return {name: name for name in own} | _free(own, [name for name in names if name not in own])


def _free(taken: Iterable[int], names: Sequence[int | str]) -> dict[int | str | None, int]:
    first = max((0, *taken)) + 1
    return {name: number for number, name in enumerate(names, start=first)}
