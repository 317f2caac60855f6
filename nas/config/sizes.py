"""Sizes of memory and disk, `16GiB` in a request: bytes to compute with, text to show."""

from __future__ import annotations

import re
from typing import Any

from pydantic import ByteSize, GetCoreSchemaHandler, TypeAdapter
from pydantic_core import CoreSchema, core_schema

from nas.errors import SpecError

UNITS = ("KiB", "MiB", "GiB", "TiB", "KB", "MB", "GB", "TB")
_SIZE = re.compile(rf"\s*[0-9]+(?:\.[0-9]+)?\s*(?:{'|'.join(UNITS)})\s*", re.IGNORECASE)
_BYTES: TypeAdapter[ByteSize] = TypeAdapter(ByteSize)


class MemorySize(int):
    """A number of bytes above 0 that is printed and stored as it was written.

    Sizes are compared as bytes: `MemorySize("1GiB") == MemorySize("1024MiB")`. In a pydantic model
    it takes a text and dumps that text.

    Args:
        text: a number and one of `UNITS`, in any case: `16GiB`, `16 gb`, `1.5TiB`.

    Raises:
        SpecError: no unit, an unknown unit, or nothing left.
    """

    text: str

    def __new__(cls, text: str) -> MemorySize:
        size = super().__new__(cls, cls._parse(text))
        size.text = text
        return size

    @classmethod
    def _parse(cls, text: str) -> int:
        if not _SIZE.fullmatch(text):
            raise SpecError(
                f"a size of memory is a number and a unit ({', '.join(UNITS)}), for example 16GiB; "
                f"got {text!r}"
            )
        size = _BYTES.validate_python(text)
        if size <= 0:
            raise SpecError(f"a size of memory must be above 0; got {text!r}")
        return size

    def __str__(self) -> str:
        return self.text

    def __reduce__(self) -> tuple[type[MemorySize], tuple[str]]:
        return type(self), (self.text,)

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            lambda value: cls(str(value)),
            serialization=core_schema.to_string_ser_schema(when_used="always"),
            json_schema_input_schema=core_schema.str_schema(),
        )


class CacheSize(MemorySize):
    """A `MemorySize` that may also be 0, written without a unit: nothing is kept."""

    @classmethod
    def _parse(cls, text: str) -> int:
        return 0 if text == "0" else super()._parse(text)
