"""Activation checkpointing: what is not kept is computed once more in the backward pass (Chen et
al., 2016).

`full`: blocks of the backbone keep their input alone and run twice. `light`: norms, GELU and the
attention itself run twice, convolutions and linear maps do not: PyTorch ends the second run of a
piece when it has everything that was kept the first time, and what a piece here ends with, a
product, keeps only its input.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.models.resnet import Bottleneck

from nas.models.backbones.swin_stage import SwinBlock
from nas.models.batch_statistics import statistics_kept
from nas.models.detectors.dense_head import Tower

Context = Callable[[], AbstractContextManager[Any]]


def checkpoint_blocks(network: nn.Module, kept: str, again_in: Context = nullcontext) -> None:
    """Make a network keep fewer activations in training, in place; its weights, outputs and
    gradients stay what they are.

    Args:
        network: a detector, or a piece of one.
        kept: `none` changes nothing; `light` and `full` are described at the top of this module.
        again_in: makes a context that is entered around every second run.
    """
    for module in network.modules():
        if kept == "full" and isinstance(module, (Bottleneck, SwinBlock)):
            trained_as(module, "forward", partial(_again, module.forward, module, again_in))
        elif kept == "light" and isinstance(module, SwinBlock):
            trained_as(module, "forward", partial(_light_swin, module, again_in))
        elif kept == "light" and isinstance(module, Tower):
            trained_as(module, "forward", partial(_light_tower, module, again_in))


def trained_as(module: nn.Module, method: str, other: Callable[[Tensor], Tensor]) -> None:
    """Replace a method of a module where gradients are wanted; elsewhere it stays as it is.

    Args:
        module: changed in place.
        method: name of the method, from a tensor to a tensor.
        other: runs instead.
    """
    plain = getattr(module, method)
    setattr(module, method, lambda x: other(x) if torch.is_grad_enabled() else plain(x))


def _light_swin(block: SwinBlock, again_in: Context, x: Tensor) -> Tensor:
    def again(piece: Callable[[Tensor], Tensor], y: Tensor) -> Tensor:
        return _again(piece, block, again_in, y)

    attend = partial(block.attend, height=x.shape[1], width=x.shape[2])
    x = x + block.dropped(again(attend, again(block.queries, x)))
    hidden = again(lambda y: block.mlp[0](block.norm2(y)), x)
    return x + block.dropped(again(nn.Sequential(*list(block.mlp)[1:]), hidden))


def _light_tower(tower: Tower, again_in: Context, x: Tensor) -> Tensor:
    """Pieces from one convolution's output to the next one's."""
    first, *between, norm, relu = tower
    x = first(x)
    for start in range(0, len(between), 3):
        x = _again(nn.Sequential(*between[start : start + 3]), tower, again_in, x)
    activated: Tensor = relu(norm(x))
    return activated


def _again(
    piece: Callable[[Tensor], Tensor], owner: nn.Module, again_in: Context, x: Tensor
) -> Tensor:
    """Run a piece of `owner`, and once more in the backward pass."""

    @contextmanager
    def second() -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(again_in())
            stack.enter_context(statistics_kept(owner))
            yield

    return checkpoint(
        piece,
        x,
        use_reentrant=False,
        context_fn=lambda: (nullcontext(), second()),
        preserve_rng_state=any(getattr(m, "drop_path", 0) for m in owner.modules()),
    )
