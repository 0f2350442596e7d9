"""Requests by plan have the bytes of those by the general way, or leave it to that."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import inference_pb2 as pb
from penstock_client.errors import InvalidRequestError
from penstock_client.metadata import ModelMetadata, TensorSpec
from penstock_client.plan import Plans
from penstock_client.request import RequestOptions, infer_payload
from penstock_client.rows import table_of
from penstock_client.tensors import InputTensor, arrange

DATATYPES = ["FP32", "FP64", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "BYTES", "BOOL"]
TEXT = st.text(max_size=300)
VALUES = st.one_of(
    st.floats(),
    st.floats(width=32),
    st.integers(-(2**65), 2**65),
    st.integers(-300, 300),
    TEXT,
    st.none(),
    st.booleans(),
    st.binary(max_size=9),
    st.sampled_from([np.float64(1.5), np.float32(2.5), np.int64(3), np.str_("x"), "\ud800", [1.0], np.array([1.0])]),
)
SPECS = st.builds(
    TensorSpec,
    name=st.sampled_from("abcdef"),
    datatype=st.sampled_from(DATATYPES),
    shape=st.sampled_from([(-1,), (-1, 1)]),
    missing=st.sampled_from([None, "", "absent"]),
)
INPUTS = st.lists(SPECS, min_size=1, max_size=5, unique_by=lambda spec: spec.name)
OPTIONS = st.builds(
    RequestOptions,
    model=st.just("m"),
    version=st.sampled_from(["", "@champion"]),
    outputs=st.sampled_from([None, [], ["p", "q"]]),
    routing_key=st.none() | TEXT,
    request_id=st.none() | TEXT,
    priority=st.none() | st.integers(0, 2**64 - 1),
    explain=st.booleans(),
)
PLAIN = {
    "FP32": st.floats(width=32) | st.integers(-(2**24), 2**24) | st.none(),
    "FP64": st.floats() | st.integers(-(2**53), 2**53),
    "BYTES": TEXT,
    "INT8": st.integers(-128, 127),
    "INT64": st.integers(-(2**63), 2**63 - 1),
    "UINT16": st.integers(0, 2**16 - 1),
    "UINT64": st.integers(0, 2**64 - 1),
}


def declared(inputs):
    return ModelMetadata("m", ("1",), "onnx", tuple(inputs), ())


def general(options, rows, inputs):
    """The payload by the general way, or the error."""
    try:
        options.check()
        layout = arrange(table_of(rows), tuple(inputs), extra=options.extra)
        return infer_payload(options, layout.tensors), layout
    except (InvalidRequestError, UnicodeEncodeError) as error:
        return error, None


def learned(options, rows, inputs):
    plans, model = Plans(), declared(inputs)
    payload, layout = general(options, rows, inputs)
    if layout is not None:
        plans.learn(options, rows, layout, model)
    return plans, {(options.model, options.version): model}, payload


@given(INPUTS, OPTIONS, st.data())
def test_a_planned_row_has_the_bytes_of_the_general_way(inputs, options, data):
    first = {spec.name: data.draw(PLAIN.get(spec.datatype, VALUES)) for spec in inputs}
    plans, known, _ = learned(options, first, inputs)
    rows = {name: data.draw(VALUES | st.just(first[name])) for name in first}
    planned = plans.payload(options, rows, known)
    if planned is not None:
        assert planned == general(options, rows, inputs)[0]


@given(st.sampled_from(sorted(PLAIN)), st.sampled_from([(-1,), (-1, 1)]), OPTIONS, st.data())
def test_a_plain_row_is_planned(datatype, shape, options, data):
    inputs = [TensorSpec("a", datatype, shape, missing="")]
    plans, known, payload = learned(options, {"extra": 1, "a": data.draw(PLAIN[datatype])}, inputs)
    assert isinstance(payload, bytes)
    rows = {"extra": object(), "a": data.draw(PLAIN[datatype])}
    assert plans.payload(options, rows, known) == general(options, {**rows, "extra": 0}, inputs)[0]


@given(st.integers(1, 4), st.integers(1, 5), st.sampled_from(["FP32", "FP64", "INT32"]), st.data())
def test_an_array_of_the_tensors_own_type_is_planned(rows, columns, datatype, data):
    inputs = [TensorSpec("x", datatype, (-1, columns))]
    dtype = {"FP32": "<f4", "FP64": "<f8", "INT32": "<i4"}[datatype]
    array = np.array(data.draw(st.lists(st.integers(-9, 9), min_size=rows * columns, max_size=rows * columns)), dtype)
    array = array.reshape(rows, columns)
    options = RequestOptions(model="m")
    plans, known, payload = learned(options, array, inputs)
    assert plans.payload(options, array, known) == payload
    assert plans.payload(options, np.asfortranarray(array), known) == payload
    assert plans.payload(options, array[:, :-1], known) is None
    assert plans.payload(options, array.astype(">i2"), known) is None


def test_an_array_of_another_type_is_not_planned():
    inputs = [TensorSpec("x", "FP64", (-1, 2))]
    for array in (
        np.zeros((1, 2), ">f8"),
        np.zeros((1, 2), int),
        np.ma.masked_array(np.zeros((1, 2)), [[True, False]]),
    ):
        plans, known, payload = learned(RequestOptions(model="m"), array, inputs)
        assert isinstance(payload, bytes)
        assert plans.payload(RequestOptions(model="m"), array, known) is None


def test_an_array_for_columns_is_planned():
    inputs = [TensorSpec("a", "INT64", (-1,)), TensorSpec("b", "FP32", (-1, 1))]
    plans, known, payload = learned(RequestOptions(model="m"), np.ones((1, 2), np.float32), inputs)
    assert plans.payload(RequestOptions(model="m"), np.ones((1, 2), np.float32), known) == payload


def test_a_model_that_was_described_anew_has_no_plan():
    inputs = [TensorSpec("a", "FP32", (-1,))]
    options, rows = RequestOptions(model="m"), {"a": 1.0}
    plans, known, payload = learned(options, rows, inputs)
    assert plans.payload(options, rows, known) == payload
    assert plans.payload(options, rows, {("m", ""): declared(inputs)}) is None
    assert plans.payload(options, rows, {}) is None


@pytest.mark.parametrize(
    "options",
    [
        {"outputs": "ab"},
        {"outputs": {"a": 1, "b": 2}},
        {"routing_key": 7},
        {"request_id": 7},
        {"priority": -1},
        {"version": []},
        {"extra": "drop"},
    ],
)
def test_options_that_cannot_be_sent_are_left_to_the_general_way(options):
    inputs = [TensorSpec("a", "FP32", (-1,))]
    rows = {"a": 1.0}
    plans, known, _ = learned(RequestOptions(model="m", outputs=["a", "b"]), rows, inputs)
    for made in (
        RequestOptions(model="m", **options),
        RequestOptions(**{"model": "m", "outputs": ["a", "b"]} | options),
    ):
        assert plans.payload(made, rows, known) is None


def test_columns_that_go_by_position_are_not_planned():
    inputs = [TensorSpec("x", "FP32", (-1, 2))]
    rows = {"p": 1.0, "q": 2.0}
    plans, known, _ = learned(RequestOptions(model="m"), rows, inputs)
    assert plans.payload(RequestOptions(model="m"), rows, known) is None


def test_rows_without_names_or_of_several_are_not_planned():
    inputs = [TensorSpec("a", "FP32", (-1,))]
    for rows, specs in (
        ({0: 1.0}, inputs),
        ({"a": [1.0, 2.0]}, inputs),
        ([{"a": 1.0}], inputs),
        ({"a": 1.0}, []),
        ({}, []),
        ({"a": [[1.0, 2.0]]}, [TensorSpec("a", "FP32", (-1, 2))]),
        ({"a": 1.0}, [TensorSpec("a", "FP16", (-1,))]),
    ):
        plans, known, payload = learned(RequestOptions(model="m"), rows, specs)
        assert isinstance(payload, bytes)
        assert plans.payload(RequestOptions(model="m"), rows, known) is None


def test_plans_do_not_fill_the_memory():
    plans, inputs = Plans(), [TensorSpec("x", "FP32", (-1, 1))]
    for rows in range(1, 1000):
        array = np.zeros((rows, 1), np.float32)
        plans.learn(
            RequestOptions(model="m"), array, general(RequestOptions(model="m"), array, inputs)[1], declared(inputs)
        )
    assert 0 < len(plans._plans) <= 256


TENSORS = st.lists(
    st.builds(
        InputTensor,
        name=TEXT,
        datatype=st.just("FP32"),
        values=st.lists(st.integers(0, 3), max_size=3).map(lambda shape: np.zeros(shape, np.float32)),
    ),
    max_size=4,
)


@given(OPTIONS, TENSORS, st.booleans())
def test_a_request_is_what_protobuf_would_write(options, tensors, for_any_version):
    written = infer_payload(options, tensors, for_any_version=for_any_version)
    message = pb.ModelInferRequest(
        model_name=options.model,
        model_version=options.version,
        id=options.request_id or "",
        inputs=[
            pb.ModelInferRequest.InferInputTensor(name=each.name, datatype=each.datatype, shape=each.values.shape)
            for each in tensors
        ],
        outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name=name) for name in options.outputs or ()],
        raw_input_contents=[each.values.tobytes() for each in tensors],
    )
    if options.routing_key is not None:
        message.parameters["routing_key"].string_param = options.routing_key
    if for_any_version:
        message.parameters["extra_columns"].string_param = "ignore"
    if options.explain:
        message.parameters["explain"].bool_param = True
    if options.priority is not None:
        message.parameters["priority"].uint64_param = options.priority
    assert pb.ModelInferRequest.FromString(written) == message
    if len(message.parameters) < 2 and options.routing_key != "" and options.priority != 0:
        assert written == message.SerializeToString()


def test_floats_are_rounded_alike():
    inputs = [TensorSpec("a", "FP32", (-1,))]
    options = RequestOptions(model="m")
    plans, known, _ = learned(options, {"a": 1.0}, inputs)
    for value in (
        0.1,
        1e-46,
        -1e-45,
        16777217.0,
        3.4028235e38,
        float("inf"),
        float("nan"),
        None,
        True,
        2**24 + 1,
        1e39,
    ):
        planned, (expected, _) = plans.payload(options, {"a": value}, known), general(options, {"a": value}, inputs)
        assert planned in (expected, None)
    assert plans.payload(options, {"a": 0.1}, known).endswith(struct.pack("<f", 0.1))
