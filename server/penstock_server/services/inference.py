"""The methods of the Open Inference Protocol, answered by a predictor and its routing table."""

import json
import threading
from collections import deque
from functools import partial
from importlib.metadata import version as installed_version
from typing import Final

from penstock import inference_pb2 as pb
from penstock.names import (
    ATTRIBUTIONS,
    FEEDBACK_MODEL,
    INFERENCE_SERVICE,
    PARAMETER_COLUMNS,
    PARAMETER_METHOD,
    PARAMETER_MISSING,
    PARAMETER_OF,
    PARAMETER_OPTIONAL,
    PARAMETER_TIME,
    SERVER_NAME,
)
from penstock.wire import varint
from penstock_server.call import STREAMED, Call, Cancellable, Metadata
from penstock_server.errors import PenstockError
from penstock_server.parse import OPEN_INFERENCE, parse_small
from penstock_server.prediction.executor import Executor
from penstock_server.prediction.predictor import Predictor
from penstock_server.prediction.routing_table import RoutingTable
from penstock_server.services import triton
from penstock_server.services.feedback import Feedback
from penstock_server.services.model_config import platform_of
from penstock_server.transport.interface import Methods, UnaryHandler
from penstock_server.transport.status import status_of

MODEL_INFER: Final = f"/{INFERENCE_SERVICE}/ModelInfer"
EXTENSIONS: Final = ("binary_tensor_data", "model_repository", "parameters", *triton.EXTENSIONS)
_REAL_STATUS: Final = "triton_grpc_error"


def inference_methods(predictor: Predictor, feedback: Feedback | None = None, *, waits: bool = True) -> Methods:
    """Every method of `inference.GRPCInferenceService` that is served; one model of it takes labels, if some are taken.

    `ModelMetadata` waits for a model that is not in memory as a request does, unless its caller can only be answered at once.
    """
    feedback = feedback if feedback is not None and feedback.is_on else None
    service = _Inference(predictor, feedback)
    infer = predictor.infer if feedback is None else partial(_infer_or_label, predictor, feedback)
    path = f"/{INFERENCE_SERVICE}/"
    return Methods(
        unary={
            MODEL_INFER: infer,
            path + "ServerLive": service.server_live,
            path + "ServerReady": service.server_ready,
            path + "ModelReady": service.model_ready,
            path + "ServerMetadata": service.server_metadata,
            path + "ModelMetadata": predictor.when_loaded(service.model_metadata) if waits else service.model_metadata,
            path + "RepositoryIndex": service.repository_index,
        },
        streams={path + "ModelStreamInfer": lambda call: _Stream(infer, call).receive},
    )


def _infer_or_label(predictor: Predictor, feedback: Feedback, message: bytes, call: Call) -> None:
    if feedback.is_asked(message):
        feedback.infer(message, call)
    else:
        predictor.infer(message, call)


class _Inference:
    """The methods that only read the routing table; each answers at once."""

    def __init__(self, predictor: Predictor, feedback: Feedback | None) -> None:
        self._predictor = predictor
        self._feedback = feedback
        self._version = installed_version("penstock")

    @property
    def _routing_table(self) -> RoutingTable:
        return self._predictor.routing_table

    def server_live(self, _message: bytes, call: Call) -> None:
        call.finish(pb.ServerLiveResponse(live=True).SerializeToString())

    def server_ready(self, _message: bytes, call: Call) -> None:
        call.finish(pb.ServerReadyResponse(ready=self._routing_table.is_ready).SerializeToString())

    def model_ready(self, message: bytes, call: Call) -> None:
        request = parse_small(pb.ModelReadyRequest, message, OPEN_INFERENCE)
        if self._feedback is None or request.name != FEEDBACK_MODEL:
            self._routing_table.model(request.name).check_ready(request.version)
        call.finish(pb.ModelReadyResponse(ready=True).SerializeToString())

    def server_metadata(self, _message: bytes, call: Call) -> None:
        reply = pb.ServerMetadataResponse(name=SERVER_NAME, version=self._version, extensions=EXTENSIONS)
        call.finish(reply.SerializeToString())

    def model_metadata(self, message: bytes, call: Call) -> None:
        request = parse_small(pb.ModelMetadataRequest, message, OPEN_INFERENCE)
        if self._feedback is not None and request.name == FEEDBACK_MODEL:
            call.finish(self._feedback.metadata().SerializeToString())
            return
        model = self._routing_table.model(request.name)
        executor = model.resolve(request.version or "@champion", "")
        reply = pb.ModelMetadataResponse(
            name=request.name, versions=sorted(model.executors), platform=platform_of(executor)
        )
        for tensor in executor.decoder.inputs:
            added = reply.inputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            if tensor.columns:
                added.parameters[PARAMETER_COLUMNS].string_param = json.dumps(tensor.columns, ensure_ascii=False)
            if tensor.missing is not None:
                added.parameters[PARAMETER_MISSING].string_param = tensor.missing
            if tensor.time is not None:
                added.parameters[PARAMETER_TIME].string_param = tensor.time
            if tensor.is_optional:
                added.parameters[PARAMETER_OPTIONAL].bool_param = True
        for tensor in executor.servable.outputs:
            reply.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        if executor.explaining is not None:
            # As an output of its own, clients that ask for every output would ask for it too.
            reply.outputs[0].parameters[ATTRIBUTIONS].string_param = _explained(executor.explaining)
        call.finish(reply.SerializeToString())

    def repository_index(self, message: bytes, call: Call) -> None:
        request = parse_small(pb.RepositoryIndexRequest, message, OPEN_INFERENCE)
        reply = pb.RepositoryIndexResponse()
        for name, model in sorted(self._routing_table.models.items()):
            if model.problem and not model.statuses and not request.ready:
                reply.models.add(name=name, state="UNAVAILABLE", reason=model.problem)
            for version, status in sorted(model.statuses.items()):
                if status.state in {"READY", "STANDBY"} or not request.ready:
                    reply.models.add(name=name, version=version, state=status.state, reason=status.reason)
        call.finish(reply.SerializeToString())


def _explained(executor: Executor) -> str:
    """How attributions are computed, and of what."""
    parameters = dict(executor.servable.outputs[-1].parameters)
    return f"{parameters[PARAMETER_METHOD]}, of {parameters[PARAMETER_OF]}"


class _Stream:
    """`ModelStreamInfer`: many requests over one call, answered in the order in which they came.

    As with Triton, an error is a message of the stream, which goes on; a caller that sets the metadata
    `triton_grpc_error` gets a gRPC status instead, which ends the stream.
    """

    def __init__(self, infer: UnaryHandler, call: Call) -> None:
        self._infer = infer
        self._call = call
        self._answers: deque[_StreamedCall] = deque()
        # Answers may come from an executor's thread.
        self._lock = threading.RLock()
        self._is_half_closed = False
        self._wants_status = any(key == _REAL_STATUS and value == "true" for key, value in call.metadata())
        call.pending = self

    def receive(self, message: bytes | None) -> None:
        if message is None:
            self._is_half_closed = True
            self.flush()
            return
        answer = _StreamedCall(self)
        self._answers.append(answer)
        try:
            self._infer(message, answer)
        except PenstockError as error:
            answer.fail(error)

    def cancelled(self) -> None:
        with self._lock:
            for answer in self._answers:
                answer.leave()
            self._answers.clear()

    @property
    def call(self) -> Call:
        return self._call

    def flush(self) -> None:
        with self._lock:
            while self._answers and self._answers[0].reply is not None:
                self._send(self._answers.popleft().reply)
            if self._is_half_closed and not self._answers:
                self._call.pending = None
                self._call.finish()

    def _send(self, reply: bytes | PenstockError | None) -> None:
        if isinstance(reply, bytes):
            self._call.send(_enveloped(reply))
        elif reply is not None and self._wants_status:
            self._call.fail(reply)
            self.cancelled()
        elif reply is not None:
            self._call.send(pb.ModelStreamInferResponse(error_message=status_of(reply).details).SerializeToString())


class _StreamedCall:
    """One request of a stream, in the form of a unary call, so that the predictor need not know."""

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream
        self.deadline_s = stream.call.deadline_s
        self.is_over = False
        self.pending: Cancellable | None = None
        # Metadata belongs to the stream, not to one of its requests: what a handler sets here is not sent.
        self.headers: Metadata = ()
        self.trailers: Metadata = ()
        self.reply: bytes | PenstockError | None = None

    kind = STREAMED

    def watch(self) -> None:
        """Does nothing: a stream is watched from its start."""

    def metadata(self) -> Metadata:
        return self._stream.call.metadata()

    def peer(self) -> tuple[str, ...]:
        return self._stream.call.peer()

    def send(self, message: bytes) -> None:
        self.finish(message)

    def finish(self, message: bytes | None = None) -> None:
        self._end(message or b"")

    def fail(self, error: PenstockError) -> None:
        # Kept as a new error: the one that was raised refers to its frames, and these to this call and to a whole batch.
        self._end(type(error)(str(error)))

    def leave(self) -> None:
        if not self.is_over:
            self.is_over = True
            pending, self.pending = self.pending, None
            if pending is not None:
                pending.cancelled()

    def _end(self, reply: bytes | PenstockError) -> None:
        if not self.is_over:
            self.is_over = True
            self.reply = reply
            self._stream.flush()


def _enveloped(reply: bytes) -> bytes:
    """`ModelStreamInferResponse` with the encoded response as field 2, copied without being parsed."""
    return b"\x12" + varint(len(reply)) + reply
