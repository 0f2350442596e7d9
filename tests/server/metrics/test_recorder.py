from collections.abc import Callable
from math import inf, nan
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.errors import PenstockError
from penstock_server.features import counting as layout
from penstock_server.features.cells import ClassCells, NumberCells
from penstock_server.metrics.counters import (
    MAX_CLASSES,
    REFUSALS,
    SHADOW_DROPS,
    CountersShape,
    SharedCounters,
    create_counters,
    latency_bucket,
)
from penstock_server.metrics.recorder import Recorder, refusal_reason

NewBoard = Callable[..., SharedCounters]


def classes_of(board: SharedCounters) -> dict[int, int]:
    known = int(board.class_count[0])
    return dict(zip(board.class_values[:known].tolist(), board.classes[:known].tolist(), strict=True))


def test_a_batch_is_counted_by_request_and_by_stage(new_counters: NewBoard) -> None:
    board = new_counters()
    Recorder(board).batch(
        arrived_s=[10.0, 10.001], rows=5, started_s=10.002, ended_s=10.004, features_s=0.0005, infer_s=0.001
    )
    assert board.latency.sum(axis=1).tolist() == [2, 2, 1, 1]
    assert board.latency_ns.tolist() == pytest.approx([7_000_000, 3_000_000, 500_000, 1_000_000], abs=10)
    assert board.latency[0, latency_bucket(4_000_000)] == 1
    assert board.latency[1, latency_bucket(1_000_000 - 1)] == 1
    assert (board.rows[0], board.requests[0], board.batch_rows[3]) == (5, 2, 1)


def test_a_batch_whose_callers_all_left_is_a_batch(new_counters: NewBoard) -> None:
    board = new_counters()
    Recorder(board).batch(arrived_s=[], rows=5, started_s=1.0, ended_s=2.0, features_s=0.0, infer_s=1.0)
    assert (board.requests[0], board.rows[0], board.latency.sum()) == (0, 5, 2)


@pytest.mark.parametrize("reason", REFUSALS)
def test_refusals_by_reason(new_counters: NewBoard, reason: str) -> None:
    board = new_counters()
    recorder = Recorder(board)
    recorder.refused(reason)
    recorder.refused(reason, 2)
    assert dict(zip(REFUSALS, board.refusals.tolist(), strict=True)) == {**dict.fromkeys(REFUSALS, 0), reason: 3}


@pytest.mark.parametrize("kind", [*PenstockError.__subclasses__(), PenstockError])
def test_every_error_has_a_cell(new_counters: NewBoard, kind: type[PenstockError]) -> None:
    Recorder(new_counters()).refused(refusal_reason(kind("")))


def test_what_waits_is_the_last_word(new_counters: NewBoard) -> None:
    board = new_counters()
    recorder = Recorder(board)
    recorder.waiting(9, 4)
    recorder.waiting(3, 2)
    assert board.waiting.tolist() == [3, 2]


def test_classes_are_counted_by_value(new_counters: NewBoard) -> None:
    board = new_counters()
    recorder = Recorder(board)
    recorder.classes(np.array([7, -1, 7]))
    recorder.classes(np.array([3] * 100 + [7]))
    assert classes_of(board) == {7: 3, -1: 1, 3: 100}


def test_classes_without_a_cell_are_counted_together(new_counters: NewBoard) -> None:
    board = new_counters()
    recorder = Recorder(board)
    recorder.classes(np.arange(MAX_CLASSES))
    recorder.classes(np.arange(MAX_CLASSES + 5))
    assert board.class_count[0] == MAX_CLASSES
    assert set(classes_of(board).values()) == {2}
    assert board.classes[MAX_CLASSES] == 5


def test_the_next_worker_keeps_the_classes_cells(new_counters: NewBoard) -> None:
    board = new_counters()
    Recorder(board).classes(np.array([7, 3]))
    Recorder(board).classes(np.array([3, 9]))
    assert classes_of(board) == {7: 1, 3: 2, 9: 1}


@given(parts=st.lists(st.lists(st.integers(0, 5), max_size=100), max_size=4))
def test_no_row_is_lost_between_classes(tmp_path_factory: pytest.TempPathFactory, parts: list[list[int]]) -> None:
    board = create_counters(tmp_path_factory.mktemp("boards") / "board", CountersShape())
    recorder = Recorder(board)
    for part in parts:
        recorder.classes(np.array(part, np.int64))
    everything = [label for part in parts for label in part]
    assert classes_of(board) == {label: everything.count(label) for label in set(everything)}


def test_without_features_nothing_is_watched(new_counters: NewBoard) -> None:
    assert Recorder(new_counters()).drift_cells() is None


@pytest.mark.parametrize(("window_rows", "sub_windows"), [(30, 3), (10, 10), (2, 4)])
def test_the_window_slides_and_forgets_the_oldest(new_counters: NewBoard, window_rows: int, sub_windows: int) -> None:
    board = new_counters(CountersShape(1, 7, sub_windows))
    recorder = Recorder(board, window_rows)
    size = max(1, window_rows // sub_windows)
    for rows in range(1, 10 * window_rows):
        cells: Any = recorder.drift_cells()
        cells[0, 0] += 1
        recorder.drift_counted(1)
        held = int(board.drift_rows.sum())
        assert board.drift.sum() == held
        assert board.drift_at[0] == rows // size
        assert held <= size * sub_windows
        assert held == rows if rows < size * (sub_windows - 1) else held >= size * (sub_windows - 1)


def test_a_batch_larger_than_a_sub_window_stays_whole(new_counters: NewBoard) -> None:
    board = new_counters(CountersShape(1, 7, 3))
    recorder = Recorder(board, 9)
    recorder.drift_counted(100)
    assert board.drift_rows.tolist() == [100, 0, 0]
    assert board.drift_at[0] == 1


def test_the_pipelines_cells_leave_out_the_row_of_predictions(new_counters: NewBoard) -> None:
    board = new_counters(CountersShape(2, 7, 3))
    cells: Any = Recorder(board).drift_cells()
    cells[...] = 1
    assert cells.flags.c_contiguous
    assert board.drift.sum(axis=(0, 2)).tolist() == [7, 7, 0]


@pytest.mark.parametrize("labels", [[7, 9, 7, 5], [7, 9, 7, 5] * 30])
def test_predicted_classes_are_counted_in_the_window(new_counters: NewBoard, labels: list[int]) -> None:
    board = new_counters(CountersShape(1, layout.words(3), 3))
    recorder = Recorder(board, 300, ClassCells((7, 9)))
    recorder.classes(np.array(labels))
    recorder.scores(np.array([1.0]))  # of a version with classes nobody asks for scores
    times = len(labels) // 4
    assert board.drift[0, 1].tolist() == [2 * times, times, 0, 0, 0, times, *[0] * 5]
    assert classes_of(board) == {7: 2 * times, 9: times, 5: times}


def test_predictions_are_counted_where_the_window_is(new_counters: NewBoard) -> None:
    board = new_counters(CountersShape(1, layout.words(2), 3))
    recorder = Recorder(board, 3, NumberCells((0.0,)))
    for value in range(5):
        recorder.scores(np.array([[value]], np.float32))
        recorder.drift_counted(1)
    assert board.drift[:, 1, 1].tolist() == [1, 1, 0]


def test_shadow_comparisons(new_counters: NewBoard) -> None:
    board = new_counters()
    recorder = Recorder(board)
    recorder.shadow_compared(
        agree=np.array([True, False, True]), distance=np.array([0.0, 0.5, 0.001]), champion_s=0.002, shadow_s=0.004
    )
    recorder.shadow_failed(4)
    assert board.shadow.tolist() == [2, 1, 4]
    assert board.scores.tolist() == [1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0]
    assert board.score_sum[0] == 501_000_000
    assert board.pair_ns.tolist() == [2_000_000, 4_000_000]


@pytest.mark.parametrize(("distance", "cell"), [(inf, -1), (1e300, -1), (1.0, -2), (nan, -1)])
def test_far_scores_do_not_spoil_the_sum(new_counters: NewBoard, distance: float, cell: int) -> None:
    board = new_counters()
    Recorder(board).shadow_compared(
        agree=np.array([False]), distance=np.array([distance]), champion_s=0.0, shadow_s=0.0
    )
    assert board.scores[cell] == 1
    assert 0 < board.score_sum[0] <= 10**15


@pytest.mark.parametrize("reason", SHADOW_DROPS)
def test_drops_by_reason(new_counters: NewBoard, reason: str) -> None:
    board = new_counters()
    Recorder(board).shadow_dropped(reason, 7)
    assert board.shadow_drops[SHADOW_DROPS.index(reason)] == 7
    assert board.shadow_drops.sum() == 7
