import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import inference_pb2 as pb
from penstock.names import PARAMETER_BATCH_ROWS, PARAMETER_COMPUTE_US, PARAMETER_QUEUE_US, PARAMETER_ROLE
from penstock.tensors import NUMPY_TYPES, to_raw
from penstock_server.errors import InvalidInputError
from penstock_server.models.signature import TensorInfo
from penstock_server.prediction.encode import ReplyEncoder, encoded_id
from penstock_server.rest.open_inference import PLAIN, Messages, Replies, ReplyForm, json_length, reply_body

X = {"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [[1, 2.5]]}


def message_of(body: Any, binary: bytes = b"") -> tuple[pb.ModelInferRequest, ReplyForm]:
    encoded = body if isinstance(body, bytes) else json.dumps(body).encode()
    message, form = Messages().infer("m", "3", encoded + binary, len(encoded) if binary else None)
    return pb.ModelInferRequest.FromString(message), form


def test_a_request_becomes_the_message_that_a_grpc_client_would_send() -> None:
    request, form = message_of(
        {
            "id": "a",
            "parameters": {"priority": 1, "timeout": 2**63, "routing_key": "k", "explain": True, "half": 0.5},
            "inputs": [X, {"name": "t", "datatype": "BYTES", "shape": [1], "data": ["é"], "parameters": {"p": "q"}}],
            "outputs": [{"name": "y", "parameters": {"classification": 2}}],
        }
    )
    assert (request.model_name, request.model_version, request.id) == ("m", "3", "a")
    assert {name: each.WhichOneof("parameter_choice") for name, each in request.parameters.items()} == {
        "priority": "int64_param", "timeout": "uint64_param", "routing_key": "string_param", "explain": "bool_param",
        "half": "double_param",
    }  # fmt: skip
    assert [(each.name, each.datatype, list(each.shape)) for each in request.inputs] == [
        ("x", "FP32", [1, 2]),
        ("t", "BYTES", [1]),
    ]
    assert request.inputs[1].parameters["p"].string_param == "q"
    assert list(request.raw_input_contents) == [np.array([1, 2.5], "<f4").tobytes(), b"\x02\x00\x00\x00" + "é".encode()]
    assert request.outputs[0].parameters["classification"].int64_param == 2
    assert form is PLAIN


def test_raw_contents_follow_the_json() -> None:
    raw = np.array([1, 2], "<f4").tobytes()
    request, form = message_of(
        {
            "parameters": {"binary_data_output": True},
            "inputs": [
                {"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}},
                {"name": "n", "datatype": "INT8", "shape": [1], "data": [3]},
                {"name": "t", "datatype": "BYTES", "shape": [0], "parameters": {"binary_data_size": 0}},
            ],
            "outputs": [{"name": "y"}, {"name": "z", "parameters": {"binary_data": False}}],
        },
        raw,
    )
    assert list(request.raw_input_contents) == [raw, b"\x03", b""]
    assert not request.parameters
    assert not request.inputs[0].parameters
    assert form == ReplyForm(is_binary=True, outputs={"y": True, "z": False})


def test_python_s_words_for_numbers_that_are_not_finite_are_read() -> None:
    body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[3],"data":[NaN,Infinity,-Infinity]}]}'
    request, _ = message_of(body)
    np.testing.assert_array_equal(np.frombuffer(request.raw_input_contents[0], "<f4"), [np.nan, np.inf, -np.inf])


def test_the_head_of_a_message_is_made_once_and_is_the_same() -> None:
    messages, body = Messages(), json.dumps({"inputs": [X]}).encode()
    first, _ = messages.infer("m", "", body, None)
    second, form = messages.infer("m", "", body, None)
    assert (first, form) == (second, PLAIN)
    assert messages.infer("other", "", body, None)[0] != first


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"inputs": [{"name": "\xff"}]}', "not JSON: .*utf-8"),
        (b'{"inputs": [{"name": "x", "datatype": "BYTES", "shape": [1], "data": ["\xff"]}]}', "not UTF-8|not JSON"),
        (b"[]", r"Expected `object`, got `array`"),
        (b'{"inputs": [{"name": "x"}]}', r"missing required field `datatype` - at `\$.inputs\[0\]`"),
        (b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": ["1"]}]}', r"at `\$.inputs\[0\].shape\[0\]`"),
        (b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1]}]}', "neither data nor binary_data_size"),
        (b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [-1], "data": []}]}', "expected no negative number"),
        (
            b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [0, 99999999999999999999], "data": []}]}',
            "too large",
        ),
        (
            b'{"inputs": [], "parameters": {"a": [1]}}',
            "parameter 'a' is a list, expected a boolean, a number or a text",
        ),
        (b'{"inputs": [], "parameters": {"a": 18446744073709551616}}', "parameter 'a' is"),
        (b'{"inputs": [], "parameters": {"binary_data_output": 1}}', "'binary_data_output' of the request is 1"),
        (
            b'{"inputs": [], "outputs": [{"name": "y", "parameters": {"binary_data": "yes"}}]}',
            "'binary_data' of output 'y' is 'yes'",
        ),
        (b'{"inputs": ' + b"[" * 3000 + b"]" * 3000 + b"}", "JSON|expected"),
        (b'{"a": ' + b"[" * 3000 + b"NaN" + b"]" * 3000 + b"}", "JSON|expected"),
    ],
)
def test_what_is_no_request_is_refused_with_its_place(body: bytes, said: str) -> None:
    with pytest.raises(InvalidInputError, match=said):
        message_of(body)


@pytest.mark.parametrize(
    ("size", "data", "binary", "said"),
    [
        (9, None, b"12345678", "is 9, expected 0 to 8, the bytes that are left"),
        (-1, None, b"12345678", "is -1, expected 0 to 8"),
        ("8", None, b"12345678", "is '8', expected 0 to 8"),
        (True, None, b"12345678", "is true, expected 0 to 8"),
        (4, None, b"12345678", "4 bytes behind the JSON belong to no tensor"),
        (8, [1, 2], b"12345678", "both data and binary_data_size"),
    ],
)
def test_raw_contents_that_are_not_all_a_tensor_s_are_refused(size: Any, data: Any, binary: bytes, said: str) -> None:
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": size}}
    with pytest.raises(InvalidInputError, match=said):
        message_of({"inputs": [tensor if data is None else {**tensor, "data": data}]}, binary)


@pytest.mark.parametrize("header", [b"-1", b"x", b"", b"11", b"1e1", b"9" * 30, "²".encode("latin-1")])
def test_a_header_length_that_is_none_is_refused(header: bytes) -> None:
    with pytest.raises(InvalidInputError, match=r"inference-header-content-length is .*, expected a number up to 10"):
        json_length(header, 10)


def test_a_header_length_may_be_all_of_the_body_or_not_be_there() -> None:
    assert (json_length(b"10", 10), json_length(None, 10)) == (10, None)


SPECS = (
    TensorInfo("label", "INT64", (-1,)),
    TensorInfo('p"%d', "FP32", (-1, 3), parameters=(("of", "50 % {}"),)),
)


def replies(rows: int, request_id: str, values: tuple[int, int, float]) -> bytes:
    encoder = ReplyEncoder(("m%s", "1"), "champion", SPECS)
    arrays = [np.full(rows, values[0], "<i8"), np.full((rows, 3), values[2], "<f4")]
    return encoder.batch(arrays, rows, values[1] * 1e-6).reply(0, rows, encoded_id(request_id), None, values[1])


@given(
    st.lists(
        st.tuples(
            st.integers(1, 3),
            st.sampled_from(["", "a", 'é"\\']),
            st.tuples(st.integers(-9, 9), st.integers(0, 10**6), st.floats(width=32)),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_bodies_from_texts_say_what_bodies_from_messages_say(
    asked: list[tuple[int, str, tuple[int, int, float]]],
) -> None:
    made = Replies()
    for rows, request_id, values in asked:
        message = replies(rows, request_id, values)
        expected, _ = reply_body(message, PLAIN)
        for _ in range(2):
            body, json_bytes = made.body(message, PLAIN)
            assert json.loads(body) == json.loads(expected)
            assert json_bytes is None


def test_a_reply_in_json_has_all_of_it() -> None:
    body = json.loads(reply_body(replies(1, "a", (7, 5, 0.5)), PLAIN)[0])
    assert body == {
        "model_name": "m%s",
        "model_version": "1",
        "id": "a",
        "parameters": {
            PARAMETER_ROLE: "champion",
            PARAMETER_COMPUTE_US: 5,
            PARAMETER_BATCH_ROWS: 1,
            PARAMETER_QUEUE_US: 5,
        },
        "outputs": [
            {"name": "label", "datatype": "INT64", "shape": [1], "data": [7]},
            {"name": 'p"%d', "datatype": "FP32", "shape": [1, 3], "parameters": {"of": "50 % {}"}, "data": [0.5] * 3},
        ],
    }


def test_replies_that_the_server_does_not_write_so_are_made_from_the_message() -> None:
    made = Replies()
    texts = pb.ModelInferResponse(model_name="m", raw_output_contents=[b"\x01\x00\x00\x00a"])
    texts.outputs.add(name="t", datatype="BYTES", shape=[1])
    for _ in range(10):
        assert json.loads(made.body(texts.SerializeToString(), PLAIN)[0])["outputs"][0]["data"] == ["a"]
    assert json.loads(made.body(pb.ModelInferResponse(model_name="m").SerializeToString(), PLAIN)[0])["outputs"] == []


@pytest.mark.parametrize("datatype", sorted(NUMPY_TYPES))
def test_raw_contents_of_a_reply_follow_its_json(datatype: str) -> None:
    raw = to_raw(np.array([1, 0], NUMPY_TYPES[datatype]), datatype)
    reply = pb.ModelInferResponse(model_name="m", raw_output_contents=[raw, b"\x05"])
    reply.outputs.add(name="y", datatype=datatype, shape=[2])
    reply.outputs.add(name="z", datatype="INT8", shape=[1])
    body, json_bytes = reply_body(reply.SerializeToString(), ReplyForm(is_binary=True, outputs={"z": False}))
    assert json_bytes is not None
    first, second = json.loads(body[:json_bytes])["outputs"]
    assert body[json_bytes:] == raw
    assert first == {"name": "y", "datatype": datatype, "shape": [2], "parameters": {"binary_data_size": len(raw)}}
    assert second["data"] == [5]
