import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock_server.control import messages, supervisor
from penstock_server.control.forwarding import ControlResponder
from penstock_server.control.supervisor import HOPELESS_ENDS, PAUSES_S, STEADY_S, Supervisor
from penstock_server.control.worker_process import WorkerProcess
from penstock_server.errors import InvalidInputError, PenstockError, UnavailableError
from penstock_server.metrics.store import CounterStore
from penstock_server.models.artifact import Artifact
from penstock_server.rollout.plan import TrafficPlan
from penstock_server.sources.source import Desired, VersionFiles
from tests.server.control.fake_worker import TIMEOUT_S, FakeWorker

LISTENING = messages.Listening("aio")


def desired(**plans: TrafficPlan) -> Desired:
    return Desired(dict(plans))


def loaded(model: str, version: str) -> messages.Loaded:
    return messages.Loaded(model, version, 0.1, True, 1.0, 0.1)


class FakeSource:
    def __init__(self) -> None:
        self.errors: dict[tuple[str, str], PenstockError] = {}

    async def fetch(self, model: str, version: str, identity: str) -> VersionFiles:
        if error := self.errors.get((model, version)):
            raise error
        return VersionFiles(Path("/versions", model, version), identity)


class Server:
    """A supervisor whose workers are the test's."""

    def __init__(self, counters: CounterStore, clock: Any, *, workers: int) -> None:
        self.clock = clock
        self.source = FakeSource()
        self.counters = counters
        self.started: asyncio.Queue[FakeWorker] = asyncio.Queue()
        self.supervisor = Supervisor(
            address="127.0.0.1:8001",
            workers=workers,
            start=self._start,
            source=self.source,
            counters=counters,
            responder=ControlResponder({"Echo": bytes.upper}),
            clock=clock,
        )
        self.running = asyncio.create_task(self.supervisor.run())

    async def _start(self, slot: int, counters: Path) -> WorkerProcess:
        assert counters == self.counters.slot(slot)
        worker = FakeWorker(slot)
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

    async def failure(self) -> str:
        with pytest.raises(UnavailableError) as found:
            await asyncio.wait_for(self.supervisor.failure(), TIMEOUT_S)
        return str(found.value)

    async def close(self) -> None:
        self.running.cancel()
        (ending,) = await asyncio.gather(self.running, return_exceptions=True)
        assert isinstance(ending, asyncio.CancelledError), ending


@pytest.fixture
def counters() -> Iterator[CounterStore]:
    with CounterStore() as store:
        yield store


@pytest.fixture
async def start(
    counters: CounterStore, fake_clock: Any, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Callable[..., Server]]:
    monkeypatch.setattr("penstock_server.control.fetcher.read", lambda folder: Artifact(folder, folder))
    servers: list[Server] = []

    def make(workers: int = 1) -> Server:
        servers.append(Server(counters, fake_clock(), workers=workers))
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

    monkeypatch.setattr("penstock_server.control.supervisor.asyncio.sleep", sleep)
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
    server.supervisor.on_desired(desired(m=TrafficPlan("2", "3", 0.1)))
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
    worker.tell(LISTENING)
    await asyncio.wait_for(server.supervisor.ready.wait(), TIMEOUT_S)
    view = server.supervisor.view()
    assert (view.is_ready, view.not_ready_reason) == (False, "the kernels are being compiled")
    assert [(each.model, each.state, each.reason) for each in view.versions] == [
        ("fares", "LOADING", "the kernels are being compiled")
    ]
    server.supervisor.on_desired(desired(fares=TrafficPlan("1"), plain=TrafficPlan("1")))
    await worker.hears("load plain 1")
    kernels.failure = kernels.reason = "numba is not installed"
    assert [each.reason for each in server.supervisor.view().versions] == ["numba is not installed", ""]
    kernels.failure, kernels.is_ready = "", True
    server.supervisor._change.set()
    await worker.hears("load fares 1")


async def test_statuses_travel_with_the_plans(start: Callable[..., Server]) -> None:
    server = start()
    worker = await server.serving()
    server.supervisor.on_desired(desired(m=TrafficPlan("1", "2")))
    await worker.hears("load m 2")
    worker.tell(messages.LoadFailed("m", "2", "its digest is wrong"))
    server.supervisor.on_desired(desired(m=TrafficPlan("1", "2", shadow="3")))
    await worker.hears("load m 3")
    worker.tell(loaded("m", "3"))
    await worker.hears("serve m:1")  # with the shadow
    statuses = worker.serves[-1].models["m"].statuses
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
    assert pending.models.keys() == {"m", "n"}
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
    server.supervisor.on_desired(desired(a=TrafficPlan("1"), b=TrafficPlan("1"), c=TrafficPlan("1")))
    worker = await server.worker()
    heard = {await asyncio.wait_for(worker.said.get(), TIMEOUT_S) for _ in range(2)}
    assert heard == {"load a 1", "load b 1"}
    worker.tell(loaded("a", "1"))
    await worker.hears("serve a:1")
    assert not server.supervisor.ready.is_set()
    worker.tell(messages.LoadFailed("b", "1", "no"))
    await worker.hears("listen")
    assert worker.serves[-1].is_settled
    server.supervisor._reconcile()
    assert worker.said.empty()  # it is told once, though it does not listen yet
    worker.tell(LISTENING)
    await asyncio.wait_for(server.supervisor.ready.wait(), TIMEOUT_S)
    # What is desired later is loaded while it goes on listening.
    server.supervisor.on_desired(desired(a=TrafficPlan("1", "2"), b=TrafficPlan("1")))
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


async def test_a_fetch_that_failed_is_tried_again(
    start: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "RECONCILE_S", 0.01)
    server = start()
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
    monkeypatch.setattr(supervisor, "KILL_AFTER_S", 0.01)
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
    server.supervisor.on_desired(desired(m=TrafficPlan("1", "2", 0.25)))
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
