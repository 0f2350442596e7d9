from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from penstock_server.batching.cost import Cost, CostModel
from penstock_server.batching.limits import BatchLimits
from penstock_server.batching.queue import BatchQueue
from tests.examples import examples


@dataclass(eq=False)
class Item:
    rows: int = 1
    deadline_s: float = inf
    arrived_s: float = 0.0
    is_over: bool = False
    priority: int = 5
    size_bytes: int = 0
    is_alone: bool = False
    is_waiting: bool = False


def without_probes(queue: BatchQueue[Item]) -> BatchQueue[Item]:
    """The queue with its last probe far from its end."""
    queue._probe_at_s = inf
    return queue


def queue_of(*items: Item, **limits: Any) -> BatchQueue[Item]:
    queue: BatchQueue[Item] = BatchQueue(BatchLimits(**limits))
    for item in items:
        assert queue.add(item)
    return queue


@pytest.mark.parametrize(
    ("rows", "max_rows", "expected"),
    [
        ([], 4, []),
        ([1, 1, 1], 4, [1, 1, 1]),
        ([1, 1, 1, 1, 1], 4, [1, 1, 1, 1]),
        ([3, 2], 4, [3]),
        ([3, 1, 1], 4, [3, 1]),
        ([9, 1], 4, [9]),
        ([1, 9], 4, [1]),
        ([0, 4, 0], 4, [0, 4, 0]),
    ],
)
def test_a_batch_is_the_longest_prefix_that_fits(rows: list[int], max_rows: int, expected: list[int]) -> None:
    queue = queue_of(*map(Item, rows), max_rows=max_rows)
    batch = queue.next_batch(0.0)
    assert [item.rows for item in batch.items] == expected
    assert batch.rows == sum(expected)
    assert (queue.rows, len(queue)) == (sum(rows) - sum(expected), len(rows) - len(expected))


def test_one_takes_one_request_whatever_its_rows() -> None:
    queue = queue_of(Item(1), Item(1))
    assert len(queue.next_batch(0.0, one=True).items) == 1
    assert len(queue) == 1


@pytest.mark.parametrize(
    ("waiting", "rows", "queue_rows", "is_taken"),
    [
        ([], 1, 4, True),
        ([3], 1, 4, True),
        ([4], 1, 4, False),
        ([3], 2, 4, False),
        ([], 9, 4, True),
        ([1], 9, 4, False),
    ],
)
def test_a_full_queue_refuses(waiting: list[int], rows: int, queue_rows: int, is_taken: bool) -> None:
    queue = queue_of(*map(Item, waiting), queue_rows=queue_rows)
    assert queue.add(Item(rows)) is is_taken
    assert queue.rows == sum(waiting) + rows * is_taken


@pytest.mark.parametrize(
    ("arrivals", "limits", "due_s"),
    [
        ([], {}, inf),
        ([], {"max_delay_s": 5.0}, inf),
        ([7.0], {}, 0.0),
        ([7.0, 8.0], {"max_delay_s": 5.0}, 12.0),
        ([7.0, 8.0], {"max_delay_s": 5.0, "max_rows": 2}, 0.0),
        ([7.0], {"max_delay_s": 5.0, "ready_rows": 2}, 12.0),
        ([7.0, 8.0], {"max_delay_s": 5.0, "ready_rows": 2}, 0.0),
        ([7.0, 8.0], {"max_delay_s": 5.0, "max_rows": 2, "ready_rows": 4}, 0.0),
    ],
)
def test_due(arrivals: list[float], limits: dict[str, Any], due_s: float) -> None:
    assert queue_of(*(Item(arrived_s=arrived_s) for arrived_s in arrivals), **limits).due_s() == due_s


def test_newest_first() -> None:
    items = [Item(), Item(), Item()]
    assert [list(level) for level in queue_of(*items).newest()] == [items[::-1]]


def test_who_passed_the_deadline_comes_back_apart() -> None:
    late, exact, early = Item(deadline_s=4.0), Item(deadline_s=5.0), Item(deadline_s=5.1)
    batch = queue_of(late, early, exact).next_batch(5.0)
    assert (batch.items, batch.expired, batch.rows) == ([early], [late, exact], 1)


def test_a_discarded_item_gives_its_rows_back_at_once() -> None:
    gone = Item(4)
    queue = queue_of(gone, queue_rows=4)
    assert not queue.add(Item())
    gone.is_over = True
    queue.discard(gone)
    assert queue.rows == 0
    assert queue.add(Item(4))
    assert [item.rows for item in queue.next_batch(0.0).items] == [4]


COST = Cost(1.0, 0.5)


@pytest.mark.parametrize(
    ("deadlines", "taken", "expired"),
    [
        ([9.0, 9.0, 9.0], 3, 0),
        ([2.1, 9.0, 9.0], 2, 0),  # a third would make the first late
        ([2.5, 9.0, 9.0], 2, 0),
        ([9.0, 9.0, 2.1], 2, 0),  # which still can go alone, for all that is known now
        ([9.0, 9.0, 2.5], 2, 0),
        ([1.5, 9.0, 9.0], 2, 1),  # too late even alone
        ([9.0, 1.4, 9.0], 2, 1),
    ],
)
def test_a_batch_ends_before_the_earliest_deadline(deadlines: list[float], taken: int, expired: int) -> None:
    queue: BatchQueue[Item] = BatchQueue(BatchLimits(), COST)
    for deadline_s in deadlines:
        queue.add(Item(deadline_s=deadline_s))
    batch = queue.next_batch(0.0)
    assert (len(batch.items), len(batch.expired)) == (taken, expired)


def test_with_an_objective_batches_are_small_enough_for_those_who_just_missed_one() -> None:
    queue: BatchQueue[Item] = BatchQueue(BatchLimits(objective_ms=6000.0), COST)
    for _ in range(9):
        queue.add(Item(deadline_s=99.0))
    assert queue.next_batch(0.0).rows == 4


@pytest.mark.parametrize("one", [False, True])
def test_in_time_counts_what_waits_before(one: bool) -> None:
    queue: BatchQueue[Item] = BatchQueue(BatchLimits(objective_ms=1e6), COST)
    for priority in (9, 9, 9, 5, 5, 1):
        queue.add(Item(priority=priority))
    # Run one by one, each request has the price of a batch.
    ends = ((9, 10.5), (5, 6.0), (3, 3.0), (1, 3.0)) if one else ((9, 4.5), (7, 3.0), (5, 3.0), (3, 2.0), (1, 2.0))
    for priority, end_s in ends:
        assert queue.admits(Item(deadline_s=end_s + 0.1, priority=priority), 0.0, one=one)
        assert not queue.admits(Item(deadline_s=end_s, priority=priority), 0.0, one=one)
        assert not queue.admits(Item(deadline_s=end_s + 0.1, priority=priority), 0.2, one=one)


def test_company_is_waited_for_only_while_the_batch_still_fits() -> None:
    queue: BatchQueue[Item] = BatchQueue(BatchLimits(max_rows=8, max_delay_s=100.0), COST)
    queue.add(Item(deadline_s=10.0))
    assert queue.due_s() == pytest.approx((10.0 - 1.5) / 2)
    queue.add(Item(deadline_s=20.0))
    assert queue.due_s() == pytest.approx((10.0 - 2.0) / 2)


class Interleavings(RuleBasedStateMachine):
    """Arrivals, cancellations, time and batches in any order, against a list of what should wait."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: BatchQueue[Item] = BatchQueue(BatchLimits(5, queue_rows=12, queue_requests=12, queue_mib=1))
        self.waiting: list[Item] = []
        self.now = 0.0

    @rule(rows=st.integers(0, 8), patience_s=st.sampled_from([0.5, 2.0, inf]), kib=st.integers(0, 400))
    def arrive(self, rows: int, patience_s: float, kib: int) -> None:
        item = Item(rows, self.now + patience_s, self.now, size_bytes=kib * 1024)
        if self.queue.add(item):
            self.waiting.append(item)
        else:
            living = sum(not waiting.is_over for waiting in self.waiting)
            too_large = self.living_bytes() + item.size_bytes > 1 << 20
            assert self.living_rows() + rows > 12 or living >= 12 or too_large

    @rule()
    def clear(self) -> None:
        assert self.queue.clear() == [item for item in self.waiting if not item.is_over]
        self.waiting = []

    @precondition(lambda self: any(not item.is_over for item in self.waiting))
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from([item for item in self.waiting if not item.is_over]))
        item.is_over = True
        self.queue.discard(item)

    @rule(passed_s=st.sampled_from([0.1, 1.0, 3.0]))
    def wait(self, passed_s: float) -> None:
        self.now += passed_s

    @rule(one=st.booleans())
    def take(self, one: bool) -> None:
        batch = self.queue.next_batch(self.now, one=one)
        taken = {id(item) for item in (*batch.items, *batch.expired)}
        assert len(taken) == len(batch.items) + len(batch.expired)  # none twice
        assert not any(item.is_over for item in (*batch.items, *batch.expired))
        assert all(item.deadline_s > self.now for item in batch.items)  # none late
        assert all(item.deadline_s <= self.now for item in batch.expired)
        living = [item for item in self.waiting if not item.is_over]
        prefix = [item for item in living if id(item) in taken]
        assert prefix == living[: len(prefix)]  # none overtaken
        assert batch.items == [item for item in prefix if item.deadline_s > self.now]  # order kept
        assert batch.rows == sum(item.rows for item in batch.items)
        assert batch.rows <= 5 or len(batch.items) == 1
        assert len(batch.items) <= 1 or not one
        assert batch.items or len(prefix) == len(living)  # nobody waits for nothing
        self.waiting = living[len(prefix) :]

    @invariant()
    def counts_what_waits(self) -> None:
        assert self.queue.rows == self.living_rows()
        assert self.queue.size_bytes == self.living_bytes()
        assert len(self.queue) == sum(not item.is_over for item in self.waiting)
        assert len(list(self.queue._levels)) - len(self.queue) == self.queue._discarded

    def living_bytes(self) -> int:
        return sum(item.size_bytes for item in self.waiting if not item.is_over)

    def living_rows(self) -> int:
        return sum(item.rows for item in self.waiting if not item.is_over)

    def teardown(self) -> None:
        while any(not item.is_over for item in self.waiting):
            before = len(self.waiting)
            self.take(one=False)
            assert len(self.waiting) < before  # none lost: the queue gives everything back in the end


Interleavings.TestCase.settings = examples(40)
TestInterleavings = Interleavings.TestCase


def test_requests_without_rows_fill_the_queue_too() -> None:
    queue: BatchQueue[Item] = BatchQueue(BatchLimits(queue_rows=3, queue_requests=3))
    items = [Item(rows=0, deadline_s=9.0, arrived_s=0.0) for _ in range(4)]
    assert [queue.add(item) for item in items] == [True, True, True, False]
    items[1].is_over = True
    queue.discard(items[1])
    assert queue.add(items[3])


def test_who_is_left_behind_waits_no_longer_than_before() -> None:
    gone = Item(arrived_s=8.5)
    queue = queue_of(*(Item(arrived_s=at) for at in (7.0, 8.0, 9.0)), gone, max_rows=2, max_delay_s=5.0)
    queue.discard(gone)
    assert len(queue.next_batch(9.0).items) == 2
    assert queue.due_s() == 14.0


def test_nobody_waits_for_company_beyond_half_of_the_time_left() -> None:
    queue: BatchQueue[Item] = BatchQueue(BatchLimits(max_rows=8, max_delay_s=1.0))
    queue.add(Item(rows=1, deadline_s=100.0, arrived_s=10.0))
    assert queue.due_s() == 11.0
    queue.add(Item(rows=1, deadline_s=10.6, arrived_s=10.2))
    assert queue.due_s() == pytest.approx(10.4)
    queue.next_batch(10.4)
    assert queue.due_s() == float("inf")


@given(arrivals=st.lists(st.floats(0, 10), min_size=1).map(sorted), delay_s=st.floats(0.001, 5))
def test_nobody_waits_for_company_longer_than_allowed(arrivals: list[float], delay_s: float) -> None:
    queue = queue_of(
        *(Item(arrived_s=at) for at in arrivals), max_delay_s=delay_s, max_rows=len(arrivals) + 1, queue_rows=1000
    )
    assert queue.due_s() == arrivals[0] + delay_s


FAST = Cost(0.001, 0.0001)
MAX_ROWS = 64
CAPACITY = MAX_ROWS / FAST.of(MAX_ROWS)
"""Rows per second."""


@dataclass
class Simulation:
    """A simulated executor under any load: exact costs, time that jumps from event to event.

    `is_aware`: the queue knows costs and refuses; otherwise it is first in, first out with deadlines alone.
    """

    is_aware: bool
    objective_ms: float | None = None

    def __post_init__(self) -> None:
        limits = BatchLimits(MAX_ROWS, queue_rows=100_000, objective_ms=self.objective_ms)
        self.queue: BatchQueue[Item] = without_probes(BatchQueue(limits))
        if self.is_aware:
            self.queue.cost = CostModel(FAST, MAX_ROWS)
        self.served: list[tuple[Item, float]] = []
        self.refused: list[Item] = []
        self.expired: list[Item] = []
        self.free_s = 0.0

    def run(self, items: list[Item]) -> None:
        for item in items:
            self.serve_until(item.arrived_s)
            is_welcome = not self.is_aware or self.queue.admits(item, item.arrived_s)
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
                self.free_s = start_s + FAST.of(batch.rows)
                self.served += [(item, self.free_s) for item in batch.items]

    @property
    def good_rows(self) -> int:
        return sum(item.rows for item, end_s in self.served if end_s <= item.deadline_s)


def offered(load: float, *, patience_s: float, span_s: float = 2.0) -> list[Item]:
    gap_s = 1 / (load * CAPACITY)
    return [Item(1, at * gap_s + patience_s, at * gap_s) for at in range(int(span_s / gap_s))]


@pytest.mark.long
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
    items = [Item(rows, at + patience_s, at, priority=priority) for at, patience_s, rows, priority in sorted(arrivals)]
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


def test_the_mib_that_may_wait_are_bounded() -> None:
    queue = queue_of(Item(size_bytes=1 << 19), Item(size_bytes=1 << 19), queue_mib=1)
    assert queue.add(Item(size_bytes=1)) is False
    assert queue.add(Item(size_bytes=0))


def test_a_message_larger_than_the_queue_is_taken_alone() -> None:
    queue = queue_of(Item(size_bytes=2 << 20), queue_mib=1)
    assert not queue.add(Item(size_bytes=1))


def test_making_room_keeps_what_waits_at_every_priority() -> None:
    high, gone, middle = Item(priority=1), Item(), Item()
    queue = queue_of(high, gone, queue_requests=2)
    gone.is_over = True
    queue.discard(gone)
    assert queue.add(middle)
    assert queue.next_batch(0.0).items == [high, middle]


def known(cost: Cost = COST, **limits: Any) -> BatchQueue[Item]:
    return BatchQueue(BatchLimits(**limits), cost)


def test_a_batch_owns_the_rows_of_its_items() -> None:
    items = [Item(2), Item(0), Item(3)]
    batch = queue_of(*items).next_batch(0.0)
    items[0].rows = 7
    assert (batch.counts, batch.rows) == ([2, 0, 3], 5)


def test_who_leaves_in_any_order_is_counted_out_once() -> None:
    gone, stays = Item(10, size_bytes=100), Item(1, size_bytes=1)
    queue = queue_of(gone, stays, max_rows=4)
    gone.is_over = True  # the transport noticed
    assert queue.next_batch(0.0).items == [stays]  # and the batch was taken
    assert not queue.discard(gone)  # before the queue was told
    assert (queue.rows, queue.requests, queue.size_bytes) == (0, 0, 0)


@pytest.mark.parametrize("priority", [1, 5, 9])
def test_what_was_cleared_counts_no_more(priority: int) -> None:
    items = [Item(10, priority=priority), Item(5, priority=priority)]
    queue = queue_of(*items)
    assert queue.clear() == items
    assert [queue.discard(item) for item in items] == [False, False]
    assert (queue.rows, queue.requests, queue.size_bytes, queue.is_idle) == (0, 0, 0, True)


def test_nobody_that_was_never_added_is_counted_out() -> None:
    queue = queue_of(Item(1), queue_rows=1)
    refused = Item(1)
    assert not queue.add(refused)
    assert not queue.discard(refused)
    assert queue.rows == 1


def test_who_left_takes_up_no_memory_for_long() -> None:
    queue = queue_of(Item(), queue_requests=4)
    for _ in range(1000):
        gone = Item(size_bytes=1)
        assert queue.add(gone)
        gone.is_over = True
        queue.discard(gone)
    assert len(list(queue._levels)) <= 70
    assert (queue.rows, queue.requests) == (1, 1)


def test_memory_is_taken_back_for_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    sweeps = []
    sweep = BatchQueue._sweep
    monkeypatch.setattr(BatchQueue, "_sweep", lambda queue: (sweeps.append(queue), sweep(queue)))
    stay = [Item() for _ in range(100)]
    queue = queue_of(*stay, max_rows=100)
    for _ in range(1000):
        gone = Item()
        assert queue.add(gone)
        queue.discard(gone)
    assert 0 < len(sweeps) < 1000 / 100
    assert len(list(queue._levels)) - len(queue) == queue._discarded
    assert queue.next_batch(0.0).items == stay


def test_without_anybody_waiting_nothing_is_due() -> None:
    gone = Item()
    queue = queue_of(gone, max_delay_s=3600.0)
    gone.is_over = True
    queue.discard(gone)
    assert (queue.due_s(), queue.is_idle) == (inf, True)


def test_in_a_hurry_nobody_waits_for_company() -> None:
    queue = queue_of(Item(arrived_s=7.0), max_delay_s=3600.0)
    queue.hurry()
    assert queue.due_s() == 0.0


HIGH = Cost(10.0, 5.0)
"""Ten times what a batch takes."""


def run_probe(queue: BatchQueue[Item], now_s: float, took_s: float = COST.of(1)) -> None:
    batch = queue.next_batch(now_s)
    assert batch.is_probe
    assert not queue.is_idle
    queue.ended(batch, now_s + took_s, took_s)


def test_a_line_too_high_heals_by_what_runs() -> None:
    queue = known(HIGH, objective_ms=4000.0)
    now_s, refused, probes = 0.0, 0, 0
    while True:
        item = Item(arrived_s=now_s, deadline_s=now_s + 4.0)
        if not queue.admits(item, now_s):
            refused += 1
        else:
            queue.add(item)
            batch = queue.next_batch(now_s)
            assert batch.items == [item]
            if not batch.is_probe:
                break
            probes += 1
            queue.ended(batch, now_s + COST.of(1), COST.of(1))
        now_s += 2.0
    assert probes < 20
    assert refused > 10 * probes


def test_a_callers_wish_moves_no_estimate() -> None:
    queue = known()
    for at in range(1000):
        item = Item(arrived_s=float(at), deadline_s=at + 1e-5)
        if queue.admits(item, float(at)):
            queue.add(item)
            run_probe(queue, float(at))
    assert queue.cost.of(64) == pytest.approx(COST.of(64))


def test_probes_take_a_twentieth_of_the_time() -> None:
    queue = known()
    assert queue.admits(Item(deadline_s=0.1), 0.0)
    queue.add(item := Item(deadline_s=0.1))
    queue._probe = item
    assert queue.probe_at_s == -inf
    batch = queue.next_batch(0.0)
    assert queue.probe_at_s == inf
    queue.ended(batch, 1.5, 1.5)
    assert queue.probe_at_s == 31.5
    assert not queue.admits(Item(deadline_s=31.4 + 0.1), 31.4)
    assert queue.admits(Item(deadline_s=31.5 + 0.1), 31.5)


def test_a_probe_needs_an_idle_queue() -> None:
    queue = known()
    late = Item(deadline_s=1.4)
    queue.add(Item())
    assert not queue.admits(late, 0.0)  # something waits
    batch = queue.next_batch(0.0)
    assert not queue.admits(late, 0.0)  # something runs
    assert not queue.admits(Item(deadline_s=2.1), 2.0)  # and should have ended at 1.5
    queue.ended(batch, 0.0, None)
    assert queue.is_idle
    assert queue.admits(late, 0.0)
    assert queue.cost.of(1) == COST.of(1)


def test_what_waits_and_runs_beside_the_queue_is_ahead() -> None:
    queue = known()
    item = Item(deadline_s=COST.of(1) * 4)
    assert queue.admits(item, 0.0)
    assert not queue.admits(item, 0.0, ahead_rows=1000)
    queue.set_busy_until(COST.of(1) * 3.5)
    assert not queue.admits(item, 0.0)
    queue.set_busy_until(-inf)
    assert queue.admits(item, 0.0)


def test_a_probe_runs_alone_and_after_its_deadline_too() -> None:
    queue = known()
    probe, next_one = Item(2, deadline_s=0.1), Item(deadline_s=99.0)
    assert queue.admits(probe, 0.0)
    queue.add(probe)
    queue.add(next_one)
    assert not queue.admits(Item(deadline_s=0.1), 0.0)
    batch = queue.next_batch(5.0)
    assert (batch.items, batch.counts, batch.rows, batch.is_probe) == ([probe], [2], 2, True)
    assert (queue.rows, len(queue)) == (1, 1)
    queue.ended(batch, 6.0, None)
    after = queue.next_batch(6.0)
    assert (after.items, after.expired) == ([next_one], [])
    assert queue.is_idle is False
    assert (queue.rows, len(queue)) == (0, 0)


def test_nobody_else_runs_to_learn_while_a_probe_does() -> None:
    queue = known()
    probe, late = Item(deadline_s=0.1), Item(deadline_s=1.2)
    assert queue.admits(probe, 0.0)
    queue.add(probe)
    assert queue.next_batch(0.0).is_probe
    queue.add(late)
    assert queue.next_batch(0.0).expired == [late]


def test_a_probe_whose_caller_left_is_none() -> None:
    queue = known()
    probe = Item(deadline_s=0.1)
    assert queue.admits(probe, 0.0)
    queue.add(probe)
    probe.is_over = True
    queue.discard(probe)
    assert queue.next_batch(0.0).items == []
    assert queue.is_idle


def test_a_probe_whose_caller_left_unnoticed_is_none() -> None:
    queue = known()
    probe = Item(deadline_s=0.1)
    assert queue.admits(probe, 0.0)
    queue.add(probe)
    probe.is_over = True
    batch = queue.next_batch(0.0)
    assert (batch.items, batch.expired, queue.is_idle) == ([], [], True)


def test_a_probe_that_was_cleared_runs_no_more() -> None:
    queue = known()
    probe = Item(deadline_s=0.1)
    assert queue.admits(probe, 0.0)
    queue.add(probe)
    assert queue.clear() == [probe]
    assert queue.next_batch(0.0).items == []


def test_a_queue_that_gives_everybody_up_runs_one_to_learn() -> None:
    queue = known()
    assert queue.admits(Item(deadline_s=9.0), 0.0)
    for _ in range(2):
        queue.add(Item(deadline_s=1.2))
    batch = queue.next_batch(0.0)
    assert (len(batch.items), len(batch.expired), batch.is_probe) == (1, 1, True)
    queue.ended(batch, 0.5, 0.5)
    assert queue.cost.of(1) < COST.of(1)
    queue.add(Item(deadline_s=1.2))
    assert len(queue.next_batch(0.5).expired) == 1  # not again so soon


def test_nobody_runs_to_learn_whose_deadline_passed() -> None:
    queue = known()
    queue.add(Item(deadline_s=1.2))
    batch = queue.next_batch(1.2)
    assert (len(batch.items), len(batch.expired)) == (0, 1)


@pytest.mark.parametrize("others", [[], [0.5]])
def test_what_gives_a_batch_needs_no_probe(others: list[float]) -> None:
    queue = known()
    for deadline_s in (*others, inf):
        queue.add(Item(deadline_s=deadline_s))
    assert not queue.next_batch(0.0).is_probe


def test_a_request_waits_for_the_batch_that_runs() -> None:
    queue = without_probes(known(objective_ms=1e6))
    queue.add(Item())
    batch = queue.next_batch(0.0)  # until 1.5
    assert not queue.admits(Item(deadline_s=3.0), 0.0)
    assert queue.admits(Item(deadline_s=3.1), 0.0)
    assert not queue.admits(Item(deadline_s=3.1), 1.7)
    queue.ended(batch, 0.0, None)
    assert queue.admits(Item(deadline_s=1.6), 0.0)
    assert not queue.admits(Item(deadline_s=1.4), 0.0)


def test_the_first_deadline_is_judged_by_the_batch_that_runs_too() -> None:
    queue = without_probes(known())
    queue.add(Item())
    queue.next_batch(0.0)  # until 1.5
    assert queue.admits(Item(deadline_s=4.4), 0.0) is False
    assert queue.admits(Item(deadline_s=4.5), 0.0) is True


def test_nobody_waits_for_who_left() -> None:
    queue = without_probes(known(objective_ms=1e6))
    gone, stays = Item(3, priority=1), Item(priority=1)
    assert queue.add(gone)
    assert queue.add(stays)
    queue.discard(gone)
    assert queue.admits(Item(priority=1, deadline_s=2.1), 0.0)
    assert not queue.admits(Item(priority=1, deadline_s=2.0), 0.0)


def test_who_goes_first_waits_for_nobody_of_the_default_priority() -> None:
    queue = without_probes(known(objective_ms=1e6))
    for _ in range(4):
        queue.add(Item())
    assert queue.admits(Item(priority=1, deadline_s=1.6), 0.0)
    assert not queue.admits(Item(deadline_s=1.6), 0.0)


def test_an_empty_batch_keeps_nobody_waiting() -> None:
    queue = without_probes(known(objective_ms=1e6))
    assert queue.is_idle
    queue.add(Item(is_over=True))
    assert queue.next_batch(0.0).items == []
    assert queue.is_idle
    assert queue.admits(Item(deadline_s=1.6), 0.0)


def ran(queue: BatchQueue[Item], took_s: float | None) -> None:
    queue.add(Item())
    queue.ended(queue.next_batch(0.0), 0.0, took_s)


def test_costs_are_learned_once_a_request_has_a_deadline() -> None:
    queue = known()
    ran(queue, 4.0)
    assert queue.cost.of(1) == COST.of(1)
    queue.admits(Item(deadline_s=9.0), 0.0)
    ran(queue, None)
    assert queue.cost.of(1) == COST.of(1)
    ran(queue, 4.0)
    assert queue.cost.of(1) > COST.of(1)


def test_costs_are_learned_for_an_objective() -> None:
    queue = known(objective_ms=1e6)
    ran(queue, 4.0)
    assert queue.cost.of(1) > COST.of(1)


def test_a_request_larger_than_a_batch_runs_alone() -> None:
    queue = without_probes(known(max_rows=4, objective_ms=1e6))
    assert queue.admits(Item(9, deadline_s=5.6), 0.0)
    assert not queue.admits(Item(9, deadline_s=5.5), 0.0)


def test_the_largest_batch_takes_half_of_the_objective() -> None:
    assert known(objective_ms=7000.0, max_rows=64).largest_rows == 5
    assert known(max_rows=64).largest_rows == 64


def test_without_an_objective_half_of_the_deadline_is_left_to_others() -> None:
    queue = known(max_rows=1)
    queue.add(Item())  # 1.5 ahead of it
    assert queue.admits(Item(deadline_s=4.5), 0.0)
    assert not queue.admits(Item(deadline_s=4.4), 0.0)


def test_what_a_batch_took_keeps_its_rows() -> None:
    taken, waits = Item(2), Item(3)
    queue = queue_of(taken, waits, max_rows=2)
    queue.next_batch(0.0)
    taken.is_over = True
    queue.discard(taken)
    assert (taken.rows, queue.rows) == (2, 3)


def test_clear_empties_every_level() -> None:
    queue = queue_of(Item(), Item(priority=1), Item(priority=9, is_over=True))
    assert len(queue.clear()) == 2
    assert (len(queue), queue.rows, queue.size_bytes, queue.due_s()) == (0, 0, 0, inf)


@pytest.mark.parametrize(
    ("objective_ms", "one", "others", "ahead", "deadline_s", "is_given_up"),
    [
        (None, False, 4, 0, 2.5, False),
        (6000.0, False, 4, 0, 2.5, True),
        (6000.0, True, 4, 0, 2.5, False),
        (6000.0, False, 3, 0, 2.5, False),
        (6000.0, False, 4, 1, 2.5, True),
        (6000.0, False, 4, 0, 3.0, True),
        (6000.0, False, 4, 0, 3.1, False),
    ],
)
def test_only_an_objective_gives_up_who_would_keep_a_full_batch_small(
    objective_ms: float | None, one: bool, others: int, ahead: int, deadline_s: float, is_given_up: bool
) -> None:
    queue = known(max_rows=4, objective_ms=objective_ms)
    late = Item(deadline_s=deadline_s)  # a full batch takes 3
    items = [Item(deadline_s=99.0) for _ in range(others)]
    for item in (*items[:ahead], late, *items[ahead:]):
        queue.add(item)
    batch = queue.next_batch(0.0, one=one)
    assert batch.expired == [late] * is_given_up
    assert (late in batch.items) is not is_given_up


@given(alone=st.lists(st.booleans(), max_size=12), max_rows=st.integers(1, 4))
def test_who_is_alone_shares_no_batch_and_keeps_its_turn(alone: list[bool], max_rows: int) -> None:
    items = [Item(is_alone=is_alone) for is_alone in alone]
    queue = queue_of(*items, max_rows=max_rows)
    batches = []
    while queue.requests:
        batches.append(queue.next_batch(0.0).items)
    assert [item for batch in batches for item in batch] == items
    assert all(len(batch) == 1 for batch in batches for item in batch if item.is_alone)
    # The others are joined as far as they stand side by side.
    for one, next_one in pairwise(batches):
        assert len(one) == max_rows or one[0].is_alone or next_one[0].is_alone
