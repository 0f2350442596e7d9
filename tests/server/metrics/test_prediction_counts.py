import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.drift.baseline import ClassBaseline
from penstock_server.drift.fit import fit_number
from penstock_server.features import counting
from penstock_server.features.cells import NumberCells
from penstock_server.features.counting import counts_of
from penstock_server.metrics.prediction_counts import FEW_ROWS, ClassCounts, NumberCounts

BINS = 6
VALUES = st.lists(st.floats() | st.floats(-3, 3, width=32), max_size=3 * FEW_ROWS)
BASELINE = fit_number("y", np.linspace(-2, 2, 101), 4)


@given(st.lists(VALUES, max_size=4))
def test_numbers_of_small_and_large_batches_lie_where_a_recount_puts_them(batches: list[list[float]]) -> None:
    rows = np.zeros((2, counting.row_words(BINS)), np.int64)
    counts = NumberCounts(BASELINE.cells, rows)
    for batch in batches:
        counts.add(1, np.array(batch, np.float64))
    found = counts_of(rows[:, None, :])
    values = np.array([value for batch in batches for value in batch], np.float64)
    finite = values[np.isfinite(values)]
    places = np.searchsorted(BASELINE.edges, finite, side="right")
    expected = [*np.bincount(places, minlength=BINS), np.isnan(values).sum(), np.isinf(values).sum(), 0]
    assert found.cells[0].tolist() == expected
    low, high = -2 - 2e-6, 2 + 2e-6
    assert found.outside[0].tolist() == [(finite < low).sum(), (finite > high).sum()]
    np.testing.assert_allclose(found.sums[0], np.bincount(places, finite, minlength=BINS), rtol=1e-9, atol=1e292)
    assert not rows[0].any()


def test_a_number_without_a_range_is_outside_of_nothing() -> None:
    rows = np.zeros((1, counting.row_words(1)), np.int64)
    NumberCounts(NumberCells(()), rows).add(0, np.array([1e300, -5.0]))
    assert rows[0].tolist() == [2, 0, 0, 0, 0, 0, rows[0, -1]]


@given(st.lists(st.integers(-2, 5), max_size=50))
def test_labels_one_by_one_and_by_their_counts(labels: list[int]) -> None:
    baseline = ClassBaseline("label", (3, 0, -1), (1, 1, 1))
    rows = np.zeros((2, counting.row_words(BINS)), np.int64)
    counts = ClassCounts(baseline.cells, rows)
    counts.add(0, labels)
    values, times = np.unique(labels, return_counts=True)
    counts.add(1, values.astype(int).tolist(), times.tolist())
    assert rows[0].tolist() == rows[1].tolist()
    known = [labels.count(label) for label in baseline.classes]
    assert rows[0, :3].tolist() == known
    assert rows[0, BINS + counting.UNSEEN] == len(labels) - sum(known)
