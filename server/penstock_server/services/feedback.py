"""The roads by which labels come: Feedback, one message or a stream, and a reserved model of the Open Inference Protocol.

Each message is acknowledged when its labels lie in the worker's file (`labels.label_file`). Messages with many labels are read
on a thread, since that takes as long as a batch.
"""

import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import numpy as np
import structlog

from penstock import inference_pb2
from penstock import penstock_pb2 as pb
from penstock.inference_pb2 import ModelInferRequest
from penstock.names import (
    CONTROL_SERVICE,
    FEEDBACK_IDS,
    FEEDBACK_LABELS,
    FEEDBACK_METHOD,
    FEEDBACK_MODEL,
    FEEDBACK_MODELS,
    FEEDBACK_ROWS,
    FEEDBACK_STREAM_METHOD,
    FEEDBACK_TAKEN,
    FEEDBACK_VALUES,
    FEEDBACK_VERSION,
    PARAMETER_OPTIONAL,
)
from penstock_server.call import Call
from penstock_server.errors import (
    InvalidInputError,
    NotFoundError,
    OverloadedError,
    PenstockError,
    UnsupportedError,
)
from penstock_server.labels import wire
from penstock_server.labels.label_file import LabelWriter
from penstock_server.labels.settings import LabelSettings
from penstock_server.parse import OPEN_INFERENCE, parse
from penstock_server.prediction.model_thread import ModelThread
from penstock_server.prediction.predictor import Predictor
from penstock_server.transport.interface import Methods

log = structlog.get_logger(__name__)

LARGE_BYTES: Final = 16 * 1024
"""A message from this size on, which may hold 500 labels, is read on the thread."""
MOST_WAITING: Final = 64
"""Messages of one stream that may wait while one is read."""
PLATFORM: Final = "penstock_feedback"
_PREFIX: Final = b"\x0a" + bytes((len(FEEDBACK_MODEL),)) + FEEDBACK_MODEL.encode()
"""How a message to the reserved model begins: with its name, as all clients write it."""
_OFF: Final = "labels are not taken here: the server was started without [labels] enabled, or penstock serve --labels"

Read = Callable[[bytes], "np.ndarray[Any, np.dtype[np.int64]]"]


class Feedback:
    """Takes labels.

    Args:
        settings: of labels.
        writer: where they go; None where none are taken.
        predictor: knows what is served.
        thread: reads large messages; None reads them at once.
        now_ns: since 1970.
    """

    def __init__(
        self,
        settings: LabelSettings,
        writer: LabelWriter | None,
        predictor: Predictor,
        *,
        thread: ModelThread | None = None,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._settings = settings
        self._writer = writer
        self._predictor = predictor
        self._thread = thread
        self._now_ns = now_ns

    @property
    def is_on(self) -> bool:
        """Whether labels are taken."""
        return self._writer is not None

    @property
    def methods(self) -> Methods:
        """Those of `penstock.v1`."""
        path = f"/{CONTROL_SERVICE}/"
        return Methods(
            {path + FEEDBACK_METHOD: self._feedback},
            {path + FEEDBACK_STREAM_METHOD: lambda call: _Stream(self, call).receive},
        )

    def is_asked(self, message: bytes) -> bool:
        """Whether a message of `ModelInfer` brings labels."""
        return self._writer is not None and message.startswith(_PREFIX)

    def infer(self, message: bytes, call: Call) -> None:
        """Takes the labels of a request to the reserved model."""
        request = parse(ModelInferRequest, message, OPEN_INFERENCE)
        if request.model_name != FEEDBACK_MODEL:
            # Its name comes twice, and the last counts.
            self._predictor.infer(message, call)
            return
        identifier = request.id

        def answer(taken: int) -> bytes:
            reply = inference_pb2.ModelInferResponse(
                model_name=FEEDBACK_MODEL, model_version=FEEDBACK_VERSION, id=identifier
            )
            reply.outputs.add(name=FEEDBACK_TAKEN, datatype="INT64", shape=[1])
            reply.raw_output_contents.append(np.int64(taken).tobytes())
            return reply.SerializeToString()

        self.take(lambda: wire.labels_in(request), len(message), call, lambda taken: call.finish(answer(taken)))

    def metadata(self) -> inference_pb2.ModelMetadataResponse:
        """What the reserved model declares."""
        reply = inference_pb2.ModelMetadataResponse(name=FEEDBACK_MODEL, versions=[FEEDBACK_VERSION], platform=PLATFORM)
        for name, datatype, is_optional in (
            (FEEDBACK_IDS, "BYTES", False),
            (FEEDBACK_LABELS, "BYTES", True),
            (FEEDBACK_VALUES, "FP64", True),
            (FEEDBACK_ROWS, "INT64", True),
            (FEEDBACK_MODELS, "BYTES", True),
        ):
            tensor = reply.inputs.add(name=name, datatype=datatype, shape=[-1])
            if is_optional:
                tensor.parameters[PARAMETER_OPTIONAL].bool_param = True
        reply.outputs.add(name=FEEDBACK_TAKEN, datatype="INT64", shape=[1])
        return reply

    def _feedback(self, message: bytes, call: Call) -> None:
        self.feedback(message, call, lambda taken: call.finish(_taken(taken)))

    def feedback(self, message: bytes, call: Call, then: Callable[[int], None]) -> None:
        """Takes the labels of a message of Penstock's own; `then` learns how many they were."""
        request = parse(pb.FeedbackRequest, message, CONTROL_SERVICE)
        if not request.passed_on:
            self.take(lambda: wire.labels_of(request), len(message), call, then)
        elif request.ids or request.model:
            raise InvalidInputError("labels that are passed on come alone, got ids or a model too")
        else:
            self._write(wire.passed_records(request.passed_on, self._now_ns()), then)

    def take(self, read: Callable[[], wire.Labels], size: int, call: Call, then: Callable[[int], None]) -> None:
        """Takes what is read: at once, or on the thread if it is large."""
        now_ns = self._now_ns()
        check = partial(self._check, self._predictor.routing_table.models.keys())

        def work() -> Any:
            try:
                return wire.records_of(read(), check, now_ns)
            except PenstockError as error:
                error.__traceback__ = None  # its frames would hold the message
                return error
            except Exception:
                log.exception("labels cannot be read")
                return PenstockError()

        def written(found: Any) -> None:
            try:
                if isinstance(found, PenstockError):
                    raise found
                self._write(found, then)
            except PenstockError as error:
                call.fail(type(error)(str(error)))

        if size > LARGE_BYTES and self._thread is not None:
            self._thread.start(work, written)
        else:
            written(work())

    def _write(self, records: Any, then: Callable[[int], None]) -> None:
        if self._writer is None:
            raise UnsupportedError(_OFF)
        self._writer.take(records)
        then(len(records))

    def _check(self, served: Any, model: str) -> None:
        if self._writer is None:
            raise UnsupportedError(_OFF)
        if model not in served:
            known = ", ".join(repr(each) for each in sorted(served)) or "no model yet"
            raise NotFoundError(f"model {model[:100]!r} is not served; served now: {known}")
        if not self._settings.is_on_for(model):
            raise NotFoundError(
                f"labels of model {model!r} are not taken here; labels.models.{model}.enabled turns them on"
            )


class _Stream:
    """Many messages over one call, each acknowledged in its turn; the first error ends it."""

    def __init__(self, feedback: Feedback, call: Call) -> None:
        self._feedback = feedback
        self._call = call
        self._waiting: deque[bytes] = deque()
        self._is_busy = self._is_half_closed = self._is_going = False

    def receive(self, message: bytes | None) -> None:
        if message is None:
            self._is_half_closed = True
        elif len(self._waiting) >= MOST_WAITING:
            raise OverloadedError(
                f"{MOST_WAITING} messages of this stream wait; wait for the replies, each of which comes"
            )
        else:
            self._waiting.append(message)
        self._go_on()

    def _go_on(self) -> None:
        if self._is_going:
            return
        self._is_going = True
        while self._waiting and not self._is_busy and not self._call.is_over:
            self._is_busy = True
            try:
                self._feedback.feedback(self._waiting.popleft(), self._call, self._replied)
            except PenstockError as error:
                self._call.fail(error)
        self._is_going = False
        if self._is_half_closed and not self._is_busy and not self._waiting:
            self._call.finish()

    def _replied(self, taken: int) -> None:
        self._call.send(_taken(taken))
        self._is_busy = False
        self._go_on()


def _taken(count: int) -> bytes:
    return pb.FeedbackResponse(taken=count).SerializeToString()
