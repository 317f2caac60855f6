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
from nas.export.onnx.reading import read_onnx
from nas.models.backbones import HybridBackbone
from nas.models.backbones.graph import IMAGES, Node
from nas.models.backbones.swin_stage import AttentionStage

WRITERS, READERS = (
    ("onnx", "onnxscript", "onnxruntime"),
    ("onnx", "onnxruntime"),
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
    steps = _Steps(graph, backbone, {IMAGES: images})
    for node in backbone.graph:
        steps.add(node)
    return [steps.values[node.name] for node in backbone.graph if node.kind == "norm"]


def step_onnx(backbone: HybridBackbone, node: Node) -> bytes:
    """Write one step of a backbone, a stage with the norm behind it, as an ONNX model with the
    input `x` [B, C, H, W] and one output, for any B, H and W.

    Args:
        backbone: put into evaluation mode.
        node: of its graph, with one input.

    Raises:
        MissingDependency, BundleError: as from `backbone_onnx`.
    """
    need("onnx", *WRITERS)
    from onnx import TensorProto

    from nas.export.onnx.graph import OnnxGraph

    graph = OnnxGraph("x", channels=node.in_widths[0])
    backbone.eval()
    steps = _Steps(graph, backbone, {node.inputs[0]: "x"})
    behind = [each for each in backbone.graph if each.kind == "norm" and node.name in each.inputs]
    for each in (node, *behind):
        steps.add(each)
    shape: list[int | str] = ["batch", node.width, "out_height", "out_width"]
    value = steps.values[(behind or [node])[0].name]
    return graph.finished({"map": (value, TensorProto.FLOAT, shape)})


class _Steps:
    """Steps of a backbone in a graph, by name of a node the name of its value."""

    def __init__(self, graph: Any, backbone: HybridBackbone, values: dict[str, str]) -> None:
        self.graph, self.backbone, self.values = graph, backbone, values
        self.rows: dict[str, str] = {}  # T stages' outputs as they make them, channels last

    def add(self, node: Node) -> None:
        graph, inputs = self.graph, [self.values[name] for name in node.inputs]
        stage = self.backbone.stages[node.stage]
        if node.kind == "stage" and isinstance(stage, AttentionStage):
            self.rows[node.name] = _add_attention(graph, stage, node, inputs[0])
            value = graph.transpose(self.rows[node.name], (0, 3, 1, 2))
        elif node.kind == "norm":
            rows = self.rows.get(node.inputs[0])
            value = _add_norm(graph, self.backbone, node, rows) if rows else inputs[0]
        else:
            parts = {"stem": self.backbone.stem, "stage": stage, "join": self.backbone.join}
            (value,) = graph.add(parts[node.kind], node.name, inputs, _examples(node))
        self.values[node.name] = value


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
        content: of the file, or the path of one that somebody else may have made.
        threads: that share the work of one operator; 0: as many as the machine has cores.

    Attributes:
        outputs: names of what it gives.

    Raises:
        MissingDependency: onnx or onnxruntime is not installed.
        BundleError: the file at the path is not run, see `nas.export.onnx.reading`.
    """

    def __init__(self, content: bytes | Path, threads: int = 0) -> None:
        need("onnx", *READERS)
        import onnxruntime

        if isinstance(content, Path):
            content = read_onnx(content)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(
            content, options, providers=["CPUExecutionProvider"]
        )
        self.outputs = [output.name for output in self._session.get_outputs()]

    def __call__(self, images: Tensor) -> list[Tensor]:
        (given,) = self._session.get_inputs()
        return [
            torch.from_numpy(np.array(value))
            for value in self._session.run(None, {given.name: images.numpy()})
        ]
