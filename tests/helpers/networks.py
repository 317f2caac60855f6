"""Networks of known weights and what they compute, for tests that compare."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


def randomize(network: nn.Module, seed: int = 0) -> None:
    """Every parameter and running statistic away from its initial value, so that nothing is neutral
    by chance.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator)
            scale = tensor.shape[1:].numel() ** -0.5 if tensor.ndim > 1 else 0.1
            value = noise * scale + (1 if tensor.ndim == 1 and name.endswith("weight") else 0)
            positive = name.endswith(("running_var", "transform.std"))
            tensor.copy_(value.abs() + 0.5 if positive else value)


def outputs_of(network: nn.Module, parts: Iterable[nn.Module], images: Tensor) -> list[Tensor]:
    """What some parts of a network give when it runs."""
    outputs: list[Tensor] = []
    hooks = [
        part.register_forward_hook(lambda part, inputs, output: outputs.append(output))
        for part in parts
    ]
    network(images)
    for hook in hooks:
        hook.remove()
    return outputs
