"""Parts of a backbone that fine-tuning leaves as they were trained: whole stages, and the running
statistics of batch norms.

The rules are those of mmdetection's `frozen_stages` and `norm_eval` (mmdet/models/backbones/
resnet.py and swin.py), but that 0 stages freeze nothing.
"""

from __future__ import annotations

from functools import partial

from torch import nn

from nas.errors import SpecError
from nas.models.backbones import HybridBackbone
from nas.models.weights import WeightsReport

_STATISTICS = (".running_mean", ".running_var")


def freeze_(backbone: HybridBackbone, stages: int, *, norm_eval: bool) -> None:
    """Keep parts of a backbone from being trained, in place.

    Args:
        backbone: whose parameters an optimizer is still to be made of.
        stages: the first stages, 0 to 4, whose parameters have no gradients from now on, and with
            them the stem and the stages' output norms. They run as in evaluation: statistics stay,
            no branch is dropped.
        norm_eval: all batch norms run as in evaluation; their own weights are trained.
    """
    parts = _frozen_parts(backbone, stages)
    for part in parts:
        part.requires_grad_(False)
    norms = [m for m in backbone.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for module in [*parts, *(norms if norm_eval else [])]:
        setattr(module, "train", partial(_evaluating, module))  # noqa: B010 - of this one alone
        module.train()


def check_loaded(report: WeightsReport, stages: int, *, norm_eval: bool) -> None:
    """Have all that is not trained come from the file of weights.

    Args:
        report: what a backbone took of the file.
        stages, norm_eval: as of `freeze_`; output norms, which classifiers do not have, may be
            missing: they do nothing then.

    Raises:
        SpecError: something of it keeps its initialisation.
    """
    left = [*report.missing, *(name for name, _, _ in report.misfits)]
    beginnings = ("stem.", *(f"stages.{stage}." for stage in range(stages))) if stages else ()
    for name in left:
        if name.startswith(beginnings):
            raise SpecError(
                f"recipe.frozen_stages must be of stages that recipe.weights has; got {stages}, "
                f"and {name} is not in the file or does not fit"
            )
        if norm_eval and name.endswith(_STATISTICS):
            raise SpecError(
                "recipe.norm_eval must have the statistics of all batch norms in recipe.weights; "
                f"{name} is not in the file or does not fit"
            )


def _frozen_parts(backbone: HybridBackbone, stages: int) -> list[nn.Module]:
    if not stages:
        return []
    return [backbone.stem, *backbone.stages[:stages], *backbone.norms[:stages]]


def _evaluating(module: nn.Module, mode: bool = True) -> nn.Module:
    """In place of `Module.train`: evaluation, whatever is asked for."""
    return nn.Module.train(module, False)
