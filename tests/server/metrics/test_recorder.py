from collections.abc import Callable
from dataclasses import replace
from math import inf, nan
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.errors import PenstockError
from penstock_server.features import counting
from penstock_server.features.cells import AnswerCells, ClassCells, NumberCells
from penstock_server.metrics.counters import (
    MAX_CLASSES,
    MAX_PAIRED,
    REFUSALS,
    SHADOW_DROPS,
    TIME_RATIO_EDGES,
    CountersShape,
    SharedCounters,
    create_counters,
    latency_bucket,
)
from penstock_server.metrics.counters import new_counters as new_counters_of_this_process
from penstock_server.metrics.recorder import Recorder, refusal_reason

NewCounters = Callable[..., SharedCounters]


def classes_of(counters: SharedCounters) -> dict[int, int]:
    known = int(counters.class_count[0])
    return dict(zip(counters.class_values[:known].tolist(), counters.classes[:known].tolist(), strict=True))


def test_a_batch_is_counted_by_request_and_by_stage(new_counters: NewCounters) -> None:
    counters = new_counters()
    Recorder(counters).batch(
        arrived_s=[10.0, 10.001], rows=5, started_s=10.002, ended_s=10.004, features_s=0.0005, infer_s=0.001
    )
    assert counters.latency.sum(axis=1).tolist() == [2, 2, 1, 1]
    assert counters.latency_ns.tolist() == pytest.approx([7_000_000, 3_000_000], abs=10)
    assert counters.batch_ns[:, 3].tolist() == counters.batch_ns.sum(axis=1).tolist() == [500_000, 1_000_000]
    assert counters.compute_ns.tolist() == [1_000_000, 2_000_000]  # both requests waited for the whole batch
    assert counters.answered_ns[0] == pytest.approx(10_004_000_000, abs=10)
    assert counters.latency[0, latency_bucket(4_000_000)] == 1
    assert counters.latency[1, latency_bucket(1_000_000 - 1)] == 1
    assert (counters.rows[0], counters.requests[0], counters.batch_rows[3]) == (5, 2, 1)


def test_what_kernels_count_is_what_a_batch_counts(new_counters: NewCounters) -> None:
    counters, other = new_counters(), new_counters()
    facts: dict[str, Any] = {"rows": 3, "features_s": 0.001, "infer_s": 0.25}
    Recorder(other).batch(arrived_s=[10.0, 10.001], started_s=10.002, ended_s=10.004, **facts)
    recorder = Recorder(counters)
    edges, total, queue, total_sum, queue_sum, exemplars, named = recorder.latency_cells()
    assert exemplars is recorder.counters.exemplars
    assert named is recorder.counters.named_latency
    for waited_ns in (2_000_000, 1_000_000):
        queue[np.searchsorted(edges, waited_ns)] += 1
        total[np.searchsorted(edges, waited_ns + 2_000_000)] += 1
        queue_sum[0] += waited_ns
        total_sum[0] += waited_ns + 2_000_000
    recorder.stages(requests=2, ended_s=10.004, **facts)
    for name in ("latency", "batch_rows", "batch_ns", "compute_ns", "answered_ns", "rows", "requests"):
        assert getattr(counters, name).tolist() == getattr(other, name).tolist(), name
    assert counters.latency_ns.tolist() == pytest.approx(other.latency_ns.tolist(), abs=25)


def test_a_batch_whose_callers_all_left_is_a_batch(new_counters: NewCounters) -> None:
    counters = new_counters()
    Recorder(counters).batch(arrived_s=[], rows=5, started_s=1.0, ended_s=2.0, features_s=0.0, infer_s=1.0)
    assert (counters.requests[0], counters.rows[0], counters.latency.sum()) == (0, 5, 2)


@pytest.mark.parametrize("reason", REFUSALS)
def test_refusals_by_reason(new_counters: NewCounters, reason: str) -> None:
    counters = new_counters()
    recorder = Recorder(counters)
    recorder.refused(reason)
    recorder.refused(reason)
    assert dict(zip(REFUSALS, counters.refusals.tolist(), strict=True)) == {**dict.fromkeys(REFUSALS, 0), reason: 2}


@pytest.mark.parametrize("kind", [*PenstockError.__subclasses__(), PenstockError])
def test_every_error_has_a_cell(new_counters: NewCounters, kind: type[PenstockError]) -> None:
    Recorder(new_counters()).refused(refusal_reason(kind("")))


def test_what_waits_is_the_last_word(new_counters: NewCounters) -> None:
    counters = new_counters()
    recorder = Recorder(counters)
    recorder.waiting(9, 4)
    recorder.waiting(3, 2)
    assert counters.waiting.tolist() == [3, 2]


def test_classes_are_counted_by_value(new_counters: NewCounters) -> None:
    counters = new_counters()
    recorder = Recorder(counters)
    recorder.classes(np.array([7, -1, 7]))
    recorder.classes(np.array([3] * 100 + [7]))
    assert classes_of(counters) == {7: 3, -1: 1, 3: 100}


def test_classes_without_a_cell_are_counted_together(new_counters: NewCounters) -> None:
    counters = new_counters()
    recorder = Recorder(counters)
    recorder.classes(np.arange(MAX_CLASSES))
    recorder.classes(np.arange(MAX_CLASSES + 5))
    assert counters.class_count[0] == MAX_CLASSES
    assert set(classes_of(counters).values()) == {2}
    assert counters.classes[MAX_CLASSES] == 5


def test_the_next_worker_keeps_the_classes_cells(new_counters: NewCounters) -> None:
    counters = new_counters()
    Recorder(counters).classes(np.array([7, 3]))
    Recorder(counters).classes(np.array([3, 9]))
    assert classes_of(counters) == {7: 1, 3: 2, 9: 1}


@given(parts=st.lists(st.lists(st.integers(0, 5), max_size=100), max_size=4))
def test_no_row_is_lost_between_classes(tmp_path_factory: pytest.TempPathFactory, parts: list[list[int]]) -> None:
    counters = create_counters(tmp_path_factory.mktemp("workers") / "counters", CountersShape())
    recorder = Recorder(counters)
    for part in parts:
        recorder.classes(np.array(part, np.int64))
    everything = [label for part in parts for label in part]
    assert classes_of(counters) == {label: everything.count(label) for label in set(everything)}


def test_without_features_nothing_is_watched(new_counters: NewCounters) -> None:
    assert Recorder(new_counters()).drift_cells() is None


@pytest.mark.parametrize(("window_rows", "sub_windows"), [(30, 3), (10, 10), (2, 4)])
def test_the_window_slides_and_forgets_the_oldest(
    new_counters: NewCounters, window_rows: int, sub_windows: int
) -> None:
    counters = new_counters(CountersShape(1, 7, sub_windows))
    recorder = Recorder(counters, window_rows)
    size = max(1, window_rows // sub_windows)
    for rows in range(1, 10 * window_rows):
        cells: Any = recorder.drift_cells()
        cells[0, 0] += 1
        recorder.drift_counted(1)
        held = int(counters.drift_rows.sum())
        assert counters.drift.sum() == held
        assert counters.drift_at[0] == rows // size
        assert held <= size * sub_windows
        assert held == rows if rows < size * (sub_windows - 1) else held >= size * (sub_windows - 1)


def test_a_batch_larger_than_a_sub_window_stays_whole(new_counters: NewCounters) -> None:
    counters = new_counters(CountersShape(1, 7, 3))
    recorder = Recorder(counters, 9)
    recorder.drift_counted(100)
    assert counters.drift_rows.tolist() == [100, 0, 0]
    assert counters.drift_at[0] == 1


def test_the_pipelines_cells_leave_out_the_row_of_predictions(new_counters: NewCounters) -> None:
    counters = new_counters(CountersShape(2, 7, 3))
    cells: Any = Recorder(counters).drift_cells()
    cells[...] = 1
    assert cells.flags.c_contiguous
    assert counters.drift.sum(axis=(0, 2)).tolist() == [7, 7, 0]


@pytest.mark.parametrize("labels", [[7, 9, 7, 5], [7, 9, 7, 5] * 30])
def test_predicted_classes_are_counted_in_the_window(new_counters: NewCounters, labels: list[int]) -> None:
    counters = new_counters(CountersShape(1, counting.row_words(3), 3))
    recorder = Recorder(counters, 300, [AnswerCells(ClassCells((7, 9)))])
    recorder.classes(np.array(labels))
    times = len(labels) // 4
    assert counters.drift[0, 1].tolist() == [2 * times, times, 0, 0, 0, times, *[0] * 5]
    assert classes_of(counters) == {7: 2 * times, 9: times, 5: times}


def test_answers_are_counted_where_the_window_is_each_in_its_row(new_counters: NewCounters) -> None:
    counters = new_counters(CountersShape(1, counting.row_words(2), 3, answers=3))
    answers = [AnswerCells(ClassCells((7,))), *(AnswerCells(NumberCells((edge,)), "y") for edge in (0.0, 2.5))]
    recorder = Recorder(counters, 3, answers)
    for value in range(5):
        recorder.classes(np.array([7]))
        for place in (1, 2):
            recorder.numbers(place, np.array([value], np.float32))
        recorder.drift_counted(1)
    assert counters.drift[:, 1, 0].tolist() == [1, 1, 0]
    assert counters.drift[:, 2, :2].tolist() == [[0, 1], [0, 1], [0, 0]]
    assert counters.drift[:, 3, :2].tolist() == [[0, 1], [0, 1], [0, 0]]


def test_shadow_comparisons(new_counters: NewCounters) -> None:
    counters = new_counters()
    recorder = Recorder(counters)
    recorder.shadow_compared(
        agree=np.array([True, False, True]), distance=np.array([0.0, 0.5, 0.001]), champion_s=0.002, shadow_s=0.004
    )
    recorder.shadow_failed(4)
    recorder.shadow_refused(5)
    assert counters.shadow.tolist() == [2, 1, 4, 5]
    assert counters.time_ratios[TIME_RATIO_EDGES.index(2.0)] == counters.time_ratios.sum() == 1
    assert not counters.pairs.any()
    assert counters.scores.tolist() == [1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0]
    assert counters.score_sum[0] == pytest.approx(0.501)
    assert counters.pair_ns.tolist() == [2_000_000, 4_000_000]


def test_classes_are_counted_in_pairs(new_counters: NewCounters) -> None:
    counters = new_counters()

    def compare(champion: list[int], shadow: list[int]) -> None:
        same = np.array(champion) == np.array(shadow)
        Recorder(counters).shadow_compared(
            agree=same,
            distance=np.zeros(len(same)),
            champion_s=0.0,
            shadow_s=0.1,
            classes=(np.array(champion), np.array(shadow)),
        )

    compare([7, 7, -1], [7, -1, 7])
    compare([7], [3])  # by a worker that took the place of another
    assert counters.pair_values[: counters.pair_count[0]].tolist() == [7, -1, 3]
    assert counters.pairs[:3, :3].tolist() == [[1, 1, 1], [1, 0, 0], [0, 0, 0]]
    assert not counters.time_ratios.any()  # nothing to divide by
    compare(list(range(100, 140)), [7] * 40)
    assert counters.pairs[MAX_PAIRED, 0] == 40 - (MAX_PAIRED - 3)
    assert counters.pairs.sum() == 44


@pytest.mark.parametrize(("distance", "cell"), [(inf, -1), (1e300, -1), (1.0, -2), (nan, -1)])
def test_far_scores_do_not_spoil_the_sum(new_counters: NewCounters, distance: float, cell: int) -> None:
    counters = new_counters()
    Recorder(counters).shadow_compared(
        agree=np.array([False]), distance=np.array([distance]), champion_s=0.0, shadow_s=0.0
    )
    assert counters.scores[cell] == 1
    assert 0 < counters.score_sum[0] <= 10**12


@pytest.mark.parametrize("reason", SHADOW_DROPS)
def test_drops_by_reason(new_counters: NewCounters, reason: str) -> None:
    counters = new_counters()
    Recorder(counters).shadow_dropped(reason, 7)
    assert counters.shadow_drops[SHADOW_DROPS.index(reason)] == 7
    assert counters.shadow_drops.sum() == 7


def test_only_known_reasons_are_counted(new_counters: Callable[..., Any]) -> None:
    with pytest.raises(KeyError):
        Recorder(new_counters()).request_log_dropped("tired", 1)


YEAR_S = 365 * 24 * 3600
ROWS_PER_S, WAITING = 1_000_000, 4096


def after_a_year(counters: SharedCounters) -> None:
    """As if the worker had answered a million rows per second, with 4,096 requests waiting at each moment."""
    for part in (
        "latency",
        "batch_rows",
        "rows",
        "requests",
        "refusals",
        "classes",
        "shadow",
        "shadow_drops",
        "scores",
    ):
        getattr(counters, part)[...] = YEAR_S * ROWS_PER_S
    for part in ("log_rows", "log_drops"):
        getattr(counters, part)[...] = YEAR_S * ROWS_PER_S
    counters.latency_ns[...] = counters.compute_ns[...] = YEAR_S * WAITING * 1e9
    counters.batch_ns[...] = YEAR_S * 1e9
    counters.pair_ns[...] = YEAR_S * 1e9
    counters.score_sum[...] = YEAR_S * ROWS_PER_S * 20_000.0  # house prices


def test_counters_are_right_after_a_year_at_full_load(new_counters: NewCounters) -> None:
    counters = new_counters()
    after_a_year(counters)
    assert counters.latency_ns[0] > 2**63  # which no integer would hold
    parts = ("latency_ns", "compute_ns", "batch_ns", "pair_ns", "score_sum", "rows")
    before = {part: getattr(counters, part).copy() for part in parts}
    recorder = Recorder(counters)
    times = 1000
    for _ in range(times):
        recorder.batch(arrived_s=[0.0] * 50, rows=64, started_s=0.01, ended_s=0.02, features_s=0.001, infer_s=0.002)
        recorder.classes(np.zeros(64, np.int64))
        recorder.shadow_compared(
            agree=np.zeros(5000, bool), distance=np.full(5000, 20_000.0), champion_s=0.01, shadow_s=0.02
        )
        recorder.refused("overloaded")
    grown = {part: (getattr(counters, part) - was).tolist() for part, was in before.items()}
    assert grown["latency_ns"] == pytest.approx([50 * 20e6 * times, 50 * 10e6 * times], rel=0.02)
    assert grown["compute_ns"] == pytest.approx([50 * 1e6 * times, 50 * 2e6 * times], rel=0.02)
    assert [sum(cells) for cells in grown["batch_ns"]] == pytest.approx([1e6 * times, 2e6 * times], rel=0.02)
    assert grown["pair_ns"] == pytest.approx([10e6 * times, 20e6 * times], rel=1e-3)
    assert grown["score_sum"] == pytest.approx([5000 * 20_000.0 * times], rel=1e-3)
    assert grown["rows"] == [64 * times]
    full = YEAR_S * ROWS_PER_S
    assert (counters.scores[-1] - full, counters.shadow[1] - full) == (5000 * times, 5000 * times)
    assert counters.refusals[REFUSALS.index("overloaded")] - full == times


def test_answers_of_other_shapes_do_not_end_the_sum(new_counters: NewCounters) -> None:
    counters = new_counters()
    recorder = Recorder(counters)
    for _ in range(1000):
        recorder.shadow_compared(agree=np.zeros(5000, bool), distance=np.full(5000, inf), champion_s=0.0, shadow_s=0.0)
    assert 0 < counters.score_sum[0] < inf


def test_rows_counted_apart_are_added_to_the_window(new_counters: NewCounters) -> None:
    shape = CountersShape(2, counting.row_words(3), 3)
    together, apart = new_counters(shape), new_counters(shape)
    one, two = np.arange(22).reshape(2, 11), np.arange(22, 44).reshape(2, 11)
    for counts in (one, two):
        counts.view(np.float64)[:, 8:] = counts[:, 8:] + 0.5
    recorder = Recorder(together, 300)
    recorder.drift_added(one, 7)
    recorder.drift_added(two, 5)
    assert together.drift_rows.tolist() == [12, 0, 0]
    assert together.drift[0, :2, :8].tolist() == (one + two)[:, :8].tolist()
    assert (
        together.drift[0, :2, 8:].view(np.float64).tolist()
        == (one[:, 8:].view(np.float64) + two[:, 8:].view(np.float64)).tolist()
    )
    assert not apart.drift.any()
    Recorder(new_counters()).drift_added(one, 7)


def test_a_whole_sub_window_counted_apart_brings_its_predictions() -> None:
    shape = CountersShape(1, counting.row_words(2), 1)
    apart, counters = new_counters_of_this_process(shape), new_counters_of_this_process(replace(shape, sub_windows=3))
    cells = [AnswerCells(ClassCells((5, 7)))]
    aside, recorder = Recorder(apart, answers=cells), Recorder(counters, 30, cells)
    aside.drift_cells()[0, 1] += 12  # type: ignore[index]
    aside.classes(np.array([5] * 4 + [7] * 8))
    for _ in range(2):
        recorder.drift_added(apart.drift[0], 12)
    assert counters.drift_rows.tolist() == [12, 12, 0]
    assert counters.drift[:, :, :2].tolist() == [[[0, 12], [4, 8]], [[0, 12], [4, 8]], [[0, 0], [0, 0]]]
    assert counters.classes.sum() == 0
