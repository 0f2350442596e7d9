"""A small model server in this process: a test scripts its failures and what each model declares."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
import pytest

from penstock import inference_pb2 as pb
from penstock import penstock_pb2
from penstock.tensors import NUMPY_TYPES, from_raw, to_raw
from penstock_client.testing import FakeModel, FakeServer

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
class Model(FakeModel):
    """A model of shapes in full, whose answer is a whole message."""

    def __init__(self, inputs: list[tuple[str, str, tuple[int, ...]]], answer: Callable[..., Any] = echo) -> None:
        declared = {name: (datatype, shape) for name, datatype, shape in inputs}
        super().__init__(answer, inputs=declared, missing={"city": ""})

    def reply(self, request: pb.ModelInferRequest) -> Any:
        return self.answer(request)  # type: ignore[arg-type]


class ScriptedServer(FakeServer):
    """`stuck` is asked without an answer, until a test says `ended`."""

    def __init__(self, credentials: grpc.ServerCredentials | None = None) -> None:
        self.arrived = threading.Event()
        self.ended = threading.Event()
        super().__init__(standard_models(), credentials=credentials)
        self.port = int(self.address.rpartition(":")[2])

    def index(self, request: pb.RepositoryIndexRequest) -> Any:
        lines = [("fares", "3", "READY", ""), ("fares", "4", "LOADING", "fetching")]
        line = pb.RepositoryIndexResponse.ModelIndex
        chosen = [
            line(name=n, version=v, state=s, reason=r) for n, v, s, r in lines if s == "READY" or not request.ready
        ]
        return pb.RepositoryIndexResponse(models=chosen)

    def infer(self, request: pb.ModelInferRequest, context: grpc.ServicerContext) -> Any:
        if request.model_name == "stuck":
            context.add_callback(self.ended.set)
            self.arrived.set()
            self.ended.wait(30)
        return super().infer(request, context)


def take_labels(inputs: dict[str, Any]) -> dict[str, Any]:
    """Takes all labels, as the reserved model does."""
    return {"taken": np.array([len(inputs["ids"])])}


def standard_models() -> dict[str, FakeModel]:
    models: dict[str, FakeModel] = {
        "fares": Model([("age", "INT64", (-1,)), ("city", "BYTES", (-1, 1))], fares),
        "iris": Model([("X", "FP32", (-1, 4))], iris),
        "numbers": Model([("a", "FP64", (-1,)), ("b", "INT64", (-1, 1))]),
        "stuck": Model([("x", "FP32", (-1,))]),
        "penstock.feedback": FakeModel(take_labels),
    }
    echoes = {datatype: Model([("x", datatype, (-1, -1, -1))]) for datatype in (*NUMPY_TYPES, "BYTES")}
    return models | echoes


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    fake = ScriptedServer()
    yield fake
    fake.ended.set()
    fake.stop()


@pytest.fixture(scope="module")
def shared_server() -> Iterator[ScriptedServer]:
    """For properties: one server for all examples, which must leave it as it was."""
    fake = ScriptedServer()
    yield fake
    fake.stop()


@pytest.fixture
def secure_server() -> Iterator[Callable[[grpc.ServerCredentials], ScriptedServer]]:
    """Starts servers with the credentials given, and stops them."""
    started: list[ScriptedServer] = []

    def start(credentials: grpc.ServerCredentials) -> ScriptedServer:
        started.append(ScriptedServer(credentials))
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
