"""Reading ONNX files that somebody else may have made: they hold one graph of the standard's
operators, each of which is computed once, and their tensors.

Graphs within a graph are what loops and branches run, perhaps for ever. Operators of another
domain, or functions, mean what whoever runs them says. Tensors may name another file, which is
read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from nas.errors import BundleError
from search_spaces.regular_files import read_regular

if TYPE_CHECKING:
    from onnx import AttributeProto, ModelProto, TensorProto

STANDARD = ("", "ai.onnx")  # domains


def read_onnx(path: Path) -> bytes:
    """Read a file that comes to an end when it is run, and reads nothing.

    Raises:
        BundleError: it cannot be read, is no ONNX, or holds what an export does not.
    """
    import onnx

    try:
        content = read_regular(path)
        model = onnx.load_model_from_string(content)
        if not model.HasField("graph"):
            raise ValueError("there is no graph in it")
    except Exception as error:  # also of the library that onnx is built on
        said = " ".join(str(error).split())
        raise BundleError(f"{path.name} cannot be run as the network: {said}") from None
    if fault := next(_faults(model), None):
        raise BundleError(f"{path.name} is not run: it has {fault}, which no export has")
    return content


def _faults(model: ModelProto) -> Iterator[str]:
    if model.functions:
        yield "functions of its own"
    for node in model.graph.node:
        if node.domain not in STANDARD:
            yield f"an operator {node.op_type!r} of {node.domain!r}"
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            yield f"the operator {node.op_type!r} with a graph in it"
        if _are_elsewhere(_tensors(node.attribute)):
            yield "tensors in another file"
    graph = model.graph
    sparse = (each for pair in graph.sparse_initializer for each in (pair.values, pair.indices))
    if _are_elsewhere(graph.initializer) or _are_elsewhere(sparse):
        yield "tensors in another file"


def _tensors(attributes: Iterable[AttributeProto]) -> Iterator[TensorProto]:
    for attribute in attributes:
        yield attribute.t
        yield from attribute.tensors
        for pair in (attribute.sparse_tensor, *attribute.sparse_tensors):
            yield from (pair.values, pair.indices)


def _are_elsewhere(tensors: Iterable[TensorProto]) -> bool:
    return any(each.data_location or each.external_data for each in tensors)  # 0 is in the file
