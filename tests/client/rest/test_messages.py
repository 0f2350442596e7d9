"""What calls are in REST, and answers in gRPC, without a connection."""

import json

import grpc
import numpy as np
import pytest

from penstock import inference_pb2 as pb
from penstock_client.balance import HEALTH_METHOD, SERVING
from penstock_client.rest.messages import Reply, Request, offers_binary, outcome_of, request_of
from penstock_client.steps import Failure

SERVICE = "/inference.GRPCInferenceService/"
INFER = SERVICE + "ModelInfer"


def reply(status=200, body=None, headers=None, raw=b""):
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Reply(status, headers or {}, text + raw)


@pytest.mark.parametrize(
    ("method", "message", "verb", "path", "body"),
    [
        ("ServerLive", pb.ServerLiveRequest(), "GET", "/v2/health/live", b""),
        ("ServerReady", pb.ServerReadyRequest(), "GET", "/v2/health/ready", b""),
        ("ModelReady", pb.ModelReadyRequest(name="a b/c"), "GET", "/v2/models/a%20b%2Fc/ready", b""),
        ("ModelReady", pb.ModelReadyRequest(name="m", version="@c"), "GET", "/v2/models/m/versions/@c/ready", b""),
        ("ModelMetadata", pb.ModelMetadataRequest(name="m", version="3"), "GET", "/v2/models/m/versions/3", b""),
        ("RepositoryIndex", pb.RepositoryIndexRequest(), "POST", "/v2/repository/index", b"{}"),
        ("RepositoryIndex", pb.RepositoryIndexRequest(ready=True), "POST", "/v2/repository/index", b'{"ready": true}'),
    ],
)  # fmt: skip
def test_each_method_has_its_path(method, message, verb, path, body):
    request = request_of(SERVICE + method, message.SerializeToString(), is_binary=True)
    assert (request.verb, request.path, request.body) == (verb, path, body)


def test_checks_of_health_ask_whether_the_server_is_ready():
    assert request_of(HEALTH_METHOD, b"", is_binary=True) == Request("GET", "/v2/health/ready")
    assert outcome_of(HEALTH_METHOD, reply(200, b"")) == SERVING
    assert outcome_of(HEALTH_METHOD, reply(503, b"")) != SERVING


@pytest.mark.parametrize("path", ["/penstock.v1.Penstock/DriftState", SERVICE + "ModelConfig"])
def test_other_methods_are_left_to_grpc(path):
    failure = request_of(path, b"", is_binary=True)
    assert (failure.code, "ask by gRPC" in failure.details) == (grpc.StatusCode.UNIMPLEMENTED, True)


def asked(**fields):
    message = pb.ModelInferRequest(model_name="m", model_version="2", id="r", **fields)
    message.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    message.raw_input_contents.append(np.array([1.5, np.nan], np.float32).tobytes())
    message.parameters["routing_key"].string_param = "u"
    message.parameters["priority"].uint64_param = 2
    return message.SerializeToString()


def test_a_prediction_is_json_with_raw_contents_behind_it():
    request = request_of(INFER, asked(), is_binary=True)
    assert (request.verb, request.path) == ("POST", "/v2/models/m/versions/2/infer")
    headers = dict(request.headers)
    size = int(headers["Inference-Header-Content-Length"])
    assert headers["Content-Type"] == "application/octet-stream"
    assert json.loads(request.body[:size]) == {
        "id": "r",
        "parameters": {"routing_key": "u", "priority": 2, "binary_data_output": True},
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "parameters": {"binary_data_size": 8}}],
    }
    assert request.body[size:] == np.array([1.5, np.nan], np.float32).tobytes()


def test_a_prediction_is_json_alone_where_the_server_takes_no_more():
    request = request_of(INFER, asked(outputs=[{"name": "y"}]), is_binary=False)
    assert request.headers == (("Content-Type", "application/json"),)
    assert json.loads(request.body) == {
        "id": "r",
        "parameters": {"routing_key": "u", "priority": 2},
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.5, "NaN"]}],
        "outputs": [{"name": "y"}],
    }


def test_outputs_that_are_asked_for_are_wanted_raw():
    request = request_of(INFER, asked(outputs=[{"name": "y"}]), is_binary=True)
    head = json.loads(request.body[: int(dict(request.headers)["Inference-Header-Content-Length"])])
    assert head["outputs"] == [{"name": "y", "parameters": {"binary_data": True}}]
    assert "binary_data_output" not in head["parameters"]


def test_bytes_that_are_no_text_cannot_be_json():
    message = pb.ModelInferRequest(model_name="m", raw_input_contents=[b"\x01\0\0\0\xff"])
    message.inputs.add(name="t", datatype="BYTES", shape=[1])
    failure = request_of(INFER, message.SerializeToString(), is_binary=False)
    assert (failure.code, "input 't' holds bytes" in failure.details) == (grpc.StatusCode.INVALID_ARGUMENT, True)


DATA = {
    "flat": ("INT64", [2, 2], [1, 2, 3, 4], np.array([[1, 2], [3, 4]])),
    "nested": ("FP64", [2, 2], [[1, 2.5], [3, 4]], np.array([[1, 2.5], [3, 4]])),
    "words": (
        "FP32",
        [4],
        [None, "NaN", "Infinity", "-Infinity"],
        np.array([np.nan, np.nan, np.inf, -np.inf], np.float32),
    ),
    "bare words": ("FP32", [2], [float("nan"), float("inf")], np.array([np.nan, np.inf], np.float32)),
    "halves": ("FP16", [2], [0.5, 2], np.array([0.5, 2], np.float16)),
    "booleans": ("BOOL", [2], [True, False], np.array([True, False])),
    "large": ("UINT64", [1], [2**64 - 1], np.array([2**64 - 1], np.uint64)),
    "none": ("FP32", [0, 2], [], np.zeros((0, 2), np.float32)),
}


@pytest.mark.parametrize("name", DATA)
def test_data_in_json_become_raw_contents(name):
    datatype, shape, data, expected = DATA[name]
    output = {"name": "y", "datatype": datatype, "shape": shape, "data": data}
    found = outcome_of(INFER, reply(body={"model_name": "m", "outputs": [output]}))
    message = pb.ModelInferResponse.FromString(found)
    assert message.raw_output_contents[0] == expected.tobytes()
    assert list(message.outputs[0].shape) == shape


def test_raw_contents_of_an_answer_are_taken_in_their_order():
    outputs = [
        {"name": "a", "datatype": "UINT8", "shape": [2], "parameters": {"binary_data_size": 2}},
        {"name": "b", "datatype": "BYTES", "shape": [1], "data": ["t"]},
        {"name": "c", "datatype": "UINT8", "shape": [1], "parameters": {"binary_data_size": 1, "of": "x"}},
    ]
    parameters = {"penstock_role": "canary", "n": 3, "h": 0.5, "b": True}
    whole = {"model_name": "m", "model_version": "2", "id": "r", "parameters": parameters, "outputs": outputs}
    body = json.dumps(whole).encode()
    message = pb.ModelInferResponse.FromString(
        outcome_of(INFER, reply(body=body, headers={"inference-header-content-length": str(len(body))}, raw=b"\1\2\3"))
    )
    assert list(message.raw_output_contents) == [b"\1\2", b"\1\0\0\0t", b"\3"]
    assert (message.model_version, message.id) == ("2", "r")
    assert message.parameters["penstock_role"].string_param == "canary"
    assert (message.parameters["n"].int64_param, message.parameters["h"].double_param) == (3, 0.5)
    assert message.parameters["b"].bool_param
    assert dict(message.outputs[2].parameters).keys() == {"of"}


@pytest.mark.parametrize(
    "body",
    [
        b"no JSON",
        b"[]",
        b"{}",
        {"model_name": "m", "outputs": [{"name": "y"}]},
        {"model_name": "m", "outputs": [{"name": "y", "datatype": "FP32", "shape": [2], "data": [1]}]},
        {"model_name": "m", "outputs": [{"name": "y", "datatype": "FP32", "shape": [1], "data": ["one"]}]},
        {"model_name": "m", "outputs": [{"name": "y", "datatype": "FP31", "shape": [1], "data": [1]}]},
        {"model_name": "m", "outputs": [{"name": "y", "datatype": "BYTES", "shape": [1], "data": [1]}]},
        {"model_name": "m", "outputs": [{"name": "y", "datatype": "F", "shape": [1], "parameters": {"binary_data_size": 4}}]},
    ],
)  # fmt: skip
def test_answers_that_cannot_be_read_are_failures_of_the_server(body):
    failure = outcome_of(INFER, reply(body=body))
    assert failure.code is grpc.StatusCode.INTERNAL
    assert "cannot be read" in failure.details


@pytest.mark.parametrize(
    ("status", "body", "code", "details"),
    [
        (400, {"error": "wrong tensor"}, grpc.StatusCode.INVALID_ARGUMENT, "wrong tensor"),
        (422, {"detail": [{"msg": "x"}]}, grpc.StatusCode.INVALID_ARGUMENT, '{"detail": [{"msg": "x"}]}'),
        (404, {"error": "no such model"}, grpc.StatusCode.NOT_FOUND, "no such model"),
        (404, {"detail": "Not Found"}, grpc.StatusCode.UNIMPLEMENTED, "Not Found"),
        (404, b"", grpc.StatusCode.UNIMPLEMENTED, "the server answered with HTTP status 404"),
        (429, {"error": "full"}, grpc.StatusCode.RESOURCE_EXHAUSTED, "full"),
        (503, b"upstream", grpc.StatusCode.UNAVAILABLE, "upstream"),
        (504, {"error": "late"}, grpc.StatusCode.DEADLINE_EXCEEDED, "late"),
        (418, {"error": "tea"}, grpc.StatusCode.UNKNOWN, "tea"),
    ],
)
def test_errors_keep_their_meaning(status, body, code, details):
    failure = outcome_of(INFER, reply(status, body))
    assert isinstance(failure, Failure)
    assert (failure.code, failure.details, failure.pushback_s) == (code, details, None)


@pytest.mark.parametrize(
    ("headers", "pushback_s"),
    [({"retry-after": "2"}, 2.0), ({"grpc-retry-pushback-ms": "50"}, 0.05), ({"retry-after": "Thu, 26 Nov"}, None)],
)
def test_what_a_server_says_about_another_attempt_is_heard(headers, pushback_s):
    assert outcome_of(INFER, reply(503, b"", headers)).pushback_s == pushback_s


@pytest.mark.parametrize(
    ("status", "body", "is_ready"),
    [
        (200, b"", True),
        (200, {"ready": False}, False),
        (200, {"name": "m", "ready": True}, True),
        (503, b"", False),
        (400, {"error": "x"}, False),
    ],
)
def test_readiness_is_a_status_and_what_the_body_says(status, body, is_ready):
    found = pb.ModelReadyResponse.FromString(outcome_of(SERVICE + "ModelReady", reply(status, body)))
    assert found.ready is is_ready


def test_metadata_and_index_are_read():
    described = {
        "name": "m",
        "platform": None,
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1], "parameters": {"missing": ""}}],
    }
    message = pb.ModelMetadataResponse.FromString(outcome_of(SERVICE + "ModelMetadata", reply(body=described)))
    assert (message.name, message.inputs[0].parameters["missing"].string_param) == ("m", "")
    index = pb.RepositoryIndexResponse.FromString(
        outcome_of(SERVICE + "RepositoryIndex", reply(body=[{"name": "m", "state": "READY"}]))
    )
    assert (index.models[0].name, index.models[0].version) == ("m", "")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (reply(body={"extensions": ["binary_tensor_data"]}), True),
        (reply(body={"extensions": []}), False),
        (reply(body={}), False),
        (reply(404, b""), False),
        (reply(body=b"hello"), False),
    ],
)
def test_the_binary_extension_is_named_in_the_servers_metadata(found, expected):
    assert offers_binary(found) is expected
