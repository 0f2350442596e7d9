"""Calls over HTTP/1.1: connections that are used again, one caller at a time; proxies as the environment says.

A request goes once more where a connection that was idle turns out to be closed: a prediction changes nothing at the server.
"""

import asyncio
import http.client
import os
import socket
import ssl
import time
import urllib.request
import weakref
from base64 import b64encode
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import grpc

from penstock_client.channel import Tls, call_metadata
from penstock_client.headers import Headers
from penstock_client.http2 import outcome
from penstock_client.http2.target import context_of
from penstock_client.rest.messages import SERVER_METADATA, Reply, Request, offers_binary, outcome_of, request_of, unsent
from penstock_client.steps import Failure

_MOST_IDLE: Final = 64
_MOST_THREADS: Final = 32
_CLOSED: Final = "the client was closed during the call"


@dataclass(frozen=True, slots=True)
class Place:
    """Where requests go.

    Attributes:
        prefix: of every path, such as "/models"; empty for none.
        context: how to encrypt; None for plain text.
        server_name: the name that the server's certificate must hold.
        proxy: the proxy's host, port and authorization; None without one.
    """

    host: str
    port: int
    prefix: str = ""
    context: ssl.SSLContext | None = None
    server_name: str | None = None
    proxy: tuple[str, int, str] | None = None


def place_of(address: str, tls: Tls | None) -> Place:
    """Where an address is.

    Raises:
        ValueError: it has no host, or what no server's address has.

    >>> place_of("http://models:8080/v", None)
    Place(host='models', port=8080, prefix='/v', context=None, server_name=None, proxy=None)
    """
    parts = urlsplit(address)
    if not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError(f"the server's address is expected as {parts.scheme}://host:port, got {address!r}")
    is_secure = parts.scheme == "https"
    port = parts.port or (443 if is_secure else 80)
    context = context_of(tls or Tls(), "http/1.1") if is_secure else None
    name = (tls and tls.server_name) or parts.hostname
    proxy = _proxy(parts.scheme, parts.hostname)
    return Place(parts.hostname, port, parts.path.rstrip("/"), context, name if is_secure else None, proxy)


def _proxy(scheme: str, host: str) -> tuple[str, int, str] | None:
    address = urllib.request.getproxies().get(scheme)
    if not address or urllib.request.proxy_bypass(host):
        return None
    parts = urlsplit(address if "//" in address else f"//{address}")
    if not parts.hostname:
        return None
    own = f"{unquote(parts.username)}:{unquote(parts.password or '')}" if parts.username else ""
    return parts.hostname, parts.port or 80, f"Basic {b64encode(own.encode()).decode()}" if own else ""


class _Connection(http.client.HTTPConnection):
    """A connection to a place, through its proxy where there is one."""

    def __init__(self, place: Place, timeout_s: float) -> None:
        host, port, authorization = place.proxy or (place.host, place.port, "")
        super().__init__(host, port, timeout=timeout_s)
        self._place = place
        self.is_fresh = True
        self.has_connected = False
        if place.proxy is not None and place.context is not None:
            self.set_tunnel(place.host, place.port, {"Proxy-Authorization": authorization} if authorization else {})

    def connect(self) -> None:
        """Connects, and encrypts."""
        super().connect()
        if self._place.context is not None:
            try:
                self.sock = self._place.context.wrap_socket(self.sock, server_hostname=self._place.server_name)
            except OSError:
                self.close()
                raise
        self.has_connected = True


class RestCalls:
    """Unary calls to one server of REST. Threads may share it; a process that was forked has connections of its own.

    Args:
        address: http://host:port or https://host:port, and a prefix of all paths where there is one.
        tls: how to encrypt; None for gRPC's own list of authorities.
        headers: sent with every call.
        max_message_bytes: the longest reply that is taken.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        address: str,
        tls: Tls | None,
        headers: Mapping[str, str],
        max_message_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._place = place_of(address, tls)
        self._headers = call_metadata(headers)
        self._max_message_bytes = max_message_bytes
        self._clock = clock
        # Lists and sets are changed by single operations only, which threads may do at the same time.
        self._idle: list[_Connection] = []
        self._busy: set[_Connection] = set()
        self._is_binary: bool | None = None
        self._is_closed = False
        _ALL.add(self)

    def call(self, path: str, payload: bytes, timeout_s: float, headers: Headers = ()) -> bytes | Failure:
        """The reply to one message, or how the call failed."""
        deadline_s = self._clock() + timeout_s
        if self._is_binary is None and path.endswith("/ModelInfer"):
            described = self._answered(SERVER_METADATA, deadline_s, headers)
            if isinstance(described, Failure):
                return described
            self._is_binary = offers_binary(described)
        request = request_of(path, payload, is_binary=bool(self._is_binary))
        if isinstance(request, Failure):
            return request
        reply = self._answered(request, deadline_s, headers)
        return reply if isinstance(reply, Failure) else outcome_of(path, reply)

    def pipe(self, ahead: int) -> "RestPipe":  # noqa: ARG002 - a connection carries one request at a time
        """Calls that overlap."""
        return RestPipe(self)

    def close(self) -> None:
        """Closes every connection; calls of other threads end with an error."""
        self._is_closed = True
        for connection in list(self._busy):
            if connection.sock is not None:
                _shut(connection.sock)
        while self._idle:
            self._idle.pop().close()

    def forget(self) -> None:
        """After a fork, in the child: leaves the connections to the parent."""
        connections, self._idle, self._busy = [*self._idle, *self._busy], [], set()
        for connection in connections:
            if connection.sock is not None:
                # Not by `close` of a TLS socket, which would speak to the server.
                os.close(connection.sock.detach())

    def _answered(self, request: Request, deadline_s: float, headers: Headers) -> Reply | Failure:
        while True:
            connection = self._connection(deadline_s)
            was_used = not connection.is_fresh
            self._busy.add(connection)
            is_kept = False
            try:
                reply = self._exchanged(connection, request, deadline_s, headers)
                is_kept = connection.sock is not None
            except TimeoutError:
                return outcome.failure(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")
            except (http.client.HTTPException, OSError) as error:
                if was_used and not self._is_closed:
                    continue
                return self._failed(connection, error)
            finally:
                self._busy.discard(connection)
                if is_kept and not self._is_closed and len(self._idle) < _MOST_IDLE:
                    connection.is_fresh = False
                    self._idle.append(connection)
                else:
                    connection.close()
            return reply

    def _failed(self, connection: _Connection, error: Exception) -> Failure:
        if self._is_closed:
            return outcome.failure(grpc.StatusCode.CANCELLED, _CLOSED)
        where = f"{self._place.host}:{self._place.port}"
        if not connection.has_connected:
            return unsent(outcome.failure(grpc.StatusCode.UNAVAILABLE, f"failed to connect to {where}: {error}"))
        return outcome.failure(
            grpc.StatusCode.UNAVAILABLE, f"the connection to {where} broke: {error or type(error).__name__}"
        )

    def _connection(self, deadline_s: float) -> _Connection:
        try:
            return self._idle.pop()
        except IndexError:
            return _Connection(self._place, max(0.001, deadline_s - self._clock()))

    def _exchanged(
        self, connection: _Connection, request: Request, deadline_s: float, headers: Headers
    ) -> Reply | Failure:
        left_s = deadline_s - self._clock()
        if left_s <= 0:
            raise TimeoutError
        if connection.sock is None:
            connection.timeout = left_s
            connection.connect()
        connection.sock.settimeout(max(0.001, deadline_s - self._clock()))
        target = self._place.prefix + request.path
        sent = dict((*self._headers, *headers, *request.headers))
        if self._place.proxy is not None and self._place.context is None:
            target = f"http://{self._place.host}:{self._place.port}{target}"
            sent |= {"Proxy-Authorization": self._place.proxy[2]} if self._place.proxy[2] else {}
        sent["Host"] = self._place.host if self._place.port in (80, 443) else f"{self._place.host}:{self._place.port}"
        connection.request(request.verb, target, request.body or None, sent)
        response = connection.getresponse()
        body = response.read(self._max_message_bytes + 1)
        if len(body) > self._max_message_bytes:
            connection.close()
            details = f"received message larger than max (over {self._max_message_bytes})"
            return outcome.failure(grpc.StatusCode.RESOURCE_EXHAUSTED, details)
        return Reply(response.status, {name.lower(): value for name, value in response.getheaders()}, body)


class RestPipe:
    """Calls that overlap, each on a connection and a thread of its own."""

    def __init__(self, calls: RestCalls) -> None:
        self._calls = calls
        self._threads = ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="penstock-rest")

    def start(self, path: str, payload: bytes, timeout_s: float, headers: Headers = ()) -> Future[bytes | Failure]:
        """Starts a call and returns what `wait` takes."""
        return self._threads.submit(self._calls.call, path, payload, timeout_s, headers)

    def wait(self, ticket: Future[bytes | Failure]) -> bytes | Failure:
        """How the call ended."""
        return ticket.result()

    def close(self) -> None:
        """Starts no more; what is in flight ends by itself."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class AwaitedRestCalls:
    """`RestCalls`, awaited: each call on a thread."""

    def __init__(self, address: str, tls: Tls | None, headers: Mapping[str, str], max_message_bytes: int) -> None:
        self._calls = RestCalls(address, tls, headers, max_message_bytes)
        self._threads = ThreadPoolExecutor(_MOST_THREADS, thread_name_prefix="penstock-rest")

    async def call(self, path: str, payload: bytes, timeout_s: float, headers: Headers = ()) -> bytes | Failure:
        """The reply to one message, or how the call failed."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._calls.call, path, payload, timeout_s, headers)

    async def close(self) -> None:
        """Closes every connection; calls of other tasks end with an error."""
        self._calls.close()
        self._threads.shutdown(wait=False, cancel_futures=True)


def _shut(connected: Any) -> None:
    with suppress(OSError):  # it is gone already
        connected.shutdown(socket.SHUT_RDWR)


_ALL: Final[weakref.WeakSet[RestCalls]] = weakref.WeakSet()


def _after_fork() -> None:
    for calls in list(_ALL):
        calls.forget()


os.register_at_fork(after_in_child=_after_fork)
