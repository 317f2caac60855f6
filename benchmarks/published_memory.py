"""Predicted training memory beside what others have published.

    python benchmarks/published_memory.py POINTS.json --out RESULT.json

POINTS.json has a list `points`: name and source, `published_gb` (MiB / 1000, as mmdetection's
tables), and the settings of the run. Backbone, neck, and the heads that the product has are its
own, put together as `nas profile` does. What those programs did and ours does not is written here,
each with its source; nothing is fitted. It needs no GPU, and two seconds a point.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.resnet import Bottleneck
from torchvision.ops import FeaturePyramidNetwork, roi_align
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from nas.config.sections import DetectorSpec
from nas.models.detectors import atss_loss, build_detector, fcos_loss, matching
from nas.models.detectors.faster_rcnn import BoxPredictor, bounded_proposal_losses
from nas.models.detectors.region_losses import box_losses
from nas.profiling.memory import Training
from nas.profiling.memory import kernels as kernel_table
from nas.profiling.memory.estimator import highest_moment
from nas.profiling.memory.head import bounded_loss
from nas.profiling.memory.step_simulator import GRADIENTS, Value
from nas.profiling.memory.tracer import TensorSpec, contiguous, trace
from nas.profiling.memory.training_step import TracedStep
from nas.profiling.segments import SMALLEST, Segment, neck_segment
from search_spaces.layout import Layout

LAYOUTS = {
    "ResNet-50": "C3-C4-C6-C3@256",
    "ResNet-101": "C3-C4-C23-C3@256",
    "Swin-T": "T2-T2-T6-T2",
    "Swin-S": "T2-T2-T18-T2",
}
CLASSES = 80  # COCO's
REGIONS, POSITIVES = 512, 128  # of an image that box heads, and mask heads, learn from
GROUP_NORM = partial(nn.GroupNorm, 32)
STAGES = {"faster_rcnn": 1, "mask_rcnn": 1, "cascade_rcnn": 3, "cascade_mask_rcnn": 3}
MIB = 2**20
Point = dict[str, Any]


class Published:
    """The settings of a published run, and what its program did otherwise than ours."""

    def __init__(self, point: Point) -> None:
        self.point = point
        name, *said = [part.strip() for part in point["backbone"].split(",")]
        if name not in LAYOUTS:
            raise SystemExit(f"backbone must be one of {', '.join(LAYOUTS)}; got {name!r}")
        self.detector, norm = str(point["detector"]), str(point.get("norm", ""))
        self.old_group_norm = "before torch 1.6" in norm
        self.norms_everywhere = norm.startswith("gn") and self.detector in STAGES
        self.layout = Layout.parse(LAYOUTS[name] + "+norm=gn" * self.norms_everywhere)
        self.group_norm = bool(norm)
        # mmdetection's style `caffe` is both: frozen norms, and the stride in the 1x1 convolution.
        self.caffe = "norms frozen" in said or "stride in the first convolution" in said
        self.explicit_attention = "explicit attention" in said
        self.crops_masks = "mask" in self.detector
        self.shape = (int(point["images_per_gpu"]), 3, *map(int, point["batch_shape"]))
        self.boxes = int(point["boxes_in_largest_image"])
        self.training = Training(
            self.shape,
            self.boxes,
            precision=point["precision"],
            optimizer="sgd" if point["optimizer"].startswith("sgd") else "adamw",
            frozen_stages=int(point["frozen_stages"]),
            accumulates=True,  # gradients were zeroed, not dropped (torch before 2.0)
        )

    @property
    def spec(self) -> DetectorSpec:
        """The product's detector whose neck, and region proposals, the run had."""
        own = {"mask_rcnn": "faster_rcnn", "cascade_rcnn": "faster_rcnn"}
        name = own.get(self.detector, self.detector)
        return DetectorSpec(name="faster_rcnn" if self.detector in STAGES else name)  # type: ignore[arg-type]


def peak_mib(point: Point) -> float:
    """Predict the peak of allocated memory of a run, MiB."""
    run = Published(point)
    explicit = attention_as(explicit=run.explicit_attention)
    with all_boxes_at_once(), fused_focal_loss(), explicit:
        step = PublishedStep(run)
        images = step.simulator.add_input(
            TensorSpec(run.shape, contiguous(run.shape), trained=False),
            run.training.batch_bytes if run.training.frozen_stages else None,
        )
        maps = step.backbone(run.layout, images, first_map=0 if run.detector in STAGES else 1)
        neck = Segment("neck", (), _NormedNeck) if run.norms_everywhere else None
        levels = step.run(neck or neck_segment(run.layout.widths, run.spec), maps)
        step.simulator.drop(maps)
        step.run(Segment("head", (), lambda: _Heads(run)), levels)
        step.simulator.drop(levels)
        if run.training.frozen_stages:
            step.simulator.drop([images])
        step.simulator.backward()
    trained = [size for each in step.traces for size in each.parameters]
    fixed = [size for each in step.traces for size in each.fixed]
    states = 1 if run.training.optimizer == "sgd" else 2
    base = {
        "parameters": trained + fixed,
        "optimizer": trained * states,
        GRADIENTS: trained,
        "buckets": trained if point["ddp_buckets"] else [],  # DistributedDataParallel's own copy
        "inputs": [] if run.training.frozen_stages else [run.training.batch_bytes],
    }
    return highest_moment(step.simulator, base)[0].total() / MIB


class PublishedStep(TracedStep):
    """A step whose pieces are changed to what a run had, and are not kept in any cache."""

    def __init__(self, run: Published) -> None:
        super().__init__(run.training)
        self.published = run

    def run(self, segment: Segment, inputs: Any) -> list[Value]:
        """Run a segment forward."""
        changed = replace(segment, build=lambda: self._changed(segment.build()))
        specs = tuple(value.spec for value in inputs)
        autocast = self.training.precision != "fp32"
        traced = trace(changed.build, specs, checkpointing="none", cuda=True, autocast=autocast)
        self.traces.append(traced)
        return self.simulator.forward(traced, segment.part, inputs)

    def _changed(self, module: nn.Module) -> nn.Module:
        run = self.published
        for each in module.modules():
            if run.caffe and isinstance(each, Bottleneck):
                each.conv1.stride, each.conv2.stride = each.conv2.stride, (1, 1)
            if run.caffe and isinstance(each, nn.BatchNorm2d):
                each.requires_grad_(False)
        return _with_old_norms(module) if run.old_group_norm else module


@contextmanager
def all_boxes_at_once() -> Iterator[None]:
    """Overlaps of all anchors with all boxes of an image, as mmdetection's MaxIoUAssigner has them
    with its default `gpu_assign_thr=-1` (mmdet/core/bbox/assigners/max_iou_assigner.py).
    """
    with patch.object(matching, "PAIRS", 2**60):
        yield


class FusedFocalLoss(torch.autograd.Function):
    """The focal loss as one CUDA kernel, which keeps logits and labels and makes their losses
    (mmcv/ops/focal_loss.py); ours is made of PyTorch's functions.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> Tensor:
        ctx.save_for_backward(logits, labels)
        return torch.empty_like(logits).sum()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return torch.empty_like(ctx.saved_tensors[0]), None


@contextmanager
def fused_focal_loss() -> Iterator[None]:
    """Dense heads with `FusedFocalLoss`."""
    with (
        patch.object(fcos_loss, "focal_loss", FusedFocalLoss.apply),
        patch.object(atss_loss, "focal_loss", FusedFocalLoss.apply),
    ):
        yield


@contextmanager
def attention_as(*, explicit: bool) -> Iterator[None]:
    """Products and a softmax, whose scores are kept (mmdet/models/backbones/swin.py, WindowMSA), in
    place of PyTorch's fused attention.
    """
    beyond = dict.fromkeys(kernel_table.HEAD_MULTIPLES, 10**6)  # no head has so many channels
    with patch.dict(kernel_table.HEAD_MULTIPLES, beyond if explicit else {}):
        yield


class OldGroupNorm(nn.Module):
    """Group norm as before torch 1.6 (aten/src/ATen/native/group_norm.cpp until PR 28204): a batch
    norm over groups, then `addcmul`, which keeps the normalised map as well.
    """

    def __init__(self, norm: nn.GroupNorm) -> None:
        super().__init__()
        self.groups, self.weight, self.bias = norm.num_groups, norm.weight, norm.bias

    def forward(self, x: Tensor) -> Tensor:
        """Normalise [B, C, H, W]."""
        flat = x.reshape(1, len(x) * self.groups, -1)
        normal = F.batch_norm(flat, None, None, training=True).view_as(x)
        shape = (1, -1, 1, 1)
        return torch.addcmul(self.bias.view(shape), normal, self.weight.view(shape))


def _with_old_norms(module: nn.Module) -> nn.Module:
    if isinstance(module, nn.GroupNorm):
        return OldGroupNorm(module)
    for name, child in module.named_children():
        module.add_module(name, _with_old_norms(child))
    return module


class _NormedNeck(nn.Module):
    """A feature pyramid over ResNet-50 with a group norm behind each convolution (mmdetection's
    configs/gn).
    """

    def __init__(self) -> None:
        super().__init__()
        self.pyramid = FeaturePyramidNetwork(
            [256, 512, 1024, 2048], 256, LastLevelMaxPool(), norm_layer=GROUP_NORM
        )

    def forward(self, *maps: Tensor) -> list[Tensor]:
        return [*self.pyramid({str(level): each for level, each in enumerate(maps)}).values()]


class _Heads(nn.Module):
    """Heads with their losses, from the pyramid to a scalar."""

    def __init__(self, run: Published) -> None:
        super().__init__()
        whole = build_detector(SMALLEST, run.spec, CLASSES)
        images = torch.empty(run.shape, device="meta")
        self.losses: Callable[[list[Tensor]], Tensor]
        if run.detector not in STAGES:
            self.own = nn.ModuleList(whole.heads())
            if not run.group_norm:
                _without_group_norms(self.own)
            self.losses = lambda levels: bounded_loss(whole, levels, images, run.boxes)
            return
        two_stage: Any = whole
        self.rpn = two_stage.rpn
        self.stages = nn.ModuleList(_RegionHeads(run) for _ in range(STAGES[run.detector]))
        self.losses = lambda levels: self._two_stage(levels, run)

    def forward(self, *levels: Tensor) -> Tensor:
        return self.losses([*levels])

    def _two_stage(self, levels: list[Tensor], run: Published) -> Tensor:
        losses = bounded_proposal_losses(self.rpn, levels, run.boxes)
        for stage in self.stages:
            losses += stage(levels[0], len(levels[0]))
        return torch.stack(losses).sum()


def _without_group_norms(module: nn.Module) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.GroupNorm):
            module.add_module(name, nn.Identity())
        _without_group_norms(child)


class _RegionHeads(nn.Module):
    """Two fully connected layers on each region (mmdetection's Shared2FCBBoxHead), with group norm
    everywhere four convolutions and one (Shared4Conv1FCBBoxHead); and a mask head on those of
    objects (FCNMaskHead).
    """

    def __init__(self, run: Published) -> None:
        super().__init__()
        norm, self.masks = GROUP_NORM if run.norms_everywhere else None, run.crops_masks
        self.boxes: nn.Module = TwoMLPHead(256 * 49, 1024)
        if norm:
            self.boxes = FastRCNNConvFCHead((256, 7, 7), [256] * 4, [1024], norm_layer=norm)
        self.predictor = BoxPredictor(1024, CLASSES)
        self.plane = run.shape[2:]
        if self.masks:
            self.mask_head = MaskRCNNHeads(256, [256] * 4, dilation=1, norm_layer=norm)
            self.mask_predictor = MaskRCNNPredictor(256, 256, CLASSES)

    def forward(self, level: Tensor, images: int) -> list[Tensor]:
        regions = level.new_zeros(images * REGIONS, 5)
        logits, offsets = self.predictor(self.boxes(roi_align(level, regions, 7, 1 / 4, 2)))
        labels = torch.zeros(len(regions), dtype=torch.int64, device=level.device)
        found = [*box_losses(logits, offsets, [labels], [regions[:, :4]]).values()]
        return [*found, self._mask_loss(level, images)] if self.masks else found

    def _mask_loss(self, level: Tensor, images: int) -> Tensor:
        """Targets are cropped on the GPU: of each positive its whole mask, as bytes and as floats
        (mmdetection PR 2432; mmdet/core/mask/structures.py, crop_and_resize).
        """
        positives = level.new_zeros(images * POSITIVES, 5)
        logits = self.mask_predictor(self.mask_head(roi_align(level, positives, 14, 1 / 4, 2)))
        targets = []
        for _ in range(images):
            whole = level.new_empty((POSITIVES, 1, *self.plane), dtype=torch.uint8).float()
            targets.append(roi_align(whole, level.new_zeros(POSITIVES, 5), 28, 1.0, 0).squeeze(1))
            del whole
        labels = torch.zeros(len(positives), dtype=torch.int64, device=level.device)
        rows = torch.arange(len(positives), device=level.device)
        return F.binary_cross_entropy_with_logits(logits[rows, labels], torch.cat(targets))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("points", type=Path, help="JSON with a list `points`")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows = []
    for point in json.loads(args.points.read_text())["points"]:
        predicted = peak_mib(point)
        ratio = round(predicted / (1000 * point["published_gb"]), 3)
        rows.append({"name": point["name"], "predicted_mib": round(predicted), "ratio": ratio})
        figures = f"{ratio:6.3f}  {predicted:6.0f} MiB  {point['published_gb']} GB"
        print(f"{figures}  {point['name']}", flush=True)
    ratios = [row["ratio"] for row in rows]
    spread = statistics.stdev(ratios) if len(ratios) > 1 else 0.0
    mean = f"{len(rows)} points: mean {statistics.mean(ratios):.3f}, deviation {spread:.3f}"
    print(f"{mean}, {min(ratios)} to {max(ratios)}")
    if args.out:
        args.out.write_text(json.dumps({"points": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
