"""The share of rows that repeat a recent one, value for value.

A served row that repeats another may be a retry or a probe, and then tells nothing new about the traffic. But it says so only
where the training rows hardly repeat. The baseline keeps their share.
"""

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

RECENT_ROWS: Final = 4096
"""The different rows before a row among which it may be again."""
_ROWS_AT_ONCE: Final = 4096

Numbers = NDArray[np.float64] | NDArray[np.int64]
"""Numbers, NaN where one is missing, or times in nanoseconds, the smallest integer where one is missing."""
RawColumn = Numbers | list[bytes]
"""A raw column; the strings are UTF-8."""


def repeated_share(columns: Sequence[RawColumn]) -> float | None:
    """The share of rows that equal one of the last 4,096 different rows before them; None where there are no rows."""
    codes = [_codes(column) for column in columns]
    rows = len(codes[0]) if codes else 0
    recent: OrderedDict[bytes, None] = OrderedDict()
    repeats = 0
    for row in _rows(codes, rows):
        if row in recent:
            repeats += 1
            recent.move_to_end(row)
        else:
            recent[row] = None
            if len(recent) > RECENT_ROWS:
                recent.popitem(last=False)
    return repeats / rows if rows else None


def _codes(column: RawColumn) -> NDArray[np.int64]:
    """Equal where the values are: all missing numbers are one value, and both zeros."""
    if isinstance(column, list):
        known: dict[bytes, int] = {}
        return np.array([known.setdefault(value, len(known)) for value in column], np.int64)
    if column.dtype.kind == "i":
        return column.astype(np.int64)
    return np.where(np.isnan(column), np.nan, column + 0.0).view(np.int64)


def _rows(codes: Sequence[NDArray[np.int64]], rows: int) -> Iterator[bytes]:
    width = 8 * len(codes)
    for start in range(0, rows, _ROWS_AT_ONCE):
        block = np.stack([values[start : start + _ROWS_AT_ONCE] for values in codes], axis=1).tobytes()
        for at in range(0, len(block), width):
            yield block[at : at + width]
