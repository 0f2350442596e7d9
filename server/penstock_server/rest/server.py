"""The REST port of one worker: its sockets, on the reactor's thread.

The reactor watches one descriptor, an epoll of all sockets here, and calls `turn` when something is there. So nothing of
this runs while only gRPC is spoken. A connection's requests are handed on as they come and answered in their order. What
a caller holds is bounded in bytes, time and number; who leaves gives up what waits for it.
"""

import errno
import os
import select
import socket
import ssl
import threading
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Final

import structlog

from penstock_server.call import Cancellable
from penstock_server.clock import Clock, monotonic
from penstock_server.errors import InvalidInputError, OverloadedError, PenstockError, UnavailableError
from penstock_server.rest import http, layout
from penstock_server.rest.answers import Answer, error_answer
from penstock_server.rest.forms import Forms, Happening, Render
from penstock_server.rest.steps import MOST_BYTES
from penstock_server.transport.certificate import names_of_certificate
from penstock_server.transport.interface import Refused, ignore_refusal
from penstock_server.transport.shared_port import SharedPort
from penstock_server.transport.tls_files import TlsContext

log = structlog.get_logger(__name__)

HTTP: Final = "http/1.1"
"""What the port speaks, as ALPN calls it."""
CONNECTIONS: Final = 4096
"""Of one worker; when there are more, one that waits for its next request gives way."""
READ_BYTES: Final = 1 << 18
"""Taken from a connection before others have their turn."""
EVENTS: Final = 256
PIPELINED: Final = 32
"""Requests of a connection that may wait for their answers before it is read further."""
UNSENT_BYTES: Final = 1 << 20
"""Of a connection's answers that may wait before it is read further."""
HELD_BYTES: Final = 1 << 29
"""Of bodies that are not whole, of all callers together."""
REQUEST_S: Final = 20.0
"""From a connection's or a request's beginning to the end of its head, and between two parts of its body."""
IDLE_S: Final = 75.0
"""How long a connection may wait for its next request: longer than the minute of most load balancers."""
LINGER_S: Final = 2.0
"""How long what a caller still sends is taken after the refusal of its request."""
ANSWER_S: Final = 60.0
"""How long a caller may read nothing of its answer."""
SWEEP_S: Final = 0.5
"""How often connections are looked at for their time."""
PACKED_FROM_BYTES: Final = 4096
"""A smaller answer is sent as it is: packing it would take longer than making it."""
_SHUTTING_DOWN: Final = "the server is shutting down"
_READABLE: Final = select.EPOLLIN | select.EPOLLRDHUP
_NOT_NOW: Final = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
_GRPC: Final = b"PRI * HTTP/2"

Handler = Callable[["HttpExchange"], None]
"""Answers an exchange, now or later, on the reactor's thread; what it raises becomes the answer."""
Adopt = Callable[["HttpExchange", int, Render], None]
"""Has an exchange answered with what becomes of the call that kernels have begun in a slot."""


class HttpExchange:
    """One request and the place for its answer.

    Attributes:
        raw: the request as it came, if it came alone and kernels may learn of it; else empty.
    """

    __slots__ = ("_connection", "peer", "pending", "raw", "reply", "request")

    def __init__(self, connection: "_Connection", request: http.Request, raw: bytes = b"") -> None:
        self._connection = connection
        self.peer = connection.peer
        self.request = request
        self.raw = raw
        self.pending: Cancellable | None = None
        self.reply = b""

    def answer(self, answer: Answer) -> None:
        """Sends the answer, once the answers to the requests before it are sent."""
        request, body, more = self.request, answer.body, answer.more
        self.pending = None
        if len(body) >= PACKED_FROM_BYTES and (accepted := request.headers.get(b"accept-encoding")) is not None:
            encoding = http.encoding_for(accepted)
            if encoding:
                body = http.packed(body, encoding)
                more += b"content-encoding: %b\r\nvary: accept-encoding\r\n" % encoding.encode()
        request.is_kept = request.is_kept and not self._connection.ends_with(self)
        self.reply = http.answer(
            answer.status,
            body,
            answer.content_type,
            more=more,
            is_kept=request.is_kept,
            with_body=request.method != b"HEAD",
        )
        self._connection.answered()


class _Connection:
    """One connection."""

    __slots__ = (
        "_begun",
        "_exchanges",
        "_forms",
        "_interest",
        "_is_secured",
        "_is_taking",
        "_lingers",
        "_server",
        "_socket",
        "_unsent",
        "deadline_s",
        "descriptor",
        "held",
        "is_last",
        "is_open",
        "peer",
        "reader",
    )

    def __init__(self, server: "RestServer", accepted: socket.socket) -> None:
        self._server = server
        self._socket = accepted
        self._is_secured = isinstance(accepted, ssl.SSLSocket)
        self.descriptor = accepted.fileno()
        is_plain = not self._is_secured and self.descriptor < layout.DESCRIPTORS
        self._forms = server.forms if is_plain else None
        self._begun: bytes | None = None
        self._is_taking = False
        self.reader = http.RequestReader(server.most_bytes)
        self.held = 0
        self.is_open = True
        self.is_last = False
        self._lingers = False
        self.peer: tuple[str, ...] = ()
        self._exchanges: deque[HttpExchange] = deque()
        self._unsent = b""
        self._interest = _READABLE
        self.deadline_s = server.clock() + REQUEST_S

    @property
    def is_waiting(self) -> bool:
        """Nothing is asked of it."""
        return not self._exchanges and not self._unsent and not (self._forms and self._forms.is_busy(self.descriptor))

    def begin(self) -> None:
        """Reads the first request, which most have sent already; kernels do when they can."""
        if self._forms is None:
            self.read()
        else:
            self._forms.forget(self.descriptor)
            self._leave_to_kernels()

    def read(self) -> None:
        """Takes what has come."""
        if data := self._received():
            self.take(data)

    def take(self, data: bytes) -> None:
        """Takes what has come, and hands the requests on."""
        if self.is_last:
            return  # what comes after the last request is not answered
        self._is_taking = True
        self._take(data)
        self._is_taking = False
        self._leave_to_kernels()

    def _take(self, data: bytes) -> None:
        refusal: http.BadRequestError | None = None
        reader = self.reader
        was_reading = reader.is_reading
        try:
            requests = reader.receive(data)
        except http.BadRequestError as error:
            requests, refusal = reader.taken(), error
        if requests or reader.has_body or not was_reading:
            self.deadline_s = self._server.clock() + REQUEST_S
        raw = self._raw(data, len(requests), was_reading=was_reading) if self._forms is not None else b""
        for request in requests:
            self._hand_on(request, raw)
            if not self.is_open:
                return
        if refusal is not None:
            if not self.is_last:
                self._refuse(refusal, data)
            return
        self._server.hold(self)
        if self.is_open and reader.wants_continue and not self._exchanges:
            reader.wants_continue = False
            self._send(http.CONTINUE)
        self._watch()

    def _raw(self, data: bytes, count: int, *, was_reading: bool) -> bytes:
        """The one request that has become whole, as it came; empty if there are several or it is long."""
        if was_reading:
            data = b"" if self._begun is None else self._begun + data
        self._begun = None
        if not data or len(data) > MOST_BYTES:
            return b""
        if self.reader.is_reading:
            self._begun = data if count == 0 else None
            return b""
        return data if count == 1 else b""

    def _leave_to_kernels(self) -> None:
        """Lets kernels read the next request, if nothing of this connection is to be done here."""
        if (
            self._forms is not None
            and self.is_open
            and not self._exchanges
            and not self._unsent
            and not self._is_taking
            and not self.is_last
            and not self.reader.is_reading
            and self._interest == _READABLE
            and not self._server.is_draining
        ):
            self._forms.free(self.descriptor)

    def take_back(self) -> None:
        """Takes over what kernels do for it, so that it goes on as others do."""
        if self._forms is None:
            return
        begun_at_s = self._forms.begun_at_s(self.descriptor)
        if begun := self._take_call_back(self._forms):
            self.take(begun)
            self.deadline_s = begun_at_s + REQUEST_S

    def _take_call_back(self, forms: Forms) -> bytes:
        """The same, but for the beginning of a request, which is returned."""
        taken = forms.take_back(self.descriptor)
        if taken.request is not None and taken.render is not None:
            exchange = HttpExchange(self, taken.request)
            self._exchanges.append(exchange)
            self._server.adopt(exchange, taken.slot, taken.render)
        if taken.unsent:
            self._unsent = taken.unsent
            self.deadline_s = self._server.clock() + ANSWER_S
            self._watch()
        return taken.begun

    def _received(self) -> bytes:
        """What has come; nothing when the caller has left, which ends the connection."""
        try:
            data = self._socket.recv(READ_BYTES)
            if data and self._is_secured:  # the handshake is over when something has come
                self.peer = names_of_certificate(self._certificate())
        except _NOT_NOW:
            return b""
        except OSError:
            data = b""
        if not data:
            self.close()
        return data

    def _certificate(self) -> Mapping[str, Any] | None:
        """The caller's, which has been verified; None if it was not asked for one."""
        assert isinstance(self._socket, ssl.SSLSocket)
        self._is_secured = False  # looked at once
        return self._socket.getpeercert()

    def write(self) -> None:
        """Sends what waits, now that there is room."""
        unsent, self._unsent = self._unsent, b""
        self._send(unsent)
        if self.is_open and self.is_last and self.is_waiting:
            self._leave()
        elif self.is_open:
            self._watch()
            self._leave_to_kernels()

    def _hand_on(self, request: http.Request, raw: bytes) -> None:
        if self.is_last:
            return
        exchange = HttpExchange(self, request, raw)
        self._exchanges.append(exchange)
        if not request.is_kept or self._server.is_draining:
            self.is_last = True
        if self._server.is_draining:
            self._server.refuse(exchange, UnavailableError(_SHUTTING_DOWN))
        else:
            self._server.hand_on(exchange)

    def ends_with(self, exchange: HttpExchange) -> bool:
        """Whether nothing comes behind the answer of this exchange."""
        return self.is_last and bool(self._exchanges) and exchange is self._exchanges[-1]

    def answered(self) -> None:
        """Sends the answers that are there, in the order of their requests."""
        exchanges = self._exchanges
        if not exchanges or not self.is_open:
            return
        parts: list[bytes] = []
        is_kept = True
        while exchanges and exchanges[0].reply:
            exchange = exchanges.popleft()
            parts.append(exchange.reply)
            is_kept = is_kept and exchange.request.is_kept
        if not parts:
            return
        if not exchanges:
            self.deadline_s = self._server.clock() + IDLE_S
            self._server.waits(self)
        self._send(parts[0] if len(parts) == 1 else b"".join(parts))
        if not is_kept:
            self.is_last = True
        if self.is_open and self.is_last and self.is_waiting:
            self._leave()
        elif self.is_open and (self._unsent or self._interest != _READABLE):
            self._watch()
        self._leave_to_kernels()

    def _refuse(self, error: http.BadRequestError, data: bytes) -> None:
        """Answers what cannot be read, after the answers to what came before, and ends."""
        self._server.refused(InvalidInputError(str(error)))
        if data.startswith(_GRPC):
            self.close()  # a gRPC client could not read what is said here
            return
        self._lingers = True
        request = http.Request(b"", b"", {}, b"", is_kept=False)
        exchange = HttpExchange(self, request)
        self._exchanges.append(exchange)
        self.is_last = True
        exchange.answer(error_answer(error))

    def _leave(self) -> None:
        """Ends after the last answer. A caller that is still sending could not read it if its bytes were not taken."""
        if not self._lingers:
            self.close()
            return
        self.deadline_s = self._server.clock() + LINGER_S
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)

    def _send(self, data: bytes) -> None:
        if self._unsent:
            self._unsent += data
            return
        try:
            sent = self._socket.send(data)
        except _NOT_NOW:
            sent = 0
        except OSError:
            self.close()
            return
        if sent < len(data):
            self._unsent = data[sent:]
            self.deadline_s = self._server.clock() + ANSWER_S

    def _watch(self) -> None:
        """Has epoll tell of what there is room for."""
        if not self.is_open:
            return
        interest = select.EPOLLRDHUP
        if len(self._exchanges) < PIPELINED and len(self._unsent) < UNSENT_BYTES:
            interest = _READABLE
        if self._unsent:
            interest |= select.EPOLLOUT
        if interest != self._interest:
            self._interest = interest
            self._server.watch(self, interest)

    def check(self, now_s: float) -> None:
        """Ends the connection when its time is over; not while it waits for an answer that is being computed."""
        if self._forms is not None and not self._are_kernels_late(now_s):
            return
        if now_s < self.deadline_s or (self._exchanges and not self._unsent):
            return
        if self.reader.is_reading and not self._unsent and not self.is_last:
            self._refuse(http.BadRequestError(408, "the request did not come to an end in time"), b"")
        else:
            self.close()

    def _are_kernels_late(self, now_s: float) -> bool:
        """Whether the time may be over of what kernels do for it, which is then taken back."""
        assert self._forms is not None
        if self._forms.is_busy(self.descriptor):
            return False
        if begun_at_s := self._forms.begun_at_s(self.descriptor):
            if now_s < begun_at_s + REQUEST_S:
                return False
            self.take_back()
        elif (deadline_s := self._forms.answered_at_s(self.descriptor) + IDLE_S) > self.deadline_s:
            self.deadline_s = deadline_s
            self._server.waits(self)
        return True

    def end_when_idle(self) -> None:
        """Ends with the answers that it waits for, and that to the request that has begun to come."""
        self.take_back()
        self.is_last = not self.reader.is_reading
        if self.is_last and self.is_waiting:
            self.close()

    def give_up(self) -> None:
        """Ends with an error in the place of each answer that is not there yet."""
        self.take_back()
        for exchange in tuple(self._exchanges):
            if not exchange.reply and self.is_open:  # which the answer before it may have ended
                pending = exchange.pending
                self._server.refuse(exchange, UnavailableError(_SHUTTING_DOWN))
                if pending is not None:
                    pending.cancelled()

    def close(self) -> None:
        """Ends, and gives up what waits for its caller."""
        if not self.is_open:
            return
        if self._forms is not None:
            self._take_call_back(self._forms)
            self._forms.forget(self.descriptor)
        self.is_open = False
        self._server.remove(self)
        self._socket.close()
        exchanges, self._exchanges = self._exchanges, deque()
        for exchange in exchanges:
            pending, exchange.pending = exchange.pending, None
            if pending is not None and not exchange.reply:
                pending.cancelled()


class RestServer:
    """Accepts connections, and hands their requests to a handler; all but `listen` on the reactor's thread.

    Args:
        port: what it accepts from.
        handler: answers.
        most_bytes: of a body.
        refused: counts what is refused here.
        tls: of the port; None for none.
        connections: how many there may be at once.
        forms: has kernels answer what they can; None for no kernels.
        adopt: takes over the calls that they have begun.

    Attributes:
        descriptor: readable when `turn` has something to do.
        is_draining: new requests are refused.
        drained: set when nothing is left to answer, after `begin_drain`.
    """

    def __init__(
        self,
        port: SharedPort,
        handler: Handler,
        *,
        most_bytes: int,
        refused: Refused = ignore_refusal,
        tls: TlsContext | None = None,
        connections: int = CONNECTIONS,
        forms: Forms | None = None,
        adopt: Adopt | None = None,
        clock: Clock = monotonic,
    ) -> None:
        self.most_bytes = most_bytes
        self.refused = refused
        self.clock = clock
        self.is_draining = False
        self.drained = threading.Event()
        self._port = port
        self._handler = handler
        self._tls = tls
        self._most = connections
        self._most_held = max(HELD_BYTES, 2 * most_bytes)
        self._epoll = select.epoll()
        self._connections: dict[int, _Connection] = {}
        self._held = 0
        self._sweep_at_s = 0.0
        self._has_more = False
        self._is_accepting = False
        self.descriptor = self._epoll.fileno()
        self.forms: Forms | None = None
        if forms is not None and adopt is not None and forms.begin(self.descriptor):
            forms.claimed = self._claimed
            self.forms, self.adopt = forms, adopt

    def listen(self) -> None:
        """Accepts connections from now on; safe from any thread.

        Raises:
            UnavailableError: another program has come to listen at the port since it was bound.
        """
        try:
            self._port.begin()
        except OSError as error:
            raise UnavailableError(f"cannot listen on the REST port {self._port.number}: {error.strerror}") from error
        self._is_accepting = True
        for listener in self._port.listeners:
            # It tells of each connection once: a worker that leaves one to others is not woken for it without end.
            self._epoll.register(listener, select.EPOLLIN | select.EPOLLET)

    def turn(self) -> None:
        """Takes up what is there now."""
        if self.forms is not None:
            happenings = self.forms.turn()
        else:
            happenings = [Happening(*event, layout.NOT_READ, b"") for event in self._epoll.poll(0, EVENTS)]
        is_asked = False
        for descriptor, happened, kind, data in happenings:
            connection = self._connections.get(descriptor)
            if connection is None:
                is_asked = True
            else:
                self._guarded(connection, partial(self._take_up, connection, happened, kind, data))
        if is_asked:  # last: a new connection may have the descriptor of one that has ended
            self._accept()

    def _take_up(self, connection: _Connection, happened: int, kind: int, data: bytes) -> None:
        """Has a connection do what there is to do."""
        if kind == layout.RECEIVED_BYTES:
            connection.take(data)
            return
        connection.take_back()  # with what is not sent
        if kind == layout.NOT_READ:
            if happened & select.EPOLLOUT:
                connection.write()
            if connection.is_open and happened & ~select.EPOLLOUT:
                connection.read()

    def _claimed(self, descriptor: int) -> None:
        """Takes over a connection whose call has not ended with a plain reply."""
        if (connection := self._connections.get(descriptor)) is not None:
            connection.take_back()

    def _guarded(self, connection: _Connection, act: Callable[[], None]) -> None:
        """Has a connection do something. A bug that one brings about ends that one."""
        try:
            act()
        except Exception:
            log.exception("an HTTP connection failed")
            connection.close()

    def look_after(self) -> None:
        """Takes the connections that other workers have left, and ends those whose time is over; call it often."""
        if self._has_more:
            self._accept()
        if self._is_accepting:
            self._port.look(len(self._connections))
        if self.forms is not None:
            self.forms.look_after()
        now_s = self.clock()
        if now_s >= self._sweep_at_s:
            self._sweep_at_s = now_s + SWEEP_S
            for connection in tuple(self._connections.values()):
                connection.check(now_s)

    @property
    def connections(self) -> int:
        """How many there are."""
        return len(self._connections)

    def hand_on(self, exchange: HttpExchange) -> None:
        """Has the handler answer."""
        try:
            self._handler(exchange)
        except PenstockError as error:
            self.refuse(exchange, error)
        except http.BadRequestError as error:
            self.refused(InvalidInputError(str(error)))
            exchange.answer(error_answer(error))
        except Exception:
            log.exception("an HTTP request failed")
            exchange.answer(error_answer(PenstockError()))

    def refuse(self, exchange: HttpExchange, error: PenstockError) -> None:
        """Answers with an error that no method has counted."""
        self.refused(error)
        exchange.answer(error_answer(error))

    def hold(self, connection: _Connection) -> None:
        """Counts what a connection holds of a request that is not whole; ends it if all hold too much."""
        held = connection.reader.body_bytes
        self._held += held - connection.held
        connection.held = held
        if held and self._held > self._most_held:
            self.refused(OverloadedError("too much is held of unfinished requests"))
            connection.close()

    def waits(self, connection: _Connection) -> None:
        """Puts a connection behind all others: it has just been answered."""
        if self._connections.pop(connection.descriptor, None) is not None:
            self._connections[connection.descriptor] = connection

    def watch(self, connection: _Connection, interest: int) -> None:
        """Has epoll tell of these events."""
        self._epoll.modify(connection.descriptor, interest)

    def remove(self, connection: _Connection) -> None:
        """Forgets a connection, before its socket is closed."""
        self._held -= connection.held
        connection.held = 0
        if self._connections.pop(connection.descriptor, None) is not None:
            self._epoll.unregister(connection.descriptor)
        self._settle()

    def begin_drain(self) -> None:
        """Accepts nothing more, and ends each connection with the answers that it waits for."""
        self.is_draining = True
        self._stop_accepting()
        for connection in tuple(self._connections.values()):
            connection.end_when_idle()
        self._settle()

    def give_up(self) -> None:
        """Answers what still runs with an error, and ends every connection that takes it."""
        for connection in tuple(self._connections.values()):
            connection.give_up()

    def close(self) -> None:
        """Ends every connection."""
        self._stop_accepting()
        for connection in tuple(self._connections.values()):
            connection.close()
        self._epoll.close()
        self.drained.set()

    def _settle(self) -> None:
        if self.is_draining and not self._connections:
            self.drained.set()

    def _stop_accepting(self) -> None:
        self._is_accepting = self._has_more = False
        for listener in self._port.listeners:
            try:
                self._epoll.unregister(listener)
            except (OSError, ValueError):
                continue  # it has never listened
        self._port.close()

    def _accept(self) -> None:
        """Takes connections, as long as no other worker has fewer."""
        self._has_more = False
        for listener in self._port.listeners:
            while self._is_accepting:
                if not self._port.is_least(len(self._connections)):
                    self._has_more = True
                    break
                try:
                    accepted, _ = listener.accept()
                except (BlockingIOError, InterruptedError):
                    break
                except ConnectionAbortedError:
                    continue
                except OSError as error:
                    if error.errno == errno.EINVAL:
                        self._stop_accepting()  # the supervisor has shut it down: the server ends
                        return
                    log.warning("no REST connection can be accepted now", reason=os.strerror(error.errno or 0))
                    self._has_more = True
                    break
                self._take(accepted)

    def _take(self, accepted: socket.socket) -> None:
        accepted.setblocking(False)
        if accepted.family != socket.AF_UNIX:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self._connections) >= self._most:
            # They are in the order of their last answers.
            idle = next((each for each in self._connections.values() if each.is_waiting), None)
            if idle is None:
                accepted.close()
                self.refused(OverloadedError("too many connections"))
                return
            idle.close()
        if self._tls is not None:
            try:
                # The handshake is a part of the first reads and writes.
                accepted = self._tls.current().wrap_socket(accepted, server_side=True, do_handshake_on_connect=False)
            except OSError:
                accepted.close()  # its caller has left
                return
        connection = _Connection(self, accepted)
        self._connections[connection.descriptor] = connection
        self._epoll.register(connection.descriptor, _READABLE)
        self._guarded(connection, connection.begin)
