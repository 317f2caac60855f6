"""What the description of a bundle may say beside the sections of a request: whoever sent it wrote
it, and what is read of it has the types that an export writes. Further keys may be there.
"""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictStr, model_validator

MOST_THREADS = 1024


class _Open(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class _Figures(_Open):
    map: float | None = None

    @model_validator(mode="after")
    def _finite(self) -> _Figures:
        """Whatever a figure is compared with, what is no number would be neither more nor less."""
        for name, value in self:
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{name} must be a finite number; got {value}")
        return self


class _Hardware(_Open):
    threads: Annotated[int, Field(ge=1, le=MOST_THREADS)] | None = None


class _Origin(_Open):
    seed: Annotated[int, Field(ge=0, lt=2**31)] | None = None
    data_fingerprint: str | None = None
    versions: dict[str, str | None] = {}
    hardware: _Hardware = _Hardware()


class _Data(_Open):
    val: str = "val"
    annotations: str | None = None
    images: str | None = None


class _Request(_Open):
    data: _Data = _Data()


class Stated(BaseModel):
    """Categories, scores, where weights come from, all that was asked for, and why forms of the
    bundle are not there.
    """

    categories: Annotated[tuple[StrictStr, ...], Field(min_length=1)]
    figures: _Figures
    origin: _Origin
    request: _Request = _Request()
    left_out: tuple[StrictStr, ...] = ()
