"""What is wrong with detections, by the types of TIDE (Bolya et al., ECCV 2020, section 2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

from nas.errors import SpecError
from nas.evaluation.coco import Content, numbered, run_hotcoco
from nas.evaluation.thresholds import BACKGROUND_IOU, check_iou

TYPES = {  # by hotcoco's names, with what is wrong with a detection, or an object
    "Cls": ("classification", "on an object of another class"),
    "Loc": ("localisation", "beside an object of its class"),
    "Both": ("both", "beside an object of another class"),
    "Dupe": ("duplicate", "on an object that a surer one has found"),
    "Bkg": ("background", "on nothing"),
    "Miss": ("missed", "an object that no detection is on, nor beside"),
}


@dataclass(frozen=True)
class ErrorType:
    """One type of error.

    Args:
        meaning: what is wrong.
        count: how often.
        gain: how much the AP would rise without them, a fraction.
    """

    meaning: str
    count: int
    gain: float


@dataclass(frozen=True)
class ErrorTypes:
    """Errors of a detector by their type.

    Args:
        iou: from which a detection is right.
        ap: mean AP of the classes at that IoU, a fraction.
        types: by name: `classification`, `localisation`, `both`, `duplicate`, `background`,
            `missed`. Gains do not add up: errors hide each other.
    """

    iou: float
    ap: float
    types: dict[str, ErrorType]

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return asdict(self)


def error_types(
    truth: Content, detections: Sequence[dict[str, Any]], iou: float = 0.5
) -> ErrorTypes:
    """Sort errors by their type, with hotcoco. All detections count, whatever their score: AP
    weighs them.

    Args:
        truth: COCO instances; boxes are compared.
        detections: COCO results.
        iou: from which a detection is right, above 0.1, at most 1.

    Raises:
        SpecError: the threshold is out of its range, or hotcoco is not installed.
    """
    check_iou(iou)
    if find_spec("hotcoco") is None:
        raise SpecError("types of errors need the package hotcoco: pip install hotcoco")
    scored = run_hotcoco(numbered(truth, "bbox"), detections, "bbox", iou)
    said = scored.tide_errors(pos_thr=iou, bg_thr=BACKGROUND_IOU)
    types = {
        name: ErrorType(meaning, int(said["counts"][key]), float(said["delta_ap"][key]))
        for key, (name, meaning) in TYPES.items()
    }
    return ErrorTypes(iou, float(said["ap_base"]), types)
