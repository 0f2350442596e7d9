"""HTTP/2 frames as bytes: builds those that a client sends, finds those that a server sent.

Source: RFC 9113, sections 4 and 6.
"""

import struct
from collections.abc import Mapping
from typing import Final, TypeAlias

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HEADER_BYTES: Final = 9
MAX_FRAME_BYTES: Final = 16_384
"""The largest payload that a side accepts unless it announced more; this client never announces more."""
DEFAULT_WINDOW_BYTES: Final = 65_535
MAX_WINDOW_BYTES: Final = 2**31 - 1

DATA: Final = 0
HEADERS: Final = 1
RST_STREAM: Final = 3
SETTINGS: Final = 4
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

_HEADER = struct.Struct(">HBBBI")  # the 24-bit length in two parts
_SETTING = struct.Struct(">HI")
_STREAM_MASK: Final = 2**31 - 1

Frame: TypeAlias = tuple[int, int, int, int, int]
"""Kind, flags, stream, and where the payload starts and ends in the buffer."""


class ProtocolError(Exception):
    """The server sent something that HTTP/2 or this client's settings do not allow."""


def frame_start(kind: int, flags: int, size: int) -> bytes:
    """The five bytes of a frame before its stream id, which prebuilt frames share."""
    return size.to_bytes(3, "big") + bytes((kind, flags))


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    return frame_start(kind, flags, len(payload)) + stream.to_bytes(4, "big") + payload


def settings(values: Mapping[int, int]) -> bytes:
    """A SETTINGS frame of identifier and value pairs."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(*pair) for pair in values.items()))


def parse_settings(payload: bytes) -> dict[int, int]:
    """Values by identifier; the last value of a repeated identifier counts.

    Raises:
        ProtocolError: the payload is not a whole number of settings.
    """
    if len(payload) % _SETTING.size:
        raise ProtocolError(f"SETTINGS of {len(payload)} bytes is not a whole number of 6-byte settings")
    return dict(_SETTING.iter_unpack(payload))


def window_update(stream: int, size: int) -> bytes:
    """A WINDOW_UPDATE frame that grants the peer `size` more bytes."""
    return frame(WINDOW_UPDATE, 0, stream, size.to_bytes(4, "big"))


def scan(buffer: bytes) -> tuple[list[Frame], int]:
    """The whole frames at the buffer's start, and how many bytes they take.

    Raises:
        ProtocolError: a frame is longer than this client allows.
    """
    found: list[Frame] = []
    unpack = _HEADER.unpack_from
    position, size = 0, len(buffer)
    while position + HEADER_BYTES <= size:
        high, low, kind, flags, stream = unpack(buffer, position)
        length = high << 8 | low
        if length > MAX_FRAME_BYTES:
            raise ProtocolError(f"got a frame of {length} bytes, expected at most {MAX_FRAME_BYTES}")
        start = position + HEADER_BYTES
        end = start + length
        if end > size:
            break
        found.append((kind, flags, stream & _STREAM_MASK, start, end))
        position = end
    return found, position


def fragment(buffer: bytes, frame: Frame) -> bytes:
    """The content of a DATA or HEADERS frame, without padding and priority."""
    kind, flags, _, start, end = frame
    if flags & PADDED and kind in {DATA, HEADERS}:
        if start == end or start + 1 + buffer[start] > end:
            raise ProtocolError("a frame's padding is longer than the frame")
        start, end = start + 1, end - buffer[start]
    if flags & PRIORITY and kind == HEADERS:
        start += 5
    if start > end:
        raise ProtocolError("a HEADERS frame ends within its priority")
    return buffer[start:end]
