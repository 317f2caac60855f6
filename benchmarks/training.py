"""A training step of ours beside the same step made of torchvision's and timm's parts: images a
second and peak memory.

    python benchmarks/training.py --out benchmarks/results/training-cpu.json

Same weights, images, boxes, precision and optimizer; the loss of the first step is printed to show
it. Steps of all networks take turns, and the median counts. Peak memory: PyTorch's own counter on a
GPU, on the CPU counted at dispatch level over a step after the first.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import timm
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models import SwinTransformer, resnet50
from torchvision.models.detection import FCOS, FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.feature_extraction import create_feature_extractor

from nas.config.sections import DetectorSpec
from nas.models.activation_checkpointing import checkpoint_blocks
from nas.models.compile import compile_blocks
from nas.models.detectors import DETECTORS, build_detector
from nas.models.detectors.faster_rcnn import ASPECT_RATIOS, STRIDES
from nas.models.detectors.transform import BatchTransform
from nas.models.memory_format import channels_last_
from nas.models.necks.pyramid import make_neck
from nas.models.weights import load_backbone_weights
from nas.profiling.memory.allocator import rounded_bytes
from nas.profiling.memory.measurement import highest_bytes, random_target
from nas.profiling.memory.recorder import Recorder
from nas.training.gpu_memory import free_memory
from nas.utils.device import default_device, tf32
from nas.utils.formatting import gib
from search_spaces.layout import Layout

CLASSES = 80
SWIN_T, RESNET_50 = "T2-T2-T6-T2", "C3-C4-C6-C3@256"


class Swin(nn.Module):
    """torchvision's Swin-T with a norm for each output."""

    def __init__(self) -> None:
        super().__init__()
        self.features = SwinTransformer(
            [4, 4], 96, [2, 2, 6, 2], [3, 6, 12, 24], [7, 7], stochastic_depth_prob=0.0
        ).features
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
        self.net = timm.create_model(
            "swin_tiny_patch4_window7_224", features_only=True, img_size=size, drop_path_rate=0.0
        )
        self.norms = nn.ModuleList(nn.LayerNorm(96 * 2**stage) for stage in range(4))

    def forward(self, x: Tensor) -> list[Tensor]:
        return [
            norm(y).permute(0, 3, 1, 2) for norm, y in zip(self.norms, self.net(x), strict=True)
        ]


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
        self.body, self.first, self.out_channels = body, DETECTORS[detector].neck["first"], 256
        self.fpn = make_neck("fpn", widths[self.first :], 256, DETECTORS[detector].neck["extra"])

    def forward(self, x: Tensor) -> OrderedDict[str, Tensor]:
        return self.fpn(
            OrderedDict((str(level), y) for level, y in enumerate(self.body(x)[self.first :]))
        )


def theirs(body: nn.Module, detector: str, widths: list[int]) -> nn.Module:
    """torchvision's detector as it comes; images are given in their size, so that its own resize is
    left out.
    """
    backbone = Pyramid(body, widths, detector)
    if detector == "fcos":
        anchors = AnchorGenerator(((8,), (16,), (32,), (64,), (128,)), ((1.0,),) * 5)
        network: Any = FCOS(backbone, CLASSES, anchor_generator=anchors)
    else:
        anchors = AnchorGenerator(
            tuple((8 * stride,) for stride in STRIDES), (ASPECT_RATIOS,) * len(STRIDES)
        )
        network = FasterRCNN(backbone, CLASSES + 1, rpn_anchor_generator=anchors)
    network.transform = BatchTransform()
    return network


def share_weights(network: nn.Module, ours: nn.Module, folder: Path) -> None:
    """Give ours the other network's backbone (by a file, as users would), and of its pyramid and
    head the tensors that fit.
    """
    path = folder / "body.pt"
    body = network.backbone.body  # type: ignore[union-attr]
    torch.save(
        {name.removeprefix("body."): tensor for name, tensor in body.state_dict().items()}, path
    )
    load_backbone_weights(ours.backbone.backbone, path)  # type: ignore[union-attr]
    state, mine = network.state_dict(), ours.state_dict()
    same = {
        name: tensor
        for name, tensor in state.items()
        if name in mine and mine[name].shape == tensor.shape
    }
    ours.load_state_dict(same, strict=False)


def step_of(
    network: nn.Module,
    images: list[Tensor],
    targets: list[dict[str, Tensor]],
    *,
    fused: bool,
    bf16: bool,
) -> Any:
    """One training step as a function."""
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=1e-5, **({"fused": True} if fused else {})
    )
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
        recorder.register(tensor)
    live_bytes = sum(rounded_bytes(tensor.nbytes) for tensor in there)
    states_bytes = sum(
        2 * rounded_bytes(parameter.nbytes)
        for parameter in network.parameters()
        if parameter.requires_grad
    )
    with recorder:
        step()
    return highest_bytes(recorder, live_bytes + states_bytes)


def networks(
    detector: str, backbone: str, size: tuple[int, int]
) -> dict[str, Callable[[], nn.Module]]:
    """By name, each made when its turn comes."""
    layout = Layout.parse(SWIN_T if backbone == "swin" else RESNET_50)
    spec = DetectorSpec(name=detector)

    def ours(kept: str, *, compiled: bool = False, channels_last: bool = False) -> nn.Module:
        network = build_detector(layout, spec, CLASSES)
        checkpoint_blocks(network, kept)
        if compiled:
            compile_blocks(network)
        if channels_last:
            channels_last_(network)
        return network

    widths = list(layout.widths)
    made: dict[str, Callable[[], nn.Module]] = {
        "ours": lambda: ours("none"),
        "ours, light": lambda: ours("light"),
        "ours, full": lambda: ours("full"),
    }
    if torch.cuda.is_available():  # what compiled code holds on the CPU cannot be counted
        made["ours, compiled"] = lambda: ours("none", compiled=True)
        made["ours, channels last"] = lambda: ours("none", channels_last=True)
    if backbone == "swin":
        made["torchvision"] = lambda: theirs(Swin(), detector, widths)
        made["timm"] = lambda: theirs(TimmSwin(size), detector, widths)
    else:
        made["torchvision"] = lambda: theirs(ResNet(), detector, widths)
    return made


def compare(
    detector: str, backbone: str, shape: tuple[int, int, int], steps: int, *, precision: str
) -> list[dict[str, Any]]:
    """All networks of one detector and one kind of backbone, in turns.

    Args:
        detector: `fcos` or `faster_rcnn`.
        backbone: `swin` or `resnet`.
        shape: images, height and width of the batch.
        steps: of each that are timed.
        precision: `fp32`, `tf32` or `bf16`.
    """
    device = torch.device(default_device())
    with tf32(precision == "tf32", device):
        return _compare(detector, backbone, shape, steps, precision, device)


def _compare(
    detector: str,
    backbone: str,
    shape: tuple[int, int, int],
    steps: int,
    precision: str,
    device: torch.device,
) -> list[dict[str, Any]]:
    bf16 = precision == "bf16"
    count, *size = shape
    torch.manual_seed(0)
    images = [torch.rand(3, *size, device=device) for _ in range(count)]
    targets = [
        {k: v.to(device) for k, v in random_target(10, CLASSES, *size).items()}
        for _ in range(count)
    ]
    made = networks(detector, backbone, (size[0], size[1]))
    reference = made["torchvision"]()
    rows, times, losses, peaks = [], {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:
        share_to = Path(folder)
        stepping = {}
        for name, make in made.items():
            network = reference if name == "torchvision" else make()
            if name.startswith("ours"):
                share_weights(reference, network, share_to)
            network.to(device)
            from_0 = detector == "fcos" and not name.startswith(
                "ours"
            )  # torchvision's has no background
            own = [{**target, "labels": target["labels"] - int(from_0)} for target in targets]
            step = step_of(network, images, own, fused=name.startswith("ours"), bf16=bf16)
            torch.manual_seed(1)  # of the proposals that are sampled
            losses[name] = float(step())
            peaks[name] = peak_bytes(network, step, images)
            stepping[name] = step
        times = {name: [] for name in stepping}
        for _ in range(steps):
            for name, step in stepping.items():
                free_memory()
                started = time.perf_counter()
                step()
                if device.type == "cuda":
                    torch.cuda.synchronize()
                times[name].append(time.perf_counter() - started)
    for name in stepping:
        speed = count / statistics.median(times[name])
        rows.append(
            {
                "detector": detector,
                "backbone": backbone,
                "network": name,
                "shape": [count, 3, *size],
                "precision": precision,
                "first_loss": round(losses[name], 5),
                "images_per_s": round(speed, 3),
                "peak_gib": gib(peaks[name]),
            }
        )
    base = next(row for row in rows if row["network"] == "torchvision")
    for row in rows:
        row["speed_ratio"] = round(row["images_per_s"] / base["images_per_s"], 3)
        row["memory_ratio"] = round(row["peak_gib"] / base["peak_gib"], 3)
    return rows


def line(row: dict[str, Any]) -> str:
    """A row for people."""
    return (
        f"{row['detector']:12} {row['backbone']:7} {row['precision']} {row['network']:20} loss "
        f"{row['first_loss']:8.4f} {row['images_per_s']:7.3f} images/s ({row['speed_ratio']:.2f}) "
        f"{row['peak_gib']:7.3f} GiB ({row['memory_ratio']:.2f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    gpu = torch.cuda.is_available()
    parser.add_argument("--images", type=int, default=4 if gpu else 2)
    parser.add_argument(
        "--size",
        type=int,
        nargs=2,
        default=(800, 1344) if gpu else (480, 800),
        metavar=("HEIGHT", "WIDTH"),
    )
    parser.add_argument("--steps", type=int, default=20 if gpu else 7)
    parser.add_argument("--detectors", nargs="+", default=["fcos", "faster_rcnn"])
    parser.add_argument("--backbones", nargs="+", default=["swin", "resnet"])
    parser.add_argument("--out", type=Path, help="write the results here, as JSON")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for precision in ("fp32", "tf32", "bf16") if gpu else ("fp32",):
        for detector in arguments.detectors:
            for backbone in arguments.backbones:
                for row in compare(
                    detector,
                    backbone,
                    (arguments.images, *arguments.size),
                    arguments.steps,
                    precision=precision,
                ):
                    rows.append(row)
                    print(line(row), flush=True)
    if arguments.out:
        content = {
            "command": " ".join(["python", *sys.argv]),
            "device": torch.cuda.get_device_name() if gpu else "cpu",
            "machine": f"{platform.machine()}, {os.cpu_count()} cores",
            "threads": torch.get_num_threads(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "timm": timm.__version__,
            "rows": rows,
        }
        arguments.out.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
