"""ONNX files that never end, or read what is none of theirs, are refused before they are run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nas.errors import BundleError

onnx = pytest.importorskip("onnx")

from onnx import TensorProto, helper  # noqa: E402

from nas.export.onnx.export import OnnxModel  # noqa: E402
from nas.export.onnx.reading import read_onnx  # noqa: E402

X = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, "h", "w"])
Y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
RELU = helper.make_node("Relu", ["x"], ["y"])


def model(nodes: list, constants: list = (), **more: object) -> onnx.ModelProto:
    graph = helper.make_graph(nodes, "g", [X], [Y], initializer=list(constants))
    domains = [helper.make_opsetid("", 20), helper.make_opsetid("mine", 1)]
    made = helper.make_model(graph, opset_imports=domains, **more)
    made.ir_version = 10
    return made


def constant(name: str, kind: int, value: object) -> onnx.TensorProto:
    return helper.make_tensor(name, kind, [], [value])


def endless() -> onnx.ModelProto:
    """2^62 times round."""
    condition = helper.make_tensor_value_info("c", TensorProto.BOOL, [])
    count = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    inner, outer = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("a", "b")
    )
    out = helper.make_tensor_value_info("c_out", TensorProto.BOOL, [])
    nodes = [helper.make_node("Identity", ["c"], ["c_out"]), helper.make_node("Relu", ["a"], ["b"])]
    body = helper.make_graph(nodes, "body", [count, condition, inner], [out, outer])
    loop = helper.make_node("Loop", ["times", "go", "x"], ["y"], body=body)
    constants = [
        constant("times", TensorProto.INT64, 2**62),
        constant("go", TensorProto.BOOL, True),
    ]
    return model([loop], constants)


def branching() -> onnx.ModelProto:
    branch = helper.make_graph([helper.make_node("Relu", ["x"], ["z"])], "b", [], [Y])
    node = helper.make_node("If", ["go"], ["y"], then_branch=branch, else_branch=branch)
    return model([node], [constant("go", TensorProto.BOOL, True)])


def elsewhere() -> onnx.TensorProto:
    tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[10])
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    return tensor


def with_constant() -> onnx.ModelProto:
    return model([helper.make_node("Constant", [], ["w"], value=elsewhere()), RELU])


def with_function() -> onnx.ModelProto:
    function = helper.make_function(
        "mine", "F", ["x"], ["y"], [RELU], [helper.make_opsetid("", 20)]
    )
    return model([helper.make_node("F", ["x"], ["y"], domain="mine")], functions=[function])


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (endless, "the operator 'Loop' with a graph in it"),
        (branching, "the operator 'If' with a graph in it"),
        (lambda: model([RELU], [elsewhere()]), "tensors in another file"),
        (with_constant, "tensors in another file"),
        (with_function, "functions of its own"),
        (
            lambda: model([helper.make_node("F", ["x"], ["y"], domain="com.microsoft")]),
            "an operator 'F' of 'com.microsoft'",
        ),
    ],
)
def test_what_no_export_has_is_not_run(tmp_path: Path, made: object, words: str):
    (tmp_path / "a.onnx").write_bytes(made().SerializeToString())
    for act in (read_onnx, OnnxModel):
        with pytest.raises(BundleError, match=f"^a.onnx is not run: it has {words}, which no"):
            act(tmp_path / "a.onnx")


def test_the_standards_operators_are_run(tmp_path: Path):
    content = model([RELU]).SerializeToString()
    (tmp_path / "a.onnx").write_bytes(content)
    assert read_onnx(tmp_path / "a.onnx") == content


def test_what_is_no_file_of_onnx_is_named(tmp_path: Path):
    (tmp_path / "junk.onnx").write_bytes(b"x" * 100)
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "zero.onnx").symlink_to("/dev/zero")
    for name in ("junk", "pipe", "zero", "gone"):
        with pytest.raises(BundleError, match=f"^{name}.onnx cannot be run as the network"):
            OnnxModel(tmp_path / f"{name}.onnx")
