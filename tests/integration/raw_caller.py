"""A caller that is nobody's client: it writes whatever frames a test wants, and remembers what came back."""

import socket
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import hpack

from bench.load.frames import Frame, scan
from penstock_client.http2 import frames
from penstock_client.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PADDED,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    unpadded,
)

TIMEOUT_S = 20.0


@dataclass(slots=True)
class Answer:
    """What came of a stream: its headers and trailers together, its body, and its end."""

    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    has_ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> str:
        return self.headers.get("grpc-status", "none")


class RawCaller:
    """One connection. What the server sends is taken up while a test waits for something.

    Args:
        address: host:port.
        settings: the first SETTINGS.
        gives_room: whether what is received is given back at once, on the stream and on the connection.

    Attributes:
        answers: by stream.
        room: the bytes that the server takes, by the stream of an upload; those of the connection under 0.
        acknowledged: the payloads of answered pings.
        frame_count: of what the server sent, by kind.
        go_away: the error code of the server's GOAWAY; None before it.
    """

    def __init__(self, address: str, settings: Mapping[int, int] | None = None, *, gives_room: bool = True) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._encoder, self._decoder = hpack.Encoder(), hpack.Decoder()
        self._rest = b""
        self._gives_room = gives_room
        self.answers: defaultdict[int, Answer] = defaultdict(Answer)
        self.room: Counter[int] = Counter({0: frames.DEFAULT_WINDOW_BYTES})
        self._first_room = frames.DEFAULT_WINDOW_BYTES
        self.acknowledged: list[bytes] = []
        self.frame_count: Counter[int] = Counter()
        self.go_away: int | None = None
        self.send(PREFACE, frames.settings(settings or {}))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def send(self, *parts: bytes) -> None:
        """Sends frames together."""
        self._socket.sendall(b"".join(parts))

    def block(self, path: str, **more: str) -> bytes:
        """The header block of a call."""
        pairs = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "localhost")]
        pairs += [("content-type", "application/grpc"), ("te", "trailers")]
        return self.encoded(*pairs, *((name.replace("_", "-"), value) for name, value in more.items()))

    def encoded(self, *pairs: tuple[str, str]) -> bytes:
        found: bytes = self._encoder.encode(pairs)
        return found

    def headers(self, stream: int, path: str, **more: str) -> bytes:
        """The one frame of a call's headers."""
        return frames.frame(HEADERS, END_HEADERS, stream, self.block(path, **more))

    def open(self, stream: int, path: str, **more: str) -> None:
        self.send(self.headers(stream, path, **more))

    def until(self, condition: Callable[[], bool]) -> None:
        """Takes what comes until something is so; `TimeoutError` when it does not become so."""
        while not condition():
            data = self._socket.recv(1 << 16)
            if not data:
                raise ConnectionError(f"the server has closed the connection; go away: {self.go_away}")
            buffer = self._rest + data
            found, taken = scan(buffer)
            for frame in found:
                self._take(buffer, frame)
            self._rest = buffer[taken:]

    def answer(self, stream: int) -> Answer:
        """How a call ended, once it has."""
        self.until(lambda: self.answers[stream].has_ended or self.answers[stream].reset is not None)
        return self.answers[stream]

    def ping(self, payload: bytes) -> None:
        """Sends a ping, and waits for its answer."""
        self.send(frames.frame(PING, 0, 0, payload))
        self.until(lambda: payload in self.acknowledged)

    def upload(self, stream: int, body: bytes, *, padding: int = 0, most: int = frames.MAX_FRAME_BYTES - 256) -> None:
        """Sends a body in as large frames as there is room for, at most this many of its bytes in each, and ends the stream."""
        self.until(lambda: self.frame_count[SETTINGS] > 0)
        around = padding + 1 if padding else 0
        self.room[stream] += self._first_room
        at = 0
        while at < len(body):
            self.until(lambda: min(self.room[stream], self.room[0]) > around)
            size = min(most, len(body) - at, self.room[stream] - around, self.room[0] - around)
            self.send(frames.frame(DATA, PADDED if padding else 0, stream, padded(body[at : at + size], padding)))
            at += size
            for each in (0, stream):
                self.room[each] -= size + around
        self.send(frames.frame(DATA, END_STREAM, stream))

    def _take(self, buffer: bytes, frame: Frame) -> None:
        kind, flags, stream, start, end = frame
        self.frame_count[kind] += 1
        if stream == 0:
            self._take_of_connection(kind, flags, buffer[start:end])
            return
        answer = self.answers[stream]
        if kind == WINDOW_UPDATE:
            self.room[stream] += int.from_bytes(buffer[start:end], "big")
        elif kind == RST_STREAM:
            answer.reset = int.from_bytes(buffer[start:end], "big")
        elif kind == HEADERS:
            answer.headers |= dict(self._decoder.decode(unpadded(buffer, kind, flags, start, end)))
        elif kind == DATA:
            answer.body += unpadded(buffer, kind, flags, start, end)
            if self._gives_room and end > start:
                self.send(*(frames.window_update(each, end - start) for each in (0, stream)))
        if kind in {HEADERS, DATA} and flags & END_STREAM:
            answer.has_ended = True

    def _take_of_connection(self, kind: int, flags: int, payload: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            self._first_room = frames.parsed_settings(payload).get(INITIAL_WINDOW_SIZE, self._first_room)
            self.send(frames.frame(SETTINGS, ACK, 0))
        elif kind == PING and flags & ACK:
            self.acknowledged.append(payload)
        elif kind == PING:
            self.send(frames.frame(PING, ACK, 0, payload))
        elif kind == WINDOW_UPDATE:
            self.room[0] += int.from_bytes(payload, "big")
        elif kind == GOAWAY:
            self.go_away = int.from_bytes(payload[4:8], "big")


def padded(content: bytes, padding: int) -> bytes:
    """A payload with its padding, when there is any."""
    return bytes([padding]) + content + bytes(padding) if padding else content


def prioritized(block: bytes, *, depends_on: int, weight: int) -> bytes:
    """A header block after its priority."""
    return depends_on.to_bytes(4, "big") + bytes([weight]) + block


def split_headers(stream: int, block: bytes, size: int) -> bytes:
    """A header block over several frames; nghttp2 takes at most nine."""
    parts = [block[at : at + size] for at in range(0, len(block), size)]
    kinds = [HEADERS, *[CONTINUATION] * (len(parts) - 1)]
    flags = [*[0] * (len(parts) - 1), END_HEADERS]
    return b"".join(
        frames.frame(kind, flag, stream, part) for kind, flag, part in zip(kinds, flags, parts, strict=True)
    )
