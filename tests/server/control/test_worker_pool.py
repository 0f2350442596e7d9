"""The pool alone; `test_supervisor` has what shows only together with what workers serve."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from penstock_server.control import messages, worker_pool
from penstock_server.control.quarantine import Quarantine
from penstock_server.control.settings import WatchdogSettings
from penstock_server.control.worker_pool import WorkerPool
from penstock_server.control.worker_process import WorkerProcess
from penstock_server.metrics.store import CounterStore
from tests.server.control.fake_worker import TIMEOUT_S, FakeWorker


class Pool:
    """A pool whose workers are the test's."""

    def __init__(self, counters: CounterStore, clock: Any) -> None:
        self.clock = clock
        self.errors: list[BaseException] = []
        self.started: asyncio.Queue[FakeWorker] = asyncio.Queue()
        self.failures: list[str] = []
        self.pool = WorkerPool(
            1,
            start=self._start,
            counters=counters,
            quarantine=Quarantine(clock),
            limits=WatchdogSettings(),
            on_event=lambda _worker, _event: None,
            changed=lambda: None,
            was_ready=lambda: True,
            fail=self.failures.append,
            look_s=0.001,
            clock=clock,
        )
        self.running = asyncio.create_task(self._run())

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            self.pool.run_in(tasks)

    async def _start(self) -> WorkerProcess:
        if self.errors:
            raise self.errors.pop()
        worker = FakeWorker()
        self.started.put_nowait(worker)
        return worker.end_here

    async def worker(self) -> FakeWorker:
        return await asyncio.wait_for(self.started.get(), TIMEOUT_S)


@pytest.fixture
def new_pool(fake_clock: Any) -> Iterator[Callable[[], Pool]]:
    with CounterStore() as counters:
        yield lambda: Pool(counters, fake_clock())


async def ended(pool: Pool) -> None:
    pool.running.cancel()
    await asyncio.gather(pool.running, return_exceptions=True)


async def no_pause(_seconds: float) -> None:
    await asyncio.sleep(0)


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), MemoryError()])
async def test_a_worker_that_cannot_be_started_is_started_later(
    new_pool: Callable[[], Pool], monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    monkeypatch.setattr(worker_pool, "pause", no_pause)
    pool = new_pool()
    pool.errors = [error] * 10
    worker = await pool.worker()
    await asyncio.sleep(0)
    assert isinstance(worker.commands[0], messages.Start)
    assert pool.failures == []
    await ended(pool)


async def test_a_drain_ends_in_time_whatever_hangs(
    new_pool: Callable[[], Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_pool, "KILL_AFTER_S", 0.01)
    pool = new_pool()
    worker = await pool.worker()
    await asyncio.sleep(0)
    was_cancelled = asyncio.Event()

    async def never_ends() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            was_cancelled.set()
            raise

    await asyncio.wait_for(pool.pool.drain(0.0, never_ends()), TIMEOUT_S)
    await asyncio.wait_for(was_cancelled.wait(), TIMEOUT_S)
    assert worker.process.kills == 1
    await ended(pool)


async def test_a_machine_that_slept_costs_no_worker(
    new_pool: Callable[[], Pool], monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: asyncio.Queue[float] = asyncio.Queue()
    monkeypatch.setattr(WorkerPool, "look", lambda _pool, step_s: steps.put_nowait(step_s))
    pool = new_pool()

    async def next_step(condition: Callable[[float], bool]) -> float:
        while not condition(step := await steps.get()):
            pass
        return step

    assert await asyncio.wait_for(steps.get(), TIMEOUT_S) == 0.0
    pool.clock.now += 3600.0
    assert await asyncio.wait_for(next_step(lambda step: step > 0), TIMEOUT_S) == 0.002
    await ended(pool)


async def test_a_watchdog_that_fails_looks_again(new_pool: Callable[[], Pool], monkeypatch: pytest.MonkeyPatch) -> None:
    looks: asyncio.Queue[None] = asyncio.Queue()

    def look(_pool: WorkerPool, _step_s: float) -> None:
        looks.put_nowait(None)
        raise RuntimeError("a bug")

    monkeypatch.setattr(WorkerPool, "look", look)
    pool = new_pool()
    for _ in range(3):
        await asyncio.wait_for(looks.get(), TIMEOUT_S)
    await ended(pool)
