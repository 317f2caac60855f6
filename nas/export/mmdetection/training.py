"""Data set and schedule in mmdetection's configuration, as a recipe has them."""

from __future__ import annotations

from typing import Any

from nas.config.recipe import Recipe
from nas.export.mmdetection.common import Config

DATA = "{{$DATA_ROOT:DATA}}"  # mmengine puts in what the environment says
CLASSES = "classes"
MOMENTUM = 0.9  # of `sgd`, as in training


class Variable:
    """A name that is written into a configuration as it is."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return self.name


def data_sections(recipe: Recipe, *, masks: bool) -> Config:
    """Write the data loaders and what scores them: a data set as `nas convert` writes it."""
    training, tested = _train_pipeline(recipe, masks), _test_pipeline(recipe, masks)
    validation = {**_loader(1, _data_set("val", tested, test_mode=True)), "drop_last": False}
    scored = {
        "type": "CocoMetric",
        "ann_file": f"{DATA}/instances_val.json",
        "metric": ["bbox", "segm"] if masks else ["bbox"],
    }
    return {
        "train_dataloader": {
            **_loader(recipe.micro_batch_size, _data_set("train", training), shuffle=True),
            "batch_sampler": {"type": "AspectRatioBatchSampler"},
        },
        "val_dataloader": validation,
        "test_dataloader": Variable("val_dataloader"),
        "val_evaluator": scored,
        "test_evaluator": Variable("val_evaluator"),
    }


def schedule_sections(recipe: Recipe) -> Config:
    """Write optimizer, learning rate and epochs of a training on one GPU."""
    optimizer: Config = {"type": "AdamW", "lr": recipe.lr, "weight_decay": recipe.weight_decay}
    if recipe.optimizer == "sgd":
        optimizer |= {"type": "SGD", "momentum": MOMENTUM}
    wrapper: Config = {
        "type": "AmpOptimWrapper" if recipe.precision == "bf16" else "OptimWrapper",
        "optimizer": optimizer,
        "accumulative_counts": recipe.batch // recipe.micro_batch_size,
        "paramwise_cfg": _undecayed(),
    }
    if recipe.precision == "bf16":
        wrapper["dtype"] = "bfloat16"
    if recipe.clip_norm:
        wrapper["clip_grad"] = {"max_norm": recipe.clip_norm}
    return {
        "optim_wrapper": wrapper,
        "param_scheduler": [*_warm_up(recipe), *_decay(recipe)],
        "train_cfg": {
            "type": "EpochBasedTrainLoop",
            "max_epochs": recipe.epochs,
            "val_interval": recipe.eval_every,
        },
        "val_cfg": {"type": "ValLoop"},
        "test_cfg": {"type": "TestLoop"},
    }


def not_translated(recipe: Recipe) -> list[str]:
    """List what of a recipe the configuration does not have, as keys with their values."""
    plain = Recipe(epochs=1, image_size=32, batch=1, lr=1).model_dump()
    keys = ("iou_crop", "quarter_turns", "repeat_threshold", "drop_path", "ema", "frozen_stages")
    found = [key for key in (*keys, "norm_eval") if getattr(recipe, key) != plain[key]]
    if recipe.augmentation not in ("none", "light"):
        found.append("augmentation")
    if recipe.schedule == "saturate":
        found.append("schedule")
    return [f"{key}: {getattr(recipe, key)}" for key in found]


def _data_set(split: str, pipeline: list[Config], **options: Any) -> Config:
    return {
        "type": "CocoDataset",
        "data_root": f"{DATA}/",
        "ann_file": f"instances_{split}.json",
        "data_prefix": {"img": f"{split}/"},
        "metainfo": {"classes": Variable(CLASSES)},
        "filter_cfg": {"filter_empty_gt": False},
        "pipeline": pipeline,
        **options,
    }


def _loader(batch: int, data_set: Config, *, shuffle: bool = False) -> Config:
    return {
        "batch_size": batch,
        "num_workers": 2,
        "persistent_workers": True,
        "sampler": {"type": "DefaultSampler", "shuffle": shuffle},
        "dataset": data_set,
    }


def _resize(recipe: Recipe) -> Config:
    scale = (recipe.long_side, recipe.image_size)
    return {"type": "ScratchNasResize", "scale": scale, "keep_ratio": True}


def _loaded(masks: bool) -> list[Config]:
    annotations = {"type": "LoadAnnotations", "with_bbox": True, "with_mask": masks}
    return [{"type": "LoadImageFromFile", "imdecode_backend": "pillow"}, annotations]


def _train_pipeline(recipe: Recipe, masks: bool) -> list[Config]:
    resize = _resize(recipe)
    if recipe.train_sizes:
        resize = {
            "type": "RandomChoiceResize",
            "scales": [(recipe.long_side, side) for side in recipe.train_sizes],
            "resize_type": "ScratchNasResize",
            "keep_ratio": True,
        }
    flips = [] if recipe.augmentation == "none" else _flips(recipe)
    return [*_loaded(masks), resize, *flips, {"type": "PackDetInputs"}]


def _flips(recipe: Recipe) -> list[Config]:
    directions = {"horizontal": recipe.flip, "vertical": recipe.vertical_flip}
    return [
        {"type": "RandomFlip", "prob": share, "direction": direction}
        for direction, share in directions.items()
        if share
    ]


def _test_pipeline(recipe: Recipe, masks: bool) -> list[Config]:
    image, annotations = _loaded(masks)
    known = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
    return [image, _resize(recipe), annotations, {"type": "PackDetInputs", "meta_keys": known}]


def _undecayed() -> Config:
    tables = ("position_table", "init_proposal_bboxes", "init_proposal_features", "scales")
    return {
        "norm_decay_mult": 0.0,
        "bias_decay_mult": 0.0,
        "custom_keys": {name: {"decay_mult": 0.0} for name in tables},
    }


def _warm_up(recipe: Recipe) -> list[Config]:
    steps = recipe.warmup_steps
    if not steps:
        return []
    factor = 1 / (steps + 1)
    line = {"type": "LinearLR", "start_factor": factor, "by_epoch": False}
    return [{**line, "begin": 0, "end": steps + 1}]


def _decay(recipe: Recipe) -> list[Config]:
    if recipe.schedule == "cosine":
        cosine = {"type": "CosineAnnealingLR", "eta_min": 0.0, "by_epoch": True}
        return [{**cosine, "T_max": recipe.epochs, "convert_to_iter_based": True}]
    if recipe.schedule == "step":
        steps = {"type": "MultiStepLR", "by_epoch": True, "milestones": list(recipe.decay_epochs)}
        return [{**steps, "gamma": recipe.decay_factor}]
    return []
