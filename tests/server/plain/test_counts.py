"""What kernels count of batches is what Python would count, to the bit."""

from bisect import bisect_left
from math import inf, nan
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.batching.cost import Cost, CostModel, batch_rows
from penstock_server.compiled_models.layout import DOUBLE, INTEGER, SINGLE
from penstock_server.features import counting
from penstock_server.features.cells import NumberCells
from penstock_server.metrics.prediction_counts import NumberCounts
from penstock_server.plain import layout
from penstock_server.prediction.outputs import Number
from tests.server.plain.uncompiled import Memory, kernels_over

SCORES = st.floats(allow_nan=True, allow_infinity=True, width=32) | st.sampled_from([0.0, -0.0, 1.0, 2.0])


def kernels(memory: Memory) -> ModuleType:
    return kernels_over(memory)["counts"]


def words(memory: Memory, **values: int) -> int:
    """A fused lane's words, of which some are set."""
    at = memory.add(layout.FUSED_BYTES)
    for name, value in values.items():
        memory.set_word(at + getattr(layout, name), value)
    return at


@given(edges=st.lists(st.integers(-5, 40), max_size=9), value=st.integers(-10, 50))
def test_a_value_falls_into_the_first_cell_whose_bound_it_does_not_exceed(edges: list[int], value: int) -> None:
    edges.sort()
    memory = Memory()
    at = memory.add(b"".join(edge.to_bytes(8, "little", signed=True) for edge in edges))
    assert kernels(memory).cell_of(at, len(edges), value) == bisect_left(edges, value)


@given(
    start=st.tuples(st.floats(0, 0.1), st.floats(0, 0.01)),
    batches=st.lists(st.tuples(st.integers(1, 64), st.floats(0, 10)), min_size=1, max_size=30),
    objective_s=st.sampled_from([inf, 0.1, 1e-3]),
)
def test_the_cost_is_learnt_alike(start: Any, batches: Any, objective_s: float) -> None:
    model = CostModel(Cost(*start), 64)
    memory = Memory()
    cost, lane = memory.add(model.words.tobytes()), memory.add(layout.LANE_BYTES)
    fused = words(memory, U_COST=cost, U_LIMIT_ROWS=64)
    memory.set_double(fused + layout.U_SPAN, objective_s / 2)
    found = kernels(memory)
    for rows, took_s in batches:
        model.update(rows, took_s)
        found.learn(cost, rows, took_s)
        assert memory.read(cost, 64) == model.words.tobytes()
    found.tell_cost(fused, lane)
    told = [memory.word(lane + at) for at in (layout.L_BASE, layout.L_ROW, layout.L_LARGEST)]
    line = model.cost
    assert told == [int(line.base_s / 1e-9), int(line.row_s / 1e-9), batch_rows(line, objective_s, 64)]


def numbers(memory: Memory, fused: int, *forms: tuple[int, int, int, NumberCounts]) -> None:
    """Has these numbers counted: the output, its type and width, and the counts that they would have in Python."""
    table = memory.add(len(forms) * layout.NUMBER_BYTES)
    for at, (output, kind, width, counts) in enumerate(forms):
        row = table + at * layout.NUMBER_BYTES
        values = {
            layout.M_OUTPUT: output, layout.M_KIND: kind, layout.M_WIDTH: width, layout.M_EDGE_COUNT: len(counts.edges),
            layout.M_EDGES: memory.add(counts.edges.tobytes()), layout.M_AT: at * 8 * counting.row_words(counts.bins),
        }  # fmt: skip
        for place, value in values.items():
            memory.set_word(row + place, value)
        for place, real in zip((layout.M_SMALLEST, layout.M_LARGEST), counts.range, strict=True):
            memory.set_double(row + place, real)
        memory.set_word(fused + layout.U_BINS, counts.bins)
    memory.set_word(fused + layout.U_NUMBERS, table)
    memory.set_word(fused + layout.U_NUMBER_COUNT, len(forms))


@given(scores=st.lists(st.lists(SCORES, min_size=3, max_size=3), min_size=1, max_size=6), is_double=st.booleans())
def test_the_largest_score_is_the_one_that_numpy_finds(scores: list[list[float]], is_double: bool) -> None:
    rows = np.array(scores, np.float64 if is_double else np.float32)
    memory = Memory()
    fused = words(memory, U_PREDICTED_KIND=DOUBLE if is_double else SINGLE, U_PREDICTED_WIDTH=3)
    data = memory.add(rows.tobytes())
    found = [kernels(memory).label_of(fused, layout.LARGEST, data, row) for row in range(len(rows))]
    assert found == rows.argmax(axis=1).tolist()


@given(
    scores=st.lists(st.tuples(SCORES, SCORES, st.integers(-4, 4)), min_size=1, max_size=20),
    edges=st.lists(st.integers(-3, 3), max_size=4, unique=True), is_double=st.booleans(),
)  # fmt: skip
def test_numbers_fall_into_their_bins(
    scores: list[tuple[float, float, int]], edges: list[int], is_double: bool
) -> None:
    cells = NumberCells(tuple(map(float, sorted(edges))), -1.5, 2.5)
    expected = np.zeros((2, counting.row_words(len(edges) + 1)), np.int64)
    counts = [NumberCounts(cells, row[None]) for row in expected]
    outputs = (
        np.array([row[:2] for row in scores], np.float64 if is_double else np.float32),
        np.array([row[2] for row in scores], np.int64),
    )
    for place in range(2):
        counts[place].add(0, Number(place, place)(outputs))
    memory = Memory()
    own, laid = memory.add(expected.nbytes), memory.add(2 * layout.OUTPUT_BYTES)
    for at, output in enumerate(outputs):
        memory.set_word(laid + at * layout.OUTPUT_BYTES + layout.A_DATA, memory.add(output.tobytes()))
    fused = words(memory, U_DRIFT=own, U_WINDOWS=1, U_DRIFT_AT=memory.add(8))
    numbers(memory, fused, (0, DOUBLE if is_double else SINGLE, 2, counts[0]), (1, INTEGER, 1, counts[1]))
    kernels(memory).count_numbers(fused, laid, len(scores))
    assert memory.read(own, expected.nbytes) == expected.tobytes()


@given(rows=st.lists(st.integers(1, 7), max_size=12), windows=st.integers(1, 3))
def test_windows_follow_each_other(rows: list[int], windows: int) -> None:
    memory = Memory()
    drift, at, counts = memory.add(b"\x01" * 16 * windows), memory.add(8), memory.add(8 * windows)
    fused = words(
        memory, U_DRIFT=drift, U_DRIFT_AT=at, U_DRIFT_ROWS=counts, U_WINDOWS=windows, U_WINDOW_BYTES=16, U_WINDOW_ROWS=5
    )
    number, counted = 0, [0] * windows
    for more in rows:
        kernels(memory).count_drift_rows(fused, more)
        counted[number % windows] += more
        if counted[number % windows] >= 5:
            number += 1
            counted[number % windows] = 0
            assert memory.read(drift + number % windows * 16, 16) == bytes(16)
        assert [memory.word(counts + 8 * place) for place in range(windows)] == counted
        assert kernels(memory).window(fused) == drift + number % windows * 16
    assert memory.word(at) == number


@pytest.mark.parametrize(("classes_at", "is_drift"), [(layout.NONE, True), (8, True), (8, False)])
def test_classes_are_counted_if_all_are_known(classes_at: int, is_drift: bool) -> None:
    memory = Memory()
    cells, drift = memory.add(3 * 8), memory.add(6 * 8)
    table = [(7, cells, 0), (-2, cells + 8, 1), (9, cells + 16, 4)]
    classes = memory.add(b"".join(word.to_bytes(8, "little", signed=True) for row in table for word in row))
    fused = words(
        memory, U_CLASSES=classes, U_CLASS_COUNT=3, U_CLASSES_AT=classes_at, U_DRIFT=drift, U_WINDOWS=1,
        U_DRIFT_AT=memory.add(8),
    )  # fmt: skip
    labels = np.array([7, 9, -2, 7, 9, 7], np.int64)
    found = kernels(memory)
    assert not found.count_classes(fused, layout.LABELS, memory.add(np.array([7, 8], np.int64).tobytes()), 2, is_drift)
    assert memory.read(cells, 24) == bytes(24)
    assert found.count_classes(fused, layout.LABELS, memory.add(labels.tobytes()), len(labels), is_drift)
    assert [memory.word(cells + 8 * at) for at in range(3)] == [3, 1, 2]
    expected = [0] * 6 if classes_at == layout.NONE or not is_drift else [0, 3, 1, 0, 0, 2]
    assert [memory.word(drift + 8 * at) for at in range(6)] == expected


def test_texts_have_the_classes_that_they_name() -> None:
    memory = Memory()
    fused = words(memory, U_CLASS_OF_TEXT=memory.add(np.array([5, 3], np.int64).tobytes()))
    data = memory.add(np.array([1, 0], np.int64).tobytes())
    assert [kernels(memory).label_of(fused, layout.LABELS, data, row) for row in (0, 1)] == [3, 5]


def test_a_nan_is_missing_and_no_number_of_any_bin() -> None:
    memory = Memory()
    row, number = memory.add(8 * counting.row_words(1)), memory.add(layout.NUMBER_BYTES)
    for value, cell in ((nan, counting.MISSING), (inf, counting.INFINITE), (-inf, counting.INFINITE)):
        kernels(memory).count_number(number, 1, row, value)
        assert memory.word(row + 8 * (1 + cell)) > 0
    assert memory.word(row) == 0
