"""Counts a model's answers in their cells: classes by label, numbers in bins.

A batch is counted after it is answered. The few rows of the usual batch are counted in plain Python, which is faster than one
call of numpy. `Recorder` has a counter for each answer that a version's baseline has.
"""

from bisect import bisect_right
from collections.abc import Sequence
from math import isfinite, isnan
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.features import counting
from penstock_server.features.cells import ClassCells, NumberCells

FEW_ROWS: Final = 16
"""Up to this many rows, a loop takes less time than numpy's calls."""


class ClassCounts:
    """Counts labels; a label that was not predicted for any training row counts as unseen.

    Args:
        cells: a bin for each label.
        rows: int64 [sub-windows, words], the rows of counts to add to.
    """

    def __init__(self, cells: ClassCells, rows: NDArray[np.int64]) -> None:
        self._rows = [row.data for row in rows]
        self._cells = {label: cell for cell, label in enumerate(cells.labels)}
        self._unseen = counting.bins_of(rows.shape[1]) + counting.UNSEEN

    def place_of(self, label: int) -> int:
        """Which word of a row counts a label."""
        return self._cells.get(label, self._unseen)

    def add(self, place: int, labels: Sequence[int], counts: Sequence[int] | None = None) -> None:
        """Adds labels to the row at this position, each once or as often as `counts` says."""
        row, cells, unseen = self._rows[place], self._cells, self._unseen
        if counts is None:
            for label in labels:
                row[cells.get(label, unseen)] += 1
        else:
            for label, count in zip(labels, counts, strict=True):
                row[cells.get(label, unseen)] += count


class NumberCounts:
    """Counts numbers, and adds them to the sums of their bins.

    Args:
        cells: the bins.
        rows: int64 [sub-windows, words], the rows of counts to add to.

    Attributes:
        edges: of the bins, float64.
        bins: how many there are.
        range: the smallest and the largest value of the reference.
    """

    def __init__(self, cells: NumberCells, rows: NDArray[np.int64]) -> None:
        self._rows = rows
        self._sums = rows.view(np.float64)
        self.edges = np.array(cells.edges, np.float64)
        self._known = cells.edges
        self.bins = counting.bins_of(rows.shape[1])
        self._first_sum = self.bins + counting.EXTRA_CELLS + counting.TALLIES
        self.range = cells.range
        self._smallest, self._largest = cells.range

    def add(self, place: int, values: NDArray[Any]) -> None:
        """Adds values, floats [N], to the row at this position."""
        if len(values) <= FEW_ROWS:
            for value in values.tolist():
                self._add_one(place, value)
        else:
            self._add_many(place, values.astype(np.float64))

    def _add_one(self, place: int, value: float) -> None:
        row = self._rows[place]
        if not isfinite(value):
            row[self.bins + (counting.MISSING if isnan(value) else counting.INFINITE)] += 1
            return
        cell = bisect_right(self._known, value)
        row[cell] += 1
        self._sums[place, self._first_sum + cell] += value
        if not self._smallest <= value <= self._largest:
            row[self.bins + (counting.BELOW if value < self._smallest else counting.ABOVE)] += 1

    def _add_many(self, place: int, values: NDArray[np.float64]) -> None:
        row, sums = self._rows[place], self._sums[place, self._first_sum :]
        finite = values[np.isfinite(values)]
        missing = int(np.isnan(values).sum())
        cells = np.searchsorted(self.edges, finite, side="right")
        row[: self.bins] += np.bincount(cells, minlength=self.bins)
        sums += np.bincount(cells, finite, minlength=self.bins)
        row[self.bins + counting.MISSING] += missing
        row[self.bins + counting.INFINITE] += len(values) - len(finite) - missing
        row[self.bins + counting.BELOW] += np.count_nonzero(finite < self._smallest)
        row[self.bins + counting.ABOVE] += np.count_nonzero(finite > self._largest)
