from collections.abc import Callable

import numpy as np
import pytest

from penstock_server.drift.joint_window import PARTS, JointWindow
from penstock_server.metrics.counters import CountersShape, SharedCounters

NewCounters = Callable[..., SharedCounters]
SHAPE = CountersShape(1, 7, joint=3)
ROWS = 100


class Story:
    """Two workers and a window of 100 rows."""

    def __init__(self, new_counters: NewCounters) -> None:
        self.workers = [new_counters(SHAPE), new_counters(SHAPE)]
        self.window = JointWindow(3, ROWS, window_s=60.0)

    def add(self, rows: int, now_s: float, worker: int = 0) -> None:
        self.workers[worker].joint[:] += np.array([rows, rows - 1, 1])
        self.window.look(self.workers, now_s)

    @property
    def total(self) -> list[int]:
        found: list[int] = self.window.parts.sum(axis=0).tolist()
        return found


@pytest.fixture
def story(new_counters: NewCounters) -> Story:
    return Story(new_counters)


def test_it_is_over_all_workers(story: Story) -> None:
    story.add(5, 1.0)
    story.add(6, 2.0, worker=1)
    assert story.total == [11, 9, 2]
    story.window.look(story.workers, 3.0)
    assert story.total == [11, 9, 2]


def test_nothing_new_is_the_same_look(story: Story) -> None:
    story.add(5, 1.0)
    looks = story.window.looks
    story.window.look(story.workers, 2.0)
    assert story.window.looks == looks
    story.add(1, 3.0)
    assert story.window.looks > looks


def test_a_part_holds_a_tenth_and_the_oldest_leaves(story: Story) -> None:
    for at in range(PARTS):
        story.add(10 + at, float(at))
    assert story.window.parts[:, 0].tolist() == [10 + at for at in range(PARTS)]
    story.add(1, 10.0)
    assert story.window.parts[:, 0].tolist() == [*(10 + at for at in range(1, PARTS)), 1]
    story.add(1, 10.0)
    assert story.window.parts[-1, 0] == 2


def test_old_rows_leave(story: Story) -> None:
    story.add(20, 0.0)
    story.add(5, 30.0)
    looks = story.window.looks
    story.window.look(story.workers, 60.5)
    assert story.total[0] == 5
    assert story.window.looks > looks


def test_a_workers_other_files_count_from_nothing(story: Story, new_counters: NewCounters) -> None:
    story.add(20, 0.0)
    story.workers[0] = new_counters(SHAPE)
    story.add(3, 1.0)
    assert story.total[0] == 23


def test_counters_of_another_shape_are_left_out(story: Story, new_counters: NewCounters) -> None:
    story.workers[1] = new_counters(CountersShape(1, 7, joint=5))
    story.workers[1].joint[:] = 9
    story.add(4, 1.0)
    assert story.total[0] == 4
