"""The client's own sockets under what servers do to connections: age, drain, death. Every transport, many callers."""

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import grpc
import grpc.aio
import numpy as np
import pytest

from penstock import inference_pb2 as pb
from penstock_client import AsyncClient, Client, ServerUnavailableError, UnsupportedError
from penstock_client.http2.awaiting import AwaitedCalls
from penstock_client.http2.blocking import DirectCalls
from tests.integration.conftest import Server, need_nghttp2

pytestmark = pytest.mark.slow

ROWS = np.array([[3.0, -1.0]], np.float32)
OTHER_ROWS = -ROWS
MANY = [ROWS, OTHER_ROWS] * 20
WAIT_S = 30.0


# The load of one transport after the other; the others' connections are grpcio's own, which other tests here call too.
@pytest.fixture(
    scope="module",
    params=["native", *(pytest.param(name, marks=pytest.mark.long) for name in ("completion-queue", "aio"))],
)
def transport(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "native":
        need_nghttp2()
    return name


class Callers:
    """Threads and a loop that predict until they are told to stop, and how it went."""

    def __init__(self, address: str, **settings: Any) -> None:
        self.ends: Counter[str] = Counter()
        self._stop = threading.Event()
        self._answered = threading.Semaphore(0)
        self._client = Client(address, timeout_s=WAIT_S, transport="sockets", **settings)
        assert isinstance(self._client._calls, DirectCalls)
        self._address, self._settings = address, settings
        kinds = (self._single, self._single, self._many, self._loop)
        self._threads = [threading.Thread(target=kind) for kind in kinds]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(WAIT_S)
            assert not thread.is_alive(), "a call has no end"
        self._client.close()

    def wait_answered(self, times: int = 200) -> None:
        for _ in range(times):
            assert self._answered.acquire(timeout=WAIT_S), self.ends

    def _ended(self, answer: Any, label: int) -> None:
        end = type(answer).__name__
        if isinstance(answer, Exception):
            end = f"{end}: {answer}"
        elif answer["label"].tolist() != [label]:
            end = "wrong"
        self.ends[end if "ServerUnavailable" not in end else "ServerUnavailableError"] += 1
        if end == "Prediction":
            self._answered.release()

    def _single(self) -> None:
        while not self._stop.wait(0.001):
            for rows, label in ((ROWS, 1), (OTHER_ROWS, 0)):
                try:
                    self._ended(self._client.predict("flag", rows), label)
                except Exception as error:  # noqa: BLE001 - counted, and compared by the test
                    self._ended(error, label)

    def _many(self) -> None:
        while not self._stop.wait(0.001):
            answers = self._client.predict_many("flag", MANY, in_flight=8, on_error="return")
            for number, answer in enumerate(answers):
                self._ended(answer, 1 - number % 2)

    def _loop(self) -> None:
        asyncio.run(self._tasks())

    async def _tasks(self) -> None:
        async with AsyncClient(self._address, timeout_s=WAIT_S, transport="sockets", **self._settings) as client:
            while not self._stop.is_set():
                number = 0
                async for answer in client.predict_many("flag", MANY, in_flight=8, on_error="return"):
                    self._ended(answer, 1 - number % 2)
                    number += 1
            assert isinstance(client._calls, AwaitedCalls)


def test_connections_that_age_lose_no_call(
    start: Callable[..., Server], transport: str, plain_repository: Path, tmp_path: Path
) -> None:
    config = tmp_path / "penstock.toml"
    config.write_text("[grpc]\nconnection_age_s = 0.2\n")
    server = start(
        "--model-repository", str(plain_repository), "--transport", transport, "--config", str(config)
    ).wait_ready()
    with Callers(server.grpc, retries=0) as callers:
        end = time.monotonic() + 1
        while time.monotonic() < end:
            callers.wait_answered(100)
    assert set(callers.ends) == {"Prediction"}


def test_a_server_that_drains_and_comes_back_answers_every_call(
    start: Callable[..., Server], transport: str, plain_repository: Path
) -> None:
    arguments = ("--model-repository", str(plain_repository), "--transport", transport)
    server = start(*arguments).wait_ready()
    # Without a budget: how many attempts fail depends on how long the next server takes to start here.
    with Callers(server.grpc, retries=300, budget=None) as callers:
        callers.wait_answered()
        os.kill(server.pid, signal.SIGTERM)
        server.wait(WAIT_S)
        start(*arguments, "--port", server.grpc.rpartition(":")[2]).wait_ready()
        callers.wait_answered()
    assert set(callers.ends) == {"Prediction"}


def test_a_server_that_dies_fails_calls_in_flight_and_no_others(
    start: Callable[..., Server], transport: str, plain_repository: Path
) -> None:
    server = start("--model-repository", str(plain_repository), "--transport", transport).wait_ready()
    with Callers(server.grpc, retries=0) as callers:
        callers.wait_answered()
        server.kill()
        with Client(server.grpc, retries=0) as client, pytest.raises(ServerUnavailableError):
            client.predict("flag", ROWS)
    assert set(callers.ends) == {"Prediction", "ServerUnavailableError"}


@pytest.fixture
def aio_server() -> Iterator[Callable[..., str]]:
    """A server of grpc.aio that answers with the request's contents."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    servers = []

    async def infer(request: pb.ModelInferRequest, context: Any) -> pb.ModelInferResponse:
        if request.model_name == "none":
            await context.abort(grpc.StatusCode.NOT_FOUND, "no model 'none'; ask for ümläut", (("more", "1"),))
        reply = pb.ModelInferResponse(model_name=request.model_name, id=request.id)
        for tensor, raw in zip(request.inputs, request.raw_input_contents, strict=True):
            reply.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
            reply.raw_output_contents.append(raw)
        return reply

    async def metadata(request: pb.ModelMetadataRequest, context: Any) -> pb.ModelMetadataResponse:
        reply = pb.ModelMetadataResponse(name=request.name, versions=["1"])
        reply.inputs.add(name="x", datatype="FP32", shape=[-1, -1])
        return reply

    async def started(options: list[tuple[str, Any]]) -> str:
        server = grpc.aio.server(options=options)
        handlers = {
            "ModelInfer": grpc.unary_unary_rpc_method_handler(
                infer, pb.ModelInferRequest.FromString, pb.ModelInferResponse.SerializeToString
            ),
            "ModelMetadata": grpc.unary_unary_rpc_method_handler(
                metadata, pb.ModelMetadataRequest.FromString, pb.ModelMetadataResponse.SerializeToString
            ),
        }
        service = grpc.method_handlers_generic_handler("inference.GRPCInferenceService", handlers)
        server.add_generic_rpc_handlers((service,))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        servers.append(server)
        return f"127.0.0.1:{port}"

    def start(*options: tuple[str, Any]) -> str:
        return asyncio.run_coroutine_threadsafe(started(list(options)), loop).result(WAIT_S)

    yield start
    for server in servers:
        asyncio.run_coroutine_threadsafe(server.stop(None), loop).result(WAIT_S)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(WAIT_S)
    loop.close()


@pytest.mark.parametrize(
    "options",
    [
        [],
        [("grpc.max_concurrent_streams", 1)],
        [("grpc.max_concurrent_streams", 2), ("grpc.http2.max_frame_size", 2**20)],
        [("grpc.max_connection_age_ms", 100), ("grpc.max_connection_age_grace_ms", 60_000)],
        [("grpc.keepalive_time_ms", 20), ("grpc.http2.lookahead_bytes", 1000), ("grpc.http2.bdp_probe", 0)],
    ],
    ids=["plain", "one stream", "two streams", "age", "pings"],
)
def test_a_server_of_grpc_aio_answers_however_it_is_set(
    aio_server: Callable[..., str], options: list[tuple[str, Any]]
) -> None:
    address = aio_server(*options, ("grpc.max_receive_message_length", -1))
    # A server that closes a connection while something comes resets it, and what it had sent may be lost: calls are retried.
    retries = 3 if any(name == "grpc.max_connection_age_ms" for name, _ in options) else 0
    random = np.random.default_rng(0)
    rows = [random.normal(size=(size, 300)).astype(np.float32) for size in (1, 7, 500, 2000, 1) * 8]
    with Client(address, timeout_s=WAIT_S, retries=retries, transport="sockets") as client:
        for given, answer in zip(rows, client.predict_many("m", rows, in_flight=6), strict=True):
            assert np.array_equal(answer["x"], given)
        for given in rows[:10]:
            assert np.array_equal(client.predict("m", given)["x"], given)

    async def tasks() -> None:
        async with AsyncClient(address, timeout_s=WAIT_S, retries=retries, transport="sockets") as client:
            answers = await asyncio.gather(*(client.predict("m", given) for given in rows))
            assert all(np.array_equal(answer["x"], given) for answer, given in zip(answers, rows, strict=True))

    asyncio.run(tasks())


def test_sockets_and_grpcio_tell_errors_alike(aio_server: Callable[..., str]) -> None:
    address = aio_server()
    found = []
    for transport in ("sockets", "grpcio"):
        with Client(address, transport=transport) as client:  # type: ignore[arg-type]
            with pytest.raises(Exception, match="no model 'none'; ask for ümläut") as failed:
                client.predict("none", ROWS)
            cause: Any = failed.value.__cause__
            found.append((type(failed.value), str(failed.value), cause.code(), cause.details()))
            assert ("more", "1") in [tuple(each) for each in cause.trailing_metadata()]
            with pytest.raises(UnsupportedError) as failed:
                client.index()
            found[-1] += (type(failed.value),)
    assert found[0] == found[1]
