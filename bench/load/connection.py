"""The client's side of one HTTP/2 connection that carries unary gRPC calls, without I/O.

It decides what bytes to send and how each call ended; sockets and time are `generator`'s. Bytes that are the same for
every call are built once, so that a small call costs a few list and dict operations.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

from bench.load.frames import frame_start, scan
from bench.load.headers import OK, Verdicts
from penstock_client.http2 import frames
from penstock_client.http2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PADDED,
    PRIORITY,
    ProtocolError,
    unpadded,
)

Outcome: TypeAlias = tuple[float, str]
"""When a call was due, and why it failed, or `OK`."""

_OPENING: Final = (
    frames.PREFACE
    + frames.settings(
        {
            frames.HEADER_TABLE_SIZE: 0,
            frames.ENABLE_PUSH: 0,
            frames.INITIAL_WINDOW_SIZE: frames.MAX_WINDOW_BYTES,
        }
    )
    + frames.window_update(0, frames.MAX_WINDOW_BYTES - frames.DEFAULT_WINDOW_BYTES)
)
_CREDIT_BYTES: Final = 2**29  # give the window back in large pieces: a quarter of it
_PLAIN_TRAILERS: Final = END_STREAM | END_HEADERS


def prefixed(message: bytes) -> bytes:
    """A message as gRPC sends it, after five bytes: not compressed, and its length."""
    return b"\x00" + len(message).to_bytes(4, "big") + message


class Calls:
    """The bytes of calls, built once for any number of connections.

    Attributes:
        head: HEADERS up to its stream id.
        block: the header block.
        bodies: each message with gRPC's five-byte prefix.
        tails: for each, the bytes between the two stream ids if it fits in one DATA frame.
        verdicts: over trailers, shared by all connections.
    """

    __slots__ = ("block", "bodies", "head", "tails", "verdicts")

    def __init__(self, block: bytes, messages: tuple[bytes, ...]) -> None:
        self.block = block
        self.head = frame_start(HEADERS, END_HEADERS, len(block))
        self.bodies = tuple(map(prefixed, messages))
        self.tails = tuple(block + frame_start(DATA, END_STREAM, len(body)) for body in self.bodies)
        self.verdicts = Verdicts()

    def connect(self, number: int) -> "Connection":  # noqa: ARG002 - all connections begin alike
        """The state of a new connection."""
        return Connection(self)


@dataclass(slots=True)
class _Unsent:
    """A body that waits for the peer's window."""

    body: bytes
    window_bytes: int
    sent_bytes: int = 0


class Connection:
    """Starts calls, reads answers, and does what HTTP/2 requires: windows, PING and SETTINGS.

    Each submitted call gives exactly one outcome, from `receive` or from `close`.
    """

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._output = [_OPENING]
        self._rest = b""
        self._next_stream = 1
        self._due: dict[int, float] = {}
        self._answered: set[int] = set()  # streams that carried a message
        self._unsent: dict[int, _Unsent] = {}
        self._partial: tuple[int, int, bytes] | None = None  # a header block that CONTINUATION continues
        self._uncredited_bytes = 0
        self._window_bytes = frames.DEFAULT_WINDOW_BYTES
        self._stream_window_bytes = frames.DEFAULT_WINDOW_BYTES
        self._frame_bytes = frames.MAX_FRAME_BYTES
        self._one_frame_bytes = min(self._frame_bytes, self._stream_window_bytes)
        self.max_streams = frames.LAST_STREAM
        self.is_closing = False

    @property
    def in_flight(self) -> int:
        """Calls without an outcome."""
        return len(self._due)

    def submit(self, due: float, calls: Calls | None = None) -> None:
        """Starts one call that was due at this time, one of these if they are given."""
        stream = self._next_stream
        self._next_stream = stream + 2
        if stream >= frames.LAST_STREAM - 2:
            self.is_closing = True
        self._due[stream] = due
        calls = calls or self._calls
        which = (stream >> 1) % len(calls.bodies)
        body = calls.bodies[which]
        size = len(body)
        stream_id = stream.to_bytes(4, "big")
        if self._unsent or size > self._one_frame_bytes or size > self._window_bytes:
            self._output += (calls.head, stream_id, calls.block)
            self._unsent[stream] = _Unsent(body, self._stream_window_bytes)
            self._send_unsent()
            return
        self._window_bytes -= size
        self._output += (calls.head, stream_id, calls.tails[which], stream_id, body)

    def take_output(self) -> bytes:
        """The bytes to send now."""
        output = b"".join(self._output)
        self._output.clear()
        return output

    def receive(self, data: bytes) -> list[Outcome]:
        """Takes what the server sent and returns the outcomes that it completes.

        Raises:
            ProtocolError: the connection cannot be used any more.
        """
        buffer = self._rest + data if self._rest else data
        found, consumed = scan(buffer)
        self._rest = buffer[consumed:]
        outcomes: list[Outcome] = []
        for kind, flags, stream, start, end in found:
            if self._partial and kind != frames.CONTINUATION:
                raise ProtocolError("a header block was interrupted by another frame")
            if kind == DATA:
                self._uncredited_bytes += end - start
                if end > start:
                    self._answered.add(stream)
                if flags & END_STREAM:
                    self._finish(stream, "ended without trailers", outcomes)
            elif kind == HEADERS:
                if not flags & END_STREAM and flags & END_HEADERS:
                    continue  # the initial metadata does not decide the outcome
                if flags & (PADDED | PRIORITY) or flags & _PLAIN_TRAILERS != _PLAIN_TRAILERS:
                    self._on_headers_part(stream, flags, unpadded(buffer, kind, flags, start, end), outcomes)
                else:
                    self._finish(stream, self._calls.verdicts.of(buffer[start:end]), outcomes)
            else:
                self._on_control(kind, flags, stream, buffer[start:end], outcomes)
        if self._uncredited_bytes >= _CREDIT_BYTES:
            self._output.append(frames.window_update(0, self._uncredited_bytes))
            self._uncredited_bytes = 0
        return outcomes

    def close(self, reason: str) -> list[Outcome]:
        """Ends the connection; all calls in flight have failed for this reason."""
        outcomes = [(due, reason) for due in self._due.values()]
        self._due.clear()
        self._unsent.clear()
        self.is_closing = True
        return outcomes

    def _finish(self, stream: int, verdict: str, outcomes: list[Outcome]) -> None:
        due = self._due.pop(stream, None)
        if stream in self._answered:
            self._answered.discard(stream)
        elif verdict == OK:
            verdict = "grpc-status 0 without a message"
        if due is None:  # a stream that was reset, or that never existed
            return
        if stream in self._unsent:
            del self._unsent[stream]
            self._output.append(frames.reset(stream))
        outcomes.append((due, verdict))

    def _on_headers_part(self, stream: int, flags: int, part: bytes, outcomes: list[Outcome]) -> None:
        first_flags, block = flags, part
        if self._partial:
            begun, first_flags, before = self._partial
            if begun != stream:
                raise ProtocolError("a header block continues in another stream")
            block = before + part
        if len(block) > 4 * frames.MAX_FRAME_BYTES:
            raise ProtocolError(f"got a header block of more than {4 * frames.MAX_FRAME_BYTES} bytes")
        self._partial = None if flags & END_HEADERS else (stream, first_flags, block)
        if flags & END_HEADERS and first_flags & END_STREAM:
            self._finish(stream, self._calls.verdicts.of(block), outcomes)

    def _on_control(self, kind: int, flags: int, stream: int, payload: bytes, outcomes: list[Outcome]) -> None:
        if kind == frames.WINDOW_UPDATE:
            self._on_window_update(stream, int.from_bytes(payload, "big"))
        elif kind == frames.PING and not flags & frames.ACK:
            self._output.append(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif kind == frames.SETTINGS and not flags & frames.ACK:
            self._on_settings(frames.parsed_settings(payload))
        elif kind == frames.RST_STREAM:
            self._finish(stream, f"reset with HTTP/2 error {int.from_bytes(payload, 'big')}", outcomes)
        elif kind == frames.GOAWAY:
            self.is_closing = True
            last = int.from_bytes(payload[:4], "big")
            for refused in [each for each in self._due if each > last]:
                self._finish(refused, "refused by GOAWAY", outcomes)
        elif kind == frames.CONTINUATION:
            if not self._partial:
                raise ProtocolError("a CONTINUATION frame came without a header block to continue")
            self._on_headers_part(stream, flags & END_HEADERS, payload, outcomes)

    def _on_window_update(self, stream: int, granted_bytes: int) -> None:
        if stream == 0:
            self._window_bytes += granted_bytes
        elif unsent := self._unsent.get(stream):
            unsent.window_bytes += granted_bytes
        if self._unsent:
            self._send_unsent()

    def _on_settings(self, values: dict[int, int]) -> None:
        self._output.append(frames.frame(frames.SETTINGS, frames.ACK, 0))
        window = values.get(frames.INITIAL_WINDOW_SIZE, self._stream_window_bytes)
        for unsent in self._unsent.values():
            unsent.window_bytes += window - self._stream_window_bytes
        self._stream_window_bytes = window
        self._frame_bytes = values.get(frames.MAX_FRAME_SIZE, self._frame_bytes)
        self._one_frame_bytes = min(self._frame_bytes, window)
        self.max_streams = values.get(frames.MAX_CONCURRENT_STREAMS, self.max_streams)
        self._send_unsent()

    def _send_unsent(self) -> None:
        """Sends as much of the waiting bodies, oldest first, as the windows allow."""
        for stream, unsent in list(self._unsent.items()):
            while (left := len(unsent.body) - unsent.sent_bytes) > 0:
                size = min(left, unsent.window_bytes, self._window_bytes, self._frame_bytes)
                if size <= 0:
                    break
                chunk = unsent.body[unsent.sent_bytes : unsent.sent_bytes + size]
                self._output.append(frames.frame(DATA, END_STREAM if size == left else 0, stream, chunk))
                unsent.sent_bytes += size
                unsent.window_bytes -= size
                self._window_bytes -= size
            if not left:
                del self._unsent[stream]
