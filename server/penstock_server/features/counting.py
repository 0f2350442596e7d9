"""How rows are counted: the layout of counts, the words that kernels count by, and counts as numpy arrays.

A row of counts, one per column, holds its bins, then the cells for rows that are in no bin, then two tallies of rows that
are in a bin already, then the sum of the values in each bin as float64 bits. All rows are as long as the longest needs.

The compiler puts `number_words` and `string_words` into a program, and `kernels.count` reads them. A number's bin is found
through an index: equal steps of the value, called slots, so small that a slot holds at most two edges. Two comparisons then
give the bin.

Of large batches a server counts one row in two or in four: to count each would add a third to the pass, and a window needs no
more rows. Of each two or four rows that follow one another one is counted. A hash of their place and of the batch's turn says
which, and never what they hold: so batches in any order, and rows that come in turns, are counted fairly.
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

# A number column's words: the number of edges, the offset of the first edge, and so on up to the index. Reals are float64
# bits. A value's slot is (value - LOW) * SCALE, limited to 0 and TOP. The index holds for each slot how many edges are in
# lower slots; REACH is the most edges in one slot. SMALLEST and LARGEST are the reference's range.
EDGES: Final = 0
EDGES_AT: Final = 1
REACH: Final = 2
LOW: Final = 3
SCALE: Final = 4
TOP: Final = 5
SMALLEST: Final = 6
LARGEST: Final = 7
INDEX: Final = 8

# A string column's words are the cell of each code that its table gives, and last the cell of strings not in the table.


THINNED_ROWS: Final = (512, 1024)
"""The rows from which on a batch is thinned once, and twice: what is counted is at least 256 rows then."""
MULTIPLIERS: Final = (0xBF58476D1CE4E5B9, 0x9E3779B97F4A7C15, 0xD6E8FEB86659FD93)
"""Of the hash: the turn times the first, plus the place, times the second, the high half folded onto the low, times the third.
Its high bits say which row it is."""


def thinning(rows: int) -> int:
    """How often a batch of so many rows is thinned: one in two rows is counted, or in four, or each where it is 0."""
    return sum(rows >= least for least in THINNED_ROWS)


def row_words(bins: int) -> int:
    """The length of a row of counts, in words."""
    return 2 * bins + EXTRA_CELLS + TALLIES


def bins_of(words: int) -> int:
    """The bins of a row of counts with this many words."""
    return (words - EXTRA_CELLS - TALLIES) // 2


def rows_of(words: NDArray[np.int64]) -> int:
    """The rows in counts as the kernels lay them out, int64 [columns, words]: each column counts each row once."""
    return int(words[0, : bins_of(words.shape[1]) + EXTRA_CELLS].sum())


def shape(cells: Cells) -> tuple[int, int]:
    """The shape of the counts of a specification's columns, int64: columns, words."""
    return len(cells.columns), row_words(cells.bins)


INDEX_SIZES: Final = (32, 64, 128, 256, 512)
"""Slots of an index; edges too close for the largest are compared one by one."""
MOST_REACH: Final = 2
"""The edges in one slot that the kernel compares without a branch."""


def number_words(cells: NumberCells) -> list[int]:
    """The words of a number column."""
    edges = np.array(cells.edges, np.float64)
    low, scale, slots = 0.0, 0.0, np.zeros(len(edges), np.int64)
    size = 1
    for size in INDEX_SIZES if len(edges) else ():
        low, scale = float(edges[0]), _scale(edges, size)
        slots = slots_of(edges, low, scale, size - 1)
        if np.bincount(slots).max() <= MOST_REACH:
            break
    index = np.searchsorted(slots, np.arange(size), side="left")
    reach = int(np.bincount(slots).max()) if len(edges) else 0
    reals = _bits([low, scale, float(size - 1), *cells.range])
    # No value is >= NaN, so a search ends there.
    ending = _bits([np.nan] * MOST_REACH)
    return [len(edges), INDEX + size, reach, *reals, *index.tolist(), *_bits(edges), *ending]


def string_words(column: StringCells, values: Sequence[str], bins: int) -> list[int]:
    """The words of a string column: the cell of each string in the table, and of strings not in it.

    Args:
        column: its cells.
        values: the strings of the column's table, by code. The empty string is missing; a string that is not watched is
            unseen.
        bins: of a row of counts.
    """
    unseen = bins + UNSEEN
    cells = {value: min(cell, column.binned) for cell, value in enumerate(column.watched)}
    cells[""] = bins + MISSING
    return [*(cells.get(value, unseen) for value in values), unseen]


def slots_of(values: NDArray[np.float64], low: float, scale: float, top: int) -> NDArray[np.int64]:
    """Each value's slot in an index, as the kernel computes it; it never falls as the value rises."""
    with np.errstate(over="ignore", invalid="ignore"):
        slots = (values - low) * scale
    slots = np.where(slots > 0, slots, 0.0)
    return np.where(slots < top, slots, top).astype(np.int64)


def _scale(edges: NDArray[np.float64], size: int) -> float:
    """Slots per unit of the value, so that the last edge is in the last slot."""
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
        """The number of bins, B."""
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
    extra = bins_of(size) + EXTRA_CELLS
    tail = np.ascontiguousarray(flat[:, :, extra + TALLIES :]).view(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        sums = tail.sum(axis=0)
    return Counts(flat[:, :, :extra].sum(axis=0), flat[:, :, extra : extra + TALLIES].sum(axis=0), sums)
