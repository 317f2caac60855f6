"""What people write, YAML files and dotted keys, and how it becomes a checked model; what is wrong
with it, in one line.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError, WithJsonSchema

from nas.errors import SpecError, one_of

Model = TypeVar("Model", bound=BaseModel)


def named(what: str, choices: tuple[str, ...]) -> Any:
    """The type of a key that is one of a few names; `what` is the key in the message that it is
    none of them.
    """

    def check(value: object) -> object:
        if value not in choices:
            raise ValueError(one_of(what, value, choices))
        return value

    return Annotated[
        str, BeforeValidator(check), WithJsonSchema({"type": "string", "enum": list(choices)})
    ]


class ConfigModel(BaseModel):
    """Keys that belong together: frozen, and no others are taken."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


def read_yaml(path: Path) -> dict[str, Any]:
    """A file of keys and values.

    Raises:
        SpecError: it cannot be read, or is something else.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise SpecError(f"file {str(path)!r} cannot be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SpecError(f"file {str(path)!r} is not YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise SpecError(
            f"file {str(path)!r} must hold keys and values; got {type(content).__name__}"
        )
    return content


def set_key(written: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key in nested mappings: `set_key(w, "recipe.epochs", 3)`.

    Raises:
        SpecError: a part of the key is a value, not a section.
    """
    *sections, last = key.split(".")
    for section in sections:
        written = written.setdefault(section, {})
        if not isinstance(written, dict):
            raise SpecError(f"{key}: {section!r} is a value, not a section")
    written[last] = value


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Nested mappings joined; where both have a key, `over` counts."""
    result = dict(base)
    for key, value in over.items():
        below = result.get(key)
        result[key] = (
            merged(below, value)
            if isinstance(below, Mapping) and isinstance(value, Mapping)
            else value
        )
    return result


def parse_model(model: type[Model], written: Mapping[str, Any]) -> Model:
    """Check `written` against a pydantic model.

    Raises:
        SpecError: the first fault, in one line, with the dotted key.
    """
    try:
        return model.model_validate(written)
    except ValidationError as error:
        raise SpecError(_first_fault(model, error)) from None


def _first_fault(model: type[BaseModel], error: ValidationError) -> str:
    fault = error.errors(include_url=False)[0]
    key = ".".join(
        str(part) for part in fault["loc"] if not str(part).startswith(("int", "constrained-"))
    )
    if fault["type"] == "extra_forbidden":
        section = _section_model(model, fault["loc"][:-1])
        names = [field.alias or name for name, field in section.model_fields.items()]
        return one_of(
            f"a key of {'.'.join(map(str, fault['loc'][:-1])) or 'the spec'}",
            fault["loc"][-1],
            names,
        )
    cause = fault.get("ctx", {}).get("error")
    if isinstance(cause, ValueError):
        return f"{key}: {cause}" if key else str(cause)
    rule = fault["msg"].removeprefix("Input ").replace("should be", "must be")
    return (
        f"{key} {rule}; got {fault['input']!r}"
        if fault["type"] != "missing"
        else f"{key} is missing"
    )


def _section_model(model: type[BaseModel], path: tuple[Any, ...]) -> type[BaseModel]:
    for part in path:
        annotation = next(
            f.annotation for n, f in model.model_fields.items() if part in (n, f.alias)
        )
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            break
        model = annotation
    return model
