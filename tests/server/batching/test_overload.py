"""A simulated executor under more load than it can serve: exact costs, time that jumps from event to event."""

from dataclasses import dataclass
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.batching.cost import Cost, CostModel
from penstock_server.batching.limits import BatchLimits
from penstock_server.batching.queue import BatchQueue

COST = Cost(0.001, 0.0001)
MAX_ROWS = 64
CAPACITY = MAX_ROWS / COST.of(MAX_ROWS)
"""Rows a second."""


@dataclass(eq=False)
class Item:
    arrived_s: float
    deadline_s: float
    rows: int = 1
    priority: int = 5
    is_over: bool = False
    size_bytes: int = 0


class Exact(CostModel):
    """Never doubts."""

    def doubt(self) -> None:
        pass


@dataclass
class Simulation:
    """`is_aware`: the queue knows costs and refuses; otherwise it is first in, first out with deadlines alone."""

    is_aware: bool
    objective_ms: float | None = None

    def __post_init__(self) -> None:
        limits = BatchLimits(MAX_ROWS, queue_rows=100_000, objective_ms=self.objective_ms)
        self.queue: BatchQueue[Item] = BatchQueue(limits)
        if self.is_aware:
            self.queue.cost = Exact(COST, MAX_ROWS)
        self.served: list[tuple[Item, float]] = []
        self.refused: list[Item] = []
        self.expired: list[Item] = []
        self.free_s = 0.0

    def run(self, items: list[Item]) -> None:
        for item in items:
            self.serve_until(item.arrived_s)
            is_welcome = not self.is_aware or self.queue.is_in_time(item, max(item.arrived_s, self.free_s))
            if is_welcome:
                assert self.queue.add(item)
            else:
                self.refused.append(item)
        self.serve_until(inf)

    def serve_until(self, until_s: float) -> None:
        while len(self.queue):
            oldest_s = min(item.arrived_s for level in self.queue.newest() for item in [*level][-1:])
            start_s = max(self.free_s, oldest_s)
            if start_s >= until_s:
                return
            batch = self.queue.next_batch(start_s)
            self.expired += batch.expired
            if batch.items:
                self.free_s = start_s + COST.of(batch.rows)
                self.served += [(item, self.free_s) for item in batch.items]

    @property
    def good_rows(self) -> int:
        return sum(item.rows for item, end_s in self.served if end_s <= item.deadline_s)


def offered(load: float, *, patience_s: float, span_s: float = 2.0) -> list[Item]:
    gap_s = 1 / (load * CAPACITY)
    return [Item(at * gap_s, at * gap_s + patience_s) for at in range(int(span_s / gap_s))]


@pytest.mark.parametrize("objective_ms", [None, 20.0])
def test_goodput_stays_flat_beyond_saturation(objective_ms: float | None) -> None:
    def goodput(*, is_aware: bool) -> float:
        simulation = Simulation(is_aware, objective_ms)
        simulation.run(offered(2.0, patience_s=0.02))
        return simulation.good_rows / (2.0 * CAPACITY)

    assert goodput(is_aware=True) >= 0.9
    assert goodput(is_aware=False) < 0.3


@pytest.mark.parametrize("load", [0.1, 0.5, 0.8])
def test_below_saturation_everybody_is_served(load: float) -> None:
    simulation = Simulation(is_aware=True, objective_ms=20.0)
    items = offered(load, patience_s=0.02)
    simulation.run(items)
    assert simulation.good_rows == len(items)


@given(
    st.lists(
        st.tuples(st.floats(0, 0.03), st.floats(0.0005, 0.03), st.integers(0, 80), st.integers(1, 9)), max_size=80
    ),
    st.sampled_from([None, 5.0, 20.0]),
)
def test_none_lost_none_twice_none_late(
    arrivals: list[tuple[float, float, int, int]], objective_ms: float | None
) -> None:
    items = [Item(at, at + patience_s, rows, priority) for at, patience_s, rows, priority in sorted(arrivals)]
    simulation = Simulation(is_aware=True, objective_ms=objective_ms)
    simulation.run(items)
    ended = [item for item, _ in simulation.served] + simulation.refused + simulation.expired
    assert sorted(map(id, ended)) == sorted(map(id, items))
    assert all(end_s <= item.deadline_s + 1e-9 for item, end_s in simulation.served)
    assert simulation.queue.rows == 0


def test_high_priorities_are_served_under_overload() -> None:
    items = offered(2.0, patience_s=0.02)
    for item in items[::4]:
        item.priority = 1
    simulation = Simulation(is_aware=True, objective_ms=20.0)
    simulation.run(items)
    good = [item.priority for item, _ in simulation.served]
    assert good.count(1) >= 0.95 * len(items[::4])
    assert len(good) >= 0.8 * 2.0 * CAPACITY
