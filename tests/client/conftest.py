"""A small model server in this process: a test scripts its failures and what each model declares."""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import pytest

from penstock import inference_pb2 as pb
from penstock import penstock_pb2
from penstock.tensors import NUMPY_TYPES, from_raw, to_raw

SERVICE = "inference.GRPCInferenceService"
OPTIONS = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)]
Inputs = dict[str, np.ndarray[Any, Any]]


def tensors_of(request: pb.ModelInferRequest) -> Inputs:
    return {
        tensor.name: from_raw(raw, tensor.datatype, tensor.shape)
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True)
    }


def reply_to(request: pb.ModelInferRequest, outputs: dict[str, tuple[str, Any]], version: str = "1") -> Any:
    arrays = {name: np.asarray(values) for name, (_, values) in outputs.items()}
    return pb.ModelInferResponse(
        model_name=request.model_name,
        model_version=version,
        id=request.id,
        outputs=[
            pb.ModelInferResponse.InferOutputTensor(name=name, datatype=datatype, shape=arrays[name].shape)
            for name, (datatype, _) in outputs.items()
        ],
        raw_output_contents=[to_raw(arrays[name], datatype) for name, (datatype, _) in outputs.items()],
    )


def echo(request: pb.ModelInferRequest) -> Any:
    values = tensors_of(request)
    return reply_to(request, {tensor.name: (tensor.datatype, values[tensor.name]) for tensor in request.inputs})


def fares(request: pb.ModelInferRequest) -> Any:
    reply = reply_to(request, {"fare": ("FP64", tensors_of(request)["age"] * 2.0)}, version="3")
    reply.parameters["penstock_role"].string_param = "champion"
    reply.parameters["penstock_queue_us"].int64_param = 250
    reply.parameters["penstock_compute_us"].int64_param = 40
    reply.parameters["penstock_batch_rows"].int64_param = 8
    return reply


def iris(request: pb.ModelInferRequest) -> Any:
    rows = len(tensors_of(request)["X"])
    return reply_to(request, {"species": ("BYTES", np.array(["setosa"] * rows, object))}, version="1")


@dataclass
class Model:
    inputs: list[tuple[str, str, tuple[int, ...]]]
    answer: Callable[[pb.ModelInferRequest], Any] = echo

    def metadata(self, name: str) -> Any:
        spec = pb.ModelMetadataResponse.TensorMetadata
        inputs = [spec(name=name, datatype=datatype, shape=shape) for name, datatype, shape in self.inputs]
        for tensor in inputs:
            if tensor.name == "city":
                tensor.parameters["missing"].string_param = ""
        return pb.ModelMetadataResponse(name=name, versions=["1"], platform="fake", inputs=inputs)


@dataclass
class Seen:
    """One call as it arrived."""

    method: str
    request: Any
    headers: dict[str, Any]
    remaining_s: float | None


@dataclass
class FakeServer:
    credentials: grpc.ServerCredentials | None = None
    models: dict[str, Model] = field(default_factory=dict)
    failures: deque[tuple[grpc.StatusCode, str, dict[str, str]]] = field(default_factory=deque)
    seen: list[Seen] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)
    ended: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(8), options=OPTIONS)
        methods = {name: self._handler(name, *kinds) for name, kinds in self._methods().items()}
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
        self.port = (
            self._server.add_insecure_port("127.0.0.1:0")
            if self.credentials is None
            else self._server.add_secure_port("127.0.0.1:0", self.credentials)
        )
        self.address = f"127.0.0.1:{self.port}"
        self._server.start()

    def stop(self) -> None:
        self._server.stop(None).wait()

    def fail(self, code: grpc.StatusCode, details: str = "no", *, times: int = 1, **trailers: str) -> None:
        """The next calls of ModelInfer end so."""
        named = {name.replace("_", "-"): value for name, value in trailers.items()}
        self.failures.extend([(code, details, named)] * times)

    def calls(self, method: str) -> list[Seen]:
        return [seen for seen in self.seen if seen.method == method]

    def _methods(self) -> dict[str, tuple[type, Callable[..., Any]]]:
        return {
            "ServerLive": (pb.ServerLiveRequest, lambda _, __: pb.ServerLiveResponse(live=True)),
            "ServerReady": (pb.ServerReadyRequest, lambda _, __: pb.ServerReadyResponse(ready=True)),
            "ModelReady": (pb.ModelReadyRequest, self._ready),
            "ModelMetadata": (pb.ModelMetadataRequest, self._metadata),
            "ModelInfer": (pb.ModelInferRequest, self._infer),
            "RepositoryIndex": (pb.RepositoryIndexRequest, self._index),
        }

    def _handler(self, name: str, kind: Any, answer: Callable[..., Any]) -> "grpc.RpcMethodHandler[Any, Any]":
        def handle(request: Any, context: grpc.ServicerContext) -> Any:
            headers = dict(context.invocation_metadata())
            self.seen.append(Seen(name, request, headers, context.time_remaining()))
            return answer(request, context)

        return grpc.unary_unary_rpc_method_handler(handle, kind.FromString, lambda reply: reply.SerializeToString())

    def _model(self, name: str, context: grpc.ServicerContext) -> Model:
        if name not in self.models:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no model {name!r} is served")
        return self.models[name]

    def _ready(self, request: Any, context: grpc.ServicerContext) -> Any:
        return pb.ModelReadyResponse(ready=bool(self._model(request.name, context)))

    def _metadata(self, request: Any, context: grpc.ServicerContext) -> Any:
        return self._model(request.name, context).metadata(request.name)

    def _index(self, request: Any, context: grpc.ServicerContext) -> Any:
        lines = [("fares", "3", "READY", ""), ("fares", "4", "LOADING", "fetching")]
        line = pb.RepositoryIndexResponse.ModelIndex
        chosen = [
            line(name=n, version=v, state=s, reason=r) for n, v, s, r in lines if s == "READY" or not request.ready
        ]
        return pb.RepositoryIndexResponse(models=chosen)

    def _infer(self, request: Any, context: grpc.ServicerContext) -> Any:
        if self.failures:
            code, details, trailers = self.failures.popleft()
            context.set_trailing_metadata(tuple(trailers.items()))
            context.abort(code, details)
        if request.model_name == "stuck":
            context.add_callback(self.ended.set)
            self.arrived.set()
            self.ended.wait(30)
        return self._model(request.model_name, context).answer(request)


def standard_models() -> dict[str, Model]:
    models = {
        "fares": Model([("age", "INT64", (-1,)), ("city", "BYTES", (-1, 1))], fares),
        "iris": Model([("X", "FP32", (-1, 4))], iris),
        "numbers": Model([("a", "FP64", (-1,)), ("b", "INT64", (-1, 1))]),
        "stuck": Model([("x", "FP32", (-1,))]),
    }
    echoes = {datatype: Model([("x", datatype, (-1, -1, -1))]) for datatype in (*NUMPY_TYPES, "BYTES")}
    return models | echoes


@pytest.fixture
def server() -> Iterator[FakeServer]:
    fake = FakeServer(models=standard_models())
    yield fake
    fake.ended.set()
    fake.stop()


@pytest.fixture(scope="module")
def shared_server() -> Iterator[FakeServer]:
    """For properties: one server for all examples, which must leave it as it was."""
    fake = FakeServer(models=standard_models())
    yield fake
    fake.stop()


@pytest.fixture
def secure_server() -> Iterator[Callable[[grpc.ServerCredentials], FakeServer]]:
    """Starts servers with the credentials given, and stops them."""
    started: list[FakeServer] = []

    def start(credentials: grpc.ServerCredentials) -> FakeServer:
        started.append(FakeServer(credentials, models=standard_models()))
        return started[-1]

    yield start
    for fake in started:
        fake.stop()


def drift_state(request: penstock_pb2.DriftStateRequest, context: grpc.ServicerContext) -> Any:
    if request.model == "unknown":
        context.abort(grpc.StatusCode.NOT_FOUND, "no version of model 'unknown' is loaded")
    if request.model == "broken":
        return b"\xff"
    column = penstock_pb2.ColumnDrift(name="delay", p_value=0.5)
    version = penstock_pb2.VersionDrift(model=request.model, version=request.version, columns=[column])
    return penstock_pb2.DriftStateResponse(versions=[version]).SerializeToString()


@pytest.fixture(scope="session")
def drift_address() -> Iterator[str]:
    """Where a server of Penstock's own service answers; `server` has only the Open Inference Protocol."""
    server = grpc.server(ThreadPoolExecutor(2), options=OPTIONS)
    handler = grpc.unary_unary_rpc_method_handler(drift_state, penstock_pb2.DriftStateRequest.FromString)
    methods = grpc.method_handlers_generic_handler("penstock.v1.Penstock", {"DriftState": handler})
    server.add_generic_rpc_handlers((methods,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture(params=["sockets", "grpcio"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every client of the test reaches the server so, unless its settings leave it to grpcio."""
    if request.param == "grpcio":
        monkeypatch.setattr("penstock_client.base.target_of", lambda *_: "the test asks for grpcio")
    name: str = request.param
    return name


@pytest.fixture
def model_of() -> type[Model]:
    return Model
