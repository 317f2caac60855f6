"""One epoch: data, loss, finite check, backward, clip, step; in that order."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import nn

from nas.data.dataset import Batch
from nas.errors import NonFiniteLoss

OnStep = Callable[[int, int, float], None]  # step of the epoch from 1, steps of the epoch, loss


def train_epoch(
    detector: nn.Module,
    batches: Iterable[Batch],
    optimizer: torch.optim.Optimizer,
    *,
    lrs: Sequence[float],
    accumulate: int,
    clip_norm: float | None,
    precision: str,
    device: torch.device,
    on_step: OnStep | None = None,
    done: tuple[int, float] = (0, 0.0),
) -> float:
    """Train for one epoch, or for what is left of one.

    Args:
        detector: on `device`, with torchvision's contract.
        batches: `len(lrs) * accumulate` of them, the last group perhaps smaller.
        optimizer: of the detector's parameters.
        lrs: learning rate of every step of this epoch.
        accumulate: how many batches make one step; their gradients are averaged.
        clip_norm: limit of the gradient's norm over all parameters.
        precision: `bf16` runs the forward pass under autocast on CUDA; on the CPU it is fp32 as well.
        on_step: called after every update.
        done: updates of this epoch that a checkpoint holds, and the sum of their losses; `batches` begins after them.

    Returns:
        The mean loss.

    Raises:
        NonFiniteLoss: the loss or the gradient is not a number; the weights are those before this step.
    """
    detector.train()
    autocast = torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16" and device.type == "cuda")
    first, total = done
    rng = torch.get_rng_state()
    stream = iter(batches)
    if first:  # a loader draws a number when it starts, which this epoch has done before
        torch.set_rng_state(rng)
    for step, lr in enumerate(lrs[first:], start=first + 1):
        for param_group in optimizer.param_groups:
            param_group["lr"] = lr
        loss_of_step = 0.0
        for batch in itertools.islice(stream, accumulate):
            batch = batch.to(device)
            with autocast:
                losses = detector(batch.images, batch.targets)
            loss = torch.stack([value.float() for value in losses.values()]).sum() / accumulate
            loss_of_step += loss.item()
            if not math.isfinite(loss_of_step):
                parts = ", ".join(f"{name} {value.item():.4g}" for name, value in losses.items())
                raise NonFiniteLoss(f"the loss is not finite at step {step} of the epoch: {parts}")
            loss.backward()
        norm = nn.utils.clip_grad_norm_(detector.parameters(), clip_norm or math.inf)
        if not norm.isfinite():
            raise NonFiniteLoss(f"the gradient is not finite at step {step} of the epoch: norm {norm.item()}")
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        total += loss_of_step
        if on_step:
            on_step(step, len(lrs), loss_of_step)
    return total / len(lrs)
