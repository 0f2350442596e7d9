from collections.abc import Callable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.drift.window import window_of
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
    window = window_of(workers)
    assert window.counts.cells[0, :BINS].tolist() == expected.tolist()
    assert window.counts.sums[1].tolist() == (expected * 1.5).tolist()
    assert window.rows == expected.sum()
    assert not window.counts.cells[-1].any()


@given(before=BATCHES, after=BATCHES)
def test_later_sub_windows_share_no_row_with_the_last_look(tmp_path_factory, before, after) -> None:
    counters = create_counters(tmp_path_factory.mktemp("workers") / "counters", SHAPE)
    recorder = Recorder(counters, WINDOW_ROWS)
    for _, rows in before:
        count(recorder, 0, rows)
    marks = window_of([counters]).marks
    for _, rows in after:
        count(recorder, 1, rows)
    later = window_of([counters], marks)
    assert later.counts.cells[0, 0] == 0
    assert later.rows == later.counts.cells[0, 1] <= window_of([counters]).rows
    # What was counted into the sub-window that the look found open belongs to that look.
    assert later.rows >= min(sum(rows for _, rows in after), WINDOW_ROWS) - 2 * 34


def test_marks_of_other_workers_hide_nothing(new_counters: NewCounters) -> None:
    workers = [new_counters(SHAPE), new_counters(SHAPE)]
    count(Recorder(workers[1], WINDOW_ROWS), 2, 5)
    assert window_of(workers, (7,)).rows == window_of(workers).rows == 5


def test_it_tells_whether_anything_was_counted(new_counters: NewCounters) -> None:
    counters = new_counters(SHAPE)
    recorder = Recorder(counters, WINDOW_ROWS)
    empty = window_of([counters]).counted
    count(recorder, 0, 3)
    one = window_of([counters]).counted
    assert empty != one == window_of([counters]).counted
