"""A training step of ours beside the same step made of torchvision's and timm's parts: images a second and peak memory.

    python benchmarks/training.py --out benchmarks/results/training-cpu.json

Same weights, images, boxes, precision and optimizer; the loss of the first step is printed to show it. Steps of all networks
take turns, and the median counts. Peak memory: PyTorch's own counter on a GPU, on the CPU counted at dispatch level over a step
after the first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torchvision.models import SwinTransformer, resnet50
from torchvision.models.detection import FCOS, FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.feature_extraction import create_feature_extractor
from torchvision.ops import FeaturePyramidNetwork

from nas.detectors import NECKS, build_detector
from nas.detectors.faster_rcnn import ASPECT_RATIOS, STRIDES
from nas.detectors.inputs import BatchTransform
from nas.detectors.neck import feature_pyramid
from nas.memory.allocator import rounded_bytes
from nas.memory.measure import highest_bytes
from nas.memory.tape import Recorder
from nas.spec import DetectorSpec
from nas.training.checkpointing import checkpoint_blocks
from nas.training.weights import load_backbone_weights
from search_spaces.layout import Layout

CLASSES = 80
SWIN_T, RESNET_50 = "T2-T2-T6-T2", "C3-C4-C6-C3@256"
WARM_UP = 1  # steps


class Swin(nn.Module):
    """torchvision's Swin-T with a norm for each output."""

    def __init__(self) -> None:
        super().__init__()
        self.features = SwinTransformer([4, 4], 96, [2, 2, 6, 2], [3, 6, 12, 24], [7, 7], stochastic_depth_prob=0.0).features
        self.norms = nn.ModuleList(nn.LayerNorm(96 * 2**stage) for stage in range(4))

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for index, module in enumerate(self.features):
            x = module(x)
            if index % 2:
                maps.append(self.norms[index // 2](x).permute(0, 3, 1, 2))
        return maps


class TimmSwin(nn.Module):
    """timm's."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.net = timm.create_model("swin_tiny_patch4_window7_224", features_only=True, img_size=size, drop_path_rate=0.0)
        self.norms = nn.ModuleList(nn.LayerNorm(96 * 2**stage) for stage in range(4))

    def forward(self, x: Tensor) -> list[Tensor]:
        return [norm(y).permute(0, 3, 1, 2) for norm, y in zip(self.norms, self.net(x), strict=True)]


class ResNet(nn.Module):
    """torchvision's ResNet-50."""

    def __init__(self) -> None:
        super().__init__()
        self.body = create_feature_extractor(resnet50(), ["layer1", "layer2", "layer3", "layer4"])

    def forward(self, x: Tensor) -> list[Tensor]:
        return list(self.body(x).values())


class Pyramid(nn.Module):
    """What torchvision's detectors take as backbone."""

    def __init__(self, body: nn.Module, widths: list[int], detector: str) -> None:
        super().__init__()
        self.body, self.first, self.out_channels = body, NECKS[detector]["first"], 256
        self.fpn: FeaturePyramidNetwork = feature_pyramid(widths[self.first :], 256, NECKS[detector]["extra"])

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        return self.fpn(OrderedDict((str(level), y) for level, y in enumerate(self.body(x)[self.first :])))


def theirs(body: nn.Module, detector: str, widths: list[int]) -> nn.Module:
    """torchvision's detector as it comes; images are given in their size, so that its own resize is left out."""
    backbone = Pyramid(body, widths, detector)
    if detector == "fcos":
        anchors = AnchorGenerator(((8,), (16,), (32,), (64,), (128,)), ((1.0,),) * 5)
        network: Any = FCOS(backbone, CLASSES, anchor_generator=anchors)
    else:
        anchors = AnchorGenerator(tuple((8 * stride,) for stride in STRIDES), (ASPECT_RATIOS,) * len(STRIDES))
        network = FasterRCNN(backbone, CLASSES + 1, rpn_anchor_generator=anchors)
    network.transform = BatchTransform()
    return network


def share_weights(network: nn.Module, ours: nn.Module, folder: Path) -> None:
    """Give ours the other network's backbone (by a file, as users would), and of its pyramid and head the tensors that fit."""
    path = folder / "body.pt"
    body = network.backbone.body  # type: ignore[union-attr]
    torch.save({name.removeprefix("body."): tensor for name, tensor in body.state_dict().items()}, path)
    load_backbone_weights(ours.backbone.backbone, path)  # type: ignore[union-attr]
    state, mine = network.state_dict(), ours.state_dict()
    same = {name: tensor for name, tensor in state.items() if name in mine and mine[name].shape == tensor.shape}
    ours.load_state_dict(same, strict=False)


def step_of(network: nn.Module, images: list[Tensor], targets: list[dict[str, Tensor]], *, fused: bool, bf16: bool) -> Any:
    """One training step as a function."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-5, **({"fused": True} if fused else {}))
    device = images[0].device.type
    network.train()

    def step() -> Tensor:
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            loss = sum(value.float() for value in network(images, targets).values())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    return step


def peak_bytes(network: nn.Module, step: Callable[[], Tensor], images: list[Tensor]) -> int:
    """Of one step after the first."""
    if images[0].is_cuda:
        torch.cuda.reset_peak_memory_stats()
        step()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()
    recorder = Recorder()
    there = [*network.parameters(), *network.buffers(), *images]
    for tensor in there:
        recorder.know(tensor)
    live_bytes = sum(rounded_bytes(tensor.nbytes) for tensor in there)
    states_bytes = sum(2 * rounded_bytes(parameter.nbytes) for parameter in network.parameters() if parameter.requires_grad)
    with recorder:
        step()
    return highest_bytes(recorder, live_bytes + states_bytes)


def networks(detector: str, backbone: str, size: tuple[int, int]) -> dict[str, Callable[[], nn.Module]]:
    """By name, each made when its turn comes."""
    layout = Layout.parse(SWIN_T if backbone == "swin" else RESNET_50)
    spec = DetectorSpec(name=detector)

    def ours(kept: str) -> nn.Module:
        network = build_detector(layout, spec, CLASSES)
        checkpoint_blocks(network, kept)
        return network

    widths = list(layout.widths)
    made: dict[str, Callable[[], nn.Module]] = {
        "ours": lambda: ours("none"),
        "ours, light": lambda: ours("light"),
        "ours, full": lambda: ours("full"),
    }
    if backbone == "swin":
        made["torchvision"] = lambda: theirs(Swin(), detector, widths)
        made["timm"] = lambda: theirs(TimmSwin(size), detector, widths)
    else:
        made["torchvision"] = lambda: theirs(ResNet(), detector, widths)
    return made
