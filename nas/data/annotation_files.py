"""COCO annotation files, parsed into lists."""

from __future__ import annotations

import codecs
import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from nas.data.findings import Findings
from nas.errors import DataError
from nas.utils.shown_text import whole
from search_spaces.regular_files import read_regular

ENCODINGS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
PIECE_BYTES = 2**20


def read_annotations(path: Path) -> dict[str, list[dict[str, Any]]]:
    """Read the lists `images`, `annotations` and `categories` of an annotation file.

    Raises:
        DataError: unreadable, not JSON, or without one of the lists.
    """
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:  # also of a number of thousands of digits
        raise DataError(f"annotation file {str(path)!r} is not JSON: {error}") from None
    lists: dict[str, list[dict[str, Any]]] = {}
    for key in ("images", "annotations", "categories"):
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise DataError(
                f"annotation file {str(path)!r} must have a list {key!r} of objects (COCO "
                "instances form)"
            )
        lists[key] = entries
    return lists


class _File(msgspec.Struct):
    images: list[dict[str, Any]]
    annotations: list[msgspec.Raw]
    categories: list[dict[str, Any]]


def read_entries(path: Path) -> Mapping[str, Sequence[Any]]:
    """Read the lists of an annotation file as `read_annotations` does, in a tenth of the memory.

    Returns:
        `images` and `categories` as dictionaries; `annotations` as an `AnnotationList`, or as
        dictionaries where the file is no JSON in the strict sense (with NaN, for example).

    Raises:
        DataError: as `read_annotations`.
    """
    from nas.data.annotation_list import AnnotationList  # brings NumPy, which --help does not need

    try:
        content = msgspec.json.decode(read_utf8(path), type=_File)
        annotations = AnnotationList(content.annotations)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return read_annotations(path)
    lists = {name: getattr(content, name) for name in content.__struct_fields__}
    return {**lists, "annotations": annotations}


def read_text(path: Path) -> str:
    """Read a file of annotations, by the mark at its beginning where there is one, else as UTF-8.

    Raises:
        DataError: it cannot be read, or is not text.
    """
    return read_utf8(path).decode()


def read_utf8(path: Path) -> bytes:
    """Read a file of annotations as `read_text` does, as UTF-8 without a mark."""
    try:
        written = read_regular(path)
        marks = (code for mark, code in ENCODINGS.items() if written.startswith(mark))
        if code := next(marks, None):
            return written.decode(code).encode()
        decoder = codecs.getincrementaldecoder("utf-8")()
        for start in range(0, len(written), PIECE_BYTES):  # the whole text would take as much again
            decoder.decode(written[start : start + PIECE_BYTES])
        decoder.decode(b"", final=True)
        return written
    except OSError as error:
        raise DataError(f"annotation file {str(path)!r} cannot be read: {error.strerror}") from None
    except UnicodeError:
        raise DataError(f"annotation file {str(path)!r} is not text") from None


def read_categories(
    entries: Sequence[dict[str, Any]], source: str, findings: Findings
) -> tuple[tuple[int, str], ...]:
    """Read id and name of every category, by ascending id; a category without a name has its id,
    and of several with one name each has its id behind it.

    Args:
        entries: the file's list `categories`.
        source: the file, for errors.
        findings: takes names that were changed.

    Raises:
        DataError: none at all, no id, or one id with two names.
    """
    names: dict[int, str] = {}
    for entry in entries:
        category_id = entry.get("id")
        written = entry.get("name")
        name = whole(str(category_id if written in (None, "") else written).strip())
        if type(category_id) is not int:
            raise DataError(f"{source}: a category needs an id; got {category_id!r}")
        if names.setdefault(category_id, name) != name:
            raise DataError(
                f"{source}: category {category_id} has two names, {names[category_id]!r} and "
                f"{name!r}"
            )
    if not names:
        raise DataError(f"{source}: the list of categories is empty")
    return tuple(sorted(_distinct(names, source, findings).items()))


def without_root(
    content: Mapping[str, Sequence[Any]], source: str, findings: Findings
) -> Sequence[dict[str, Any]]:
    """Categories of a file without the one that others only belong to, which Roboflow writes: no
    box has it, and it is the `supercategory` of all others.

    Args:
        content: lists `categories` and `annotations`.
        source: the file, for findings.
        findings: takes what was left out.
    """
    entries = content["categories"]
    above = [entry.get("supercategory") for entry in entries]
    counts = Counter(name for name in above if isinstance(name, str))
    for root in (entry for entry in entries if isinstance(entry.get("name"), str)):
        own = root.get("supercategory") == root["name"]
        if len(entries) < 2 or counts[root["name"]] - own < len(entries) - 1:
            continue
        others = [entry for entry in entries if entry is not root]
        if all(box.get("category_id") != root.get("id") for box in content["annotations"]):
            findings.repaired("category above all others", source, detail=f"{root['name']!r}")
            return others
    return entries


def _distinct(names: dict[int, str], source: str, findings: Findings) -> dict[int, str]:
    numbers = defaultdict[str, list[int]](list)
    for number, name in names.items():
        numbers[name].append(number)
    for name, alike in numbers.items():
        if len(alike) > 1:
            ids = ", ".join(map(str, alike))
            detail = f"{name!r}: {ids}; kept apart"
            findings.repaired("categories of one name", source, detail=detail)
    return {
        number: f"{name} ({number})" if len(numbers[name]) > 1 else name
        for number, name in names.items()
    }
