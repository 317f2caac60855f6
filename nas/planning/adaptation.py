"""A request made to fit its data: what they lack is not asked for, what they decide is decided."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from nas.config.parsing import deep_merge, set_key
from nas.config.spec import SearchSpec
from nas.data.batch_shapes import largest_batch_shape
from nas.data.coco import CocoSplit
from nas.data.splits import Splits, read_data
from nas.data.training_size import crowded_images, vanishing_boxes
from nas.planning.fingerprint import fingerprint_of
from nas.planning.levels import level_use
from nas.planning.plan import Plan, make_plan
from nas.planning.rules import NORM, Situation
from nas.reports import DatasetSummary
from nas.utils.device import default_device
from nas.utils.progress import CountProgress
from search_spaces.layout import Layout

BOXES_ONLY = "the data set has no instance masks: the detector learns boxes only"


class AdaptedRequest(NamedTuple):
    """A request that asks for what its data have, to go on with instead of the one before.

    Args:
        spec: the request; its detector learns no masks where the training split has none, and
            nothing is left for the data to decide.
        splits: the checked data.
        facts: figures of the data.
    """

    spec: SearchSpec
    splits: Splits
    facts: DatasetSummary


def adapt_to_data(
    spec: SearchSpec, progress: CountProgress | None = None, *, width: int | None = None
) -> AdaptedRequest:
    """Check the data of a request, and adapt the request to them (`BOXES_ONLY` and
    `SearchSpec.plan` say how).

    Args:
        spec: the request as it was written; it stays as it is.
        progress: told of every image that was looked into.
        width: channels of the first stage of what is trained; default: the most of the space.

    Raises:
        DataError: the data set cannot be read, has faults that cannot be repaired, or has no box
            that is a pixel wide as it is trained on.
    """
    masks = spec.detector.learns_masks
    splits, facts = read_data(spec.data, spec.recipe, progress, masks=masks)
    if masks and not facts.masks:
        boxes_only = spec.detector.model_copy(update={"masks": False})
        spec = spec.model_copy(update={"detector": boxes_only})
    if "" in spec.plan.values():
        spec = planned(spec, plan_of(spec, splits.train, width))
    recipe = spec.recipe.with_least_steps(facts.train_images)
    shape = largest_batch_shape(splits.train.images, recipe, spec.run.processes)
    facts = replace(facts, batch_shape=shape, warned=facts.warned | _warned(spec, splits))
    return AdaptedRequest(spec.model_copy(update={"recipe": recipe}), splits, facts)


def _warned(spec: SearchSpec, splits: Splits) -> dict[str, int]:
    """Objects that cannot be learned or found as the request is, by kind."""
    most, size = spec.detector.detections_per_image, min(spec.recipe.short_sides)
    counts = {
        f"training box narrower than a pixel at {size} pixels": vanishing_boxes(
            splits.train, spec.recipe
        ),
        f"image with more objects than the {most} of detector.detections_per_image": sum(
            crowded_images(split, most) for split in splits.present().values()
        ),
    }
    return {kind: count for kind, count in counts.items() if count}


def plan_of(spec: SearchSpec, train: CocoSplit, width: int | None = None) -> Plan:
    """Make the plan of a request: rules for the keys that it leaves to the data, the others as
    they are set.
    """
    sections = {"recipe": spec.recipe, "detector": spec.detector}
    by_hand = {
        key: value
        for section, keys in sections.items()
        for name, value in keys.model_dump().items()
        if (key := f"{section}.{name}") not in spec.plan
    }
    space = spec.search_space()
    if NORM not in spec.plan:
        by_hand[NORM] = space.layout_defaults.get("norm", Layout.norm)
    device = "cuda" if spec.run.cluster else default_device()
    width = width or max(space.channels)
    data, budget = fingerprint_of(train), int(spec.budget.memory)
    situation = Situation(data, spec.detector, width, device, budget, spec.run.processes)
    plan = make_plan(situation, by_hand)
    scale = {"object_scale": plan.value("detector.object_scale")}
    detector = spec.detector.model_copy(update=scale)
    return replace(plan, levels=level_use(train, detector, plan.value("recipe.image_size")))


def planned(spec: SearchSpec, plan: Plan) -> SearchSpec:
    """Copy a request with what its plan has decided; layouts that are to be tried first take the
    norm of the space.
    """
    written: dict[str, Any] = {}
    decided = plan.values()
    if decided.get(NORM) == Layout.norm:
        del decided[NORM]  # what spaces have that do not name one
    for key, value in decided.items():
        set_key(written, key, value)
    if norm := decided.get(NORM):
        first = [str(replace(Layout.parse(text), norm=norm)) for text in spec.search.try_first]
        set_key(written, "search.try", first)
    changed = deep_merge(spec.to_dict(), {**written, "plan": plan.reasons()})
    return SearchSpec.model_validate(changed)
