"""A peer that speaks HTTP/2 byte by byte, so that it can also speak it wrongly."""

import select
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final, Self

import hpack

from bench.fuzz.frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    call,
    frame,
    settings,
)

TIMEOUT_S: Final = 10.0
PROBE: Final = 1_000_001
"""The stream of the call that shows that a connection lives."""


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame from the server."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self) -> int:
        """The error code of a RST_STREAM or a GOAWAY."""
        at = 4 if self.kind == GOAWAY else 0
        return int.from_bytes(self.payload[at : at + 4], "big")


@dataclass(slots=True)
class Answer:
    """What came on a stream."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    is_ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int | None:
        """The gRPC status."""
        return int(self.headers["grpc-status"]) if "grpc-status" in self.headers else None

    @property
    def messages(self) -> list[bytes]:
        found, at = [], 0
        while at < len(self.body):
            size = int.from_bytes(self.body[at + 1 : at + 5], "big")
            found.append(self.body[at + 5 : at + 5 + size])
            at += 5 + size
        return found


class Peer:
    """One connection. Answers are kept by stream, other frames in order; it acknowledges nothing unless it is told to.

    Args:
        opens: what it sends first; the default is a valid opening.
        tls: given, it speaks TLS.
    """

    def __init__(self, address: str, opens: bytes = PREFACE + settings(), *, tls: ssl.SSLContext | None = None) -> None:
        host, _, port = address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), TIMEOUT_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self.answers: dict[int, Answer] = {}
        self.others: list[Frame] = []
        self.is_closed = False
        self._probe = PROBE
        self._received = bytearray()
        self._decoder = hpack.Decoder()
        if opens:
            self.send(opens)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *parts: bytes) -> None:
        """Sends; that the server has closed shows when it is read from."""
        with suppress(BrokenPipeError, ConnectionResetError):
            self.socket.sendall(b"".join(parts))

    def shake_hands(self) -> None:
        """Waits for the server's settings and acknowledges them."""
        self.until(lambda: bool(self.of(SETTINGS)))
        self.send(frame(SETTINGS, ACK, 0))

    def of(self, kind: int) -> list[Frame]:
        return [found for found in self.others if found.kind == kind]

    def answer(self, stream: int) -> Answer:
        return self.answers.setdefault(stream, Answer())

    def until(self, is_done: Callable[[], bool]) -> None:
        """Reads frames until this holds, or until the server closes."""
        while not is_done() and self._read_frame():
            pass

    def read_what_came(self) -> None:
        """Reads what is there, without waiting."""
        while not self.is_closed and select.select([self.socket], [], [], 0)[0]:
            self._receive()
        while self._has_frame():
            self._read_frame()

    def until_closed(self) -> list[Frame]:
        """Reads until the server closes; the GOAWAYs that came."""
        self.until(lambda: False)
        return self.of(GOAWAY)

    def finish(self, stream: int) -> Answer:
        """Reads until this stream is answered or reset, or the server closes."""
        answer = self.answer(stream)
        self.until(lambda: answer.is_ended or answer.reset is not None)
        return answer

    def is_alive(self) -> bool:
        """Whether a call on this connection is answered."""
        self._probe += 2
        self.send(call(self._probe, b"alive"))
        return self.finish(self._probe).messages == [b"alive"]

    def _receive(self) -> bool:
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionResetError:
            data = b""
        self.is_closed = not data
        self._received += data
        return bool(data)

    def _has_frame(self) -> bool:
        return len(self._received) >= 9 + int.from_bytes(self._received[:3], "big")

    def _take(self, size: int) -> bytes | None:
        while len(self._received) < size:
            if self.is_closed or not self._receive():
                return None
        taken = bytes(self._received[:size])
        del self._received[:size]
        return taken

    def _read_frame(self) -> bool:
        head = self._take(9)
        if head is None:
            return False
        payload = self._take(int.from_bytes(head[:3], "big"))
        if payload is None:
            return False
        self._sort(Frame(head[3], head[4], int.from_bytes(head[5:], "big"), payload))
        return True

    def _sort(self, got: Frame) -> None:
        answer = self.answer(got.stream)
        if got.kind == HEADERS:
            # Each answer of the server fits one frame.
            assert got.flags & END_HEADERS
            answer.headers |= {str(name): str(value) for name, value in self._decoder.decode(got.payload)}
        elif got.kind == DATA:
            answer.body += got.payload
        elif got.kind == RST_STREAM:
            answer.reset = got.code
        else:
            self.others.append(got)
        if got.kind in (DATA, HEADERS) and got.flags & END_STREAM:
            answer.is_ended = True
