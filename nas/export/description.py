"""A trained candidate, as a bundle describes it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from nas.config.recipe import Recipe
from nas.config.sections import CalibrationSpec, DetectorSpec
from nas.study.provenance import git_commit, versions
from search_spaces.layout import Layout

# What can be said of where weights come from, in the order in which people read it.
ORIGIN_KEYS = (
    "study",
    "study_uuid",
    "trial",
    "seed",
    "data",
    "train_images",
    "val_images",
    "data_fingerprint",
    "hardware",
    "wall_s",
    "budget_gib",
    "versions",
    "git_commit",
    "finished",
)


@dataclass(frozen=True)
class Trained:
    """A trained candidate without its weights.

    Args:
        layout: the backbone.
        detector, recipe, calibration: how the detector was built and trained.
        categories: names of the classes, label 1 first.
        figures: scores (fractions 0 to 1), sizes and times, as plain JSON; units are in the names.
        origin: where the weights come from, as `make_origin` gives it.
        request: all that was asked for, as plain JSON; empty in bundles of format 1.
        left_out: sentences on the forms that its bundle does not have.
    """

    layout: Layout
    detector: DetectorSpec
    recipe: Recipe
    calibration: CalibrationSpec
    categories: tuple[str, ...]
    figures: dict[str, Any]
    origin: dict[str, Any]
    request: dict[str, Any] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()


def make_origin(**facts: Any) -> dict[str, Any]:
    """Say where trained weights come from, as plain JSON.

    Args:
        facts: by names of `ORIGIN_KEYS`: `data` is the name of the data set's folder, `wall_s`
            seconds from begin to end, `budget_gib` GiB. `versions` and `git_commit` are those of
            the running program unless they are given.

    Returns:
        The facts in the order of `ORIGIN_KEYS`; what was not given is left out.

    Raises:
        KeyError: a fact of another name.
    """
    if unknown := set(facts) - set(ORIGIN_KEYS):
        raise KeyError(f"an origin has no {', '.join(sorted(unknown))}")
    if "versions" not in facts:
        facts |= {"versions": versions(), "git_commit": git_commit()}
    return {key: facts[key] for key in ORIGIN_KEYS if key in facts}
