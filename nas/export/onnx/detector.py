"""Detectors as ONNX: one image of any size to its detections."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from nas.errors import need
from nas.export.onnx.dense import add_dense
from nas.export.onnx.export import WRITERS, add_backbone
from nas.export.onnx.pieces import Neck, Value, append
from nas.export.onnx.reppoints import add_reppoints
from nas.export.onnx.sparse import add_sparse_rcnn
from nas.export.onnx.two_stage import add_cascade_rcnn, add_faster_rcnn
from nas.models.detectors import DETECTORS, Detector
from nas.models.detectors.mask_head import MASK_SIZE

HEADS = {  # named as in `nas.models.detectors.DETECTORS`
    "fcos": add_dense,
    "faster_rcnn": add_faster_rcnn,
    "atss": add_dense,
    "reppoints_v2": add_reppoints,
    "cascade_mask_rcnn": add_cascade_rcnn,
    "sparse_rcnn": add_sparse_rcnn,
}


def detector_onnx(detector: Detector, templates: dict[str, Any] | None = None) -> bytes:
    """Write a detector as an ONNX model with the input `image` [1, 3, H, W], RGB in 0 to 1, already
    resized, and the outputs `boxes` [N, 4], `scores` [N], `labels` [N] and, of a detector with
    masks, `masks` [N, S, S]: those that `detector([image])` gives.

    Args:
        detector: in evaluation mode.
        templates: pieces that another graph of the same network has traced; new ones are added.

    Returns:
        The content of the file.

    Raises:
        MissingDependency: packages of the extra `onnx` are not there.
        BundleError: this version of PyTorch cannot write it.
    """
    need("onnx", *WRITERS)
    from nas.export.onnx.graph import OnnxGraph

    graph, pyramid = OnnxGraph("image", 1, templates=templates), detector.backbone
    image = Value("image", torch.rand(1, 3, 70, 90))
    (batch,) = append(graph, _Prepared(detector), "prepared", [image])
    maps = add_backbone(graph, pyramid.backbone, batch.name)[pyramid.first :]
    widths = pyramid.backbone.widths[pyramid.first :]
    examples = [
        Value(name, torch.rand(1, width, 40 // 2**level, 60 // 2**level))
        for level, (name, width) in enumerate(zip(maps, widths, strict=True))
    ]
    levels = append(graph, Neck(pyramid), "neck", examples)
    add_heads = next(HEADS[name] for name, kind in DETECTORS.items() if type(detector) is kind)
    found = add_heads(graph, detector, image, levels)
    outputs = zip(found, _outputs(detector.masks), strict=True)
    return graph.finished(
        {name: (value.name, kind, shape) for value, (name, kind, shape) in outputs}
    )


def _outputs(masks: bool) -> list[tuple[str, int, list[int | str]]]:
    """Name, type and shape of each."""
    from onnx import TensorProto

    outputs: list[tuple[str, int, list[int | str]]] = [
        ("boxes", TensorProto.FLOAT, ["found", 4]),
        ("scores", TensorProto.FLOAT, ["found"]),
        ("labels", TensorProto.INT64, ["found"]),
    ]
    return outputs + [("masks", TensorProto.FLOAT, ["found", MASK_SIZE, MASK_SIZE])] * masks


class _Prepared(nn.Module):
    """An image as the backbone takes it: normalised, padded with zeros to a multiple of the largest
    stride.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.transform, self.multiple = detector.transform, detector.transform.size_divisible

    def forward(self, image: Tensor) -> Tensor:
        height, width = (
            (size + self.multiple - 1) // self.multiple * self.multiple for size in image.shape[2:]
        )
        return nn.functional.pad(
            self.transform.normalize(image), (0, width - image.shape[3], 0, height - image.shape[2])
        )
