"""A search request: YAML and flags in, a complete and frozen `SearchSpec` out.

Where several places give a key, the first of these counts: flags, the YAML file, the space's
`defaults`, the recipe file, the defaults written here. The result names every value, is stored with
the study, and is what a continued search must match.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from functools import reduce
from pathlib import Path
from typing import Any

from pydantic import field_validator, model_validator

from nas.config.parsing import ConfigModel, deep_merge, parse_model, read_yaml, set_key
from nas.config.recipe import AUTO, Recipe, load_recipe, recipe_calibration
from nas.config.sections import (
    BudgetSpec,
    CalibrationSpec,
    DataSpec,
    DetectorSpec,
    RunSpec,
    SearchSettings,
)
from nas.errors import SpecError, quoted
from nas.utils.formatting import gib
from nas.utils.gpu_presence import has_gpu, smallest_card_bytes
from nas.utils.gpu_share import card_budget_gib
from nas.utils.paths import real_path
from nas.utils.url_secrets import check_no_secret
from search_spaces.layout import Layout
from search_spaces.loading import load_space, space_from_dict
from search_spaces.space import SearchSpace

LONGEST_NAME = 200  # bytes; file systems take 255 for the name of a folder that begins so


class SearchSpec(ConfigModel):
    """A complete search request: every key has a value, and nothing can be changed.

    Args:
        study: name of the study: a word or a few, without `/`.
        storage: URL of the database that holds the study: SQLite, PostgreSQL or MySQL.
        space: what layouts are searched: `auto` (the paper's on a GPU, small networks without one),
            a space that comes with the package (`paper`, `scales`, `free`, `tiny`), a YAML file, or
            `module:function`. The space itself is stored with the study, so that a file may change
            later.
        data, detector, recipe, budget, calibration, search, run: sections, described on their own.
        plan: keys of other sections that the data decide, with `recipe: auto` those that the
            request leaves out, and why they were decided so; empty text before the data are known.
    """

    study: str
    storage: str = "sqlite:///nas.db"
    data: DataSpec
    space: dict[str, Any]
    detector: DetectorSpec = DetectorSpec()
    recipe: Recipe
    budget: BudgetSpec = BudgetSpec()
    calibration: CalibrationSpec = CalibrationSpec()
    search: SearchSettings = SearchSettings()
    run: RunSpec = RunSpec()
    plan: dict[str, str] = {}

    @field_validator("study")
    @classmethod
    def _name(cls, value: str) -> str:
        plain = value.isprintable() and not any(c in value for c in "/\\")
        if not value or value.strip(". ") != value or not plain:
            raise ValueError(
                f"the name of a study is one word or a few, without '/'; got {quoted(value)}"
            )
        if (size := len(value.encode(errors="replace"))) > LONGEST_NAME:
            raise ValueError(
                f"the name of a study, of which folders are named, takes at most {LONGEST_NAME} "
                f"bytes; got {size}"
            )
        return value

    @model_validator(mode="before")
    @classmethod
    def _locations(cls, written: Any) -> Any:
        """Wherever the request is from: a file, a database, another machine."""
        if isinstance(written, dict):
            _check_locations(written)
        return written

    @model_validator(mode="before")
    @classmethod
    def _images_of_each_gpu(cls, written: Any) -> Any:
        """Memory is that of one GPU: several share the batch, which `images_per_gpu` then says."""
        run, recipe = written.get("run", {}), written.get("recipe", {})
        if (
            not isinstance(run, dict)
            or not isinstance(recipe, dict)
            or recipe.get("images_per_gpu")
        ):
            return written
        gpus, batch = run.get("gpus_per_trial"), recipe.get("batch")
        if (
            not isinstance(gpus, (int, float))
            or not 1 < gpus < math.inf
            or not isinstance(batch, int)
            or batch % int(gpus)
        ):
            return written
        return {**written, "recipe": {**recipe, "images_per_gpu": batch // int(gpus)}}

    @model_validator(mode="after")
    def _batch_divides(self) -> SearchSpec:
        self.recipe.images_at_once(self.run.processes)
        return self

    def search_space(self) -> SearchSpace:
        """Build the search space."""
        return space_from_dict(self.space, str(self.space.get("name")))

    @property
    def wants_baselines(self) -> bool:
        """Whether baselines are trained: asked for, and comparable with the candidates, which they
        are not in a search that starts from weights or has no candidates.
        """
        return self.search.baselines and not self.search.try_only and not self.recipe.weights

    def to_dict(self) -> dict[str, Any]:
        """Write the request as plain JSON, every key named; `SearchSpec.model_validate` reads it
        back.
        """
        return self.model_dump(mode="json", by_alias=True)


PLANNED = (
    "detector.object_scale",
    "detector.detections_per_image",
    "space.layout.norm",
)  # keys of other sections that `recipe: auto` decides
_SHORTHAND = {"data": "root", "detector": "name", "recipe": "name", "budget": "memory"}


def load_spec(
    request: Path | Mapping[str, Any] | None, flags: Mapping[str, Any], *, allow_code: bool = True
) -> SearchSpec:
    """Build a search request.

    Args:
        request: a YAML file, or the mapping that it would hold; None: flags alone.
        flags: values by dotted key, `{"recipe.epochs": 3}`, which come before the file's.
        allow_code: the space may be a function of Python code, `module:function`, which is run.

    Raises:
        SpecError: the file or a value is wrong; the text names the key.
        SpaceError, LayoutError: the space or a layout to try first is wrong.
    """
    written = _expand(
        read_yaml(request) if isinstance(request, Path) else deepcopy(dict(request or {}))
    )
    if "layout" in written:
        raise SpecError(
            "a request with a layout is for `nas train FILE`; a search has a space, and search.try"
        )
    for key, value in flags.items():
        set_key(written, key, value)
        _expand(written)
    on_gpu = has_gpu() or bool(_section(written, "run").get("cluster"))
    space = _space_of(written.pop("space", AUTO), allow_code, on_gpu=on_gpu)
    written = deep_merge(_expand(dict(space.defaults)), written)
    detector = _section(written, "detector")
    if detector.get("name", AUTO) == AUTO:  # a new section: this one may be the space's own
        written["detector"] = {**detector, "name": "faster_rcnn" if on_gpu else "fcos"}
    recipe = _section(written, "recipe")
    reference = recipe.setdefault("name", AUTO)
    base = load_recipe(reference)
    if "epochs" in recipe:  # what is asked for by hand is what is trained
        recipe.setdefault("least_steps", 0)
    if reference == AUTO:
        written["plan"] = {f"recipe.{key}": "" for key in base if key not in recipe} | {
            key: "" for key in PLANNED if not _is_set({**written, "space": space.to_dict()}, key)
        }
    calibration = deep_merge(recipe_calibration(reference), _section(written, "calibration"))
    recipe = deep_merge(base, recipe)
    written |= {"space": space.to_dict(), "recipe": recipe, "calibration": calibration}
    if not _section(written, "data").get("root"):
        raise SpecError("a data set is needed: --data DIR, or data.root in the spec")
    _check_locations(written)
    written.setdefault("study", real_path(Path(written["data"]["root"])).name)
    if _section(written, "budget").get("memory") == AUTO:
        written["budget"]["memory"] = _automatic_budget(_section(written, "run"))
    spec = parse_model(SearchSpec, written)
    for text in spec.search.try_first:
        space.encode(Layout.parse(text))
    return spec


def _check_locations(written: dict[str, Any]) -> None:
    """Before anything else looks at URLs, whose errors would repeat what they hold."""
    for key in ("data.root", "run.output", "recipe.weights", "run.mlflow"):
        section, _, name = key.partition(".")
        location = (keys if isinstance(keys := written.get(section), dict) else {}).get(name)
        if location is not None and not _can_be_a_name(location):
            raise SpecError(f"{key} must be a path or a URL, as text; got {quoted(location)}")
        if location is not None:
            check_no_secret(key, location, named=key != "run.output")


def _can_be_a_name(location: object) -> bool:
    """Whether a system takes a location as the name of a file."""
    try:
        return isinstance(location, str) and b"\0" not in os.fsencode(location)
    except UnicodeEncodeError:
        return False


def _is_set(written: dict[str, Any], key: str) -> bool:
    *sections, name = key.split(".")
    return name in reduce(_section, sections, written)


def _space_of(written: object, allow_code: bool, *, on_gpu: bool) -> SearchSpace:
    """The space of a request; `auto`: networks that the machine can train, the paper's on a GPU,
    small ones without.
    """
    if written == AUTO:
        return load_space("paper") if on_gpu else _without_recipe(load_space("tiny"))
    if isinstance(written, str):
        return load_space(written, allow_code=allow_code)
    return space_from_dict(written, "space")


def _without_recipe(space: SearchSpace) -> SearchSpace:
    defaults = {key: value for key, value in space.defaults.items() if key != "recipe"}
    return replace(space, defaults=defaults)


def _section(written: dict[str, Any], name: str) -> dict[str, Any]:
    section = written.setdefault(name, {})
    if not isinstance(section, dict):
        raise SpecError(f"{name} must be a section with keys of its own; got {quoted(section)}")
    return section


def _expand(written: dict[str, Any]) -> dict[str, Any]:
    """`detector: fcos` stands for `detector: {name: fcos}`."""
    for section, key in _SHORTHAND.items():
        if isinstance(written.get(section), str):
            written[section] = {key: written[section]}
    return written


def _automatic_budget(run: dict[str, Any]) -> str:
    """The largest budget with room to spare on this machine's smallest GPU, down to a tenth of a
    GiB; the default without a GPU.
    """
    if run.get("cluster") or os.environ.get("RAY_ADDRESS"):
        raise SpecError(
            "budget.memory must be a size, for example 16GiB, where candidates run on a cluster; "
            "got 'auto'"
        )
    if not has_gpu():
        return str(BudgetSpec().memory)
    card_bytes = smallest_card_bytes()
    room_gib = card_budget_gib(card_bytes or 0)
    if not room_gib:
        known = f"of {gib(card_bytes)} GiB has no room" if card_bytes else "does not tell its size"
        raise SpecError(f"budget.memory must be a size: the GPU {known}; got 'auto'")
    return f"{room_gib:g}GiB"
