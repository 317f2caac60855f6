"""What an evaluation measures, and the one table that says how each figure is named and shown."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Metric:
    """One figure of a COCO evaluation, a fraction from 0 to 1.

    Args:
        name: field of `CocoMetrics`, attribute of a trial and column of `curves.csv`.
        label: as papers write it: headings of pages, legends of plots.
        heading: of its column in a table on the terminal.
        coco_index: its place among the twelve numbers of pycocotools' `COCOeval.stats`, of an
            evaluation of boxes or, with `masks`, of masks.
        description: what it measures.
        masks: it is of instance masks; None where detector or ground truth has none.
        headline: it is measured on the test split too, where there is one.
        exported: the model card of a bundle states it.
    """

    name: str
    label: str
    heading: str
    coco_index: int
    description: str
    masks: bool = False
    headline: bool = False
    exported: bool = True

    @property
    def is_precision(self) -> bool:
        """Whether it is a mean average precision, which trials keep; recalls are not kept."""
        return self.name.startswith("map")

    @property
    def test_name(self) -> str:
        """Attribute of a trial that has the figure of the test split."""
        return f"test_{self.name}"


METRICS = (
    Metric(
        "map",
        "mAP",
        "mAP",
        0,
        "COCO mAP (mean over IoU 0.50 to 0.95) on the validation split after the last epoch so far",
        headline=True,
    ),
    Metric("map_50", "AP50", "mAP50", 1, "mAP on the validation split at IoU 0.50", headline=True),
    Metric("map_75", "AP75", "mAP75", 2, "mAP on the validation split at IoU 0.75"),
    Metric(
        "map_small", "small", "small", 3, "mAP of validation objects below 32 x 32 pixels in area"
    ),
    Metric(
        "map_medium",
        "medium",
        "medium",
        4,
        "mAP of validation objects from 32 x 32 to 96 x 96 pixels in area",
    ),
    Metric(
        "map_large", "large", "large", 5, "mAP of validation objects above 96 x 96 pixels in area"
    ),
    Metric("ar_1", "AR1", "AR1", 6, "mean recall with 1 detection an image", exported=False),
    Metric("ar_10", "AR10", "AR10", 7, "mean recall with 10 detections an image", exported=False),
    Metric(
        "ar_100", "AR100", "AR100", 8, "mean recall with 100 detections an image", exported=False
    ),
    Metric(
        "ar_small",
        "AR small",
        "AR small",
        9,
        "`ar_100` of the objects of `map_small`",
        exported=False,
    ),
    Metric(
        "ar_medium",
        "AR medium",
        "AR medium",
        10,
        "`ar_100` of the objects of `map_medium`",
        exported=False,
    ),
    Metric(
        "ar_large",
        "AR large",
        "AR large",
        11,
        "`ar_100` of the objects of `map_large`",
        exported=False,
    ),
    Metric(
        "map_segm",
        "mask mAP",
        "mask mAP",
        0,
        "COCO mAP of instance masks on the validation split; the `map_segm` figures are there only "
        "where the detector learns masks",
        masks=True,
        headline=True,
    ),
    Metric(
        "map_segm_50",
        "mask AP50",
        "mask mAP50",
        1,
        "mAP of instance masks on the validation split at IoU 0.50",
        masks=True,
        headline=True,
    ),
    Metric(
        "map_segm_75",
        "mask AP75",
        "mask mAP75",
        2,
        "mAP of instance masks on the validation split at IoU 0.75",
        masks=True,
    ),
    Metric(
        "map_segm_small",
        "mask small",
        "mask small",
        3,
        "mAP of the masks of validation objects below 32 x 32 pixels in area",
        masks=True,
        exported=False,
    ),
    Metric(
        "map_segm_medium",
        "mask medium",
        "mask medium",
        4,
        "mAP of the masks of validation objects from 32 x 32 to 96 x 96 pixels in area",
        masks=True,
        exported=False,
    ),
    Metric(
        "map_segm_large",
        "mask large",
        "mask large",
        5,
        "mAP of the masks of validation objects above 96 x 96 pixels in area",
        masks=True,
        exported=False,
    ),
)
BOX_METRICS = tuple(metric for metric in METRICS if not metric.masks)
MASK_METRICS = tuple(metric for metric in METRICS if metric.masks)
BOX_PRECISIONS = tuple(metric for metric in BOX_METRICS if metric.is_precision)
TEST_METRICS = tuple(metric for metric in METRICS if metric.headline)
METRIC = {metric.name: metric for metric in METRICS}


@dataclass(frozen=True)
class CocoMetrics:
    """The figures of `METRICS`, as fractions from 0 to 1, and the mAP of every class by its name.

    A figure is None where the ground truth has nothing of the kind (no small objects, say). `map`
    is the mean over IoU 0.50 to 0.95 with 100 detections an image, `ar_N` the recall with N
    detections an image. `map_segm` and the fields after it are the same figures of instance masks,
    None where detector or ground truth has none.
    """

    map: float | None
    map_50: float | None
    map_75: float | None
    map_small: float | None
    map_medium: float | None
    map_large: float | None
    ar_1: float | None
    ar_10: float | None
    ar_100: float | None
    ar_small: float | None
    ar_medium: float | None
    ar_large: float | None
    map_per_class: dict[str, float | None] = field(default_factory=dict)
    map_segm: float | None = None
    map_segm_50: float | None = None
    map_segm_75: float | None = None
    map_segm_small: float | None = None
    map_segm_medium: float | None = None
    map_segm_large: float | None = None

    def precisions(self) -> dict[str, Any]:
        """The figures that are mAP by name, `map_per_class` among them; those of masks only where
        there are masks.
        """
        figures = {name: value for name, value in vars(self).items() if name.startswith("map")}
        return {
            name: value
            for name, value in figures.items()
            if value is not None or "segm" not in name
        }


@dataclass(frozen=True)
class ClassificationMetrics:
    """How well a classifier does on the validation images.

    Args:
        top1: share of the images whose class is the first guess, 0 to 1.
        top5: share whose class is among the first five guesses, 0 to 1; 1 with five classes or
            fewer.
        val_loss: mean cross-entropy, without label smoothing.
    """

    top1: float
    top5: float
    val_loss: float
