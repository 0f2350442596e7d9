from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import inference_pb2 as pb
from penstock.tensors import NUMPY_TYPES, TYPED_FIELDS, join_bytes, to_raw
from penstock_server.drift.fit import fit_baseline
from penstock_server.errors import InvalidInputError
from penstock_server.features.pipeline import Pipeline, count_elements
from penstock_server.features.spec.spec import (
    Categories,
    FeatureSpec,
    Join,
    NumberColumn,
    StringColumn,
    Take,
    Text,
)
from penstock_server.features.spec.steps import Fill
from penstock_server.models.signature import ANY, Signature, TensorInfo
from penstock_server.prediction.decode import (
    Block,
    ColumnDecoder,
    DecodedRows,
    DefaultsDecoder,
    TensorDecoder,
    _count_texts,
    named_inputs,
)

Make = Callable[..., pb.ModelInferRequest]
X = TensorInfo("x", "FP32", (ANY, 2))
S = TensorInfo("s", "BYTES", (ANY, 1))


def tensors(*inputs: TensorInfo, is_batched: bool = True) -> TensorDecoder:
    return TensorDecoder(Signature(inputs, (), is_batched))


def columns(*names: str, strings: tuple[str, ...] = (), required: bool = False) -> ColumnDecoder:
    spec = FeatureSpec(
        tuple(StringColumn(name) if name in strings else NumberColumn(name) for name in names),
        Join(tuple(Text(name, Categories(("s", "q"))) if name in strings else Take((name,)) for name in names)),
    )
    table = {name: np.array(["s"], object) if name in strings else np.zeros(1) for name in names}
    return ColumnDecoder(Pipeline(spec, fit_baseline(spec, table).cells if required else None))


def tensor(name: str, datatype: str, shape: list[int], raw: bytes | None = None, **contents: Any) -> Any:
    """One input, and its raw contents."""
    made = pb.ModelInferRequest.InferInputTensor(name=name, datatype=datatype, shape=shape)
    if contents:
        made.contents.CopyFrom(pb.InferTensorContents(**contents))
    return made, raw


def request_of(*inputs: Any) -> pb.ModelInferRequest:
    raws = [raw for _, raw in inputs if raw is not None]
    return pb.ModelInferRequest(inputs=[made for made, _ in inputs], raw_input_contents=raws)


ARRAYS = {
    **{name: np.array([[0, 1], [1, 0], [1, 1]]).astype(dtype) for name, dtype in NUMPY_TYPES.items()},
    "BYTES": np.array([["", "é"], ["no", "x" * 300], ["a", "b"]], object),
}


@pytest.mark.parametrize("datatype", ARRAYS)
@pytest.mark.parametrize("typed", [False, True])
def test_every_datatype_raw_and_typed(infer_request: Make, datatype: str, typed: bool) -> None:
    decoder = tensors(TensorInfo("t", datatype, (ANY, 2)))
    array = ARRAYS[datatype]
    if typed and datatype not in TYPED_FIELDS:
        with pytest.raises(
            InvalidInputError, match=f"input 't': datatype {datatype} travels only in raw_input_contents"
        ):
            decoder.decode(request_of(tensor("t", datatype, [1, 2])))
    else:
        request = infer_request({"t": array}, {"t": datatype}, typed=typed)
        assert decoder.decode(request) == DecodedRows((to_raw(array),), 3)


@pytest.mark.parametrize("datatype", NUMPY_TYPES)
@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_a_column_takes_any_number(infer_request: Make, datatype: str, shape: tuple[int, ...]) -> None:
    array = np.array([0, 1, 1]).astype(NUMPY_TYPES[datatype]).reshape(shape)
    rows = columns("age").decode(infer_request({"age": array}))
    assert rows == DecodedRows((array.astype("<f8").tobytes(),), 3)


def test_columns_come_in_any_order_and_leave_in_the_versions(infer_request: Make) -> None:
    request = infer_request(
        {"port": np.array(["s", ""], object), "fare": np.array([1.5, 2.5], "<f4"), "age": np.array([[3], [4]], "<i4")}
    )
    rows = columns("age", "port", "fare", strings=("port",)).decode(request)
    assert rows == DecodedRows((np.array([[3, 1.5], [4, 2.5]]).tobytes(), join_bytes(["s", ""])), 2)


@pytest.mark.parametrize("name", ["features", "anything"])
def test_numbers_also_come_as_one_matrix(infer_request: Make, name: str) -> None:
    matrix = np.array([[1, 2], [3, 4]], "<f4")
    rows = columns("a", "b").decode(infer_request({name: matrix}))
    assert rows == DecodedRows((matrix.astype("<f8").tobytes(),), 2)


def test_one_column_also_comes_as_a_matrix_of_that_name(infer_request: Make) -> None:
    assert columns("a").decode(infer_request({"features": np.ones((2, 1))})).rows == 2
    assert columns("features").decode(infer_request({"features": np.ones(2)})).rows == 2


@pytest.mark.parametrize("rows", [0, 1, 5])
def test_no_rows_are_rows(infer_request: Make, rows: int) -> None:
    assert columns("a", "b").decode(infer_request({"a": np.ones(rows), "b": np.ones(rows)})).rows == rows
    assert columns("a", "b").decode(infer_request({"m": np.ones((rows, 2))})).rows == rows
    assert tensors(X).decode(infer_request({"x": np.ones((rows, 2), "<f4")})).rows == rows


def test_what_cannot_be_joined_keeps_its_shapes(infer_request: Make) -> None:
    free = TensorInfo("x", "FP32", (ANY, ANY))
    one = TensorInfo("n", "INT64", ())
    request = infer_request({"n": np.array(3), "x": np.ones((2, 3), "<f4")})
    rows = tensors(free, one, is_batched=False).decode(request)
    assert (rows.rows, rows.shapes) == (2, ((2, 3), ()))
    alone = tensors(one, is_batched=False).decode(infer_request({"n": np.array(3)}))
    assert (alone.rows, alone.shapes) == (1, ((),))


def test_a_required_number_must_be_there(infer_request: Make) -> None:
    decoder = columns("a", "b", required=True)
    nan = float("nan")
    with pytest.raises(InvalidInputError, match="column 'b' is NaN in row 1, and this version was published without"):
        decoder.decode(infer_request({"a": np.ones(3), "b": np.array([1.0, nan, nan])}))
    with pytest.raises(InvalidInputError, match="column 'a' is NaN in row 0"):
        decoder.decode(infer_request({"m": np.array([[nan, 1.0]])}))
    filled = ColumnDecoder(Pipeline(FeatureSpec((NumberColumn("a"),), Take(("a",), (Fill((0.0,)),)))))
    assert filled.decode(infer_request({"a": np.array([nan])})).rows == 1


RAW_2 = bytes(8)
SHARED = tensor("x", "FP32", [1, 2])
SHARED[0].parameters["shared_memory_region"].string_param = "r"

REFUSALS: dict[str, tuple[Any, list[Any], str]] = {
    "missing": (tensors(X, S), [tensor("x", "FP32", [1, 2], RAW_2)], "missing input 's'; expected 'x', 's'"),
    "unknown": (
        tensors(X), [tensor("z", "FP32", [1, 2], RAW_2)], "missing input 'x'; unknown input 'z'; expected 'x'"
    ),
    "none": (tensors(X), [], "missing input 'x'; expected 'x'"),
    "twice": (tensors(X, S), [tensor("x", "FP32", [1, 2], RAW_2)] * 2, "input 'x' is given twice"),
    "datatype": (tensors(X), [tensor("x", "FP64", [1, 2], RAW_2)], "input 'x' has datatype 'FP64', expected FP32"),
    "nonsense": (tensors(X), [tensor("x", "float", [1, 2], RAW_2)], "input 'x' has datatype 'float', expected FP32"),
    "width": (
        tensors(X), [tensor("x", "FP32", [1, 3], RAW_2)], "input 'x' has shape [1, 3], expected [-1, 2] (-1 is any size)"
    ),
    "rank": (tensors(X), [tensor("x", "FP32", [2], RAW_2)], "input 'x' has shape [2], expected [-1, 2]"),
    "negative": (tensors(X), [tensor("x", "FP32", [-1, 2], RAW_2)], "input 'x' has shape [-1, 2], expected [-1, 2]"),
    "short": (
        tensors(X), [tensor("x", "FP32", [1, 2], RAW_2[:7])],
        "input 'x' of shape [1, 2] and datatype FP32 takes 8 bytes, got 7",
    ),
    "huge": (tensors(X), [tensor("x", "FP32", [2**62, 2], RAW_2)], "takes 36893488147419103232 bytes, got 8"),
    "torn": (
        tensors(S), [tensor("s", "BYTES", [2, 1], b"\1\0\0\0a\2\0\0")],
        "input 's' takes 2 BYTES elements, each a 4-byte length and its bytes; got a torn element",
    ),
    "too few": (tensors(S), [tensor("s", "BYTES", [2, 1], join_bytes("a"))], "takes 2 BYTES elements, .* got 1"),
    "entries": (
        tensors(X, S), [tensor("x", "FP32", [1, 2], RAW_2), tensor("s", "BYTES", [1, 1])],
        "raw_input_contents has 1 entries for 2 inputs, expected one for each",
    ),
    "both": (
        tensors(X), [tensor("x", "FP32", [1, 2], RAW_2, fp32_contents=[1, 2])],
        "input 'x' has contents although raw_input_contents is used; expected one or the other",
    ),
    "shared memory": (tensors(X), [SHARED], "input 'x' is in shared memory, which is not supported; send its contents"),
    "no contents": (tensors(X), [tensor("x", "FP32", [1, 2])], "input 'x': shape [1, 2] takes 2 elements, got 0"),
    "typed field": (
        tensors(X), [tensor("x", "FP32", [1, 2], fp64_contents=[1, 2])],
        "input 'x': datatype FP32 is carried by fp32_contents, got fp64_contents",
    ),
    "typed range": (
        tensors(TensorInfo("x", "INT8", (ANY,))), [tensor("x", "INT8", [1], int_contents=[300])],
        "input 'x': a value is out of the range of INT8",
    ),
    "rows": (
        tensors(X, S), [tensor("x", "FP32", [1, 2], RAW_2), tensor("s", "BYTES", [2, 1], join_bytes("ab"))],
        "inputs differ in their rows, expected the same number in each: 'x' has 1, 's' has 2",
    ),
    "column shape": (
        columns("a"), [tensor("a", "FP64", [1, 2], bytes(16))], "column 'a' has shape [1, 2], expected [rows] or [rows, 1]"
    ),
    "column negative": (columns("a"), [tensor("a", "FP64", [-1], b"")], "column 'a' has shape [-1], expected [rows]"),
    "column datatype": (
        columns("a"), [tensor("a", "BYTES", [1], join_bytes("a"))], "column 'a' has datatype 'BYTES', expected a number"
    ),
    "column text": (
        columns("p", strings=("p",)), [tensor("p", "FP64", [1], bytes(8))], "column 'p' has datatype 'FP64', expected BYTES"
    ),
    "column rows": (
        columns("a", "p", strings=("p",)),
        [tensor("a", "FP64", [2], bytes(16)), tensor("p", "BYTES", [1], join_bytes("s"))],
        "inputs differ in their rows, expected the same number in each: 'a' has 2, 'p' has 1",
    ),
    "column bytes": (
        columns("a"), [tensor("a", "FP64", [2], bytes(8))], "input 'a' of shape [2] and datatype FP64 takes 16 bytes, got 8"
    ),
    "matrix width": (
        columns("a", "b"), [tensor("m", "FP64", [1, 3], bytes(24))],
        "tensor 'm' has shape [1, 3], expected [rows, 2], one column each for a, b; or one tensor per column",
    ),
    "matrix rank": (columns("a", "b"), [tensor("m", "FP64", [2], bytes(16))], "tensor 'm' has shape [2], expected"),
    "matrix negative": (columns("a", "b"), [tensor("m", "FP64", [-1, 2], b"")], "tensor 'm' has shape [-1, 2]"),
    "matrix text": (columns("a", "b"), [tensor("m", "BYTES", [0, 2], b"")], "'m' has datatype 'BYTES', expected a number"),
    "no matrix beside text": (
        columns("a", "p", strings=("p",)), [tensor("m", "FP64", [1, 2], bytes(16))],
        "missing input 'a', 'p'; unknown input 'm'; expected 'a', 'p'",
    ),
    "many": (
        columns(*(f"c{at}" for at in range(22)), strings=("c0",)), [tensor("c0", "BYTES", [0], b"")],
        "'c19' and 2 more",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_refusals_name_the_tensor_what_was_expected_and_what_came(case: str) -> None:
    decoder, inputs, said = REFUSALS[case]
    with pytest.raises(InvalidInputError) as caught:
        decoder.decode(request_of(*inputs))
    assert all(part in str(caught.value) for part in said.split(".*")), str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("decoder", "name", "datatype", "is_plain"),
    [
        (tensors(X), "x", "FP32", True),
        (tensors(X, is_batched=False), "x", "FP32", False),
        (tensors(S), "s", "BYTES", False),
        (columns("a", "b"), "m", "FP32", True),
        (columns("a", "b"), "m", "FP64", True),
        (columns("a"), "features", "INT8", True),
        (columns("a"), "a", "FP64", False),
        (columns("p", strings=("p",)), "p", "BYTES", False),
    ],
)
def test_other_contents_of_a_request_taken_before(
    infer_request: Make, decoder: Any, name: str, datatype: str, is_plain: bool
) -> None:
    shape = (2, 1) if len(decoder.inputs) == 1 and name != "x" else (2, 2)
    first, second = (
        np.full(shape, str(value), object) if datatype == "BYTES" else np.full(shape, value, NUMPY_TYPES[datatype])
        for value in (1, 2)
    )
    taken = decoder.decode(infer_request({name: first}))
    expected = decoder.decode(infer_request({name: second})) if is_plain else None
    assert decoder.decode_like(infer_request({name: first}), taken.rows, to_raw(second)) == expected


def test_a_number_that_is_missing_the_second_time_is_refused_too(infer_request: Make) -> None:
    decoder = columns("a", "b", required=True)
    request = infer_request({"m": np.ones((1, 2))})
    decoder.decode(request)
    with pytest.raises(InvalidInputError, match="column 'b' is NaN in row 0"):
        decoder.decode_like(request, 1, np.array([1.0, np.nan]).tobytes())


def test_inputs_are_shown_as_they_may_be_sent() -> None:
    assert columns("a", "p", strings=("p",)).inputs == (
        TensorInfo("a", "FP64", (ANY, 1)), TensorInfo("p", "BYTES", (ANY, 1), missing=""),
    )  # fmt: skip
    assert tensors(X, S).inputs == (X, S)


def test_blocks_describe_what_a_request_becomes() -> None:
    assert columns("a", "s", "b", "t", strings=("s", "t")).blocks == (
        Block(("a", "b"), "FP64"), Block(("s",), "BYTES"), Block(("t",), "BYTES"),
    )  # fmt: skip
    assert tensors(X, S).blocks == (Block(("x",), "FP32", (2,)), Block(("s",), "BYTES", (1,)))
    assert tensors(X, is_batched=False).blocks == (Block(("x",), "FP32", (2,), is_whole=True),)


DECODERS = [
    tensors(X),
    tensors(X, S),
    columns("a"),
    columns("a", "p", strings=("p",)),
    columns("a", "b", required=True),
]
DIMENSIONS = st.lists(st.sampled_from([-1, 0, 1, 2, 3, 2**40, 2**62]), max_size=3)
INPUTS = st.builds(
    tensor,
    st.sampled_from(["x", "s", "a", "b", "p", "features", ""]),
    st.sampled_from([*NUMPY_TYPES, "BYTES", "", "FP128"]),
    DIMENSIONS,
    st.none() | st.sampled_from([b"", bytes(4), bytes(8), bytes(16), join_bytes("ab")]) | st.binary(max_size=20),
)


@given(decoder=st.sampled_from(DECODERS), inputs=st.lists(INPUTS, max_size=3))
def test_anything_is_rows_or_a_refusal(decoder: Any, inputs: list[Any]) -> None:
    try:
        rows = decoder.decode(request_of(*inputs))
    except InvalidInputError:
        return  # what it says is tested above
    assert rows.rows >= 0
    assert len(rows.blocks) == len(decoder.blocks)


NAMED = TensorInfo("X", "FP32", (ANY, 3), ("a", "b", "c"))
TEXTS = TensorInfo("X", "BYTES", (ANY, 2), ("p", "q"))


def test_columns_are_put_in_the_signatures_order(infer_request: Make) -> None:
    request = infer_request({"c": np.array([3, 6], "<i8"), "a": np.array([[1.0], [4.0]]), "b": np.array([2, 5], "<f4")})
    assert tensors(NAMED).decode(request) == DecodedRows((np.array([[1, 2, 3], [4, 5, 6]], "<f4").tobytes(),), 2)
    alone = tensors(NAMED, is_batched=False).decode(request)
    assert (alone.rows, alone.shapes) == (2, ((2, 3),))


def test_columns_of_text_are_put_in_order_too(infer_request: Make) -> None:
    request = infer_request({"q": np.array(["é", ""], object), "p": np.array(["a", "bc"], object)})
    assert tensors(TEXTS).decode(request) == DecodedRows((join_bytes(["a", "é", "bc", ""]),), 2)


def test_a_named_matrix_comes_whole_too(infer_request: Make) -> None:
    matrix = np.arange(6, dtype="<f4").reshape(2, 3)
    assert tensors(NAMED).decode(infer_request({"X": matrix})) == DecodedRows((matrix.tobytes(),), 2)
    own = tensors(TensorInfo("a", "FP32", (ANY, 1), ("a",)))
    for shape in ((2,), (2, 1)):
        assert own.decode(infer_request({"a": np.ones(shape, "<f4")})).rows == 2


def test_the_contents_of_a_column_are_cast_each_time(infer_request: Make) -> None:
    decoder = tensors(TensorInfo("x", "FP32", (ANY, 1), ("a",)))
    request = infer_request({"a": np.array([1.0])})
    assert decoder.decode(request) == DecodedRows((np.array([1], "<f4").tobytes(),), 1)
    assert decoder.decode_like(request, 1, np.array([2.0]).tobytes()) is None
    assert decoder.decode_like(infer_request({"a": np.ones(1, "<f4")}), 1, bytes(4)) == DecodedRows((bytes(4),), 1)


def test_columns_that_the_pipeline_drops_are_ignored(infer_request: Make) -> None:
    features = FeatureSpec((NumberColumn("x"), StringColumn("s", "text")), Take(("x",)), ignored=("Name", "Id"))
    decoder = ColumnDecoder(Pipeline(features))
    assert [info.missing for info in decoder.inputs] == [None, None]
    given = {"Name": np.array([b"Kim"], object), "x": np.ones(1), "s": np.array([b""], object)}
    assert decoder.decode(infer_request(given)).rows == 1
    with pytest.raises(InvalidInputError, match=r"^unknown input 'extra'; expected 'x', 's'$"):
        decoder.decode(infer_request({**given, "extra": np.ones(1)}))


@pytest.mark.parametrize(
    "decoder", [tensors(X, S), tensors(TensorInfo("m", "FP64", (ANY, 2), ("x", "s"))), columns("x", "s")]
)
def test_unknown_inputs_are_refused_unless_the_caller_says_ignore(infer_request: Make, decoder: Any) -> None:
    has_text = any(each.datatype == "BYTES" for each in decoder.inputs)
    arrays = {
        "x": np.ones((1, 2), "<f4") if has_text else np.ones(1),
        "extra": np.ones(5),
        "s": np.array([["t"]], object) if has_text else np.ones(1),
    }
    request = infer_request(arrays)
    with pytest.raises(InvalidInputError, match=r"^unknown input 'extra'; expected 'x', 's'$"):
        decoder.decode(request)
    request.parameters["extra_columns"].string_param = "ignore"
    assert decoder.decode(request).rows == 1
    request.parameters["extra_columns"].string_param = "drop"
    with pytest.raises(InvalidInputError, match="parameter 'extra_columns' is 'drop', expected 'ignore' or 'refuse'"):
        decoder.decode(request)
    request.parameters["extra_columns"].string_param = "ignore"
    del request.inputs[0], request.raw_input_contents[0]
    with pytest.raises(InvalidInputError, match="missing input 'x'; unknown input 'extra'"):
        decoder.decode(request)


@pytest.mark.parametrize(
    ("datatype", "values", "said"),
    [
        ("FP32", np.array([1.0, 1e300]), "column 'a' is 1e+300 in row 1, which FP32 cannot hold"),
        ("FP32", np.array([0.1, np.nan, np.inf, -1e-300]), ""),
        ("FP32", np.array([2**31 - 1], "<i4"), ""),
        ("INT64", np.array([2.0, 0.5]), "column 'a' is 0.5 in row 1, which INT64 cannot hold"),
        ("INT64", np.array([np.nan]), "column 'a' is nan in row 0"),
        ("INT64", np.array([2**63], "<u8"), "column 'a' is 9223372036854775808 in row 0"),
        ("INT64", np.array([1e19]), "column 'a' is 1e+19 in row 0"),
        ("UINT64", np.array([-1], "<i8"), "column 'a' is -1 in row 0, which UINT64 cannot hold"),
        ("INT8", np.array([200], "<i8"), "column 'a' is 200 in row 0, which INT8 cannot hold"),
        ("UINT8", np.array([200.0]), ""),
        ("BOOL", np.array([0, 1], "<i8"), ""),
        ("BOOL", np.array([2], "<i8"), "column 'a' is 2 in row 0, which BOOL cannot hold"),
        ("FP32", np.array(["1"], object), "column 'a' has datatype 'BYTES', expected a number"),
    ],
)  # fmt: skip
def test_a_column_is_cast_if_its_numbers_fit(infer_request: Make, datatype: str, values: Any, said: str) -> None:
    decoder = tensors(TensorInfo("x", datatype, (ANY, 2), ("a", "b")))
    request = infer_request({"a": values, "b": np.zeros(len(values))})
    if said:
        with pytest.raises(InvalidInputError) as caught:
            decoder.decode(request)
        assert said in str(caught.value)
    else:
        (block,) = decoder.decode(request).blocks
        got = np.frombuffer(block, NUMPY_TYPES[datatype]).reshape(-1, 2)[:, 0]
        np.testing.assert_array_equal(got, values.astype(NUMPY_TYPES[datatype]))


def test_columns_that_are_not_all_there_are_refused_by_name(infer_request: Make) -> None:
    with pytest.raises(InvalidInputError, match=r"^missing input 'b', 'c'; expected 'a', 'b', 'c'$"):
        tensors(NAMED).decode(infer_request({"a": np.ones(1)}))
    with pytest.raises(InvalidInputError, match="inputs differ in their rows"):
        tensors(NAMED).decode(infer_request({"a": np.ones(1), "b": np.ones(2), "c": np.ones(1)}))


def test_a_matrix_whose_columns_have_names_is_one_block() -> None:
    assert tensors(NAMED).blocks == (Block(("a", "b", "c"), "FP32"),)


@pytest.mark.parametrize(
    ("shape", "given", "names"),
    [((ANY, 2), ("a", "b"), ("a", "b")), ((ANY, 3), ("a", "b"), ()), ((ANY,), ("a",), ()), ((ANY, 2), (), ())],
)
def test_a_matrix_gets_names_if_there_are_as_many(shape: Any, given: Any, names: Any) -> None:
    signature = Signature((TensorInfo("x", "FP32", shape),), (), True)
    assert named_inputs(signature, given)[0].columns == names
    assert named_inputs(Signature((X, S), (), True), ("a", "b")) == (X, S)


FREE = TensorInfo("x", "FP32", (ANY, ANY))
VAST: dict[str, tuple[Any, list[int]]] = {
    "empty and vast": (tensors(FREE, is_batched=False), [0, 2**62]),
    "vast and empty": (tensors(FREE, is_batched=False), [2**40, 0]),
    "overflow": (tensors(FREE, is_batched=False), [2**31, 2**33]),
    "overflow to nothing": (tensors(FREE, is_batched=False), [2**32, 2**32]),
    "most": (tensors(FREE, is_batched=False), [2**63 - 1, 2**63 - 1]),
    "negative": (tensors(X), [-1, 2]),
    "two negatives": (tensors(FREE, is_batched=False), [-1, -2]),
    "negative rows": (columns("a", "b"), [-1, 2]),
    "negative named": (tensors(NAMED), [-1, 3]),
    "many dimensions": (tensors(X), [1] * 5000),
}


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("case", VAST)
def test_shapes_that_no_contents_fill_are_refused_in_one_short_sentence(case: str, typed: bool) -> None:
    decoder, shape = VAST[case]
    contents = {"fp32_contents": [] if 0 in shape else [0.0, 0.0]} if typed else {}
    raw = None if typed else b"" if 0 in shape else bytes(8)
    with pytest.raises(InvalidInputError) as caught:
        decoder.decode(request_of(tensor(decoder.inputs[0].name, "FP32", shape, raw, **contents)))
    assert len(str(caught.value)) < 300


def test_nothing_of_a_wide_tensor_is_taken() -> None:
    wide = TensorInfo("x", "FP32", (ANY, 3, 2048, 2048))
    assert tensors(wide).decode(request_of(tensor("x", "FP32", [0, 3, 2048, 2048], b""))).rows == 0


@given(st.lists(st.binary(max_size=6), max_size=5), st.binary(max_size=3))
def test_texts_are_counted_as_the_kernels_count_them(texts: list[bytes], end: bytes) -> None:
    raw = join_bytes(texts) + end
    assert _count_texts(raw) == count_elements(raw)


SCALE = TensorInfo("scale", "FP32", (ANY,), is_optional=True)
SEED = TensorInfo("seed", "INT64", (), is_optional=True)


def with_defaults(rows: Any) -> DefaultsDecoder:
    return DefaultsDecoder(rows, (SCALE, SEED))


@pytest.mark.parametrize("typed", [False, True])
@pytest.mark.parametrize("order", [("x", "scale", "seed"), ("seed", "x", "scale"), ("scale", "x")])
def test_what_stands_in_place_of_defaults_is_no_rows(infer_request: Make, order: tuple[str, ...], typed: bool) -> None:
    arrays = {"x": np.ones((3, 2), "<f4"), "scale": np.array([5, 6], "<f4"), "seed": np.array(7)}
    found = with_defaults(tensors(X)).decode(infer_request({name: arrays[name] for name in order}, typed=typed))
    assert (found.blocks, found.rows, found.shapes) == ((arrays["x"].tobytes(),), 3, None)
    expected = [(name, arrays[name].tobytes(), arrays[name].shape) for name in order if name != "x"]
    assert list(found.given) == expected


def test_without_it_requests_are_decoded_as_ever(infer_request: Make) -> None:
    request = infer_request({"x": np.ones((3, 2), "<f4")})
    decoder, plain = with_defaults(tensors(X)), tensors(X)
    assert decoder.decode(request) == plain.decode(request)
    assert decoder.plain_columns(request) == plain.plain_columns(request)
    assert decoder.plain_row_bytes() == plain.plain_row_bytes()
    assert decoder.decode_like(request, 3, b"raw") == plain.decode_like(request, 3, b"raw")
    assert [spec.name for spec in decoder.inputs] == ["x", "scale", "seed"]


def test_columns_may_stand_beside_it(infer_request: Make) -> None:
    found = with_defaults(columns("a", "b")).decode(
        infer_request({"b": np.ones(2), "scale": np.array([5], "<f4"), "a": np.zeros(2)})
    )
    assert (found.rows, found.given) == (2, (("scale", np.array([5], "<f4").tobytes(), (1,)),))


def test_what_is_given_is_not_for_kernels(infer_request: Make) -> None:
    arrays = {"x": np.ones((1, 2), "<f4"), "seed": np.array(7)}
    assert with_defaults(tensors(X)).plain_columns(infer_request(arrays)) is None


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"scale": np.ones((1, 1), "<f4")}, r"input 'scale' has shape \[1, 1\], expected \[-1\]"),
        ({"scale": np.ones(1)}, "input 'scale' has datatype 'FP64', expected FP32"),
        ({"scales": np.ones(1)}, "unknown input 'scales'"),
    ],
)
def test_what_does_not_fit_a_default_is_refused(infer_request: Make, arrays: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidInputError, match=words):
        with_defaults(tensors(X)).decode(infer_request({"x": np.ones((1, 2), "<f4")} | arrays))


def test_a_default_is_given_once(infer_request: Make) -> None:
    request = infer_request({"x": np.ones((1, 2), "<f4"), "seed": np.array(7)})
    request.inputs.append(request.inputs[1])
    request.raw_input_contents.append(request.raw_input_contents[1])
    with pytest.raises(InvalidInputError, match="input 'seed' is given twice"):
        with_defaults(tensors(X)).decode(request)
