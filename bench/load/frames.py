"""What the load generator does with HTTP/2's frames beyond the client's own: finds them, and starts those that go out often.

Source: RFC 9113, section 4.
"""

from typing import TypeAlias

from penstock_client.http2.frames import HEADER, HEADER_BYTES, LAST_STREAM, MAX_FRAME_BYTES, ProtocolError

Frame: TypeAlias = tuple[int, int, int, int, int]
"""Kind, flags, stream, and where the payload starts and ends in the buffer."""


def frame_start(kind: int, flags: int, size: int) -> bytes:
    """The five bytes of a frame before its stream id, which prebuilt frames share."""
    return size.to_bytes(3, "big") + bytes((kind, flags))


def scan(buffer: bytes) -> tuple[list[Frame], int]:
    """The whole frames at the buffer's start, and how many bytes they take.

    Raises:
        ProtocolError: a frame is longer than this client allows.
    """
    found: list[Frame] = []
    unpack = HEADER.unpack_from
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
        found.append((kind, flags, stream & LAST_STREAM, start, end))
        position = end
    return found, position
