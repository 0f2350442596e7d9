"""Functions for `FunctionTransformer` that numpy has no single one for, and that Penstock compiles.

    FunctionTransformer(cyclical, kw_args={"period": 24})

A saved pipeline refers to them by module and name, so that they cannot move, and loading it needs this module. It imports
numpy alone.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def cyclical(values: ArrayLike, period: ArrayLike = 1.0) -> NDArray[np.float64]:
    """Where each value stands in its cycle, so that the last hour of a day is near the first.

    Args:
        values: numbers [rows, columns]; NaN and the infinities give NaN.
        period: the length of a cycle in the values' unit, above 0; one for all columns, or one per column.

    Returns:
        float64 [rows, 2 * columns]: for each column the sine and the cosine of 2π·value/period.

    Raises:
        ValueError: `values` has not two axes, or a period is not above 0.
    """
    matrix = np.asarray(values, np.float64)
    periods: NDArray[Any] = np.asarray(period, np.float64)
    if matrix.ndim != 2 or periods.ndim > 1 or (periods.size not in (1, matrix.shape[1])):
        raise ValueError(
            f"values have the shape {list(matrix.shape)} and the period {list(periods.shape)}; "
            "expected rows and columns, and one period or one for each column"
        )
    if not np.all(periods > 0):
        raise ValueError(f"the period is {periods.min()}, expected a number above 0")
    with np.errstate(invalid="ignore"):
        angles = 2 * np.pi * matrix / periods
        return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(len(matrix), -1)
