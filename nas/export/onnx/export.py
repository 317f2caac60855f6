"""A backbone as ONNX, for any batch, height and width; and whether an ONNX file gives what the
network gives.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nas.errors import need
from nas.models.backbones import HybridBackbone
from nas.models.backbones.graph import IMAGES, Node
from nas.models.backbones.swin_stage import AttentionStage

WRITERS, READERS = (
    ("onnx", "onnxscript", "onnxruntime"),
    ("onnxruntime",),
)  # packages; what is written is also read
SIZES = (
    (2, 64, 96),
    (1, 70, 101),
    (1, 33, 225),
)  # images of a comparison: with and without rest in windows, one window
OUTPUTS = tuple(f"stride_{4 * 2**stage}" for stage in range(4))


def missing(packages: tuple[str, ...] = WRITERS) -> list[str]:
    """Packages of some that are not installed."""
    return [package for package in packages if find_spec(package) is None]


def backbone_onnx(backbone: HybridBackbone, templates: dict[str, Any] | None = None) -> bytes:
    """Write a backbone as an ONNX model with the input `images` [B, 3, H, W] and four maps,
    `OUTPUTS`, for any B, H and W.

    Args:
        backbone: put into evaluation mode.
        templates: pieces that another graph of the same network has traced; new ones are added.

    Returns:
        The content of the file.

    Raises:
        MissingDependency: packages of the extra `onnx` are not there.
        BundleError: this version of PyTorch cannot write it.
    """
    need("onnx", *WRITERS)
    from onnx import TensorProto

    from nas.export.onnx.graph import OnnxGraph

    graph = OnnxGraph("images", templates=templates)
    maps = add_backbone(graph, backbone, "images")
    shapes: list[list[int | str]] = [
        ["batch", width, f"height_{stride}", f"width_{stride}"]
        for width, stride in zip(backbone.widths, (4, 8, 16, 32), strict=True)
    ]
    outputs = zip(OUTPUTS, maps, shapes, strict=True)
    return graph.finished(
        {name: (value, TensorProto.FLOAT, shape) for name, value, shape in outputs}
    )


def add_backbone(graph: Any, backbone: HybridBackbone, images: str) -> list[str]:
    """Append a backbone to a graph, step by step as its own `graph` says.

    Args:
        graph: an `OnnxGraph`.
        backbone: put into evaluation mode.
        images: name of the value in `graph` that the backbone is given.

    Returns:
        Names of the four maps in `graph`.
    """
    backbone.eval()
    values, rows = {IMAGES: images}, {}  # rows: T stages' outputs as they make them, channels last
    for node in backbone.graph:
        inputs = [values[name] for name in node.inputs]
        stage = backbone.stages[node.stage]
        if node.kind == "stage" and isinstance(stage, AttentionStage):
            rows[node.name] = _add_attention(graph, stage, node, inputs[0])
            values[node.name] = graph.transpose(rows[node.name], (0, 3, 1, 2))
        elif node.kind == "norm":
            values[node.name] = inputs[0]
            if node.inputs[0] in rows:
                values[node.name] = _add_norm(graph, backbone, node, rows[node.inputs[0]])
        else:
            parts = {"stem": backbone.stem, "stage": stage, "join": backbone.join}
            (values[node.name],) = graph.add(parts[node.kind], node.name, inputs, _examples(node))
    return [values[node.name] for node in backbone.graph if node.kind == "norm"]


def _examples(node: Node) -> list[Tensor]:
    """Tensors like the inputs of a step; a dense join's second one has twice the size."""
    if node.kind == "stem":
        return [torch.rand(2, 3, 64, 96)]
    sizes = ((20, 30), (40, 60))
    return [torch.rand(2, width, *size) for width, size in zip(node.in_widths, sizes, strict=False)]


def _add_norm(graph: Any, backbone: HybridBackbone, node: Node, rows: str) -> str:
    example = torch.rand(2, 20, 30, node.width)
    (normed,) = graph.add(backbone.norms[node.stage], node.name, [rows], [example], channels=3)
    return str(graph.transpose(normed, (0, 3, 1, 2)))


def _add_attention(graph: Any, stage: AttentionStage, node: Node, x: str) -> str:
    """A T stage from a value [B, C, H, W] to one [B, H, W, C], a block at a time."""
    x = graph.transpose(x, (0, 2, 3, 1))
    if not isinstance(stage.merging, nn.Identity):
        example = torch.rand(2, 20, 30, *node.in_widths)
        (x,) = graph.add(stage.merging, f"{node.name}/merging", [x], [example], channels=3)
    example = torch.rand(2, 20, 30, node.width)
    for index, block in enumerate(stage.blocks):
        name, key = f"{node.name}/block_{index}", f"{node.name} {block.shift}"
        (x,) = graph.add(block, name, [x], [example], channels=3, key=key)
    return x


class OnnxModel:
    """An ONNX file that can be called: a tensor in, tensors out.

    Args:
        content: of the file, or its path.

    Raises:
        MissingDependency: onnxruntime is not installed.
    """

    def __init__(self, content: bytes | Path) -> None:
        need("onnx", *READERS)
        import onnxruntime

        source = content if isinstance(content, bytes) else str(content)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(
            source, options, providers=["CPUExecutionProvider"]
        )

    def __call__(self, images: Tensor) -> list[Tensor]:
        (given,) = self._session.get_inputs()
        return [
            torch.from_numpy(np.array(value))
            for value in self._session.run(None, {given.name: images.numpy()})
        ]
