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
    Finish,
    InputStatistics,
    LatencyDevice,
    Neck,
    Objective,
    PruneAt,
    PrunerName,
    RoiOp,
    SamplerName,
)
from nas.config.detections import LARGEST_IOU, DetectionLimits, detection_limits
from nas.config.identity import Since
from nas.config.parsing import ConfigModel
from nas.config.sizes import CacheSize, Count, Duration, MemorySize, TimeLimit
from nas.utils.url_secrets import masked
from search_spaces.layout import Layout


class DataSpec(ConfigModel):
    """The data set that candidates are trained and scored on.

    Args:
        root: folder or zip file with images and annotations in COCO's, YOLO's or Pascal VOC's form
            (docs/data.md), or the URL of one (`s3://bucket/folder`), which is copied to this
            machine once.
        train: name of the split to train on.
        val: name of the split that is scored after each epoch and decides which candidate is best.
            Where a data set has no `val`, a fifth of its images is.
        test: name of a split that is scored once, at the end of each training, and decides nothing.
            Default: none.
        train_fraction: share of the training images that is used, at least one; which ones they are
            does not depend on `search.seed`.
        skip_broken: leave out images and boxes that cannot be repaired, instead of refusing the
            data set.
        annotations: annotation file in COCO's form, below `root`, where it is not found by itself;
            `SPLIT` in it is the name of a split. Without `SPLIT` it is of all images, and a
            fifth of them is `val`.
        images: folder of the images, below `root`, where it is not found by itself; `SPLIT` in it
            is the name of a split.
    """

    root: str
    train: str = "train"
    val: str = "val"
    test: str | None = None
    train_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    skip_broken: bool = False
    annotations: Annotated[str | None, Since("0.2.0")] = None
    images: Annotated[str | None, Since("0.2.0")] = None


class DetectorSpec(ConfigModel):
    """The detector that every candidate's backbone is trained in.

    Args:
        name: which detector: FCOS, Faster R-CNN, Cascade Mask R-CNN, ATSS, RepPoints v2 or Sparse
            R-CNN. Default, or `auto`: `faster_rcnn` on a GPU or a cluster, without one `fcos`,
            which trains about three times as fast there.
        roi_op: how Faster R-CNN cuts regions out of the feature maps: `align` (RoIAlign, bilinear)
            or `pool` (RoIPool, rounded to cells). Other detectors ignore it.
        neck: what joins the backbone's feature maps: `fpn` (Feature Pyramid Network), `bifpn`
            (EfficientDet's) or `dsod` (DSOD's). Default: what the published detector has, `bifpn`
            for RepPoints v2 and `fpn` for all others.
        channels: channels of every level of the neck.
        hidden: width of the fully connected layers in the box heads of Faster R-CNN and Cascade
            Mask R-CNN. Other detectors ignore it.
        regions: regions of an image that each box head of Faster R-CNN and Cascade Mask R-CNN
            learns from in a step. Other detectors ignore it.
        masks: whether Cascade Mask R-CNN learns instance masks besides boxes. It becomes false by
            itself where the training data have no masks. Other detectors ignore it.
        box_transform: how RepPoints v2 makes a box of its points: `moment` from their mean and
            standard deviation, `corners` from two of them, which are its opposite corners. Other
            detectors ignore it.
        proposals: learned boxes that Sparse R-CNN starts from, the same for each image. Other
            detectors ignore it.
        object_scale: size of the objects that each level of the pyramid is for, as a multiple of
            the published one: ranges of FCOS (64, 128, 256 and 512 pixels between its levels) and
            RepPoints v2, sides of the anchors of ATSS, Faster R-CNN and Cascade Mask R-CNN (8
            strides). Sparse R-CNN, which has neither, ignores it.
        detections_per_image: the most that the detector finds in an image, the best by score.
            COCO's metrics look at the best 100 of them all the same. One-stage detectors choose
            from the best 1000 of each level, Faster R-CNN and Cascade Mask R-CNN from 1000 regions.
        score_threshold: score, 0 to 1, that a detection must be above; 0 leaves out none. The class
            probability of ATSS must be above it too. Default: 0.05, and 0 for Sparse R-CNN.
        nms_iou: overlap (IoU) above which the worse of two detections of a class is left out.
            Default: 0.6, and 0.5 for Cascade Mask R-CNN. Sparse R-CNN, which has no non-maximum
            suppression, does not take it.
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
    object_scale: Annotated[float, Field(ge=1 / 16, le=16), Since("0.2.0")] = 1.0
    detections_per_image: Annotated[int, Field(ge=1), Since("0.2.0")] = 100
    score_threshold: Annotated[Annotated[float, Field(ge=0, lt=1)] | None, Since("0.2.0")] = None
    nms_iou: Annotated[Annotated[float, Field(gt=0, le=1)] | None, Since("0.2.0")] = None

    @property
    def limits(self) -> DetectionLimits:
        """Which detections the detector gives, with its own defaults filled in."""
        return detection_limits(
            self.name, self.detections_per_image, self.score_threshold, self.nms_iou
        )

    @property
    def learns_masks(self) -> bool:
        """Whether the detector has heads for instance masks: it is a kind that can, and `masks`."""
        return self.masks and self.name in MASK_DETECTORS

    @model_validator(mode="before")
    @classmethod
    def _published_neck(cls, written: Any) -> Any:
        neck = PUBLISHED_NECK.get(str(written.get("name"))) if isinstance(written, dict) else None
        return {"neck": neck, **written} if neck else written

    @model_validator(mode="after")
    def _suppresses(self) -> DetectorSpec:
        if self.nms_iou is not None and self.name not in LARGEST_IOU:
            raise ValueError(
                f"nms_iou must be left out for {self.name}, which has no non-maximum suppression "
                f"({', '.join(LARGEST_IOU)} have it); got {self.nms_iou:g}"
            )
        return self


class BudgetSpec(ConfigModel):
    """What no candidate may pass: the peak of allocated memory of one GPU during training and,
    where they are given, multiply-adds, parameters and latency.

    Args:
        memory: the budget: a number and a unit (KiB, MiB, GiB, TiB, KB, MB, GB, TB), for example
            `16GiB`; `auto`: as much as a candidate can have of this machine's smallest GPU, and
            16GiB without one.
        like: a layout, `T2-T2-T6-T2`, whose predicted memory is the budget, instead of `memory`.
        mode: `cap` trains every layout that fits. `equalize` changes each suggested layout until it
            uses the budget, so that candidates are compared at equal memory.
        vary: what `equalize` changes: `depth` the blocks of stages 3 and 4, `width` the channels of
            the convolutional stages.
        tolerance: how far below the budget a layout of `equalize` may stay, as a fraction of the
            budget.
        flops: the most multiply-adds for one image of the largest batch, of the whole detector: a
            number and a unit (K, M, G, T), for example `50G`. Default: any.
        params: the most parameters of the whole detector, for example `30M`. Default: any.
        latency: the most time that the backbone takes for one image of the largest batch, measured
            before a candidate is trained: a number and a unit (ms, s), for example `20ms`. Default:
            any.
        latency_on: where latency is measured: `cpu`, by ONNX Runtime on one core of the machine
            that `nas-submit` runs on, or `gpu`, by PyTorch on its GPU.
    """

    memory: MemorySize = MemorySize("16GiB")
    like: str | None = None
    mode: BudgetMode = Field(default="cap", title="budget.mode")
    vary: EqualizedBy = Field(default="depth", title="budget.vary")
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.05
    flops: Annotated[Count | None, Since("0.2.0")] = None
    params: Annotated[Count | None, Since("0.2.0")] = None
    latency: Annotated[Duration | None, Since("0.2.0")] = None
    latency_on: Annotated[LatencyDevice, Field(title="budget.latency_on"), Since("0.2.0")] = "cpu"

    @field_validator("like")
    @classmethod
    def _layout(cls, value: str | None) -> str | None:
        return value if value is None else str(Layout.parse(value))


class CalibrationSpec(ConfigModel):
    """Calibration: what is set from the training data before the first step.

    `outputs` sets the biases of the detector's last layers so that what it says at first of every
    location or region is what the training boxes say on the average: classes at their frequencies,
    boxes at their mean size. `paper` and `relative` scale weights so that the gradients of all
    layers have similar size (Hong et al., CVPR 2022, section 4.3, Algorithm 1).

    With `recipe.weights` it is left out, `enabled` or not: it would change what has been trained.

    Args:
        enabled: whether anything is calibrated.
        definition: what: `outputs`; or gradients, where `paper` compares the mean square of the
            gradients of layers, and `relative` divides that by the mean square of their weights.
        alpha: power of the ratio by which `paper` and `relative` scale the weights of a layer.
        passes: how often they measure gradients and scale weights, at most; the pass with the most
            similar gradients is kept.
        scope: which layers they scale: those of the `backbone` alone, or of the whole `detector`,
            neck and heads too.
        inputs: mean and deviation of the channels that images are normalised by: `imagenet`'s, or
            those of the training `data`; part of the weights. With `recipe.weights` they are those
            that the weights were trained with.
    """

    enabled: bool = True
    definition: CalibrationDefinition = Field(default="outputs", title="definition")
    alpha: Annotated[float, Field(gt=0, le=1)] = 0.25
    passes: Annotated[int, Field(ge=1, le=100)] = 1
    scope: CalibrationScope = Field(default="backbone", title="scope")
    inputs: Annotated[InputStatistics, Field(title="inputs"), Since("0.2.0")] = "imagenet"


MOST_TRIALS = 1000  # that a time limit may leave room for


def _sampler(known: dict[str, Any]) -> SamplerName:
    return "gp" if len(known.get("objectives", ())) > 1 else "multifidelity"


def _pruner(known: dict[str, Any]) -> PrunerName:
    joined = known.get("sampler") == "multifidelity" and known.get("prune_at") == "epochs"
    return "multifidelity" if joined else "none"


def _trials(known: dict[str, Any]) -> int:
    return MOST_TRIALS if known.get("time_limit") else 40


def _baselines(known: dict[str, Any]) -> bool:
    return not known.get("time_limit")


def _finish(known: dict[str, Any]) -> Finish:
    return "train" if known.get("time_limit") else "none"


class SearchSettings(ConfigModel):
    """How candidates are chosen, and which other trainings belong to the study.

    Args:
        time_limit: wall time of the whole search, from its start to the bundle of its winner:
            `20m`, `8h`, `1h30m`. It is that of all commands of the study together, without the
            pauses between them. Default: none.
        finish: what comes of the winner in the end: `train` it in full, for as long as the time
            limit allows or for four times the epochs of a candidate, and write that as a bundle;
            `export` what the search has trained as a bundle; or `none`. On a cluster `train` does
            as `export`. Default: `train` with a time limit, else `none`.
        trials: candidates to train in the study altogether: those of earlier runs count, baselines
            and replicates do not. Default: 40; with a time limit as many as it has room for, 1000
            at most.
        sampler: what suggests layouts: by the results so far, `gp` (Gaussian process),
            `multifidelity` (Gaussian process that learns from mAP and training loss of every epoch,
            of running and stopped candidates too), `tpe` (tree-structured Parzen estimator),
            `nsga2` (genetic algorithm); or regardless of them, `random` or `grid` (every layout of
            the space in turn). Default: `multifidelity`, with several objectives `gp`.
        pruner: what ends a candidate early, by its validation mAP after each epoch: `none`,
            `multifidelity` (unlikely to become the best, by the model of that sampler), `median`
            (worse than the median of the others at that point) or `hyperband`. Default: that of
            the sampler's name with `multifidelity`, else `none`.
        prune_at: where the pruner compares candidates: after equal `epochs`, or at equal `cost` in
            multiply-adds (epochs x FLOPs of the layout).
        objectives: what to optimize: `map` (validation mAP, maximized), alone or followed by
            others: `memory` (peak of a training step), `flops`, `params` and `latency` (see
            `budget.latency_on`), minimized, and `fps`
            (images a second), maximized. With several, the result is a Pareto front instead of one
            best candidate, and `pruner` must be `none`.
        try: layouts to train before those that the sampler suggests, as text: `C2-C2-T12-T4`.
        try_only: train the layouts of `try` and no others.
        baselines: also train Swin-T, ResNet-50 and C2-C2-T12-T4, each as wide as the budget allows,
            to compare with. Never done with `try_only` or `recipe.weights`. Default: true, with a
            time limit false.
        replicates: trainings of each baseline and of the best three candidates, each with another
            seed; 1 repeats nothing.
        warm_start: names of studies in the same database whose results the sampler starts from.
            Nothing is taken from a study with other data, or another detector, recipe or
            calibration.
        prior: names of studies in the same database, of other data, recipes or budgets, that the
            sampler `multifidelity` learns from which layouts to expect most of, until this study's
            results say otherwise. `builtin` is what this project's own trainings on two small data
            sets have shown.
        seed: seed of suggestions, initialisation, order of the images and augmentation.
    """

    time_limit: Annotated[TimeLimit | None, Since("0.2.0")] = None
    finish: Annotated[Finish, Field(title="finish"), Since("0.2.0")] = Field(
        default_factory=_finish
    )
    trials: Annotated[int, Field(ge=1)] = Field(default_factory=_trials)
    objectives: tuple[Objective, ...] = Field(default=("map",), title="an objective")
    sampler: SamplerName = Field(default_factory=_sampler, title="sampler")
    prune_at: PruneAt = Field(default="epochs", title="prune_at")
    pruner: PrunerName = Field(default_factory=_pruner, title="pruner")
    try_first: tuple[str, ...] = Field(default=(), alias="try")
    try_only: bool = False
    baselines: bool = Field(default_factory=_baselines)
    replicates: Annotated[int, Field(ge=1, le=100)] = 1
    warm_start: tuple[str, ...] = ()
    prior: Annotated[tuple[str, ...], Since("0.2.0")] = ()
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @property
    def of_trials(self) -> str:
        """Say how many trials there are to be, behind a number: `of 40 trials`; where the time
        decides that, `trials`.
        """
        free = self.time_limit and self.trials == MOST_TRIALS
        return "trials" if free else f"of {self.trials} trials"

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
        if self.pruner == "multifidelity" and self.prune_at == "cost":
            raise ValueError("prune_at must be epochs with pruner multifidelity; got 'cost'")
        if self.prior and self.sampler != "multifidelity":
            raise ValueError(
                "prior must be left out with any sampler but multifidelity; got sampler "
                f"{self.sampler!r}"
            )
        if self.try_only and not self.try_first:
            raise ValueError("try_only needs layouts in try; got none")
        return self


class RunSpec(ConfigModel):
    """Where candidates are trained, and how many at the same time.

    Args:
        concurrent: candidates that are trained at the same time; `auto`: as many as the GPUs, or
            without any the CPU cores, have room for.
        gpus_per_trial: GPUs of one candidate: a part of one (0.125, 0.5), one, or several whole
            ones that train it together; 0 for none; `auto`: as many eighths of a GPU as the budget
            needs.
        cpus_per_trial: CPU cores of one candidate; `auto`: all cores, divided among the candidates.
        output: folder or URL of checkpoints, weights and metrics; it has a folder for each study.
        retries: how often a layout whose training failed is trained again.
        keep_best: candidates whose weights are kept, the best ones by mAP and, with several
            objectives, all of the Pareto front; those of others are
            deleted.
        cluster: address of a Ray cluster's Jobs API that the search is sent to, `http://head:8265`.
            Default: this machine.
        checkpoint_s: seconds between checkpoints within an epoch; 0 writes one after each step.
            There is always one after an epoch.
        image_cache: disk that decoded images may take on each machine, for all data sets together:
            a number and a unit, or 0 to decode every image each time.
        mlflow: folder of an MLflow store, made where it is not there, or URL of a tracking server
            (`https://mlflow.example.org`), which gets a run for the study and in it one for each
            trial. Default: none.
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
    mlflow: Annotated[str | None, Field(min_length=1), Since("0.2.0")] = None

    @field_validator("cluster")
    @classmethod
    def _no_password(cls, value: str | None) -> str | None:
        if value and masked(value) != value:
            raise ValueError(
                "must hold no password or token, which would be stored and shown: Ray takes its "
                "own from RAY_AUTH_TOKEN or ~/.ray/auth_token"
            )
        return value

    @field_validator("mlflow")
    @classmethod
    def _store(cls, value: str | None) -> str | None:
        scheme, separator, _ = (value or "").partition("://")
        if separator and scheme not in ("http", "https"):
            raise ValueError(
                "must be a folder, or the URL of a tracking server, http:// or https://; got "
                f"one with {scheme}://"
            )
        return value

    @model_validator(mode="after")
    def _whole_cards(self) -> RunSpec:
        if self.gpus_per_trial != "auto" and self.gpus_per_trial > 1 and self.gpus_per_trial % 1:
            raise ValueError(
                f"gpus_per_trial must be a whole number above 1; got {self.gpus_per_trial:g}"
            )
        return self

    @property
    def processes(self) -> int:
        """Number of processes that train one candidate together, each with a GPU of its own."""
        return 1 if self.gpus_per_trial == "auto" else max(1, int(self.gpus_per_trial))
