"""A moving average of a network's weights beside the weights themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """Exponential moving average of the parameters and floating-point buffers of a network.

    Update t keeps min(decay, (t - 1) / (t + 8)) of the average: it begins with the weights after
    the first step and forgets the early ones soon.

    Args:
        network: whose weights are averaged.
        decay: 0 to 1, share of the average that each update keeps.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network, self.decay, self.updates = network, decay, 0
        self.values = {name: tensor.detach().clone() for name, tensor in self._tensors().items()}

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are after a step."""
        self.updates += 1
        decay = min(self.decay, (self.updates - 1) / (self.updates + 8))
        current = [tensor.detach() for tensor in self._tensors().values()]
        get_ema_multi_avg_fn(decay)(list(self.values.values()), current, self.updates)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Let the network have the averaged weights inside the block, and its own after it."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def state_dict(self) -> dict[str, Tensor]:
        """The average and the number of updates, for a checkpoint."""
        return {**self.values, _UPDATES: torch.tensor(self.updates)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Restore what `state_dict` gave, in place."""
        self.updates = int(state[_UPDATES])
        for name, value in self.values.items():
            value.copy_(state[name])

    def _tensors(self) -> dict[str, Tensor]:
        """Parameters and buffers by name; counters are no weights."""
        both = [*self.network.named_parameters(), *self.network.named_buffers()]
        return {name: tensor for name, tensor in both if tensor.is_floating_point()}

    def _exchange(self) -> None:
        """Exchange storages, which takes no memory."""
        for name, tensor in self._tensors().items():
            tensor.data, self.values[name] = self.values[name], tensor.data


_UPDATES = "updates"  # among the names of weights, which have a dot
