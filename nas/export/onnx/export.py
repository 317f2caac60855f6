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
from nas.models.backbones.hybrid import dense_join
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
    """Which of some packages are not installed."""
    return [package for package in packages if find_spec(package) is None]


def backbone_onnx(backbone: HybridBackbone, templates: dict[str, Any] | None = None) -> bytes:
    """A model with the input `images` [B, 3, H, W] and four maps, `OUTPUTS`, for any B, H and W;
    `templates` as in `OnnxGraph`.

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
    """Append a backbone to an `OnnxGraph` as `HybridBackbone.forward` has it; names of its four
    maps.
    """
    backbone = backbone.eval()
    (x,) = graph.add(backbone.stem, "stem", [images], [torch.rand(2, 3, 64, 96)])
    before, given = "", _stem_width(backbone)
    maps: list[str] = []
    for index, (stage, norm, width) in enumerate(
        zip(backbone.stages, backbone.norms, backbone.widths, strict=True)
    ):
        name = f"stage_{index + 1}"
        if isinstance(stage, AttentionStage):
            last = _add_attention(
                graph, stage, name, graph.transpose(x, (0, 2, 3, 1)), given, width
            )
            x = graph.transpose(last, (0, 3, 1, 2))
            (normed,) = graph.add(
                norm, f"{name}/norm", [last], [torch.rand(2, 20, 30, width)], channels=3
            )
            maps.append(graph.transpose(normed, (0, 3, 1, 2)))
        else:
            (x,) = graph.add(stage, name, [x], [torch.rand(2, given, 20, 30)])
            maps.append(x)
        out = width
        if backbone.dense and index < len(backbone.stages) - 1:
            if before:
                examples = [torch.rand(2, width, 20, 30), torch.rand(2, given, 40, 60)]
                (x,) = graph.add(_Join(), f"{name}/join", [x, before], examples)
                out += given
            before = x
        given = out
    return maps


def _add_attention(
    graph: Any, stage: AttentionStage, name: str, x: str, given: int, width: int
) -> str:
    if not isinstance(stage.merging, nn.Identity):
        (x,) = graph.add(
            stage.merging, f"{name}/merging", [x], [torch.rand(2, 20, 30, given)], channels=3
        )
    for index, block in enumerate(stage.blocks):
        key = f"{name} {block.shift}"
        (x,) = graph.add(
            block, f"{name}/block_{index}", [x], [torch.rand(2, 20, 30, width)], channels=3, key=key
        )
    return x


class _Join(nn.Module):
    def forward(self, x: Tensor, before: Tensor) -> Tensor:
        return dense_join(x, before)


def _stem_width(backbone: HybridBackbone) -> int:
    with torch.no_grad():
        return int(backbone.stem(torch.zeros(1, 3, 32, 32)).shape[1])


class OnnxModel:
    """A file to run: a tensor in, tensors out.

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
