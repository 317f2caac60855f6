"""The gradient of one batch, in pieces and on several processes, exactly and without chance."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler

from nas.config.sections import DetectorSpec
from nas.data.dataset import Batch
from nas.models.detectors import DETECTORS, build_detector
from nas.training.loop import train_epoch
from nas.utils.distributed import World, wrap_ddp
from search_spaces.layout import Layout

LAYOUT = Layout.parse("C1-C1-T1-T1@16+norm=gn")
SPECS = [
    DetectorSpec(name=name, channels=32, hidden=32, regions=16, proposals=10) for name in DETECTORS
]
IMAGES, SIZE = 16, 64
SINGLE, ALONE = torch.float32, World()


def scenes() -> Batch:
    """Images with 0 to 7 objects: what a piece would divide by differs much."""
    generator = torch.Generator().manual_seed(5)
    images, targets = [], []
    for number in range(IMAGES):
        count = number % 8
        corner = torch.rand(count, 2, generator=generator) * 36
        side = torch.rand(count, 2, generator=generator) * 20 + 6
        masks = torch.zeros(count, SIZE, SIZE, dtype=torch.uint8)
        boxes = torch.cat([corner, corner + side], dim=1)
        for mask, (x1, y1, x2, y2) in zip(masks, boxes.int().tolist(), strict=True):
            mask[y1:y2, x1:x2] = 1
        labels = torch.randint(1, 4, (count,), generator=generator)
        images.append(torch.rand(3, SIZE, SIZE, generator=generator))
        targets.append({"boxes": boxes, "labels": labels, "masks": masks})
    return Batch(images, targets)


def the_first(sampler: Any, labels: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """In place of a random sample: the first positives and negatives."""
    most = int(sampler.batch_size_per_image * sampler.positive_fraction)
    positives, negatives = [], []
    for each in labels:
        hit, miss = torch.where(each >= 1)[0][:most], torch.where(each == 0)[0]
        miss = miss[: sampler.batch_size_per_image - len(hit)]
        for kept, index in ((positives, hit), (negatives, miss)):
            kept.append(torch.zeros_like(each, dtype=torch.uint8).scatter(0, index, 1))
    return positives, negatives


def unsettle(detector: torch.nn.Module) -> None:
    """Move outputs away from where a rounding error decides: points on whole cells, proposals that
    are all alike.
    """
    with torch.no_grad():
        for predictor in detector.predictors():
            predictor.bias.add_(torch.empty_like(predictor.bias).uniform_(-0.3, 0.3))
        if hasattr(getattr(detector, "head", None), "proposal_boxes"):
            detector.head.proposal_boxes[:, :2].uniform_(0.3, 0.7)
            detector.head.proposal_boxes[:, 2:].uniform_(0.2, 0.5)


def freeze(module: torch.nn.Module) -> None:
    """Keep a module in evaluation mode, whatever mode its network has."""
    module.eval()
    module.train = lambda mode=True: module  # type: ignore[method-assign]


class Remembering(torch.optim.Optimizer):
    """Keeps the gradients of a step and moves nothing."""

    gradients: list[Tensor]

    def step(self, closure: Any = None) -> None:
        parameters = self.param_groups[0]["params"]
        self.gradients = [p.grad.flatten().clone() for p in parameters if p.requires_grad]


def gradient(spec: DetectorSpec, size: int, world: World = ALONE) -> tuple[Tensor, float]:
    """Of one step over the batch in pieces of a size, before any clipping, and the loss; of several
    processes each has every so-manieth image.
    """
    torch.manual_seed(0)
    detector, batch = build_detector(LAYOUT, spec, 3), scenes()
    unsettle(detector)
    for module in detector.modules():
        if isinstance(module, torch.nn.BatchNorm2d):  # of Cascade: statistics of pieces
            freeze(module)
    own = slice(world.rank, None, world.size)
    batch = Batch(batch.images[own], batch.targets[own])
    pieces = [
        Batch(batch.images[start : start + size], batch.targets[start : start + size])
        for start in range(0, len(batch.images), size)
    ]
    optimizer = Remembering(detector.parameters(), {"lr": 0.0})
    loss = train_epoch(
        wrap_ddp(detector, world),
        pieces,
        optimizer,
        lrs=[1e-9],
        accumulate=len(pieces),
        clip_norm=None,
        precision="fp32",
        device=torch.device("cpu"),
    )
    return torch.cat(optimizer.gradients), loss


@contextmanager
def exactly() -> Iterator[None]:
    """In double precision and without chance, so that no rounding error decides what is matched
    with what.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BalancedPositiveNegativeSampler, "__call__", the_first)
        patch.setattr(torch.Tensor, "float", torch.Tensor.double)
        patch.setattr(torch, "float32", torch.float64)
        torch.set_default_dtype(torch.float64)
        yield
        torch.set_default_dtype(SINGLE)


def work(rank: int, folder: str) -> None:
    """One of two processes: the gradients of all detectors."""
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    with exactly():
        found = {spec.name: gradient(spec, 4, World(rank, 2)) for spec in SPECS}
    torch.save(found, Path(folder) / f"{rank}.pt")
    dist.destroy_process_group()
