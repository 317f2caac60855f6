"""Loading search spaces: by the name of a preset, from a YAML file, or from a function.

A YAML file of a space:

    name: mine
    stages:                                   # four: kinds and depths
      - {kinds: [C], depths: [1, 2, 3]}
      - {kinds: [C, T], depths: {low: 1, high: 4}}
      - {kinds: [T], depths: {low: 2, high: 24, step: 2}}
      - {kinds: [T], depths: {low: 1, high: 8}}
    channels: [64, 96]                        # width of the first stage; the others double it
    stems: [auto]
    conditions: [C never after T]
    layout: {window: 8, norm: gn}  # what all layouts of the space share; `Layout` lists the names
    defaults: {recipe: tiny}                  # what a search here takes where its request is silent
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from search_spaces.choices import KINDS, STEMS
from search_spaces.errors import SpaceError, UserError, one_of, quoted
from search_spaces.layout import DEFAULT_CHANNELS, STAGES
from search_spaces.regular_files import read_regular
from search_spaces.space import SearchSpace
from search_spaces.yaml_text import parse_yaml

MOST_CHOICES = 1000  # of a list of numbers
_SHARED = ("head_dim", "window", "mlp_ratio", "norm", "stem_width", "dense")
_KEYS = ("name", "stages", "channels", "stems", "conditions", "layout", "defaults")


def preset_names() -> list[str]:
    """List the names of the spaces that come with the package, sorted."""
    folder = resources.files("search_spaces") / "presets"
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in folder.iterdir()
        if entry.name.endswith(".yaml")
    )


def load_space(reference: str, *, allow_code: bool = True) -> SearchSpace:
    """Load a space.

    Args:
        reference: name of a preset (`paper`), path of a YAML file, or `module:function`, which is
            called without arguments and returns a `SearchSpace`.
        allow_code: such a function may be run.

    Raises:
        SpaceError: nothing by that name, a file that is not YAML, a function that may not be run,
            or a space that is not well formed.
    """
    if reference in preset_names():
        text = (resources.files("search_spaces") / "presets" / f"{reference}.yaml").read_text()
        return space_from_dict(_parse_yaml(text, reference), reference)
    if reference.endswith((".yaml", ".yml")):
        return _from_file(Path(reference))
    if ":" in reference and allow_code:
        return _from_function(reference)
    if ":" in reference:
        raise SpaceError(
            f"space {reference!r} is a function of Python code, which would be run: --allow-code "
            "where you trust it"
        )
    choices = one_of("space", reference, preset_names())
    raise SpaceError(f"{choices}; or name a YAML file (mine.yaml) or module:function")


def space_from_dict(written: object, source: str) -> SearchSpace:
    """Build a space from its YAML form.

    Args:
        written: the mapping that the YAML file holds.
        source: where it is from, for errors.

    Raises:
        SpaceError: the mapping is not well formed; the text names `source`, the key and the rule.
    """
    if not isinstance(written, Mapping):
        raise SpaceError(
            f"space {source!r} must be a mapping with {', '.join(_KEYS)}; got "
            f"{type(written).__name__}"
        )
    try:
        return _read(written, source)
    except UserError:
        raise
    except (TypeError, KeyError, ValueError) as error:
        raise SpaceError(f"space {source!r} is not well formed: {error}") from None


def _read(written: Mapping[str, Any], source: str) -> SearchSpace:
    for key in written:
        if key not in _KEYS:
            raise SpaceError(f"space {source!r}: {one_of('a key', key, _KEYS)}")
    stages = written.get("stages")
    if not isinstance(stages, list) or len(stages) != STAGES:
        raise SpaceError(
            f"space {source!r}: stages must be a list of {STAGES}, each with kinds and depths; "
            f"got {quoted(stages)}"
        )
    for stage in stages:
        if not isinstance(stage, Mapping) or set(stage) != {"kinds", "depths"}:
            raise SpaceError(f"space {source!r}: a stage has kinds and depths; got {quoted(stage)}")
    for name in written.get("layout") or {}:
        if name not in _SHARED:
            raise SpaceError(f"space {source!r}: {one_of('a key of layout', name, _SHARED)}")
    return SearchSpace(
        name=str(written.get("name", Path(source).stem)),
        kinds=tuple(_choices(stage["kinds"], KINDS, "kinds", source) for stage in stages),
        depths=tuple(_whole_numbers(stage["depths"], "depths", source) for stage in stages),
        channels=_whole_numbers(written.get("channels", [DEFAULT_CHANNELS]), "channels", source),
        stems=_choices(written.get("stems", ["auto"]), STEMS, "stems", source),
        conditions=tuple(written.get("conditions") or ()),
        layout_defaults=dict(written.get("layout") or {}),
        defaults=dict(written.get("defaults") or {}),
    )


def _choices(values: object, allowed: tuple[str, ...], key: str, source: str) -> tuple[str, ...]:
    if not isinstance(values, list) or not values:
        raise SpaceError(
            f"space {source!r}: {key} must be a list from {', '.join(allowed)}; got "
            f"{quoted(values)}"
        )
    for value in values:
        if value not in allowed:
            raise SpaceError(f"space {source!r}: {one_of(key, value, allowed)}")
    return tuple(dict.fromkeys(values))


def _whole_numbers(values: object, key: str, source: str) -> tuple[int, ...]:
    if isinstance(values, Mapping) and {"low", "high"} <= set(values) <= {"low", "high", "step"}:
        values = range(values["low"], values["high"] + 1, values.get("step", 1))
    if isinstance(values, (list, range)) and len(values) > MOST_CHOICES:
        raise SpaceError(
            f"space {source!r}: {key} must be at most {MOST_CHOICES} numbers; got {len(values)}"
        )
    valid = (
        isinstance(values, (list, range))
        and values
        and all(type(value) is int and value > 0 for value in values)
    )
    if not valid:
        raise SpaceError(
            f"space {source!r}: {key} must be a list of whole numbers from 1 or {{low: 1, high: "
            f"4}}; got {quoted(values)}"
        )
    return tuple(sorted(set(values)))  # type: ignore[call-overload]


def _parse_yaml(text: str, source: str) -> object:
    try:
        return parse_yaml(text)
    except yaml.YAMLError as error:
        raise SpaceError(f"space {source!r} is not YAML: {' '.join(str(error).split())}") from None


def _from_file(path: Path) -> SearchSpace:
    try:
        text = read_regular(path).decode("utf-8-sig")
    except OSError as error:
        raise SpaceError(f"space file {str(path)!r} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SpaceError(f"space file {str(path)!r} is not text") from None
    return space_from_dict(_parse_yaml(text, str(path)), str(path))


def _from_function(reference: str) -> SearchSpace:
    module_name, _, name = reference.partition(":")
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        space = getattr(importlib.import_module(module_name), name)()
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        raise SpaceError(f"space {reference!r}: {type(error).__name__}: {error}") from None
    if not isinstance(space, SearchSpace):
        raise SpaceError(
            f"space {reference!r} must return a SearchSpace; got {type(space).__name__}"
        )
    return space
