"""The annotations of a file in the memory of its text: each is parsed when it is asked for, and the
numbers of those that are written as COCO writes them are columns.
"""

from __future__ import annotations

import itertools
import json
import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, NamedTuple, overload

import msgspec
import numpy as np
from numpy.typing import NDArray

from nas.data.box_table import Box, BoxTable
from nas.data.ids import MOST_ID, NO_ID, as_id

NOTHING = (0, 0, (math.nan, math.nan, math.nan, math.nan))  # of one that is not plain


class AnnotationEntry(msgspec.Struct, gc=False, eq=False):
    """An annotation of a file as far as it is read; its polygons are parsed when asked for."""

    id: Any = None
    image_id: Any = None
    category_id: Any = None
    bbox: Any = None
    area: Any = None
    iscrowd: Any = None
    segmentation: msgspec.Raw = msgspec.Raw()

    def get(self, key: str) -> Any:
        """Value of a key as a dictionary would give it; None where there is none."""
        if key != "segmentation":
            return getattr(self, key)
        written = bytes(self.segmentation)
        return json.loads(written) if written else None

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AnnotationEntry) and all(
            self.get(key) == other.get(key) for key in self.__struct_fields__
        )


Number = Annotated[int, msgspec.Meta(ge=-MOST_ID, le=MOST_ID)]


class _PlainEntry(msgspec.Struct, gc=False):
    """An annotation with values of the types that COCO's have."""

    id: Annotated[int, msgspec.Meta(ge=1, le=MOST_ID)]
    image_id: Number
    category_id: Number
    bbox: tuple[float, float, float, float]
    area: float | None = None
    iscrowd: int | bool | None = 0


class StatedNumbers(NamedTuple):
    """The numbers of annotations as their file states them.

    Args:
        plain: [N], bool: all values have the types that COCO's have. Of the others the ids alone
            are given.
        boxes: of all; ids from 1 to `MOST_ID`, `NO_ID` where it is no such number; areas not a
            number where there is none. They have no masks.
    """

    plain: NDArray[np.bool_]
    boxes: BoxTable


class AnnotationList(Sequence[Any]):
    """The annotations of a file, as `AnnotationEntry`, or as dictionaries where they hold numbers
    that no 64 bits do.

    Args:
        written: each as its file has it, JSON in UTF-8.
        stated: their numbers; None: they are read.

    Raises:
        ValueError: one of them is no object.
    """

    def __init__(self, written: Sequence[msgspec.Raw], stated: StatedNumbers | None = None) -> None:
        self._written = written
        self.stated = stated or _stated(map(_plain_or_other, written))

    def __len__(self) -> int:
        return len(self._written)

    @overload
    def __getitem__(self, index: int) -> Any: ...
    @overload
    def __getitem__(self, index: slice) -> list[Any]: ...
    def __getitem__(self, index: int | slice) -> Any:
        if isinstance(index, slice):
            return [_entry(written) for written in self._written[index]]
        return _entry(self._written[index])

    def __iter__(self) -> Iterator[Any]:
        return map(_entry, self._written)

    def mask(self, index: int) -> bytes:
        """The value `segmentation` of an annotation, as its file has it; empty without one."""
        return bytes(_MASK.decode(self._written[index]).segmentation)

    def only(self, chosen: Sequence[bool]) -> AnnotationList:
        """The annotations for which `chosen` is true, of [N]."""
        rows = np.asarray(chosen, dtype=bool)
        stated = StatedNumbers(self.stated.plain[rows], self.stated.boxes.select(rows))
        return AnnotationList([*itertools.compress(self._written, chosen)], stated)


def only(entries: Sequence[Any], chosen: Iterable[bool]) -> Sequence[Any]:
    """The entries of any list of annotations for which `chosen` is true."""
    if isinstance(entries, AnnotationList):
        return entries.only([*chosen])
    return [*itertools.compress(entries, chosen)]


def stated_numbers(entries: Sequence[Any]) -> StatedNumbers:
    """The numbers of annotations; of a list of dictionaries none counts as plain."""
    return entries.stated if isinstance(entries, AnnotationList) else _stated(entries)


class _Mask(msgspec.Struct, gc=False):
    segmentation: msgspec.Raw = msgspec.Raw()


_PLAIN = msgspec.json.Decoder(_PlainEntry)
_ENTRY = msgspec.json.Decoder(AnnotationEntry)
_MASK = msgspec.json.Decoder(_Mask)


def _entry(written: msgspec.Raw) -> Any:
    try:
        return _ENTRY.decode(written)
    except msgspec.MsgspecError:
        return json.loads(bytes(written))


def _plain_or_other(written: msgspec.Raw) -> Any:
    try:
        return _PLAIN.decode(written)
    except msgspec.MsgspecError:
        entry = _entry(written)
    if not isinstance(entry, AnnotationEntry | dict):
        raise ValueError(f"no object: {bytes(written)[:40]!r}")
    return entry


def _stated(entries: Iterable[Any]) -> StatedNumbers:
    """Plain entries, and others."""
    plain = array("b")

    def boxes() -> Iterator[Box]:
        for entry in entries:
            row = entry if type(entry) is _PlainEntry else _PlainEntry(_usable_id(entry), *NOTHING)
            plain.append(row is entry)
            area = math.nan if row.area is None else row.area
            crowd = int(bool(row.iscrowd))
            yield Box(row.id, row.image_id, row.category_id, row.bbox, area, crowd)

    table = BoxTable.of(boxes())
    return StatedNumbers(np.array(plain, dtype=bool), table)


def _usable_id(entry: Any) -> int:
    number = as_id(entry.get("id"))
    return number if 0 < number <= MOST_ID else NO_ID
