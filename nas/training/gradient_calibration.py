"""Gradient calibration: weights scaled so that the gradients of all layers have similar size before
training starts.

Hong et al. (CVPR 2022), section 4.3, Algorithm 1, after Kraehenbuehl et al. (arXiv 1511.06856):
with C_k the mean square of the gradient of layer k, r_k = (C_k / geometric mean of C)^alpha and W_k
<- r_k W_k. A positive power is right: in a chain of homogeneous layers scaling W_k by r leaves its
own gradient alone and multiplies every other by r.

Stated here because the paper leaves it open: a layer is the weight of one convolution or linear map
(q, k and v are one); the loss is the detector's own on real images, one batch, fp32, batch norm in
training mode, its running statistics restored afterwards; layers without a gradient are skipped and
named. `definition="relative"` divides C_k by the mean square of W_k, which is the ratio of the
cited source. More than one pass spreads the layers of residual branches again: the best pass is
kept.

Unlike Algorithm 1, a pass scales no weight by less than 1/4 or more than 4: with DSOD's neck
factors were 0.04 to 197, and the network learned next to nothing.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nas.config.sections import CalibrationSpec
from nas.data.dataset import Batch
from nas.errors import NonFiniteLoss
from nas.models.detectors import Detector
from nas.reports import CalibrationReport
from nas.utils.distributed import all_reduce_mean

FACTOR_BOUND = 4.0  # and 1 over it
_LOG_BOUND = math.log(FACTOR_BOUND)
_GROUPS = {".attention.": "attention", ".mlp.": "mlp", ".merging.": "merging"}


@dataclass(frozen=True)
class _Measurement:
    """Log C of every layer that has a gradient, and the loss."""

    log_c: dict[str, float]
    loss: float

    @property
    def spread(self) -> float:
        return statistics.pstdev(self.log_c.values())

    @property
    def log_ratio(self) -> float:
        return max(self.log_c.values()) - min(self.log_c.values())

    def group_means(self) -> dict[str, float]:
        groups: dict[str, list[float]] = {}
        for name, value in self.log_c.items():
            groups.setdefault(_group(name), []).append(value)
        return {group: statistics.fmean(values) for group, values in groups.items()}


def calibration_layers(detector: Detector, scope: str) -> dict[str, Tensor]:
    """Trainable weights of convolutions and linear maps.

    Args:
        detector: whose weights.
        scope: `backbone`, or `detector`: all but the predictors.

    Returns:
        Parameters by name.
    """
    root = "backbone.backbone." if scope == "backbone" else ""
    excluded = {id(predictor) for predictor in detector.predictors()}
    return {
        name: module.weight
        for name, module in detector.named_modules()
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear))
        and name.startswith(root)
        and id(module) not in excluded
        and module.weight.requires_grad
    }


def calibrate_gradients(
    detector: Detector, batches: Sequence[Batch], spec: CalibrationSpec
) -> CalibrationReport:
    """Scale the weights of `detector` in place.

    The first pass always counts, as in Algorithm 1; later ones as long as they make the spread
    smaller.

    Args:
        detector: initialised, untrained; its mode and running statistics are as before on return,
            gradients are dropped.
        batches: on the detector's device; their gradients are averaged, so that together they need
            no more memory than one, and over the processes that train together.
        spec: definition, alpha, passes and scope.

    Raises:
        NonFiniteLoss: the loss or a gradient is not a number; the weights are as before.
    """
    layers = calibration_layers(detector, spec.scope)
    original = {name: weight.detach().clone() for name, weight in layers.items()}
    with undisturbed(detector):
        try:
            before = current = _measure(detector, layers, batches, spec.definition)
            factors = dict.fromkeys(before.log_c, 0.0)  # logarithms, since the start
            best, kept, passes = before, factors, 0
            bounded: set[str] = set()
            cut: set[str] = set()  # in the passes that are kept
            for number in range(1, spec.passes + 1):
                steps = {name: _log_step(name, current, spec.alpha) for name in factors}
                bounded = bounded | {name for name in steps if abs(steps[name]) > _LOG_BOUND}
                factors = {name: factors[name] + _bounded(steps[name]) for name in factors}
                _set_weights(layers, original, factors)
                current = _measure(detector, layers, batches, spec.definition)
                if passes and current.spread >= best.spread:
                    break
                best, kept, passes, cut = current, factors, number, bounded
        except NonFiniteLoss:
            _set_weights(layers, original, {})
            raise
    _set_weights(layers, original, kept)
    skipped = sorted(set(layers) - set(before.log_c))
    return _report(before, best, kept, passes, skipped=skipped, bounded=len(cut))


def _log_step(name: str, measured: _Measurement, alpha: float) -> float:
    """log r_k = alpha (log C_k - mean of log C); 0 for a layer that lost its gradient on the
    way.
    """
    return (
        alpha * (measured.log_c[name] - statistics.fmean(measured.log_c.values()))
        if name in measured.log_c
        else 0.0
    )


def _bounded(step: float) -> float:
    return min(max(step, -_LOG_BOUND), _LOG_BOUND)


@torch.no_grad()
def _set_weights(
    layers: dict[str, Tensor], original: dict[str, Tensor], factors: dict[str, float]
) -> None:
    for name, weight in layers.items():
        weight.copy_(original[name] * math.exp(factors.get(name, 0.0)))


def _measure(
    detector: Detector, layers: dict[str, Tensor], batches: Sequence[Batch], definition: str
) -> _Measurement:
    """One backward pass of the detector's loss; the same random draws (of proposals, say) every
    time.
    """
    detector.zero_grad(set_to_none=True)
    total = 0.0
    devices = (
        [layers_device]
        if (layers_device := next(iter(layers.values())).device).type == "cuda"
        else []
    )
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(0)
        for batch in batches:
            loss = torch.stack(list(detector(batch.images, batch.targets).values())).sum() / len(
                batches
            )
            loss.backward()
            total += loss.item()
    total = all_reduce_mean(torch.tensor(total)).item()
    log_c = {}
    for name, weight in layers.items():
        c = (
            0.0
            if weight.grad is None
            else all_reduce_mean(weight.grad).double().square().mean().item()
        )
        if definition == "relative":
            c /= weight.detach().double().square().mean().item()
        if not math.isfinite(c) or not math.isfinite(total):
            raise NonFiniteLoss(f"calibration: loss {total}, mean squared gradient {c} in {name}")
        if c > 0:
            log_c[name] = math.log(c)
    return _Measurement(log_c, total)


@contextmanager
def undisturbed(detector: nn.Module) -> Iterator[None]:
    """Training mode inside; mode and buffers as before outside, gradients dropped."""
    was_training = detector.training
    buffers = {name: buffer.clone() for name, buffer in detector.named_buffers()}
    detector.train()
    try:
        yield
    finally:
        detector.train(was_training)
        detector.zero_grad(set_to_none=True)
        with torch.no_grad():
            for name, buffer in detector.named_buffers():
                buffer.copy_(buffers[name])


def _group(name: str) -> str:
    for part, group in _GROUPS.items():
        if part in name:
            return group
    return "convolution" if name.startswith("backbone.backbone.") else "neck and head"


def _report(
    before: _Measurement,
    after: _Measurement,
    factors: dict[str, float],
    passes: int,
    *,
    skipped: list[str],
    bounded: int,
) -> CalibrationReport:
    return CalibrationReport(
        layers=len(before.log_c),
        skipped=tuple(skipped),
        passes=passes,
        spread_before=before.spread,
        spread_after=after.spread,
        ratio_before=math.exp(before.log_ratio),
        ratio_after=math.exp(after.log_ratio),
        loss_before=before.loss,
        loss_after=after.loss,
        factor_min=math.exp(min(factors.values())),
        factor_max=math.exp(max(factors.values())),
        bounded=bounded,
        group_means_before=before.group_means(),
        group_means_after=after.group_means(),
    )
