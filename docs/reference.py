"""Writes docs/reference.md: every key of a request and of a recipe, every attribute of a study, as
the code has them.

python docs/reference.py
"""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from nas.config.choices import recipe_names
from nas.config.recipe import AUTO, Recipe, load_recipe, recipe_calibration
from nas.config.sections import (
    BudgetSpec,
    CalibrationSpec,
    DataSpec,
    DetectorSpec,
    RunSpec,
    SearchSettings,
)
from nas.config.spec import SearchSpec
from nas.study import schema as attributes

PATH = Path(__file__).with_suffix(".md")
SECTIONS: dict[str, type[BaseModel]] = {
    "data": DataSpec,
    "detector": DetectorSpec,
    "recipe": Recipe,
    "budget": BudgetSpec,
    "calibration": CalibrationSpec,
    "search": SearchSettings,
    "run": RunSpec,
}
DEFAULT_TEXTS = {
    "study": "the data folder's name",
    "space": AUTO,
    "data.root": "",
    "detector.name": AUTO,
    "recipe.name": AUTO,
    "search.sampler": "multifidelity",
    "search.pruner": "multifidelity",
    "search.trials": "40",
    "search.baselines": "true",
    "search.finish": "none",
}  # where the class has none, or another
RECORDED = {"plan"}  # kept with a request, never written by hand
NAMES = {
    "boolean": "true or false",
    "integer": "whole number",
    "number": "number",
    "string": "text",
}
LIMITS = {
    "minimum": "at least",
    "exclusiveMinimum": "above",
    "maximum": "at most",
    "exclusiveMaximum": "below",
    "multipleOf": "a multiple of",
}


def described(model: type[BaseModel]) -> dict[str, str]:
    """Map each key of a section to its text below `Args:` in the docstring of its class."""
    lines = (inspect.getdoc(model) or "").partition("Args:\n")[2]
    texts: dict[str, str] = {}
    for entry in re.split(r"\n    (?! )", "\n" + lines)[1:]:
        name, _, text = entry.partition(": ")
        texts[name.strip()] = " ".join(text.split())
    return texts


def values(schema: dict[str, Any]) -> str:
    """Describe in words what a key takes; `schema` is its JSON schema."""
    if "anyOf" in schema:
        return " or ".join(
            values(choice) for choice in schema["anyOf"] if choice.get("type") != "null"
        )
    if choices := schema.get("enum") or ([schema["const"]] if "const" in schema else None):
        return ", ".join(f"`{choice}`" for choice in choices)
    if schema["type"] == "array":
        return f"list: {values(schema['items'])}"
    return ", ".join(
        [
            NAMES[schema["type"]],
            *(
                f"{words} {schema[limit]:.10g}"
                for limit, words in LIMITS.items()
                if limit in schema
            ),
        ]
    )


def default(key: str, field: FieldInfo) -> str:
    """Give the default of a key as a request would write it."""
    if key in DEFAULT_TEXTS:
        return DEFAULT_TEXTS[key]
    if field.is_required():
        return "the recipe's"
    value = field.get_default()
    if isinstance(value, bool):
        return str(value).lower()
    return (
        "" if value in (None, ()) else ", ".join(value) if isinstance(value, tuple) else str(value)
    )


def table(model: type[BaseModel], section: str = "") -> list[str]:
    """List the keys of a section that are values, as a Markdown table."""
    texts, schemas = described(model), model.model_json_schema()["properties"]
    rows = ["| key | values | default | |", "| --- | --- | --- | --- |"]
    for name, field in model.model_fields.items():
        key = f"{section}.{field.alias or name}" if section else name
        if key not in {*SECTIONS, *RECORDED}:
            accepted = (
                "a name, a file or the space itself"
                if key == "space"
                else values(schemas[field.alias or name])
            )
            rows.append(
                f"| `{key}` | {accepted} | {default(key, field)} | {texts[field.alias or name]} |"
            )
    return rows


def recipes() -> list[str]:
    """List what the recipes of the package set, side by side, as a Markdown table; what they set of
    `calibration` comes last.
    """
    loaded = {name: load_recipe(name) | _calibration_keys(name) for name in recipe_names()}
    fields = [name for name in Recipe.model_fields if name != "name"]
    fields += [f"calibration.{name}" for name in CalibrationSpec.model_fields]
    keys = [name for name in fields if any(name in recipe for recipe in loaded.values())]
    rows = [f"| | {' | '.join(loaded)} |", f"| --- |{' --- |' * len(loaded)}"]
    for key in keys:
        cells = [recipe.get(key, "") for recipe in loaded.values()]
        rows.append(
            f"| `{key}` | "
            + " | ".join(f"{cell:g}" if isinstance(cell, float) else str(cell) for cell in cells)
            + " |"
        )
    return rows


def _calibration_keys(recipe: str) -> dict[str, Any]:
    return {f"calibration.{key}": value for key, value in recipe_calibration(recipe).items()}


def reference() -> str:
    """Write the whole page."""
    lines = [
        "# Reference",
        "",
        "Written by `python docs/reference.py` from the code.",
        "",
        "## A request",
        "",
    ]
    lines += [
        "`nas-submit request.yaml`; a flag or `--set key=value` comes before the file.",
        "",
        *table(SearchSpec),
    ]
    for section, model in SECTIONS.items():
        about = (inspect.getdoc(model) or "").partition("Args:")[0].split("\n\n")
        lines += [
            "",
            f"### {section}",
            "",
            *[" ".join(part.split()) + "\n" for part in about if part.strip()],
            *table(model, section),
        ]
    lines += ["", "## Recipes", "", "An empty field has the default above.", "", *recipes()]
    for title, attributes_of in (("a trial", attributes.TRIAL), ("a study", attributes.STUDY)):
        lines += ["", f"## Attributes of {title}", "", "| name | |", "| --- | --- |"]
        lines += [f"| `{name}` | {text} |" for name, text in attributes_of.items()]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PATH.write_text(reference())
    print(PATH, file=sys.stderr)
