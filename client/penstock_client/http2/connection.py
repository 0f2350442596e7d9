"""The client's side of one HTTP/2 connection that carries unary gRPC calls, without I/O.

It decides what bytes to send and how each call ended; sockets, time and deadlines are `blocking`'s and `awaiting`'s. Calls may
overlap. What a server may make it hold is bounded: one message of the agreed size per call, and one header block.

Source: RFC 9113; gRPC over HTTP/2.
"""

import struct
from collections import deque
from typing import Final

import grpc

from penstock_client.http2 import frames, outcome
from penstock_client.http2.frames import DATA, END_HEADERS, END_STREAM, HEADERS, ProtocolError, unpadded
from penstock_client.http2.hpack import HeaderReader, KnownBlocks
from penstock_client.steps import Failure

Outcome = bytes | Failure | None
"""The reply's bytes, or how the call failed; None if the server certainly did nothing for it, so that it may go elsewhere."""

OPENING: Final = (
    frames.PREFACE
    + frames.settings(
        {
            # A server's header blocks then mean the same wherever they come, and are looked up.
            frames.HEADER_TABLE_SIZE: 0,
            frames.ENABLE_PUSH: 0,
            # A reply's length is known and checked from its first bytes, so windows bound nothing that is not bounded.
            frames.INITIAL_WINDOW_SIZE: frames.MAX_WINDOW_BYTES,
        }
    )
    + frames.window_update(0, frames.MAX_WINDOW_BYTES - frames.DEFAULT_WINDOW_BYTES)
)
"""What a client sends first."""

_CREDIT_BYTES: Final = 2**29
"""The connection's window is given back in pieces of this size, a quarter of it."""
_MOST_HEADER_BYTES: Final = 65_536
_PREFIX_BYTES: Final = 5
# DATA's frame header, and gRPC's prefix: not compressed, and the message's length.
_DATA_AND_PREFIX: Final = struct.Struct(">HBBBIBI")
_PREFIX: Final = struct.Struct(">BI")
_WHOLE_BLOCK: Final = END_STREAM | END_HEADERS


class _Stream:
    """A call in flight: what of its answer has come, and what of its request has not gone."""

    __slots__ = (
        "has_begun",
        "message",
        "parts",
        "received_bytes",
        "sent_bytes",
        "unsent",
        "whole_bytes",
        "window_bytes",
    )

    def __init__(self) -> None:
        self.has_begun = False  # its first headers have come
        self.message: bytes | None = None
        self.parts: list[bytes] = []
        self.received_bytes = 0
        self.whole_bytes: int | None = None  # of the message and its prefix, once that is known
        self.unsent = b""
        self.sent_bytes = 0
        self.window_bytes = 0


class Connection:
    """Starts calls, reads answers, and does what HTTP/2 asks for: windows, PING, SETTINGS, GOAWAY.

    Every started call ends once: in what `receive` returns, by `cancel`, or with the connection.

    Args:
        max_message_bytes: the longest reply that is taken.
        known: what is known of the server's header blocks; its connections may share it.

    Attributes:
        is_closing: no further call may start here; those in flight go on.
        is_ending: the server has said which calls are the last, and closes when it has written their answers. What reaches
            a socket that is closed destroys what it has yet to send, so `has_acknowledgements` is said late.
        open: how many calls have started and not ended.
    """

    __slots__ = (
        "_acknowledgements",
        "_frame_bytes",
        "_has_settings",
        "_headers",
        "_max_message_bytes",
        "_max_streams",
        "_next_stream",
        "_output",
        "_partial",
        "_rest",
        "_stream_window_bytes",
        "_streams",
        "_uncredited_bytes",
        "_waiting",
        "_window_bytes",
        "is_closing",
        "is_ending",
    )

    def __init__(self, max_message_bytes: int, known: KnownBlocks) -> None:
        self._max_message_bytes = max_message_bytes
        self._headers = HeaderReader(known)
        self._output = [OPENING]
        self._rest = b""
        self._next_stream = 1
        self._streams: dict[int, _Stream] = {}
        self._waiting: deque[tuple[int, bytes, bytes]] = deque()  # calls beyond the server's limit of streams
        self._partial: tuple[int, int, bytes] | None = None  # a header block that CONTINUATION continues
        self._uncredited_bytes = 0
        self._window_bytes = frames.DEFAULT_WINDOW_BYTES
        self._stream_window_bytes = frames.DEFAULT_WINDOW_BYTES
        self._frame_bytes = frames.MAX_FRAME_BYTES
        # Until the server has said how many it takes. The first call need not wait for that; some servers refuse more.
        self._max_streams = 1
        self._has_settings = False
        self._acknowledgements: list[bytes] = []
        self.is_closing = False
        self.is_ending = False

    @property
    def has_acknowledgements(self) -> bool:
        """Whether there is something to send that may wait until the server is silent."""
        return bool(self._acknowledgements)

    @property
    def open(self) -> int:
        """How many calls have not ended, those that wait for the server's permission included."""
        return len(self._streams) + len(self._waiting)

    @property
    def has_output(self) -> bool:
        """Whether something waits to be sent."""
        return bool(self._output)

    def start(self, headers: bytes, payload: bytes) -> int:
        """Starts a call and returns its number; `take_output` then has its bytes.

        Args:
            headers: the header block of the request.
            payload: the message.
        """
        stream = self._next_stream
        self._next_stream = stream + 2
        if stream >= frames.LAST_STREAM - 2:
            self.is_closing = True
        if len(self._streams) >= self._max_streams or self._waiting:
            self._waiting.append((stream, headers, payload))
        else:
            self._send(stream, headers, payload)
        return stream

    def take_output(self) -> bytes:
        """The bytes to send now; where there are none, acknowledgements that waited."""
        output = self._output or self._acknowledgements
        if len(output) == 1:
            return output.pop()
        joined = b"".join(output)
        output.clear()
        return joined

    def put_back(self, unsent: bytes) -> None:
        """Bytes that `take_output` gave and that could not be sent yet."""
        self._output.insert(0, unsent)

    def cancel(self, stream: int) -> None:
        """Ends a call for which nobody waits; the server hears of it."""
        if self._streams.pop(stream, None) is not None:
            self._acknowledge(frames.reset(stream))
            self._start_waiting()
        else:
            self._waiting = deque(each for each in self._waiting if each[0] != stream)

    def ping(self) -> None:
        """Asks the peer for a sign of life."""
        self._output.append(frames.frame(frames.PING, 0, 0, b"penstock"))

    def receive(self, data: bytes) -> list[tuple[int, Outcome]]:
        """Takes what the server sent, and returns the calls that it ends, by number.

        Raises:
            ProtocolError: the connection cannot be used any more.
        """
        buffer = self._rest + data if self._rest else data
        ends: list[tuple[int, Outcome]] = []
        at, size = 0, len(buffer)
        unpack = frames.HEADER.unpack_from
        while at + 9 <= size:
            high, low, kind, flags, stream = unpack(buffer, at)
            length = high << 8 | low
            start = at + 9
            end = start + length
            if length > frames.MAX_FRAME_BYTES:
                raise ProtocolError(f"the server sent a frame of {length} bytes; expected at most 16,384")
            if end > size:
                break
            at = end
            stream &= frames.LAST_STREAM
            if self._partial is not None and kind != frames.CONTINUATION:
                raise ProtocolError("a header block was interrupted by another frame")
            if kind == DATA:
                self._uncredited_bytes += length
                self._on_data(stream, flags, unpadded(buffer, kind, flags, start, end), ends)
            elif kind == HEADERS:
                block = unpadded(buffer, kind, flags, start, end)
                if flags & END_HEADERS:
                    self._on_headers(stream, flags, block, ends)
                else:
                    self._partial = stream, flags, block
            else:
                self._on_control(kind, flags, stream, buffer[start:end], ends)
        self._rest = buffer[at:]
        if self._uncredited_bytes >= _CREDIT_BYTES:
            self._output.append(frames.window_update(0, self._uncredited_bytes))
            self._uncredited_bytes = 0
        if ends and self._waiting:
            self._start_waiting()
        return ends

    def _send(self, stream: int, headers: bytes, payload: bytes) -> None:
        state = self._streams[stream] = _Stream()
        size = len(payload)
        total = size + _PREFIX_BYTES
        head = frames.HEADER.pack(len(headers) >> 8, len(headers) & 255, HEADERS, END_HEADERS, stream)
        if total <= self._frame_bytes and total <= self._window_bytes and total <= self._stream_window_bytes:
            self._window_bytes -= total
            prefix = _DATA_AND_PREFIX.pack(total >> 8, total & 255, DATA, END_STREAM, stream, 0, size)
            self._output.append(b"".join((head, headers, prefix, payload)))
            return
        self._output.append(head + headers)
        state.unsent = _PREFIX.pack(0, size) + payload
        state.window_bytes = self._stream_window_bytes
        self._send_unsent()

    def _send_unsent(self) -> None:
        """Sends as much of the requests that wait for windows, the oldest first, as these allow."""
        for stream, state in self._streams.items():
            if not state.unsent:
                continue
            whole = memoryview(state.unsent)
            while left := len(whole) - state.sent_bytes:
                size = min(left, state.window_bytes, self._window_bytes, self._frame_bytes)
                if size <= 0:
                    break
                chunk = whole[state.sent_bytes : state.sent_bytes + size]
                self._output.append(frames.frame(DATA, END_STREAM if size == left else 0, stream, bytes(chunk)))
                state.sent_bytes += size
                state.window_bytes -= size
                self._window_bytes -= size
            if not left:
                state.unsent = b""

    def _start_waiting(self) -> None:
        while self._waiting and len(self._streams) < self._max_streams:
            self._send(*self._waiting.popleft())

    def _on_data(self, stream: int, flags: int, content: bytes, ends: list[tuple[int, Outcome]]) -> None:
        state = self._streams.get(stream)
        if state is None:
            self._check_started(stream)
            return
        if not state.has_begun:
            self._end(stream, _internal("the server sent a message before its headers"), ends)
            return
        if content:
            self._on_content(stream, state, content, ends)
        if flags & END_STREAM and stream in self._streams:
            self._end(stream, _internal("the server ended the call without a status"), ends, is_over=True)

    def _on_content(self, stream: int, state: _Stream, content: bytes, ends: list[tuple[int, Outcome]]) -> None:
        state.received_bytes += len(content)
        if state.whole_bytes is None:
            content = b"".join((*state.parts, content))
            state.parts.clear()
            if len(content) >= _PREFIX_BYTES:
                compressed, size = _PREFIX.unpack_from(content)
                state.whole_bytes = size + _PREFIX_BYTES
                if compressed:
                    self._end(stream, _internal("the server compressed its answer, and was not asked to"), ends)
                    return
                if size > self._max_message_bytes:
                    details = f"received message larger than max ({size} vs. {self._max_message_bytes})"
                    self._end(stream, outcome.failure(grpc.StatusCode.RESOURCE_EXHAUSTED, details), ends)
                    return
        state.parts.append(content)
        if state.received_bytes == state.whole_bytes:
            state.message = (content if len(state.parts) == 1 else b"".join(state.parts))[_PREFIX_BYTES:]
        elif state.whole_bytes is not None and state.received_bytes > state.whole_bytes:
            self._end(stream, _internal("the server sent more than one message"), ends)

    def _on_headers(self, stream: int, flags: int, block: bytes, ends: list[tuple[int, Outcome]]) -> None:
        state = self._streams.get(stream)
        if state is None:
            self._check_started(stream)
            # What it has the table remember, later ones refer to.
            self._headers.read(block)
            return
        is_end = bool(flags & END_STREAM)
        if self._headers.usual.get(block) is is_end:
            if is_end:
                self._on_success(stream, state, ends)
            else:
                self._on_beginning(stream, state, ends)
            return
        fields = self._headers.read(block)
        if is_end:
            failed = outcome.ended(fields)
            if failed is not None:
                self._end(stream, failed, ends, is_over=True)
                return
            self._headers.learn(block, is_end=True)
            self._on_success(stream, state, ends)
            return
        values = dict(fields)
        status = values.get(":status", "")
        if status.startswith("1"):
            return
        kind = values.get("content-type", "")
        if status != "200" or not kind.startswith("application/grpc"):
            self._end(stream, outcome.not_grpc(status, f"the server answered {kind or 'nothing'}, not gRPC"), ends)
            return
        self._headers.learn(block, is_end=False)
        self._on_beginning(stream, state, ends)

    def _on_beginning(self, stream: int, state: _Stream, ends: list[tuple[int, Outcome]]) -> None:
        if state.has_begun:
            self._end(stream, _internal("the server sent headers twice"), ends)
        state.has_begun = True

    def _on_success(self, stream: int, state: _Stream, ends: list[tuple[int, Outcome]]) -> None:
        end: Outcome = state.message
        if end is None:
            end = _internal("the server ended the call with status OK and no whole message")
        self._end(stream, end, ends, is_over=True)

    def _end(self, stream: int, end: Outcome, ends: list[tuple[int, Outcome]], *, is_over: bool = False) -> None:
        state = self._streams.pop(stream)
        if not is_over or state.unsent:
            # The server goes on with the answer, or this side had more to say: neither matters any more.
            self._acknowledge(frames.reset(stream))
        ends.append((stream, end))

    def _acknowledge(self, data: bytes) -> None:
        (self._acknowledgements if self.is_ending else self._output).append(data)

    def _check_started(self, stream: int) -> None:
        if stream >= self._next_stream or not stream & 1:
            raise ProtocolError(f"the server answered stream {stream}, which nobody opened")

    def _on_control(self, kind: int, flags: int, stream: int, payload: bytes, ends: list[tuple[int, Outcome]]) -> None:
        if kind == frames.WINDOW_UPDATE:
            self._on_window_update(stream, payload)
        elif kind == frames.PING and not flags & frames.ACK:
            self._acknowledge(frames.frame(frames.PING, frames.ACK, 0, payload))
        elif kind == frames.SETTINGS and not flags & frames.ACK:
            self._on_settings(frames.parsed_settings(payload))
        elif kind == frames.RST_STREAM:
            self._on_reset(stream, int.from_bytes(payload, "big"), ends)
        elif kind == frames.GOAWAY:
            self._on_goaway(payload, ends)
        elif kind == frames.CONTINUATION:
            self._on_continuation(stream, flags, payload, ends)
        elif kind == frames.PUSH_PROMISE:
            raise ProtocolError("the server pushed, and was told not to")

    def _on_reset(self, stream: int, error: int, ends: list[tuple[int, Outcome]]) -> None:
        self._check_started(stream)
        if stream in self._streams:
            end = None if error == outcome.REFUSED_STREAM else outcome.was_reset(error)
            self._end(stream, end, ends, is_over=True)

    def _on_continuation(self, stream: int, flags: int, part: bytes, ends: list[tuple[int, Outcome]]) -> None:
        if self._partial is None or self._partial[0] != stream:
            raise ProtocolError("a CONTINUATION frame continues nothing")
        _, first_flags, before = self._partial
        block = before + part
        if len(block) > _MOST_HEADER_BYTES:
            raise ProtocolError(f"a header block is longer than {_MOST_HEADER_BYTES} bytes")
        self._partial = None if flags & END_HEADERS else (stream, first_flags, block)
        if self._partial is None:
            self._on_headers(stream, first_flags, block, ends)

    def _on_goaway(self, payload: bytes, ends: list[tuple[int, Outcome]]) -> None:
        """Ends the calls that the server has not begun; the others are answered yet."""
        self.is_closing = True
        last = int.from_bytes(payload[:4], "big") & frames.LAST_STREAM
        # A server that names the largest number has yet to say which calls are the last.
        self.is_ending = last < frames.LAST_STREAM
        for stream in [each for each in self._streams if each > last]:
            del self._streams[stream]
            ends.append((stream, None))
        ends += [(stream, None) for stream, _, _ in self._waiting]
        self._waiting.clear()

    def _on_window_update(self, stream: int, payload: bytes) -> None:
        granted_bytes = int.from_bytes(payload, "big") & frames.MAX_WINDOW_BYTES
        if stream == 0:
            self._window_bytes += granted_bytes
            if self._window_bytes > frames.MAX_WINDOW_BYTES:
                raise ProtocolError("the server granted more than a window can hold")
        elif state := self._streams.get(stream):
            state.window_bytes += granted_bytes
        self._send_unsent()

    def _on_settings(self, values: dict[int, int]) -> None:
        self._acknowledge(frames.frame(frames.SETTINGS, frames.ACK, 0))
        window = values.get(frames.INITIAL_WINDOW_SIZE, self._stream_window_bytes)
        if window > frames.MAX_WINDOW_BYTES:
            raise ProtocolError("the server announced a window larger than one can be")
        for state in self._streams.values():
            state.window_bytes += window - self._stream_window_bytes
        self._stream_window_bytes = window
        self._frame_bytes = values.get(frames.MAX_FRAME_SIZE, self._frame_bytes)
        unsaid = self._max_streams if self._has_settings else frames.LAST_STREAM
        self._max_streams = values.get(frames.MAX_CONCURRENT_STREAMS, unsaid)
        self._has_settings = True
        self._send_unsent()
        self._start_waiting()


def _internal(details: str) -> Failure:
    return outcome.failure(grpc.StatusCode.INTERNAL, details)
