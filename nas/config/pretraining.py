"""Requests for pre-training: a recipe with flags over it, and what follows from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from nas.config.choices import Augmentation
from nas.config.parsing import deep_merge, parse_model, set_key
from nas.config.recipe import Recipe, load_recipe
from nas.utils.url_secrets import check_no_secret
from search_spaces.layout import largest_divisor

RECIPES = "recipes/pretraining"
# Keys of a `Recipe` that say how images with boxes are drawn and augmented.
FOR_DETECTORS = ("augmentation", "vertical_flip", "quarter_turns", "iou_crop", "repeat_threshold")


class PretrainingRecipe(Recipe):
    """How a layout is pre-trained by classification: a `Recipe` whose images are square crops and
    whose `saturate` looks at top-1, with these keys besides.

    Args:
        warmup_fraction: share of all steps in which the learning rate rises linearly to `lr`;
            `warmup_steps`, where it is given, counts them instead.
        label_smoothing: share of each target that is spread over all classes.
        augment: augmentation of training images: `light` crops and flips; `strong` also changes
            colours and shapes (TrivialAugment), erases rectangles and mixes images (mixup, CutMix).
    """

    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.0
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    augment: Augmentation = "light"

    @model_validator(mode="after")
    def _square(self) -> PretrainingRecipe:
        if self.max_size or self.train_sizes:
            raise ValueError(
                "max_size and train_sizes are for detectors; pre-training crops squares of "
                "image_size"
            )
        fields = type(self).model_fields
        for name in FOR_DETECTORS:
            if getattr(self, name) != fields[name].default:
                raise ValueError(f"{name} is for detectors; pre-training has augment and flip")
        if self.keep != "last":
            raise ValueError(f"keep must be last in pre-training; got {self.keep!r}")
        return self

    def over(self, steps: int) -> PretrainingRecipe:
        """Copy the recipe for a training of `steps` steps, with its warm-up counted in steps."""
        return self.model_copy(
            update={"warmup_steps": self.warmup_steps or round(self.warmup_fraction * steps)}
        )


class PretrainingSpec(BaseModel):
    """A complete request for pre-training.

    Args:
        data: folder with `train/CLASS/` and `val/CLASS/`.
        recipe: how the layout is trained.
        seed: seed of initialisation, order of the images and augmentation.
        checkpoint_s: seconds between checkpoints within an epoch.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str
    recipe: PretrainingRecipe
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    checkpoint_s: Annotated[float, Field(ge=0)] = 600


def load_pretraining(flags: Mapping[str, Any], processes: int = 1) -> PretrainingSpec:
    """Build a request for pre-training from flags over a recipe.

    Where `recipe.batch` is given and `lr` is not, the recipe's `lr` follows the batch in proportion
    (Goyal et al., 2017). A recipe's own `images_per_gpu` is a limit: what is used is the largest
    part of the batch of each process that divides it.

    Args:
        flags: values by dotted key, `{"recipe.epochs": 3}`; `recipe.name` is the name of a recipe
            (`swin`, the default) or a YAML file.
        processes: processes that train together.

    Raises:
        SpecError: a value is wrong, or the batch cannot be divided among the processes; the text
            names the key.
    """
    written: dict[str, Any] = {}
    for key, value in flags.items():
        set_key(written, key, value)
    keys = written.get("recipe", {})
    keys = keys if isinstance(keys, dict) else {"name": keys}
    base = load_recipe(keys.pop("name", "swin"), RECIPES)
    limit = base.pop("images_per_gpu", None)
    check_no_secret("data", str(written.get("data", "")))
    spec = parse_model(PretrainingSpec, {**written, "recipe": deep_merge(base, keys)})
    recipe, changes = spec.recipe, {}
    if "lr" not in keys and "batch" in base:
        changes["lr"] = recipe.lr * recipe.batch / base["batch"]
    if limit and not recipe.images_per_gpu and recipe.batch % processes == 0:
        changes["images_per_gpu"] = largest_divisor(recipe.batch // processes, limit)
    recipe = recipe.model_copy(update=changes)
    recipe.images_at_once(processes)
    return spec.model_copy(update={"recipe": recipe})
