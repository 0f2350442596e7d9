import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from penstock_server.compiled_models.choice import Choice
from penstock_server.control import messages, supervisor, worker_pool
from penstock_server.control.forwarding import ControlResponder
from penstock_server.control.proven import ProvenVersions
from penstock_server.control.quarantine import TOGETHER_S
from penstock_server.control.settings import AirlockSettings, ResidencySettings, WatchdogSettings
from penstock_server.control.supervisor import RECONCILE_S, Supervisor
from penstock_server.control.verdict import LoadSettings, Trial, TrialLimits, Verdict
from penstock_server.control.worker_pool import HOPELESS_ENDS, PAUSES_S, STEADY_S
from penstock_server.control.worker_process import WorkerProcess
from penstock_server.errors import InvalidInputError, NotFoundError, PenstockError, UnavailableError
from penstock_server.metrics.store import CounterStore
from penstock_server.models.artifact import Artifact
from penstock_server.rollout.plan import Arm, ShadowArm, TrafficPlan, VersionStatus
from penstock_server.sources.source import Desired, VersionFiles
from penstock_server.transport import layout
from penstock_server.transport.shared_port import SharedPort
from tests.server.control.fake_worker import TIMEOUT_S, FakeWorker

LISTENING = messages.Listening("aio")


def desired(**plans: TrafficPlan) -> Desired:
    return Desired(dict(plans))


def loaded(model: str, version: str) -> messages.Loaded:
    return messages.Loaded(model, version, 0.1, True, 1.0, 0.1)


PASSED = Verdict(batching="rows")


class FakeSource:
    def __init__(self) -> None:
        self.errors: dict[tuple[str, str], PenstockError] = {}

    async def fetch(self, model: str, version: str, identity: str) -> VersionFiles:
        if error := self.errors.get((model, version)):
            raise error
        return VersionFiles(Path("/versions", model, version), identity)


async def fetched(server: "Server", model: str, version: str) -> None:
    """Waits until the airlock has its verdict on a version."""
    while server.supervisor._airlock.verdict((model, version), "") is None:  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0.001)


class Server:
    """A supervisor whose workers are the test's."""

    def __init__(
        self,
        counters: CounterStore,
        clock: Any,
        *,
        workers: int,
        cache: Path,
        reconcile_s: float,
        bounds: AirlockSettings,
        residency: ResidencySettings,
    ) -> None:
        self.clock = clock
        self.resident_mib = 50
        self.tried: list[str] = []
        self.verdicts: dict[tuple[str, str], Verdict] = {}
        self.held_back: dict[tuple[str, str], asyncio.Event] = {}
        self.unanswered: list[str] = []
        self.source = FakeSource()
        self.counters = counters
        self.started: asyncio.Queue[FakeWorker] = asyncio.Queue()
        self.port = SharedPort.bind("127.0.0.1:0", workers)
        self.supervisor = Supervisor(
            address="127.0.0.1:8001",
            port=self.port,
            workers=workers,
            start=self._start,
            source=self.source,
            counters=counters,
            responder=ControlResponder({"Echo": bytes.upper}),
            run_trial=self._try,
            proven=ProvenVersions(TrialLimits(1024, 10.0), cache),
            load_settings=lambda model: LoadSettings(),
            unanswered=lambda: self.unanswered,
            watchdog=WatchdogSettings(),
            reconcile_s=reconcile_s,
            bounds=bounds,
            residency=residency,
            resident_bytes=lambda _pid: self.resident_mib << 20,
            clock=clock,
        )
        self.running = asyncio.create_task(self.supervisor.run())

    async def _try(self, trial: Trial) -> Verdict:
        self.tried.append(f"{trial.model} {trial.version}")
        if (held_back := self.held_back.get(trial.key)) is not None:
            await held_back.wait()
        return self.verdicts.get(trial.key, PASSED)

    async def _start(self) -> WorkerProcess:
        worker = FakeWorker()
        self.started.put_nowait(worker)
        return worker.end_here

    async def worker(self) -> FakeWorker:
        return await asyncio.wait_for(self.started.get(), TIMEOUT_S)

    async def serving(self) -> FakeWorker:
        """A worker that serves version 1 of model m and accepts calls."""
        self.supervisor.on_desired(desired(m=TrafficPlan("1")))
        worker = await self.worker()
        await worker.hears("load m 1")
        worker.tell(loaded("m", "1"))
        await worker.hears("serve m:1", "listen")
        worker.tell(LISTENING)
        await asyncio.wait_for(self.supervisor.ready.wait(), TIMEOUT_S)
        return worker

    def change_files(self, key: tuple[str, str], identity: str) -> None:
        """The source has other files of a version."""
        model, version = key
        now = self.supervisor._desired
        identities = {**now.identities, model: {**now.identities.get(model, {}), version: identity}}
        self.supervisor.on_desired(Desired(now.models, now.problems, identities))

    async def failure(self) -> str:
        with pytest.raises(UnavailableError) as found:
            await asyncio.wait_for(self.supervisor.failure(), TIMEOUT_S)
        return str(found.value)

    async def close(self) -> None:
        self.running.cancel()
        (ending,) = await asyncio.gather(self.running, return_exceptions=True)
        assert isinstance(ending, asyncio.CancelledError), ending
        self.port.close()


@pytest.fixture
def counters() -> Iterator[CounterStore]:
    with CounterStore() as store:
        yield store


@pytest.fixture
async def start(
    counters: CounterStore, fake_clock: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> AsyncIterator[Callable[..., Server]]:
    monkeypatch.setattr("penstock_server.control.fetcher.read", lambda folder: Artifact(folder, folder))
    servers: list[Server] = []

    def make(
        workers: int = 1,
        reconcile_s: float = RECONCILE_S,
        bounds: AirlockSettings = AirlockSettings(),  # noqa: B008 - frozen
        residency: ResidencySettings = ResidencySettings(),  # noqa: B008 - frozen
    ) -> Server:
        servers.append(
            Server(
                counters,
                fake_clock(),
                workers=workers,
                cache=tmp_path,
                reconcile_s=reconcile_s,
                bounds=bounds,
                residency=residency,
            )
        )
        return servers[-1]

    yield make
    for server in servers:
        await server.close()


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that the supervisor makes, none of which takes any time."""
    found: list[float] = []

    async def sleep(seconds: float) -> None:
        found.append(seconds)

    monkeypatch.setattr("penstock_server.control.worker_pool.pause", sleep)
    return found


async def test_a_worker_is_brought_to_the_desired_plans_and_then_listens(start: Callable[..., Server]) -> None:
    server = start()
    worker = await server.serving()
    (load,) = (one for one in worker.commands if isinstance(one, messages.Load))
    assert (load.folder, load.features, load.cells) == ("/versions/m/1", 0, 0)
    assert len(server.counters.of_version(("m", "1"))) == 1
    server.supervisor.on_desired(desired(m=TrafficPlan("2")))
    await worker.hears("load m 2")
    worker.tell(loaded("m", "2"))
    await worker.hears("serve m:2", "unload m 1")
    worker.tell(messages.Unloaded("m", "1"))
    server.supervisor.on_desired(desired(m=TrafficPlan("2", (Arm("3", 0.1),))))
    await worker.hears("load m 3")
    worker.tell(loaded("m", "3"))
    await worker.hears("serve m:2+3@0.1")
    assert server.counters.of_version(("m", "1")) == []
    server.supervisor.on_desired(desired())
    await worker.hears("serve", "unload m 2", "unload m 3")


class FakeKernels:
    def __init__(self) -> None:
        self.is_ready = False
        self.failure = ""
        self.reason = "the kernels are being compiled"
        self.required = 0

    def require(self) -> None:
        self.required += 1


async def test_versions_with_features_wait_for_the_kernels_and_others_do_not(
    start: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(folder: Path) -> Artifact:
        features: Any = object() if "fares" in str(folder) else None
        return Artifact(folder, folder, features=features)

    monkeypatch.setattr("penstock_server.control.fetcher.read", read)
    server = start()
    kernels: Any = FakeKernels()
    server.supervisor.kernels = kernels
    server.supervisor.on_desired(desired(fares=TrafficPlan("1")))
    worker = await server.worker()
    await worker.hears("listen")
    assert kernels.required > 0
    worker.tell(LISTENING, messages.ControlRequest(1, "Echo", b""))
    await worker.hears("controlreply")
    view = server.supervisor.view()
    expected = "no model can answer: model 'fares' version 1 loading: the kernels are being compiled"
    assert (view.is_ready, view.not_ready_reason) == (False, expected)
    assert [(each.model, each.state, each.reason) for each in view.versions] == [
        ("fares", "LOADING", "the kernels are being compiled")
    ]
    server.supervisor.on_desired(desired(fares=TrafficPlan("1"), plain=TrafficPlan("1")))
    await worker.hears("load plain 1")
    kernels.failure = kernels.reason = "numba is not installed"
    await server.supervisor.act()
    assert [each.reason for each in server.supervisor.view().versions] == ["numba is not installed", ""]
    kernels.failure, kernels.is_ready = "", True
    worker.tell(loaded("plain", "1"))
    await worker.hears("serve plain:1", "load fares 1")


async def test_statuses_travel_with_the_plans(start: Callable[..., Server]) -> None:
    server = start()
    worker = await server.serving()
    server.supervisor.on_desired(desired(m=TrafficPlan("1", (Arm("2"),))))
    await worker.hears("load m 2")
    worker.tell(messages.LoadFailed("m", "2", "its digest is wrong"))
    server.supervisor.on_desired(desired(m=TrafficPlan("1", (Arm("2"),), (ShadowArm("3"),))))
    await worker.hears("load m 3")
    worker.tell(loaded("m", "3"))
    await worker.hears("serve m:1")  # with the shadow
    statuses = worker.routes["m"].statuses
    assert {version: (status.state, status.reason) for version, status in statuses.items()} == {
        "1": ("READY", ""), "2": ("UNAVAILABLE", "its digest is wrong"), "3": ("READY", ""),
    }  # fmt: skip


async def test_nothing_follows_plans_that_are_not_confirmed(start: Callable[..., Server]) -> None:
    server = start()
    worker = await server.serving()
    worker.confirms = False
    server.supervisor.on_desired(desired(m=TrafficPlan("1"), n=TrafficPlan("1")))
    server.supervisor._reconcile()
    pending = worker.serves[-1]
    assert (worker.routes.keys(), pending.models.keys()) == ({"m", "n"}, {"n"})
    server.supervisor.on_desired(desired(m=TrafficPlan("2")))
    server.supervisor._reconcile()
    worker.tell(messages.Served(pending.generation - 1))  # of plans before
    server.supervisor._reconcile()
    assert worker.said.empty()
    worker.confirms = True
    worker.tell(messages.Served(pending.generation))
    await worker.hears("load m 2")


async def test_a_worker_listens_once_everything_was_tried(start: Callable[..., Server]) -> None:
    server = start()
    server.source.errors["c", "1"] = InvalidInputError("its digest is wrong")
    server.supervisor.on_desired(desired(a=TrafficPlan("1"), c=TrafficPlan("1")))
    worker = await server.worker()
    await worker.hears("load a 1")
    server.supervisor.on_desired(desired(a=TrafficPlan("1"), b=TrafficPlan("1"), c=TrafficPlan("1")))
    await fetched(server, "b", "1")
    assert worker.said.empty()  # one at a time
    worker.tell(loaded("a", "1"))
    await worker.hears("load b 1", "serve a:1")
    assert not server.supervisor.ready.is_set()
    worker.tell(messages.LoadFailed("b", "1", "no"))
    await worker.hears("listen")
    assert worker.serves[-1].is_settled
    server.supervisor._reconcile()
    assert worker.said.empty()  # it is told once, though it does not listen yet
    worker.tell(LISTENING)
    await asyncio.wait_for(server.supervisor.ready.wait(), TIMEOUT_S)
    # What is desired later is loaded while it goes on listening.
    server.supervisor.on_desired(desired(a=TrafficPlan("1", (Arm("2"),)), b=TrafficPlan("1")))
    await worker.hears("load a 2")
    assert worker.serves[-1].is_settled


async def test_with_nothing_desired_a_worker_listens_after_the_first_poll(start: Callable[..., Server]) -> None:
    server = start()
    worker = await server.worker()
    server.supervisor._reconcile()
    assert worker.said.empty()
    server.supervisor.on_polled()
    await worker.hears("listen")
    worker.tell(LISTENING)
    await asyncio.wait_for(server.supervisor.ready.wait(), TIMEOUT_S)
    assert server.supervisor.view().is_ready


async def test_the_server_is_ready_when_all_workers_listen(start: Callable[..., Server]) -> None:
    server = start(workers=2)
    server.supervisor.on_polled()
    first, second = await server.worker(), await server.worker()
    for worker in (first, second):
        await worker.hears("listen")
    first.tell(LISTENING, messages.ControlRequest(1, "Echo", b"a"))
    await first.hears("controlreply")
    assert not server.supervisor.ready.is_set()
    second.tell(LISTENING)
    await asyncio.wait_for(server.supervisor.ready.wait(), TIMEOUT_S)


async def test_a_replaced_worker_is_told_everything_again(start: Callable[..., Server], pauses: list[float]) -> None:
    server = start()
    worker = await server.serving()
    worker.die()
    replaced = await server.worker()
    await replaced.hears("load m 1")
    replaced.tell(loaded("m", "1"))
    await replaced.hears("serve m:1", "listen")
    (view,) = server.supervisor.view().workers
    assert (view.slot, view.pid, view.restarts) == (0, replaced.process.pid, 1)


async def test_a_replaced_worker_counts_on_in_the_same_files(start: Callable[..., Server], pauses: list[float]) -> None:
    server = start()
    worker = await server.serving()
    worker.die()
    replaced = await server.worker()
    await replaced.hears("load m 1")
    loads = [one for found in (worker, replaced) for one in found.commands if isinstance(one, messages.Load)]
    assert loads[0].counters == loads[1].counters
    assert worker.commands[0] == replaced.commands[0] == messages.Start(str(server.counters.slot(0)), 0)
    assert len(server.counters.of_version(("m", "1"))) == 1


async def test_quick_ends_make_longer_pauses_and_a_long_life_makes_none(
    start: Callable[..., Server], pauses: list[float]
) -> None:
    server = start()
    lives_s = [1.0] * (len(PAUSES_S) + 2) + [STEADY_S + 1, 1.0, STEADY_S]
    for life_s in lives_s:
        worker = await server.worker()
        server.clock.now += life_s
        worker.die()
    await server.worker()
    assert pauses == [*PAUSES_S, PAUSES_S[-1], PAUSES_S[-1], 0.0, PAUSES_S[0], PAUSES_S[1]]


async def test_workers_that_never_start_end_the_server(start: Callable[..., Server], pauses: list[float]) -> None:
    server = start()
    for end in range(HOPELESS_ENDS):
        assert not server.supervisor._failure.done(), end
        (await server.worker()).die(3)
    assert await server.failure() == "workers end as soon as they start (exit code 3); the log above says why"


async def test_workers_that_end_later_do_not_end_a_server_that_was_ready(
    start: Callable[..., Server], pauses: list[float]
) -> None:
    server = start()
    worker = await server.serving()
    for _ in range(2 * HOPELESS_ENDS):
        worker.die()
        worker = await server.worker()
    assert not server.supervisor._failure.done()


async def test_a_port_that_cannot_be_bound_ends_the_server(start: Callable[..., Server]) -> None:
    server = start(workers=2)
    for _ in range(2):
        (await server.worker()).tell(messages.ListenFailed("the port is in use"))
    assert await server.failure() == "the port is in use"


async def test_a_later_worker_that_cannot_bind_the_port_is_replaced(
    start: Callable[..., Server], pauses: list[float]
) -> None:
    server = start()
    worker = await server.serving()
    worker.die()
    another = await server.worker()
    await another.hears("load m 1")
    another.tell(loaded("m", "1"))
    await another.hears("serve m:1", "listen")
    another.tell(messages.ListenFailed("too many open files"))
    another.reader.feed_eof()
    await (await server.worker()).hears("load m 1")
    assert another.process.kills == 1
    assert not server.supervisor._failure.done()


async def test_a_fetch_that_failed_is_tried_again(start: Callable[..., Server]) -> None:
    server = start(reconcile_s=0.01)
    server.source.errors["m", "1"] = UnavailableError("the registry does not answer")
    server.supervisor.on_desired(desired(m=TrafficPlan("1")))
    worker = await server.worker()
    await worker.hears("listen")  # it was tried
    (version,) = server.supervisor.view().versions
    assert (version.state, version.reason) == ("UNAVAILABLE", "the registry does not answer")
    server.source.errors.clear()
    server.clock.now += 1000.0
    await worker.hears("load m 1")


async def test_control_requests_are_answered_to_the_worker_that_forwards_them(start: Callable[..., Server]) -> None:
    server = start(workers=2)
    first, second = await server.worker(), await server.worker()
    second.tell(messages.ControlRequest(7, "Echo", b"a"), messages.ControlRequest(8, "Other", b""))
    await asyncio.wait_for(second.said.get(), TIMEOUT_S)
    await asyncio.wait_for(second.said.get(), TIMEOUT_S)
    assert messages.ControlReply(7, b"A") in second.commands
    assert any(isinstance(one, messages.ControlError) and one.number == 8 for one in second.commands)
    assert not any(isinstance(one, messages.ControlReply) for one in first.commands)


async def test_a_drain_waits_for_the_workers_and_replaces_none(start: Callable[..., Server]) -> None:
    server = start(workers=2)
    workers = [await server.worker(), await server.worker()]
    server.supervisor.on_polled()
    for worker in workers:
        await worker.hears("listen")
    draining = asyncio.create_task(server.supervisor.drain(5.0))
    for worker in workers:
        await worker.hears("drain")
    assert messages.Drain(5.0) in workers[0].commands
    assert not server.supervisor.view().is_ready
    workers[0].die(0)
    server.supervisor.on_desired(desired(m=TrafficPlan("1")))
    assert not draining.done()
    workers[1].die(0)
    await asyncio.wait_for(draining, TIMEOUT_S)
    assert server.started.empty()
    assert all(worker.process.kills == 0 and worker.said.empty() for worker in workers)


async def test_a_drain_has_the_port_refuse_connections_before_any_worker_hears_of_it(
    start: Callable[..., Server],
) -> None:
    server = start()
    worker = await server.worker()
    server.supervisor.on_polled()
    await worker.hears("listen")
    server.port.begin()  # as the worker would
    place = server.port.listeners[0].getsockname()
    socket.create_connection(place, TIMEOUT_S).close()
    draining = asyncio.create_task(server.supervisor.drain(5.0))
    await asyncio.sleep(0)
    assert worker.said.empty() or worker.said.get_nowait() == "drain"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(place, TIMEOUT_S)
    worker.die(0)
    await asyncio.wait_for(draining, TIMEOUT_S)


async def test_the_connections_of_a_worker_that_is_gone_count_no_more(start: Callable[..., Server]) -> None:
    server = start(workers=2)
    workers = [await server.worker(), await server.worker()]
    server.supervisor.on_polled()
    for worker in workers:
        await worker.hears("listen")
    table = memoryview(server.port._map).cast("q")
    table[0], table[layout.PORT_ROW_BYTES // layout.WORD_BYTES] = 7, 8
    assert [worker.connections for worker in server.supervisor.view().workers] == [7, 8]
    workers[0].die()
    await server.worker()
    assert [server.port.connections(slot) for slot in range(2)] == [0, 8]


async def test_a_worker_without_calls_holds_up_no_drain(start: Callable[..., Server]) -> None:
    server = start(workers=1)
    server.supervisor.on_desired(desired(m=TrafficPlan("1")))
    worker = await server.worker()
    await worker.hears("load m 1")
    worker.reader.feed_eof()  # as it will be when the process is killed
    await asyncio.wait_for(server.supervisor.drain(3600.0), TIMEOUT_S)
    assert worker.process.kills == 1
    assert worker.said.empty()


async def test_a_worker_that_outlives_the_grace_is_killed(
    start: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_pool, "KILL_AFTER_S", 0.01)
    server = start(workers=2)
    workers = [await server.worker(), await server.worker()]
    server.supervisor.on_polled()
    for worker in workers:
        await worker.hears("listen")
    draining = asyncio.create_task(server.supervisor.drain(0.0))
    for worker in workers:
        await worker.hears("drain")
    workers[0].die(0)
    await asyncio.wait_for(draining, TIMEOUT_S)
    assert [worker.process.kills for worker in workers] == [0, 1]


async def test_a_supervisor_that_is_cancelled_leaves_no_worker(start: Callable[..., Server]) -> None:
    server = start()
    worker = await server.worker()
    await server.close()
    assert worker.process.kills == 1


async def test_a_view_counts_reloads(start: Callable[..., Server]) -> None:
    server = start()
    worker = await server.serving()
    server.supervisor.on_desired(desired(m=TrafficPlan("1", (Arm("2", 0.25),))))
    await worker.hears("load m 2")
    worker.tell(messages.LoadFailed("m", "2", "no"), messages.ControlRequest(1, "Echo", b""))
    await worker.hears("controlreply")
    view = server.supervisor.view()
    assert (view.reloads, view.failed_reloads, view.is_ready) == (1, 1, True)
    assert [(one.version, one.state, one.roles, one.reason) for one in view.versions] == [
        ("1", "READY", ("champion",), ""), ("2", "UNAVAILABLE", (), "no"),
    ]  # fmt: skip
    artifact = server.supervisor.artifact(("m", "1"))
    assert artifact is not None
    assert artifact.path == Path("/versions/m/1")
    assert server.supervisor.artifact(("m", "9")) is None


async def test_a_server_with_a_silent_model_is_not_ready(start: Callable[..., Server], pauses: list[float]) -> None:
    server = start()
    worker = await server.serving()
    worker.die()
    replaced = await server.worker()
    await replaced.hears("load m 1")
    replaced.tell(messages.LoadFailed("m", "1", "no"))
    await replaced.hears("listen")
    replaced.tell(LISTENING, messages.ControlRequest(1, "Echo", b""))
    await replaced.hears("controlreply")
    assert not server.supervisor.view().is_ready


def statuses(server: Server) -> dict[str, tuple[str, str]]:
    """The state and reason of each version of model m."""
    return {one.version: (one.state, one.reason) for one in server.supervisor.view().versions if one.model == "m"}


async def replaced(server: Server, worker: FakeWorker, code: int, *says: str) -> FakeWorker:
    """The worker dies, and the next one loads version 1 and listens."""
    worker.die(code)
    another = await server.worker()
    await another.hears("load m 1")
    another.tell(loaded("m", "1"))
    await another.hears("serve m:1", "listen")
    another.tell(LISTENING)
    await another.hears(*says)
    while not another.end_here.is_listening:  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0)
    return another


async def test_a_version_that_does_not_pass_the_airlock_is_loaded_by_nobody(start: Callable[..., Server]) -> None:
    server = start()
    worker = await server.serving()
    server.verdicts["m", "2"] = Verdict("used more than 256 MiB while it was loaded and was stopped")
    server.supervisor.on_desired(desired(m=TrafficPlan("1", (Arm("2", 0.5),)), n=TrafficPlan("1")))
    await worker.hears("load n 1")
    worker.tell(loaded("n", "1"))
    await worker.hears("serve m:1 n:1")
    await fetched(server, "m", "2")
    server.supervisor._reconcile()
    assert statuses(server) == {
        "1": ("READY", ""), "2": ("UNAVAILABLE", "used more than 256 MiB while it was loaded and was stopped"),
    }  # fmt: skip
    view = server.supervisor.view()
    assert (view.quarantined, view.failed_reloads, view.is_ready) == (1, 1, True)
    assert worker.routes["m"].statuses["2"].reason.startswith("used more")


async def test_what_is_too_slow_or_too_large_stays_out_until_something_changes(start: Callable[..., Server]) -> None:
    server = start(bounds=AirlockSettings(latency_factor=2.0, memory_budget_mib=100))
    server.verdicts["m", "1"] = Verdict(batching="rows", base_s=0.001, memory_bytes=40 << 20)
    server.verdicts["m", "2"] = Verdict(batching="rows", base_s=0.01, memory_bytes=1 << 20)
    server.verdicts["m", "3"] = Verdict(batching="rows", base_s=0.001, memory_bytes=80 << 20)
    server.verdicts["m", "4"] = Verdict(batching="rows", base_s=0.002, memory_bytes=60 << 20)
    worker = await server.serving()
    for version, why in (("2", "airlock.latency_factor"), ("3", "airlock.memory_budget_mib")):
        server.supervisor.on_desired(desired(m=TrafficPlan(version)))
        await fetched(server, "m", version)
        await server.supervisor.act()
        assert why in server.supervisor.refused()["m", version]
        assert server.supervisor.health(("m", version)).is_refused
        (view,) = (one for one in server.supervisor.view().versions if one.version == version)
        assert (view.state, why in view.reason) == ("UNAVAILABLE", True)
    server.supervisor.on_desired(desired(m=TrafficPlan("4")))
    await worker.hears("load m 4")
    assert not server.supervisor.refused()


async def test_what_could_not_be_fetched_is_refused_only_if_nobody_could(start: Callable[..., Server]) -> None:
    server = start()
    await server.serving()
    for version, error in (
        ("2", UnavailableError("the registry is away")),
        ("3", InvalidInputError("its digest is wrong")),
    ):
        server.source.errors["m", version] = error
        server.supervisor.on_desired(desired(m=TrafficPlan(version)))
        while server.supervisor._fetcher.failure(("m", version)) is None:
            await server.supervisor.act()
        refused = {} if version == "2" else {("m", "3"): "its digest is wrong"}
        assert server.supervisor.refused() == refused


async def test_a_worker_listens_while_its_canary_is_still_tried(start: Callable[..., Server]) -> None:
    server = start()
    server.held_back["m", "2"] = asyncio.Event()
    server.supervisor.on_desired(desired(m=TrafficPlan("1", (Arm("2", 0.5),))))
    worker = await server.worker()
    await worker.hears("load m 1")
    worker.tell(loaded("m", "1"))
    await worker.hears("serve m:1", "listen")
    worker.tell(LISTENING)
    await asyncio.wait_for(server.supervisor.ready.wait(), TIMEOUT_S)
    while statuses(server)["2"] == ("LOADING", "waits to be tried"):  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0)
    assert statuses(server)["2"] == ("LOADING", "is being tried in a process of its own")
    server.held_back["m", "2"].set()
    await worker.hears("load m 2")


async def test_ends_of_a_versions_own_processes_are_counted_until_it_is_no_longer_wanted(
    start: Callable[..., Server],
) -> None:
    server = start()
    worker = await server.serving()
    for _ in range(2):
        worker.tell(messages.ProcessEnded("m", "1", "it ended with signal 11, SIGSEGV"))
    server.supervisor.on_desired(desired())
    await worker.hears("serve", "unload m 1")  # all that was told before has been heard
    assert server.supervisor.view().process_ends == {("m", "1"): 2}
    worker.tell(messages.Unloaded("m", "1"))
    while "1" in statuses(server):  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0)
    server.supervisor._reconcile()
    assert server.supervisor.view().process_ends == {}


async def test_what_the_airlock_found_reaches_the_worker(start: Callable[..., Server]) -> None:
    server = start()
    engine = Choice((True, False, False, False), "kernels", "of these kernels")
    server.verdicts["m", "1"] = Verdict(batching="request", engine=engine)
    worker = await server.serving()
    (load,) = (one for one in worker.commands if isinstance(one, messages.Load))
    assert (load.batching, load.engine) == ("request", engine)


async def test_a_canary_that_ends_the_worker_while_it_loads_is_kept_out_after_the_second_time(
    start: Callable[..., Server], pauses: list[float]
) -> None:
    server = start()
    worker = await server.serving()
    server.supervisor.on_desired(desired(m=TrafficPlan("1", (Arm("2", 0.5),))))
    await worker.hears("load m 2")
    worker = await replaced(server, worker, -9, "load m 2")  # the champion answers before it is tried again
    server.clock.now += TOGETHER_S
    worker = await replaced(server, worker, -9)
    server.supervisor._reconcile()
    assert worker.said.empty()
    state, reason = statuses(server)["2"]
    assert state == "UNAVAILABLE"
    assert reason == (
        "is kept out until its files change: it ended a worker 2 times; "
        "the last time it ended while it loaded it (signal 9, SIGKILL)"
    )
    view = server.supervisor.view()
    assert (view.is_ready, view.quarantined) == (True, 1)
    assert pauses == [0.0, 0.0]
    server.change_files(("m", "2"), "other files")
    server.supervisor._change.set()
    await worker.hears("load m 2")


async def first_to_hear(workers: Sequence[FakeWorker]) -> tuple[FakeWorker, str]:
    """Which of them hears something first, and what."""
    tasks = {asyncio.create_task(worker.said.get()): worker for worker in workers}
    done, pending = await asyncio.wait(tasks, timeout=TIMEOUT_S, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    (task,) = done
    return tasks[task], task.result()


async def test_a_canary_that_crashes_on_requests_leaves_its_share_to_the_champion(
    start: Callable[..., Server], pauses: list[float]
) -> None:
    server = start(workers=2)
    server.supervisor.on_desired(desired(m=TrafficPlan("1", (Arm("2", 0.5),))))
    workers = [await server.worker(), await server.worker()]
    first, said = await first_to_hear(workers)
    assert said == "load m 1"
    for worker in (first, *(worker for worker in workers if worker is not first)):
        if worker is not first:
            await worker.hears("load m 1")
        worker.tell(loaded("m", "1"))
        await worker.hears("serve m:1", "listen")
        worker.tell(LISTENING)
    victim, said = await first_to_hear(workers)
    assert said == "load m 2"
    victim.tell(loaded("m", "2"))
    await victim.hears("serve m:1+2@0.5")
    (other,) = (worker for worker in workers if worker is not victim)
    await other.hears("load m 2")
    other.tell(loaded("m", "2"))
    await other.hears("serve m:1+2@0.5")
    for _ in range(2):
        running = server.counters._versions["m", "2"][victim.end_here.slot].shared
        running.running_since_ns[0] = int(server.clock.now * 1e9)
        victim.die(-11)
        dead = victim
        victim = await server.worker()
        assert victim.end_here.slot == dead.end_here.slot
        await victim.hears("load m 1")
        victim.tell(loaded("m", "1"))
        await victim.hears("serve m:1", "listen")
        victim.tell(LISTENING)
        if statuses(server)["2"][0] != "UNAVAILABLE":
            await victim.hears("load m 2")
            victim.tell(loaded("m", "2"))
            await victim.hears("serve m:1+2@0.5")
    await other.hears("serve m:1", "unload m 2")
    assert "ended while it ran (signal 11, SIGSEGV)" in statuses(server)["2"][1]
    assert server.supervisor.view().is_ready


async def test_a_version_is_loaded_by_one_worker_first(start: Callable[..., Server]) -> None:
    server = start(workers=2)
    server.supervisor.on_desired(desired(m=TrafficPlan("1")))
    workers = [await server.worker(), await server.worker()]
    await workers[0].hears("load m 1")
    server.supervisor._reconcile()
    assert workers[1].said.empty()
    workers[0].tell(loaded("m", "1"))
    await workers[1].hears("load m 1")


async def test_other_files_of_a_version_replace_those_that_answer(start: Callable[..., Server]) -> None:
    server = start()
    worker = await server.serving()
    (former,) = server.counters.of_version(("m", "1"))
    former.rows[0] = 5
    server.change_files(("m", "1"), "new")
    server.supervisor._change.set()
    await worker.hears("load m 1")
    assert statuses(server) == {"1": ("READY", "")}
    assert server.counters.of_version(("m", "1"), "new") == []
    worker.tell(loaded("m", "1"), messages.ControlRequest(1, "Echo", b""))
    await worker.hears("controlreply")
    assert worker.end_here.identities == {("m", "1"): "new"}
    assert [int(one.rows[0]) for one in server.counters.of_version(("m", "1"), "new")] == [0]
    assert len(server.counters.of_version(("m", "1"))) == 1


async def test_the_former_files_answer_when_the_new_ones_cannot_be_loaded(start: Callable[..., Server]) -> None:
    server = start()
    worker = await server.serving()
    server.verdicts["m", "1"] = Verdict("golden")
    server.change_files(("m", "1"), "bad")
    server.supervisor._change.set()
    while statuses(server)["1"][1] == "":  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0)
    expected = "its new files cannot be loaded, and the former ones answer: "
    assert statuses(server) == {"1": ("READY", f"{expected}golden")}
    del server.verdicts["m", "1"]
    server.change_files(("m", "1"), "worse")
    server.supervisor._change.set()
    await worker.hears("load m 1")
    worker.tell(messages.LoadFailed("m", "1", "a digest is wrong"), messages.ControlRequest(1, "Echo", b""))
    await worker.hears("controlreply")
    assert statuses(server) == {"1": ("READY", f"{expected}a digest is wrong")}
    assert server.supervisor.view().is_ready


async def test_what_answered_before_answers_in_a_new_worker_while_the_next_champion_is_tried(
    start: Callable[..., Server], pauses: list[float]
) -> None:
    server = start()
    worker = await server.serving()
    server.held_back["m", "2"] = asyncio.Event()
    server.supervisor.on_desired(desired(m=TrafficPlan("2")))
    worker = await replaced(server, worker, 1)
    assert server.supervisor.view().is_ready
    server.held_back["m", "2"].set()
    await worker.hears("load m 2")
    worker.tell(loaded("m", "2"))
    await worker.hears("serve m:2", "unload m 1")


async def test_a_new_champion_that_ends_workers_leaves_the_last_good_one(
    start: Callable[..., Server], pauses: list[float]
) -> None:
    server = start()
    worker = await server.serving()
    server.supervisor.on_desired(desired(m=TrafficPlan("2")))
    await worker.hears("load m 2")
    worker = await replaced(server, worker, -6, "load m 2")
    worker = await replaced(server, worker, -6)
    assert statuses(server)["2"][0] == "UNAVAILABLE"
    assert server.supervisor.view().is_ready


def beat(server: Server, slot: int = 0) -> None:
    server.counters._slots[slot].shared.beat_ns[0] += 1


async def test_a_worker_that_hangs_is_killed_and_replaced_without_a_pause(
    start: Callable[..., Server], pauses: list[float]
) -> None:
    server = start()
    worker = await server.serving()
    beat(server)
    supervisor_ = server.supervisor
    for _ in range(40):
        beat(server)
        supervisor_._pool.look(1.0)
    assert supervisor_.view().is_ready
    for _ in range(4):
        supervisor_._pool.look(1.0)
    assert supervisor_.view().not_ready_reason == "no worker has shown a sign of life for 3 s"
    assert worker.process.kills == 0
    for _ in range(7):
        supervisor_._pool.look(1.0)
    assert worker.process.kills == 1
    worker.die(-9)
    another = await server.worker()
    assert server.counters.beat_ns(0) == 0
    await another.hears("load m 1")
    assert pauses == [0.0]
    assert not supervisor_._quarantine.is_doubtful(("m", "1"), "")  # nothing ran


async def test_a_worker_that_is_ending_is_told_nothing_and_blames_no_version(start: Callable[..., Server]) -> None:
    server = start()
    worker = await server.serving()
    supervisor_ = server.supervisor
    (process,) = supervisor_._pool.workers.values()
    process.kill()
    supervisor_.on_desired(desired(m=TrafficPlan("1", (Arm("2", 0.5),))))
    while ("m", "2") not in supervisor_._loadable:
        await asyncio.sleep(0)
        supervisor_._reconcile()
    assert worker.said.empty()
    assert process.loading is None
    worker.die(-9)
    await (await server.worker()).hears("load m 1")
    assert not supervisor_._quarantine.is_doubtful(("m", "2"), "")


async def test_a_worker_that_is_still_starting_needs_no_successor(start: Callable[..., Server]) -> None:
    server = start()
    await server.worker()
    for _ in range(20):
        server.supervisor._pool.look(1.0)
    await asyncio.sleep(0)
    assert server.started.empty()


async def test_a_silent_worker_gets_a_successor_before_it_is_killed(
    start: Callable[..., Server], pauses: list[float]
) -> None:
    server = start()
    worker = await server.serving()
    beat(server)
    for _ in range(5):
        server.supervisor._pool.look(1.0)
    spare = await server.worker()
    beat(server)
    server.supervisor._pool.look(1.0)
    assert spare.process.kills == 1  # it came round again
    for _ in range(5):
        server.supervisor._pool.look(1.0)
    spare = await server.worker()
    assert (spare.commands, worker.process.kills) == ([], 0)
    for _ in range(7):
        server.supervisor._pool.look(1.0)
    worker.die(-9)
    await spare.hears("load m 1")
    assert server.started.empty()


async def test_a_model_that_hangs_workers_is_kept_out(start: Callable[..., Server], pauses: list[float]) -> None:
    server = start()
    worker = await server.serving()
    for time in range(2):
        running = server.counters._versions["m", "1"][0].shared
        running.running_since_ns[0] = int((server.clock.now - 11) * 1e9)
        beat(server)
        for _ in range(12):
            server.supervisor._pool.look(1.0)
        assert worker.end_here.kill_cause == "silent"
        worker.die(-9)
        worker = await server.worker()
        if time == 0:
            await worker.hears("load m 1")
            worker.tell(loaded("m", "1"))
            await worker.hears("serve m:1", "listen")
            worker.tell(LISTENING, messages.ControlRequest(1, "Echo", b""))
            await worker.hears("controlreply")
    await worker.hears("listen")
    worker.tell(LISTENING, messages.ControlRequest(1, "Echo", b""))
    await worker.hears("controlreply")
    assert server.supervisor.view().not_ready_reason == (
        "no model can answer: model 'm' version 1 unavailable: is kept out until its files change: "
        "it ended a worker 2 times; the last time its run held up the whole worker for 11 s"
    )


@pytest.mark.parametrize("is_ready", [False, True])
async def test_a_worker_that_cannot_be_started_is_started_later(
    start: Callable[..., Server], pauses: list[float], is_ready: bool
) -> None:
    server = start()
    worker = await server.serving() if is_ready else await server.worker()
    make, failures = server.supervisor._pool._spare._start, 0

    async def refuse() -> WorkerProcess:
        nonlocal failures
        failures += 1
        if failures > 2 * HOPELESS_ENDS:
            return await make()
        raise OSError(24, "Too many open files")

    server.supervisor._pool._spare._start = refuse
    worker.die()
    if is_ready:
        await (await server.worker()).hears("load m 1")
    else:
        assert "Too many open files" in await server.failure()


async def test_a_round_that_fails_for_want_of_descriptors_is_made_again(
    start: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start(reconcile_s=0.01)
    make, failures = server.counters.version, 0

    def refuse(*arguments: Any) -> Path:
        nonlocal failures
        failures += 1
        if failures > 3:
            return make(*arguments)
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(server.counters, "version", refuse)
    await server.serving()
    assert failures == 4


async def test_a_worker_that_says_what_cannot_be_read_is_replaced(
    start: Callable[..., Server], pauses: list[float]
) -> None:
    server = start()
    worker = await server.serving()
    worker.reader.feed_data(messages.framed(messages.Listen("a command")))
    await (await server.worker()).hears("load m 1")
    assert worker.process.kills == 1


async def test_the_server_is_not_ready_before_every_source_has_answered(start: Callable[..., Server]) -> None:
    server = start()
    server.unanswered.append("mlflow https://registry")
    server.supervisor.on_desired(desired(m=TrafficPlan("1")))
    worker = await server.worker()
    await worker.hears("load m 1")
    worker.tell(loaded("m", "1"))
    await worker.hears("serve m:1")
    server.supervisor._reconcile()
    assert worker.said.empty()
    assert server.supervisor.view().not_ready_reason == "waiting for the first answer of mlflow https://registry"
    server.clock.now += supervisor.PATIENCE_S + 1  # what there is must not wait for ever
    server.supervisor._change.set()
    await worker.hears("listen")
    worker.tell(LISTENING, messages.ControlRequest(1, "Echo", b""))
    await worker.hears("controlreply")
    assert not server.supervisor.view().is_ready
    server.unanswered.clear()
    assert server.supervisor.view().is_ready


async def test_what_is_registered_and_not_served_is_told_to_workers(start: Callable[..., Server]) -> None:
    server = start()
    worker = await server.serving()
    server.supervisor.on_desired(Desired({"m": TrafficPlan("1")}, {"sk": "a scikit-learn model; run penstock publish"}))
    server.supervisor._reconcile()
    assert worker.routes["sk"].problem == "a scikit-learn model; run penstock publish"


async def test_how_a_champion_stands(start: Callable[..., Server]) -> None:
    server = start(workers=2)
    status = server.supervisor.champion_status
    with pytest.raises(NotFoundError, match=r"no source has a champion of model 'm'$"):
        status("m")
    server.supervisor.on_desired(Desired({"m": TrafficPlan(None)}, {"m": "a scikit-learn model"}))
    with pytest.raises(NotFoundError, match="no source has a champion of model 'm': a scikit-learn model"):
        status("m")
    server.supervisor.on_desired(desired(m=TrafficPlan("1")))
    await server.supervisor.act()
    assert status("m") == ("1", VersionStatus("LOADING", "its files are being fetched"))
    first, second = await server.worker(), await server.worker()
    for worker, is_last in ((first, False), (second, True)):
        await worker.hears("load m 1")
        worker.tell(loaded("m", "1"))
        await worker.hears("serve m:1", "listen")
        await server.supervisor.act()
        # READY only when whichever worker takes the next call answers.
        assert (status("m")[1].state == "READY") is is_last
    server.change_files(("m", "1"), "new files")
    await server.supervisor.act()
    assert status("m")[1].state == "LOADING"
    await first.hears("load m 1")
    first.tell(messages.LoadFailed("m", "1", "its digest is wrong"))
    while status("m")[1].state == "LOADING":
        await server.supervisor.next_round()
    assert "its digest is wrong" in status("m")[1].reason


async def test_a_version_whose_files_somebody_changed_is_fetched_tried_and_loaded_again(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start()
    model = tmp_path / "model.onnx"
    model.write_text("whole")

    async def fetch(model: str, version: str, identity: str) -> VersionFiles:
        return VersionFiles(tmp_path, identity)

    server.source.fetch = fetch  # type: ignore[method-assign]
    worker = await server.serving()
    worker.die()
    model.write_text("cut")
    replaced = await server.worker()
    await replaced.hears("load m 1")
    replaced.tell(messages.LoadFailed("m", "1", "its digest is wrong"))
    await replaced.hears("listen", "load m 1")
    assert server.tried == ["m 1", "m 1"]
    replaced.tell(loaded("m", "1"))
    await replaced.hears("serve m:1")


async def test_what_answered_before_is_fetched_again_with_the_files_that_answered(
    start: Callable[..., Server], tmp_path: Path
) -> None:
    server = start()
    model = tmp_path / "model.onnx"
    model.write_text("whole")
    asked: list[tuple[str, str]] = []

    async def fetch(model: str, version: str, identity: str) -> VersionFiles:
        asked.append((version, identity))
        return VersionFiles(tmp_path, identity)

    server.source.fetch = fetch  # type: ignore[method-assign]
    server.supervisor.on_desired(Desired({"m": TrafficPlan("1")}, {}, {"m": {"1": "good"}}))
    worker = await server.worker()
    await worker.hears("load m 1")
    worker.tell(loaded("m", "1"))
    await worker.hears("serve m:1", "listen")
    worker.tell(LISTENING)
    await asyncio.wait_for(server.supervisor.ready.wait(), TIMEOUT_S)
    worker.die()
    model.write_text("cut")
    server.held_back["m", "2"] = asyncio.Event()
    # Version 1 may have been registered anew, with files that nobody has promoted: the registry says nothing of it now.
    server.supervisor.on_desired(Desired({"m": TrafficPlan("2")}, {}, {"m": {"2": "next"}}))
    replaced = await server.worker()
    await replaced.hears("load m 1")
    replaced.tell(messages.LoadFailed("m", "1", "its digest is wrong"))
    await replaced.hears("load m 1")
    replaced.tell(loaded("m", "1"))
    await replaced.hears("serve m:1", "listen")
    assert asked == [("1", "good"), ("2", "next"), ("1", "good")]


LAZY = ResidencySettings(memory_budget_mib=100, pinned=("p",), stay_s=0.0)


async def lazy_server(start: Callable[..., Server], **more: Any) -> tuple[Server, FakeWorker]:
    """A server that loads model m and n, of 30 MiB each, when they are asked for, and has model p at once."""
    server = start(residency=LAZY, **more)
    for model in "mn":
        server.verdicts[model, "1"] = Verdict(batching="rows", memory_bytes=30 << 20)
    server.supervisor.on_desired(desired(m=TrafficPlan("1"), n=TrafficPlan("1"), p=TrafficPlan("1")))
    worker = await server.worker()
    await worker.hears("load p 1")
    worker.tell(loaded("p", "1"))
    await worker.hears("serve p:1", "listen")
    worker.tell(LISTENING)
    await asyncio.wait_for(server.supervisor.ready.wait(), TIMEOUT_S)
    for model in "mn":
        await fetched(server, model, "1")
    await server.supervisor.act()
    return server, worker


async def test_a_model_is_loaded_when_a_worker_asks_for_it_and_leaves_for_another(start: Callable[..., Server]) -> None:
    server, worker = await lazy_server(start)
    routes = worker.routes
    assert {name: (one.statuses["1"].state, one.is_on_call) for name, one in routes.items()} == {
        "m": ("STANDBY", True), "n": ("STANDBY", True), "p": ("READY", True),
    }  # fmt: skip
    worker.tell(messages.Wanted("m"))
    await worker.hears("load m 1")
    worker.tell(loaded("m", "1"))
    await worker.hears("serve m:1 p:1")
    server.resident_mib = 80
    server.clock.now += 1
    worker.tell(messages.Wanted("n"))
    # Its routes go first, so that calls that come from now on wait.
    await worker.hears("load n 1", "serve p:1", "unload m 1")
    worker.tell(loaded("n", "1"), messages.Unloaded("m", "1"))
    await worker.hears("serve n:1 p:1")
    assert {one.model: one.state for one in server.supervisor.view().versions} == {
        "m": "STANDBY", "n": "READY", "p": "READY",
    }  # fmt: skip
    totals = server.supervisor.residents.totals
    assert (totals.evictions["room"], totals.cold_starts["loaded"]) == (1, 2)


async def test_a_new_version_of_a_model_that_is_not_in_memory_is_proven_and_not_loaded(
    start: Callable[..., Server],
) -> None:
    server, worker = await lazy_server(start)
    server.supervisor.on_desired(desired(m=TrafficPlan("2"), n=TrafficPlan("1"), p=TrafficPlan("1")))
    await fetched(server, "m", "2")
    await server.supervisor.act()
    assert worker.said.empty()
    assert [one.version for one in server.supervisor.view().versions if one.model == "m"] == ["2"]
    worker.tell(messages.Wanted("m"))
    await worker.hears("load m 2")


async def test_a_server_that_can_load_a_shadow_alone_is_not_ready(start: Callable[..., Server]) -> None:
    server = start(residency=LAZY)
    server.verdicts["m", "1"] = Verdict("golden")
    server.supervisor.on_desired(desired(m=TrafficPlan("1", shadows=(ShadowArm("2"),))))
    worker = await server.worker()
    await worker.hears("listen")
    worker.tell(LISTENING)
    for version in "12":
        await fetched(server, "m", version)
    await server.supervisor.act()
    assert not server.supervisor.view().is_ready
    server.change_files(("m", "1"), "good")
    server.verdicts["m", "1"] = PASSED
    await asyncio.wait_for(server.supervisor.ready.wait(), TIMEOUT_S)


async def test_what_is_asked_for_is_tried_first(start: Callable[..., Server]) -> None:
    server = start(residency=LAZY)
    for model in "abcd":
        server.held_back[model, "1"] = asyncio.Event()
    server.supervisor.on_desired(desired(**{model: TrafficPlan("1") for model in "abcd"}))
    worker = await server.worker()
    await worker.hears("listen")
    while len(server.tried) < 2:  # noqa: ASYNC110 - there is no event for it
        await asyncio.sleep(0.001)
    tried = tuple(server.tried)
    server.supervisor.on_desired(desired(**{model: TrafficPlan("1") for model in "abcdm"}))
    while ("m", "1") not in server.supervisor._fetcher.artifacts:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    worker.tell(LISTENING, messages.Wanted("m"), messages.ControlRequest(1, "Echo", b""))
    await worker.hears("controlreply")
    await server.supervisor.act()
    for model in "abcd":
        if f"{model} 1" in tried:
            server.held_back[model, "1"].set()
    await worker.hears("load m 1")
    assert server.tried[2] == "m 1"


async def test_loading_a_model_by_name_has_all_workers_load_it(start: Callable[..., Server]) -> None:
    server, worker = await lazy_server(start)
    assert server.supervisor.champion_status("m")[1].state == "LOADING"
    server.supervisor.want("m")
    await worker.hears("load m 1")
    worker.tell(loaded("m", "1"))
    await worker.hears("serve m:1 p:1")
    await server.supervisor.act()
    assert server.supervisor.champion_status("m") == ("1", VersionStatus("READY"))
    assert server.supervisor.plans_in_force() == {"p": TrafficPlan("1"), "m": TrafficPlan("1")}


async def test_a_model_that_does_not_fit_says_so(start: Callable[..., Server]) -> None:
    server, worker = await lazy_server(start)
    server.verdicts["m", "2"] = Verdict(batching="rows", memory_bytes=90 << 20)
    server.supervisor.on_desired(desired(m=TrafficPlan("2"), p=TrafficPlan("1")))
    await fetched(server, "m", "2")
    worker.tell(messages.Wanted("m"), messages.ControlRequest(1, "Echo", b""))
    await worker.hears("controlreply")
    await server.supervisor.act()
    (version,) = (one for one in server.supervisor.view().versions if one.model == "m")
    assert (version.state, version.reason[:20]) == ("UNAVAILABLE", "needs about 90 MiB, ")
    assert not worker.routes["m"].is_on_call
