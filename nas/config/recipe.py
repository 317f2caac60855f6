"""Recipes: how a candidate is trained, and reading those that come with the package."""

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
        name: the recipe that supplies the keys which the request leaves out: one that comes with
            the package, or a YAML file; `custom` where the request has all of them.
        epochs: passes over the training images; with `schedule: saturate` the most there may be.
        image_size: short side of the images in pixels.
        max_size: limit of the long side of the images in pixels. Default: 1333/800 of `image_size`.
        train_sizes: short sides in pixels that training draws from, anew for each image. Default:
            `image_size` alone.
        batch: images of one optimizer step, on all GPUs together.
        images_per_gpu: images that one GPU has in memory at the same time; the gradients of several
            such parts add up to those of the batch. Must divide `batch`. Default: the GPU's whole
            part of the batch.
        lr: learning rate after the warm-up, for the whole batch.
        weight_decay: weight decay of weights; norms, biases, scales and position tables have none.
        optimizer: `adamw` (AdamW), or `sgd` (stochastic gradient descent with momentum 0.9).
        schedule: how the learning rate changes: `constant` not at all; `step` falls after each of
            `decay_epochs`; `cosine` falls to 0 until the last step; `saturate` falls when the
            validation mAP has stopped rising, `decays` times, and ends the training when it has
            stopped again.
        decay_epochs: epochs after which `schedule: step` multiplies the learning rate by
            `decay_factor`.
        decay_factor: what `step` and `saturate` multiply the learning rate by.
        patience: epochs without a gain of `min_gain` after which `saturate` takes the validation
            mAP to have stopped rising.
        min_gain: smallest gain of the validation mAP, as a fraction of 1, that `saturate` counts as
            rising.
        decays: how often `saturate` lowers the learning rate before training ends.
        warmup_steps: steps in which the learning rate rises linearly to `lr`.
        clip_norm: limit of the norm of all gradients together. Default: no limit.
        precision: `fp32`, or `bf16`: mixed precision by autocast, on GPUs only.
        checkpointing: activation checkpointing, which computes parts twice instead of keeping them
            in memory: `none`; `light` for cheap parts (norms, GELU, attention); `full` for whole
            blocks of the backbone, for about a third more time.
        channels_last: keep the maps of convolutions in channels-last order, which GPUs prefer in
            bf16; of no use with `norm=gn`.
        compile: compile blocks of the backbone and towers of one-stage detectors with
            `torch.compile` for training. Only with `checkpointing: none`. The predicted memory is
            that without it.
        flip: probability that left and right of a training image change places.
        loader_workers: processes that decode images; `auto`: up to 4 beside a GPU, none on a CPU.
        weights: file of trained weights (.safetensors, .pt, .pth) that the backbone starts from,
            instead of from scratch; it is not calibrated then.
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
        """Count the images that are in memory at the same time, on all processes together.

        Args:
            processes: processes that train together, each with its part of every batch.

        Raises:
            SpecError: the batch cannot be divided among the processes.
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
        """Copy the recipe for `times` as many epochs.

        What is counted in epochs (`decay_epochs`, `patience`) grows with them, and `cosine` falls
        more slowly; the warm-up, counted in steps, stays.
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
        """Images that one GPU has in memory at the same time."""
        return self.images_per_gpu or self.batch


def load_recipe(reference: str, folder: str = "recipes") -> dict[str, Any]:
    """Read the keys of a recipe, not yet checked.

    Args:
        reference: name of a recipe (`proxy`), path of a YAML file, or `custom`, which has no keys.
        folder: where recipes with names are, below `nas/config`.

    Returns:
        The keys, `name` among them, which is `reference`.

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
