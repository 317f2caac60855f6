"""Maps with channels last: where they are, and that nothing else changes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nas.config.sections import DetectorSpec
from nas.models.backbones import build_backbone
from nas.models.classifier import Classifier
from nas.models.detectors import build_detector
from nas.models.memory_format import channels_last_
from search_spaces.layout import Layout

C_FIRST = "C2-C1-T2-C1@16"
LAYOUTS = [C_FIRST, "T1-C1-C1-T1@16", "C1-C1-T1-C1@16+dense=true+stem=dsod"]
TARGET = {"boxes": torch.tensor([[10.0, 12.0, 60.0, 50.0]]), "labels": torch.tensor([2])}


def detector(text: str) -> Any:
    torch.manual_seed(0)
    network = build_detector(
        Layout.parse(text), DetectorSpec(name="fcos", channels=32, hidden=32), 3
    ).train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            # over the few positions of a small map they would amplify the order of sums
            module.eval()
    return network


@pytest.mark.parametrize("text", LAYOUTS)
def test_losses_gradients_and_weights_stay(text: str):
    # In double precision: in single, what rounding makes of another order of sums differs by CPU.
    plain, changed = detector(text).double(), detector(text).double()
    channels_last_(changed)
    images, losses = [torch.rand(3, h, w).double() for h, w in ((90, 120), (64, 160))], []
    for network in (plain, changed):
        losses.append(network(images, [TARGET, TARGET]))
        sum(losses[-1].values()).backward()
    torch.testing.assert_close(losses[1], losses[0])
    largest = max(
        parameter.grad.abs().max() for parameter in plain.parameters() if parameter.grad is not None
    )
    for one, other in zip(changed.parameters(), plain.parameters(), strict=True):
        assert one.is_contiguous()
        if other.grad is not None:
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-8, atol=1e-10 * float(largest))


def test_stages_of_detectors_and_classifiers_have_them():
    classifier = Classifier(build_backbone(Layout.parse(C_FIRST)), 3).eval()
    for network, given in (
        (detector(C_FIRST), ([torch.rand(3, 64, 96)] * 2, [TARGET] * 2)),
        (classifier, (torch.rand(2, 3, 64, 96),)),
    ):
        for after in (False, True):
            if after:
                channels_last_(network)
            assert stages_with_channels_last(network, *given) == [
                after,
                after,
                True,
                True,
            ]  # behind T all have them


def stages_with_channels_last(network: nn.Module, *given: Any) -> list[bool]:
    seen: list[bool] = []

    def look(module: nn.Module, inputs: Any, output: Tensor) -> None:
        seen.append(output.is_contiguous(memory_format=torch.channels_last))

    body: Any = network.backbone
    hooks = [stage.register_forward_hook(look) for stage in getattr(body, "backbone", body).stages]
    network(*given)
    for hook in hooks:
        hook.remove()
    return seen
