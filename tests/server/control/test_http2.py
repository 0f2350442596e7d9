import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest

from penstock_server.control.http2 import MOST_BYTES, GrpcRefusal
from penstock_server.control.http_server import HttpServer, Reply
from penstock_server.control.port import reserve_http

HINT = "this is Penstock's HTTP port; gRPC is on 8001"


@pytest.fixture
async def address() -> AsyncIterator[str]:
    server = HttpServer(lambda _request: Reply(b""), grpc_hint=HINT)
    listening = reserve_http("127.0.0.1", 0)
    server.listen(listening)
    yield f"127.0.0.1:{listening.getsockname()[1]}"
    await server.close()


@pytest.mark.parametrize("size", [0, 10_000])
async def test_a_grpc_client_is_told_where_grpc_is(address: str, size: int) -> None:
    def call() -> list[tuple[grpc.StatusCode, str]]:
        found = []
        with grpc.insecure_channel(address) as channel:
            for _ in range(3):
                with pytest.raises(grpc.RpcError) as failure:
                    channel.unary_unary("/any/Method")(bytes(size), timeout=10)
                found.append((failure.value.code(), failure.value.details()))
        return found

    assert await asyncio.to_thread(call) == [(grpc.StatusCode.UNIMPLEMENTED, HINT)] * 3


def test_frames_may_come_in_pieces_and_are_bounded() -> None:
    headers = b"\0\0\3\1\5\0\0\0\7abc"
    whole = GrpcRefusal(HINT).receive(headers)
    assert whole is not None
    pieces = GrpcRefusal(HINT)
    assert b"".join(pieces.receive(headers[at : at + 1]) or b"" for at in range(len(headers))) == whole
    refusal = GrpcRefusal("x" * 200)
    answer = refusal.receive(headers + b"\0\0\10\6\0\0\0\0\0pingpong")
    assert answer is not None
    assert answer.endswith(b"\0\0\10\6\1\0\0\0\0pingpong")
    assert b"x" * 200 in answer
    assert refusal.receive(b"\1\0\0\0\0\0\0\0\0") is None
    assert GrpcRefusal(HINT).receive(bytes(MOST_BYTES + 1)) is None
