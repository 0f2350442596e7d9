"""How much more a column's counts vary in time than those of independent rows would: its over-dispersion.

Traffic comes in bursts: rows that follow each other are alike, and a window of N rows says less than N independent ones.
The rows in time's order are cut into equal blocks. Were they independent, Pearson's statistic of the blocks' counts
against their common shares would be its degrees of freedom on average; the dispersion is the statistic over them, 1 or
more. It counts what changes from block to block within the training rows as no drift, a season too. Shuffled rows have 1.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

BLOCKS: Final = 20
"""Enough for a standard error of 7 % at 20 bins, and so few that a block holds what hangs together."""
LEAST_ROWS: Final = 10
"""A block of fewer rows says nothing about time."""


def dispersion(cells: NDArray[np.int64]) -> float:
    """The factor by which the counts' variance exceeds a multinomial's, 1 at least.

    Args:
        cells: int64 [rows], the cell that each row falls in, in the order of time.
    """
    blocks = min(BLOCKS, len(cells) // LEAST_ROWS)
    if blocks < 2:
        return 1.0
    _, codes = np.unique(cells, return_inverse=True)
    kinds = int(codes.max()) + 1
    if kinds < 2:
        return 1.0
    block = np.arange(len(cells)) * blocks // len(cells)
    counts = np.bincount(block * kinds + codes, minlength=blocks * kinds).reshape(blocks, kinds)
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / len(cells)
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return max(1.0, statistic / ((blocks - 1) * (kinds - 1)))
