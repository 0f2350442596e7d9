from typing import Any

import numpy as np
import pytest

from penstock_server.features.cells import ClassCells, Grouping, JointCells, NumberCells
from penstock_server.features.joint import JointCounter
from penstock_server.features.pipeline import Refusal
from penstock_server.models.servable import Outputs
from penstock_server.prediction.joint_sampler import INTERVAL_NS, TIMES, JointSampler, joint_sampler
from penstock_server.prediction.outputs import Largest, OutputReader
from penstock_server.prediction.work import Work

X = Grouping("x", NumberCells((0.0,)), (0, 1, -1, -1, -1), 2)
Y = Grouping("y", NumberCells((0.0,)), (0, 1, -1, -1, -1), 2)
ANSWER = Grouping("", ClassCells((0, 1)), (0, 1, -1, -1, -1), 2)
CELLS = JointCells((X, Y, ANSWER), ((0, 1), (0, 2)))


class FakeServable:
    """Takes blocks as its pipeline counts them."""

    counted_columns: Any = None

    def counted(self, blocks: Any, rows: int) -> Any:
        assert len(blocks[0]) == 16 * rows
        return blocks[0], blocks[1:]


class Clock:
    """Counting takes `took_ns`: it is asked before and after."""

    def __init__(self) -> None:
        self.now_ns = 1_000
        self.took_ns = 0

    def __call__(self) -> int:
        self.now_ns += self.took_ns
        return self.now_ns


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def counts() -> Any:
    return np.zeros(CELLS.words, np.int64)


@pytest.fixture
def sampler(clock: Clock, counts: Any) -> JointSampler:
    counter = JointCounter(CELLS, numbers=("x", "y"), times=(), strings=(), counts=counts)
    servable: Any = FakeServable()
    return JointSampler(servable, counter, clock_ns=clock, fraction=lambda: 0.5)


BLOCKS = [np.array([[-1.0, 1.0], [1.0, 1.0]]).tobytes()]


def test_the_first_batch_is_counted_and_then_one_after_the_interval(
    sampler: JointSampler, clock: Clock, counts: Any
) -> None:
    assert sampler.is_due
    sampler.count(BLOCKS, 2, np.array([0, 1]))
    assert counts.tolist() == [2, 0, 1, 0, 1, 1, 0, 0, 1]
    assert not sampler.is_due
    assert sampler.due_ns[0] == clock.now_ns + INTERVAL_NS
    clock.now_ns += INTERVAL_NS - 1
    assert not sampler.is_due
    clock.now_ns += 1
    assert sampler.is_due


def test_counting_takes_half_a_percent_of_the_time(sampler: JointSampler, clock: Clock) -> None:
    clock.took_ns = INTERVAL_NS // 10
    sampler.count(BLOCKS, 2, None)
    assert sampler.due_ns[0] == clock.now_ns + TIMES * clock.took_ns


def test_answers_that_are_not_one_per_row_are_left_out(sampler: JointSampler, counts: Any) -> None:
    sampler.count(BLOCKS, 2, np.array([1]))
    assert counts.tolist() == [2, 0, 1, 0, 1, 0, 0, 0, 0]


def test_no_rows_are_nothing(sampler: JointSampler, counts: Any) -> None:
    sampler.count([b""], 0, np.array([]))
    assert not counts.any()
    assert not sampler.is_due


@pytest.mark.parametrize(("is_repeat", "is_refused", "rows"), [(False, False, 2), (True, False, 0), (False, True, 0)])
def test_a_batch_that_ran_is_counted_with_its_classes(
    sampler: JointSampler, clock: Clock, counts: Any, is_repeat: bool, is_refused: bool, rows: int
) -> None:
    refusal = Refusal(np.array([-1, 0]), ("is odd",)) if is_refused else None
    outputs = Outputs([np.array([[0.9, 0.1], [0.2, 0.8]])], 0.0, 0.0, refusal)
    servable: Any = FakeServable()
    work = Work(servable, BLOCKS, 2, None, None, is_repeat)
    for _ in range(2):  # the second comes too soon
        sampler.sample(work, outputs, OutputReader(Largest(0), 0))
    assert counts[0] == rows
    assert counts.tolist()[5:] == ([1, 0, 0, 1] if rows else [0] * 4)
    # Counted or not, the next is due later: kernels leave each batch to Python that comes while one is due.
    assert sampler.due_ns[0] == clock.now_ns + INTERVAL_NS


def test_a_version_whose_columns_are_not_counted_has_none(counts: Any) -> None:
    servable: Any = FakeServable()
    assert joint_sampler(servable, CELLS, counts) is None
