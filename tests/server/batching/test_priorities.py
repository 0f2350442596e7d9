from dataclasses import dataclass
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.batching.limits import BatchLimits
from penstock_server.batching.priorities import DEFAULT, HIGHEST, LEVEL_S, LOWEST, PriorityLevels
from penstock_server.batching.queue import BatchQueue


@dataclass(eq=False)
class Item:
    priority: int = DEFAULT
    arrived_s: float = 0.0
    rows: int = 1
    deadline_s: float = inf
    is_over: bool = False
    size_bytes: int = 0
    is_alone: bool = False
    is_waiting: bool = False


def served(items: list[Item], max_rows: int = 3) -> list[Item]:
    queue: BatchQueue[Item] = BatchQueue(BatchLimits(max_rows=max_rows))
    for item in items:
        assert queue.add(item)
    order = []
    while len(queue):
        order += queue.next_batch(0.0).items
    assert queue.rows == 0
    return order


@pytest.mark.parametrize(
    ("arrivals", "expected"),
    [
        ([5, 5, 5], [0, 1, 2]),
        ([5, 1, 5, 1], [1, 3, 0, 2]),
        ([9, 5, 1], [2, 1, 0]),
        ([9, 9, 8], [2, 0, 1]),
        ([1, 9, 1], [0, 2, 1]),
    ],
)
def test_higher_first_and_in_order_within_one(arrivals: list[int], expected: list[int]) -> None:
    items = [Item(priority) for priority in arrivals]
    assert served(items) == [items[at] for at in expected]


def test_nobody_is_passed_over_for_ever() -> None:
    low = Item(LOWEST)
    span_s = (LOWEST - HIGHEST) * LEVEL_S
    early, late = Item(HIGHEST, arrived_s=span_s - 0.1), Item(HIGHEST, arrived_s=span_s + 0.1)
    assert served([low, early, late]) == [early, low, late]


@given(
    st.lists(st.tuples(st.integers(HIGHEST, LOWEST), st.floats(0, 20)), max_size=40).map(
        lambda pairs: sorted(pairs, key=lambda pair: pair[1])
    ),
    st.integers(1, 8),
)
def test_all_are_served_once_by_rank(pairs: list[tuple[int, float]], max_rows: int) -> None:
    items = [Item(priority, at) for priority, at in pairs]
    order = served(items, max_rows)
    assert sorted(map(id, order)) == sorted(map(id, items))
    ranks = [item.arrived_s + item.priority * LEVEL_S for item in order]
    assert ranks == sorted(ranks)
    for priority in range(HIGHEST, LOWEST + 1):
        assert [i for i in order if i.priority == priority] == [i for i in items if i.priority == priority]


def test_who_left_counts_no_more_at_any_level() -> None:
    queue: BatchQueue[Item] = BatchQueue(BatchLimits(queue_rows=3, queue_requests=3))
    items = [Item(1), Item(5), Item(9)]
    assert all(map(queue.add, items))
    for item in items[::2]:
        item.is_over = True
        assert queue.discard(item)
        assert not queue.discard(item)
    assert (queue.rows, len(queue)) == (1, 1)
    more = Item(1)
    assert queue.add(more)
    assert (queue.rows, len(queue)) == (2, 2)
    assert queue.next_batch(0.0).items == [more, items[1]]
    assert queue.add(Item(9))
    assert len(queue.clear()) == 1
    assert (queue.rows, len(queue)) == (0, 0)


def levels_of(*items: Item) -> PriorityLevels[Item]:
    levels: PriorityLevels[Item] = PriorityLevels()
    for item in items:
        levels.add(item)
    return levels


@pytest.mark.parametrize(
    ("priority", "ahead"),
    [(1, (1, 1)), (4, (1, 1)), (5, (3, 3)), (6, (3, 3)), (7, (7, 4)), (8, (7, 4)), (9, (15, 5))],
)
def test_ahead_are_those_of_the_same_and_of_higher_priorities(priority: int, ahead: tuple[int, int]) -> None:
    levels = levels_of(Item(1, rows=1), Item(5, rows=2), Item(5, rows=0), Item(7, rows=4), Item(9, rows=8))
    assert levels.ahead(priority, 15, 5) == ahead


def test_who_does_not_count_is_ahead_of_nobody() -> None:
    first, second = Item(7, rows=2), Item(7, rows=4)
    levels = levels_of(first, second)
    levels.uncount(first)
    assert levels.ahead(9, 4, 1) == levels.ahead(7, 4, 1) == (4, 1)
    assert levels.ahead(5, 4, 1) == (0, 0)
    assert [list(level) for level in levels.newest()] == [[], [second, first]]


def test_an_empty_level_is_gone() -> None:
    one = Item(9)
    levels = levels_of(one, Item())
    assert len(list(levels)) == 2
    levels.others[9].items.popleft()
    levels.popped(one)
    assert levels.others == {}
    assert levels.first() is levels.default


def test_what_is_cleared_is_gone_at_every_level() -> None:
    levels = levels_of(Item(9), Item(), Item(1))
    levels.clear()
    assert list(levels) == []
    assert levels.first() is levels.default


@pytest.mark.parametrize("priorities", [(1, 2), (2, 1), (4, 5), (5, 4), (5, 9), (9, 5), (3, 2, 1), (1, 2, 3)])
def test_of_equal_ranks_the_higher_priority_goes_first(priorities: tuple[int, ...]) -> None:
    levels: PriorityLevels[Item] = PriorityLevels()
    # As much earlier as its priority is lower, so that all have waited equally.
    for priority in priorities:
        levels.add(Item(priority, arrived_s=-priority * LEVEL_S))
    assert levels.first()[0].priority == min(priorities)
