"""Several processes that train one candidate together, each with its share of every batch
(PyTorch's DistributedDataParallel).

With `World()`, one process alone, every function here does nothing, so that there is one way to
train.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True)
class World:
    """Where a process is among those that train together: `rank` of `size`, 0 of 1 alone."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes files and computes metrics."""
        return self.rank == 0

    @classmethod
    def current(cls) -> World:
        """Find this process among those of PyTorch's default group; alone where there is none."""
        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    def agreed(self, mine: bool) -> bool:
        """Have all processes take what the first one says."""
        return bool(broadcast(self, mine))


def wrap_ddp(network: nn.Module, world: World) -> nn.Module:
    """Wrap a network so that its gradients are averaged over the processes; for one process alone
    it stays as it is.
    """
    if world.size == 1:
        return network
    device = next(network.parameters()).device
    devices = [device] if device.type == "cuda" else None
    # Gradients are views of what is sent: a copy of them would take as much as the parameters.
    return DistributedDataParallel(network, device_ids=devices, gradient_as_bucket_view=True)


def synchronised(network: Network, norm: str, device: torch.device, world: World) -> Network:
    """Convert the batch norms of a network to ones over the images of all processes, where `norm`
    is `syncbn`, there are several processes, and they have GPUs: PyTorch has none for the CPU.
    """
    if norm == "syncbn" and world.size > 1 and device.type == "cuda":
        network = nn.SyncBatchNorm.convert_sync_batchnorm(network)
    return network


def all_reduce_mean(tensor: Tensor, world: World | None = None) -> Tensor:
    """Average a tensor over the processes, in place; default: those of `World.current()`."""
    world = world or World.current()
    if world.size > 1:
        dist.all_reduce(tensor)
        tensor /= world.size
    return tensor


def broadcast(world: World, value: Any) -> Any:
    """Give every process the first one's value, anything that can be pickled."""
    if world.size == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def all_gather_object(world: World, value: Any) -> list[Any]:
    """Give every process the values of all, anything that can be pickled, in the order of their
    ranks.
    """
    if world.size == 1:
        return [value]
    values: list[Any] = [None] * world.size
    dist.all_gather_object(values, value)
    return values


@torch.no_grad()
def broadcast_buffers(network: nn.Module, world: World) -> None:
    """Give every process the first one's buffers: running statistics differ by the images that each
    has seen.
    """
    if world.size > 1:
        for buffer in network.buffers():
            dist.broadcast(buffer, src=0)
