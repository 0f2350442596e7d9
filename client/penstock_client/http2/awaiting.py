"""Calls over a socket of the client's own, for tasks of one event loop that await them.

All calls share one connection, and what tasks say in one turn of the loop is sent in one piece. A connection that the server
ends, or that breaks, is replaced by the next call.
"""

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import Mapping
from typing import Any, Final, cast

import grpc

from penstock_client.headers import Headers
from penstock_client.http2 import link as limits
from penstock_client.http2 import outcome
from penstock_client.http2.blocking import MOST_PLACES, HeaderWriter, late, refused, unreached
from penstock_client.http2.connection import Connection, Outcome
from penstock_client.http2.frames import ProtocolError
from penstock_client.http2.hpack import KnownBlocks
from penstock_client.http2.target import SLOW_S, Target
from penstock_client.steps import Failure

_CLOSED: Final = "the client was closed during the call"
_CONNECT_S: Final = 20.0
"""As long as grpcio tries to connect. Callers leave at their own deadlines."""


class _Link(asyncio.Protocol):
    """One connection: asyncio calls it with what came, and tasks wait for the ends of their calls.

    Attributes:
        connection: what is sent and what came, as HTTP/2 has it.
        lost: why the connection is gone; None while it stands.
    """

    def __init__(self, connection: Connection, loop: asyncio.AbstractEventLoop) -> None:
        self.connection = connection
        self.lost: Failure | None = None
        self._loop = loop
        self._waiting: dict[int, asyncio.Future[Outcome]] = {}
        self._transport: asyncio.Transport | None = None
        self._is_flushing = False
        self._watch: asyncio.TimerHandle | None = None
        self._silence: asyncio.TimerHandle | None = None
        self._asked_s: float | None = None  # since when the peer is silent while somebody waits
        self._pinged_s: float | None = None

    @property
    def is_usable(self) -> bool:
        """Whether a call may start here."""
        return self.lost is None and not self.connection.is_closing

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is connected."""
        # uvloop's transports are none of asyncio's classes.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        self._asked_s = self._pinged_s = None
        try:
            ends = self.connection.receive(data)
        except ProtocolError as error:
            self.lose(grpc.StatusCode.UNAVAILABLE, f"the connection cannot be used: {error}")
            return
        for stream, end in ends:
            self._end(stream, end)
        if self.connection.has_output:
            self.flush()
        if self.connection.has_acknowledgements:
            if self._silence is not None:
                self._silence.cancel()
            self._silence = self._loop.call_later(limits.SILENT_S, self._on_silence)
        if self.connection.is_closing and not self._waiting:
            self.lose(grpc.StatusCode.UNAVAILABLE, "the server stops")

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is about to be closed."""
        if exc is not None:
            self._catch_up()
        reason = "the server closed the connection" if exc is None else f"the connection broke: {exc}"
        self.lose(grpc.StatusCode.UNAVAILABLE, reason)

    def _catch_up(self) -> None:
        """Takes what has come to a socket that could not be written to: it tells what became of the calls."""
        transport = self._transport
        connected = None if transport is None else transport.get_extra_info("socket")
        if connected is None or transport is None or transport.get_extra_info("ssl_object") is not None:
            return
        with contextlib.suppress(OSError):
            for _ in range(limits.MOST_READS):
                data = os.read(connected.fileno(), limits.READ_BYTES)
                if not data or self.lost is not None:
                    return
                self.data_received(data)

    def start(self, headers: bytes, payload: bytes) -> tuple[int, asyncio.Future[Outcome]]:
        """Starts a call, and returns its number and its end."""
        stream = self.connection.start(headers, payload)
        future: asyncio.Future[Outcome] = self._loop.create_future()
        due_s = self._due_s()
        if self._watch is None:
            self._watch = self._loop.call_at(due_s, self._on_watch)
        self._waiting[stream] = future
        self._flush_soon()
        return stream, future

    def cancel(self, stream: int) -> None:
        """Ends a call for which nobody waits; the server hears of it."""
        if self._waiting.pop(stream, None) is not None and self.lost is None:
            self.connection.cancel(stream)
            self._flush_soon()

    def expire(self, stream: int) -> None:
        """Ends a call whose deadline has passed."""
        if self.lost is None and stream in self._waiting:
            self.connection.cancel(stream)
            self._end(stream, late())
            self._flush_soon()

    def flush(self) -> None:
        """Sends what waits to be sent."""
        self._is_flushing = False
        if self._transport is not None and self.connection.has_output:
            self._transport.write(self.connection.take_output())

    def _on_silence(self) -> None:
        if self._transport is not None and self.lost is None:
            self._transport.write(self.connection.take_output())

    def lose(self, code: grpc.StatusCode, details: str) -> None:
        """Closes the socket; whatever is open has failed so."""
        if self.lost is not None:
            return
        self.lost = outcome.failure(code, details)
        for timer in (self._watch, self._silence):
            if timer is not None:
                timer.cancel()
        if self._transport is not None:
            self._transport.abort()
        for stream in list(self._waiting):
            self._end(stream, self.lost)

    def _flush_soon(self) -> None:
        if not self._is_flushing:
            self._is_flushing = True
            self._loop.call_soon(self.flush)

    def _end(self, stream: int, end: Outcome) -> None:
        future = self._waiting.pop(stream, None)
        if future is not None and not future.done():
            future.set_result(end)

    def _on_watch(self) -> None:
        """Looks whether the peer is alive, while somebody waits for it."""
        self._watch = None
        if not self._waiting or self.lost is not None:
            return
        if self._loop.time() >= self._due_s():
            if self._pinged_s is not None:
                self.lose(grpc.StatusCode.UNAVAILABLE, "the server gave no sign of life")
                return
            self._pinged_s = self._loop.time()
            self.connection.ping()
            self.flush()
        self._watch = self._loop.call_at(self._due_s(), self._on_watch)

    def _due_s(self) -> float:
        """When a peer that stays silent is asked for a sign of life, or given up."""
        if self._pinged_s is not None:
            return self._pinged_s + limits.DEAD_AFTER_S
        if self._asked_s is None:
            self._asked_s = self._loop.time()
        return self._asked_s + limits.PING_AFTER_S


class AwaitedCalls:
    """Unary calls to one server, from the tasks of the event loop in which it is made.

    Args:
        target: where to connect.
        headers: sent with every call.
        max_message_bytes: the longest reply that is taken.
    """

    def __init__(self, target: Target, headers: Mapping[str, str], max_message_bytes: int) -> None:
        self._target = target
        self._writer = HeaderWriter(target, headers)
        self._known = KnownBlocks()
        self._max_message_bytes = max_message_bytes
        self._loop = asyncio.get_running_loop()
        self._link: _Link | None = None
        self._links: set[_Link] = set()
        self._opening: asyncio.Task[_Link | Failure] | None = None
        self._is_closed = False

    async def call(self, path: str, payload: bytes, timeout_s: float, headers: Headers = ()) -> bytes | Failure:
        """The reply to one message, or how the call failed."""
        deadline_s = self._loop.time() + timeout_s
        block = self._writer.block(path, timeout_s, headers)
        for _ in range(MOST_PLACES):
            link = self._link
            if link is None or not link.is_usable:
                found = await self._usable(deadline_s)
                if isinstance(found, Failure):
                    return found
                if not found.is_usable:
                    # The server has ended it before this task's turn came.
                    continue
                link = found
            stream, future = link.start(block, payload)
            timer = self._loop.call_at(deadline_s, link.expire, stream)
            try:
                end = await future
            except asyncio.CancelledError:
                link.cancel(stream)
                raise
            finally:
                timer.cancel()
            if end is not None:
                return end
        return refused()

    async def close(self) -> None:
        """Closes every connection; calls of other tasks end with an error."""
        self._is_closed = True
        if self._opening is not None:
            self._opening.cancel()
        for link in list(self._links):
            link.lose(grpc.StatusCode.CANCELLED, _CLOSED)
        # The sockets are closed in the loop's next turn.
        await asyncio.sleep(0)

    async def _usable(self, deadline_s: float) -> _Link | Failure:
        """A connection; those who need one at the same time wait for the same."""
        if self._is_closed:
            return outcome.failure(grpc.StatusCode.CANCELLED, _CLOSED)
        if self._opening is None:
            # A task of its own, since the caller who is first may leave first.
            self._opening = self._loop.create_task(self._opened())
        opening = self._opening
        done, _ = await asyncio.wait({opening}, timeout=max(0.0, deadline_s - self._loop.time()))
        if not done:
            return late()
        if opening.cancelled():
            return outcome.failure(grpc.StatusCode.CANCELLED, _CLOSED)
        return opening.result()

    async def _opened(self) -> _Link | Failure:
        try:
            return await self._attempted()
        finally:
            self._opening = None

    async def _attempted(self) -> _Link | Failure:
        try:
            async with asyncio.timeout(_CONNECT_S):
                transport, link = await self._connected()
        except TimeoutError:
            return unreached(self._target, "no answer")
        except OSError as error:
            return unreached(self._target, str(error))
        encrypted: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        if encrypted is not None and encrypted.selected_alpn_protocol() != "h2":
            link.lose(grpc.StatusCode.UNAVAILABLE, "")
            return unreached(self._target, "the server does not speak HTTP/2 over TLS")
        self._links = {each for each in self._links if each.lost is None} | {link}
        self._link = link
        return link

    async def _connected(self) -> tuple[asyncio.BaseTransport, _Link]:
        target = self._target

        def made() -> _Link:
            return _Link(Connection(self._max_message_bytes, self._known), self._loop)

        if target.path:
            return await self._loop.create_unix_connection(made, target.path)
        encryption: dict[str, Any] = {}
        if target.context is not None:
            encryption = {"ssl": target.context, "server_hostname": target.server_name}
        # One address after the other by hand: not every loop's own way gives up a silent one.
        error: OSError = OSError(f"{target.host} has no address")
        found = await self._loop.getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        for at, (family, _, _, _, place) in enumerate(found):
            try:
                async with asyncio.timeout(SLOW_S if at < len(found) - 1 else None):
                    return await self._loop.create_connection(
                        made, str(place[0]), int(place[1]), family=family, **encryption
                    )
            except OSError as failed:
                error = failed
        raise error
