"""The cell that each raw value of a table falls in, as serving counts it; the same as the kernels find, row by row.

Whoever replays rows, or counts them by several columns at once, needs to know of each row where it fell; kernels only add up.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.drift.baseline import Baseline
from penstock_server.features.cell_finder import CellFinder
from penstock_server.features.spec.spec import FeatureSpec, StringColumn, TimeColumn
from penstock_server.features.table import Table, numbers_of, row_count, seconds_of, strings_of, times_of

Codes = NDArray[np.uint16]
"""The cell of each row and column, [rows, columns]; uint16, since there are up to 259 cells."""
CODE: Final = np.dtype(np.uint16)


def codes_of(spec: FeatureSpec, baseline: Baseline, table: Table) -> Codes:
    """The cells of a table's rows, by the baseline of this specification.

    Raises:
        InvalidInputError: a column is missing or not of its kind.
    """
    rows = row_count(table, [column.name for column in spec.columns])
    found = np.empty((rows, len(spec.columns)), CODE)
    for at, (column, known) in enumerate(zip(spec.columns, baseline.columns, strict=True)):
        finder = CellFinder(known.cells)
        if isinstance(column, StringColumn):
            cells = finder.of_texts(strings_of(table, column.name))
        elif isinstance(column, TimeColumn):
            cells = finder.of(seconds_of(times_of(table, column.name)))
        else:
            cells = finder.of(numbers_of(table, column.name))
        # All columns have the cells of missing, infinite and unseen values at the same places.
        found[:, at] = np.where(cells >= finder.bins, cells - finder.bins + baseline.bins, cells)
    return found
