"""That cells are those of the kernels is tested in `drift.test_codes`."""

import numpy as np
import pytest

from penstock_server.features.cell_finder import CellFinder
from penstock_server.features.cells import ClassCells, NumberCells, StringCells

NUMBERS = CellFinder(NumberCells((1.0, 2.0)))
TEXTS = CellFinder(StringCells(("a", "bé", "c"), binned=2))
CLASSES = CellFinder(ClassCells((7, -1, 3)))


def test_a_value_on_an_edge_is_in_the_bin_above() -> None:
    assert NUMBERS.bins == 3
    assert NUMBERS.of(np.array([0.0, 1.0, 1.5, 2.0, 9.0])).tolist() == [0, 1, 1, 2, 2]
    assert NUMBERS.of(np.array([np.nan, np.inf, -np.inf, 0.0])).tolist() == [3, 4, 4, 0]
    assert NUMBERS.of(np.array([1, 2], np.float32)).tolist() == [1, 2]


def test_texts_share_the_last_bin_where_they_have_none_of_their_own() -> None:
    assert TEXTS.bins == 3
    assert TEXTS.of_texts([b"a", "bé".encode(), b"c", b"", b"?"]).tolist() == [0, 1, 2, 3, 5]
    assert TEXTS.of_texts([]).tolist() == []


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8])
def test_labels_are_found_in_any_order(dtype: type) -> None:
    assert CLASSES.bins == 3
    assert CLASSES.of(np.array([3, 7, 4, 0], dtype)).tolist() == [2, 0, 5, 5]
    assert CLASSES.of(np.array([-1, 9])).tolist() == [1, 5]
    assert CellFinder(ClassCells(())).of(np.array([1])).tolist() == [2]
