"""The ONNX graphs that the scenarios serve: models whose answer names the row that was asked, and models that misbehave.

The marked value is one that no honest caller sends: a graph does its worst for rows that hold it, and for no others. So
it loads, warms up and answers everybody else.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    from onnx import GraphProto, NodeProto, TensorProto, ValueInfoProto

MARK: Final = -7_654_321
"""The value of a row that makes a graph fail or hang."""
_OPSET: Final = 17
INLINE_SIDE: Final = 160
"""With matrices of this side, a small batch takes a part of a millisecond, and runs on the reactor."""
THREADED_SIDE: Final = 512
"""With matrices of this side, a small batch takes milliseconds, more than it may hold the reactor."""
_GIB_FLOATS: Final = 2**28


def answering(offset: int, *, side: int = 0) -> bytes:
    """y = x + offset of [N, 2] float64, exact for whole numbers: the answer tells the row, and which version gave it.

    With a side it also multiplies matrices of that size, which takes time and changes nothing.
    """
    from onnx import helper

    nodes, constants = _nothing(columns=2, side=side, datatype="DOUBLE")
    nodes += [helper.make_node("Add", ["x", "nothing"], ["same"]), helper.make_node("Add", ["same", "offset"], ["y"])]
    constants.append(_constant("offset", [offset], "DOUBLE"))
    return _model(nodes, [_value("x", "DOUBLE", 2)], [_value("y", "DOUBLE", 2)], constants)


def failing(offset: int, *, side: int = 0) -> bytes:
    """y = x + offset of [N, 1] whole numbers; fails for a marked row. With a side it is slow, also before it fails."""
    from onnx import helper

    nodes, constants = _nothing(columns=1, side=side, datatype="INT64")
    nodes += [
        # A marked row looks up an entry that is not there, which no optimisation can remove.
        helper.make_node("Equal", ["x", "mark"], ["is_marked"]),
        helper.make_node("Cast", ["is_marked"], ["marked"], to=_type("INT64")),
        helper.make_node("Mul", ["marked", "far"], ["there"]),
        helper.make_node("Add", ["there", "nothing"], ["at"]),
        helper.make_node("Gather", ["offsets", "at"], ["offset"]),
        helper.make_node("Add", ["x", "offset"], ["y"]),
    ]
    constants += [
        _constant("mark", [MARK], "INT64"),
        _constant("far", [1000], "INT64"),
        _constant("offsets", [offset], "INT64"),
    ]
    return _model(nodes, [_value("x", "INT64", 1)], [_value("y", "INT64", 1)], constants)


def _nothing(*, columns: int, side: int, datatype: str) -> "tuple[list[NodeProto], list[TensorProto]]":
    """Nodes that compute `nothing`, which is 0: from much of `x`, so that no optimisation knows it; at once without a side."""
    from onnx import helper

    if not side:
        return [], [_constant("nothing", [0], datatype)]
    random = np.random.default_rng(0)
    constants = [
        _constant("spread", random.normal(size=(columns, side)), "FLOAT"),
        _constant("square", random.normal(size=(side, side)) / side**0.5, "FLOAT"),
        _constant("most", [1e30], "FLOAT"),
    ]
    nodes = [
        helper.make_node("Cast", ["x"], ["float"], to=_type("FLOAT")),
        helper.make_node("Sin", ["float"], ["small"]),
        helper.make_node("MatMul", ["small", "spread"], ["h0"]),
        *(helper.make_node("MatMul", [f"h{at}", "square"], [f"h{at + 1}"]) for at in range(4)),
        helper.make_node("ReduceMax", ["h4"], ["largest"], axes=[1], keepdims=1),
        helper.make_node("Greater", ["largest", "most"], ["is_beyond"]),
        helper.make_node("Cast", ["is_beyond"], ["nothing"], to=_type(datatype)),
    ]
    return nodes, constants


def text() -> bytes:
    """Gives its strings back, [N, 1]."""
    from onnx import helper

    return _model(
        [helper.make_node("Identity", ["x"], ["y"])], [_value("x", "STRING", 1)], [_value("y", "STRING", 1)], []
    )


def matrix(columns: int) -> bytes:
    """y = x of float32, which stands behind a feature pipeline of this width."""
    from onnx import helper

    return _model(
        [helper.make_node("Identity", ["x"], ["y"])],
        [_value("x", "FLOAT", columns)],
        [_value("y", "FLOAT", columns)],
        [],
    )


def wide(columns: int = 400) -> bytes:
    """Two numbers in, many out: an answer is 200 times its request."""
    from onnx import helper

    return _model(
        [helper.make_node("MatMul", ["x", "weights"], ["y"])],
        [_value("x", "FLOAT", 2)],
        [_value("y", "FLOAT", columns)],
        [_constant("weights", np.ones((2, columns)), "FLOAT")],
    )


def many_outputs(count: int) -> bytes:
    """`y0`, `y1`, ...: each is the input plus its number."""
    from onnx import helper

    return _model(
        [helper.make_node("Add", ["x", f"c{at}"], [f"y{at}"]) for at in range(count)],
        [_value("x", "FLOAT", 2)],
        [_value(f"y{at}", "FLOAT", 2) for at in range(count)],
        [_constant(f"c{at}", [at], "FLOAT") for at in range(count)],
    )


def layers(side: int = 256) -> bytes:
    """A perceptron over two numbers: cheap for 64 rows, seconds for a million."""
    from onnx import helper

    random = np.random.default_rng(0)
    return _model(
        [
            helper.make_node("MatMul", ["x", "spread"], ["h0"]),
            helper.make_node("Relu", ["h0"], ["r0"]),
            helper.make_node("MatMul", ["r0", "square"], ["h1"]),
            helper.make_node("Relu", ["h1"], ["r1"]),
            helper.make_node("MatMul", ["r1", "join"], ["y"]),
        ],
        [_value("x", "FLOAT", 2)],
        [_value("y", "FLOAT", 1)],
        [
            _constant("spread", random.normal(size=(2, side)), "FLOAT"),
            _constant("square", random.normal(size=(side, side)) / side**0.5, "FLOAT"),
            _constant("join", random.normal(size=(side, 1)), "FLOAT"),
        ],
    )


def hanging(*, is_always: bool) -> bytes:
    """y = x of [N, 1] whole numbers; counts to 2^62 first: for a marked row, or always, so at warm-up."""
    from onnx import helper

    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Add", ["count", "one"], ["counted"])],
        "body",
        [_scalar("turn", "INT64"), _scalar("go", "BOOL"), _scalar("count", "INT64")],
        [_scalar("go_on", "BOOL"), _scalar("counted", "INT64")],
        [_constant("one", 1, "INT64")],
    )
    turns = ["turns"]
    nodes = [
        helper.make_node("Equal", ["x", "mark"], ["is_marked"]),
        helper.make_node("Cast", ["is_marked"], ["marked"], to=_type("INT64")),
        helper.make_node("ReduceMax", ["marked"], ["any"], keepdims=0),
        helper.make_node("Mul", ["any", "many"], ["turns"]),
    ]
    if is_always:
        nodes, turns = [], ["many"]
    nodes += [
        helper.make_node("Loop", [*turns, "", "start"], ["count"], body=body),
        helper.make_node("Mul", ["count", "nothing"], ["zero"]),
        helper.make_node("Add", ["x", "zero"], ["y"]),
    ]
    return _model(
        nodes,
        [_value("x", "INT64", 1)],
        [_value("y", "INT64", 1)],
        [
            _constant("mark", [MARK], "INT64"),
            _constant("many", 2**62, "INT64"),
            _constant("start", 0, "INT64"),
            _constant("nothing", 0, "INT64"),
        ],
    )


def eating(gib: float) -> bytes:
    """y = x + 0 of [N, 2] float64, after a tensor of this many GiB was made and summed, in each run."""
    from onnx import TensorProto, helper

    value = helper.make_tensor("value", TensorProto.FLOAT, [1], [1.0])
    return _model(
        [
            # The size depends on the input, so that it is made in a run and not folded away before.
            helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
            helper.make_node("Sub", ["largest", "largest"], ["zero"]),
            helper.make_node("Cast", ["zero"], ["none"], to=_type("INT64")),
            helper.make_node("Add", ["size", "none"], ["shape"]),
            helper.make_node("ConstantOfShape", ["shape"], ["huge"], value=value),
            helper.make_node("ReduceMax", ["huge"], ["one"], keepdims=0),
            helper.make_node("Cast", ["one"], ["double"], to=_type("DOUBLE")),
            helper.make_node("Sub", ["double", "double"], ["nothing"]),
            helper.make_node("Add", ["x", "nothing"], ["y"]),
        ],
        [_value("x", "DOUBLE", 2)],
        [_value("y", "DOUBLE", 2)],
        [_constant("size", [int(gib * _GIB_FLOATS)], "INT64")],
    )


def folding(side: int = 4000, steps: int = 5000) -> bytes:
    """y = x of [N, 2] float64, behind products of constants that onnxruntime computes while it opens the file: for hours."""
    from onnx import helper

    nodes = [helper.make_node("MatMul", ["column", "row"], ["p0"])]
    nodes += [helper.make_node("MatMul", [f"p{at}", f"p{at}"], [f"p{at + 1}"]) for at in range(steps)]
    nodes += [
        helper.make_node("ReduceMax", [f"p{steps}"], ["largest"], keepdims=0),
        helper.make_node("Cast", ["largest"], ["double"], to=_type("DOUBLE")),
        helper.make_node("Mul", ["double", "nothing"], ["zero"]),
        helper.make_node("Add", ["x", "zero"], ["y"]),
    ]
    return _model(
        nodes,
        [_value("x", "DOUBLE", 2)],
        [_value("y", "DOUBLE", 2)],
        [
            _constant("column", np.full((side, 1), side**-0.5), "FLOAT"),
            _constant("row", np.full((1, side), side**-0.5), "FLOAT"),
            _constant("nothing", 0.0, "DOUBLE"),
        ],
    )


def put(repository: Path, model: str, version: int | str, onnx: bytes) -> Path:
    """Adds a version to a model repository: written aside and renamed, so that no poll finds half of it."""
    folder = repository / model / str(version)
    aside = repository / f".{model}-{version}"
    aside.mkdir(parents=True)
    (aside / "model.onnx").write_bytes(onnx)
    folder.parent.mkdir(exist_ok=True)
    return aside.rename(folder)


def _model(
    nodes: "Sequence[NodeProto]",
    inputs: "Sequence[ValueInfoProto]",
    outputs: "Sequence[ValueInfoProto]",
    constants: "Sequence[TensorProto]",
) -> bytes:
    from onnx import helper

    graph: GraphProto = helper.make_graph(nodes, "graph", inputs, outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)
    return bytes(model.SerializeToString())


def _value(name: str, datatype: str, columns: int) -> "ValueInfoProto":
    from onnx import helper

    return helper.make_tensor_value_info(name, _type(datatype), [None, columns])


def _scalar(name: str, datatype: str) -> "ValueInfoProto":
    from onnx import helper

    return helper.make_tensor_value_info(name, _type(datatype), [])


def _constant(name: str, values: Any, datatype: str) -> "TensorProto":
    from onnx import helper, numpy_helper

    return numpy_helper.from_array(np.asarray(values, helper.tensor_dtype_to_np_dtype(_type(datatype))), name)


def _type(datatype: str) -> int:
    from onnx import TensorProto

    found: int = TensorProto.DataType.Value(datatype)
    return found
