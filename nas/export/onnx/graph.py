"""ONNX graphs for any image size, put together from pieces.

`torch.export` traces a piece with symbolic sizes. Windows make these long expressions, which double
from stage to stage in a trace of the whole network; piece by piece they stay short, and blocks of
one stage are traced once, whatever its depth.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Sequence
from typing import Any

import onnx
import torch
import torch.nn.functional as F
from onnx import ModelProto, TensorProto, helper, numpy_helper
from onnx.compose import add_prefix
from torch import Tensor, nn
from torch.export import Dim
from torch.overrides import TorchFunctionMode

from nas.errors import BundleError

OPSET = 20


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

    def add(
        self,
        piece: nn.Module,
        name: str,
        inputs: Sequence[str],
        examples: Sequence[Tensor],
        *,
        channels: int = 1,
        key: str = "",
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

        Returns:
            Names of its outputs.
        """
        key = key or name
        if key not in self._templates:
            self._templates[key] = traced(piece, examples, channels)
        model = add_prefix(self._templates[key], f"{name}/")
        weights = {
            f"{name}/{path}": tensor
            for path, tensor in [*piece.named_parameters(), *piece.named_buffers()]
        }
        for outer, inner in zip(inputs, model.graph.input, strict=True):
            self._graph.node.append(helper.make_node("Identity", [outer], [inner.name]))
        self._graph.node.extend(model.graph.node)
        for tensor in model.graph.initializer:
            own = weights.get(tensor.name)
            self._graph.initializer.append(
                tensor
                if own is None
                else numpy_helper.from_array(own.detach().cpu().numpy(), tensor.name)
            )
        return [output.name for output in model.graph.output]

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
        import onnx_ir
        from onnxscript import optimizer

        for name, (value, kind, shape) in outputs.items():
            self._graph.node.append(helper.make_node("Identity", [value], [name]))
            self._graph.output.append(helper.make_tensor_value_info(name, kind, shape))
        model = helper.make_model(
            self._graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="scratch-nas"
        )
        model.ir_version = 10  # of opset 20's time, for runtimes that are not the newest
        optimized = optimizer.optimize(onnx_ir.from_proto(model))
        content = onnx_ir.to_proto(optimized)
        del content.graph.value_info[:]  # names of sizes mean something within a piece only
        onnx.checker.check_model(content)
        return bytes(content.SerializeToString())


def traced(piece: nn.Module, examples: Sequence[Tensor], channels: int) -> ModelProto:
    """Trace a piece as a model for any size; arguments as of `OnnxGraph.add`.

    Raises:
        BundleError: this version of PyTorch cannot write it.
    """
    shapes: Any = tuple(
        {dim: Dim.DYNAMIC for dim, size in enumerate(example.shape) if dim != channels and size > 1}
        for example in examples
    )
    *named, last = inspect.signature(piece.forward).parameters.values()
    if last.kind == inspect.Parameter.VAR_POSITIONAL:
        shapes = (*shapes[: len(named)], shapes[len(named) :])
    with torch.no_grad(), AnySize(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program = torch.export.export(piece, tuple(examples), dynamic_shapes=shapes)
            written: Any = torch.onnx.export(
                program, dynamo=True, optimize=False, verbose=False, opset_version=OPSET
            )
        except Exception as error:  # of many kinds, and other ones in other versions
            raise BundleError(
                f"torch {torch.__version__} cannot write {type(piece).__name__} as ONNX "
                f"({type(error).__name__}); "
                "--no-onnx leaves it out"
            ) from error
    model: ModelProto = written.model_proto
    return model


class AnySize(TorchFunctionMode):
    """A mode that writes two operators out, so that the exporter keeps sizes open: rolling by a
    shift that depends on the size, and attention, whose kernels' strides it would take for granted.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            query, key, value = args
            scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
            return (scores + kwargs["attn_mask"]).softmax(dim=-1) @ value
        if func is torch.roll:
            x, shifts = args
            return _rolled(x, shifts, kwargs["dims"])
        return func(*args, **kwargs)


def _rolled(x: Tensor, shifts: Sequence[int], dims: Sequence[int]) -> Tensor:
    for shift, dim in zip(shifts, dims, strict=True):
        size = x.shape[dim]
        start = -shift % size
        x = torch.cat([x.narrow(dim, start, size - start), x.narrow(dim, 0, start)], dim)
    return x
