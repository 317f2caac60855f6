"""The plan of a data set: every rule applied in its order, and what no rule mends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from nas.planning.fingerprint import Fingerprint
from nas.planning.levels import LevelUse
from nas.planning.rules import FEW_FOR_BATCH_NORM, LEAST_STEPS, NORM, RULES, Decision, Situation
from nas.utils.html_table import html_table

BY_HAND = "set by hand"
FEW_IMAGES, FEW_BOXES = 50, 10
NAMED = 5  # classes in a warning
MANY_OBJECTS = 100  # COCO's metrics look at no more detections of an image


@dataclass(frozen=True)
class Plan:
    """What a data set decides of its own training.

    Args:
        data: its fingerprint.
        decisions: key by key, in the order in which they were taken.
        warnings: sentences on what no rule mends.
        levels: of the detector's pyramid, finest first, with the objects that fall to them; empty
            where only the fingerprint is known.
    """

    data: Fingerprint
    decisions: tuple[Decision, ...]
    warnings: tuple[str, ...]
    levels: tuple[LevelUse, ...] = ()

    def values(self) -> dict[str, Any]:
        """Values by dotted key, of those that were not set by hand."""
        return {d.key: d.value for d in self.decisions if d.reason != BY_HAND}

    def value(self, key: str) -> Any:
        """Value of a dotted key, set by hand or not."""
        return next(decision.value for decision in self.decisions if decision.key == key)

    def reasons(self) -> dict[str, str]:
        """Reasons by dotted key, of those that were not set by hand."""
        return {d.key: d.reason for d in self.decisions if d.reason != BY_HAND}

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "data": self.data.to_dict(),
            "decisions": [asdict(decision) for decision in self.decisions],
            "levels": [asdict(level) for level in self.levels],
            "warnings": list(self.warnings),
        }

    def _repr_html_(self) -> str:
        """The decisions and their reasons, as a notebook shows them."""
        rows = [(d.key, str(d.value), d.reason) for d in self.decisions]
        caption = f"{self.data.images} training images, {self.data.boxes} objects"
        return html_table(("key", "value", "why"), rows, caption)


def make_plan(situation: Situation, by_hand: Mapping[str, Any]) -> Plan:
    """Apply the rules to a data set.

    Args:
        situation: the data and what they are planned for.
        by_hand: values by dotted key that are not to be decided; later rules see them.
    """
    decided: dict[str, Any] = dict(by_hand)
    decisions = []
    for rule in RULES:
        decision = rule(situation, decided)
        if decision.key in by_hand:
            decision = Decision(decision.key, by_hand[decision.key], BY_HAND)
        decided[decision.key] = decision.value
        decisions.append(decision)
    return Plan(situation.data, tuple(decisions), tuple(_warnings(situation, decided)))


def _warnings(situation: Situation, decided: Mapping[str, Any]) -> list[str]:
    data, found = situation.data, []
    if data.images < FEW_IMAGES:
        found.append(
            f"{data.images} training images are few to learn from scratch; {FEW_IMAGES} or more "
            "rank candidates better"
        )
    rare = {name: count for name, count in data.class_boxes.items() if count < FEW_BOXES}
    if rare:
        shown = sorted(rare.items(), key=lambda pair: pair[1])[:NAMED]
        named = ", ".join(f"{name} ({count})" for name, count in shown)
        more = f" and {len(rare) - NAMED} more" if len(rare) > NAMED else ""
        found.append(f"classes with fewer than {FEW_BOXES} training boxes: {named}{more}")
    pixels = (data.small_share or 1.0) * decided["recipe.image_size"]
    if pixels < situation.stride:
        found.append(
            f"small objects span {pixels:.0f} pixels, less than a cell of the finest level "
            f"({situation.stride}): they will not be found; cut the images into tiles"
        )
    if data.most_objects > MANY_OBJECTS:
        found.append(
            f"up to {data.most_objects} objects an image; COCO's metrics look at the best "
            f"{MANY_OBJECTS} detections of an image"
        )
    at_once = decided["recipe.images_per_gpu"]
    if at_once and at_once < FEW_FOR_BATCH_NORM and decided[NORM] == "bn":
        found.append(
            f"{at_once} images at once are few for the batch norms of C stages; group norm (norm: "
            "gn in a space) does not mind, and a larger budget or smaller images allow more"
        )
    steps = decided["recipe.epochs"] * situation.steps(decided["recipe.batch"])
    if steps < LEAST_STEPS:
        found.append(
            f"{steps} steps of training are few: below {LEAST_STEPS} a network from scratch has "
            "hardly begun"
        )
    return found
