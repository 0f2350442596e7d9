"""A model server in this process, for tests of code that calls one: functions answer, it fails when told, and keeps what came.

It speaks the Open Inference Protocol over gRPC, with streams and grpc.health.v1, to this client and to others.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from math import isnan, nan
from types import TracebackType
from typing import Any, Final, Self

import grpc
import numpy as np
from numpy.typing import NDArray

from penstock import inference_pb2 as pb
from penstock.names import (
    FEEDBACK_IDS,
    FEEDBACK_LABELS,
    FEEDBACK_MODEL,
    FEEDBACK_MODELS,
    FEEDBACK_ROWS,
    FEEDBACK_TAKEN,
    FEEDBACK_VALUES,
    HEALTH_SERVICE,
    INFER_METHOD,
    INFERENCE_SERVICE,
    PARAMETER_MODEL,
)
from penstock.tensors import datatype_of, from_raw, to_raw, typed_to_raw
from penstock_client.balance import SERVING
from penstock_client.prediction import texts_of
from penstock_client.streams import ENDS_WITH_STATUS

_NOT_SERVING: Final = b"\x08\x02"
_THREADS: Final = 8
_OPTIONS: Final = (("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1))
_ANY: Final = (-1,)

Answer = Callable[[dict[str, NDArray[Any]]], Mapping[str, Any]]
"""Makes the outputs, as arrays or lists by name, from the inputs by name; BYTES are `str` where they are UTF-8."""
Signature = Mapping[str, str | tuple[str, tuple[int, ...]]]
"""Each tensor's datatype, such as INT64, and its shape if that is not `[-1]`."""


@dataclass
class FakeModel:
    """One model: what it declares, and how it answers.

    Attributes:
        answer: makes the outputs; what it raises of `ValueError` is INVALID_ARGUMENT.
        inputs: what it declares; a request that has other inputs reaches `answer` all the same.
        outputs: what it declares of its outputs.
        version: of the answers.
        is_ready: whether it answers; UNAVAILABLE where not.
        parameters: of its answers, such as "penstock_role".
        missing: the inputs of texts that take None, and the text that stands for it.
    """

    answer: Answer
    inputs: Signature = field(default_factory=dict)
    outputs: Signature = field(default_factory=dict)
    version: str = "1"
    is_ready: bool = True
    parameters: Mapping[str, str | int] = field(default_factory=dict)
    missing: Mapping[str, str] = field(default_factory=dict)

    def metadata(self, name: str) -> pb.ModelMetadataResponse:
        """What the model declares."""
        inputs, outputs = _declared(self.inputs), _declared(self.outputs)
        for tensor in inputs:
            if tensor.name in self.missing:
                tensor.parameters["missing"].string_param = self.missing[tensor.name]
        return pb.ModelMetadataResponse(
            name=name, versions=[self.version], platform="fake", inputs=inputs, outputs=outputs
        )

    def reply(self, request: pb.ModelInferRequest) -> pb.ModelInferResponse:
        """The answer to a request; raises `ValueError` for one that it cannot read."""
        reply = pb.ModelInferResponse(model_name=request.model_name, model_version=self.version, id=request.id)
        wanted = {output.name for output in request.outputs}
        for name, given in self.answer(inputs_of(request)).items():
            if wanted and name not in wanted:
                continue
            values = np.asarray(given)
            datatype = datatype_of(values.dtype) if values.dtype.kind in "biuf" else "BYTES"
            values = values if datatype != "BYTES" else values.astype(object)
            reply.outputs.add(name=name, datatype=datatype, shape=values.shape)
            reply.raw_output_contents.append(to_raw(values, datatype))
        for name, value in self.parameters.items():
            if isinstance(value, str):
                reply.parameters[name].string_param = value
            else:
                reply.parameters[name].int64_param = value
        return reply


@dataclass(frozen=True, slots=True)
class Seen:
    """One call as it arrived.

    Attributes:
        method: such as "ModelInfer".
        request: the message.
        headers: what came beside it.
        remaining_s: the time that the caller has left; None without a deadline.
    """

    method: str
    request: Any
    headers: Mapping[str, str | bytes]
    remaining_s: float | None


@dataclass(frozen=True, slots=True)
class SeenLabel:
    """One label, or value, as it arrived at the reserved model of feedback.

    Attributes:
        model: that the answer was of.
        id: of the request that was answered.
        label: a text or a number; None where only a value came.
        value: what the answer was worth; None for nothing.
        row: within its request.
    """

    model: str
    id: str
    label: Any = None
    value: float | None = None
    row: int = 0


class FakeServer:
    """The server; it listens on a port of its own on this machine as soon as it is made.

    Attributes:
        models: by name; a test may change them at any time.
        seen: the calls that came, in their order.
        labels: those that `client.feedback` gave, in their order.
        is_healthy: what grpc.health.v1 and `ServerReady` say.
        address: where it listens.

    >>> from penstock_client import Client
    >>> with FakeServer() as server, Client(server.address) as client:
    ...     server.add("fares", lambda rows: {"fare": rows["age"] * 2.0}, inputs={"age": "INT64"})
    ...     client.predict("fares", {"age": [41, 7]})["fare"].tolist()
    [82.0, 14.0]

    The next calls can be made to fail, and what came can be looked at:

    >>> with FakeServer() as server, Client(server.address) as client:
    ...     server.add("fares", lambda rows: {"fare": rows["age"] * 2.0}, inputs={"age": "INT64"})
    ...     server.fail(grpc.StatusCode.UNAVAILABLE)
    ...     tried_again = client.predict("fares", {"age": 41}, headers={"x-tenant": "a"})
    ...     [call.headers["x-tenant"] for call in server.calls("ModelInfer")]
    ['a', 'a']

    Labels are kept too:

    >>> with FakeServer() as server, Client(server.address) as client:
    ...     client.feedback("fares", {"a-17": 82.0})
    ...     server.labels
    1
    [SeenLabel(model='fares', id='a-17', label=82.0, value=None, row=0)]
    """

    def __init__(
        self, models: Mapping[str, FakeModel] | None = None, *, credentials: grpc.ServerCredentials | None = None
    ) -> None:
        self.models = dict(models or {})
        self.seen: list[Seen] = []
        self.labels: list[SeenLabel] = []
        self.is_healthy = True
        self._failures: deque[tuple[grpc.StatusCode, str, Mapping[str, str]]] = deque()
        self._lock = threading.Lock()
        self._server = grpc.server(ThreadPoolExecutor(_THREADS), options=_OPTIONS)
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(INFERENCE_SERVICE, self._handlers()),
                grpc.method_handlers_generic_handler(
                    HEALTH_SERVICE, {"Check": grpc.unary_unary_rpc_method_handler(self._check)}
                ),
            )
        )
        port = (
            self._server.add_insecure_port("127.0.0.1:0")
            if credentials is None
            else self._server.add_secure_port("127.0.0.1:0", credentials)
        )
        self.address = f"127.0.0.1:{port}"
        self._server.start()

    def add(self, name: str, answer: Answer, **declared: Any) -> None:
        """Serves a model; `declared` are further attributes of `FakeModel`."""
        self.models[name] = FakeModel(answer, **declared)

    def fail(self, code: grpc.StatusCode, details: str = "no", *, times: int = 1, **trailers: str) -> None:
        """The next predictions end so; trailers are such as `grpc_retry_pushback_ms="100"`."""
        named = {name.replace("_", "-"): value for name, value in trailers.items()}
        self._failures.extend([(code, details, named)] * times)

    def calls(self, method: str) -> list[Seen]:
        """The calls of one method that came."""
        return [seen for seen in self.seen if seen.method == method]

    def stop(self) -> None:
        """Ends what is in flight, and listens no longer."""
        self._server.stop(None).wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def index(self, request: pb.RepositoryIndexRequest) -> pb.RepositoryIndexResponse:
        """The models and their states."""
        line = pb.RepositoryIndexResponse.ModelIndex
        lines = [
            line(name=name, version=model.version, state="READY" if model.is_ready else "UNAVAILABLE")
            for name, model in list(self.models.items())
            if model.is_ready or not request.ready
        ]
        return pb.RepositoryIndexResponse(models=lines)

    def infer(self, request: pb.ModelInferRequest, context: grpc.ServicerContext) -> pb.ModelInferResponse:
        """The answer to one prediction."""
        with self._lock:
            failure = self._failures.popleft() if self._failures else None
        if failure is not None:
            code, details, trailers = failure
            context.set_trailing_metadata(tuple(trailers.items()))
            context.abort(code, details)
        if request.model_name == FEEDBACK_MODEL:
            return self._feedback(request, context)
        model = self._model(request.model_name, context)
        if not model.is_ready:
            context.abort(grpc.StatusCode.UNAVAILABLE, f"model {request.model_name!r} is not ready")
        try:
            return model.reply(request)
        except ValueError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise

    def _feedback(self, request: pb.ModelInferRequest, context: grpc.ServicerContext) -> pb.ModelInferResponse:
        try:
            labels = _labels_of(request)
        except ValueError as error:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            raise
        self.labels.extend(labels)
        reply = pb.ModelInferResponse(model_name=FEEDBACK_MODEL, model_version="1", id=request.id)
        reply.outputs.add(name=FEEDBACK_TAKEN, datatype="INT64", shape=[1])
        reply.raw_output_contents.append(to_raw(np.array([len(labels)])))
        return reply

    def _handlers(self) -> dict[str, "grpc.RpcMethodHandler[Any, Any]"]:
        methods: dict[str, tuple[Any, Callable[[Any, grpc.ServicerContext], Any]]] = {
            "ServerLive": (pb.ServerLiveRequest, lambda _, __: pb.ServerLiveResponse(live=True)),
            "ServerReady": (pb.ServerReadyRequest, lambda _, __: pb.ServerReadyResponse(ready=self.is_healthy)),
            "ServerMetadata": (pb.ServerMetadataRequest, lambda _, __: pb.ServerMetadataResponse(name="fake")),
            "ModelReady": (
                pb.ModelReadyRequest,
                lambda request, context: pb.ModelReadyResponse(ready=self._model(request.name, context).is_ready),
            ),
            "ModelMetadata": (
                pb.ModelMetadataRequest,
                lambda request, context: self._model(request.name, context).metadata(request.name),
            ),
            INFER_METHOD: (pb.ModelInferRequest, self.infer),
            "RepositoryIndex": (pb.RepositoryIndexRequest, lambda request, _: self.index(request)),
        }
        found = {name: self._handler(name, *each) for name, each in methods.items()}
        found["ModelStreamInfer"] = grpc.stream_stream_rpc_method_handler(
            self._stream, pb.ModelInferRequest.FromString, pb.ModelStreamInferResponse.SerializeToString
        )
        return found

    def _handler(
        self, name: str, kind: Any, answer: Callable[[Any, grpc.ServicerContext], Any]
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        def handle(request: Any, context: grpc.ServicerContext) -> Any:
            self._see(name, request, context)
            return answer(request, context)

        return grpc.unary_unary_rpc_method_handler(handle, kind.FromString, lambda reply: reply.SerializeToString())

    def _stream(
        self, requests: Iterator[pb.ModelInferRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.ModelStreamInferResponse]:
        for request in requests:
            self._see("ModelStreamInfer", request, context)
            model = self.models.get(request.model_name)
            try:
                if model is None:
                    raise ValueError(f"no model {request.model_name!r} is served")
                yield pb.ModelStreamInferResponse(infer_response=model.reply(request))
            except ValueError as error:
                if ENDS_WITH_STATUS in context.invocation_metadata():
                    context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
                yield pb.ModelStreamInferResponse(error_message=str(error))

    def _check(self, _: bytes, context: grpc.ServicerContext) -> bytes:
        self._see("Check", b"", context)
        return SERVING if self.is_healthy else _NOT_SERVING

    def _see(self, method: str, request: Any, context: grpc.ServicerContext) -> None:
        headers = dict(context.invocation_metadata())
        self.seen.append(Seen(method, request, headers, context.time_remaining()))

    def _model(self, name: str, context: grpc.ServicerContext) -> FakeModel:
        if name not in self.models:
            context.abort(grpc.StatusCode.NOT_FOUND, f"no model {name!r} is served")
        return self.models[name]


def inputs_of(request: pb.ModelInferRequest) -> dict[str, NDArray[Any]]:
    """The inputs of a request by name, raw or typed; raises `ValueError` for contents that do not fit."""
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise ValueError(f"{len(request.inputs)} inputs have {len(raw)} raw contents")
    found: dict[str, NDArray[Any]] = {}
    for at, tensor in enumerate(request.inputs):
        content: bytes = raw[at] if raw else typed_to_raw(tensor)
        is_text = tensor.datatype == "BYTES"
        found[tensor.name] = (
            texts_of(content, tensor.shape) if is_text else from_raw(content, tensor.datatype, tensor.shape)
        )
    return found


def _labels_of(request: pb.ModelInferRequest) -> list[SeenLabel]:
    columns = {name: column.tolist() for name, column in inputs_of(request).items()}
    ids = columns.get(FEEDBACK_IDS, [])
    lengths = {len(column) for column in columns.values()}
    if not ids or lengths != {len(ids)}:
        raise ValueError(f"expected {FEEDBACK_IDS!r} and as many of each other input, got {sorted(columns)}")
    model = request.parameters[PARAMETER_MODEL].string_param
    models = columns.get(FEEDBACK_MODELS, [model] * len(ids))
    labels = columns.get(FEEDBACK_LABELS, [None] * len(ids))
    values = [None if isnan(value) else value for value in columns.get(FEEDBACK_VALUES, [nan] * len(ids))]
    rows = columns.get(FEEDBACK_ROWS, [0] * len(ids))
    return [SeenLabel(*each) for each in zip(models, ids, labels, values, rows, strict=True)]


def _declared(tensors: Signature) -> list[pb.ModelMetadataResponse.TensorMetadata]:
    spec = pb.ModelMetadataResponse.TensorMetadata
    pairs = {name: (each, _ANY) if isinstance(each, str) else each for name, each in tensors.items()}
    return [spec(name=name, datatype=datatype, shape=shape) for name, (datatype, shape) in pairs.items()]
