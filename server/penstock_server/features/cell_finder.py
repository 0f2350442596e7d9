"""Finds the cell of each value of a column, as the kernels count it: they only add up, and who joins columns needs each one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock_server.features.cells import ClassCells, NumberCells, StringCells
from penstock_server.features.counting import INFINITE, MISSING, UNSEEN

Places = NDArray[np.int64]


class CellFinder:
    """Finds the cells of one column, or of predictions.

    Args:
        cells: of the column.

    Attributes:
        bins: how many the column has; the cells of missing, infinite and unseen values are `bins` + 0, 1 and 2.
    """

    def __init__(self, cells: NumberCells | StringCells | ClassCells) -> None:
        self._edges = np.empty(0)
        self._labels = self._of_label = np.empty(0, np.int64)
        self._texts: dict[bytes, int] = {}
        self._is_class = isinstance(cells, ClassCells)
        if isinstance(cells, NumberCells):
            self.bins = len(cells.edges) + 1
            self._edges = np.array(cells.edges, np.float64)
        elif isinstance(cells, StringCells):
            self.bins = cells.binned + 1
            self._texts = {text.encode(): min(at, cells.binned) for at, text in enumerate(cells.watched)}
            self._texts[b""] = self.bins + MISSING
        else:
            self.bins = len(cells.labels)
            labels = np.array(cells.labels, np.int64)
            order = np.argsort(labels, kind="stable")
            self._labels, self._of_label = labels[order], order

    def of(self, values: NDArray[Any]) -> Places:
        """The cells of numbers, or of labels, [rows]."""
        if self._is_class:
            return self._of_labels(np.asarray(values, np.int64))
        numbers = np.asarray(values, np.float64)
        found: Places = np.searchsorted(self._edges, numbers, side="right")
        is_finite = np.isfinite(numbers)
        if is_finite.all():
            return found
        return np.where(is_finite, found, self.bins + np.where(np.isnan(numbers), MISSING, INFINITE))

    def _of_labels(self, labels: Places) -> Places:
        if not len(self._labels):
            return np.full(labels.shape, self.bins + UNSEEN)
        at = np.minimum(np.searchsorted(self._labels, labels), len(self._labels) - 1)
        return np.where(self._labels[at] == labels, self._of_label[at], self.bins + UNSEEN)

    def of_texts(self, texts: Sequence[bytes]) -> Places:
        """The cells of texts as UTF-8, [rows]; the empty one is missing."""
        unseen = self.bins + UNSEEN
        return np.array([self._texts.get(text, unseen) for text in texts], np.int64)
