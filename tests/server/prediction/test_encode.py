from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import inference_pb2 as pb
from penstock.tensors import NUMPY_TYPES, to_raw
from penstock_server.models.signature import ANY, TensorInfo
from penstock_server.prediction.encode import LAYOUT_BYTES, QUEUE_US, Choice, IntegerParameter, ReplyEncoder, encoded_id

SPECS = (
    TensorInfo("y", "FP32", (ANY, 2), parameters=(("columns", '["a", "b"]'), ("kind", "margins"))),
    TensorInfo("label", "BYTES", (ANY,)),
    TensorInfo("n", "INT64", (ANY,)),
)
CHOICES = st.none() | st.lists(st.integers(0, 2), min_size=1, max_size=4).map(tuple)


def arrays_of(rows: int, width: int = 2) -> list[Any]:
    values = np.arange(rows * width, dtype=np.float32).reshape(rows, width)
    return [values, np.array([f"row {at}" for at in range(rows)], object), np.arange(rows)]


UNASKED: dict[str, Any] = {"compute_s": 0.0, "id_field": b"", "chosen": None, "queue_us": 0}


def parsed(message: bytes) -> pb.ModelInferResponse:
    return pb.ModelInferResponse.FromString(message)


def check(reply: pb.ModelInferResponse, arrays: list[Any], chosen: Choice) -> None:
    asked = range(len(arrays)) if chosen is None else chosen
    described = [(one.name, one.datatype, tuple(one.shape)) for one in reply.outputs]
    assert described == [(SPECS[at].name, SPECS[at].datatype, arrays[at].shape) for at in asked]
    told = [{name: one.string_param for name, one in output.parameters.items()} for output in reply.outputs]
    assert told == [dict(SPECS[at].parameters) for at in asked]
    assert list(reply.raw_output_contents) == [to_raw(arrays[at]) for at in asked]


@given(
    batches=st.lists(
        st.tuples(
            st.integers(0, 3), st.lists(st.tuples(st.integers(0, 3), CHOICES, st.text(max_size=200)), max_size=4)
        ),
        max_size=5,
    )
)
def test_each_reply_holds_its_rows_and_no_others(batches: list[Any]) -> None:
    encoder = ReplyEncoder(("m", "3"), "canary", SPECS)
    for width, requests in batches:
        rows = sum(count for count, _, _ in requests)
        arrays = arrays_of(rows, width)
        replies = encoder.batch(arrays, rows, 0.25)
        start = 0
        for count, chosen, request_id in requests:
            reply = parsed(replies.reply(start, count, encoded_id(request_id), chosen, 7))
            check(reply, [array[start : start + count] for array in arrays], chosen)
            assert (reply.model_name, reply.model_version, reply.id) == ("m", "3", request_id)
            told = {name: one.int64_param or one.string_param for name, one in reply.parameters.items()}
            assert told == {
                "penstock_role": "canary", "penstock_queue_us": 7, "penstock_compute_us": 250_000,
                "penstock_batch_rows": rows or "",
            }  # fmt: skip
            start += count


@given(rows=st.integers(0, 3), chosen=CHOICES, request_id=st.text(max_size=200))
def test_a_request_that_ran_alone_gets_everything(rows: int, chosen: Choice, request_id: str) -> None:
    arrays = arrays_of(rows)
    reply = parsed(
        ReplyEncoder(("m", "3"), None, SPECS).whole(
            arrays, 5, compute_s=0.25, id_field=encoded_id(request_id), chosen=chosen, queue_us=7
        )
    )
    check(reply, arrays, chosen)
    assert reply.id == request_id
    assert "penstock_role" not in reply.parameters
    assert reply.parameters["penstock_compute_us"].int64_param == 250_000


def test_what_is_kept_is_bounded_in_bytes() -> None:
    encoder = ReplyEncoder(("m", "3"), None, SPECS)
    arrays = arrays_of(3000)
    replies = encoder.batch(arrays, 3000, 0.0)
    most = 0
    for rows in range(3000):
        replies.reply(0, rows, b"", (0, 2), 0)
        if rows % 50 == 0:
            most = max(most, sum(len(layout.prefix) for layout in encoder._layouts.values()))
        assert encoder._layout_bytes <= LAYOUT_BYTES
        assert len(encoder._layouts) < 2000
    assert 0 < most < LAYOUT_BYTES
    encoder.batch(arrays_of(3), 3, 0.0).reply(0, 1, b"", None, 0)
    assert encoder._layout_bytes > 0


def test_changes_of_the_shapes_are_counted() -> None:
    encoder = ReplyEncoder(("m", "3"), None, SPECS)
    found = [encoder.shapes]
    for rows, width in [(3, 2), (5, 2), (0, 2), (3, 1), (3, 1), (3, 2)]:
        encoder.fit(arrays_of(rows, width))
        found.append(encoder.shapes)
    assert found == [0, 1, 1, 1, 2, 2, 3]


def test_a_layout_larger_than_all_that_may_be_kept_is_not() -> None:
    specs = tuple(TensorInfo(f"{at:0>1000}", "FP32", (ANY,)) for at in range(1100))
    encoder = ReplyEncoder(("m", "3"), None, specs)
    arrays = [np.zeros(1, "f4")] * len(specs)
    for _ in range(2):
        assert len(encoder.batch(arrays, 1, 0.0).reply(0, 1, b"", None, 0)) > LAYOUT_BYTES
        assert (encoder._layouts, encoder._layout_bytes) == ({}, 0)


@given(name=st.text(min_size=1, max_size=200), values=st.lists(st.integers(0, 5000) | st.integers(0, 2**63 - 1)))
def test_integer_parameters_are_protobufs_own(name: str, values: list[int]) -> None:
    parameter = IntegerParameter(name)
    for value in values:
        assert parsed(parameter.encode(value)).parameters[name].int64_param == value


def test_small_numbers_alone_are_kept() -> None:
    for value in (1, 2, 10**6, 10**6 + 1):
        assert QUEUE_US.encode(value) == QUEUE_US.encode(value)
    assert max(QUEUE_US._known) < 10**6


@pytest.mark.parametrize("datatype", [*NUMPY_TYPES, "BYTES"])
@pytest.mark.parametrize("shape", [(5,), (5, 3), (5, 2, 2), (5, 0)])
def test_rows_of_any_kind_are_cut_as_the_array_is(
    outputs_of: Callable[[bytes], dict[str, Any]], datatype: str, shape: tuple[int, ...]
) -> None:
    numbers = np.arange(np.prod(shape)).reshape(shape)
    array = numbers.astype(str).astype(object) if datatype == "BYTES" else numbers.astype(NUMPY_TYPES[datatype])
    replies = ReplyEncoder(("m", "3"), None, (TensorInfo("y", datatype, shape),)).batch([array], 5, 0.0)
    for start, rows in [(0, 5), (1, 2), (2, 0), (4, 1)]:
        got = outputs_of(replies.reply(start, rows, b"", None, 0))["y"]
        expected = array[start : start + rows]
        assert to_raw(got) == to_raw(expected)
        assert got.shape == expected.shape


def test_memory_order_does_not_matter(outputs_of: Callable[[bytes], dict[str, Any]]) -> None:
    array = np.asfortranarray(np.arange(6.0).reshape(3, 2))
    encoder = ReplyEncoder(("m", "3"), None, (TensorInfo("y", "FP64", (ANY, 2)),))
    assert outputs_of(encoder.batch([array], 3, 0.0).reply(1, 2, b"", None, 0))["y"].tolist() == [[2, 3], [4, 5]]
    assert (
        outputs_of(encoder.whole([array], 1, compute_s=0.0, id_field=b"", chosen=None, queue_us=0))["y"].tolist()
        == array.tolist()
    )


def test_scalars_are_whole(outputs_of: Callable[[bytes], dict[str, Any]]) -> None:
    encoder = ReplyEncoder(("m", "3"), None, (TensorInfo("total", "FP32", ()),))
    assert outputs_of(encoder.whole([np.array(2.5, np.float32)], 1, **UNASKED))["total"] == 2.5


def test_a_layout_is_made_once_and_forgotten_with_the_shapes() -> None:
    encoder = ReplyEncoder(("m", "3"), None, SPECS)
    arrays = arrays_of(4)
    encoder.batch(arrays, 4, 0.0)
    first = encoder.layout(2, None, arrays)
    encoder.batch(arrays, 4, 0.0)
    assert encoder.layout(2, None, arrays) is first
    wider = arrays_of(4, width=3)
    encoder.batch(wider, 4, 0.0)
    assert encoder.layout(2, None, wider) is not first


def test_the_time_is_told_in_microseconds() -> None:
    encoder, arrays = ReplyEncoder(("m", "3"), None, SPECS), arrays_of(1)
    times: dict[str, Any] = {"compute_s": 2.5, "id_field": b"", "chosen": None, "queue_us": 7}
    for message in (
        encoder.batch(arrays, 1, 2.5).reply(0, 1, b"", None, 7),
        encoder.whole(arrays, 1, **times),
        encoder.joined([array.shape for array in arrays], [[to_raw(array)] for array in arrays], 1, **times),
    ):
        reply = parsed(message)
        check(reply, arrays, None)
        assert reply.parameters["penstock_compute_us"].int64_param == 2_500_000
        assert reply.parameters["penstock_queue_us"].int64_param == 7
