"""Frames on a stream socket between two processes: the length of a body, and the body.

What the bodies hold is said by the messages of each pair of processes.
"""

import struct
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    # Half of the processes that use this module have no event loop, and asyncio costs 3 MB.
    from asyncio import StreamReader

HEAD: Final = struct.Struct("<I")
MAX_FRAME_BYTES: Final = 64 * 1024 * 1024


class BlockingReader(Protocol):
    """What `receive` needs of a file."""

    def read(self, size: int, /) -> bytes: ...


def framed(body: bytes) -> bytes:
    """A body as one frame."""
    return HEAD.pack(len(body)) + body


def receive(file: BlockingReader) -> bytes | None:
    """The next body, for a thread that may wait; None when the other end is gone."""
    try:
        head = file.read(HEAD.size)
        if len(head) < HEAD.size:
            return None
        (size,) = HEAD.unpack(head)
        body = file.read(size)
    except OSError:
        # A peer that is killed with frames unread resets the socket instead of ending it.
        return None
    return body if len(body) == size else None


async def receive_async(reader: "StreamReader") -> bytes:
    """The next body, on an event loop.

    Raises:
        EOFError: the other end is gone, or sent something that is no frame.
    """
    try:
        (size,) = HEAD.unpack(await reader.readexactly(HEAD.size))
        if size > MAX_FRAME_BYTES:
            raise EOFError(f"a frame of {size} bytes; expected at most {MAX_FRAME_BYTES}")
        return await reader.readexactly(size)
    except ConnectionError as error:
        raise EOFError("the other end of the socket is gone") from error
