"""One non-blocking socket under one connection, encrypted or not."""

import selectors
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from bench.load.connection import Calls, Connection
from bench.load.http1 import HttpCalls, HttpConnection

_READ_BYTES: Final = 2**18


class Link:
    """Moves bytes between a socket and a connection."""

    __slots__ = ("_selector", "_socket", "_unsent", "connection", "is_open")

    def __init__(
        self, sock: socket.socket, connection: Connection | HttpConnection, selector: selectors.BaseSelector
    ) -> None:
        self._socket = sock
        self._selector = selector
        self._unsent = b""
        self.connection = connection
        self.is_open = True
        selector.register(sock, selectors.EVENT_READ, self)

    def read(self) -> bytes | None:
        """The bytes that have arrived; None if there are none, empty if the server closed.

        Raises:
            OSError: the connection broke.
        """
        try:
            return self._receive()
        except (BlockingIOError, ssl.SSLWantReadError):
            return None

    def _receive(self) -> bytes:
        return self._socket.recv(_READ_BYTES)

    def flush(self) -> None:
        """Sends the connection's output, as much as the socket takes.

        Raises:
            OSError: the connection broke.
        """
        output = self.connection.take_output()
        if self._unsent:
            output = self._unsent + output
        if not output:
            return
        try:
            sent = self._socket.send(output)
        except (BlockingIOError, ssl.SSLWantWriteError):
            sent = 0
        was_waiting, self._unsent = bool(self._unsent), output[sent:]
        if was_waiting != bool(self._unsent):
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._unsent else 0)
            self._selector.modify(self._socket, events, self)

    def close(self) -> None:
        """Closes the socket; a second call does nothing."""
        if self.is_open:
            self.is_open = False
            self._selector.unregister(self._socket)
            self._socket.close()


class TlsLink(Link):
    """The same over TLS, which gives one record at a time, and keeps what it has decrypted from the selector."""

    __slots__ = ()

    _socket: ssl.SSLSocket

    def _receive(self) -> bytes:
        parts = [self._socket.recv(_READ_BYTES)]
        while parts[-1]:
            try:
                parts.append(self._socket.recv(_READ_BYTES))
            except ssl.SSLWantReadError:
                break
        return b"".join(parts)


def _unchecked() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return context


@contextmanager
def links(
    address: tuple[str, int],
    calls: Calls | HttpCalls,
    count: int,
    selector: selectors.BaseSelector,
    *,
    is_tls: bool = False,
    idle: int = 0,
) -> Iterator[list[Link]]:
    """Open connections to one address, closed on leaving.

    Args:
        address: host and port.
        calls: what they carry.
        count: how many.
        selector: tells of them.
        is_tls: they are encrypted.
        idle: so many others are open meanwhile, which have begun and do nothing.

    Raises:
        OSError: the server accepts no connection.
    """
    opened: list[Link] = []
    others: list[socket.socket] = []
    context = _unchecked() if is_tls else None

    def connected() -> socket.socket:
        sock = socket.create_connection(address, timeout=5)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock if context is None else context.wrap_socket(sock)

    try:
        for number in range(idle):
            others.append(connected())
            others[-1].sendall(calls.connect(number).take_output())
        for number in range(count):
            sock = connected()
            sock.setblocking(False)
            opened.append((TlsLink if is_tls else Link)(sock, calls.connect(number), selector))
        yield opened
    finally:
        for link in opened:
            link.close()
        for sock in others:
            sock.close()
