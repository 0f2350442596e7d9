"""The fast transport: one thread drives grpcio's own completion queue, which `grpc.server` is built on.

Against `grpc.aio` it saves the event loop, its futures and one hand-off per call. The price is that
`grpc._cython.cygrpc` is internal to grpcio: only this file uses it, the versions are pinned, and `self_check` tries it
before it serves. Three of its properties shape the code:

- An operation holds C memory and is freed once: every batch of operations needs new ones.
- `poll(0)` gives an event without a tag when nothing is ready. The scheduler steps then, so a batch of predictions is what
  arrived while the last one ran.
- A tag is any object. Here it is the function that takes the event.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Any, Final

import structlog
from grpc._cython import cygrpc

from penstock_server.call import Cancellable, Metadata
from penstock_server.errors import InvalidInputError, PenstockError, UnsupportedError
from penstock_server.transport.interface import (
    IDLE_S,
    UNANSWERED_MESSAGES,
    Methods,
    Scheduler,
    StreamHandler,
    UnaryHandler,
    cannot_listen,
)
from penstock_server.transport.settings import TransportSettings
from penstock_server.transport.status import OK, Status, status_of

log = structlog.get_logger(__name__)

NO_FLAGS: Final = 0
PENDING_CALLS: Final = 128
"""Calls requested from the core ahead of their arrival; each arrival requests the next."""
EVENTS_PER_STEP: Final = 256
"""Events taken before the scheduler steps even though more are ready, so that a flood of arrivals starves no batch."""
FAR_AWAY_S: Final = 1e11
GIVE_UP_S: Final = 2.0
"""How long cancelled calls may take to end; then the server stops without them."""

Event = Any
"""cygrpc's events carry no types."""


def _ignore(_event: Event) -> None:
    """The tag of operations whose end changes nothing."""


def _deadline_s(wall_s: float) -> float:
    """A deadline on the monotonic clock; cygrpc gives it on the wall clock, far away when there is none."""
    return inf if wall_s > FAR_AWAY_S else wall_s - time.time() + time.monotonic()


class _QueueCall:
    """What unary calls and streams share: the deadline, metadata, and noticing that the caller left."""

    __slots__ = ("_call", "_is_watched", "_metadata", "deadline_s", "headers", "is_over", "pending", "trailers")

    def __init__(self, event: Event) -> None:
        self._call = event.call
        self._metadata = event.invocation_metadata
        self.deadline_s = _deadline_s(event.call_details.deadline)
        self.is_over = False
        self.pending: Cancellable | None = None
        self.headers: Metadata = ()
        self.trailers: Metadata = ()
        self._is_watched = False

    def metadata(self) -> Metadata:
        return tuple((key, value) for key, value in self._metadata)

    def watch(self) -> None:
        # It costs an operation and an event, which most calls save: they are answered before their caller could leave.
        if not self._is_watched and not self.is_over:
            self._is_watched = True
            self._call.start_server_batch((cygrpc.ReceiveCloseOnServerOperation(NO_FLAGS),), self._closed)

    def _closed(self, event: Event) -> None:
        if event.batch_operations[0].cancelled() and not self.is_over:
            self.is_over = True
            if self.pending is not None:
                self.pending.cancelled()
        self.pending = None


class _UnaryCall(_QueueCall):
    """One message in, one out."""

    __slots__ = ("_handler",)

    def __init__(self, event: Event, handler: UnaryHandler) -> None:
        super().__init__(event)
        self._handler = handler

    def open(self) -> None:
        self._call.start_server_batch((cygrpc.ReceiveMessageOperation(NO_FLAGS),), self._received)

    def _received(self, event: Event) -> None:
        message = event.batch_operations[0].message()
        if message is None:
            # The caller left, or the core refused the message and answered the call itself.
            if not self.is_over:
                self.fail(InvalidInputError("expected one message, the caller sent none"))
            return
        try:
            self._handler(message, self)
        except PenstockError as error:
            self.fail(error)
        except Exception:
            log.exception("handler failed")
            self.fail(PenstockError())

    def send(self, message: bytes) -> None:
        self.finish(message)

    def finish(self, message: bytes | None = None) -> None:
        if self.is_over:
            return
        self.is_over = True
        operations = (
            cygrpc.SendInitialMetadataOperation(self.headers, NO_FLAGS),
            cygrpc.SendMessageOperation(message or b"", NO_FLAGS),
            cygrpc.SendStatusFromServerOperation(self.trailers, cygrpc.StatusCode.ok, b"", NO_FLAGS),
        )
        self._call.start_server_batch(self._with_close(operations), _ignore)

    def fail(self, error: PenstockError) -> None:
        if self.is_over:
            return
        self.is_over = True
        opening = cygrpc.SendInitialMetadataOperation(self.headers, NO_FLAGS)
        operations = (opening, _status_operation(status_of(error), self.trailers))
        self._call.start_server_batch(self._with_close(operations), _ignore)

    def _with_close(self, operations: tuple[Any, ...]) -> tuple[Any, ...]:
        """Adds the close operation, without which the core would keep the call, unless `watch` has started it."""
        return operations if self._is_watched else (*operations, cygrpc.ReceiveCloseOnServerOperation(NO_FLAGS))


class _StreamCall(_QueueCall):
    """Messages both ways; one operation of each direction at a time, as the core demands.

    Replies may come from the thread that ran the model while the reactor handles the event of the last one sent, so the
    outbox has a lock; unary calls need none.
    """

    __slots__ = ("_end", "_handler", "_is_sending", "_lock", "_outbox", "_receiver", "_unanswered", "_wants_message")

    def __init__(self, event: Event, handler: StreamHandler) -> None:
        super().__init__(event)
        self._handler = handler
        self._receiver: Callable[[bytes | None], None] | None = None
        self._lock = threading.Lock()
        self._outbox: deque[bytes] = deque()
        self._end: Status | None = None
        self._is_sending = False
        self._unanswered = 0
        self._wants_message = False

    def open(self) -> None:
        self.watch()
        self._is_sending = True
        self._receiver = self._handler(self)
        self._call.start_server_batch((cygrpc.SendInitialMetadataOperation(self.headers, NO_FLAGS),), self._sent)
        if not self.is_over:
            self._call.start_server_batch((cygrpc.ReceiveMessageOperation(NO_FLAGS),), self._received)

    def _received(self, event: Event) -> None:
        if self.is_over or self._receiver is None:
            return
        message = event.batch_operations[0].message()
        if message is not None:
            with self._lock:
                self._unanswered += 1
        self._guarded(self._receiver, message)
        if message is not None:
            with self._lock:
                self._wants_message = True
                self._receive_more()

    def _guarded(self, receiver: Callable[[bytes | None], None], message: bytes | None) -> None:
        try:
            receiver(message)
        except PenstockError as error:
            self.fail(error)
        except Exception:
            log.exception("handler failed")
            self.fail(PenstockError())

    def _receive_more(self) -> None:
        """Requests the next message unless too many are unanswered."""
        if self._wants_message and not self.is_over and self._unanswered < UNANSWERED_MESSAGES:
            self._wants_message = False
            self._call.start_server_batch((cygrpc.ReceiveMessageOperation(NO_FLAGS),), self._received)

    def send(self, message: bytes) -> None:
        with self._lock:
            if not self.is_over:
                self._outbox.append(message)
                self._unanswered -= 1
                self._flush()
                self._receive_more()

    def finish(self, message: bytes | None = None) -> None:
        with self._lock:
            if not self.is_over:
                if message is not None:
                    self._outbox.append(message)
                self._close(OK)

    def fail(self, error: PenstockError) -> None:
        with self._lock:
            if not self.is_over:
                self._close(status_of(error))

    def _close(self, end: Status) -> None:
        self.is_over = True
        self._end = end
        self._flush()

    def _sent(self, event: Event) -> None:
        with self._lock:
            self._is_sending = False
            if event.success:
                self._flush()

    def _flush(self) -> None:
        """Starts sending what comes next, unless something is being sent."""
        if self._is_sending:
            return
        if self._outbox:
            self._is_sending = True
            operation = cygrpc.SendMessageOperation(self._outbox.popleft(), NO_FLAGS)
            self._call.start_server_batch((operation,), self._sent)
        elif self._end is not None:
            self._is_sending = True
            self._call.start_server_batch((_status_operation(self._end, self.trailers),), _ignore)


def _status_operation(status: Status, trailers: Metadata) -> Any:
    return cygrpc.SendStatusFromServerOperation(
        (*trailers, *status.trailers), status.number, status.details.encode(), NO_FLAGS
    )


class CompletionQueueTransport:
    """Serves methods from one thread that polls, hands out messages, and steps the scheduler when nothing is ready."""

    def __init__(self, methods: Methods, scheduler: Scheduler, settings: TransportSettings) -> None:
        self._unary = {path.encode(): handler for path, handler in methods.unary.items()}
        self._streams = {path.encode(): handler for path, handler in methods.streams.items()}
        self._scheduler = scheduler
        self._posted: deque[Callable[[], None]] = deque()
        self._bell: Any = None
        self._bell_lock = threading.Lock()
        self._queue = cygrpc.CompletionQueue()
        arguments = tuple((key.encode(), value) for key, value in settings.options())
        self._server = cygrpc.Server(arguments, False)
        self._server.register_completion_queue(self._queue)
        self._credentials = settings.server_credentials()
        self._is_started = False
        self._is_draining = False
        self._is_down = False
        self._cancel_at_s = inf
        self._give_up_at_s = inf

    def listen(self, address: str) -> None:
        self._bind(address)

    def listen_anywhere(self) -> int:
        """Binds a free port of the loopback interface, and returns it."""
        return self._bind("127.0.0.1:0")

    def _bind(self, address: str) -> int:
        if self._credentials is None:
            port = self._server.add_http2_port(address.encode())
        else:
            port = self._server.add_http2_port(address.encode(), self._credentials._credentials)  # noqa: SLF001
        if not port:
            raise cannot_listen(address)
        self._server.start()
        for _ in range(PENDING_CALLS):
            self._server.request_call(self._queue, self._queue, self._arrived)
        self._is_started = True
        return int(port)

    def post(self, action: Callable[[], None]) -> None:
        self._posted.append(action)
        # An empty batch of operations of any call, an old one too, ends at once, and its event wakes the reactor. It
        # takes 45 us until the action runs, instead of up to `IDLE_S`: the outputs of model threads come this way.
        with self._bell_lock:
            if self._bell is not None:
                self._bell.start_server_batch((), _ignore)

    def drain(self, grace_s: float) -> None:
        self.post(lambda: self._begin_drain(grace_s))

    def _begin_drain(self, grace_s: float) -> None:
        if self._is_draining:
            return
        self._is_draining = True
        if not self._is_started:
            self._is_down = True
            return
        self._cancel_at_s = time.monotonic() + grace_s
        self._server.shutdown(self._queue, self._shut_down)

    def _shut_down(self, _event: Event) -> None:
        self._is_down = True

    def _arrived(self, event: Event) -> None:
        if self._is_draining or not event.success:
            return
        self._server.request_call(self._queue, self._queue, self._arrived)
        self._bell = event.call
        method = event.call_details.method
        unary = self._unary.get(method)
        if unary is not None:
            _UnaryCall(event, unary).open()
        else:
            _StreamCall(event, self._streams.get(method, _unknown_method)).open()

    def run(self) -> None:
        """Takes events one by one until none is ready; then the scheduler steps, and the next event is waited for.

        Waiting right after an event, whenever no batch is due, was tried: it cost 8 us per request more at 8 x 8.
        """
        poll = self._queue.poll
        scheduler = self._scheduler
        step_at_s = 0.0
        taken = 0
        while not self._is_down:
            now_s = time.time()
            event = poll(0 if taken or scheduler.is_due or now_s >= step_at_s else step_at_s)
            if event.tag is None or taken >= EVENTS_PER_STEP:
                step_at_s = now_s + min(self._step(), IDLE_S)
                taken = 0
            if event.tag is not None:
                taken += 1
                try:
                    event.tag(event)
                except Exception:
                    log.exception("handler failed")
            event = None  # an event keeps its call alive
        self._close()

    def _step(self) -> float:
        while self._posted:
            try:
                self._posted.popleft()()
            except Exception:
                log.exception("posted action failed")
        now_s = time.monotonic()
        if now_s >= self._cancel_at_s:
            self._cancel_at_s = inf
            self._give_up_at_s = now_s + GIVE_UP_S
            self._server.cancel_all_calls()
        if now_s >= self._give_up_at_s:
            log.warning("calls did not end when they were cancelled; leaving them")
            self._is_down = True
        return self._scheduler.step()

    def _close(self) -> None:
        with self._bell_lock:
            self._bell = None
        self._queue.shutdown()
        deadline = time.monotonic() + 1.0
        while time.monotonic() < deadline:
            event = self._queue.poll(time.time() + 0.1)
            if event.completion_type == cygrpc.CompletionType.queue_shutdown:
                return


def _unknown_method(call: Any) -> Callable[[bytes | None], None]:
    call.fail(UnsupportedError("this method is not served"))
    return lambda _message: None
