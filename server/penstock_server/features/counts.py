"""Rows of drift counts in their parts: `layout_counts`, seen with numpy.

Whoever sums, compares or shows counts takes them apart here: the baseline's reference, the windows of workers.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock_server.features import layout_counts as layout


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
    extra = layout.bins(size) + layout.EXTRA_CELLS
    tail = np.ascontiguousarray(flat[:, :, extra + layout.TALLIES :]).view(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        sums = tail.sum(axis=0)
    return Counts(flat[:, :, :extra].sum(axis=0), flat[:, :, extra : extra + layout.TALLIES].sum(axis=0), sums)


def added(parts: list[Counts]) -> Counts:
    """The sum of counts of the same columns."""
    with np.errstate(over="ignore", invalid="ignore"):
        return Counts(
            np.sum([part.cells for part in parts], axis=0),
            np.sum([part.outside for part in parts], axis=0),
            np.sum([part.sums for part in parts], axis=0),
        )
