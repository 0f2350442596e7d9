"""The native transport: nghttp2 speaks HTTP/2, compiled kernels move bytes, and one thread runs it all.

A turn waits for sockets, reads everything that is there into nghttp2, and lists what came of it as events. No Python runs
for a frame. The reactor takes the events up, the handlers answer, and one call hands all answers of a turn to nghttp2;
each connection is then sent to once. The tables between both sides are `layout`'s.
"""

import ctypes
import os
import select
import threading
import time
import zlib
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Final

import numpy as np
import structlog

from penstock_server.call import HTTP, UNARY, Call, Cancellable, Metadata
from penstock_server.errors import (
    DeadlinePassedError,
    InvalidInputError,
    OverloadedError,
    PenstockError,
    UnavailableError,
    UnsupportedError,
)
from penstock_server.kernels.compiled import Library
from penstock_server.transport import headers, layout, nghttp2
from penstock_server.transport.guest import Guest
from penstock_server.transport.interface import (
    IDLE_S,
    LEAST_WORDS_S,
    Methods,
    Refused,
    Scheduler,
    Sifter,
    StreamHandler,
    StreamReceiver,
    UnaryHandler,
    cannot_listen,
    ignore_refusal,
    last_words_s,
)
from penstock_server.transport.local import Begin, GuestKernels, LocalCall, Outcome
from penstock_server.transport.native_tls import TlsConnections
from penstock_server.transport.settings import TransportSettings
from penstock_server.transport.shared_port import SharedPort
from penstock_server.transport.status import OK, Status, status_of
from penstock_server.transport.window import StreamWindow

log = structlog.get_logger(__name__)

EVENTS_PER_STEP: Final = 256
"""Events taken before the scheduler steps even though more are ready, so that a flood of arrivals starves no batch."""
LOOK_S: Final = 0.02
"""How often deadlines and connections are looked after."""
LARGE_BYTES: Final = 1 << 16
"""Messages from this size on are not copied into the block of a turn's answers."""
MOST_WAITING_BYTES: Final = 1 << 20
"""So many bytes of answers are handed to nghttp2 at once, before the end of a turn."""
MAX_CONNECTIONS: Final = 1 << 15
MOST_STREAMS: Final = 1 << 14
"""Calls in flight per connection where the settings name no limit."""
STREAM_WINDOW: Final = 1 << 18
CONNECTION_WINDOW: Final = 1 << 26
MAX_HEADERS: Final = 16 * 1024
"""The headers of a call, as gRPC's own servers bound them."""
MAX_PARTIAL_BYTES: Final = 1 << 29
"""The headers of all calls, what has come of messages, and answers that are not sent, of all callers together. A connection may
hold as much as is left: one takes half of it, two a third each, and there is always some for the next."""
KEEPALIVE_TIMEOUT_S: Final = 20.0
PREFACE_TIMEOUT_S: Final = 20.0
LAST_CALLS_S: Final = 30.0
"""How long a connection's calls may still take after it was asked to close."""
ACCEPT_PAUSE_S: Final = 0.1
NO_CONNECTION: Final = -1
_HTTP1: Final = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\ncontent-length: 44\r\n\r\n"
    b"this port speaks gRPC, which is over HTTP/2\n"
)
_NS: Final = 1e-9
LEAST_PACKED_BYTES: Final = 256
"""A smaller message is not worth the headers of gzip."""
_LEVEL: Final = 6
_SHUTTING_DOWN: Final = "the server is shutting down"


class _NativeCall:
    """What unary calls and streams share. A call has its slot until its stream is closed; then it is over."""

    __slots__ = ("_slot", "_transport", "deadline_s", "headers", "is_over", "pending", "trailers")

    def __init__(self, transport: "NativeTransport", slot: int, deadline_ns: int) -> None:
        self._transport = transport
        self._slot = slot
        self.deadline_s = inf if deadline_ns == layout.NEVER else deadline_ns * _NS
        self.is_over = False
        self.pending: Cancellable | None = None
        self.headers: Metadata = ()
        self.trailers: Metadata = ()

    @property
    def kind(self) -> int:
        return HTTP if self._transport.is_local(self._slot) else UNARY

    def metadata(self) -> Metadata:
        return () if self.is_over else self._transport.metadata_of(self._slot)

    def peer(self) -> tuple[str, ...]:
        return () if self.is_over else self._transport.peer_of(self._slot)

    def watch(self) -> None:
        """Does nothing: a stream's end is always an event."""

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

    def closed(self) -> None:
        """The stream is gone."""
        if not self.is_over:
            self.is_over = True
            if self.pending is not None:
                self.pending.cancelled()
        self.pending = None


class _UnaryCall(_NativeCall):
    """One message in, one out."""

    __slots__ = ()

    @property
    def slot(self) -> int:
        return self._slot

    def send(self, message: bytes) -> None:
        self.finish(message)

    def finish(self, message: bytes | None = None) -> None:
        transport = self._transport
        if threading.get_ident() != transport.thread:
            transport.post(lambda: self.finish(message))
            return
        if self.is_over:
            return
        self.is_over = True
        is_gzip = transport.compresses_for(self._slot)
        if self.headers or self.trailers or is_gzip:
            transport.send_headers(self._slot, self.headers, is_gzip=is_gzip)
            transport.send_message(self._slot, message or b"", is_gzip=is_gzip)
            transport.end(self._slot, OK, self.trailers)
        else:
            transport.send(layout.SEND_REPLY, self._slot, message or b"")
        transport.answered(self._slot)

    def fail(self, error: PenstockError) -> None:
        transport = self._transport
        if threading.get_ident() != transport.thread:
            transport.post(lambda: self.fail(error))
            return
        if not self.is_over:
            self.is_over = True
            transport.end_alone(self._slot, status_of(error), self.headers, self.trailers)
            transport.answered(self._slot)


class _StreamCall(_NativeCall):
    """Messages both ways. While its window is closed no more is received, and HTTP/2 slows the caller."""

    __slots__ = ("_has_headers", "_inbox", "_is_gzip", "_is_paused", "_receiver", "_window")

    def __init__(self, transport: "NativeTransport", slot: int, deadline_ns: int) -> None:
        super().__init__(transport, slot, deadline_ns)
        self._receiver: StreamReceiver | None = None
        self._window = StreamWindow()
        self._inbox: deque[bytes | None] = deque()
        self._is_paused = False
        self._has_headers = False
        self._is_gzip = False

    def open(self, handler: StreamHandler) -> None:
        self._guarded(lambda: setattr(self, "_receiver", handler(self)))
        if not self.is_over:
            self._open_headers()

    @property
    def is_quiet(self) -> bool:
        """Whether nothing of it is unanswered or unsent."""
        return self._window.is_quiet and not self._inbox

    def receive(self, message: bytes | None) -> None:
        """A message came, or the caller's end."""
        if not self.is_over:
            self._inbox.append(message)
            self._hand_on()

    def sent(self, count: int) -> None:
        """So many messages have left."""
        for _ in range(count):
            self._window.sent()
        if not self.is_over:
            self._hand_on()

    def _hand_on(self) -> None:
        while self._inbox and self._window.is_open and not self.is_over:
            message = self._inbox.popleft()
            if message is not None:
                self._window.received(len(message))
            receiver = self._receiver
            if receiver is not None:
                self._guarded(lambda message=message, receiver=receiver: receiver(message))  # type: ignore[misc]
        if self.is_over:
            return
        is_paused = not self._window.is_open
        if is_paused != self._is_paused:
            self._is_paused = is_paused
            self._transport.operate(layout.PAUSE if is_paused else layout.RESUME, self._slot)

    def _guarded(self, action: Callable[[], None]) -> None:
        try:
            action()
        except PenstockError as error:
            self.fail(error)
        except Exception:
            log.exception("handler failed")
            self.fail(PenstockError())

    def _open_headers(self) -> None:
        if not self._has_headers:
            self._has_headers = True
            self._is_gzip = self._transport.compresses_for(self._slot)
            self._transport.send_headers(self._slot, self.headers, is_gzip=self._is_gzip)

    def send(self, message: bytes) -> None:
        if self._is_elsewhere(lambda: self.send(message)) or self.is_over:
            return
        self._put(message)
        if self._window.is_overrun:
            self._end(status_of(OverloadedError("too many messages wait for the caller to read them")))

    def finish(self, message: bytes | None = None) -> None:
        if self._is_elsewhere(lambda: self.finish(message)) or self.is_over:
            return
        if message is not None:
            self._put(message)
        self._end(OK)

    def fail(self, error: PenstockError) -> None:
        if not self._is_elsewhere(lambda: self.fail(error)) and not self.is_over:
            self._end(status_of(error))

    def _is_elsewhere(self, action: Callable[[], None]) -> bool:
        """Whether this is another thread than the reactor, which then gets the action."""
        if threading.get_ident() == self._transport.thread:
            return False
        self._transport.post(action)
        return True

    def _put(self, message: bytes) -> None:
        self._open_headers()
        self._window.replied(len(message))
        self._transport.send_message(self._slot, message, is_gzip=self._is_gzip)

    def _end(self, status: Status) -> None:
        self.is_over = True
        self._inbox.clear()
        if self._has_headers:
            self._transport.end(self._slot, status, self.trailers)
        else:
            self._transport.end_alone(self._slot, status, self.headers, self.trailers)

    def abort(self, error: PenstockError) -> None:
        if not self.is_over and not self._window.is_quiet:
            # A caller that does not read would not read the status behind its messages either.
            self._transport.operate(layout.DROP, self._slot)
        super().abort(error)

    def closed(self) -> None:
        super().closed()
        self._receiver = None
        self._inbox.clear()


class _Tables:
    """The memory that both sides share, and what the kernels are told once."""

    def __init__(self, methods: Sequence[tuple[bytes, bool]], settings: TransportSettings) -> None:
        self._kept: list[Any] = []
        self.state = self._words(layout.STATE_BYTES // 8)
        self.connections = self._words(MAX_CONNECTIONS, layout.CONNECTION_BYTES // 8)
        self.streams = self._words(layout.MAX_STREAMS, layout.STREAM_BYTES // 8)
        self.events = self._words(layout.MAX_EVENTS, layout.EVENT_BYTES // 8)
        self.epoll = select.epoll()
        self.bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        for at, value in (
            (layout.CONNECTIONS, self.connections.ctypes.data),
            (layout.STREAMS, self.streams.ctypes.data),
            (layout.EVENTS, self.events.ctypes.data),
            (layout.FREE_STREAMS, self._stack(layout.MAX_STREAMS)),
            (layout.FREE_STREAM_COUNT, layout.MAX_STREAMS),
            (layout.FREE_CONNECTIONS, self._stack(MAX_CONNECTIONS)),
            (layout.FREE_CONNECTION_COUNT, MAX_CONNECTIONS),
            (layout.DIRTY, self._bytes(8 * MAX_CONNECTIONS)),
            (layout.EPOLL, self.epoll.fileno()),
            (layout.EPOLL_EVENTS, self._bytes(256 * 16)),
            (layout.RECEIVED, self._bytes(layout.RECEIVE_BYTES)),
            (layout.SEND_BUFFER, self._bytes(layout.SEND_BYTES + 2 * layout.FRAME_BYTES)),
            (layout.SCRATCH, self._bytes(1 << 16)),
            (layout.METHODS, self._methods(methods)),
            (layout.METHOD_COUNT, len(methods)),
            (layout.MAX_MESSAGE, settings.max_message_bytes),
            (layout.MAX_PARTIAL_BYTES, max(MAX_PARTIAL_BYTES, 2 * settings.max_message_bytes)),
            (layout.MAX_HEADERS, MAX_HEADERS),
            (layout.WINDOW, CONNECTION_WINDOW),
            (layout.BELL_DESCRIPTOR, self.bell),
            (layout.HTTP1, self._constant(_HTTP1)),
            (layout.HTTP1_SIZE, len(_HTTP1)),
            (layout.KEEPALIVE, int(settings.keepalive_s / _NS)),
            (layout.KEEPALIVE_TIMEOUT, int(KEEPALIVE_TIMEOUT_S / _NS)),
            (layout.PREFACE_TIMEOUT, int(PREFACE_TIMEOUT_S / _NS)),
            (layout.AGE, int((settings.connection_age_s or 0.0) / _NS)),
            (layout.LAST_CALLS, int(LAST_CALLS_S / _NS)),
            (layout.ACCEPT_AT, layout.NEVER),
            (layout.READ_AT, layout.NEVER),
            (
                layout.PORT_OWN,
                self._bytes(layout.PORT_ROW_BYTES),
            ),  # where a connection that came over no port is counted
        ):
            self.state[at // 8] = value
        self._set_pairs(layout.HEAD, headers.OPENING)
        self._set_pairs(layout.TRAILERS, headers.pair("grpc-status", "0"))
        entries = {3: min(settings.max_streams or MOST_STREAMS, MOST_STREAMS), 4: STREAM_WINDOW, 6: MAX_HEADERS}
        block = b"".join(
            identifier.to_bytes(4, "little") + value.to_bytes(4, "little") for identifier, value in entries.items()
        )
        self.state[layout.SETTINGS // 8] = self._constant(block)
        self.state[layout.SETTING_COUNT // 8] = len(entries)

    @property
    def address(self) -> int:
        return int(self.state.ctypes.data)

    def close(self) -> None:
        self.epoll.close()
        os.close(self.bell)

    def _words(self, *shape: int) -> Any:
        return np.zeros(shape, np.int64)

    def _bytes(self, size: int) -> int:
        block = np.zeros(size, np.uint8)
        self._kept.append(block)
        return int(block.ctypes.data)

    def _constant(self, content: bytes) -> int:
        block = np.frombuffer(content, np.uint8).copy()
        self._kept.append(block)
        return int(block.ctypes.data)

    def _stack(self, count: int) -> int:
        """The numbers from the last to the first: the lowest are taken first, which keeps what is used together."""
        block = np.arange(count - 1, -1, -1, dtype=np.int64)
        self._kept.append(block)
        return int(block.ctypes.data)

    def _methods(self, methods: Sequence[tuple[bytes, bool]]) -> int:
        table = self._words(len(methods), layout.METHOD_BYTES // 8)
        for row, (path, is_stream) in zip(table, methods, strict=True):
            row[:3] = self._constant(path), len(path), is_stream
        self._kept.append(table)
        return int(table.ctypes.data)

    def _set_pairs(self, at: int, block: bytes) -> None:
        """Pairs that never change, as nghttp2 takes them."""
        pairs = []
        place = 0
        base = self._constant(block)
        while place < len(block):
            name, value = (
                int.from_bytes(block[place : place + 4], "little"),
                int.from_bytes(block[place + 4 : place + 8], "little"),
            )
            pairs.append((base + place + 8, base + place + 8 + name, name, value, 0))
            place += 8 + name + value
        table = np.array(pairs, np.int64)
        self._kept.append(table)
        self.state[at // 8] = table.ctypes.data
        self.state[at // 8 + 1] = len(pairs)


class NativeTransport:
    """Serves methods from one thread that waits, takes events up, and steps the scheduler when nothing is ready.

    Args:
        methods: what is served.
        scheduler: runs between events.
        settings: of the port.
        library: nghttp2.
        kernels: the compiled ones.
        refused: counts what the transport itself refuses.
        port: what to accept from; None has `listen` bind sockets of its own.
    """

    def __init__(
        self,
        methods: Methods,
        scheduler: Scheduler,
        settings: TransportSettings,
        *,
        library: nghttp2.Nghttp2,
        kernels: Library,
        refused: Refused = ignore_refusal,
        port: SharedPort | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        served = [(path.encode(), False) for path in methods.unary] + [
            (path.encode(), True) for path in methods.streams
        ]
        self._paths = list(methods.unary)
        self._unary: list[UnaryHandler] = list(methods.unary.values())
        self._streams: list[StreamHandler] = list(methods.streams.values())
        self._during_drain = {at for at, path in enumerate(methods.unary) if path in methods.during_drain}
        self._scheduler = scheduler
        self.described = f"native (libnghttp2 {library.version}, {library.origin})"
        self._settings = settings
        self._refused = refused
        self._monotonic = monotonic
        self._kernels = kernels  # C calls them back by their addresses, so they stay as long as the transport
        self._tables = _Tables(served, settings)
        state = self._tables.state
        state[layout.CALLBACKS // 8] = nghttp2.callbacks(library.library, kernels.addresses)
        state[layout.OPTION // 8] = nghttp2.option(library.library)
        state[layout.READ_CALLBACK // 8] = kernels.addresses["on_read"]
        self._state = state
        self._cells = state.data
        self._events_at: int = self._tables.events.ctypes.data
        self._address = self._tables.address
        self._tls = TlsConnections(settings, self._tables, self._kernels)
        self._calls: dict[int, _NativeCall] = {}
        self._posted: deque[Callable[[], None]] = deque()
        self._operations = array("q")
        self._parts: list[bytes] = []
        self._part_bytes = 0
        self._large: list[bytes] = []
        self._large_bytes = 0
        self._port = port
        self._bell_lock = threading.Lock()
        self._is_waiting = False
        self._is_draining = False
        self._is_down = False
        self._is_closed = False
        self._end_at_s = inf
        self._give_up_at_s = inf
        self._drain_at_s = -inf
        self._look_at_s = -inf
        self._accept_at_s = inf
        self._handlers: dict[int, Callable[[list[int]], None]] = {
            layout.CALL: self._begin,
            layout.OPENED: self._open,
            layout.MESSAGE: self._message,
            layout.HALF_CLOSED: self._half_closed,
            layout.CLOSED: self._closed,
            layout.SENT: self._sent,
            layout.REFUSED: self._refuse_unread,
            layout.EXPIRED: self._expire,
            layout.LOCAL_REPLY: self._local_reply,
            layout.LOCAL_END: self._local_end,
        }
        self.thread = 0
        self.sifter: Sifter | None = None
        self._guest: Guest | None = None
        self._local: dict[int, LocalCall] = {}
        self._local_connection = NO_CONNECTION
        self._claim: Callable[[int, int], None] = _claim_nothing
        self._watch(self._tables.bell, layout.BELL)

    def _watch(self, descriptor: int, number: int, how: int = 1) -> None:
        place = (ctypes.c_char * 16)()
        self._kernels.brief["watch_listener"](self._address, ctypes.addressof(place), how, descriptor, number)

    def take_in(self, guest: Guest) -> None:
        """Has another port share the reactor's thread, until the end; before `run`."""
        self._guest = guest
        self._watch(guest.descriptor, layout.GUEST)

    def begin(
        self, path: str, message: bytes, metadata: Metadata, outcome: Outcome, peer: tuple[str, ...] = ()
    ) -> Cancellable | None:
        """Makes a unary call from within the process, on the reactor's thread; its outcome is told in a later turn."""
        self._open_local()
        method = self.number_of(path)
        block = headers.as_received(metadata) if metadata else b""
        slot = layout.NO_METHOD
        if method != layout.NO_METHOD and self._local_connection != NO_CONNECTION:
            begin = self._kernels.brief["begin_call"]
            slot = begin(
                self._address, self._local_connection, method, message, len(message), layout.NEVER, block, len(block)
            )
        if slot < 0:
            error = (
                UnsupportedError("this method is not served")
                if method == layout.NO_METHOD
                else OverloadedError("too many calls are in flight; try again later")
            )
            self._refused(error)
            outcome.ended(status_of(error))
            return None
        call = self._local[slot] = LocalCall(slot, outcome, self._cancel_local, peer)
        return call

    def _open_local(self) -> int:
        if self._local_connection == NO_CONNECTION:
            self._local_connection = self._kernels.brief["open_local"](self._address)
        return self._local_connection

    def take_calls(self, path: str, guest: GuestKernels, claim: Callable[[int, int], None]) -> Begin | None:
        """Has kernels of the guest begin calls, and take their replies.

        Args:
            path: of the unary method that they call.
            guest: the kernels.
            claim: is told the slot and the `S_TAKER` of a call that ends otherwise, and is to `claim` it if somebody waits
                for it still.

        Returns:
            What the kernels need; None if the method is not served, or there is no room for local calls.
        """
        number, method = self._open_local(), self.number_of(path)
        if number == NO_CONNECTION or method == layout.NO_METHOD:
            return None
        self._claim = claim
        for at, value in (
            (layout.GUEST_STATE, guest.state),
            (layout.GUEST_TURN, guest.turn),
            (layout.GUEST_REPLY, guest.reply),
        ):
            self._state[at // 8] = value
        return Begin(self._address, self._kernels.addresses["begin_call"], number, method)

    def claim(self, slot: int, outcome: Outcome) -> Cancellable:
        """Has an outcome told how a call ends that kernels of the guest have begun; they do not take its reply then."""
        self._tables.streams[slot, layout.S_TAKER // 8] = 0
        call = self._local[slot] = LocalCall(slot, outcome, self._cancel_local)
        return call

    def _ended(self, slot: int, taker: int) -> LocalCall | None:
        """The local call that has ended in a slot; None if nobody waits for it."""
        if taker and slot not in self._local:
            self._claim(slot, taker)
        return self._local.pop(slot, None)

    def _cancel_local(self, slot: int) -> None:
        if self._local.pop(slot, None) is not None:
            self._kernels.brief["cancel_call"](self._address, slot)

    def _local_reply(self, event: list[int]) -> None:
        _, slot, data, size, _, _, _, taker = event
        if (call := self._ended(slot, taker)) is None:
            return
        if size == layout.NO_MESSAGE:
            call.outcome.ended(status_of(PenstockError()))
        else:
            call.outcome.replied(ctypes.string_at(data, size))

    def _local_end(self, event: list[int]) -> None:
        _, slot, data, size, _, _, _, taker = event
        if (call := self._ended(slot, taker)) is not None:
            block = b"" if size == layout.NO_MESSAGE else ctypes.string_at(data, size)
            call.outcome.ended(headers.status_in(block))

    def listen(self, address: str) -> None:
        try:
            if self._port is None:
                self._port = SharedPort.bind(address)
            self._port.begin()
        except OSError as error:
            raise cannot_listen(address) from error
        for at, value in (
            (layout.PORT_TABLE, self._port.table),
            (layout.PORT_WORKERS, self._port.workers),
            (layout.PORT_OWN, self._port.own_row),
        ):
            self._state[at // 8] = value
        for number, listener in enumerate(self._port.listeners):
            place = (layout.LISTENER_TABLE + number * layout.LISTENER_BYTES) // 8
            self._state[place] = listener.fileno()
            self._state[place + 1] = self._tls.is_on
        self._watch_port(self._port)

    def listen_anywhere(self) -> int:
        """Binds a free port of the loopback interface, and returns it."""
        port = self._port = SharedPort.bind("127.0.0.1:0")
        self.listen("")
        return port.number

    def _watch_port(self, port: SharedPort) -> None:
        self._state[layout.LISTENER_COUNT // 8] = len(port.listeners)
        for number, listener in enumerate(port.listeners):
            self._watch(listener.fileno(), number)

    def _leave_port(self, port: SharedPort) -> None:
        """Accepts nothing until the port is watched again; the other workers know."""
        for number, listener in enumerate(port.listeners):
            self._watch(listener.fileno(), number, how=2)
        self._state[layout.LISTENER_COUNT // 8] = 0
        self._state[layout.ACCEPT_AT // 8] = layout.NEVER
        port.leave()

    def post(self, action: Callable[[], None]) -> None:
        self._posted.append(action)
        if self._is_waiting:
            self._ring()

    def _ring(self) -> None:
        with self._bell_lock:
            if not self._is_closed:
                os.eventfd_write(self._tables.bell, 1)

    def drain(self, grace_s: float) -> None:
        self.post(lambda: self._begin_drain(grace_s))

    def _begin_drain(self, grace_s: float) -> None:
        if self._is_draining:
            return
        self._is_draining = True
        if self.sifter is not None:
            error = UnavailableError(_SHUTTING_DOWN)
            self.sifter.stop(error, lambda: self._refused(error))
        now_s = self._monotonic()
        self._end_at_s = now_s + grace_s - last_words_s(grace_s)
        self._give_up_at_s = self._end_at_s + max(last_words_s(grace_s), LEAST_WORDS_S)
        # Calls that are on the wire now are refused in words rather than by the end of their connection.
        self._drain_at_s = now_s + min(IDLE_S, grace_s)
        self._close_port()
        if self._guest is not None:
            self._guarded(self._guest.begin_drain)

    def _close_port(self) -> None:
        if self._port is not None:
            self._leave_port(self._port)
            self._port.close()  # its table stays: connections are counted there to the end

    def _continue_drain(self) -> None:
        """Ends what can end now, a few times per second; the server is down when no call runs."""
        now_s = self._monotonic()
        if now_s < self._drain_at_s:
            return
        self._drain_at_s = now_s + IDLE_S
        is_late = now_s >= self._end_at_s
        for call in tuple(self._calls.values()):
            if is_late or (isinstance(call, _StreamCall) and call.is_quiet):
                call.abort(UnavailableError(_SHUTTING_DOWN))
        if is_late and self.sifter is not None:
            for slot in self.sifter.give_up():
                self.fail(slot, UnavailableError(_SHUTTING_DOWN))
        if is_late and self._guest is not None:
            self._guarded(self._guest.give_up)
        self._flush()
        if now_s >= self._give_up_at_s:
            self._is_down = True
            return
        self._kernels.brief["leave"](self._address, 0)
        is_guest_down = self._guest is None or self._guest.drained.is_set()
        self._is_down = is_guest_down and not self._state[layout.OPEN_CONNECTIONS // 8]

    def run(self) -> None:
        """Takes events until none is ready; then the scheduler steps, and the next events are waited for."""
        self.thread = threading.get_ident()
        scheduler, monotonic, address = self._scheduler, self._monotonic, self._address
        turn, turn_waiting = (
            self._kernels.brief["turn"],
            self._kernels.long["turn"],
        )  # the latter lets other threads run
        events = self._tables.events
        count = taken = 0
        step_at_s = 0.0
        while not self._is_down:
            now_s = monotonic()
            if taken or scheduler.is_due or now_s >= step_at_s or self._posted:
                count = turn(address, count, 0)
            else:
                self._is_waiting = True
                wait_ns = 0 if self._posted else int((step_at_s - now_s) / _NS)
                count = turn_waiting(address, count, wait_ns)
                self._is_waiting = False
            if count:
                taken += count
                self._sift(events, count)
            if not count or taken >= EVENTS_PER_STEP:
                taken = 0
                step_at_s = monotonic() + min(self._step(), IDLE_S)
            if self._operations:
                self._flush()
        self.close()

    def _sift(self, events: Any, count: int) -> None:
        """Takes a turn's events up: plain requests at once, the others one by one."""
        taken = events[:count]
        if self.sifter is not None:
            left = self.sifter.sift(self._events_at, count, self._cells[layout.NOW // 8])
            if not left:
                return
            if left < count:
                taken = taken[taken[:, layout.E_KIND // 8] != layout.TAKEN]
        self._take(taken.tolist())

    def _step(self) -> float:
        for _ in range(len(self._posted)):  # what these post has its turn in the next step
            try:
                self._posted.popleft()()
            except Exception:
                log.exception("posted action failed")
        if self._guest is not None and self._cells[layout.GUEST_READY // 8]:
            self._cells[layout.GUEST_READY // 8] = 0
            self._guarded(self._guest.turn)
        now_s = self._monotonic()
        if now_s >= self._look_at_s:
            self._look_at_s = now_s + LOOK_S
            self._look_after(now_s)
        if self._is_draining:
            self._continue_drain()
        return self._scheduler.step()

    def _guarded(self, act: Callable[[], None]) -> None:
        """Has the guest do something; a bug of its own ends no gRPC call."""
        try:
            act()
        except Exception:
            log.exception("the guest failed")

    def _look_after(self, now_s: float) -> None:
        self._kernels.brief["look_after"](self._address)
        if self._guest is not None:
            self._guarded(self._guest.look_after)
        if error := int(self._state[layout.ACCEPT_ERROR // 8]):
            self._state[layout.ACCEPT_ERROR // 8] = 0
            self._cannot_accept(error, now_s)
        elif now_s >= self._accept_at_s:
            self._accept_at_s = inf
            if self._port is not None:
                self._watch_port(self._port)

    def _cannot_accept(self, error: int, now_s: float) -> None:
        if self._port is None or self._accept_at_s != inf:
            return
        if error == layout.SHUT_DOWN:
            self._close_port()  # the supervisor has shut it down: the server ends
            return
        log.warning("no connection can be accepted now", reason=os.strerror(error))
        self._accept_at_s = now_s + ACCEPT_PAUSE_S
        self._leave_port(self._port)

    def _take(self, events: list[list[int]]) -> None:
        for event in events:
            try:
                self._handlers.get(event[0], self._take_tls)(event)
            except Exception:
                log.exception("event failed", kind=event[0])

    def _take_tls(self, event: list[int]) -> None:
        kind, number, _, _, _, _, _, more = event
        self._tls.take(kind, number, more)

    def _begin(self, event: list[int]) -> None:
        """A unary call with its message."""
        _, slot, data, size, method, deadline_ns, flags, encoding = event
        if self._is_draining and method not in self._during_drain:
            self._refuse(slot, UnavailableError(_SHUTTING_DOWN))
            return
        call = self._calls[slot] = _UnaryCall(self, slot, deadline_ns)
        if size < 0:
            number = "none" if size == layout.NO_MESSAGE else "more"
            call.fail(InvalidInputError(f"expected one message, the caller sent {number}"))
            return
        try:
            message = ctypes.string_at(data, size)
            if flags & layout.IS_COMPRESSED:
                message = self._unpacked(message, encoding)
            self._unary[method](message, call)
        except PenstockError as error:
            call.fail(error)
        except Exception:
            log.exception("handler failed")
            call.fail(PenstockError())

    def _open(self, event: list[int]) -> None:
        """A streaming call, or one whose method is not known."""
        _, slot, _, _, method, deadline_ns, _, _ = event
        if self._is_draining:
            self._refuse(slot, UnavailableError(_SHUTTING_DOWN))
        elif method == layout.NO_METHOD:
            self._refuse(slot, UnsupportedError("this method is not served"))
        else:
            call = _StreamCall(self, slot, deadline_ns)
            self._calls[slot] = call
            call.open(self._streams[method - len(self._unary)])

    def _message(self, event: list[int]) -> None:
        """A message of a stream."""
        _, slot, data, size, _, _, flags, encoding = event
        call = self._calls.get(slot)
        if not isinstance(call, _StreamCall) or call.is_over:
            return
        message = ctypes.string_at(data, size)
        if flags & layout.IS_COMPRESSED:
            try:
                message = self._unpacked(message, encoding)
            except PenstockError as error:
                call.abort(error)
                return
        call.receive(message)

    def _half_closed(self, event: list[int]) -> None:
        if isinstance(call := self._calls.get(event[1]), _StreamCall):
            call.receive(None)

    def _sent(self, event: list[int]) -> None:
        """Messages of a stream have left."""
        row = self._tables.streams[event[1]]
        sent, row[layout.S_SENT // 8] = int(row[layout.S_SENT // 8]), 0
        if isinstance(call := self._calls.get(event[1]), _StreamCall):
            call.sent(sent)

    def _closed(self, event: list[int]) -> None:
        if (call := self._calls.pop(event[1], None)) is not None:
            call.closed()

    def _unpacked(self, message: bytes, encoding: int) -> bytes:
        """The message without its compression."""
        if encoding not in (1, 2):
            raise UnsupportedError(f"the message's compression is not known; expected one of {headers.ENCODINGS}")
        most = self._settings.max_message_bytes
        unpacker = zlib.decompressobj(31 if encoding == 1 else 15)
        try:
            unpacked = unpacker.decompress(message, most + 1)
        except zlib.error as error:
            raise InvalidInputError("the message's compression is damaged") from error
        if len(unpacked) > most or unpacker.unconsumed_tail:
            raise OverloadedError(f"the message is larger than {most} bytes when unpacked")
        if message and (not unpacker.eof or unpacker.unused_data):
            raise InvalidInputError("the message's compression is cut short, or goes on after its end")
        return unpacked

    def _refuse_unread(self, event: list[int]) -> None:
        """A call that cannot be read."""
        _, slot, _, _, _, _, _, why = event
        call = self._calls.get(slot)
        most = self._settings.max_message_bytes
        error: PenstockError
        match why:
            case layout.TOO_LARGE:
                error = OverloadedError(f"the message is larger than {most} bytes")
            case layout.TOO_MUCH:
                error = OverloadedError(
                    "too much is held for this connection already: unfinished messages, and answers that it has not read"
                )
            case layout.BAD_HEADERS:
                error = OverloadedError(f"the metadata are larger than {MAX_HEADERS} bytes")
            case layout.BAD_TIMEOUT:
                error = InvalidInputError("grpc-timeout is not up to eight digits and a unit of H, M, S, m, u or n")
            case layout.NOT_GRPC:
                self._refused(UnsupportedError("no gRPC"))
                block = headers.pair(":status", "415") + headers.pair("grpc-status", "12")
                self._block(layout.SEND_END, slot, block)
                return
            case _:
                error = InvalidInputError("the message does not begin with gRPC's five bytes, or is cut short")
        if call is None:
            self._refuse(slot, error)
        else:
            call.abort(error)

    def _refuse(self, slot: int, error: PenstockError) -> None:
        self._refused(error)  # first, so that it is counted when the caller knows of it
        self.operate(layout.IGNORE, slot)
        self.end_alone(slot, status_of(error), (), ())

    def _expire(self, event: list[int]) -> None:
        """A call's deadline has passed."""
        slot = event[1]
        error = DeadlinePassedError("the deadline has passed")
        if (call := self._calls.get(slot)) is not None:
            call.abort(error)
        elif not int(self._tables.streams[slot, layout.S_FLAGS // 8]) & (layout.IS_ANSWERED | layout.IS_CLOSED):
            self._refuse(slot, error)  # of a call whose message is not whole; the others have been answered meanwhile

    def send_replies(self, operations: int, count: int, block: int, *, is_shared: bool = False) -> None:
        kernels = self._kernels.long if is_shared else self._kernels.brief
        kernels["do"](self._address, operations, count, block)

    def fail(self, slot: int, error: PenstockError) -> None:
        self.end_alone(slot, status_of(error), (), ())

    def ending(self, error: PenstockError) -> bytes:
        return headers.OPENING + headers.ending(status_of(error), ())

    def call(self, slot: int, deadline_ns: int) -> Call:
        call = _UnaryCall(self, slot, deadline_ns)
        self._calls[slot] = call
        return call

    def number_of(self, path: str) -> int:
        """The number of a unary method in the table of methods; -1 if it is not served."""
        return self._paths.index(path) if path in self._paths else layout.NO_METHOD

    @property
    def streams_at(self) -> int:
        """The address of the rows of streams."""
        return int(self._tables.streams.ctypes.data)

    def slot_of(self, call: object) -> int | None:
        """The slot of a unary call of this transport; None for other calls."""
        return call.slot if isinstance(call, _UnaryCall) else None

    def mark_peer(self, slot: int, mark: int) -> None:
        """Remembers in a call's connection who its certificate's owner is; local calls of all callers share one."""
        at = int(self._tables.streams[slot, layout.S_CONNECTION // 8]) - int(self._tables.connections.ctypes.data)
        if at >= 0 and at // layout.CONNECTION_BYTES != self._local_connection:
            self._tables.connections[at // layout.CONNECTION_BYTES, layout.C_PEER // 8] = mark

    def metadata_of(self, slot: int) -> Metadata:
        """The metadata of a call whose stream is not closed."""
        return headers.decoded(self._headers_of(slot))

    def is_local(self, slot: int) -> bool:
        """Whether a call came from another port of this process."""
        return slot in self._local

    def peer_of(self, slot: int) -> tuple[str, ...]:
        """The names of the certificate of the caller whose stream is not closed."""
        if (local := self._local.get(slot)) is not None:
            return local.peer
        if not self._tls.is_on:
            return ()
        at = int(self._tables.streams[slot, layout.S_CONNECTION // 8]) - int(self._tables.connections.ctypes.data)
        return self._tls.peer(at // layout.CONNECTION_BYTES)

    def compresses_for(self, slot: int) -> bool:
        """Whether messages to the caller of a call whose stream is not closed may be compressed."""
        return self._settings.compression == "gzip" and headers.accepts_gzip(self._headers_of(slot))

    def _headers_of(self, slot: int) -> bytes:
        row = self._tables.streams[slot]
        size = int(row[layout.S_HEADERS_SIZE // 8])
        place = int(row[layout.S_HEADERS // 8])
        return ctypes.string_at(place, size) if place and size else b""

    def answered(self, slot: int) -> None:
        """Lets go of a unary call, which is over."""
        self._calls.pop(slot, None)

    def operate(self, kind: int, slot: int, more: int = 0) -> None:
        """Has the kernels do something with a stream at the end of this turn."""
        self._operations.extend((kind, slot, 0, 0, more))

    def send_message(self, slot: int, message: bytes, *, is_gzip: bool) -> None:
        """Sends one of the messages of an answer that was begun, compressed if that makes it smaller."""
        packed = _packed(message) if is_gzip and len(message) >= LEAST_PACKED_BYTES else message
        if len(packed) < len(message):
            self.send(layout.SEND_MESSAGE, slot, packed, is_packed=True)
        else:
            self.send(layout.SEND_MESSAGE, slot, message)

    def send(self, kind: int, slot: int, message: bytes, *, is_packed: bool = False) -> None:
        """Sends a message at the end of this turn."""
        if len(message) >= LARGE_BYTES:
            place = ctypes.cast(ctypes.c_char_p(message), ctypes.c_void_p).value or 0
            self._operations.extend((kind, slot, -place, len(message), is_packed))
            self._large.append(message)
            self._large_bytes += len(message)
            if self._large_bytes >= MOST_WAITING_BYTES:
                self._flush()
        else:
            self._operations.extend((kind, slot, self._part_bytes, len(message), is_packed))
            self._parts.append(message)
            self._part_bytes += len(message)

    def _block(self, kind: int, slot: int, block: bytes) -> None:
        self._operations.extend((kind, slot, self._part_bytes, len(block), 0))
        self._parts.append(block)
        self._part_bytes += len(block)

    def send_headers(self, slot: int, own: Metadata, *, is_gzip: bool = False) -> None:
        """Begins an answer that has metadata of its own, several messages, or compressed ones."""
        opening = headers.OPENING + headers.GZIP if is_gzip else headers.OPENING
        self._block(layout.SEND_HEADERS, slot, opening + headers.encoded(own))

    def end(self, slot: int, status: Status, own: Metadata) -> None:
        """Ends an answer that was begun."""
        self._block(layout.SEND_END, slot, headers.ending(status, own))

    def end_alone(self, slot: int, status: Status, first: Metadata, own: Metadata) -> None:
        """Ends a call that was not answered."""
        if first:
            self.send_headers(slot, first)
            self.end(slot, status, own)
        else:
            self._block(layout.SEND_END, slot, headers.OPENING + headers.ending(status, own))

    def _flush(self) -> None:
        """Hands what was answered to nghttp2, and sends."""
        operations, self._operations = self._operations, array("q")
        block = b"".join(self._parts)
        self._parts.clear()
        self._part_bytes = 0
        if operations:
            self._kernels.brief["do"](self._address, operations.buffer_info()[0], len(operations) // 5, block)
        self._large.clear()
        self._large_bytes = 0

    def close(self) -> None:
        """Ends every connection and frees what it holds; for one that does not run."""
        if self._calls:
            log.info("calls did not take their status in time; leaving them", calls=len(self._calls))
        self._close_port()
        self._kernels.brief["leave"](self._address, 1)
        self._calls.clear()
        if self._guest is not None:
            self._guest.close()
        self._tls.close()
        with self._bell_lock:
            self._is_closed = True
        self._tables.close()


def _claim_nothing(_slot: int, _taker: int) -> None:
    """Where no guest has kernels."""


def _packed(message: bytes) -> bytes:
    """A message as gzip."""
    packer = zlib.compressobj(_LEVEL, wbits=31)
    return packer.compress(message) + packer.flush()
