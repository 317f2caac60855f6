"""A search request: YAML and flags in, a complete and frozen `SearchSpec` out.

Where several places give a key, the first of these counts: flags, the YAML file, the space's `defaults`, the recipe file,
the defaults written here. The result names every value, is stored with the study, and is what a continued search must match.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from nas.errors import SpecError, one_of
from nas.units import parse_bytes
from nas.written import merged, read_yaml, set_key, validated
from search_spaces import catalog
from search_spaces.layout import Layout
from search_spaces.space import SearchSpace, load_space, space_from_dict

LARGEST_STRIDE = 32
CUSTOM = "custom"  # a recipe that names all its keys itself
ASPECT_LIMIT = 1333 / 800  # the paper's long side over its short side
WEIGHT_FILES = (".safetensors", ".pt", ".pth")


def _named(what: str, choices: tuple[str, ...]) -> Any:
    def check(value: object) -> object:
        if value not in choices:
            raise ValueError(one_of(what, value, choices))
        return value

    return Annotated[str, BeforeValidator(check)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)


class DataSpec(_Section):
    """Where the images are. `train_fraction` takes a seeded subset of the training images; `test` is scored once, at the end of
    a training, and chooses nothing.
    """

    root: str
    train: str = "train"
    val: str = "val"
    test: str | None = None
    train_fraction: Annotated[float, Field(gt=0, le=1)] = 1.0
    skip_broken: bool = False


class DetectorSpec(_Section):
    """What the backbone serves. `neck`: a feature pyramid, EfficientDet's or DSOD's (default: what the published detector has);
    `channels`: of its levels; `hidden`: of the fully connected layers of Faster and Cascade R-CNN; `regions`: the boxes of an
    image that these learn from, in each stage; `roi_op`: of Faster R-CNN; `masks`: whether Cascade Mask R-CNN learns them,
    false by itself where the data set has none; `box_transform`: how RepPoints v2 makes boxes of points.
    """

    name: _named("detector", catalog.DETECTORS) = "faster_rcnn"  # type: ignore[valid-type]
    roi_op: _named("roi_op", catalog.ROI_OPS) = "align"  # type: ignore[valid-type]
    neck: _named("neck", catalog.NECKS) = catalog.NECKS[0]  # type: ignore[valid-type]
    channels: Annotated[int, Field(ge=32, multiple_of=32)] = 256
    hidden: Annotated[int, Field(ge=1)] = 1024
    regions: Annotated[int, Field(ge=4)] = 512
    masks: bool = True
    box_transform: _named("box_transform", catalog.BOX_TRANSFORMS) = "moment"  # type: ignore[valid-type]

    @model_validator(mode="before")
    @classmethod
    def _published_neck(cls, written: Any) -> Any:
        neck = catalog.PUBLISHED_NECK.get(str(written.get("name"))) if isinstance(written, dict) else None
        return {"neck": neck, **written} if neck else written


class Recipe(_Section):
    """How a candidate is trained.

    Args:
        name: of the recipe or the file that the other keys come from; `custom` where they all are given.
        epochs: over the training images; a limit for `schedule: saturate`, which ends by itself.
        image_size, max_size: short side of the images, and limit of the long side (default 1333/800 of it), in pixels.
        train_sizes: short sides that training draws from, image by image, in pixels; default `image_size` alone.
        batch: images of one step, on all GPUs together.
        images_per_gpu: of the batch in memory at once; gradients of such pieces add up. Default: all that a GPU has of it.
        lr: learning rate for the whole batch, after the warm-up.
        weight_decay: of the weights; none for norms, biases, scales and position tables.
        optimizer: `adamw`, or `sgd` with a momentum of 0.9.
        schedule: of the learning rate. `constant`; `step` falls after `decay_epochs`; `cosine` falls to 0 at the last step;
            `saturate` falls when the validation mAP does not rise any more, and ends when that happens again.
        decay_epochs, decay_factor: after which `step` falls; what the rate is multiplied by when it or `saturate` does.
        patience, min_gain: saturated is a validation mAP that has not gained `min_gain`, a fraction, for `patience` epochs.
        decays: how often `saturate` falls before training is over.
        warmup_steps: in which the rate rises to `lr`, linearly.
        clip_norm: limit of the gradient's norm; default none.
        precision: `fp32`, or `bf16` by autocast, on a GPU only.
        checkpointing: what runs twice, to keep less: `none`; `light`, what is cheap (see `nas.training.checkpointing`); `full`,
            all blocks, for a third more time.
        flip: probability that a training image is mirrored, left for right.
        loader_workers: processes that read images; `auto`: up to 4 beside a GPU, none on the CPU.
        weights: a file to start the backbone from, not calibrated then, instead of from scratch (see `nas.training.weights`).
    """

    name: str = CUSTOM
    epochs: Annotated[int, Field(ge=1)]
    image_size: Annotated[int, Field(ge=LARGEST_STRIDE)]
    max_size: Annotated[int, Field(ge=LARGEST_STRIDE)] | None = None
    train_sizes: tuple[Annotated[int, Field(ge=LARGEST_STRIDE)], ...] = ()
    batch: Annotated[int, Field(ge=1)]
    images_per_gpu: Annotated[int, Field(ge=1)] | None = None
    lr: Annotated[float, Field(gt=0)]
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    optimizer: _named("optimizer", catalog.OPTIMIZERS) = "adamw"  # type: ignore[valid-type]
    schedule: _named("schedule", catalog.SCHEDULES) = "step"  # type: ignore[valid-type]
    decay_epochs: tuple[Annotated[int, Field(ge=1)], ...] = ()
    decay_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    patience: Annotated[int, Field(ge=1)] = 5
    min_gain: Annotated[float, Field(gt=0, lt=1)] = 0.001
    decays: Annotated[int, Field(ge=0)] = 1
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    precision: _named("precision", catalog.PRECISIONS) = "fp32"  # type: ignore[valid-type]
    checkpointing: _named("checkpointing", catalog.CHECKPOINTING) = "none"  # type: ignore[valid-type]
    flip: Annotated[float, Field(ge=0, le=1)] = 0.5
    loader_workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    weights: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.images_per_gpu and self.batch % self.images_per_gpu:
            raise ValueError(f"batch must be a multiple of images_per_gpu; got {self.batch} and {self.images_per_gpu}")
        if self.max_size and self.max_size < self.image_size:
            raise ValueError(f"max_size must be at least image_size; got {self.max_size} and {self.image_size}")
        if self.weights is not None and not self.weights.endswith(WEIGHT_FILES):
            raise ValueError(f"weights must be a file that ends in {', '.join(WEIGHT_FILES)}; got {self.weights!r}")
        return self

    @property
    def long_side(self) -> int:
        """Limit of the long side, in pixels."""
        return self.max_size or int(self.image_size * ASPECT_LIMIT)

    @property
    def short_sides(self) -> tuple[int, ...]:
        """Short sides that training draws from, in pixels."""
        return self.train_sizes or (self.image_size,)

    def images_at_once(self, processes: int) -> int:
        """Images that are in memory at once, of all processes of a training together.

        Raises:
            SpecError: the batch cannot be divided among them.
        """
        at_once = (self.images_per_gpu or self.batch // processes) * processes
        if not at_once or self.batch % at_once:
            of = f" with images_per_gpu {self.images_per_gpu}" if self.images_per_gpu else ""
            raise SpecError(f"recipe.batch {self.batch} cannot be divided among {processes} processes{of}")
        return at_once

    @property
    def images_per_step(self) -> int:
        """Images that are in memory at once."""
        return self.images_per_gpu or self.batch


class BudgetSpec(_Section):
    """Peak allocated training memory per GPU; `like` takes what a reference layout needs instead of a figure.

    `mode`: `cap` trains whatever fits; `equalize` makes each candidate use the budget, at most `tolerance` below it, by the
    quantity in `vary` (see `nas.equalize`).
    """

    memory: str = "16GiB"
    like: str | None = None
    mode: _named("budget.mode", catalog.BUDGET_MODES) = "cap"  # type: ignore[valid-type]
    vary: _named("budget.vary", catalog.VARIED) = "depth"  # type: ignore[valid-type]
    tolerance: Annotated[float, Field(gt=0, lt=1)] = 0.05

    @field_validator("memory", mode="before")
    @classmethod
    def _size(cls, value: object) -> str:
        parse_bytes(str(value))
        return str(value)

    @field_validator("like")
    @classmethod
    def _layout(cls, value: str | None) -> str | None:
        return value if value is None else str(Layout.parse(value))


class CalibrationSpec(_Section):
    """Gradient-calibrated initialisation: section 4.3, Algorithm 1 (see `nas.calibration`).

    With `recipe.weights` it is left out, `enabled` or not: it would scale weights that have been trained.
    """

    enabled: bool = True
    definition: _named("definition", catalog.CALIBRATION_DEFINITIONS) = "paper"  # type: ignore[valid-type]
    alpha: Annotated[float, Field(gt=0, le=1)] = 0.25
    passes: Annotated[int, Field(ge=1, le=100)] = 1
    scope: _named("scope", catalog.CALIBRATION_SCOPES) = "backbone"  # type: ignore[valid-type]


class SearchSettings(_Section):
    """How candidates are chosen. `try`: layouts to train first. `warm_start`: studies in the same database whose results are
    taken over, where data, detector, recipe and calibration are the same.

    With several `objectives` (`map` first) there is a Pareto front instead of a best value, and no pruner.
    """

    trials: Annotated[int, Field(ge=1)] = 40
    sampler: _named("sampler", catalog.SAMPLERS) = "tpe"  # type: ignore[valid-type]
    pruner: _named("pruner", catalog.PRUNERS) = "none"  # type: ignore[valid-type]
    objectives: tuple[_named("an objective", catalog.OBJECTIVES), ...] = ("map",)  # type: ignore[valid-type]
    try_first: tuple[str, ...] = Field(default=(), alias="try")
    warm_start: tuple[str, ...] = ()
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0

    @model_validator(mode="after")
    def _consistent(self) -> SearchSettings:
        if self.objectives[:1] != ("map",) or len(set(self.objectives)) < len(self.objectives):
            raise ValueError(f"objectives must begin with map and name nothing twice; got {', '.join(self.objectives)}")
        if len(self.objectives) > 1 and self.pruner != "none":
            raise ValueError(
                f"pruner must be none with several objectives, of which an epoch's mAP is only one; got {self.pruner!r}"
            )
        return self


class RunSpec(_Section):
    """Where and how many at once. `retries`: how often a layout whose training failed is tried again. `cluster`: address of a
    Ray cluster's Jobs API, http://head:8265. `checkpoint_s`: seconds between checkpoints within a long epoch. `image_cache`:
    what decoded images may take of each machine's disk; 0 decodes every image each time.
    """

    concurrent: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    gpus_per_trial: Annotated[float, Field(ge=0)] | Literal["auto"] = "auto"
    cpus_per_trial: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    output: str = "nas-runs"
    retries: Annotated[int, Field(ge=0)] = 2
    keep_best: Annotated[int, Field(ge=1)] = 5
    cluster: str | None = None
    checkpoint_s: Annotated[float, Field(ge=0)] = 600
    image_cache: str = "32GiB"

    @field_validator("image_cache", mode="before")
    @classmethod
    def _size(cls, value: object) -> str:
        return str(value) if str(value) == "0" or parse_bytes(str(value)) else ""

    @model_validator(mode="after")
    def _whole_cards(self) -> RunSpec:
        if self.gpus_per_trial != "auto" and self.gpus_per_trial > 1 and self.gpus_per_trial % 1:
            raise ValueError(f"gpus_per_trial must be a whole number above 1; got {self.gpus_per_trial:g}")
        return self

    @property
    def processes(self) -> int:
        """That train one candidate together, each with a GPU."""
        return 1 if self.gpus_per_trial == "auto" else max(1, int(self.gpus_per_trial))

    @property
    def cache_bytes(self) -> int:
        """What decoded images may take of a machine's disk."""
        return 0 if self.image_cache == "0" else parse_bytes(self.image_cache)


class SearchSpec(_Section):
    """The whole request; `space` is the space itself in its YAML form, not the name of a file that may change."""

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

    @field_validator("study")
    @classmethod
    def _name(cls, value: str) -> str:
        if not value or value.strip(". ") != value or any(c in value for c in "/\\\0\n"):
            raise ValueError(f"the name of a study is one word or a few, without '/'; got {value!r}")
        return value

    @model_validator(mode="before")
    @classmethod
    def _images_of_each_gpu(cls, written: Any) -> Any:
        """Memory is that of one GPU: several share the batch, which `images_per_gpu` then says."""
        run, recipe = written.get("run", {}), written.get("recipe", {})
        if not isinstance(run, dict) or not isinstance(recipe, dict) or recipe.get("images_per_gpu"):
            return written
        gpus, batch = run.get("gpus_per_trial"), recipe.get("batch")
        if not isinstance(gpus, (int, float)) or gpus <= 1 or not isinstance(batch, int) or batch % int(gpus):
            return written
        return {**written, "recipe": {**recipe, "images_per_gpu": batch // int(gpus)}}

    @model_validator(mode="after")
    def _batch_divides(self) -> SearchSpec:
        self.recipe.images_at_once(self.run.processes)
        return self

    def search_space(self) -> SearchSpace:
        """The space, built."""
        return space_from_dict(self.space, str(self.space.get("name")))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON, every value named; `SearchSpec.model_validate` reads it back."""
        return self.model_dump(mode="json", by_alias=True)


_SHORTHAND = {"data": "root", "detector": "name", "recipe": "name", "budget": "memory"}


def load_spec(request: Path | Mapping[str, Any] | None, flags: Mapping[str, Any]) -> SearchSpec:
    """Build the request from a YAML file, or what it would hold, and flags given as dotted keys, `{"recipe.epochs": 3}`.

    Raises:
        SpecError: the file or a value is wrong; the text names the key.
        SpaceError, LayoutError: the space or a layout to try first is wrong.
    """
    written = _expand(read_yaml(request) if isinstance(request, Path) else deepcopy(dict(request or {})))
    if "layout" in written:
        raise SpecError("a request with a layout is for `nas train FILE`; a search has a space, and search.try")
    for key, value in flags.items():
        set_key(written, key, value)
        _expand(written)
    space = _space_of(written.pop("space", "paper"))
    written = merged(_expand(dict(space.defaults)), written)
    recipe = _section(written, "recipe")
    written |= {"space": space.to_dict(), "recipe": merged(load_recipe(recipe.get("name", "proxy")), recipe)}
    if not _section(written, "data").get("root"):
        raise SpecError("a data set is needed: --data DIR, or data.root in the spec")
    written.setdefault("study", Path(written["data"]["root"]).resolve().name)
    spec = validated(SearchSpec, written)
    for text in spec.search.try_first:
        space.encode(Layout.parse(text))
    return spec


def load_recipe(reference: str, folder: str = "recipes") -> dict[str, Any]:
    """The keys of a recipe by its name (`proxy`) or the path of a YAML file; `name` says which. `folder` has those with names.

    Raises:
        SpecError: no such recipe, or a file that is no YAML mapping.
    """
    if reference == CUSTOM:
        return {}
    if str(reference).endswith((".yaml", ".yml")):
        return {**read_yaml(Path(reference)), "name": str(reference)}
    if reference not in (names := recipe_names(folder)):
        raise SpecError(f"{one_of('recipe', reference, names)}; or name a YAML file (mine.yaml)")
    text = (resources.files("nas") / folder / f"{reference}.yaml").read_text()
    return {**yaml.safe_load(text), "name": reference}


def recipe_names(folder: str = "recipes") -> list[str]:
    """Names of the recipes that come with the package."""
    files = (resources.files("nas") / folder).iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))


def _space_of(written: object) -> SearchSpace:
    return load_space(written) if isinstance(written, str) else space_from_dict(written, "space")


def _section(written: dict[str, Any], name: str) -> dict[str, Any]:
    section = written.setdefault(name, {})
    if not isinstance(section, dict):
        raise SpecError(f"{name} must be a section with keys of its own; got {section!r}")
    return section


def _expand(written: dict[str, Any]) -> dict[str, Any]:
    """`detector: fcos` stands for `detector: {name: fcos}`."""
    for section, key in _SHORTHAND.items():
        if isinstance(written.get(section), str):
            written[section] = {key: written[section]}
    return written
