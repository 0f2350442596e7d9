"""The HTTP port over TLS: certificates of both sides, large answers, callers that speak no TLS, files that are renewed."""

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest

from penstock_server.control import http_server
from penstock_server.control.http_server import HttpRequest, HttpServer, Reply
from penstock_server.control.port import reserve_http
from penstock_server.transport.tls_files import TlsContext, TlsFiles

TIMEOUT_S = 10.0
Address = tuple[str, int]


@pytest.fixture
def files(tls: Path, tmp_path: Path) -> Path:
    for name in ("server.pem", "server.key"):
        shutil.copy(tls / name, tmp_path / name)
    return tmp_path


@pytest.fixture
async def address(files: Path, tls: Path) -> AsyncIterator[Address]:
    context = TlsContext(
        TlsFiles("http", files / "server.pem", files / "server.key", tls / "client.pem"),
        "http/1.1",
        requires_certificate=False,
    )

    def answer(request: HttpRequest) -> Reply:
        return Reply(bytes(20_000_000) if request.path == ("large",) else ",".join(request.peer).encode())

    server = HttpServer(answer, tls=context.current, connections=4)
    listening = reserve_http("127.0.0.1", 0)
    server.listen(listening)
    yield listening.getsockname()
    await server.close()


def trusting(certificate: Path, tls: Path, who: str | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(certificate))
    if who is not None:
        context.load_cert_chain(tls / f"{who}.pem", tls / f"{who}.key")
    return context


async def get(address: Address, path: str, context: ssl.SSLContext) -> bytes:
    url = f"https://{address[0]}:{address[1]}/{path}"
    async with aiohttp.ClientSession() as session, session.get(url, ssl=context) as reply:
        assert reply.status == 200
        return await reply.read()


async def test_who_shows_a_certificate_is_known_by_it(address: Address, tls: Path) -> None:
    assert await get(address, "", trusting(tls / "server.pem", tls)) == b""
    known = trusting(tls / "server.pem", tls, "client")
    assert await get(address, "", known) == b"uri:spiffe://corp/shop,dns:shop.corp,cn:loader"
    with pytest.raises((aiohttp.ClientError, OSError)):
        await get(address, "", trusting(tls / "server.pem", tls, "other"))


async def test_a_large_answer_arrives_whole_and_the_connection_goes_on(address: Address, tls: Path) -> None:
    connector = aiohttp.TCPConnector(limit=1, ssl=trusting(tls / "server.pem", tls))
    async with aiohttp.ClientSession(connector=connector) as session:
        for path, size in (("large", 20_000_000), ("", 0), ("large", 20_000_000)):
            async with session.get(f"https://{address[0]}:{address[1]}/{path}") as reply:
                assert len(await reply.read()) == size


async def test_who_speaks_no_tls_disturbs_nobody(address: Address, tls: Path) -> None:
    for first in (b"GET / HTTP/1.1\r\n\r\n", b"", b"\x16\x03\x01\xff\xff"):
        reader, writer = await asyncio.open_connection(*address)
        writer.write(first)
        writer.write_eof()
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(reader.readexactly(1000), TIMEOUT_S)
        writer.close()
    assert await get(address, "", trusting(tls / "server.pem", tls)) == b""


async def test_who_says_nothing_is_ended(address: Address, tls: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "REQUEST_S", 0.2)
    silent = [await asyncio.open_connection(*address) for _ in range(8)]
    for reader, writer in silent:
        assert await asyncio.wait_for(reader.read(), TIMEOUT_S) == b""
        writer.close()
    monkeypatch.undo()
    assert await get(address, "", trusting(tls / "server.pem", tls)) == b""


async def test_a_renewed_certificate_is_shown(address: Address, files: Path, tls: Path) -> None:
    assert await get(address, "", trusting(tls / "server.pem", tls)) == b""
    for end in ("pem", "key"):
        shutil.copy(tls / f"other.{end}", files / f"server.{end}")
    assert await get(address, "", trusting(tls / "other.pem", tls)) == b""
