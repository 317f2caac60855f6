"""From which overlap and score a detection counts, checked before anything is computed."""

from __future__ import annotations

from nas.errors import SpecError

BACKGROUND_IOU = (
    0.1  # below it a detection is of nothing (TIDE, Bolya et al., ECCV 2020, section 2.2)
)


def check_iou(iou: float) -> None:
    """Check an IoU from which a detection is of an object.

    Raises:
        SpecError: it is not above 0.1 and at most 1.
    """
    if not BACKGROUND_IOU < iou <= 1:
        raise SpecError(f"--iou must be above {BACKGROUND_IOU:g} and at most 1; got {iou:g}")


def check_score(score: float) -> None:
    """Check a score from which a detection counts.

    Raises:
        SpecError: it is not 0 to 1.
    """
    if not 0 <= score <= 1:
        raise SpecError(f"--score must be 0 to 1; got {score:g}")
