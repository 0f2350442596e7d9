import resource
import signal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.metrics import counters
from penstock_server.metrics.counters import (
    LATENCY_EDGES_S,
    ROWS_EDGES,
    SCORE_EDGES,
    CountersShape,
    create_counters,
    latency_bucket,
    open_counters,
    rows_bucket,
)

PARTS = [
    "latency", "latency_ns", "exemplars", "batch_rows", "batch_ns", "compute_ns", "answered_ns", "rows", "requests", "refusals",
    "classes", "class_values", "class_count", "shadow", "shadow_drops", "scores", "score_sum", "pair_ns", "waiting",
    "log_rows", "log_drops", "cache", "cache_ns", "drift_at", "beat_ns", "running_since_ns", "routed", "named_failed",
    "named_latency", "key_failures", "differing", "request_scores",
    "pairs", "pair_values", "pair_count", "time_ratios", "drift_rows", "drift",
]  # fmt: skip
SHAPES = [CountersShape(), CountersShape(3, 9), CountersShape(1, 7, 2)]


@pytest.mark.parametrize("shape", SHAPES)
def test_new_counters_are_zeros_of_their_size(tmp_path: Path, shape: CountersShape) -> None:
    counters = create_counters(tmp_path / "counters", shape)
    assert (tmp_path / "counters").stat().st_size == shape.words * 8
    assert sum(getattr(counters, part).size for part in PARTS) == shape.words
    assert all(not getattr(counters, part).any() for part in PARTS)
    rows = shape.features + 1 if shape.features else 0  # the last is of predictions
    assert counters.drift.shape == (shape.sub_windows, rows, shape.cells)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_copy_at_rest_has_whole_batches(
    tmp_path: Path, shape: CountersShape, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = create_counters(tmp_path / "counters", shape)
    live.latency[2, 5], live.rows[0], live.requests[0], live.refusals[1] = 7, 8, 2, 3
    made, copies = counters.SharedCounters, []

    def copied(memory: bytes, of: CountersShape) -> counters.SharedCounters:
        copies.append(made(memory, of))
        if len(copies) <= 2:  # a batch is counted meanwhile: its rows first
            live.rows[0] += 4 * (len(copies) == 1)
            live.requests[0] += len(copies) == 2
        return copies[-1]

    monkeypatch.setattr(counters, "SharedCounters", copied)
    found = live.at_rest()
    assert (found.rows[0], found.requests[0], len(copies)) == (12, 3, 3)
    assert (found.latency[2, 5], found.refusals[1]) == (7, 3)
    live.rows[0] = 100
    assert found.rows[0] == 12


@pytest.mark.parametrize("shape", SHAPES)
def test_parts_do_not_overlap(tmp_path: Path, shape: CountersShape) -> None:
    counters = create_counters(tmp_path / "counters", shape)
    for number, part in enumerate(PARTS, 1):
        getattr(counters, part)[...] = number
    for number, part in enumerate(PARTS, 1):
        assert (getattr(counters, part) == number).all()


def test_what_one_writes_the_other_reads(tmp_path: Path) -> None:
    shape = CountersShape(2, 5)
    supervisor = create_counters(tmp_path / "counters", shape)
    worker = open_counters(tmp_path / "counters", shape)
    worker.rows[0] += 3
    worker.drift[1, 0, 4] += 2
    assert (supervisor.rows[0], supervisor.drift.sum()) == (3, 2)
    del worker
    assert open_counters(tmp_path / "counters", shape).rows[0] == 3  # the next worker counts on


def test_counters_without_room_are_an_error_at_once(tmp_path: Path) -> None:
    """In a full file system a write to the mapping would end the process."""
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    former = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            create_counters(tmp_path / "counters", CountersShape())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        signal.signal(signal.SIGXFSZ, former)


def test_a_file_of_another_shape_is_refused(tmp_path: Path) -> None:
    create_counters(tmp_path / "counters", CountersShape())
    with pytest.raises(ValueError, match=r"holds \d+ bytes of counters, expected \d+"):
        open_counters(tmp_path / "counters", CountersShape(1, 1))


def test_a_file_is_made_once(tmp_path: Path) -> None:
    create_counters(tmp_path / "counters", CountersShape())
    with pytest.raises(FileExistsError):
        create_counters(tmp_path / "counters", CountersShape())


def test_edges_are_increasing_and_cover_what_is_promised() -> None:
    for edges in (LATENCY_EDGES_S, ROWS_EDGES, SCORE_EDGES):
        assert list(edges) == sorted(set(edges))
    assert (LATENCY_EDGES_S[0], LATENCY_EDGES_S[-1]) == (50e-6, 10.0)
    ratios = np.diff(np.log2(LATENCY_EDGES_S[:-1]))
    np.testing.assert_allclose(ratios, 0.5)


@pytest.mark.parametrize(
    ("duration_ns", "expected"),
    [(-5, 0), (0, 0), (50_000, 0), (50_001, 1), (100_000, 2), (10**10, 36), (10**10 + 1, 37), (10**15, 37)],
)
def test_latency_bucket(duration_ns: int, expected: int) -> None:
    assert latency_bucket(duration_ns) == expected


@pytest.mark.parametrize(("rows", "expected"), [(0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (4096, 12), (4097, 13)])
def test_rows_bucket(rows: int, expected: int) -> None:
    assert rows_bucket(rows) == expected


@given(duration_ns=st.integers(0, 10**11), rows=st.integers(0, 10**6))
def test_every_value_has_a_cell(duration_ns: int, rows: int) -> None:
    assert 0 <= latency_bucket(duration_ns) <= len(LATENCY_EDGES_S)
    assert 0 <= rows_bucket(rows) <= len(ROWS_EDGES)


def test_arrays_keep_the_file_mapped(tmp_path: Path) -> None:
    rows = create_counters(tmp_path / "counters", CountersShape()).rows
    rows[0] += 1
    assert open_counters(tmp_path / "counters", CountersShape()).rows[0] == 1
