"""A relay between a caller and a server that counts the frames of HTTP/2 which pass, each way."""

import socket
import threading
from collections import Counter
from contextlib import suppress
from types import TracebackType
from typing import Self

from penstock_client.http2.frames import HEADER_BYTES, PREFACE


class Wiretap:
    """Listens on a port of its own, and passes everything on to the server at an address.

    Attributes:
        address: where callers connect to.
        connections: how many there were.
    """

    def __init__(self, address: str) -> None:
        host, _, port = address.rpartition(":")
        self._server = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = [self._listener]
        self._sent: Counter[int] = Counter()
        self._received: Counter[int] = Counter()
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.connections = 0

    def count_sent(self, kind: int) -> int:
        """How many frames of a kind the callers sent."""
        return self._sent[kind]

    def count_received(self, kind: int) -> int:
        """How many frames of a kind the server sent."""
        return self._received[kind]

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for opened in self._sockets:
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)  # wakes who waits for it
            opened.close()

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._server)
            self._sockets += [caller, server]
            self.connections += 1
            for source, target, counts, skip in (
                (caller, server, self._sent, len(PREFACE)),
                (server, caller, self._received, 0),
            ):
                threading.Thread(target=_relay, args=(source, target, counts, skip), daemon=True).start()


def _relay(source: socket.socket, target: socket.socket, counts: Counter[int], skip: int) -> None:
    """Passes bytes on until either side closes; `skip` are those before the next frame's header."""
    rest = b""
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
            rest += data
            while len(rest) >= skip + HEADER_BYTES:
                counts[rest[skip + 3]] += 1
                rest, skip = rest[skip + HEADER_BYTES :], int.from_bytes(rest[skip : skip + 3], "big")
        target.shutdown(socket.SHUT_WR)
