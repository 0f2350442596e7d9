from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.tensors import join_bytes
from penstock_server.features.cells import ClassCells, Grouping, JointCells, NumberCells, StringCells
from penstock_server.features.joint import MOST_ROWS, JointCounter, elements

X = Grouping("x", NumberCells((0.0,)), (0, 1, -1, -1, -1), 2)
WHEN = Grouping("when", NumberCells((100.0,)), (0, 1, -1, -1, -1), 2)
WORD = Grouping("word", StringCells(("a", "b"), 1), (0, 1, 2, -1, 1), 3)
FINE = Grouping("word", StringCells(("a", "b"), 1), (1, 0, -1, -1, -1), 2)
ANSWER = Grouping("", ClassCells((5, 7)), (0, 1, -1, -1, -1), 2)
CELLS = JointCells((X, WORD, FINE, WHEN, ANSWER), ((0, 1), (3, 0), (2, 4)))
LABELS = (5, 7, 9)


def counter(counts: Any, fraction: float = 0.0) -> JointCounter:
    return JointCounter(
        CELLS, numbers=("y", "x"), times=("when",), strings=("word",), counts=counts, fraction=lambda: fraction
    )


def add(counts: Any, rows: list[tuple[float, int, str, int]], fraction: float = 0.0, *, predicted: bool = True) -> None:
    numbers = np.array([(99.0, row[0]) for row in rows])
    times = np.array([row[1] for row in rows], np.int64) * 1_000_000_000
    others = [times.tobytes(), join_bytes([row[2] for row in rows])]
    labels = np.array([row[3] for row in rows]) if predicted else None
    counter(counts, fraction).add(numbers.tobytes(), others, len(rows), labels)


def test_rows_are_counted_by_two_columns() -> None:
    counts = np.zeros(CELLS.words, np.int64)
    add(counts, [(-1, 0, "a", 5), (1, 200, "a", 7), (1, 200, "?", 7), (1, 0, "", 5), (np.nan, 0, "b", 9)])
    assert counts[0] == 5
    assert counts[1:7].reshape(2, 3).tolist() == [[1, 0, 0], [1, 1, 1]]
    assert counts[7:11].reshape(2, 2).tolist() == [[1, 1], [0, 2]]
    # The other grouping of the same column: unseen values are in no group, and neither is the label 9.
    assert counts[11:].reshape(2, 2).tolist() == [[0, 0], [1, 1]]


def test_without_predictions_columns_are_counted_all_the_same() -> None:
    counts = np.zeros(CELLS.words, np.int64)
    add(counts, [(-1, 0, "a", 5)], predicted=False)
    assert (counts[0], counts[1:11].sum(), counts[11:].sum()) == (1, 2, 0)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([-1.0, 0.0, 1.0, np.nan, np.inf]),
            st.sampled_from([0, 100, 200]),
            st.sampled_from(["a", "b", "c", ""]),
            st.sampled_from(LABELS),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_batches_add_up(rows: list[tuple[float, int, str, int]]) -> None:
    together, apart = np.zeros((2, CELLS.words), np.int64)
    add(together, rows)
    for row in rows:
        add(apart, [row])
    assert together.tolist() == apart.tolist()


@pytest.mark.parametrize(("fraction", "begin"), [(0.0, 0), (0.999, 36), (0.5, 18)])
def test_of_a_large_batch_a_part_is_counted(fraction: float, begin: int) -> None:
    rows = [(1.0 if at < 36 else -1.0, 0, "a" if at < 64 else "b", 5) for at in range(MOST_ROWS + 36)]
    counts, expected = np.zeros((2, CELLS.words), np.int64)
    add(counts, rows, fraction)
    add(expected, rows[begin : begin + MOST_ROWS])
    assert counts[0] == MOST_ROWS
    assert counts.tolist() == expected.tolist()


@given(st.lists(st.binary(max_size=5), max_size=8), st.data())
def test_texts_are_read_from_the_middle(texts: list[bytes], data: st.DataObject) -> None:
    begin = data.draw(st.integers(0, len(texts)))
    end = data.draw(st.integers(begin, len(texts)))
    assert elements(join_bytes(texts), begin, end) == texts[begin:end]
