"""HTTP/2's frames as bytes, right ones and, since nothing is checked, wrong ones.

Header blocks are written without HPACK's tables: what is sent is the same bytes on every connection.
"""

import struct
from collections.abc import Iterable
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, HAS_PRIORITY = 1, 1, 4, 8, 32
(
    NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR, SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR,
    REFUSED_STREAM, CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM,
) = range(12)  # fmt: skip

Pair = tuple[str, str]

POST: Final[tuple[Pair, ...]] = ((":method", "POST"), (":scheme", "http"), (":authority", "localhost"))
GRPC: Final[tuple[Pair, ...]] = (("content-type", "application/grpc"), ("te", "trailers"))


def frame(kind: int, flags: int, stream: int, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """A frame; `length` is a wrong one."""
    size = len(payload) if length is None else length
    return size.to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def _text(value: str) -> bytes:
    """A string as HPACK has it, without Huffman's code (RFC 7541, 5.2)."""
    raw = value.encode("latin-1")
    if len(raw) < 127:
        return bytes((len(raw),)) + raw
    rest, prefix = len(raw) - 127, b"\x7f"
    while rest >= 128:
        prefix += bytes((rest % 128 + 128,))
        rest //= 128
    return prefix + bytes((rest,)) + raw


def block(pairs: Iterable[Pair]) -> bytes:
    """A header block of literals that no table remembers (RFC 7541, 6.2.2)."""
    return b"".join(b"\x00" + _text(name) + _text(value) for name, value in pairs)


def asks(method: str, *more: Pair) -> tuple[Pair, ...]:
    """The headers of a call of the test service's method."""
    return (*POST, (":path", f"/t.T/{method}"), *GRPC, *more)


def opening(stream: int, pairs: Iterable[Pair] = asks("Echo"), flags: int = END_HEADERS) -> bytes:
    return frame(HEADERS, flags, stream, block(pairs))


def prefixed(content: bytes, compressed: int = 0) -> bytes:
    """A gRPC message."""
    return struct.pack(">BI", compressed, len(content)) + content


def message(stream: int, content: bytes = b"ab", flags: int = END_STREAM) -> bytes:
    return frame(DATA, flags, stream, prefixed(content))


def in_frames(stream: int, content: bytes, size: int = 1 << 14) -> list[bytes]:
    """DATA of a whole request."""
    pieces = [content[at : at + size] for at in range(0, len(content), size)]
    return [frame(DATA, END_STREAM if piece is pieces[-1] else 0, stream, piece) for piece in pieces]


def call(stream: int, content: bytes = b"ab", method: str = "Echo", *more: Pair) -> bytes:
    """A whole unary call."""
    return opening(stream, asks(method, *more)) + message(stream, content)


def settings(*entries: tuple[int, int]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *entry) for entry in entries))


def window(stream: int, increment: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, increment.to_bytes(4, "big"))


def reset(stream: int, code: int = CANCEL) -> bytes:
    return frame(RST_STREAM, 0, stream, code.to_bytes(4, "big"))
