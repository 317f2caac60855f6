"""Quantities of a request, `16GiB`, `20ms`, `5G`, `8h`: numbers to compute with, text to show."""

from __future__ import annotations

import math
import re
from typing import Any, ClassVar, Self

from pydantic import ByteSize, GetCoreSchemaHandler, TypeAdapter
from pydantic_core import CoreSchema, core_schema

from nas.errors import SpecError, quoted

UNITS = ("KiB", "MiB", "GiB", "TiB", "KB", "MB", "GB", "TB")
_SIZE = re.compile(rf"\s*[0-9]+(?:\.[0-9]+)?\s*(?:{'|'.join(UNITS)})\s*", re.IGNORECASE)
_BYTES: TypeAdapter[ByteSize] = TypeAdapter(ByteSize)


class _Written:
    """What is printed and stored as it was written. In a pydantic model it takes a text, or a
    number, and dumps the text.
    """

    text: str

    def __str__(self) -> str:
        return self.text

    def __reduce__(self) -> tuple[type[Self], tuple[str]]:
        return type(self), (self.text,)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        made: Any = cls
        return core_schema.no_info_plain_validator_function(
            lambda value: made(str(value)),
            serialization=core_schema.to_string_ser_schema(when_used="always"),
            json_schema_input_schema=core_schema.str_schema(),
        )


class MemorySize(_Written, int):
    """A number of bytes above 0 that is printed and stored as it was written.

    Sizes are compared as bytes: `MemorySize("1GiB") == MemorySize("1024MiB")`.

    Args:
        text: a number and one of `UNITS`, in any case: `16GiB`, `16 gb`, `1.5TiB`.

    Raises:
        SpecError: no unit, an unknown unit, or nothing left.
    """

    def __new__(cls, text: str) -> Self:
        size = super().__new__(cls, cls._parse(text))
        size.text = text
        return size

    @classmethod
    def _parse(cls, text: str) -> int:
        if not _SIZE.fullmatch(text):
            raise SpecError(
                f"a size of memory is a number and a unit ({', '.join(UNITS)}), for example 16GiB; "
                f"got {quoted(text)}"
            )
        size = _BYTES.validate_python(text)
        if size <= 0:
            raise SpecError(f"a size of memory must be above 0; got {quoted(text)}")
        return size


class CacheSize(MemorySize):
    """A `MemorySize` that may also be 0, written without a unit: nothing is kept."""

    @classmethod
    def _parse(cls, text: str) -> int:
        return 0 if text == "0" else super()._parse(text)


class _Quantity(_Written, float):
    """A number above 0 with a unit.

    Args:
        text: a number and one of `UNITS`, for example `EXAMPLE`.

    Raises:
        SpecError: no unit, an unknown unit, or nothing above 0.
    """

    WHAT: ClassVar[str]
    UNITS: ClassVar[dict[str, float]]  # by their names what they are multiplied by
    EXAMPLE: ClassVar[str]

    def __new__(cls, text: str) -> Self:
        found = re.fullmatch(r"\s*([0-9]+(?:\.[0-9]+)?)\s*([A-Za-z]+)\s*", text)
        unit = cls.UNITS.get(found[2]) if found else None
        if not found or unit is None or not 0 < float(found[1]) * unit < math.inf:
            raise SpecError(
                f"{cls.WHAT} is a number above 0 and a unit ({', '.join(cls.UNITS)}), for example "
                f"{cls.EXAMPLE}; got {quoted(text)}"
            )
        value = super().__new__(cls, float(found[1]) * unit)
        value.text = text
        return value


class Duration(_Quantity):
    """Seconds, written `20ms` or `0.5s`."""

    WHAT, UNITS, EXAMPLE = "a time", {"ms": 1e-3, "s": 1.0}, "20ms"


class Count(_Quantity):
    """A number of something, written `25M` or `5G`."""

    WHAT, UNITS, EXAMPLE = "a count", {"K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}, "5G"


class TimeLimit(_Written, float):
    """Seconds of wall time that are printed and stored as they were written.

    Args:
        text: numbers with units, the larger ones first: `90s`, `20m`, `8h`, `1h30m`, `2d`.

    Raises:
        SpecError: no unit, an unknown unit, another order, or nothing above 0.
    """

    UNITS: ClassVar[dict[str, float]] = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
    _FORM = re.compile(
        r"\s*" + "".join(rf"(?:(?P<{unit}>[0-9]+(?:\.[0-9]+)?)\s*{unit}\s*)?" for unit in UNITS)
    )

    def __new__(cls, text: str) -> Self:
        found = cls._FORM.fullmatch(text)
        parts = found.groupdict() if found else {}
        seconds = sum(float(parts[unit] or 0) * cls.UNITS[unit] for unit in parts)
        if not 0 < seconds < math.inf:
            raise SpecError(
                f"a time limit is above 0, in {', '.join(cls.UNITS)}, for example 20m, 8h or "
                f"1h30m; got {quoted(text)}"
            )
        value = super().__new__(cls, seconds)
        value.text = text
        return value
