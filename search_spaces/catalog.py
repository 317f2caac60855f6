"""Names that a request may use, kept apart from the code behind them so that checking a name costs
nothing.
"""

from __future__ import annotations

KINDS = ("C", "T")
STEMS = ("auto", "resnet", "patch", "dsod")
NORMS = ("bn", "gn", "syncbn")
DETECTORS = ("fcos", "faster_rcnn", "cascade_mask_rcnn", "atss", "reppoints_v2", "sparse_rcnn")
ROI_OPS = ("align", "pool")
BOX_TRANSFORMS = ("moment", "corners")
NECKS = ("fpn", "bifpn", "dsod")
PUBLISHED_NECK = {"reppoints_v2": "bifpn"}  # of the others: the first
RECIPES = ("paper", "paper-sota", "paper-24", "proxy", "tiny")
SAMPLERS = ("gp", "tpe", "nsga2", "random", "grid")
BUDGET_MODES = ("cap", "equalize")
VARIED = ("depth", "width")
PRUNERS = ("none", "median", "hyperband")
PRUNED_AT = ("epochs", "cost")
OBJECTIVES = ("map", "memory", "flops", "params", "fps")
OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("constant", "step", "cosine", "saturate")
CHECKPOINTING = ("none", "light", "full")
PRECISIONS = ("fp32", "bf16")
CALIBRATION_DEFINITIONS = ("paper", "relative")
CALIBRATION_SCOPES = ("backbone", "detector")
