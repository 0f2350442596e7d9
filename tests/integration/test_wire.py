"""Foreign clients against a real server: the protocol's six methods, streams, health, reflection, and bad input."""

import queue
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from tritonclient.utils import InferenceServerException

from penstock import inference_pb2 as pb
from penstock.tensors import to_raw

Server = Any  # the process that conftest starts

TIMEOUT_S = 20.0
ROWS = np.array([[1.0, 2.0], [-1.0, -3.0], [0.5, 0.25]], np.float32)


@pytest.fixture(scope="module", params=["", "[serving]\nplain_requests = false\n"], ids=["plain", "general"])
def server_settings(request: pytest.FixtureRequest) -> str:
    """What compiled kernels answer is the same as what the general path answers."""
    settings: str = request.param
    return settings


@pytest.fixture(scope="module")
def client(repository_server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(repository_server.grpc) as opened:
        yield opened


@pytest.fixture(scope="module")
def channel(repository_server: Server) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(repository_server.grpc) as opened:
        yield opened


def tensor(name: str, values: np.ndarray[Any, Any], datatype: str = "FP32") -> triton.InferInput:
    made = triton.InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values)
    return made


def infer(channel: grpc.Channel, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
    method = channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=pb.ModelInferRequest.SerializeToString,
        response_deserializer=pb.ModelInferResponse.FromString,
    )
    return method(request, timeout=TIMEOUT_S)


def request(
    name: str = "flag",
    *,
    tensor_name: str = "X",
    datatype: str = "FP32",
    shape: tuple[int, ...] = (3, 2),
    raw: bytes | None = ROWS.tobytes(),
    **fields: Any,
) -> pb.ModelInferRequest:
    made = pb.ModelInferRequest(model_name=name, **fields)
    made.inputs.add(name=tensor_name, datatype=datatype, shape=shape)
    if raw is not None:
        made.raw_input_contents.append(raw)
    return made


def test_tritonclient_sees_a_ready_server(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("flag")
    assert client.is_model_ready("flag", "1")
    assert client.is_model_ready("flag", "@champion")
    metadata = client.get_model_metadata("flag")
    assert [(spec.name, spec.datatype, list(spec.shape)) for spec in metadata.inputs] == [("X", "FP32", [-1, 2])]
    assert client.get_server_metadata().name == "penstock"


def test_tritonclient_index(client: triton.InferenceServerClient) -> None:
    index = client.get_model_repository_index()
    assert [(model.name, model.version, model.state) for model in index.models] == [
        ("flag", "1", "READY"),
        ("strings", "3", "READY"),
    ]


def test_tritonclient_infers(client: triton.InferenceServerClient) -> None:
    result = client.infer("flag", [tensor("X", ROWS)], request_id="r-1")
    assert result.as_numpy("label").tolist() == [1, 0, 1]
    reply = result.get_response()
    assert (reply.id, reply.model_version, reply.parameters["penstock_role"].string_param) == ("r-1", "1", "champion")


def test_tritonclient_infers_asynchronously(client: triton.InferenceServerClient) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    for _ in range(50):
        client.async_infer("flag", [tensor("X", ROWS)], lambda result, error: answers.put(error or result))
    for _ in range(50):
        assert answers.get(timeout=TIMEOUT_S).as_numpy("label").tolist() == [1, 0, 1]


def test_tritonclient_streams_in_order_and_goes_on_after_an_error(repository_server: Server) -> None:
    answers: queue.Queue[Any] = queue.Queue()
    with triton.InferenceServerClient(repository_server.grpc) as client:
        client.start_stream(lambda result, error: answers.put(error or result))
        for number in range(30):
            model = "nothing" if number == 10 else "flag"
            client.async_stream_infer(model, [tensor("X", ROWS[:1] * (number + 1))], request_id=str(number))
        found = [answers.get(timeout=TIMEOUT_S) for _ in range(30)]
        client.stop_stream()
    assert isinstance(found[10], InferenceServerException)
    assert "'nothing' is not served" in str(found[10])
    assert [result.get_response().id for result in found if result is not found[10]] == [
        str(number) for number in range(30) if number != 10
    ]


def test_a_stream_ends_with_a_status_when_asked_to(channel: grpc.Channel) -> None:
    method = channel.stream_stream(
        "/inference.GRPCInferenceService/ModelStreamInfer",
        request_serializer=pb.ModelInferRequest.SerializeToString,
        response_deserializer=pb.ModelStreamInferResponse.FromString,
    )
    replies = method(iter([request("nothing")]), timeout=TIMEOUT_S, metadata=(("triton_grpc_error", "true"),))
    with pytest.raises(grpc.RpcError) as caught:
        list(replies)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


def test_strings_and_numbers_go_both_ways(client: triton.InferenceServerClient) -> None:
    text = np.array([["a", "é"], ["", "x" * 1000]], dtype=object)
    result = client.infer("strings", [tensor("text", text, "BYTES"), tensor("x", ROWS[:2])])
    assert [[value.decode() for value in row] for row in result.as_numpy("text_out")] == text.tolist()
    assert np.array_equal(result.as_numpy("x_out"), ROWS[:2])


def test_typed_contents_are_read(channel: grpc.Channel) -> None:
    made = request(raw=None)
    made.inputs[0].contents.fp32_contents.extend(ROWS.ravel().tolist())
    reply = infer(channel, made)
    assert np.frombuffer(reply.raw_output_contents[0], np.int64).tolist() == [1, 0, 1]


def test_outputs_can_be_chosen(client: triton.InferenceServerClient) -> None:
    result = client.infer("flag", [tensor("X", ROWS)], outputs=[triton.InferRequestedOutput("probabilities")])
    assert result.as_numpy("label") is None
    assert result.as_numpy("probabilities").shape == (3, 2)


def test_no_rows_are_no_error(channel: grpc.Channel) -> None:
    reply = infer(channel, request(shape=(0, 2), raw=b""))
    assert [list(output.shape) for output in reply.outputs] == [[0], [0, 2]]


def test_large_messages_pass(client: triton.InferenceServerClient) -> None:
    rows = np.tile(ROWS, (400_000, 1))  # 9.6 MB, beyond grpc's default of 4
    assert len(client.infer("flag", [tensor("X", rows)]).as_numpy("label")) == len(rows)


BAD_REQUESTS = {
    "unknown model": (request("nothing"), "NOT_FOUND", "model 'nothing' is not served; served now: 'flag', 'strings'"),
    "unknown version": (request(model_version="9"), "NOT_FOUND", "no version '9'; served now: 1"),
    "unknown alias": (request(model_version="@best"), "NOT_FOUND", "expected one of @champion, @canary, @shadow"),
    "alias nobody has": (request(model_version="@canary"), "NOT_FOUND", "has no canary now"),
    "wrong datatype": (request(datatype="FP64", raw=bytes(48)), "INVALID_ARGUMENT", "datatype 'FP64', expected FP32"),
    "wrong rank": (request(shape=(6,)), "INVALID_ARGUMENT", "shape [6], expected [-1, 2]"),
    "wrong width": (request(shape=(2, 3)), "INVALID_ARGUMENT", "shape [2, 3], expected [-1, 2]"),
    "negative shape": (request(shape=(-3, 2)), "INVALID_ARGUMENT", "shape [-3, 2], expected [-1, 2]"),
    "short contents": (request(raw=bytes(20)), "INVALID_ARGUMENT", "takes 24 bytes, got 20"),
    "no contents": (request(raw=None), "INVALID_ARGUMENT", "takes 6 elements, got 0"),
    "wrong name": (request(tensor_name="Y"), "INVALID_ARGUMENT", "missing input 'X'; unknown input 'Y'"),
    "unknown output": (
        request(outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name="z")]),
        "INVALID_ARGUMENT",
        "unknown output 'z'; expected some of 'label', 'probabilities'",
    ),
    "sequence": (
        request(parameters={"sequence_id": pb.InferParameter(int64_param=7)}),
        "INVALID_ARGUMENT",
        "stateful sequence",
    ),
    "wrong parameter type": (
        request(parameters={"priority": pb.InferParameter(string_param="high")}),
        "INVALID_ARGUMENT",
        "expected int64_param or uint64_param",
    ),
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_the_error_for_a_bad_request_says_what_was_expected(channel: grpc.Channel, name: str) -> None:
    made, code, sentence = BAD_REQUESTS[name]
    with pytest.raises(grpc.RpcError) as caught:
        infer(channel, made)
    assert caught.value.code().name == code
    assert sentence in caught.value.details()
    assert len(infer(channel, request()).outputs) == 2  # and goes on serving


@pytest.mark.parametrize(
    ("add", "sentence"),
    [
        (lambda made: made.inputs.add(name="X", datatype="FP32", shape=[1, 2]), "2 inputs"),
        (lambda made: made.inputs[0].contents.fp32_contents.append(1.0), "expected one or the other"),
        (lambda made: made.raw_input_contents.append(b""), "2 entries for 1 inputs"),
    ],
)
def test_mixed_contents_are_refused(channel: grpc.Channel, add: Any, sentence: str) -> None:
    made = request()
    add(made)
    with pytest.raises(grpc.RpcError) as caught:
        infer(channel, made)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert sentence in caught.value.details()


def test_torn_strings_are_refused(channel: grpc.Channel) -> None:
    made = pb.ModelInferRequest(model_name="strings")
    made.inputs.add(name="text", datatype="BYTES", shape=[1, 2])
    made.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    made.raw_input_contents.extend([to_raw(np.array(["a", "b"]))[:-1], ROWS[:1].tobytes()])
    with pytest.raises(grpc.RpcError) as caught:
        infer(channel, made)
    assert "'text' takes 2 BYTES elements" in caught.value.details()


@pytest.mark.parametrize("method", ["ModelInfer", "ModelReady", "ModelMetadata", "RepositoryIndex"])
def test_bytes_that_are_no_protobuf_are_refused(channel: grpc.Channel, method: str) -> None:
    call = channel.unary_unary(f"/inference.GRPCInferenceService/{method}", request_serializer=bytes)
    with pytest.raises(grpc.RpcError) as caught:
        call(b"\xff\xff\xff\xff", timeout=TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "is not a" in caught.value.details()


def test_oversized_messages_are_refused(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        infer(channel, request(raw=bytes(65 * 1024 * 1024)))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert len(infer(channel, request()).outputs) == 2


def test_deadlines_in_microseconds_are_kept(channel: grpc.Channel) -> None:
    reply = infer(channel, request(parameters={"timeout": pb.InferParameter(int64_param=10_000_000)}))
    assert len(reply.outputs) == 2


def test_foreign_leftovers_are_ignored(channel: grpc.Channel) -> None:
    made = request(parameters={"my_key": pb.InferParameter(string_param="x")})
    made.inputs[0].parameters["binary_data_size"].int64_param = 24
    assert len(infer(channel, made).outputs) == 2


def test_model_ready_of_an_unknown_model_is_not_found(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="NOT_FOUND"):
        client.is_model_ready("nothing")


def test_models_are_not_loaded_by_calls_unless_that_is_allowed(client: triton.InferenceServerClient) -> None:
    for change in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException, match=r"PERMISSION_DENIED.*grpc\.allow_control"):
            change("flag")


def test_unserved_methods_say_so(channel: grpc.Channel) -> None:
    call = channel.unary_unary("/inference.GRPCInferenceService/ModelGuess")
    with pytest.raises(grpc.RpcError) as caught:
        call(b"", timeout=TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("service", ["", "inference.GRPCInferenceService", "flag"])
def test_health_checks(channel: grpc.Channel, service: str) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    reply = stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT_S)
    assert reply.status == health_pb2.HealthCheckResponse.SERVING
    watch = stub.Watch(health_pb2.HealthCheckRequest(service=service), timeout=TIMEOUT_S)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
    watch.cancel()


def test_health_of_an_unknown_service(channel: grpc.Channel) -> None:
    stub = health_pb2_grpc.HealthStub(channel)
    with pytest.raises(grpc.RpcError) as caught:
        stub.Check(health_pb2.HealthCheckRequest(service="nothing"), timeout=TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    watch = stub.Watch(health_pb2.HealthCheckRequest(service="nothing"), timeout=TIMEOUT_S)
    assert next(watch).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    watch.cancel()


def test_reflection_describes_the_service(channel: grpc.Channel) -> None:
    database = ProtoReflectionDescriptorDatabase(channel)
    assert set(database.get_services()) >= {"inference.GRPCInferenceService", "grpc.health.v1.Health"}
    found = database.FindFileContainingSymbol("inference.GRPCInferenceService")
    assert "ModelStreamInfer" in [method.name for method in found.service[0].method]
    with pytest.raises(KeyError):
        database.FindFileByName("secret.proto")


def test_refusals_are_counted_by_reason(repository_server: Server, channel: grpc.Channel) -> None:
    before = repository_server.total("penstock_refusals_total", model_name="flag", reason="invalid_input")
    unrouted = repository_server.total("penstock_unrouted_refusals_total", reason="not_found")
    for made in (request(shape=(6,)), request("nothing")):
        with pytest.raises(grpc.RpcError):
            infer(channel, made)
    assert repository_server.total("penstock_refusals_total", model_name="flag", reason="invalid_input") == before + 1
    assert repository_server.total("penstock_unrouted_refusals_total", reason="not_found") == unrouted + 1


@pytest.mark.parametrize("path", ["/inference.GRPCInferenceService/Nothing", "/a.B/C", "/" + "x" * 4000])
def test_calls_of_unknown_methods_are_counted(repository_server: Server, channel: grpc.Channel, path: str) -> None:
    before = repository_server.total("penstock_unrouted_refusals_total", reason="unsupported")
    with pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary(path)(bytes(10_000), timeout=TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert repository_server.total("penstock_unrouted_refusals_total", reason="unsupported") == before + 1
