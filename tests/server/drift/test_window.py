from collections.abc import Callable
from typing import cast

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from penstock_server.drift.window import WindowReader
from penstock_server.features import counting
from penstock_server.metrics.counters import CountersShape, SharedCounters, create_counters
from penstock_server.metrics.recorder import Recorder

NewCounters = Callable[..., SharedCounters]
BINS, SUB_WINDOWS, WINDOW_ROWS = 3, 4, 40
SHAPE = CountersShape(2, counting.row_words(BINS), SUB_WINDOWS)
BATCHES = st.lists(st.tuples(st.integers(0, 1), st.integers(0, 25)), max_size=60)


def count(recorder: Recorder, cell: int, rows: int, value: float = 0.0) -> None:
    """A batch as a pipeline would count it, every row of both columns in one cell."""
    cells = recorder.drift_cells()
    assert cells is not None
    cells[:, cell] += rows
    cells[:, BINS + 5 + cell] = (cells[:, BINS + 5 + cell].view(np.float64) + rows * value).view(np.int64)
    recorder.drift_counted(rows)


@given(batches=BATCHES)
def test_the_ring_is_what_a_recount_of_its_batches_gives(tmp_path_factory, batches: list[tuple[int, int]]) -> None:
    """Exact integers after any sequence of rotations, over two workers."""
    folder = tmp_path_factory.mktemp("workers")
    workers = [create_counters(folder / str(at), SHAPE) for at in range(2)]
    recorders = [Recorder(counters, WINDOW_ROWS) for counters in workers]
    held: list[list[list[int]]] = [[[]], [[]]]
    for worker, rows in batches:
        count(recorders[worker], rows % BINS, rows, 1.5)
        held[worker][-1].append(rows)
        if sum(held[worker][-1]) >= WINDOW_ROWS // SUB_WINDOWS:
            held[worker].append([])
    expected = np.zeros(BINS, np.int64)
    for sub_windows in held:
        for rows in (rows for one in sub_windows[-SUB_WINDOWS:] for rows in one):
            expected[rows % BINS] += rows
    window = WindowReader(10.0).window(workers, 0.0)
    assert window.counts.cells[0, :BINS].tolist() == expected.tolist()
    assert window.counts.sums[1].tolist() == (expected * 1.5).tolist()
    assert window.rows == expected.sum()
    assert not window.counts.cells[-1].any()
    assert window.parts.sum(axis=0).tolist() == window.counts.cells.tolist()


@given(batches=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 25), st.booleans()), max_size=80))
def test_slices_have_each_row_once(tmp_path_factory, batches: list[tuple[int, int, bool]]) -> None:
    """As long as a worker does not run through its ring between two."""
    folder = tmp_path_factory.mktemp("workers")
    workers = [create_counters(folder / str(at), SHAPE) for at in range(2)]
    recorders = [Recorder(counters, WINDOW_ROWS) for counters in workers]
    reader, since, expected = WindowReader(10.0), 0, np.zeros(BINS, np.int64)
    for worker, rows, is_look in batches:
        count(recorders[worker], rows % BINS, rows)
        expected[rows % BINS] += rows
        since += 1
        # Each batch takes at most one sub-window to its end.
        if is_look or since == SUB_WINDOWS - 2:
            assert reader.slice(workers, 0.0)[1, :BINS].tolist() == expected.tolist()
            since, expected = 0, np.zeros(BINS, np.int64)


def test_where_too_much_came_a_slice_has_the_latest(new_counters: NewCounters) -> None:
    counters = new_counters(SHAPE)
    recorder, reader = Recorder(counters, WINDOW_ROWS), WindowReader(10.0)
    count(recorder, 0, 7)
    reader.slice([counters], 0.0)
    for _ in range(30):
        count(recorder, 1, 10)
    assert reader.slice([counters], 1.0)[0, :BINS].tolist() == [0, 30, 0]
    assert not reader.slice([counters], 2.0).any()


def test_a_worker_that_is_new_is_read_whole(new_counters: NewCounters) -> None:
    old, new = new_counters(SHAPE), new_counters(SHAPE)
    count(Recorder(old, WINDOW_ROWS), 0, 3)
    reader = WindowReader(10.0)
    assert reader.slice([old], 0.0)[0, 0] == 3
    count(Recorder(new, WINDOW_ROWS), 0, 5)
    assert reader.slice([old, new], 1.0)[0, 0] == 5
    assert not reader.slice([new], 2.0).any()


def test_old_rows_leave_the_window(new_counters: NewCounters) -> None:
    """Those of a worker that nobody asks any more, sub-window by sub-window."""
    idle, busy = new_counters(SHAPE), new_counters(SHAPE)
    recorders = [Recorder(counters, WINDOW_ROWS) for counters in (idle, busy)]
    reader, workers = WindowReader(10.0), [idle, busy]
    for now_s in (0.0, 4.0):
        count(recorders[0], 0, 10)
        reader.slice(workers, now_s)
    for now_s in (8.0, 12.0, 16.0):
        count(recorders[1], 1, 3)
        reader.slice(workers, now_s)
    rows = [reader.window(workers, now_s).rows for now_s in (9.0, 11.0, 15.0, 25.0, 40.0)]
    assert rows == [29, 19, 9, 9, 0]


def test_it_tells_whether_anything_was_counted(new_counters: NewCounters) -> None:
    counters = new_counters(SHAPE)
    recorder, reader = Recorder(counters, WINDOW_ROWS), WindowReader(10.0)
    empty = reader.window([counters], 0.0).counted
    count(recorder, 0, 3)
    one = reader.window([counters], 0.0).counted
    assert empty != one == reader.window([counters], 0.0).counted
    reader.slice([counters], 0.0)
    assert reader.window([counters], 99.0).counted != one


class Turning:
    """Counters whose worker begins the next sub-window during the first copies: `drift_at` rises with each read."""

    def __init__(self, turns: int) -> None:
        self.shape = SHAPE
        self.drift = np.zeros(SHAPE.drift, np.int64)
        self.drift_rows = np.zeros(SUB_WINDOWS, np.int64)
        self._reads, self._turns = 0, turns

    @property
    def drift_at(self) -> NDArray[np.int64]:
        self._reads += 1
        # Two reads per attempt; the number rises between them.
        at = min(self._reads // 2, self._turns)
        self.drift_rows[:] = at
        return np.array([at])


def test_a_copy_taken_while_the_ring_turned_is_taken_again() -> None:
    window = WindowReader(9.0).window([cast("SharedCounters", Turning(turns=2))], 0.0)
    assert window.counted[0][0] == 2
    assert window.rows == 2 * 3  # the sub-windows 0, 1 and 2


def test_a_ring_that_keeps_turning_is_given_up_on() -> None:
    window = WindowReader(9.0).window([cast("SharedCounters", Turning(turns=1000))], 0.0)
    assert window.counted[0][0] == 4  # the fifth copy
