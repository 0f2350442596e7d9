"""One connection to the server with its socket: sends, waits and reads for whoever has it, one thread at a time.

`blocking` decides who has it and when it ends. A link that breaks says why, and every call on it has failed so.
"""

import contextlib
import os
import select
import socket
import ssl
import struct
from collections.abc import Callable
from typing import Final

import grpc

from penstock_client.http2 import outcome
from penstock_client.http2.connection import Connection, Outcome
from penstock_client.http2.frames import ProtocolError
from penstock_client.steps import Failure

PING_AFTER_S: Final = 30.0
"""While a call waits and the peer is silent so long, it is asked for a sign of life. Servers refuse frequent pings."""
DEAD_AFTER_S: Final = 10.0
"""A peer that does not answer it so long is gone."""

SILENT_S: Final = 0.5
"""A server that ends the connection and says nothing for so long has not closed it, and may wait for acknowledgements."""
READ_BYTES: Final = 65_536
MOST_READS: Final = 256
_TIMEVAL: Final = struct.Struct("ll")
_READABLE: Final = select.POLLIN | select.POLLHUP | select.POLLERR


class LateError(Exception):
    """The deadline passed."""


class Link:
    """A connected socket and the state of its connection.

    Attributes:
        connection: what is sent and what came, as HTTP/2 has it.
        outcomes: the calls that have ended, until somebody takes them, by number.
        lost: why the connection is gone; None while it stands.
    """

    __slots__ = (
        "_asked_s",
        "_clock",
        "_is_plain",
        "_pinged_s",
        "_poll",
        "_socket",
        "_timeout_s",
        "connection",
        "lost",
        "outcomes",
    )

    def __init__(self, connected: socket.socket, connection: Connection, clock: Callable[[], float]) -> None:
        self.connection = connection
        self.outcomes: dict[int, Outcome] = {}
        self.lost: Failure | None = None
        self._socket = connected
        self._clock = clock
        self._is_plain = not isinstance(connected, ssl.SSLSocket)
        # A plain socket blocks, with a timeout of the kernel's own: one system call per wait, where Python's timeouts take
        # two, for sending too. TLS cannot be read so, since a record may be there in part.
        connected.setblocking(self._is_plain)
        self._timeout_s = -1.0
        self._poll = select.poll()
        self._poll.register(connected, select.POLLIN)
        self._asked_s: float | None = None  # since when the peer is silent while somebody waits
        self._pinged_s: float | None = None

    def is_usable(self) -> bool:
        """Whether a new call may start here, after all that the server has sent since the last one."""
        if self.lost is None and (self._pending() or self._poll.poll(0)):
            self.catch_up()
        return self.lost is None and not self.connection.is_closing

    def catch_up(self) -> None:
        """Takes what has come, without waiting; not for ever, from a server that does not stop."""
        for _ in range(MOST_READS):
            if self.lost is not None or not self._take(self._received_nowait()):
                return

    def start(self, headers: bytes, payload: bytes, now: float) -> int:
        """Starts a call; `flush` or `wait` sends it."""
        if self._asked_s is None:
            self._asked_s = now
        return self.connection.start(headers, payload)

    def wait(self, stream: int, deadline_s: float) -> Outcome:
        """How a call ended.

        Raises:
            LateError: it has not, and the deadline has passed. It is still open.
        """
        outcomes = self.outcomes
        has_caught_up = False
        while stream not in outcomes:
            if self.lost is not None:
                return self.lost
            if self.connection.has_output:
                self.flush(deadline_s)
                continue
            if self._read(deadline_s):
                continue
            if has_caught_up:
                raise LateError
            # An answer that has come while the caller did something else is an answer in time.
            self.catch_up()
            has_caught_up = True
        return outcomes.pop(stream)

    def flush(self, deadline_s: float) -> None:
        """Sends what waits to be sent, and meanwhile reads, so that two who both send do not wait for each other.

        Raises:
            LateError: the deadline has passed; the rest still waits to be sent.
        """
        data = self.connection.take_output()
        sent = self._sent(data)
        while sent < len(data) and self.lost is None:
            if not self._is_writable(deadline_s):
                self.connection.put_back(data[sent:])
                raise LateError
            sent += self._sent(memoryview(data)[sent:])

    def cancel(self, stream: int) -> None:
        """Ends a call for which nobody waits, and says so to the server, now or as soon as the socket takes it."""
        self.outcomes.pop(stream, None)
        self.connection.cancel(stream)
        self.flush_nowait()

    def flush_nowait(self) -> None:
        """Sends what the socket takes at once."""
        if self.lost is None and self.connection.has_output:
            data = self.connection.take_output()
            sent = self._sent(data)
            if sent < len(data):
                self.connection.put_back(data[sent:])

    def lose(self, code: grpc.StatusCode, details: str) -> None:
        """Closes the socket; whatever is open has failed so."""
        if self.lost is None:
            self.lost = outcome.failure(code, details)
        self._socket.close()

    def shut(self, details: str) -> None:
        """Ends it under the thread that waits for it."""
        if self.lost is None:
            self.lost = outcome.failure(grpc.StatusCode.CANCELLED, details)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def forget(self) -> None:
        """Closes this process's copy of the socket after a fork, and leaves the parent's connection as it is."""
        self.lost = outcome.failure(grpc.StatusCode.UNAVAILABLE, "the connection belongs to the process that forked")
        # Not by `close` of a TLS socket or `shutdown`: both would speak to the server.
        descriptor = self._socket.detach()
        if descriptor >= 0:
            os.close(descriptor)

    def _read(self, deadline_s: float) -> bool:
        """Waits for bytes and takes them; returns whether there is time left."""
        now = self._clock()
        left_s = deadline_s - now
        if left_s <= 0:
            return False
        if self._asked_s is None:
            self._asked_s = now
        alive_s = (self._asked_s + PING_AFTER_S if self._pinged_s is None else self._pinged_s + DEAD_AFTER_S) - now
        if alive_s <= 0:
            self._on_silence(now)
            return True
        has_acknowledgements = self.connection.has_acknowledgements
        data = self._received(min(left_s, alive_s, SILENT_S) if has_acknowledgements else min(left_s, alive_s))
        if data is not None:
            self._take(data)
        elif has_acknowledgements:
            self.flush(deadline_s)
        return True

    def _on_silence(self, now: float) -> None:
        if self._pinged_s is not None:
            self.lose(grpc.StatusCode.UNAVAILABLE, "the server gave no sign of life")
            return
        self._pinged_s = now
        self.connection.ping()

    def _take(self, data: bytes | None) -> bool:
        """Hands on what was read; returns whether there may be more."""
        if data is None or self.lost is not None:
            return False
        if not data:
            self.lose(grpc.StatusCode.UNAVAILABLE, "the server closed the connection")
            return False
        self._asked_s = self._pinged_s = None
        try:
            self.outcomes.update(self.connection.receive(data))
        except ProtocolError as error:
            self.lose(grpc.StatusCode.UNAVAILABLE, f"the connection cannot be used: {error}")
            return False
        return True

    def _received(self, timeout_s: float) -> bytes | None:
        """The next bytes, none at the connection's end, or None if there are none yet."""
        if self._is_plain:
            # The calls of a client mostly have one timeout, which is then set once.
            if not 0.99 * timeout_s <= self._timeout_s <= 1.01 * timeout_s:
                self._timeout_s = timeout_s
                parts = divmod(max(1, int(timeout_s * 1e6)), 1_000_000)
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(*parts))
            return self._attempted(0)
        if not self._pending() and not self._poll.poll(max(1, timeout_s * 1000)):
            return None
        return self._attempted(0)

    def _received_nowait(self) -> bytes | None:
        return self._attempted(socket.MSG_DONTWAIT if self._is_plain else 0)

    def _attempted(self, flags: int) -> bytes | None:
        try:
            return self._socket.recv(READ_BYTES, flags)
        except (BlockingIOError, ssl.SSLWantReadError):
            return None
        except OSError as error:
            self.lose(grpc.StatusCode.UNAVAILABLE, f"the connection broke: {error}")
            return None

    def _pending(self) -> int:
        return self._socket.pending() if isinstance(self._socket, ssl.SSLSocket) else 0

    def _sent(self, data: bytes | memoryview) -> int:
        """How much of it the socket took."""
        try:
            return self._socket.send(data, socket.MSG_DONTWAIT if self._is_plain else 0)
        except (BlockingIOError, ssl.SSLWantWriteError):
            return 0
        except OSError as error:
            # What the server has said before it closed, such as a GOAWAY, tells what became of the calls.
            self.catch_up()
            self.lose(grpc.StatusCode.UNAVAILABLE, f"the connection broke: {error}")
            return 0

    def _is_writable(self, deadline_s: float) -> bool:
        """Whether the socket takes bytes before the deadline; what comes meanwhile is taken."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN | select.POLLOUT)
        while (left_s := deadline_s - self._clock()) > 0:
            for _, events in poll.poll(left_s * 1000):
                if events & _READABLE:
                    self._take(self._received_nowait())
                if events & select.POLLOUT or self.lost is not None:
                    return True
        return False
