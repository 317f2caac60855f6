"""Which values of a section name the run that they describe, so that a newer release goes on with
what an older one began.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nas.config.parsing import ConfigModel


@dataclass(frozen=True)
class Since:
    """Marks a key that a section did not have in release 0.1.0: `Annotated[int, Field(ge=0),
    Since("0.2.0")] = 0`. Its default must do what releases without the key did.
    """

    release: str


def identity(section: ConfigModel) -> dict[str, Any]:
    """The values that name a run, as plain JSON in the order of their declaration: of the keys that
    came later (`Since`), those alone that differ from their defaults.
    """
    values = section.model_dump(mode="json")
    for name, field in type(section).model_fields.items():
        later = any(isinstance(mark, Since) for mark in field.metadata)
        if later and getattr(section, name) == field.get_default(call_default_factory=True):
            del values[name]
    return values
