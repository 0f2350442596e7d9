"""How rows are counted: how counts lie in memory, what a program needs to count by, and counts taken apart with numpy.

A row of counts, one for each column, is its bins, then the cells for what is in no bin, then two tallies of rows that are
in a bin already, then the sum of the values in each bin as float64 bits. All rows are as long as the longest needs.

The program's writer puts `number_words` and `string_words` where `kernels.count` finds them, which reads and adds to what
is described here. A number's bin is found through a guide: a table over equal steps of the value, fine enough that a step
holds two edges at most, so that two comparisons settle it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.features.cells import Cells, NumberCells, StringCells

# A row of counts, after its bins. Bins and these cells hold each row of a request once.
MISSING: Final = 0
INFINITE: Final = 1
UNSEEN: Final = 2
EXTRA_CELLS: Final = 3
# Finite values below the reference's smallest and above its largest, which the end bins hold too.
BELOW: Final = 3
ABOVE: Final = 4
TALLIES: Final = 2

# A number column's words: EDGES, the offset of the first, then the guide. Reals are float64 bits. A value's place in the
# guide is (value - LOW) * SCALE, within 0 and TOP; the guide says how many edges have a smaller place, and REACH how many
# have the same at most. SMALLEST and LARGEST are the reference's range.
EDGES: Final = 0
EDGES_AT: Final = 1
REACH: Final = 2
LOW: Final = 3
SCALE: Final = 4
TOP: Final = 5
SMALLEST: Final = 6
LARGEST: Final = 7
GUIDE: Final = 8

# A string column's words are the cell of each code that its look-up gives, the last for what the look-up does not find.


def words(bins: int) -> int:
    """The words of a row of counts with so many bins."""
    return 2 * bins + EXTRA_CELLS + TALLIES


def bins(words: int) -> int:
    """The bins of a row of counts with so many words."""
    return (words - EXTRA_CELLS - TALLIES) // 2


def shape(cells: Cells) -> tuple[int, int]:
    """The shape of the counts of a specification's columns, int64: columns, words."""
    return len(cells.columns), words(cells.bins)


GUIDE_SIZES: Final = (32, 64, 128, 256, 512)
"""Places in a guide; edges too close for the last are searched for one by one."""
MOST_REACH: Final = 2
"""The edges in one place that the kernel compares without a branch."""


def number_words(cells: NumberCells) -> list[int]:
    """The words of a number column."""
    edges = np.array(cells.edges, np.float64)
    low, scale, places = 0.0, 0.0, np.zeros(len(edges), np.int64)
    size = 1
    for size in GUIDE_SIZES if len(edges) else ():
        low, scale = float(edges[0]), _scale(edges, size)
        places = place_in_guide(edges, low, scale, size - 1)
        if np.bincount(places).max() <= MOST_REACH:
            break
    guide = np.searchsorted(places, np.arange(size), side="left")
    reach = int(np.bincount(places).max()) if len(edges) else 0
    reals = _bits([low, scale, float(size - 1), *cells.range])
    # No value is >= NaN, so that a search ends there.
    ending = _bits([np.nan] * MOST_REACH)
    return [len(edges), GUIDE + size, reach, *reals, *guide.tolist(), *_bits(edges), *ending]


def string_words(column: StringCells, values: Sequence[str], bins: int) -> list[int]:
    """The words of a string column: the cell of each of the look-up's `values`, and of what is none of them.

    A row of counts has so many `bins`. The empty string is missing, and what is not watched is unseen.
    """
    unseen = bins + UNSEEN
    cells = {value: min(cell, column.binned) for cell, value in enumerate(column.watched)}
    cells[""] = bins + MISSING
    return [*(cells.get(value, unseen) for value in values), unseen]


def place_in_guide(values: NDArray[np.float64], low: float, scale: float, top: int) -> NDArray[np.int64]:
    """Each value's place in a guide, as the kernel computes it: it never falls as the value rises."""
    with np.errstate(over="ignore", invalid="ignore"):
        places = (values - low) * scale
    places = np.where(places > 0, places, 0.0)
    return np.where(places < top, places, top).astype(np.int64)


def _scale(edges: NDArray[np.float64], size: int) -> float:
    """Steps a unit, so that the last edge is in the last place."""
    with np.errstate(over="ignore", divide="ignore"):
        return float((size - 1) / (edges[-1] - edges[0])) if len(edges) > 1 else 0.0


def _bits(values: Sequence[float] | NDArray[np.float64]) -> list[int]:
    words: list[int] = np.array(values, np.float64).view(np.int64).tolist()
    return words


@dataclass(frozen=True, slots=True, eq=False)
class Counts:
    """What was counted in columns of B bins each.

    Attributes:
        cells: int64 [columns, B + 3]: the rows of each bin, then the missing, the infinite and the unseen; every row once.
        outside: int64 [columns, 2]: the rows below the reference's range and above it, which the end bins hold too.
        sums: float64 [columns, B]: of the values in each bin.
    """

    cells: NDArray[np.int64]
    outside: NDArray[np.int64]
    sums: NDArray[np.float64]

    @property
    def bins(self) -> int:
        """B."""
        return int(self.sums.shape[1])

    @property
    def rows(self) -> NDArray[np.int64]:
        """The rows that each column counted, int64 [columns]."""
        total: NDArray[np.int64] = self.cells.sum(axis=1)
        return total


def counts_of(words: NDArray[np.int64]) -> Counts:
    """The sum of counts as the kernels lay them out, int64 [..., columns, words]."""
    columns, size = words.shape[-2:]
    flat = words.reshape(-1, columns, size)
    extra = bins(size) + EXTRA_CELLS
    tail = np.ascontiguousarray(flat[:, :, extra + TALLIES :]).view(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        sums = tail.sum(axis=0)
    return Counts(flat[:, :, :extra].sum(axis=0), flat[:, :, extra : extra + TALLIES].sum(axis=0), sums)


def added(parts: list[Counts]) -> Counts:
    """The sum of counts of the same columns."""
    with np.errstate(over="ignore", invalid="ignore"):
        return Counts(
            np.sum([part.cells for part in parts], axis=0),
            np.sum([part.outside for part in parts], axis=0),
            np.sum([part.sums for part in parts], axis=0),
        )
