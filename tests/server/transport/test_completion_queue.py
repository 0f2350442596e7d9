"""The clocks of the transports. What every transport does is in test_transports.py."""

import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from penstock_server.transport import aio
from penstock_server.transport.completion_queue import FAR_AWAY_S, CompletionQueueTransport, deadline_of
from penstock_server.transport.interface import IDLE_S, Methods
from penstock_server.transport.settings import TransportSettings

HOUR_S = 3600.0


class Clocks:
    """A monotonic clock that a test moves, and a wall clock that it sets; at a given moment the wall clock jumps."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.offset_s = 1e9
        self.jumps: list[tuple[float, float]] = []

    def monotonic(self) -> float:
        return self.now_s

    def wall(self) -> float:
        return self.now_s + self.offset_s

    def sleep(self, duration_s: float) -> None:
        self.now_s += duration_s
        for jump in [jump for jump in self.jumps if jump[0] <= self.now_s]:
            self.offset_s += jump[1]
            self.jumps.remove(jump)


class Queue:
    """The core's queue without events: `poll` takes a wall-clock deadline, and waits on the monotonic clock until then."""

    def __init__(self, clocks: Clocks) -> None:
        self._clocks = clocks
        self.polls = 0

    def poll(self, deadline_s: float) -> Any:
        self.polls += 1
        assert self.polls < 10_000, "the loop is busy"
        self._clocks.sleep(max(0.0, deadline_s - self._clocks.wall()))
        return SimpleNamespace(tag=None, completion_type=None)

    def shutdown(self) -> None:
        pass


class Scheduler:
    is_due = False

    def __init__(self, clocks: Clocks) -> None:
        self._clocks = clocks
        self.steps_s: list[float] = []
        self.until_s = clocks.now_s + 10.0
        self.end: Callable[[], None] = lambda: None

    def step(self) -> float:
        self.steps_s.append(self._clocks.now_s)
        if self._clocks.now_s >= self.until_s:
            self.end()
        return 1.0


@pytest.mark.parametrize("jump_s", [-HOUR_S, -1.0, 0.0, 1.0, HOUR_S, 24 * HOUR_S])
def test_a_jump_of_the_wall_clock_neither_delays_nor_hurries_the_loop(jump_s: float) -> None:
    clocks = Clocks()
    clocks.jumps = [(105.0, jump_s)]
    scheduler = Scheduler(clocks)
    transport = CompletionQueueTransport(
        Methods({}, {}), scheduler, TransportSettings(), monotonic=clocks.monotonic, wall=clocks.wall
    )
    queue = Queue(clocks)
    setattr(transport, "_queue", queue)  # noqa: B010 - the core's own waits on the clocks of this machine
    setattr(transport, "_close", lambda: None)  # noqa: B010
    scheduler.end = lambda: transport.drain(0.0)
    transport.run()
    pauses = [after - before for before, after in zip(scheduler.steps_s, scheduler.steps_s[1:], strict=False)]
    assert max(pauses) == pytest.approx(IDLE_S, rel=1e-3)
    assert queue.polls < 3 * 10.0 / IDLE_S


class Details:
    """A call's details: the deadline is on the monotonic clock, and converted to the wall clock when it is read."""

    def __init__(self, clocks: Clocks, after_s: float, at_reading: Callable[[], None]) -> None:
        self._clocks = clocks
        self._at_s = time.monotonic() + after_s
        self._at_reading = at_reading

    @property
    def deadline(self) -> float:
        deadline_s = self._at_s - time.monotonic() + self._clocks.wall()
        self._at_reading()
        return deadline_s


@pytest.mark.parametrize("jump_s", [-HOUR_S, HOUR_S])
def test_a_deadline_is_right_although_the_wall_clock_jumps_while_it_is_read(jump_s: float) -> None:
    clocks = Clocks()
    jumps: Iterator[float] = iter([jump_s])

    def jump() -> None:
        clocks.offset_s += next(jumps, 0.0)

    deadline_s = deadline_of(Details(clocks, 5.0, jump), wall=clocks.wall)
    assert deadline_s == pytest.approx(time.monotonic() + 5.0, abs=1.0)


class Context:
    """grpc.aio's context of a call, which subtracts the wall clock from a deadline on the wall clock."""

    def __init__(self, details: Details, clocks: Clocks) -> None:
        self._details = details
        self._clocks = clocks

    def time_remaining(self) -> float:
        return self._details.deadline - self._clocks.wall()


@pytest.mark.parametrize("jump_s", [-HOUR_S, HOUR_S])
def test_so_is_the_deadline_that_grpc_aio_gives(jump_s: float) -> None:
    clocks = Clocks()
    jumps: Iterator[float] = iter([jump_s])

    def jump() -> None:
        clocks.offset_s += next(jumps, 0.0)

    deadline_s = aio.deadline_of(Context(Details(clocks, 5.0, jump), clocks), wall=clocks.wall)
    assert deadline_s == pytest.approx(time.monotonic() + 5.0, abs=1.0)


def test_a_call_without_a_deadline_has_an_infinite_one() -> None:
    assert aio.deadline_of(SimpleNamespace(time_remaining=lambda: None)) == float("inf")
    assert deadline_of(SimpleNamespace(deadline=FAR_AWAY_S * 2)) == float("inf")
