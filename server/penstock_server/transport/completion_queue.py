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

import grpc
import structlog
from grpc._cython import cygrpc

from penstock_server.call import UNARY, Cancellable, Metadata
from penstock_server.errors import InvalidInputError, OverloadedError, PenstockError, UnavailableError, UnsupportedError
from penstock_server.transport.certificate import names_of_context
from penstock_server.transport.connections import close_connections, close_listeners
from penstock_server.transport.interface import (
    IDLE_S,
    LAST_WORDS_S,
    LEAST_WORDS_S,
    Methods,
    Refused,
    Scheduler,
    StreamHandler,
    UnaryHandler,
    cannot_listen,
    ignore_refusal,
    last_words_s,
)
from penstock_server.transport.settings import TransportSettings
from penstock_server.transport.status import OK, Status, status_of, trailers_of
from penstock_server.transport.window import StreamWindow

log = structlog.get_logger(__name__)

NO_FLAGS: Final = 0
PENDING_CALLS: Final = 128
"""Calls requested from the core ahead of their arrival; each arrival requests the next."""
EVENTS_PER_STEP: Final = 256
"""Events taken before the scheduler steps even though more are ready, so that a flood of arrivals starves no batch."""
FAR_AWAY_S: Final = 1e11
CLOCK_STEP_S: Final = 0.5
"""Two readings of the wall clock in a row that are further apart mean that the clock was set between them."""

Event = Any
"""cygrpc's events carry no types."""


def _ignore(_event: Event) -> None:
    """The tag of operations whose end changes nothing."""


def deadline_of(details: Any, *, wall: Callable[[], float] = time.time) -> float:
    """A call's deadline on the monotonic clock, infinite when it has none.

    The core keeps deadlines on the monotonic clock, and cygrpc converts them to the wall clock whenever they are read. So
    the deadline is read between two readings of the wall clock: if that was set in between, it is read again.
    """
    while True:
        before_s = wall()
        deadline_s: float = details.deadline
        if deadline_s > FAR_AWAY_S:
            return inf
        now_s = wall()
        if before_s <= now_s < before_s + CLOCK_STEP_S:
            return deadline_s - now_s + time.monotonic()


class _QueueCall:
    """What unary calls and streams share: the deadline, metadata, and noticing that the caller left.

    Every call ends in `_ended` or `_closed`, which take it out of the calls that run and let go of all it refers to: a
    stream and its handler refer to each other, and the collector runs rarely.
    """

    __slots__ = (
        "_call",
        "_is_watched",
        "_metadata",
        "_running",
        "deadline_s",
        "headers",
        "is_over",
        "pending",
        "trailers",
    )

    kind = UNARY

    def __init__(self, event: Event, running: "set[_QueueCall]") -> None:
        self._call = event.call
        self._metadata = event.invocation_metadata
        self._running = running
        self.deadline_s = deadline_of(event.call_details)
        self.is_over = False
        self.pending: Cancellable | None = None
        self.headers: Metadata = ()
        self.trailers: Metadata = ()
        self._is_watched = False
        running.add(self)

    def metadata(self) -> Metadata:
        return tuple((key, value) for key, value in self._metadata)

    def peer(self) -> tuple[str, ...]:
        return names_of_context(cygrpc.auth_context(self._call))

    def address(self) -> str:
        """Where the call comes from, as grpc names it."""
        name: bytes = self._call.peer()
        return name.decode(errors="replace")

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

    def _ended(self, _event: Event) -> None:
        """The status has left, or the call is gone."""
        self._running.discard(self)

    def fail(self, error: PenstockError) -> None:
        """Ends the call with the error's status."""
        raise NotImplementedError

    def abort(self, error: PenstockError) -> None:
        """Ends a call that is not answered yet, and gives up what waits for it."""
        if not self.is_over:
            pending, self.pending = self.pending, None
            self.fail(error)
            if pending is not None:
                pending.cancelled()


class _UnaryCall(_QueueCall):
    """One message in, one out."""

    __slots__ = ("_handler",)

    def __init__(self, event: Event, running: set[_QueueCall], handler: UnaryHandler) -> None:
        super().__init__(event, running)
        self._handler = handler

    def open(self) -> None:
        self._call.start_server_batch((cygrpc.ReceiveMessageOperation(NO_FLAGS),), self._received)

    def _received(self, event: Event) -> None:
        message = event.batch_operations[0].message()
        if self.is_over:
            return
        if message is None:
            # The caller left, or the core refused the message and answered the call itself.
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
            cygrpc.SendStatusFromServerOperation(
                trailers_of(self.trailers, OK) if self.trailers else (), cygrpc.StatusCode.ok, b"", NO_FLAGS
            ),
        )
        self._call.start_server_batch(self._with_close(operations), self._ended)

    def fail(self, error: PenstockError) -> None:
        if self.is_over:
            return
        self.is_over = True
        opening = cygrpc.SendInitialMetadataOperation(self.headers, NO_FLAGS)
        operations = (opening, _status_operation(status_of(error), self.trailers))
        self._call.start_server_batch(self._with_close(operations), self._ended)

    def _closed(self, event: Event) -> None:
        super()._closed(event)
        if event.batch_operations[0].cancelled():
            self._running.discard(self)

    def _with_close(self, operations: tuple[Any, ...]) -> tuple[Any, ...]:
        """Adds the close operation, without which the core would keep the call, unless `watch` has started it."""
        return operations if self._is_watched else (*operations, cygrpc.ReceiveCloseOnServerOperation(NO_FLAGS))


class _StreamCall(_QueueCall):
    """Messages both ways; one operation of each direction at a time, as the core demands.

    Replies may come from the thread that ran the model while the reactor handles the event of the last one sent, so the
    outbox has a lock; unary calls need none. The core sends a message only when the caller has room for it, so what the
    window counts is what the caller has not read.
    """

    __slots__ = ("_end", "_handler", "_is_sending", "_lock", "_outbox", "_receiver", "_wants_message", "_window")

    def __init__(self, event: Event, running: set[_QueueCall], handler: StreamHandler) -> None:
        super().__init__(event, running)
        self._handler: StreamHandler | None = handler
        self._receiver: Callable[[bytes | None], None] | None = None
        self._lock = threading.Lock()
        self._outbox: deque[bytes] = deque()
        self._end: Status | None = None
        self._is_sending = False
        self._wants_message = False
        self._window = StreamWindow()

    def open(self) -> None:
        self.watch()
        self._is_sending = True
        handler, self._handler = self._handler, None
        try:
            self._receiver = None if handler is None else handler(self)
        except PenstockError as error:
            self.fail(error)
        except Exception:
            log.exception("handler failed")
            self.fail(PenstockError())
        self._call.start_server_batch(
            (cygrpc.SendInitialMetadataOperation(self.headers, NO_FLAGS),), self._sent_headers
        )
        if not self.is_over:
            self._call.start_server_batch((cygrpc.ReceiveMessageOperation(NO_FLAGS),), self._received)

    @property
    def is_quiet(self) -> bool:
        """Whether nothing of it is unanswered or unsent."""
        with self._lock:
            return self._window.is_quiet

    def _received(self, event: Event) -> None:
        receiver = self._receiver
        if self.is_over or receiver is None:
            return
        message = event.batch_operations[0].message()
        if message is not None:
            with self._lock:
                self._window.received(len(message))
        self._guarded(receiver, message)
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
        """Requests the next message unless too much is on its way."""
        if self._wants_message and not self.is_over and self._window.is_open:
            self._wants_message = False
            self._call.start_server_batch((cygrpc.ReceiveMessageOperation(NO_FLAGS),), self._received)

    def send(self, message: bytes) -> None:
        with self._lock:
            if not self.is_over:
                self._put(message)
                if self._window.is_overrun:
                    self._close(status_of(OverloadedError("too many messages wait for the caller to read them")))
                    return
                self._flush()
                self._receive_more()

    def finish(self, message: bytes | None = None) -> None:
        with self._lock:
            if not self.is_over:
                if message is not None:
                    self._put(message)
                self._close(OK)

    def fail(self, error: PenstockError) -> None:
        with self._lock:
            if not self.is_over:
                self._close(status_of(error))

    def _put(self, message: bytes) -> None:
        self._outbox.append(message)
        self._window.replied(len(message))

    def _close(self, end: Status) -> None:
        self.is_over = True
        self._end = end
        self._flush()

    def _sent_headers(self, event: Event) -> None:
        with self._lock:
            self._is_sending = False
            if event.success:
                self._flush()

    def _sent(self, event: Event) -> None:
        with self._lock:
            self._is_sending = False
            self._window.sent()
            if event.success:
                self._flush()
                self._receive_more()

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

    def _closed(self, event: Event) -> None:
        """The stream is over for its caller too: its status was delivered, or the caller left."""
        super()._closed(event)
        self._receiver = None
        with self._lock:
            self.is_over = True
            self._outbox.clear()
        self._running.discard(self)

    def abort(self, error: PenstockError) -> None:
        with self._lock:
            self._outbox.clear()  # a caller that does not read would not read the status behind it either
        super().abort(error)


def _status_operation(status: Status, trailers: Metadata) -> Any:
    return cygrpc.SendStatusFromServerOperation(
        trailers_of(trailers, status), status.number, status.details.encode(), NO_FLAGS
    )


def _refuse(event: Event, error: PenstockError) -> None:
    """Ends a call with an error before its messages are received."""
    operations = (
        cygrpc.SendInitialMetadataOperation((), NO_FLAGS),
        _status_operation(status_of(error), ()),
        cygrpc.ReceiveCloseOnServerOperation(NO_FLAGS),
    )
    event.call.start_server_batch(operations, _ignore)


class CompletionQueueTransport:
    """Serves methods from one thread that polls, hands out messages, and steps the scheduler when nothing is ready.

    Time is the monotonic clock's. The core's `poll` alone takes wall-clock deadlines: it gets one that is made from the
    time left right before each wait, and it waits for that time whatever happens to the wall clock meanwhile.
    """

    def __init__(
        self,
        methods: Methods,
        scheduler: Scheduler,
        settings: TransportSettings,
        *,
        refused: Refused = ignore_refusal,
        monotonic: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self.described = f"completion-queue (grpcio {grpc.__version__})"
        self._unary = {path.encode(): handler for path, handler in methods.unary.items()}
        self._streams = {path.encode(): handler for path, handler in methods.streams.items()}
        self._during_drain = {path.encode() for path in methods.during_drain}
        self._scheduler = scheduler
        self._refused = refused
        self._monotonic = monotonic
        self._wall = wall
        self._posted: deque[Callable[[], None]] = deque()
        self._bell: Any = None
        self._bell_lock = threading.Lock()
        self._queue = cygrpc.CompletionQueue()
        arguments = tuple((key.encode(), value) for key, value in settings.options())
        self._server = cygrpc.Server(arguments, False)
        self._server.register_completion_queue(self._queue)
        self._credentials = settings.server_credentials()
        self._running: set[_QueueCall] = set()
        self._address = ""
        self._is_draining = False
        self._is_down = False
        self._end_at_s = inf
        self._give_up_at_s = inf
        self._drain_at_s = -inf

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
        self._address = address if address.startswith("unix:") else f":{port}"
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
        now_s = self._monotonic()
        self._end_at_s = now_s + grace_s - last_words_s(grace_s)
        self._give_up_at_s = self._end_at_s + max(last_words_s(grace_s), LEAST_WORDS_S)
        # Calls that are on the wire now are refused in words rather than by the end of their connection.
        self._drain_at_s = now_s + min(IDLE_S, grace_s)
        if self._address:
            close_listeners(self._address)

    def _continue_drain(self) -> None:
        """Ends what can end now, a few times per second; the server is down when no call runs."""
        now_s = self._monotonic()
        if now_s < self._drain_at_s:
            return
        self._drain_at_s = now_s + IDLE_S
        is_late = now_s >= self._end_at_s
        for call in tuple(self._running):
            if is_late or (isinstance(call, _StreamCall) and call.is_quiet):
                call.abort(UnavailableError("the server is shutting down"))
        if not self._running or now_s >= self._give_up_at_s:
            self._is_down = True
        else:
            close_connections(self._address, {call.address() for call in self._running})

    def _arrived(self, event: Event) -> None:
        if not event.success:
            return
        self._server.request_call(self._queue, self._queue, self._arrived)
        self._bell = event.call
        method = event.call_details.method
        if self._is_draining and method not in self._during_drain:
            self._refuse(event, UnavailableError("the server is shutting down"))
        elif (unary := self._unary.get(method)) is not None:
            _UnaryCall(event, self._running, unary).open()
        elif (stream := self._streams.get(method)) is not None:
            _StreamCall(event, self._running, stream).open()
        else:
            self._refuse(event, UnsupportedError("this method is not served"))

    def _refuse(self, event: Event, error: PenstockError) -> None:
        self._refused(error)  # first, so that it is counted when the caller knows of it
        _refuse(event, error)

    def run(self) -> None:
        """Takes events one by one until none is ready; then the scheduler steps, and the next event is waited for.

        Waiting right after an event, whenever no batch is due, was tried: it cost 8 us per request more at 8 x 8.
        """
        poll = self._queue.poll
        scheduler = self._scheduler
        monotonic = self._monotonic
        step_at_s = 0.0
        taken = 0
        while not self._is_down:
            now_s = monotonic()
            is_busy = taken or scheduler.is_due or now_s >= step_at_s
            event = poll(0 if is_busy else self._wall() + (step_at_s - now_s))
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
        for _ in range(len(self._posted)):  # what these post has its turn in the next step
            try:
                self._posted.popleft()()
            except Exception:
                log.exception("posted action failed")
        if self._is_draining:
            self._continue_drain()
        return self._scheduler.step()

    def _close(self) -> None:
        """Closes every connection, and then the core's server, which finds nobody to cancel."""
        with self._bell_lock:
            self._bell = None
        if self._running:
            log.info("calls did not take their status in time; leaving them", calls=len(self._running))
        if self._address:
            close_connections(self._address)
            self._server.shutdown(self._queue, _ignore)
            self._server.cancel_all_calls()
        self._queue.shutdown()
        self._running.clear()
        deadline_s = time.monotonic() + LAST_WORDS_S
        while time.monotonic() < deadline_s:
            event = self._queue.poll(time.time() + 0.1)
            if event.completion_type == cygrpc.CompletionType.queue_shutdown:
                return
