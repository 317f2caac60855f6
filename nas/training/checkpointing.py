"""Activation checkpointing: blocks keep their input alone and run once more in the backward pass (Chen et al., 2016)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from torchvision.models.resnet import Bottleneck

from nas.backbone import HybridBackbone
from nas.backbone.attention_stage import SwinBlock


def checkpoint_blocks(backbone: HybridBackbone) -> None:
    """Make every block of a backbone checkpointed, in place; its weights, outputs and gradients stay what they are."""
    for module in backbone.modules():
        if isinstance(module, (Bottleneck, SwinBlock)):
            checkpoint_block(module)


def checkpoint_block(block: nn.Module, again_in: Callable[[], AbstractContextManager[Any]] = nullcontext) -> None:
    """Make one module of one tensor checkpointed, in place. `again_in` is entered around the second run."""
    plain = block.forward

    @contextmanager
    def again() -> Iterator[None]:
        with ExitStack() as stack:
            stack.enter_context(again_in())
            stack.enter_context(_statistics_kept(block))
            yield

    def forward(x: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return plain(x)
        return checkpoint(
            plain, x, use_reentrant=False, context_fn=lambda: (nullcontext(), again()),
            preserve_rng_state=False,  # blocks draw no numbers
        )  # fmt: skip

    block.forward = forward


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """The second run must not move the running statistics of batch norms a second time."""
    norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count
