import numpy as np
import pytest

from penstock_server.drift.fit import fit_baseline, fit_classes, fit_number, with_predictions
from penstock_server.drift.reference import bin_labels, reference_of
from penstock_server.features import counting as layout
from penstock_server.features.counting import Counts, added, counts_of
from penstock_server.features.spec.spec import FeatureSpec, Join, NumberColumn, StringColumn, Take

SPEC = FeatureSpec((NumberColumn("x"), StringColumn("s"), NumberColumn("gone")), Join((Take(("x",)),)))
TABLE = {
    "x": [1.0, 2, 3, 4, np.nan, np.inf],
    "s": ["b", "b", "a", "", "?", "b"],
    "gone": [np.nan] * 6,
}
BASELINE = fit_baseline(SPEC, TABLE, bins=2)


def test_a_baselines_rows_lie_in_its_arrays() -> None:
    found = reference_of(with_predictions(BASELINE, fit_classes("label", [1, 1, 0, 0, 0, 0], ("no", "yes"))))
    assert found.names == ("x", "s", "gone", "label")
    assert found.kinds == ("number", "string", "number", "class")
    assert found.has_predictions
    assert found.cells.tolist() == [
        [1, 3, 0, 0, 1, 1, 0],
        [3, 1, 1, 0, 1, 0, 0],
        [0, 0, 0, 0, 6, 0, 0],
        [4, 2, 0, 0, 0, 0, 0],
    ]
    assert found.sums[:3].tolist() == [[1, 9, 0, 0], [0] * 4, [0] * 4]
    assert found.edges.tolist() == [[pytest.approx(2 - 2e-6)] * 4, [0] * 4, [0] * 4, [0] * 4]
    assert found.is_number.tolist() == [True, False, True, False]
    assert found.labels[1:] == (("b", "?", "a", "(others)"), ("any",), ("no", "yes"))


def test_a_regressions_output_is_a_score() -> None:
    found = reference_of(with_predictions(BASELINE, fit_number("y", np.array([1.0, 2.0, 3.0]), 2)))
    assert (found.kinds[-1], found.names[-1], bool(found.is_number[-1])) == ("score", "y", True)


def test_bins_are_called_by_their_edges_or_their_one_value() -> None:
    assert bin_labels(fit_number("x", np.arange(100.0), 4)) == ("< 24", "24 to 49", "49 to 74", ">= 74")
    few = fit_number("x", np.array([1.0] * 60 + [2.0] * 30 + [3.5] * 10), 10)
    assert bin_labels(few) == ("< 1", "= 1", "1 to 2", "= 2", "> 2")


def words_of(bins: int) -> np.ndarray:
    """Two sub-windows of one column, every word another number."""
    words = np.zeros((2, 1, layout.words(bins)), np.int64)
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
    each = added([counts_of(words[at]) for at in range(2)])
    assert isinstance(each, Counts)
    np.testing.assert_array_equal(each.cells, found.cells)
    np.testing.assert_array_equal(each.sums, found.sums)
    assert found.rows.tolist() == found.cells.sum(axis=1).tolist()


@pytest.mark.parametrize("bins", [0, 1, 256])
def test_a_rows_length_says_its_bins(bins: int) -> None:
    assert layout.bins(layout.words(bins)) == bins
