"""The cell that each raw value falls in, as serving counts it; the same as the kernels find, row by row.

Whoever replays rows needs to know of each row where it fell, and kernels only add up.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.drift.baseline import Baseline, NumberBaseline, StringBaseline
from penstock_server.features.counting import INFINITE, MISSING, UNSEEN
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
        if isinstance(known, StringBaseline):
            assert isinstance(column, StringColumn)
            found[:, at] = _strings(strings_of(table, column.name), known, baseline.bins)
        elif isinstance(column, TimeColumn):
            found[:, at] = _numbers(seconds_of(times_of(table, column.name)), known, baseline.bins)
        else:
            found[:, at] = _numbers(numbers_of(table, column.name), known, baseline.bins)
    return found


def _numbers(values: NDArray[np.float64], known: NumberBaseline, bins: int) -> NDArray[np.int64]:
    found = np.searchsorted(np.array(known.edges, np.float64), values, side="right")
    found[np.isnan(values)] = bins + MISSING
    found[np.isinf(values)] = bins + INFINITE
    return found


def _strings(values: list[bytes], known: StringBaseline, bins: int) -> list[int]:
    own = len(known.counts)
    cells = {value.encode(): min(cell, own) for cell, value in enumerate(known.watched)}
    cells[b""] = bins + MISSING
    unseen = bins + UNSEEN
    return [cells.get(value, unseen) for value in values]
