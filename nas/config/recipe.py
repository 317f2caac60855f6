"""A recipe: how a candidate is trained, and the recipes that come with the package."""

from __future__ import annotations

import math
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, model_validator

from nas.config.choices import Checkpointing, OptimizerName, Precision, Schedule, recipe_names
from nas.config.parsing import ConfigModel, read_yaml
from nas.errors import SpecError, one_of

LARGEST_STRIDE = 32
CUSTOM = "custom"  # a recipe that names all its keys itself
ASPECT_LIMIT = 1333 / 800  # the paper's long side over its short side
WEIGHT_FILES = (".safetensors", ".pt", ".pth")


class Recipe(ConfigModel):
    """How a candidate is trained.

    Args:
        name: of the recipe or the file that the other keys come from; `custom` where they all are
            given.
        epochs: over the training images; a limit for `schedule: saturate`, which ends by itself.
        image_size: short side of the images, in pixels.
        max_size: limit of the long side, in pixels; default 1333/800 of the short side.
        train_sizes: short sides that training draws from, image by image, in pixels; default
            `image_size` alone.
        batch: images of one step, on all GPUs together.
        images_per_gpu: of the batch in memory at once; gradients of such pieces add up. Default:
            all that a GPU has of it.
        lr: learning rate for the whole batch, after the warm-up.
        weight_decay: of the weights; none for norms, biases, scales and position tables.
        optimizer: `adamw`, or `sgd` with a momentum of 0.9.
        schedule: of the learning rate. `constant`; `step` falls after `decay_epochs`; `cosine`
            falls to 0 at the last step; `saturate` falls when the validation mAP does not rise any
            more, and ends when that happens again.
        decay_epochs: after which `step` falls.
        decay_factor: what the rate is multiplied by when `step` or `saturate` falls.
        patience: so many epochs without a gain, and the validation mAP is saturated.
        min_gain: what counts as a gain, a fraction.
        decays: how often `saturate` falls before training is over.
        warmup_steps: in which the rate rises to `lr`, linearly.
        clip_norm: limit of the gradient's norm; default none.
        precision: `fp32`, or `bf16` by autocast, on a GPU only.
        checkpointing: what runs twice, to keep less: `none`; `light`, what is cheap (see
            `nas.models.activation_checkpointing`); `full`, all blocks, for a third more time.
        channels_last: convolutions have their maps channels last, as GPUs compute in bf16; with
            `norm=gn` this only costs.
        compile: blocks and towers are compiled for training (see `nas.models.compile`); with
            `checkpointing: none` only, and what is predicted of memory is that of a step without
                it.
        flip: probability that a training image is mirrored, left for right.
        loader_workers: processes that read images; `auto`: up to 4 beside a GPU, none on the CPU.
        weights: a file to start the backbone from, not calibrated then, instead of from scratch
            (see `nas.models.weights`).
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
    optimizer: OptimizerName = Field(default="adamw", title="optimizer")
    schedule: Schedule = Field(default="step", title="schedule")
    decay_epochs: tuple[Annotated[int, Field(ge=1)], ...] = ()
    decay_factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    patience: Annotated[int, Field(ge=1)] = 5
    min_gain: Annotated[float, Field(gt=0, lt=1)] = 0.001
    decays: Annotated[int, Field(ge=0)] = 1
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    precision: Precision = Field(default="fp32", title="precision")
    checkpointing: Checkpointing = Field(default="none", title="checkpointing")
    channels_last: bool = False
    compile: bool = False
    flip: Annotated[float, Field(ge=0, le=1)] = 0.5
    loader_workers: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    weights: str | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        if self.images_per_gpu and self.batch % self.images_per_gpu:
            raise ValueError(
                f"batch must be a multiple of images_per_gpu; got {self.batch} and "
                f"{self.images_per_gpu}"
            )
        if self.max_size and self.max_size < self.image_size:
            raise ValueError(
                f"max_size must be at least image_size; got {self.max_size} and {self.image_size}"
            )
        if self.compile and self.checkpointing != "none":
            raise ValueError(
                "compile works with checkpointing none only; got checkpointing "
                f"{self.checkpointing!r}"
            )
        if self.weights is not None and not self.weights.endswith(WEIGHT_FILES):
            raise ValueError(
                f"weights must be a file that ends in {', '.join(WEIGHT_FILES)}; got "
                f"{self.weights!r}"
            )
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
            raise SpecError(
                f"recipe.batch {self.batch} cannot be divided among {processes} processes{of}"
            )
        return at_once

    def warmup_epochs(self, images: int) -> int:
        """Count the epochs over `images` training images that contain a step of the warm-up."""
        return math.ceil(self.warmup_steps / math.ceil(images / self.batch))

    def lengthened(self, times: int) -> Recipe:
        """The same recipe over `times` as many epochs: all that is counted in epochs
        (`decay_epochs`, `patience`) grows with them, `cosine` falls as much more slowly; the
        warm-up, counted in steps, stays.
        """
        later = tuple(epoch * times for epoch in self.decay_epochs)
        longer = {
            "epochs": self.epochs * times,
            "decay_epochs": later,
            "patience": self.patience * times,
        }
        return self.model_copy(update=longer)

    @property
    def micro_batch_size(self) -> int:
        """Images that are in memory at once."""
        return self.images_per_gpu or self.batch


def load_recipe(reference: str, folder: str = "recipes") -> dict[str, Any]:
    """The keys of a recipe by its name (`proxy`) or the path of a YAML file; `name` says which.
    `folder` has those with names.

    Raises:
        SpecError: no such recipe, or a file that is no YAML mapping.
    """
    if reference == CUSTOM:
        return {}
    if str(reference).endswith((".yaml", ".yml")):
        return {**read_yaml(Path(reference)), "name": str(reference)}
    if reference not in (names := recipe_names(folder)):
        raise SpecError(f"{one_of('recipe', reference, names)}; or name a YAML file (mine.yaml)")
    text = (resources.files("nas.config") / folder / f"{reference}.yaml").read_text()
    return {**yaml.safe_load(text), "name": reference}
