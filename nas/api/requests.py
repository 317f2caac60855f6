"""Requests of a search or of one training: complete, valid, and with the files that they name.

Light to import: what is wrong in a request is said before PyTorch is loaded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nas.config.parsing import read_yaml
from nas.config.recipe import CUSTOM
from nas.config.spec import SearchSpec, load_spec
from nas.data.split_source import Places, find_splits
from nas.errors import SpecError, UserError
from nas.utils.files import check_file
from nas.utils.paths import absolute, localize
from search_spaces.layout import Layout


def checked_spec(
    request: Path | dict[str, Any] | None, flags: dict[str, Any], *, allow_code: bool = False
) -> SearchSpec:
    """Complete a request and find the files that it names; takes milliseconds.

    Args:
        request: a YAML file, its content, or None.
        flags: dotted key to value; they count before the request's keys.
        allow_code: the space may be a function of Python code, `module:function`, which is run.

    Returns:
        The request; its paths are absolute unless it is for a cluster, whose paths are its own.

    Raises:
        UserError: something in it cannot be.
    """
    spec = load_spec(request, flags, allow_code=allow_code)
    check_files(spec)
    return spec if spec.run.cluster else with_absolute_paths(spec)


def with_absolute_paths(spec: SearchSpec) -> SearchSpec:
    """Make the paths of a request absolute, so that it can be resumed from another folder."""
    data = spec.data.model_copy(update={"root": absolute(spec.data.root)})
    mlflow = spec.run.mlflow and absolute(spec.run.mlflow)
    run = spec.run.model_copy(update={"output": absolute(spec.run.output), "mlflow": mlflow})
    weights = spec.recipe.weights and absolute(spec.recipe.weights)
    recipe = spec.recipe.model_copy(update={"weights": weights})
    return spec.model_copy(update={"data": data, "run": run, "recipe": recipe})


def check_files(spec: SearchSpec) -> None:
    """Find both splits, and the weights to start from, unless they are on a cluster.

    Raises:
        DataError: there is no such folder, or not what a data set has.
        SpecError: there are no such weights.
    """
    if spec.run.cluster:
        return
    places = Places(spec.data.annotations, spec.data.images)
    find_splits(localize(spec.data.root), (spec.data.train, spec.data.val), places)
    if spec.recipe.weights:
        check_file("recipe.weights", spec.recipe.weights)


def check_bundle(folder: Path) -> None:
    """Find the folder of a bundle.

    Raises:
        UserError: there is no such folder.
    """
    if not folder.is_dir():
        raise UserError(f"bundle folder {str(folder)!r} does not exist")


def training_request(what: str, flags: dict[str, Any]) -> tuple[Layout, SearchSpec]:
    """Find out which layout is to be trained, and how.

    Args:
        what: a layout, the folder of a bundle, or a YAML file that has the keys of a request for a
            search, and `layout`.
        flags: dotted key to value; they count before the keys of the bundle or the file. To name a
            recipe sets a bundle's own aside, and its calibration.

    Raises:
        UserError: something in it cannot be.
    """
    if what.endswith((".yaml", ".yml")):
        layout, base = _of_file(Path(what))
    elif Path(what).is_dir():
        layout, base = _of_bundle(Path(what))
        if {"recipe", "recipe.name"} & set(flags):
            # The bundle's own have all keys, and would leave nothing of the one that is named.
            del base["recipe"], base["calibration"]
    else:
        layout, base = Layout.parse(what), {}
    spec = checked_spec(base, flags)
    by_data = {key: why for key, why in spec.plan.items() if not key.startswith("space.")}
    return layout, spec.model_copy(update={"plan": by_data})


def _of_file(path: Path) -> tuple[Layout, dict[str, Any]]:
    content = read_yaml(path)
    layout = content.pop("layout", None)
    if not isinstance(layout, str):
        raise SpecError(
            f"file {str(path)!r} must name what to train, for example layout: C2-C2-T12-T4; got "
            f"{layout!r}"
        )
    return Layout.parse(layout), content


def _of_bundle(folder: Path) -> tuple[Layout, dict[str, Any]]:
    """Layout of a bundle, and its detector, recipe and calibration as the base that flags
    change.
    """
    from nas.export.bundle import read_description  # needs PyTorch

    trained = read_description(folder)
    sections = ("detector", "recipe", "calibration")
    base = {section: getattr(trained, section).model_dump(mode="json") for section in sections}
    base["recipe"]["name"] = CUSTOM
    return trained.layout, base
