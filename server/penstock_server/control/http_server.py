"""A small HTTP/1.1 server for GET, HEAD and small POSTs, bounded in connections, bytes and time.

It shares a process with the control plane, so what callers do must not cost more than it is worth: a connection has one
request at a time, a head of at most 16 KiB and no body, unless its path takes a small one; who sends half a request, reads no
reply or says nothing is disconnected. An answer may be a stream, which ends with its connection. When too many are connected,
an idle one gives way. Bytes that are no HTTP/1.1 are never logged. A gRPC client gets an answer that it can show (`http2`).
"""

import asyncio
import errno
import os
import re
import socket
import ssl
from asyncio import Transport
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Any, Final, cast
from urllib.parse import parse_qs, unquote

import structlog

from penstock_server.clock import Clock, monotonic
from penstock_server.control.http2 import PREFACE, GrpcRefusal
from penstock_server.transport.certificate import names_of_certificate

log = structlog.get_logger(__name__)

CONNECTIONS: Final = 256
HEAD_BYTES: Final = 16 * 1024
REQUEST_S: Final = 5.0
"""From the first byte of a request, or of a new connection, to the end of the head."""
IDLE_S: Final = 75.0
"""How long a connection may wait for its next request: longer than Prometheus' usual minute."""
ANSWER_S: Final = 60.0
"""How long an answer may take, until the caller has read it; and a chunk of a stream."""
UNREAD_BYTES: Final = 16 * 1024
"""A caller of which so much waits to be read gets no more of a stream."""
SWEEP_S: Final = 0.5
"""How often connections are looked at; none while nobody is connected."""
_LOG_PAUSE_S: Final = 60.0
_ACCEPTS: Final = 64
"""How many connections are taken before other events have their turn."""
_BACKLOG: Final = 1024
_RETRY_ACCEPT_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """What a caller asks.

    Attributes:
        path: its parts between the slashes, decoded.
        query: the first value of each name.
        headers: by name in lower case.
        authorization: all values of that header.
        peer: the names of the caller's certificate, which has been verified.
        body: what was posted.
    """

    path: tuple[str, ...]
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    authorization: tuple[str, ...] = ()
    peer: tuple[str, ...] = ()
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Reply:
    body: bytes
    status: int = 200
    content_type: str = "text/plain; charset=utf-8"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer that goes on until either side ends it.

    Attributes:
        opened: called with the connection, to which the chunks go by `write`, and which `end` ends; gives what is to be called
            when it is gone.
    """

    opened: Callable[["_Connection"], Callable[[], None]]
    content_type: str
    headers: tuple[tuple[str, str], ...] = ()


Handler = Callable[[HttpRequest], Reply | Stream | Awaitable[Reply | Stream]]
"""Answers a request. What answers at once is a plain function, so that it is answered whatever else is slow."""


def takes_nothing(_: tuple[str, ...]) -> int:
    """No path takes a body."""
    return 0


class HttpServer:
    """Listens, and hands each request to the handler.

    Args:
        handler: answers GET and HEAD.
        posts: answers POST; None refuses it.
        grpc_hint: what a gRPC client is told that comes to this port by mistake.
        connections: how many there may be at once.
        tls: the context of each new connection; None for plain text.
        takes: how many bytes of a body may be posted to a path; 0 for none.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        posts: Handler | None = None,
        takes: Callable[[tuple[str, ...]], int] = takes_nothing,
        tls: Callable[[], ssl.SSLContext] | None = None,
        grpc_hint: str = "this port speaks HTTP/1.1",
        connections: int = CONNECTIONS,
        clock: Clock = monotonic,
    ) -> None:
        self.handler = handler
        self.posts = posts
        self.takes = takes
        self.connections = connections
        self.grpc_hint = grpc_hint
        self.clock = clock
        self._tls = tls
        self._greeting = 0
        self._connections: dict[_Connection, None] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._socket: socket.socket | None = None
        self._reserve: int | None = None
        self._sweeping: asyncio.TimerHandle | None = None
        self._accepting: asyncio.TimerHandle | None = None
        self._logged_s = -_LOG_PAUSE_S

    def listen(self, listening: socket.socket) -> None:
        """Serves the connections of a bound socket, which is the server's from now on."""
        listening.setblocking(False)
        listening.listen(_BACKLOG)
        self._socket = listening
        self._hold_reserve()
        self._resume_accepting()

    async def close(self) -> None:
        """Ends all connections, and what still computes answers for them."""
        for timer in (self._sweeping, self._accepting):
            if timer is not None:
                timer.cancel()
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        for connection in list(self._connections):
            connection.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._release_reserve()

    def add(self, connection: "_Connection") -> None:
        """Takes a connection in; when there are too many, the one that has waited longest without an answer gives way."""
        if len(self._connections) >= self.connections:
            for other in self._connections:  # in the order of their last request
                if not other.is_answering:
                    other.abort()
                    break
            else:
                connection.refuse_busy()
                return
        self._connections[connection] = None
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def touch(self, connection: "_Connection") -> None:
        """Puts a connection behind all others: it has just been answered."""
        if connection in self._connections:
            del self._connections[connection]
            self._connections[connection] = None

    def remove(self, connection: "_Connection") -> None:
        self._connections.pop(connection, None)

    def spawn(self, answer: Any) -> None:
        """Runs a coroutine; the server ends it when it closes."""
        task = asyncio.create_task(answer)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def failed(self, request: HttpRequest) -> None:
        """Logs the exception of a handler, at most once a minute: a probe that fails does so every second."""
        if self.clock() - self._logged_s >= _LOG_PAUSE_S:
            self._logged_s = self.clock()
            log.exception("an HTTP request failed", path="/".join(request.path)[:200])

    def _sweep(self) -> None:
        now = self.clock()
        for connection in list(self._connections):
            connection.check(now)
        loop = asyncio.get_running_loop()
        self._sweeping = loop.call_later(SWEEP_S, self._sweep) if self._connections else None

    def _resume_accepting(self) -> None:
        self._accepting = None
        if self._socket is not None:
            asyncio.get_running_loop().add_reader(self._socket, self._accept)

    def _accept(self) -> None:
        assert self._socket is not None
        for _ in range(_ACCEPTS):
            try:
                accepted, _ = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                if error.errno in {errno.EMFILE, errno.ENFILE}:
                    self._turn_away()
                loop = asyncio.get_running_loop()
                loop.remove_reader(self._socket)
                self._accepting = loop.call_later(_RETRY_ACCEPT_S, self._resume_accepting)
                return
            accepted.setblocking(False)
            self.spawn(self._serve(accepted))

    async def _serve(self, accepted: socket.socket) -> None:
        if self._tls is not None and self._greeting >= self.connections:
            accepted.close()  # so many that have not said who they are take no more
            return
        self._greeting += 1
        how: dict[str, Any] = {} if self._tls is None else {"ssl": self._tls(), "ssl_handshake_timeout": REQUEST_S}
        try:
            await asyncio.get_running_loop().connect_accepted_socket(lambda: _Connection(self), accepted, **how)
        except OSError:
            accepted.close()
        finally:
            self._greeting -= 1

    def _hold_reserve(self) -> None:
        with suppress(OSError):
            self._reserve = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def _release_reserve(self) -> None:
        if self._reserve is not None:
            os.close(self._reserve)
            self._reserve = None

    def _turn_away(self) -> None:
        """Without a free descriptor, uses the reserved one to end a waiting connection, which would wait in vain."""
        assert self._socket is not None
        self._release_reserve()
        with suppress(OSError):
            self._socket.accept()[0].close()
        self._hold_reserve()


@dataclass(frozen=True, slots=True)
class _Posted:
    """A request whose body is still to come, of so many bytes."""

    request: HttpRequest
    length: int
    is_kept: bool


class _Connection(asyncio.Protocol):
    """One connection: waits for a head, answers it, and so on."""

    def __init__(self, server: HttpServer) -> None:
        self._server = server
        self._transport: Transport | None = None
        self._received = bytearray()
        self._http2: GrpcRefusal | None = None
        self._peer: tuple[str, ...] = ()
        self._is_sent = False
        self._ends = False
        self._closed: Callable[[], None] | None = None
        self._posted: _Posted | None = None
        self.is_answering = False
        self._deadline_s = server.clock() + REQUEST_S

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("Transport", transport)
        self._peer = names_of_certificate(transport.get_extra_info("peercert"))
        self._transport.set_write_buffer_limits(
            high=0
        )  # `resume_writing` then means that the caller has read the answer
        self._server.add(self)

    def eof_received(self) -> bool:
        """Ends a connection whose caller sends no more, unless an answer is under way to it that has an end."""
        return self.is_answering and self._closed is None

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        self._forget()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()
        self._forget()

    def _forget(self) -> None:
        self._transport = None
        self._server.remove(self)
        if self._closed is not None:
            closed, self._closed = self._closed, None
            closed()

    def refuse_busy(self) -> None:
        """Says that too many are connected, and ends the connection."""
        self._refuse(503, "too many connections; try again")

    def check(self, now: float) -> None:
        """Ends the connection when its time is over."""
        if now >= self._deadline_s:
            self.abort()

    def data_received(self, data: bytes) -> None:
        if self._transport is None or self._ends:
            return
        if self._http2 is not None:
            self._talk_http2(data)
            return
        if not self._received and not self.is_answering and self._posted is None:
            self._deadline_s = self._server.clock() + REQUEST_S
        self._received += data
        self._next_request()

    def resume_writing(self) -> None:
        self._end_answer()

    def _next_request(self) -> None:
        """Answers the next request, if its head is whole."""
        if self.is_answering or self._transport is None or self._ends:
            return
        if self._posted is not None:
            self._take_body(self._posted)
            return
        if self._received.startswith(PREFACE[: len(self._received)]) and len(self._received) >= 4:
            if len(self._received) < len(PREFACE):
                return
            self._http2 = GrpcRefusal(self._server.grpc_hint)
            self._talk_http2(bytes(self._received[len(PREFACE) :]))
            return
        while self._received.startswith(b"\r\n"):  # which some clients send after a request
            del self._received[:2]
        end = self._received.find(b"\r\n\r\n")
        if end < 0 or end > HEAD_BYTES:
            if len(self._received) > HEAD_BYTES:
                self._refuse(431, f"the head of a request takes at most {HEAD_BYTES} bytes")
            elif self._received and not self._received[:1].isalpha():
                self._refuse(400, "this port speaks plain HTTP/1.1")
            return
        head = bytes(self._received[:end]).decode("latin-1")
        del self._received[: end + 4]
        self._answer(head)

    def _answer(self, head: str) -> None:
        line, *rest = head.split("\r\n")
        words = line.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            self._refuse(400, "expected a request line such as GET /healthz HTTP/1.1")
            return
        pairs = [
            (name.strip().lower(), value.strip())
            for name, colon, value in (each.partition(":") for each in rest)
            if colon
        ]
        headers = dict(pairs)
        method, target, protocol = words
        is_kept = "close" not in headers.get("connection", "").lower() and (
            protocol != "HTTP/1.0" or "keep-alive" in headers.get("connection", "").lower()
        )
        path, _, query = target.partition("?")
        values = (
            {name: each[0] for name, each in parse_qs(query, max_num_fields=100).items()} if len(query) < 4096 else {}
        )
        shown = tuple(value for name, value in pairs if name == "authorization")
        parts = tuple(map(unquote, path.split("/")[1:]))
        request = HttpRequest(parts, values, headers, shown, self._peer)
        if method == "POST" and self._server.posts is not None and (most := self._server.takes(parts)):
            self._await_body(request, {value for name, value in pairs if name == "content-length"}, most, is_kept)
            return
        if headers.get("content-length", "0") != "0" or "transfer-encoding" in headers:
            self._refuse(413, "this port takes no bodies")
            return
        handler = self._server.handler if method in {"GET", "HEAD"} else self._server.posts
        if handler is None or method not in {"GET", "HEAD", "POST"}:
            self._refuse(405, f"{method[:20]} is not answered here, expected GET or HEAD")
            return
        self._handle(handler, request, with_body=method != "HEAD", is_kept=is_kept)

    def _await_body(self, request: HttpRequest, lengths: set[str], most: int, is_kept: bool) -> None:
        """Waits for what is posted, if it says how long it is and may be that long."""
        length = lengths.pop() if len(lengths) == 1 else ""
        if "transfer-encoding" in request.headers or not re.fullmatch(r"[0-9]{1,15}", length):
            self._refuse(411, "expected one Content-Length, and no Transfer-Encoding")
        elif int(length) > most:
            self._refuse(413, f"the body has {length} bytes; at most {most} are taken here")
        else:
            self._posted = _Posted(request, int(length), is_kept)
            self._take_body(self._posted)

    def _take_body(self, posted: _Posted) -> None:
        if len(self._received) >= posted.length:
            body = bytes(self._received[: posted.length])
            del self._received[: posted.length]
            self._posted = None
            assert self._server.posts is not None  # checked before its body was awaited
            self._handle(self._server.posts, replace(posted.request, body=body), with_body=True, is_kept=posted.is_kept)

    def _handle(self, handler: Handler, request: HttpRequest, *, with_body: bool, is_kept: bool) -> None:
        self._start_answer()
        try:
            answer = handler(request)
        except Exception:  # noqa: BLE001 - it is logged, at a bounded rate
            self._server.failed(request)
            answer = Reply(b"the request failed; the server's log says why\n", 500)
        if isinstance(answer, Reply | Stream):
            self._send(answer, with_body=with_body, is_kept=is_kept)
        else:
            self._server.spawn(self._wait(request, answer, with_body=with_body, is_kept=is_kept))

    async def _wait(
        self, request: HttpRequest, answer: Awaitable[Reply | Stream], *, with_body: bool, is_kept: bool
    ) -> None:
        reply: Reply | Stream
        try:
            reply = await answer
        except Exception:  # noqa: BLE001 - it is logged, at a bounded rate
            self._server.failed(request)
            reply = Reply(b"the request failed; the server's log says why\n", 500)
        self._send(reply, with_body=with_body, is_kept=is_kept)

    def _start_answer(self) -> None:
        self.is_answering = True
        self._deadline_s = self._server.clock() + ANSWER_S
        if self._transport is not None:
            self._transport.pause_reading()  # a caller that sends more requests waits for this answer

    def _refuse(self, status: int, why: str) -> None:
        self._start_answer()
        self._send(Reply(f"{why}\n".encode(), status), with_body=True, is_kept=False)

    def write(self, chunk: bytes) -> bool:
        """Sends a chunk of a stream, unless the caller has not read the one before yet; whether it was sent."""
        if self._transport is None or self._transport.get_write_buffer_size() > UNREAD_BYTES:
            return False
        self._deadline_s = self._server.clock() + ANSWER_S
        self._transport.write(chunk)
        return True

    def end(self) -> None:
        """Ends a stream."""
        if self._transport is not None:
            self._transport.close()

    def _open(self, stream: Stream, *, with_body: bool) -> None:
        assert self._transport is not None
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {stream.content_type}\r\nConnection: close\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in stream.headers)
        self._transport.write(f"{head}\r\n".encode("latin-1"))
        self._ends = True
        if not with_body:
            self._transport.close()
            return
        self._transport.resume_reading()  # only to learn when the caller leaves
        self._closed = stream.opened(self)

    def _send(self, reply: Reply | Stream, *, with_body: bool, is_kept: bool) -> None:
        if self._transport is None:
            return
        if isinstance(reply, Stream):
            self._open(reply, with_body=with_body)
            return
        phrase = HTTPStatus(reply.status).phrase
        head = (
            f"HTTP/1.1 {reply.status} {phrase}\r\nContent-Type: {reply.content_type}\r\n"
            f"Content-Length: {len(reply.body)}\r\n"
        )
        if reply.status == 405:
            head += "Allow: GET, HEAD\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in reply.headers)
        head += "\r\n" if is_kept else "Connection: close\r\n\r\n"
        self._transport.writelines([head.encode("latin-1"), reply.body if with_body else b""])
        self._is_sent = True
        if is_kept:
            self._end_answer()
        else:
            self._ends = True
            self._transport.close()  # once all is written; `check` ends it if the caller does not read

    def _end_answer(self) -> None:
        """Waits for the next request, once the caller has read the answer."""
        if self._transport is None or self._ends or not self._is_sent or self._transport.get_write_buffer_size():
            return
        self.is_answering = self._is_sent = False
        self._deadline_s = self._server.clock() + (REQUEST_S if self._received else IDLE_S)
        self._server.touch(self)
        self._transport.resume_reading()
        if self._received:
            asyncio.get_running_loop().call_soon(self._next_request)

    def _talk_http2(self, data: bytes) -> None:
        assert self._http2 is not None
        assert self._transport is not None
        answer = self._http2.receive(data)
        if answer is None:
            self.abort()
        elif answer:
            self._transport.write(answer)
