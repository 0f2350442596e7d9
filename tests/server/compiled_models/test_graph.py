"""Graphs as they are read, against the `onnx` package; whatever bytes there are, reading ends with a graph or a refusal."""

from contextlib import suppress
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from penstock_server.compiled_models import graph
from penstock_server.compiled_models.graph import NotCompiledError
from tests.server.compiled_models.graphs import ML, TREES_OF_TWO, model_of, node, regressor


def test_attributes_are_those_of_the_file() -> None:
    (operator,) = graph.read(regressor()).operators
    assert (operator.name, operator.domain, operator.inputs, operator.outputs) == (
        "TreeEnsembleRegressor", ML, ("x",), ("y",)
    )  # fmt: skip
    for name, value in TREES_OF_TWO.items():
        found = operator.attributes[name]
        assert (
            found == value
            if isinstance(value, int | str) or isinstance(value[0], str)
            else list(found) == pytest.approx(value)
        )


@pytest.mark.parametrize("number", [0, 1, 127, 128, 300, -1, -(1 << 63), (1 << 63) - 1])
def test_whole_numbers_of_all_sizes(number: int) -> None:
    made = node("Identity", ["x"], ["y"], one=number, many=[number, 1, number])
    (operator,) = graph.read(model_of([made], ["y"])).operators
    assert operator.attributes["one"] == number
    assert operator.attributes["many"].tolist() == [number, 1, number]


@pytest.mark.parametrize(
    "array",
    [
        np.array([[1.5, np.nan], [np.inf, -0.0]], np.float32),
        np.array([1.5, 2.5]),
        np.array([1, -2, 1 << 40]),
        np.array([[7]], np.int32),
        np.array(["a", "é", ""], object),
        np.array(3.5, np.float32),
        np.zeros(0, np.float32),
    ],
)
@pytest.mark.parametrize("is_node", [False, True])
def test_constants(array: Any, is_node: bool) -> None:
    tensor = numpy_helper.from_array(array, "c")
    nodes = [node("Constant", [], ["c"], value=tensor)] if is_node else []
    read = graph.read(
        model_of([*nodes, node("Identity", ["c"], ["y"])], ["y"], constants={} if is_node else {"c": array})
    )
    assert read.constants["c"].dtype == array.dtype
    np.testing.assert_array_equal(read.constants["c"], array)


@pytest.mark.parametrize(
    ("kind", "values"), [
        (TensorProto.FLOAT, [1.5, -2.0]), (TensorProto.DOUBLE, [1.5, -2.0]),
        (TensorProto.INT64, [5, -7]), (TensorProto.UINT8, [1, 2]),
    ]
)  # fmt: skip
def test_constants_whose_elements_are_fields(kind: int, values: list[Any]) -> None:
    made = node("Constant", [], ["c"], value=helper.make_tensor("c", kind, [2], values))
    assert graph.read(model_of([made, node("Identity", ["c"], ["y"])], ["y"])).constants["c"].tolist() == values


@pytest.mark.parametrize(
    ("field", "value"), [("value_float", 1.5), ("value_ints", [1, 2]), ("value_strings", ["a", "b"])]
)
def test_constants_of_other_forms(field: str, value: Any) -> None:
    made = node("Constant", [], ["c"], **{field: value})
    read = graph.read(model_of([made, node("Identity", ["c"], ["y"])], ["y"]))
    np.testing.assert_array_equal(read.constants["c"], value)


def inner() -> Any:
    return helper.make_graph([node("Identity", ["x"], ["y"])], "g", [], [])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "has no graph"),
        (b"\x08\x09", "has no graph"),
        (b"\x3a\x7f", "otherwise than expected"),
        (b"\x3a\x02\x0a\x7f", "otherwise than expected"),
        (b"\xff" * 20, "otherwise than expected"),
        (
            model_of([node("If", ["x"], ["y"], then_branch=inner(), else_branch=inner())], ["y"]),
            "graphs in its operators",
        ),
        (model_of([node("Identity", ["x"], ["y"])] * 65, ["y"]), "more than 64 operators"),
        (model_of([], ["y"], constants={"c": np.zeros(1, np.float16)}), "a constant of datatype 10"),
    ],
)
def test_what_is_refused(content: bytes, reason: str) -> None:
    with pytest.raises(NotCompiledError, match=reason):
        graph.read(content)


@pytest.mark.long
def test_numbers_that_take_too_much_are_refused() -> None:
    constant = model_of([], ["y"], constants={"c": np.zeros(5 << 20, np.uint8)})
    attribute = model_of([node("Identity", ["x"], ["y"], many=[1] * (5 << 20))], ["y"])
    for content in (constant, attribute):
        with pytest.raises(NotCompiledError, match="more than 4,194,304 bytes"):
            graph.read(content)


def test_constants_in_other_files_are_refused() -> None:
    model = onnx.load_from_string(model_of([], ["y"], constants={"c": np.zeros(4, np.float32)}))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights")
    with pytest.raises(NotCompiledError, match="in other files"):
        graph.read(model.SerializeToString())


WHOLE = regressor()


@given(
    st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=8),
    st.integers(0, len(WHOLE)),
)
def test_damaged_files_are_read_or_refused(changes: list[tuple[int, int]], end: int) -> None:
    damaged = bytearray(WHOLE)
    for at, byte in changes:
        damaged[at] = byte
    with suppress(NotCompiledError):
        graph.read(bytes(damaged[:end] if end else damaged))
