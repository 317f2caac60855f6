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


class Columns(NamedTuple):
    """The numbers of annotations as their file states them.

    Args:
        plain: [N], bool: all values have the types that COCO's have. Of the others the ids alone
            are given.
        ids: [N], int64, from 1 to `MOST_ID`; `NO_ID` where it is no such number.
        image_ids, category_ids: [N], int64.
        bboxes: [N, 4], float64.
        areas: [N], float64; not a number where there is none.
        crowds: [N], bool.
    """

    plain: NDArray[np.bool_]
    ids: NDArray[np.int64]
    image_ids: NDArray[np.int64]
    category_ids: NDArray[np.int64]
    bboxes: NDArray[np.float64]
    areas: NDArray[np.float64]
    crowds: NDArray[np.bool_]


class AnnotationList(Sequence[Any]):
    """The annotations of a file, as `AnnotationEntry`, or as dictionaries where they hold numbers
    that no 64 bits do.

    Args:
        written: each as its file has it, JSON in UTF-8.
        columns: their numbers; None: they are read.

    Raises:
        ValueError: one of them is no object.
    """

    def __init__(self, written: Sequence[msgspec.Raw], columns: Columns | None = None) -> None:
        self._written = written
        self.columns = columns or _columns(map(_plain_or_other, written))

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
        columns = Columns(*(column[np.asarray(chosen, dtype=bool)] for column in self.columns))
        return AnnotationList([*itertools.compress(self._written, chosen)], columns)


def only(entries: Sequence[Any], chosen: Iterable[bool]) -> Sequence[Any]:
    """The entries of any list of annotations for which `chosen` is true."""
    if isinstance(entries, AnnotationList):
        return entries.only([*chosen])
    return [*itertools.compress(entries, chosen)]


def columns_of(entries: Sequence[Any]) -> Columns:
    """The numbers of annotations; of a list of dictionaries none counts as plain."""
    return entries.columns if isinstance(entries, AnnotationList) else _columns(entries)


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


def _columns(entries: Iterable[Any]) -> Columns:
    """Plain entries, and others."""
    plain, whole, floats = array("b"), array("q"), array("d")
    for entry in entries:
        row = entry if type(entry) is _PlainEntry else _PlainEntry(_usable_id(entry), *NOTHING)
        plain.append(row is entry)
        whole.extend((row.id, row.image_id, row.category_id, bool(row.iscrowd)))
        floats.extend((*row.bbox, math.nan if row.area is None else row.area))
    rows = np.frombuffer(whole, dtype=np.int64).reshape(-1, 4)
    numbers = np.frombuffer(floats, dtype=np.float64).reshape(-1, 5)
    ids, image_ids, category_ids, crowds = (column.copy() for column in rows.T)
    boxes, areas = np.ascontiguousarray(numbers[:, :4]), numbers[:, 4].copy()
    is_plain = np.array(plain, dtype=bool)
    return Columns(is_plain, ids, image_ids, category_ids, boxes, areas, crowds > 0)


def _usable_id(entry: Any) -> int:
    number = as_id(entry.get("id"))
    return number if 0 < number <= MOST_ID else NO_ID
