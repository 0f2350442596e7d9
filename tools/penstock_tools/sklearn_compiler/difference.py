"""How far two matrices are apart, and where; NaN and the infinities are equal to themselves alone.

Pure; `proof` decides how much is due.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Difference:
    """The largest difference between two arrays of the same shape [rows, columns], as a share of the column's largest.

    Attributes:
        share: 0 where all are equal; inf where one is a number and the other is not.
        row, column: where.
    """

    share: float
    row: int
    column: int


def difference(got: NDArray[Any], expected: NDArray[Any], *, is_share: bool = True) -> Difference:
    """The largest difference between two matrices; not `is_share` takes it as it is."""
    if got.shape != expected.shape:
        return Difference(np.inf, 0, min(got.shape[1], expected.shape[1]))
    if not got.size:
        return Difference(0.0, 0, 0)
    finite = np.where(np.isfinite(expected), np.abs(expected), 0.0)
    scale = np.maximum(finite.max(axis=0, initial=0.0), np.finfo(np.float64).tiny) if is_share else 1.0
    with np.errstate(invalid="ignore", over="ignore"):
        share = np.abs(got - expected) / scale
    is_same = (got == expected) | (np.isnan(got) & np.isnan(expected))
    share = np.where(is_same, 0.0, np.where(np.isnan(share), np.inf, share))
    row, column = np.unravel_index(int(np.argmax(share)), share.shape)
    return Difference(float(share[row, column]), int(row), int(column))
