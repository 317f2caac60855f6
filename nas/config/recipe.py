"""Recipes: how a candidate is trained, and reading those that come with the package."""

from __future__ import annotations

import math
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from nas.config.choices import (
    AugmentationPolicy,
    Checkpointing,
    Init,
    KeptWeights,
    OptimizerName,
    Precision,
    Schedule,
    recipe_names,
)
from nas.config.identity import Since
from nas.config.parsing import ConfigModel, read_yaml
from nas.errors import SpecError, one_of, quoted
from search_spaces.yaml_text import parse_yaml

LARGEST_STRIDE = 32
Side = Annotated[int, Field(ge=LARGEST_STRIDE, le=2**15)]  # pixels
Images = Annotated[int, Field(ge=1, le=2**16)]  # at once
CALIBRATION = "calibration"  # section of a recipe file that is no part of the recipe itself
AUTO = "auto"  # the recipe whose keys the data decide
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
        patience: scored epochs without a gain of `min_gain` after which `saturate` takes the
            validation mAP to have stopped rising.
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
        augmentation: what training images go through beside `train_sizes`: `none`; `light`, flips;
            `standard`, also a scale of 0.6 to 1.5 within the image's frame (a crop, or a smaller
            image with black around it) and mild changes of colour; `strong`, 0.3 to 2 and more of
            colour. Objects of which less than a third is left are not learned.
        vertical_flip: probability that top and bottom of a training image change places, for images
            without an up.
        drop_path: probability that the branch of the backbone's last block is left out of an image
            in training; less for those before it, on a line from 0 at the first.
        init: initial weights of the backbone: `he`, N(0, 2 / fan_in) everywhere (the paper's);
            `swin`, Swin's N(0, 0.02^2), cut off at two deviations, in the linear maps of T stages;
            `swin_scaled`, the same with the last layer of each residual branch of a T stage
            divided by the root of their number.
        warmup_share: the most that the warm-up takes of all steps, as a fraction; it ends after
            `warmup_steps` or after this share, whichever comes first.
        least_steps: steps that the training is to have at least: over few images there are as many
            more epochs as that takes.
        keep: which weights are kept and exported: those of the `last` epoch, or of the `best` one
            by validation mAP, which the validation split then has chosen; `best_and_last` is as
            `best`, with those of the last epoch beside them in `last.safetensors`.
        ema: decay of the moving average of the weights that is scored, kept and exported in place
            of the weights themselves; 0: no average. In the first steps it is smaller, (t - 1) /
            (t + 8) in step t.
        quarter_turns: probability that a training image is turned by 90, 180 or 270 degrees, each
            as likely, for images without an up. It keeps its frame: an image that is not square is
            made smaller by 90 and 270 degrees, so that it fits, with black beside it.
        repeat_threshold: share t of the training images below which a class is rare, and images
            that have it are drawn more often: sqrt(t / f) times as often as others, where the class
            is in a share f of the images (repeat factor sampling, Gupta et al., CVPR 2019). An
            epoch keeps its number of images; those without a rare class come less often. 0: every
            image once.
        eval_every: epochs from one scoring of the validation split to the next; the last epoch is
            always scored. An epoch that is not has no report: no row in the curves and no score for
            a pruner, `schedule: saturate` or `keep: best`; its loss is in `log.jsonl`.
        iou_crop: probability that a training image goes through SSD's random crop around objects
            (Liu et al., ECCV 2016, section 2.2) in place of the scales of `augmentation`: a part
            with sides of 0.3 to 1 of the image's that overlaps some object, enlarged as far as it
            fits into the image's frame. Objects whose centre is outside are not learned.
        frozen_stages: stages of the backbone, counted from the first and with the stem, that stay
            as `weights` has them. Only with `weights`.
        norm_eval: batch norms of the backbone use the running statistics of `weights` in training,
            and leave them as they are, which few images at once do not spoil. Only with `weights`.
        tf32: whether GPUs that can (Ampere and later) round the factors of fp32 matrix products and
            convolutions to the 10 bits of TF32, in training and in scoring: faster, and digits
            differ from those without. Default: PyTorch's own, convolutions alone, by which C stages
            are faster than they would be and T stages are not. Elsewhere it does nothing.
    """

    name: str = CUSTOM
    epochs: Annotated[int, Field(ge=1, le=10**6)]
    image_size: Side
    max_size: Side | None = None
    train_sizes: tuple[Side, ...] = ()
    batch: Images
    images_per_gpu: Images | None = None
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
    loader_workers: Annotated[int, Field(ge=0, le=256)] | Literal["auto"] = "auto"
    weights: str | None = None
    augmentation: Annotated[AugmentationPolicy, Field(title="augmentation"), Since("0.2.0")] = (
        "light"
    )
    vertical_flip: Annotated[float, Field(ge=0, le=1), Since("0.2.0")] = 0.0
    drop_path: Annotated[float, Field(ge=0, lt=1), Since("0.2.0")] = 0.0
    init: Annotated[Init, Field(title="init"), Since("0.2.0")] = "he"
    warmup_share: Annotated[float, Field(gt=0, le=1), Since("0.2.0")] = 1.0
    least_steps: Annotated[int, Field(ge=0), Since("0.2.0")] = 0
    keep: Annotated[KeptWeights, Field(title="keep"), Since("0.2.0")] = "last"
    ema: Annotated[float, Field(ge=0, lt=1), Since("0.2.0")] = 0.0
    quarter_turns: Annotated[float, Field(ge=0, le=1), Since("0.2.0")] = 0.0
    repeat_threshold: Annotated[float, Field(ge=0, le=1), Since("0.2.0")] = 0.0
    eval_every: Annotated[int, Field(ge=1), Since("0.2.0")] = 1
    iou_crop: Annotated[float, Field(ge=0, le=1), Since("0.2.0")] = 0.0
    frozen_stages: Annotated[int, Field(ge=0, le=4), Since("0.2.0")] = 0
    norm_eval: Annotated[bool, Since("0.2.0")] = False
    tf32: Annotated[bool | None, Since("0.2.0")] = None

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
                f"{quoted(self.weights)}"
            )
        if self.weights is None and self.frozen_stages:
            raise ValueError(
                "frozen_stages must be 0 without weights, which its stages are to have; got "
                f"{self.frozen_stages}"
            )
        if self.weights is None and self.norm_eval:
            raise ValueError(
                "norm_eval must be false without weights, whose statistics it uses; got true"
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

    def warmup(self, steps_per_epoch: int) -> int:
        """Count the steps of the warm-up, which leaves at least one step of the training."""
        total = self.epochs * steps_per_epoch
        return min(self.warmup_steps, int(self.warmup_share * total), total - 1)

    def warmup_epochs(self, images: int) -> int:
        """Count the epochs over `images` training images that contain a step of the warm-up."""
        steps_per_epoch = math.ceil(images / self.batch)
        return math.ceil(self.warmup(steps_per_epoch) / steps_per_epoch)

    def scores(self, epoch: int) -> bool:
        """Tell whether an epoch, counted from 1, is scored and reported."""
        return epoch % self.eval_every == 0 or epoch >= self.epochs

    @property
    def scored_epochs(self) -> int:
        """How many epochs are scored, if the training does not end early."""
        return math.ceil(self.epochs / self.eval_every)

    def unjudged_epochs(self, images: int) -> int:
        """Count the epochs over `images` training images before the first that is scored after the
        warm-up, by which a candidate may be stopped.
        """
        return (self.warmup_epochs(images) // self.eval_every + 1) * self.eval_every - 1

    def with_least_steps(self, images: int) -> Recipe:
        """Copy the recipe with as many epochs over `images` images as `least_steps` take, which are
        then settled: who changes the epochs of the copy gets those.
        """
        steps_per_epoch = math.ceil(images / self.batch)
        epochs = max(self.epochs, math.ceil(self.least_steps / steps_per_epoch))
        return self.model_copy(update={"epochs": epochs, "least_steps": 0})

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
    keys = _recipe_file(reference, folder)
    keys.pop(CALIBRATION, None)
    return keys


def recipe_calibration(reference: str) -> dict[str, Any]:
    """Read the keys of `calibration` that a recipe comes with, not yet checked; arguments and
    errors are those of `load_recipe`.
    """
    keys = _recipe_file(reference, "recipes").get(CALIBRATION) or {}
    if not isinstance(keys, dict):
        raise SpecError(
            f"{reference}: calibration must be a section with keys of its own; got {quoted(keys)}"
        )
    return keys


def _recipe_file(reference: str, folder: str) -> dict[str, Any]:
    if reference == CUSTOM:
        return {}
    if str(reference).endswith((".yaml", ".yml")):
        return {**read_yaml(Path(reference)), "name": str(reference)}
    if reference not in (names := recipe_names(folder)):
        raise SpecError(f"{one_of('recipe', reference, names)}; or name a YAML file (mine.yaml)")
    text = (resources.files("nas.config") / folder / f"{reference}.yaml").read_text()
    return {**parse_yaml(text), "name": reference}
