import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.features import counting
from penstock_server.features.cells import NumberCells, StringCells
from penstock_server.features.counting import counts_of, number_words, slots_of, string_words

LARGEST = np.finfo(np.float64).max
ODD = [0.0, -0.0, 1.0, 1.0000001, -1.0, 1e308, -1e308, LARGEST, 5e-324, -5e-324, np.inf, -np.inf, np.nan]
REALS = st.floats() | st.sampled_from(ODD) | st.floats(-2, 2, width=16)
FINITE = st.floats(allow_nan=False, allow_infinity=False) | st.floats(-2, 2, width=16)
WATCHED = StringCells(("b", "a", "z", "only here, and long enough"), 3)


@given(st.lists(FINITE, unique_by=lambda value: value + 0.0, min_size=1, max_size=60).map(sorted), st.lists(REALS))
def test_an_index_leads_to_the_first_edge_that_may_be_larger(edges: list[float], values: list[float]) -> None:
    words = number_words(NumberCells(tuple(edges)))
    low, scale, top = np.array(words[counting.LOW : counting.TOP + 1], np.int64).view(np.float64).tolist()
    size = words[counting.EDGES_AT] - counting.INDEX
    index = np.array(words[counting.INDEX : words[counting.EDGES_AT]])
    finite = np.array([value for value in values if np.isfinite(value)], np.float64)
    slots = slots_of(finite, low, scale, int(top))
    assert ((slots >= 0) & (slots < size)).all()
    exact = np.searchsorted(np.array(edges), finite, side="right")
    assert ((index[slots] <= exact) & (exact <= index[slots] + words[counting.REACH])).all()


def test_string_words_name_a_cell_for_every_code() -> None:
    found = string_words(WATCHED, ["", "z", "?", "a", "only here, and long enough"], 7)
    assert found == [7, 2, 9, 1, 3, 9]


def words_of(bins: int) -> np.ndarray:
    """Two sub-windows of one column, every word another number."""
    words = np.zeros((2, 1, counting.row_words(bins)), np.int64)
    words[:, :, : bins + 5] = np.arange(2 * (bins + 5)).reshape(2, 1, -1)
    words[:, :, bins + 5 :] = np.linspace(0.5, 9, 2 * bins).reshape(2, 1, -1).view(np.int64)
    return words


@pytest.mark.parametrize("bins", [1, 3, 20])
def test_counts_are_taken_apart_and_summed(bins: int) -> None:
    words = words_of(bins)
    found = counts_of(words)
    assert found.bins == bins
    assert found.cells.tolist() == [[2 * at + bins + 5 for at in range(bins + 3)]]
    assert found.outside.tolist() == [[2 * at + bins + 5 for at in (bins + 3, bins + 4)]]
    halves = np.linspace(0.5, 9, 2 * bins)
    np.testing.assert_allclose(found.sums[0], halves[:bins] + halves[bins:])
    assert found.rows.tolist() == found.cells.sum(axis=1).tolist()
    assert sum(map(counting.rows_of, words)) == found.rows[0]


@pytest.mark.parametrize("bins", [0, 1, 256])
def test_a_rows_length_says_its_bins(bins: int) -> None:
    assert counting.bins_of(counting.row_words(bins)) == bins


@pytest.mark.parametrize(("rows", "expected"), [(0, 0), (1, 0), (511, 0), (512, 1), (1023, 1), (1024, 2), (1 << 40, 2)])
def test_large_batches_are_thinned_and_keep_256_rows(rows: int, expected: int) -> None:
    assert counting.thinning(rows) == expected
    assert rows >> expected >= min(rows, 256)
