import time
import weakref
from typing import Any

import pytest

from penstock_server.prediction.scheduler import IDLE_S, BatchScheduler


class PuppetExecutor:
    """An executor of which the test says when it is due; each run takes one of its batches."""

    class servable:  # noqa: N801 - stands where an executor has its servable
        key = ("m", "1")

    def __init__(self, name: str, ran: list[str], batches: int = 1, due_s: float = 0.0, broken: bool = False) -> None:
        self.name, self.ran, self.batches, self.at_s, self.broken = name, ran, batches, due_s, broken
        self.watches = 0
        self.is_active = True

    def due_s(self) -> float:
        return self.at_s if self.batches else float("inf")

    def watch(self) -> None:
        self.watches += 1

    def run(self, now_s: float) -> None:
        self.batches -= 1
        self.ran.append(self.name)
        if self.broken:
            raise RuntimeError("a bug")


@pytest.fixture
def clock(fake_clock: Any) -> Any:
    return fake_clock(now=10.0)


def test_nothing_to_do_is_idle(clock: Any) -> None:
    assert BatchScheduler(clock).step() == IDLE_S


def test_each_step_shows_that_the_loop_runs(clock: Any) -> None:
    beat = [0]
    scheduler = BatchScheduler(clock, beat)
    before_ns = time.monotonic_ns()
    scheduler.step()
    (first,) = beat
    assert before_ns <= first <= time.monotonic_ns()
    scheduler.step()
    assert beat[0] > first


def test_every_executor_gets_one_batch_a_step(clock: Any) -> None:
    scheduler = BatchScheduler(clock)
    ran: list[str] = []
    for executor in (PuppetExecutor("busy", ran, batches=3), PuppetExecutor("calm", ran)):
        scheduler.activate(executor)  # type: ignore[arg-type]
    assert scheduler.step() == 0
    assert ran == ["busy", "calm"]
    assert scheduler.step() == 0
    assert scheduler.step() == IDLE_S
    assert ran == ["busy", "calm", "busy", "busy"]
    assert scheduler.step() == IDLE_S


@pytest.mark.parametrize(("due_s", "expected"), [(10.25, 0.25), (100.0, IDLE_S)])
def test_an_executor_that_waits_for_company_is_looked_at_in_time(clock: Any, due_s: float, expected: float) -> None:
    scheduler = BatchScheduler(clock)
    ran: list[str] = []
    scheduler.activate(PuppetExecutor("slow", ran, due_s=due_s))  # type: ignore[arg-type]
    assert scheduler.step() == expected
    assert ran == []
    clock.now = due_s
    assert scheduler.step() == IDLE_S
    assert ran == ["slow"]


def test_whoever_has_to_wait_is_watched(clock: Any) -> None:
    scheduler = BatchScheduler(clock)
    busy, calm, slow = (
        PuppetExecutor("busy", [], batches=2),
        PuppetExecutor("calm", []),
        PuppetExecutor("slow", [], due_s=99.0),
    )
    for executor in (busy, calm, slow):
        scheduler.activate(executor)  # type: ignore[arg-type]
    scheduler.step()
    assert [busy.watches, calm.watches, slow.watches] == [1, 0, 1]


def test_a_bug_in_one_executor_stops_no_other(clock: Any) -> None:
    scheduler = BatchScheduler(clock)
    ran: list[str] = []
    for executor in (PuppetExecutor("broken", ran, batches=2, broken=True), PuppetExecutor("fine", ran)):
        scheduler.activate(executor)  # type: ignore[arg-type]
    assert scheduler.step() == 0
    assert ran == ["broken", "fine"]
    scheduler.step()
    assert ran == ["broken", "fine", "broken"]
    assert scheduler.step() == IDLE_S


def test_an_executor_activates_itself_again_after_it_was_empty(
    clock: Any, executor_of: Any, fake_servable: Any, fake_call: Any
) -> None:
    from penstock_server.prediction.answerer import PendingRequest
    from penstock_server.prediction.decode import DecodedRows

    servable = fake_servable()
    scheduler = BatchScheduler(clock)
    executor = executor_of(servable, activate=scheduler.activate, clock=clock)
    for _ in range(2):
        call = fake_call()
        rows = DecodedRows((bytes(16),), 1)
        executor.submit(
            PendingRequest(executor, call, rows, arrived_s=10.0, deadline_s=99.0, request_id="", chosen=None)
        )
        assert scheduler.step() == IDLE_S
        assert call.is_over
    assert servable.runs == [1, 1]


def test_who_has_nothing_left_is_dropped_and_told(clock: Any) -> None:
    scheduler = BatchScheduler(clock)
    ran: list[str] = []
    busy, done = PuppetExecutor("busy", ran, batches=2), PuppetExecutor("done", ran)
    for executor in (busy, done):
        scheduler.activate(executor)  # type: ignore[arg-type]
    scheduler.step()
    assert (busy.is_active, done.is_active) == (True, False)
    scheduler.step()
    assert (ran, busy.is_active) == (["busy", "done", "busy"], False)


def test_an_executor_is_alone_when_no_other_has_run_for_a_while(clock: Any) -> None:
    scheduler = BatchScheduler(clock)
    one, other = PuppetExecutor("one", []), PuppetExecutor("other", [])
    told = [
        scheduler.is_alone(executor, now_s)  # type: ignore[arg-type]
        for executor, now_s in (
            (one, 1.0),
            (one, 1.05),
            (one, 1.11),
            (other, 1.2),
            (one, 1.25),
            (one, 1.3),
            (one, 1.36),
        )
    ]
    assert told == [False, False, True, False, False, False, True]


def test_whoever_shares_the_reactor_with_fused_lanes_is_not_alone(clock: Any) -> None:
    class Plain:
        has_run = False

        def step(self, now_s: float) -> bool:
            return False

    scheduler, plain, one = BatchScheduler(clock), Plain(), PuppetExecutor("one", [])
    scheduler.take_plain(plain)  # type: ignore[arg-type]
    for has_run, now_s, expected in ((False, 1.0, False), (False, 2.0, True), (True, 3.0, False), (False, 4.0, True)):
        plain.has_run = has_run
        scheduler.step()
        assert scheduler.is_alone(one, now_s) == expected  # type: ignore[arg-type]


def test_an_executor_that_is_gone_is_not_kept(clock: Any) -> None:
    scheduler, one = BatchScheduler(clock), PuppetExecutor("one", [])
    scheduler.is_alone(one, 1.0)  # type: ignore[arg-type]
    is_gone = weakref.finalize(one, lambda: None)
    del one
    assert not is_gone.alive
