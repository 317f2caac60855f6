"""One piece of a network as an ONNX model for any size."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import onnx_ir
import torch
import torch.nn.functional as F
from onnx import ModelProto
from onnxscript import opset20, optimizer
from torch import Tensor, nn
from torch.export import Dim
from torch.overrides import TorchFunctionMode

from nas.errors import BundleError

OPSET = 20
RUNNING_STEPS = 13  # a running maximum looks over 2^13 positions: at stride 8, 65,536 pixels


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
    if last.kind == inspect.Parameter.VAR_POSITIONAL and len(shapes) > len(named):
        shapes = (*shapes[: len(named)], shapes[len(named) :])
    with torch.no_grad(), AnySize(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            program = torch.export.export(piece, tuple(examples), dynamic_shapes=shapes)
            written: Any = torch.onnx.export(
                program,
                dynamo=True,
                optimize=False,
                verbose=False,
                opset_version=OPSET,
                custom_translation_table={torch.ops.torchvision.roi_pool.default: _roi_pool},
            )
        except Exception as error:  # of many kinds, and other ones in other versions
            raise BundleError(
                f"torch {torch.__version__} cannot write {type(piece).__name__} as ONNX "
                f"({type(error).__name__})"
            ) from error
    return _optimized(written.model, weights_of(piece))


def weights_of(piece: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by the names that they have in a traced piece."""
    return dict([*piece.named_parameters(), *piece.named_buffers()])


def _optimized(model: onnx_ir.Model, weights: Iterable[str]) -> ModelProto:
    """Fold what is constant but the weights, for which others will be put in; piece by piece, which
    takes a fraction of the time that it takes for a whole graph.
    """
    graph = model.graph
    kept = [graph.initializers.pop(name) for name in weights if name in graph.initializers]
    graph.inputs.extend(kept)
    optimizer.optimize(model)
    del graph.inputs[len(graph.inputs) - len(kept) :]
    for weight in kept:
        if weight.uses():
            graph.initializers.add(weight)
    content = onnx_ir.to_proto(model)
    del content.graph.value_info[:]  # names of sizes mean something within a piece only
    return content


def _roi_pool(maps: Any, rois: Any, scale: float, height: int, width: int) -> tuple[Any, Any]:
    """torchvision's RoIPool; onnxscript's own translation (0.7.2) takes other arguments."""
    pooled = opset20.MaxRoiPool(maps, rois, pooled_shape=[height, width], spatial_scale=scale)
    return pooled, pooled  # the second is where the largest values are, which nobody asks for


class AnySize(TorchFunctionMode):
    """A mode that writes three operators out: rolling by a shift that depends on the size, and
    attention, whose kernels' strides the exporter would take for granted; and the running maximum,
    which ONNX does not have.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            query, key, value = args
            scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
            mask = kwargs.get("attn_mask")
            return (scores if mask is None else scores + mask).softmax(dim=-1) @ value
        if func is torch.roll:
            x, shifts = args
            return _rolled(x, shifts, kwargs["dims"])
        if func is torch.cummax:
            return _running_maximum(*args), None  # no indices
        return func(*args, **kwargs)


def _rolled(x: Tensor, shifts: Sequence[int], dims: Sequence[int]) -> Tensor:
    for shift, dim in zip(shifts, dims, strict=True):
        size = x.shape[dim]
        start = -shift % size
        x = torch.cat([x.narrow(dim, start, size - start), x.narrow(dim, 0, start)], dim)
    return x


def _running_maximum(x: Tensor, dim: int) -> Tensor:
    """The maximum of each position and the 2^k - 1 before it, k = 1, 2, ..., each from the last."""
    positions = torch.arange(x.shape[dim])
    for step in range(RUNNING_STEPS):
        before = (positions - 2**step).clamp(min=0)
        x = torch.maximum(x, x.index_select(dim, before))
    return x
