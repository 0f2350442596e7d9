"""Plain replies are read as protobuf reads them, or left to it."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import inference_pb2 as pb
from penstock.tensors import NUMPY_TYPES, to_raw
from penstock_client import reply as module
from penstock_client.errors import ServerError
from penstock_client.prediction import prediction_of
from penstock_client.reply import plain_prediction
from penstock_client.steps import Failure

TEXT = st.text(max_size=150)
SHAPES = st.lists(st.integers(0, 4), max_size=3)
NUMBERS = ["penstock_queue_us", "penstock_compute_us", "penstock_batch_rows"]


@st.composite
def replies(draw):
    message = pb.ModelInferResponse(
        model_name=draw(TEXT), model_version=draw(st.sampled_from(["", "3"])), id=draw(st.just("") | TEXT)
    )
    for name in draw(st.lists(st.sampled_from(NUMBERS), unique=True)):
        message.parameters[name].int64_param = draw(st.integers(0, 2**36) | st.integers(-(2**63), 2**63 - 1))
    if draw(st.booleans()):
        message.parameters["penstock_role"].string_param = draw(st.sampled_from(["champion", "", "x" * 200]))
    if draw(st.integers(0, 9)) == 0:
        message.parameters[draw(st.sampled_from([*NUMBERS, "penstock_role", "other"]))].bool_param = True
    for number in range(draw(st.integers(0, 3))):
        datatype = draw(st.sampled_from([*NUMPY_TYPES, "BYTES"]))
        shape = draw(SHAPES)
        if datatype == "BYTES":
            elements = draw(st.lists(st.binary(max_size=200), min_size=math.prod(shape), max_size=math.prod(shape)))
            array = np.empty(len(elements), object)
            array[:] = elements
        else:
            array = np.frombuffer(draw(st.randoms()).randbytes(math.prod(shape) * 8), np.uint8)
            array = array[: math.prod(shape)].astype(NUMPY_TYPES[datatype])
        name = draw(st.sampled_from([f"output{number}", "same", "n" * 130]))
        message.outputs.add(name=name, datatype=datatype, shape=shape)
        message.raw_output_contents.append(to_raw(array))
    return message


def read(payload):
    return plain_prediction(payload, round_trip_s=0.5, explains=False)


def general(payload):
    try:
        return prediction_of(payload, round_trip_s=0.5)
    except ServerError:
        return None


def assert_same(found, expected):
    assert expected is not None
    for field in dataclasses.fields(expected):
        if field.name != "outputs":
            assert getattr(found, field.name) == getattr(expected, field.name)
    assert list(found) == list(expected)
    for name in expected:
        one, other = found[name], expected[name]
        assert (one.dtype, one.shape, one.flags.writeable) == (other.dtype, other.shape, other.flags.writeable)
        assert one.flags.aligned
        if one.dtype == object:
            assert one.tolist() == other.tolist()
        else:
            assert one.tobytes() == other.tobytes()


@given(replies())
def test_a_reply_that_is_read_plainly_is_what_protobuf_reads(message):
    payload = message.SerializeToString()
    found = read(payload)
    if found is not None:
        assert_same(found, general(payload))


def pieces(message):
    """The message's fields, each a message of its own: joined in any order they are protobuf's."""
    for field, value in message.ListFields():
        for index in [None] if isinstance(value, str) else range(len(value)):
            piece = pb.ModelInferResponse()
            if field.name == "parameters":
                name = sorted(value)[index]
                piece.parameters[name].CopyFrom(value[name])
            elif index is None:
                setattr(piece, field.name, value)
            elif field.name == "outputs":
                piece.outputs.append(value[index])
            else:
                piece.raw_output_contents.append(value[index])
            yield piece.SerializeToString()


@given(replies(), st.randoms(), st.booleans())
def test_fields_in_any_order_are_read_as_protobuf_reads_them(message, random, twice):
    parts = list(pieces(message)) * (1 + twice)
    random.shuffle(parts)
    payload = b"".join(parts)
    found = read(payload)
    if found is not None:
        assert_same(found, general(payload))


@given(replies(), st.data())
def test_a_damaged_reply_is_read_as_protobuf_reads_it_or_left_to_it(message, data):
    payload = bytearray(message.SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, max(0, len(payload) - 1)))
        payload[at : at + data.draw(st.integers(0, 2))] = data.draw(st.binary(max_size=3))
    found = read(bytes(payload))
    if found is not None:
        assert_same(found, general(bytes(payload)))


@given(st.binary(max_size=80))
def test_any_bytes_are_read_as_protobuf_reads_them_or_left_to_it(payload):
    found = read(payload)
    if found is not None:
        assert_same(found, general(payload))


def plain():
    message = pb.ModelInferResponse(model_name="fraud", model_version="3", id="r-1")
    message.parameters["penstock_role"].string_param = "champion"
    message.parameters["penstock_queue_us"].int64_param = 123_456
    message.parameters["penstock_compute_us"].int64_param = 7
    message.parameters["penstock_batch_rows"].int64_param = 300
    message.outputs.add(name="label", datatype="INT64", shape=[1])
    message.outputs.add(name="probabilities", datatype="FP32", shape=[1, 2])
    message.outputs.add(name="word", datatype="BYTES", shape=[1])
    message.raw_output_contents.append(np.array([1]).tobytes())
    message.raw_output_contents.append(np.array([0.25, 0.75], np.float32).tobytes())
    message.raw_output_contents.append(to_raw(np.array(["yes"], object)))
    return message


def test_what_a_server_sends_is_plain():
    payload = plain().SerializeToString()
    found = read(payload)
    assert_same(found, general(payload))
    assert (found.role, found.request_id, found.timing.queue_s, found.timing.batch_rows) == (
        "champion",
        "r-1",
        0.123456,
        300,
    )
    assert found["word"].tolist() == ["yes"]


def test_the_order_of_a_penstock_server_is_plain():
    model, version, identity, role, *rest = pieces(plain())
    parameters, outputs, raws = rest[:3], rest[3:6], rest[6:]
    payload = b"".join([model, version, identity, parameters[-1], *outputs, role, *parameters[:-1], *raws])
    assert_same(read(payload), general(payload))


@pytest.mark.parametrize("rows", [1, 40, 3000, 200_000])
def test_a_reply_of_many_rows_is_plain(rows):
    message = pb.ModelInferResponse(model_name="m")
    message.outputs.add(name="p", datatype="FP64", shape=[rows, 2])
    message.raw_output_contents.append(np.arange(rows * 2.0).tobytes())
    assert read(message.SerializeToString())["p"].tolist() == np.arange(rows * 2.0).reshape(rows, 2).tolist()


@pytest.mark.parametrize(
    "change",
    [
        lambda message: message.outputs[0].contents.int64_contents.append(1),
        lambda message: message.raw_output_contents.append(b""),
        lambda message: message.raw_output_contents.pop(),
        lambda message: message.outputs[0].shape.append(2),
        lambda message: message.outputs[0].shape.append(-1),
        lambda message: setattr(message.outputs[0], "datatype", "BF16"),
        lambda message: setattr(message.outputs[0], "name", "word"),
        lambda message: message.ClearField("outputs"),
    ],
)
def test_other_replies_are_left_to_protobuf(change):
    message = plain()
    change(message)
    assert read(message.SerializeToString()) is None


def test_failures_and_attributions_are_not_replies():
    assert plain_prediction(Failure("code"), round_trip_s=0.5, explains=False) is None
    assert plain_prediction(plain().SerializeToString(), round_trip_s=0.5, explains=True) is None


def test_heads_that_differ_each_time_do_not_fill_the_memory():
    for rows in range(1, 3000):
        message = pb.ModelInferResponse(model_name="m")
        message.outputs.add(name="p", datatype="INT8", shape=[rows])
        message.raw_output_contents.append(bytes(rows))
        assert read(message.SerializeToString()) is not None
    assert len(module._known) <= 1024
