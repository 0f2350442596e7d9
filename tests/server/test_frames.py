import asyncio
import io
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server import frames


@given(bodies=st.lists(st.binary(max_size=50), max_size=5), cut=st.integers(1, 4))
def test_frames_come_whole_or_not_at_all(bodies: list[bytes], cut: int) -> None:
    sent = b"".join(frames.framed(body) for body in bodies)
    whole, short = io.BytesIO(sent), io.BytesIO(sent[:-cut])
    assert [frames.receive(whole) for _ in bodies] == bodies
    assert frames.receive(whole) is None
    if bodies:
        assert [frames.receive(short) for _ in bodies] == [*bodies[:-1], None]


def test_a_socket_that_breaks_is_an_end() -> None:
    class Broken:
        def read(self, size: int, /) -> bytes:
            raise ConnectionResetError

    assert frames.receive(Broken()) is None


async def _reader(sent: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()
    reader.feed_data(sent)
    reader.feed_eof()
    return reader


async def test_the_same_on_an_event_loop() -> None:
    reader = await _reader(frames.framed(b"a") + frames.framed(b""))
    assert await frames.receive_async(reader) == b"a"
    assert await frames.receive_async(reader) == b""
    with pytest.raises(EOFError):
        await frames.receive_async(reader)


@pytest.mark.parametrize("sent", [b"\x05\0", frames.framed(b"abc")[:-1], frames.HEAD.pack(frames.MAX_FRAME_BYTES + 1)])
async def test_what_is_no_frame_is_an_end(sent: bytes) -> None:
    with pytest.raises(EOFError):
        await frames.receive_async(await _reader(sent))


async def test_a_peer_that_is_killed_is_an_end() -> None:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    writer.write(b"unread")
    await writer.drain()
    theirs.close()  # with bytes unread: the socket is reset
    with pytest.raises(EOFError):
        await frames.receive_async(reader)
    writer.close()
