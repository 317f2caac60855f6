"""Every name that a request may choose from, as types: `typing.get_args(SamplerName)` lists them.

Standard library only, so that a command can show the choices before anything heavy is imported.
"""

from __future__ import annotations

from importlib import resources
from typing import Literal

DetectorName = Literal[
    "fcos", "faster_rcnn", "cascade_mask_rcnn", "atss", "reppoints_v2", "sparse_rcnn"
]
RoiOp = Literal["align", "pool"]
BoxTransform = Literal["moment", "corners"]
Neck = Literal["fpn", "bifpn", "dsod"]
OptimizerName = Literal["adamw", "sgd"]
Schedule = Literal["constant", "step", "cosine", "saturate"]
Init = Literal["he", "swin", "swin_scaled"]
KeptWeights = Literal["best", "last", "best_and_last"]
Checkpointing = Literal["none", "light", "full"]
Precision = Literal["fp32", "bf16"]
Augmentation = Literal["light", "strong"]
AugmentationPolicy = Literal["none", "light", "standard", "strong"]
BudgetMode = Literal["cap", "equalize"]
EqualizedBy = Literal["depth", "width"]
CalibrationDefinition = Literal["outputs", "paper", "relative"]
InputStatistics = Literal["imagenet", "data"]
CalibrationScope = Literal["backbone", "detector"]
SamplerName = Literal["gp", "multifidelity", "tpe", "nsga2", "random", "grid"]
PrunerName = Literal["none", "multifidelity", "median", "hyperband"]
PruneAt = Literal["epochs", "cost"]
Objective = Literal["map", "memory", "flops", "params", "fps", "latency"]
LatencyDevice = Literal["cpu", "gpu"]
Finish = Literal["train", "export", "none"]

# What `search.prior` has beside names of studies.
BUILTIN_PRIOR = "builtin"
# The neck of a detector as it was published, where that is not the first of `Neck`.
PUBLISHED_NECK: dict[str, Neck] = {"reppoints_v2": "bifpn"}
# Detectors that learn instance masks where the data set has them.
MASK_DETECTORS: tuple[DetectorName, ...] = ("cascade_mask_rcnn",)


def recipe_names(folder: str = "recipes") -> list[str]:
    """List the recipes that come with the package, by name, sorted.

    Args:
        folder: where they are below `nas/config`: `recipes`, or `recipes/pretraining` for those
            of `nas pretrain`.
    """
    files = (resources.files("nas.config") / folder).iterdir()
    return sorted(file.name.removesuffix(".yaml") for file in files if file.name.endswith(".yaml"))
