"""HTTP/2's frames, and the header blocks of gRPC calls, as bytes.

Source: RFC 9113, sections 4 and 6; gRPC over HTTP/2.
"""

import struct
from collections.abc import Iterable, Mapping
from typing import Final

from penstock.wire import varint

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_BYTES: Final = 9
MAX_FRAME_BYTES: Final = 16_384
"""The largest payload of a frame unless a side announced more, which this one does not."""
DEFAULT_WINDOW_BYTES: Final = 65_535
MAX_WINDOW_BYTES: Final = 2**31 - 1
LAST_STREAM: Final = 2**31 - 1

DATA: Final = 0
HEADERS: Final = 1
RST_STREAM: Final = 3
SETTINGS: Final = 4
PUSH_PROMISE: Final = 5
PING: Final = 6
GOAWAY: Final = 7
WINDOW_UPDATE: Final = 8
CONTINUATION: Final = 9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY: Final = 0x20

HEADER_TABLE_SIZE: Final = 1
ENABLE_PUSH: Final = 2
MAX_CONCURRENT_STREAMS: Final = 3
INITIAL_WINDOW_SIZE: Final = 4
MAX_FRAME_SIZE: Final = 5

CANCEL: Final = 8

HEADER: Final = struct.Struct(">HBBBI")
"""A frame's header; its length of 24 bits comes in two parts."""
_SETTING: Final = struct.Struct(">HI")
_MILLISECONDS_DIGITS: Final = 8
"""`grpc-timeout` has at most so many digits."""


class ProtocolError(Exception):
    """The server sent what HTTP/2, or this side's settings, do not allow."""


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    r"""A whole frame.

    >>> frame(PING, ACK, 0, b"12345678")
    b'\x00\x00\x08\x06\x01\x00\x00\x00\x0012345678'
    """
    return HEADER.pack(len(payload) >> 8, len(payload) & 255, kind, flags, stream) + payload


def settings(values: Mapping[int, int]) -> bytes:
    """A SETTINGS frame of identifiers and values."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*pair) for pair in values.items()))


def parsed_settings(payload: bytes) -> dict[int, int]:
    """Values by identifier; the last one of a repeated identifier counts."""
    if len(payload) % _SETTING.size:
        raise ProtocolError(f"SETTINGS of {len(payload)} bytes is not a whole number of settings")
    return dict(_SETTING.iter_unpack(payload))


def window_update(stream: int, size: int) -> bytes:
    """A WINDOW_UPDATE frame, which grants the peer so many more bytes."""
    return frame(WINDOW_UPDATE, 0, stream, size.to_bytes(4, "big"))


def reset(stream: int) -> bytes:
    """A RST_STREAM frame that tells the peer that nobody waits for an answer."""
    return frame(RST_STREAM, 0, stream, CANCEL.to_bytes(4, "big"))


def unpadded(buffer: bytes, kind: int, flags: int, start: int, end: int) -> bytes:
    """What a DATA or HEADERS frame holds, without padding and priority."""
    if flags & (PADDED | PRIORITY):
        if flags & PADDED:
            if start == end or start + 1 + buffer[start] > end:
                raise ProtocolError("a frame's padding is longer than the frame")
            start, end = start + 1, end - buffer[start]
        if flags & PRIORITY and kind == HEADERS:
            start += 5
        if start > end:
            raise ProtocolError("a HEADERS frame ends within its priority")
    return buffer[start:end]


def header_block(fields: Iterable[tuple[str, str]]) -> bytes:
    r"""A header block of literals that no table remembers, so that the same bytes serve every call and connection.

    >>> header_block([("te", "trailers")])
    b'\x00\x02te\x08trailers'
    """
    return b"".join(b"\x00" + _text(name) + _text(value) for name, value in fields)


def _text(text: str) -> bytes:
    encoded = text.encode("ascii")
    size = len(encoded)
    return (bytes((size,)) if size < 127 else b"\x7f" + varint(size - 127)) + encoded


def timeout_text(timeout_ms: int) -> str:
    """The value of `grpc-timeout`.

    >>> timeout_text(250), timeout_text(10**9)
    ('250m', '1000000S')
    """
    if timeout_ms < 10**_MILLISECONDS_DIGITS:
        return f"{timeout_ms}m"
    return f"{min(timeout_ms // 1000, 10**_MILLISECONDS_DIGITS - 1)}S"
