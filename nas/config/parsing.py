"""From YAML files and dotted keys to checked pydantic models, with errors of one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from nas.errors import SpecError, one_of, quoted
from search_spaces.regular_files import read_regular
from search_spaces.yaml_text import parse_yaml

Model = TypeVar("Model", bound=BaseModel)


class ConfigModel(BaseModel):
    """Base class of a section: its values cannot be changed, its numbers are finite, and it takes
    no unknown keys.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False
    )


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file of keys and values.

    Raises:
        SpecError: the file cannot be read, is not YAML, or holds something else than a mapping.
    """
    try:
        content = parse_yaml(read_regular(path).decode("utf-8-sig"))
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
    """Set a dotted key in nested mappings, in place: `set_key(request, "recipe.epochs", 3)`.

    Raises:
        SpecError: a part of the key is a value, not a section.
    """
    *sections, last = key.split(".")
    for section in sections:
        written = written.setdefault(section, {})
        if not isinstance(written, dict):
            raise SpecError(f"{key}: {quoted(section)} is a value, not a section")
    written[last] = value


def deep_merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Join nested mappings into a new one; where both have a key, `over` counts."""
    result = dict(base)
    for key, value in over.items():
        default = result.get(key)
        if isinstance(default, Mapping) and isinstance(value, Mapping):
            value = deep_merge(default, value)
        result[key] = value
    return result


def parse_model(model: type[Model], written: Mapping[str, Any]) -> Model:
    """Build a pydantic model from what was written.

    Raises:
        SpecError: the first fault, in one line: the dotted key, the rule and the value.
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
        *sections, unknown = fault["loc"]
        fields = _section_model(model, sections).model_fields
        names = [field.alias or name for name, field in fields.items()]
        return one_of(f"a key of {'.'.join(map(str, sections)) or 'the spec'}", unknown, names)
    if fault["type"] == "literal_error" and (field := _field(model, fault["loc"])).title:
        return f"{key}: {one_of(field.title, fault['input'], _literals(field.annotation))}"
    cause = fault.get("ctx", {}).get("error")
    if isinstance(cause, ValueError):
        return f"{key}: {cause}" if key else str(cause)
    rule = fault["msg"].removeprefix("Input ").replace("should be", "must be")
    rule = rule.partition(" or instance of ")[0]
    return (
        f"{key} {rule}; got {quoted(fault['input'])}"
        if fault["type"] != "missing"
        else f"{key} is missing"
    )


def _section_model(model: type[BaseModel], path: Sequence[int | str]) -> type[BaseModel]:
    """The model of the section that a path of keys leads to."""
    for key in path:
        section = _own_field(model, key).annotation
        if not (isinstance(section, type) and issubclass(section, BaseModel)):
            break
        model = section
    return model


def _own_field(model: type[BaseModel], key: int | str) -> FieldInfo:
    return next(f for name, f in model.model_fields.items() if key in (name, f.alias))


def _field(model: type[BaseModel], path: Sequence[int | str]) -> FieldInfo:
    """The field that a path of keys, and the index of an entry where it is a list, leads to."""
    *sections, last = (key for key in path if isinstance(key, str))
    return _own_field(_section_model(model, sections), last)


def _literals(annotation: Any) -> list[object]:
    """Every choice that an annotation allows, at any depth: those of `tuple[Literal["a"], ...]`."""
    arguments = get_args(annotation)
    if get_origin(annotation) is Literal:
        return list(arguments)
    return [choice for argument in arguments for choice in _literals(argument)]
