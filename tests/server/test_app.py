"""A whole server in this process, with its real ports and control plane; only the workers are fakes."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from penstock_server import app, checks
from penstock_server.app import Addresses, serve
from penstock_server.control import messages
from penstock_server.control.messages import Command
from penstock_server.control.port import reserve_http
from penstock_server.control.settings import AirlockSettings
from penstock_server.control.trial_process import TrialRunner
from penstock_server.control.verdict import Trial, Verdict
from penstock_server.control.worker_process import WorkerProcess
from penstock_server.errors import InvalidInputError, UnavailableError
from penstock_server.request_log.settings import RequestLogSettings
from penstock_server.settings import ServerSettings, WorkerSettings
from penstock_server.transport.shared_port import SharedPort
from tests.server.control.fake_worker import TIMEOUT_S, FakeWorker


class WillingWorker(FakeWorker):
    """Does at once what it is told."""

    def _on_command(self, command: Command) -> None:
        super()._on_command(command)
        match command:
            case messages.Load(model, version):
                self.tell(messages.Loaded(model, version, 0.1, True, 1.0, 0.1))
            case messages.Unload(model, version):
                self.tell(messages.Unloaded(model, version))
            case messages.Listen():
                self.listen()
            case messages.Drain():
                self.die(0)

    def listen(self) -> None:
        self.tell(messages.Listening("aio"))


class Harness:
    """Runs servers, and keeps what they started."""

    def __init__(self, repository: Path) -> None:
        self.repository = repository
        self.workers: list[FakeWorker] = []
        self.settings: list[WorkerSettings] = []
        self.ports: list[Sequence[int]] = []
        self.rest_ports: list[Sequence[int]] = []
        self.kind: type[FakeWorker] = WillingWorker
        self.log: list[str] = []
        self.ready: asyncio.Queue[Addresses] = asyncio.Queue()
        self.running: list[asyncio.Task[None]] = []

    async def start_worker(self, settings: str, port: Sequence[int], rest: Sequence[int]) -> WorkerProcess:
        self.ports.append(port)
        self.rest_ports.append(rest)
        self.settings.append(WorkerSettings.from_json(settings))
        self.workers.append(self.kind())
        return self.workers[-1].end_here

    def serve(self, **settings: Any) -> asyncio.Task[None]:
        # Not the native transport, whose kernels would be compiled behind.
        given = {
            "transport": "completion-queue",
            "model_repository": self.repository,
            "port": 0,
            "http_port": 0,
            **settings,
        }
        self.running.append(asyncio.create_task(serve(ServerSettings(**given), self.ready.put_nowait)))
        return self.running[-1]

    async def addresses(self) -> Addresses:
        return await asyncio.wait_for(self.ready.get(), TIMEOUT_S)


async def passes(self: TrialRunner, trial: Trial) -> Verdict:
    return Verdict(batching="rows")


@pytest.fixture
async def harness(
    write_onnx: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Harness]:
    graph = write_onnx([("Identity", ["x"], ["y"], {})], inputs=[("x", "FP32", ["N"])], outputs=[("y", "FP32", ["N"])])
    version = tmp_path / "models" / "m" / "1"
    version.mkdir(parents=True)
    (version / "model.onnx").write_bytes(graph.read_bytes())
    made = Harness(tmp_path / "models")
    monkeypatch.setenv("PENSTOCK_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(app, "start_worker", made.start_worker)
    monkeypatch.setattr(app.TrialRunner, "run", passes)
    yield made
    for task in made.running:
        task.cancel()
    await asyncio.gather(*made.running, return_exceptions=True)


async def get(address: str, path: str) -> tuple[int, str]:
    async with aiohttp.ClientSession() as session, session.get(f"http://{address}{path}") as reply:
        return reply.status, await reply.text()


@pytest.mark.long
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
async def test_a_server_is_ready_serves_and_drains(harness: Harness, stop: signal.Signals) -> None:
    ending = harness.serve(workers=2, grace_s=1.5)
    addresses = await harness.addresses()
    assert (await get(addresses.http, "/readyz")) == (200, "ready\n")
    assert '"state":"READY"' in (await get(addresses.http, "/v1/models"))[1]
    assert "penstock_worker_restarts" in (await get(addresses.http, "/metrics"))[1]
    assert (await get(addresses.http, "/v1/drift"))[0] == 200
    for worker in harness.workers:
        assert messages.Listen(addresses.grpc) in worker.commands
    assert (addresses.served, addresses.unserved) == (("m 1",), ())
    os.kill(os.getpid(), stop)
    await asyncio.wait_for(ending, TIMEOUT_S)
    for worker in harness.workers:
        assert worker.commands[-1] == messages.Drain(1.5)
        assert worker.process.kills == 0
    for address in (addresses.grpc, addresses.http):
        host, _, port = address.rpartition(":")
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind((host, int(port)))


async def test_a_second_signal_ends_the_server_at_once(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    class Deaf(WillingWorker):
        def _on_command(self, command: Command) -> None:
            if not isinstance(command, messages.Drain):
                super()._on_command(command)

    monkeypatch.setattr(app, "ONE_SIGNAL_S", 0.0)
    harness.kind = Deaf
    ending = harness.serve(grace_s=600)
    await harness.addresses()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait({ending}, timeout=0.1)
    assert not ending.done()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(ending, TIMEOUT_S)
    assert [worker.process.kills for worker in harness.workers] == [1]


async def test_the_http_port_answers_before_any_worker_runs(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    http = reserve_http("127.0.0.1", 0)
    address = f"127.0.0.1:{http.getsockname()[1]}"
    asked: asyncio.Queue[tuple[int, str]] = asyncio.Queue()

    async def start_worker(settings: str, port: Sequence[int], rest: Sequence[int]) -> WorkerProcess:
        for path in ("/healthz", "/readyz"):
            asked.put_nowait(await get(address, path))
        return await harness.start_worker(settings, port, rest)

    monkeypatch.setattr(app, "start_worker", start_worker)
    monkeypatch.setattr(app.port, "reserve_http", lambda *_: http)
    harness.serve()
    await harness.addresses()
    assert asked.get_nowait() == (200, "ok\n")
    status, reason = asked.get_nowait()
    assert (status, reason.partition(" of directory")[0]) == (503, "not ready: waiting for the first answer")


async def test_workers_get_the_server_s_settings(harness: Harness) -> None:
    harness.serve(workers=2)
    await harness.addresses()
    assert harness.settings == [ServerSettings(transport="completion-queue", workers=2).of_worker] * 2


async def test_workers_that_bind_sockets_of_their_own_share_none(harness: Harness) -> None:
    harness.serve(workers=2)
    await harness.addresses()
    assert harness.ports == [(), ()]


@pytest.mark.parametrize("host", ["127.0.0.1", "unix:p.sock"])
async def test_native_workers_share_the_server_s_port_until_it_drains(
    harness: Harness, host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checks, "native_refusal", lambda: "")
    monkeypatch.setattr(app.KernelCompiler, "require", lambda _: None)
    ending = harness.serve(workers=2, transport="native", host=host, grace_s=1.5)
    address = (await harness.addresses()).grpc
    first, second = harness.ports
    assert first == second
    port = SharedPort.inherited([os.dup(descriptor) for descriptor in first], slot=1)
    port.begin()
    place = port.listeners[0].getsockname()
    assert address == (f"unix:{place}" if isinstance(place, str) else f"{host}:{place[1]}")
    with socket.socket(port.listeners[0].family) as early, socket.socket(port.listeners[0].family) as late:
        early.connect(place)
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(ending, TIMEOUT_S)
        with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
            late.connect(place)
    port.close()


async def test_where_the_native_transport_cannot_run_another_serves_and_binds_by_itself(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compiled: list[Any] = []

    def require(compiler: Any) -> None:
        compiled.append(compiler)

    monkeypatch.setattr(checks, "native_refusal", lambda: "there is no nghttp2")
    monkeypatch.setattr(app.KernelCompiler, "require", require)
    harness.serve(workers=1, transport="native")
    await harness.addresses()
    assert (harness.settings[0].transport, harness.ports) == ("completion-queue", [()])
    assert compiled  # for the next start
    with pytest.raises(InvalidInputError, match="over completion-queue, workers cannot share a socket file"):
        await harness.serve(workers=2, transport="native", host=f"unix:{tmp_path}/p.sock")


async def test_a_server_without_models_is_ready_too(harness: Harness, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    harness.serve(model_repository=tmp_path / "empty")
    addresses = await harness.addresses()
    assert (await get(addresses.http, "/readyz"))[0] == 200


async def test_workers_share_the_rest_port_where_there_is_one(harness: Harness) -> None:
    harness.serve(workers=2, rest_port=0)
    addresses = await harness.addresses()
    assert addresses.rest.startswith("127.0.0.1:")
    first, second = harness.rest_ports
    assert first == second
    assert len(first) == 2
    assert f"port {addresses.rest.rpartition(':')[2]}" in (await get(addresses.http, "/v2/models"))[1]


async def test_without_a_rest_port_the_http_port_says_how_to_have_one(harness: Harness) -> None:
    harness.serve()
    addresses = await harness.addresses()
    assert (addresses.rest, harness.rest_ports) == ("", [()])
    assert "--rest-port" in (await get(addresses.http, "/v2/models"))[1]
    assert "--rest-port" not in (await get(addresses.http, "/nothing"))[1]


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("port", "for gRPC: .*--port"),
        ("http_port", "for HTTP: .*--http-port"),
        ("rest_port", "for REST: .*--rest-port"),
    ],
)
async def test_a_port_in_use_is_an_error_before_any_worker_starts(harness: Harness, option: str, said: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        ending = harness.serve(**{option: other.getsockname()[1]})
        with pytest.raises(UnavailableError, match=said):
            await asyncio.wait_for(ending, TIMEOUT_S)
    assert harness.workers == []


async def test_a_worker_that_cannot_listen_ends_the_server(harness: Harness) -> None:
    class Unwilling(WillingWorker):
        def listen(self) -> None:
            self.tell(messages.ListenFailed("the address is not this machine's"))

    harness.kind = Unwilling
    with pytest.raises(UnavailableError, match="the address is not this machine's"):
        await asyncio.wait_for(harness.serve(), TIMEOUT_S)
    assert harness.ready.empty()
    assert all(worker.process.kills == 1 for worker in harness.workers)


async def test_a_bug_in_the_control_plane_ends_the_server(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(*_: Any, **__: Any) -> WorkerProcess:
        raise RuntimeError("a bug")

    monkeypatch.setattr(app, "start_worker", broken)
    with pytest.raises(ExceptionGroup) as found:
        await asyncio.wait_for(harness.serve(), TIMEOUT_S)
    assert [str(error) for error in found.value.exceptions] == ["a bug"]


async def test_a_part_that_fails_runs_again(harness: Harness, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = asyncio.Semaphore(0)

    class Failing(app.Watcher):
        async def run(self) -> None:
            runs.release()
            raise RuntimeError("a bug")

    monkeypatch.setattr(app, "Watcher", Failing)
    monkeypatch.setattr(app, "RESTART_S", 0.0)
    ending = harness.serve()
    for _ in range(3):
        await asyncio.wait_for(runs.acquire(), TIMEOUT_S)
    assert not ending.done()


async def test_a_server_needs_a_source(harness: Harness) -> None:
    with pytest.raises(InvalidInputError, match="nowhere to get models from"):
        await asyncio.wait_for(harness.serve(model_repository=None), TIMEOUT_S)


@pytest.mark.parametrize("spares", [True, False])
async def test_processes_wait_for_the_next_version_as_the_settings_say(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, spares: bool
) -> None:
    has_spare: list[bool] = []

    class Runner(app.TrialRunner):
        def __init__(self, limits: Any, **options: Any) -> None:
            has_spare.append(options["has_spare"])
            super().__init__(limits, **options)

    class Client(app.SourceClient):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            has_spare.append(options["has_spare"])
            super().__init__(*arguments, **options)

    monkeypatch.setattr(app, "TrialRunner", Runner)
    monkeypatch.setattr(app, "SourceClient", Client)
    harness.serve(airlock=AirlockSettings(spare_processes=spares))
    await harness.addresses()
    assert has_spare == [spares, spares]


async def test_a_request_log_needs_pyarrow(harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "find_spec", lambda name: None)
    with pytest.raises(InvalidInputError, match=r"needs pyarrow, .* pip install 'penstock\[log\]'"):
        await asyncio.wait_for(harness.serve(request_log=RequestLogSettings(tmp_path / "log")), TIMEOUT_S)


async def test_the_compactor_outlives_the_workers(
    harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[Any] = []

    class FakeHelper:
        def __init__(self, module: str, argument: str) -> None:
            log.append((module, argument))

        def start(self) -> None:
            log.append("started")

        async def close(self) -> None:
            log.append([worker.process.returncode for worker in harness.workers])

    monkeypatch.setattr(app, "HelperProcess", FakeHelper)
    monkeypatch.setattr(checks, "find_spec", lambda name: object())
    ending = harness.serve(request_log=RequestLogSettings(tmp_path / "log", max_bytes=2**30))
    await harness.addresses()
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.wait_for(ending, TIMEOUT_S)
    argument = f'["{tmp_path}/log",{2**30}]'
    assert log == [("penstock_server.request_log.compactor", argument), "started", [0]]
