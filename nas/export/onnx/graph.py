"""ONNX graphs for any image size, put together from pieces.

`torch.export` traces a piece with symbolic sizes. Windows make these long expressions, which double
from stage to stage in a trace of the whole network; piece by piece they stay short, and blocks of
one stage are traced once, whatever its depth.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx
from onnx import GraphProto, ModelProto, TensorProto, helper
from onnx.compose import add_prefix
from onnx.numpy_helper import from_array, to_array
from torch import Tensor, nn

from nas.export.onnx.tracing import OPSET, traced, weights_of


class OnnxGraph:
    """A graph that grows piece by piece; values have names.

    Args:
        image: name of the input, float [B, C, H, W]; with `batch` 1 one image, else any number of
            them.
        templates: pieces that another graph of the same network has traced.
        channels: C of the input.
    """

    def __init__(
        self,
        image: str,
        batch: int | str = "batch",
        *,
        templates: dict[str, ModelProto] | None = None,
        channels: int = 3,
    ) -> None:
        self._graph = onnx.GraphProto(name="scratch-nas")
        self._graph.input.append(
            helper.make_tensor_value_info(
                image, TensorProto.FLOAT, [batch, channels, "height", "width"]
            )
        )
        self._templates = {} if templates is None else templates
        self._weights: set[str] = set()

    def add(
        self,
        piece: nn.Module,
        name: str,
        inputs: Sequence[str],
        examples: Sequence[Tensor],
        *,
        channels: int = 1,
        key: str = "",
        weights: str = "",
    ) -> list[str]:
        """Append a piece.

        Args:
            piece: tensors, each an argument, to a tensor or several.
            name: of the piece within the graph, used once.
            inputs: names of the values it takes.
            examples: tensors like them. Sizes of 1 and those of channels stay what they are, the
                others are free.
            channels: which dimension the channels are.
            key: pieces with equal keys differ in their weights only; default: the name.
            weights: pieces with equal ones have the same weights, which are kept once; default: the
                name.

        Returns:
            Names of its outputs.
        """
        key = key or name
        if key not in self._templates:
            self._templates[key] = traced(piece, examples, channels)
        model = add_prefix(self._templates[key], f"{name}/")
        for outer, inner in zip(inputs, model.graph.input, strict=True):
            self._graph.node.append(helper.make_node("Identity", [outer], [inner.name]))
        self._add_weights(model.graph, piece, name, weights or name)
        self._graph.node.extend(model.graph.node)
        return [output.name for output in model.graph.output]

    def _add_weights(self, graph: GraphProto, piece: nn.Module, name: str, weights: str) -> None:
        """Take over the initializers of a piece's graph, those of its weights with its own."""
        own = weights_of(piece)
        names = {each.name: each.name.removeprefix(f"{name}/") for each in graph.initializer}
        for node in graph.node:
            for index, value in enumerate(node.input):
                if value in names:
                    node.input[index] = f"{weights}/{names[value]}"
        if weights in self._weights:
            return
        self._weights.add(weights)
        for tensor in graph.initializer:
            path = names[tensor.name]
            value = own[path].detach().cpu().numpy() if path in own else to_array(tensor)
            self._graph.initializer.append(from_array(value, f"{weights}/{path}"))

    def transpose(self, value: str, order: Sequence[int]) -> str:
        """Append a transposition to another order of dimensions; the name of its value."""
        name = f"{value}.{''.join(map(str, order))}"
        self._graph.node.append(helper.make_node("Transpose", [value], [name], perm=order))
        return name

    def finished(self, outputs: dict[str, tuple[str, int, list[int | str]]]) -> bytes:
        """Make the model.

        Args:
            outputs: by the names that people see, each with the value's name, its ONNX type and its
                shape.

        Returns:
            The content of the file.
        """
        for name, (value, kind, shape) in outputs.items():
            self._graph.node.append(helper.make_node("Identity", [value], [name]))
            self._graph.output.append(helper.make_tensor_value_info(name, kind, shape))
        model = helper.make_model(
            self._graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="scratch-nas"
        )
        model.ir_version = 10  # of opset 20's time, for runtimes that are not the newest
        onnx.checker.check_model(model)
        return bytes(model.SerializeToString())
