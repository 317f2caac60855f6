"""A batch has one gradient, in however many pieces and on however many processes it is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.gradients import IMAGES, SPECS, exactly, gradient, work
from torch import Tensor

from nas.config.sections import DetectorSpec
from nas.training.loop import train_epoch


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_pieces_give_the_gradient_of_the_whole(spec: DetectorSpec):
    with exactly():
        whole, loss = gradient(spec, IMAGES)
        assert whole.norm() > 0.1
        for size in (8, 4, 2):
            found, its_loss = gradient(spec, size)
            assert (found - whole).norm() < 1e-5 * whole.norm(), size
            assert its_loss == pytest.approx(loss, rel=1e-5)


def test_two_processes_give_the_gradient_of_one(tmp_path: Path):
    torch.multiprocessing.start_processes(work, (str(tmp_path),), nprocs=2, start_method="spawn")
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for spec in SPECS:
        with exactly():
            whole, loss = gradient(spec, IMAGES)
        for found, its_loss in (first[spec.name], second[spec.name]):
            assert (found - whole).norm() < 1e-5 * whole.norm(), spec.name
            assert its_loss == pytest.approx(loss, rel=1e-5)


def test_the_last_smaller_group_is_averaged_over_its_own_size():
    class Constant(torch.nn.Module):
        """Its loss is its weight."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(()))

        def forward(self, images: Any, targets: Any) -> dict[str, Tensor]:
            return {"loss": self.weight * images}

    class One:
        images, targets = 1.0, None

        def to(self, device: torch.device) -> One:
            return self

    network = Constant()
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0, momentum=0.9, fused=True)
    told: list[float] = []
    loss = train_epoch(
        network,
        [One() for _ in range(5)],
        optimizer,
        lrs=[1e-12, 1e-12],
        accumulate=4,
        clip_norm=None,
        precision="fp32",
        device=torch.device("cpu"),
        on_step=lambda step, of, loss: told.append(float(loss)),
    )
    assert told == pytest.approx([1.0, 1.0])
    assert loss == pytest.approx(1.0)
