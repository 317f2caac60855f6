"""One epoch: data, loss, backward, clip, finite check, step; in that order, and without waiting for
a GPU.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from nas.errors import NonFiniteLoss
from nas.utils.distributed import all_reduce_mean

OnStep = Callable[
    [int, int, Tensor | float], None
]  # step of the epoch from 1, steps of the epoch, loss (on the device)
CHECK_S = 1.0  # to read a value from a GPU waits for all of its work


class TrainingBatch(Protocol):
    """A batch of images and targets, with which its network is called."""

    @property
    def images(self) -> Any: ...

    @property
    def targets(self) -> Any: ...

    def to(self, device: torch.device) -> Self:
        """Move the batch to a device, in the form that its network wants."""


Batches = Iterable[TrainingBatch]


class LearningRates(Protocol):
    """A learning rate for each step of an epoch: a list, or what follows the clock."""

    def __len__(self) -> int: ...

    def __getitem__(self, step: int, /) -> float: ...


def never() -> bool:
    """Say that an epoch goes on to its last batch."""
    return False


def train_epoch(
    network: nn.Module,
    batches: Batches,
    optimizer: torch.optim.Optimizer,
    *,
    lrs: LearningRates,
    accumulate: int,
    clip_norm: float | None,
    precision: str,
    device: torch.device,
    on_step: OnStep | None = None,
    done: tuple[int, float] = (0, 0.0),
    check_s: float | None = None,
    is_over: Callable[[], bool] = never,
) -> float:
    """Train for one epoch, or for what is left of one.

    Args:
        network: on `device`; `network(images, targets)` gives a dict of losses, as torchvision's
            detectors do. Perhaps one of several processes' (`wrap_ddp`).
        batches: `len(lrs) * accumulate` of them, the last group perhaps smaller.
        optimizer: of the network's parameters, a fused one.
        lrs: learning rate of every step of this epoch; each is asked for when its step begins, and
            their number before every step.
        accumulate: how many batches make one step, whose gradient is that of all of them as one;
            the last step of an epoch may have fewer, and is averaged over those.
        clip_norm: limit of the gradient's norm over all parameters.
        precision: `bf16` runs the forward pass under autocast on CUDA; on the CPU it is fp32 as
            well.
        on_step: called after every update.
        done: updates of this epoch that a checkpoint holds, and the sum of their losses; `batches`
            begins after them.
        check_s: seconds between looks at what is not finite; every step on the CPU, `CHECK_S` on a
            GPU.
        is_over: asked after every update whether the epoch ends with it.

    Returns:
        The mean loss, over all processes and batches.

    Raises:
        NonFiniteLoss: a loss or a gradient was not a number; the weights are those before that
            step.
    """
    network.train()
    first, total = done[0], torch.tensor(done[1], dtype=torch.float64, device=device)
    if check_s is None:
        check_s = CHECK_S if device.type == "cuda" else 0.0
    guard, step, share = NonFiniteGuard(device, check_s), first, 1.0
    stream = _stream(batches, resumed=first > 0)
    while step < len(lrs):
        for param_group in optimizer.param_groups:
            param_group["lr"] = lrs[step]
        step += 1
        parts, share = _backward(network, stream, accumulate, precision, device)
        loss = all_reduce_mean(torch.stack(list(parts.values())).sum())
        norm = nn.utils.clip_grad_norm_(network.parameters(), clip_norm or math.inf)
        optimizer.found_inf = guard.see(step, parts, loss, norm)  # type: ignore[attr-defined]
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        total += loss * share
        if on_step:
            on_step(step, len(lrs), loss)
        if is_over():
            break
    guard.check()
    return total.item() / (step - 1 + share)


def _stream(batches: Batches, *, resumed: bool) -> Iterator[TrainingBatch]:
    """The batches, begun without drawing a random number if this epoch has begun before: a loader
    draws one when it starts.
    """
    rng = torch.get_rng_state()
    stream = iter(batches)
    if resumed:
        torch.set_rng_state(rng)
    return stream


def _backward(
    network: nn.Module,
    stream: Iterator[TrainingBatch],
    accumulate: int,
    precision: str,
    device: torch.device,
) -> tuple[dict[str, Tensor], float]:
    """Add up the gradients of one step, of its `accumulate` batches or of those that are left.

    Returns:
        Each loss by its name, the mean over the batches, and the share of `accumulate` batches that
        there were.
    """
    autocast = torch.autocast(
        device.type, torch.bfloat16, enabled=precision == "bf16" and device.type == "cuda"
    )
    group = list(itertools.islice(stream, accumulate))
    with autocast:
        divisors = _divisors(network, group, device)
    parts: dict[str, Tensor] = {}
    for number, batch in enumerate(group, start=1):
        batch = batch.to(device)
        with autocast, _no_exchange(network, number < len(group)):
            losses = network(batch.images, batch.targets, *divisors)
            loss = torch.stack([value.float() for value in losses.values()]).sum() / len(group)
            loss.backward()
        for name, value in losses.items():
            parts[name] = parts.get(name, 0.0) + value.detach().float() / len(group)
    return parts, len(group) / accumulate


def _divisors(
    network: nn.Module, group: Sequence[TrainingBatch], device: torch.device
) -> tuple[dict[str, Tensor], ...]:
    """What a detector divides the losses of each of several pieces by, as its last argument; for
    one piece it finds that itself, and a classifier's loss is a mean over equal pieces.
    """
    alone: Any = getattr(network, "module", network)
    if len(group) < 2 or not hasattr(alone, "loss_counts"):
        return ()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):  # drop path draws the same again afterwards
        pieces = (batch.to(device) for batch in group)  # one at a time in memory
        counts = [alone.loss_counts(piece.images, piece.targets) for piece in pieces]
    return (alone.divisors(counts),)


def _no_exchange(network: nn.Module, more_follow: bool) -> AbstractContextManager[None]:
    """Processes exchange gradients once a step, not after each of its batches."""
    return (
        network.no_sync()
        if more_follow and isinstance(network, DistributedDataParallel)
        else nullcontext()
    )


class NonFiniteGuard:
    """Watches for losses and gradients that are not finite, without waiting for a GPU: from the
    first one on, updates are void on the device, and the host looks now and then.

    Args:
        device: of the losses.
        check_s: seconds between looks.
    """

    def __init__(self, device: torch.device, check_s: float) -> None:
        self.bad_step, self.check_s, self.checked_s = (
            torch.zeros((), device=device),
            check_s,
            time.perf_counter(),
        )
        self.values: Tensor | None = None
        self.names: list[str] = []

    def see(self, step: int, parts: dict[str, Tensor], loss: Tensor, norm: Tensor) -> Tensor:
        """Look at a step, on the device.

        Args:
            step: its number, from 1.
            parts: its losses by name.
            loss: their sum.
            norm: of the gradient.

        Returns:
            1.0 where this update, or one before, must not count; fused optimizers know it as
            `found_inf`.
        """
        values = torch.stack([*parts.values(), loss, norm])
        bad = ~values.isfinite().all() & (self.bad_step == 0)
        self.names, before = list(parts), values if self.values is None else self.values
        self.values = torch.where(bad, values, before)
        self.bad_step = torch.where(bad, step, self.bad_step)
        if time.perf_counter() - self.checked_s >= self.check_s:
            self.check()
        return (self.bad_step > 0).float()

    def check(self) -> None:
        """Wait for the device and look.

        Raises:
            NonFiniteLoss: a loss or a gradient was not finite.
        """
        self.checked_s, step = time.perf_counter(), int(self.bad_step)
        if not step or self.values is None:
            return
        *values, loss, norm = self.values.tolist()
        parts = ", ".join(
            f"{name} {value:.4g}" for name, value in zip(self.names, values, strict=True)
        )
        if math.isfinite(loss):
            raise NonFiniteLoss(
                f"the gradient is not finite at step {step} of the epoch: norm {norm}"
            )
        raise NonFiniteLoss(f"the loss is not finite at step {step} of the epoch: {parts}")
