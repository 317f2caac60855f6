"""The sections of a search request, each with its keys, their ranges and their defaults."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from nas.config.choices import (
    MASK_DETECTORS,
    PUBLISHED_NECK,
    BoxTransform,
    BudgetMode,
    CalibrationDefinition,
    CalibrationScope,
    DetectorName,
    EqualizedBy,
    Neck,
    Objective,
    PruneAt,
    PrunerName,
    RoiOp,
    SamplerName,
)
from nas.config.parsing import ConfigModel
from nas.config.sizes import CacheSize, MemorySize
from search_spaces.layout import Layout


class DataSpec(ConfigModel):
    """The data set.

    Args:
        root: folder with images and annotations in COCO form, or its URL.
        train: the split to train on: images in `train/` and `instances_train.json`, or COCO's own
            `train2017/` and `annotations/instances_train2017.json`.
        val: the split that is scored after each epoch.
        test: a split that is scored once, at the end of a training, and chooses nothing.
        train_fraction: share of the training images that is used, drawn by the seed.
        skip_broken: leave out what cannot be repaired instead of stopping.
    """

    root: str
    train: str = "train"
    val: str = "val"
    test: str | None = None
    train_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    skip_broken: bool = False


class DetectorSpec(ConfigModel):
    """What the backbone serves.

    Args:
        name: of the detector.
        roi_op: how Faster R-CNN cuts boxes out of the feature maps.
        neck: a feature pyramid, EfficientDet's or DSOD's; default: what the published detector has.
        channels: of the neck's levels.
        hidden: width of the fully connected layers of Faster and Cascade R-CNN.
        regions: boxes of an image that these learn from, in each stage.
        masks: whether Cascade Mask R-CNN learns masks; false by itself where the data set has none.
        box_transform: how RepPoints v2 makes boxes of points.
        proposals: learned boxes of Sparse R-CNN, the same for each image.
    """

    name: DetectorName = Field(default="faster_rcnn", title="detector")
    roi_op: RoiOp = Field(default="align", title="roi_op")
    neck: Neck = Field(default="fpn", title="neck")
    channels: Annotated[int, Field(ge=32, multiple_of=32)] = 256
    hidden: Annotated[int, Field(ge=1)] = 1024
    regions: Annotated[int, Field(ge=4)] = 512
    masks: bool = True
    box_transform: BoxTransform = Field(default="moment", title="box_transform")
    proposals: Annotated[int, Field(ge=1)] = 300

    @property
    def learns_masks(self) -> bool:
        """Whether the detector has heads for instance masks: it is a kind that can, and `masks`."""
        return self.masks and self.name in MASK_DETECTORS

    @model_validator(mode="before")
    @classmethod
    def _published_neck(cls, written: Any) -> Any:
        neck = PUBLISHED_NECK.get(str(written.get("name"))) if isinstance(written, dict) else None
        return {"neck": neck, **written} if neck else written


class BudgetSpec(ConfigModel):
    """Peak allocated training memory of one GPU.

    Args:
        memory: as a number with a unit, 16GiB.
        like: a layout whose prediction is the budget, instead of a figure.
        mode: `cap` trains whatever fits; `equalize` makes each candidate use the budget (see
            `nas.search.equalizer`).
        vary: what `equalize` solves: the depth of the late stages, or the width of the C stages.
        tolerance: how far below the budget `equalize` may stay, as a fraction of it.
    """

    memory: MemorySize = MemorySize("16GiB")
    like: str | None = None
    mode: BudgetMode = Field(default="cap", title="budget.mode")
    vary: EqualizedBy = Field(default="depth", title="budget.vary")
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.05

    @field_validator("like")
    @classmethod
    def _layout(cls, value: str | None) -> str | None:
        return value if value is None else str(Layout.parse(value))


class CalibrationSpec(ConfigModel):
    """Gradient-calibrated initialisation: section 4.3, Algorithm 1 (see
    `nas.training.calibration`).

    With `recipe.weights` it is left out, `enabled` or not: it would scale weights that have been
    trained.

    Args:
        enabled: whether it is done.
        definition: `paper` compares mean squares of gradients, `relative` divides them by those of
            the weights.
        alpha: the power of the ratio by which weights are scaled.
        passes: at most so many; the best one counts.
        scope: `backbone`, or `detector`: neck and towers too.
    """

    enabled: bool = True
    definition: CalibrationDefinition = Field(default="paper", title="definition")
    alpha: Annotated[float, Field(gt=0, le=1)] = 0.25
    passes: Annotated[int, Field(ge=1, le=100)] = 1
    scope: CalibrationScope = Field(default="backbone", title="scope")


class SearchSettings(ConfigModel):
    """How candidates are chosen.

    Args:
        trials: candidates to train, those of earlier runs of the study included, baselines and
            replicates not.
        sampler: what suggests layouts.
        pruner: what ends a candidate early, judged by its mAP after each epoch.
        prune_at: what the pruner compares candidates at: equal `epochs`, or equal `cost` in
            multiply-adds, that is epochs x the layout's FLOPs.
        objectives: `map`, or `map` and others: then there is a Pareto front instead of a best
            value, and no pruner.
        try: layouts to train first.
        try_only: train those and no others, whatever the sampler.
        baselines: train Swin-T, ResNet-50 and C2-C2-T12-T4 too, each as wide as the same memory
            allows (see `nas.search.baselines`); not with `try_only` or `recipe.weights`.
        replicates: how often each baseline and the best three candidates are trained in all, with
            other seeds.
        warm_start: studies in the same database whose results are taken over, where data, detector,
            recipe and calibration are the same.
        seed: of suggestions, initialisation, data order and augmentation.
    """

    trials: Annotated[int, Field(ge=1)] = 40
    sampler: SamplerName = Field(default="gp", title="sampler")
    pruner: PrunerName = Field(default="none", title="pruner")
    prune_at: PruneAt = Field(default="epochs", title="prune_at")
    objectives: tuple[Objective, ...] = Field(default=("map",), title="an objective")
    try_first: tuple[str, ...] = Field(default=(), alias="try")
    try_only: bool = False
    baselines: bool = True
    replicates: Annotated[int, Field(ge=1, le=100)] = 1
    warm_start: tuple[str, ...] = ()
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @model_validator(mode="after")
    def _consistent(self) -> SearchSettings:
        if self.objectives[:1] != ("map",) or len(set(self.objectives)) < len(self.objectives):
            raise ValueError(
                "objectives must begin with map and name nothing twice; got "
                f"{', '.join(self.objectives)}"
            )
        if len(self.objectives) > 1 and self.pruner != "none":
            raise ValueError(
                "pruner must be none with several objectives, of which an epoch's mAP is only "
                f"one; got {self.pruner!r}"
            )
        if self.try_only and not self.try_first:
            raise ValueError("try_only needs layouts in try; got none")
        return self


class RunSpec(ConfigModel):
    """Where candidates are trained, and how many at once.

    Args:
        concurrent: candidates at once; `auto`: as many as fit.
        gpus_per_trial: of one candidate, eighths of a card or whole ones that train it together;
            `auto`: what the budget takes.
        cpus_per_trial: cores of one candidate; `auto`: those there are, divided.
        output: folder or URL of checkpoints.
        retries: how often a layout whose training failed is tried again.
        keep_best: of how many candidates the weights are kept.
        cluster: address of a Ray cluster's Jobs API, http://head:8265.
        checkpoint_s: seconds between checkpoints within a long epoch.
        image_cache: what decoded images may take of each machine's disk; 0 decodes every image each
            time.
    """

    concurrent: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    gpus_per_trial: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    cpus_per_trial: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    output: str = "nas-runs"
    retries: Annotated[int, Field(ge=0)] = 2
    keep_best: Annotated[int, Field(ge=1)] = 5
    cluster: str | None = None
    checkpoint_s: Annotated[float, Field(ge=0)] = 600
    image_cache: CacheSize = CacheSize("32GiB")

    @model_validator(mode="after")
    def _whole_cards(self) -> RunSpec:
        if self.gpus_per_trial != "auto" and self.gpus_per_trial > 1 and self.gpus_per_trial % 1:
            raise ValueError(
                f"gpus_per_trial must be a whole number above 1; got {self.gpus_per_trial:g}"
            )
        return self

    @property
    def processes(self) -> int:
        """That train one candidate together, each with a GPU."""
        return 1 if self.gpus_per_trial == "auto" else max(1, int(self.gpus_per_trial))
