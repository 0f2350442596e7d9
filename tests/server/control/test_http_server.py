import asyncio
import os
import resource
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from penstock_server.control import http_server
from penstock_server.control.http_server import UNREAD_BYTES, HttpRequest, HttpServer, Reply, Stream
from penstock_server.control.port import reserve_http
from penstock_server.page.feed import Writes

TIMEOUT_S = 10.0


@dataclass
class Port:
    """A server whose answers and clock are the test's."""

    address: tuple[str, int]
    server: HttpServer
    clock: Any
    asked: list[HttpRequest] = field(default_factory=list)
    slow: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    streams: list[Writes] = field(default_factory=list)
    opened: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))
    left: asyncio.Event = field(default_factory=asyncio.Event)

    def open(self, where: Writes) -> Callable[[], None]:
        self.streams.append(where)
        self.opened.release()
        return self.left.set

    def answer(self, request: HttpRequest) -> Reply | Stream | Awaitable[Reply]:
        self.asked.append(request)
        match request.path[0]:
            case "stream":
                return Stream(self.open, "text/event-stream", (("Cache-Control", "no-store"),))
            case "slow":
                return self._later()
            case "fails":
                raise ValueError("a bug")
            case "large":
                return Reply(bytes(50_000_000))
        return Reply(b"ok\n")

    async def _later(self) -> Reply:
        self.begun.release()
        await self.slow.wait()
        return Reply(b"late\n")

    def received(self) -> bool:
        return any(connection._received for connection in self.server._connections)

    async def connect(self) -> "Client":
        return Client(*await asyncio.open_connection(*self.address))


@dataclass
class Client:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def reply(self) -> tuple[int, bytes]:
        head = await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), TIMEOUT_S)
        length = next(int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.startswith(b"Content-Length"))
        return int(head.split()[1]), await self.reader.readexactly(length)

    async def is_ended(self) -> bool:
        try:
            return await asyncio.wait_for(self.reader.read(1), TIMEOUT_S) == b""
        except ConnectionError:
            return True


@pytest.fixture
async def port(fake_clock: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Port]:
    monkeypatch.setattr(http_server, "SWEEP_S", 0.01)
    clock = fake_clock()
    listening = reserve_http("127.0.0.1", 0)
    server = HttpServer(lambda _: Reply(b""), clock=clock, takes=lambda path: 10 if path == ("posted",) else 0)
    made = Port(listening.getsockname(), server, clock)
    made.server.handler = made.answer
    made.server.listen(listening)
    yield made
    await made.server.close()


GET = b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_a_connection_is_kept_for_the_next_request(port: Port) -> None:
    client = await port.connect()
    client.send(b"GET /a%2Fb/c?d=1&e=%C3%BC HTTP/1.1\r\nAccept: text/plain\r\n\r\n")
    assert await client.reply() == (200, b"ok\n")
    assert port.asked == [HttpRequest(("a/b", "c"), {"d": "1", "e": "ü"}, {"accept": "text/plain"})]
    client.send(b"HEAD / HTTP/1.1\r\n\r\n")
    assert b"Content-Length: 3" in await client.reader.readuntil(b"\r\n\r\n")
    client.send(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
    assert await client.reply() == (200, b"ok\n")
    assert await client.is_ended()


async def test_requests_sent_at_once_are_answered_one_after_another(port: Port) -> None:
    client = await port.connect()
    client.send(GET % b"slow" + GET % b"b" + b"\r\n" + GET % b"c")
    assert not await _within(client.reply(), 0.05)
    assert len(port.asked) == 1
    port.slow.set()
    assert [(await client.reply())[1] for _ in range(3)] == [b"late\n", b"ok\n", b"ok\n"]


async def _within(awaitable: Awaitable[Any], seconds: float) -> bool:
    try:
        await asyncio.wait_for(awaitable, seconds)
    except TimeoutError:
        return False
    return True


async def test_a_caller_that_ends_its_side_still_gets_its_answer(port: Port) -> None:
    client = await port.connect()
    client.send(GET % b"slow")
    client.writer.write_eof()
    await port.begun.acquire()
    port.slow.set()
    assert await client.reply() == (200, b"late\n")


@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [
        (b"POST / HTTP/1.1\r\n\r\n", 405, b"POST is not answered here, expected GET or HEAD"),
        (b"GET / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 413, b"takes no bodies"),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 413, b"takes no bodies"),
        (b"hello\r\n\r\n", 400, b"expected a request line"),
        (b"GET / HTTP/1.1\r\nA: " + b"a" * 20_000, 431, b"at most 16384 bytes"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, b"speaks plain HTTP/1.1"),
        (bytes(range(128, 256)), 400, b"speaks plain HTTP/1.1"),
    ],
)
async def test_what_is_no_request_gets_a_sentence_and_no_log_line(
    port: Port, capfd: pytest.CaptureFixture[str], sent: bytes, status: int, said: bytes
) -> None:
    client = await port.connect()
    client.send(sent)
    found, body = await client.reply()
    assert found == status
    assert said in body
    assert await client.is_ended()
    assert port.asked == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("sent", "answered", "after_s"),
    [
        (b"", False, http_server.REQUEST_S),
        (b"GET / HTTP/1.1\r\nHost:", False, http_server.REQUEST_S),
        (b"POST /posted HTTP/1.1\r\nContent-Length: 5\r\n\r\nhell", False, http_server.REQUEST_S),
        (GET % b"", True, http_server.IDLE_S),
        (GET % b"slow", False, http_server.ANSWER_S),
        (GET % b"large", False, http_server.ANSWER_S),
    ],
)
async def test_who_keeps_the_server_waiting_is_disconnected(
    port: Port, sent: bytes, answered: bool, after_s: float
) -> None:
    port.server.posts = posted
    client = await port.connect()
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    client.send(sent)
    await _until(lambda: bool(port.asked or (port.received() if sent else port.server._connections)))
    if answered:
        client.writer.transport.resume_reading()  # type: ignore[attr-defined]
        await client.reply()
    port.clock.now += after_s - 0.1
    assert not await _within(_until(lambda: not port.server._connections), 0.05)
    port.clock.now += 0.2
    assert await _within(_until(lambda: not port.server._connections), TIMEOUT_S)


def posted(request: HttpRequest) -> Reply:
    return Reply(b"%d\n" % len(request.body))


@pytest.mark.parametrize(
    ("sent", "status", "said"),
    [
        (b"POST /posted HTTP/1.1\r\n\r\n", 411, b"expected one Content-Length"),
        (b"POST /posted HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 411, b"expected one Content-Length"),
        (b"POST /posted HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 411, b"expected one"),
        (b"POST /posted HTTP/1.1\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", 411, b"Transfer"),
        (b"POST /posted HTTP/1.1\r\nContent-Length: 11\r\n\r\n", 413, b"has 11 bytes; at most 10 are taken here"),
    ],
)
async def test_a_body_that_is_too_long_or_does_not_say_how_long_is_refused(
    port: Port, sent: bytes, status: int, said: bytes
) -> None:
    port.server.posts = posted
    client = await port.connect()
    client.send(sent)
    found, body = await client.reply()
    assert (found, said in body) == (status, True)
    assert await client.is_ended()


async def test_what_is_posted_comes_in_pieces_and_ends_where_it_says(port: Port) -> None:
    port.server.posts = posted
    client = await port.connect()
    for piece in (b"POST /posted HTTP/1.1\r\nContent-Le", b"ngth: 5\r\n\r\n", b"he", b"llo" + GET % b"next"):
        client.send(piece)
        await client.writer.drain()
        await asyncio.sleep(0)
    assert [await client.reply() for _ in range(2)] == [(200, b"5\n"), (200, b"ok\n")]
    assert [one.path for one in port.asked] == [("next",)]


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110 - what the other end of a connection has read is no event
        await asyncio.sleep(0.002)


async def test_bytes_that_trickle_in_win_no_time(port: Port) -> None:
    client = await port.connect()
    for _ in range(10):
        client.send(b"G")
        await asyncio.sleep(0.005)
        port.clock.now += 0.6
    assert await client.is_ended()


async def test_half_requests_give_way_to_probes(port: Port) -> None:
    port.server.connections = 8
    held = [await port.connect() for _ in range(20)]
    for client in held:
        client.send(b"GET / HTTP/1.1\r\n")
    probe = await port.connect()
    probe.send(GET % b"")
    assert await probe.reply() == (200, b"ok\n")
    assert len(port.server._connections) <= 8
    assert [await client.is_ended() for client in held[:12]] == [True] * 12


async def test_no_connection_is_taken_from_one_that_is_being_answered(port: Port) -> None:
    port.server.connections = 2
    busy = [await port.connect() for _ in range(2)]
    for client in busy:
        client.send(GET % b"slow")
    for _ in busy:
        await port.begun.acquire()
    another = await port.connect()
    assert await another.reply() == (503, b"too many connections; try again\n")
    assert await another.is_ended()
    port.slow.set()
    assert [await client.reply() for client in busy] == [(200, b"late\n")] * 2


async def test_a_bug_is_logged_once_a_minute(port: Port, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        client = await port.connect()
        client.send(GET % b"fails")
        assert (await client.reply())[0] == 500
    assert capsys.readouterr().out.count("an HTTP request failed") == 1


async def test_without_descriptors_connections_are_turned_away_until_there_are_some(port: Port) -> None:
    client = await port.connect()
    client.send(GET % b"")
    await client.reply()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    waiting = [socket.socket() for _ in range(4)]
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
    try:
        try:
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            pass
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(port.address)
        await asyncio.sleep(0.3)
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    client.send(GET % b"")
    assert await client.reply() == (200, b"ok\n")
    another = await port.connect()
    another.send(GET % b"")
    assert await another.reply() == (200, b"ok\n")
    for one in waiting:
        one.close()


async def test_what_is_under_way_ends_with_the_server(port: Port) -> None:
    client = await port.connect()
    client.send(GET % b"slow")
    await port.begun.acquire()
    await port.server.close()
    assert await client.is_ended()
    assert port.server._tasks == set()


async def opened(port: Port) -> tuple[Client, Writes]:
    client = await port.connect()
    client.send(GET % b"stream")
    await port.opened.acquire()
    return client, port.streams[-1]


async def test_a_stream_goes_on_until_it_is_ended(port: Port) -> None:
    client, stream = await opened(port)
    head = await client.reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n")
    assert b"Cache-Control: no-store" in head
    assert b"Content-Length" not in head
    for chunk in (b"one", b"two"):
        assert stream.write(chunk)
        assert await client.reader.readexactly(3) == chunk
    client.send(GET % b"more")  # is nothing to a stream
    stream.end()
    assert await client.is_ended()
    await asyncio.wait_for(port.left.wait(), TIMEOUT_S)
    assert not stream.write(b"three")
    assert len(port.asked) == 1


async def test_the_head_of_a_stream_opens_none(port: Port) -> None:
    client = await port.connect()
    client.send(b"HEAD /stream HTTP/1.1\r\n\r\n")
    assert b"200 OK" in await client.reader.readuntil(b"\r\n\r\n")
    assert await client.is_ended()
    assert not port.streams


@pytest.mark.parametrize("how", ["closes", "ends its side"])
async def test_it_is_known_when_the_caller_of_a_stream_leaves(port: Port, how: str) -> None:
    client, _ = await opened(port)
    if how == "closes":
        client.writer.close()
    else:
        client.writer.write_eof()
    await asyncio.wait_for(port.left.wait(), TIMEOUT_S)
    assert not port.server._connections


async def test_who_does_not_read_its_stream_gets_no_more_and_is_disconnected(port: Port) -> None:
    _, stream = await opened(port)
    while stream.write(bytes(UNREAD_BYTES)):  # its reader here stops reading at 64 KiB
        pass
    port.clock.now += http_server.ANSWER_S
    await asyncio.wait_for(port.left.wait(), TIMEOUT_S)
    assert not port.server._connections


async def test_streams_end_with_the_server(port: Port) -> None:
    client, _ = await opened(port)
    await client.reader.readuntil(b"\r\n\r\n")
    await port.server.close()
    assert await client.is_ended()
    assert port.left.is_set()


async def test_posts_have_a_handler_of_their_own(port: Port) -> None:
    port.server.posts = lambda request: Reply(b"done " + request.path[0].encode())
    client = await port.connect()
    client.send(b"POST /it HTTP/1.1\r\nContent-Length: 0\r\n\r\nPUT /it HTTP/1.1\r\n\r\n")
    assert await client.reply() == (200, b"done it")
    assert (await client.reply())[0] == 405
