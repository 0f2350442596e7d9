"""What the order of sample rows is: that of time, another column's, none, or what the publisher says.

How much a window may differ from the sample without drift is read from how the sample's rows change along their order. Shuffled
rows do not change at all, and rows that are sorted by a column change in everything that goes with it. `fit` asks here;
publishing warns.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from math import lgamma, log
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.drift.repeats import Numbers, RawColumn
from penstock_server.drift.report import Order
from penstock_server.drift.significance import noncentral_tail

FEW_ROWS: Final = 1000
"""Fewer rows may be in the order of time and not show it."""
_ALPHA: Final = 0.01
"""How often shuffled rows may be taken for others."""
_LEAST_CHANCE: Final = log(1e-6)
"""Equal values that lie together more seldom than this among shuffled rows were sorted."""
_EPOCH_S: Final = (5e8, 5e9)
"""Seconds since 1970 from 1985 to 2128."""


@dataclass(frozen=True, slots=True)
class RowOrder:
    """What the rows are ordered by.

    Attributes:
        order: "time", by a column of times; "sorted", by columns that need not be times; "shuffled", by nothing that shows in
            a column; "given" where nothing speaks against what the publisher says.
        columns: those that they are ordered by.
    """

    order: Order = "given"
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Change:
    """How much a column changes along the rows.

    Attributes:
        dispersion: Pearson's statistic of blocks against cells as a multiple of its mean for shuffled rows, no less than 1.
        freedom: that mean.
    """

    dispersion: float
    freedom: int


def row_order(columns: Mapping[str, RawColumn], times: Iterable[str], changes: Sequence[Change]) -> RowOrder:
    """What the rows of a sample are ordered by, as far as they show it.

    A column that never falls, or whose equal values all lie together, was sorted by, unless it is nearly constant. Numbers
    that count rows or moments up or down, and texts of times, are what rows in the order of time have.

    Args:
        columns: the raw values by name.
        times: the names of those that hold times.
        changes: how much each column changes along the rows.
    """
    in_time = [name for name in times if _is_sorted(np.asarray(columns[name]))]
    if in_time:
        return RowOrder("time", tuple(in_time))
    counting = {name for name, values in columns.items() if _counts_rows(values)}
    by = tuple(name for name, values in columns.items() if name not in counting and _is_sorted_by(values))
    texts_of_time = tuple(name for name in by if _holds_times(columns[name]))
    if texts_of_time:
        return RowOrder("time", texts_of_time)
    if by:
        return RowOrder("sorted", by)
    telling = [change for name, change in zip(columns, changes, strict=True) if name not in counting]
    rows = max(map(len, columns.values()), default=0)
    return RowOrder("shuffled") if rows >= FEW_ROWS and telling and is_still(telling) else RowOrder()


def is_still(changes: Sequence[Change]) -> bool:
    """Whether no column changes along the rows more than it might if they were shuffled."""
    p_values = noncentral_tail(
        [change.dispersion * change.freedom if change.dispersion > 1 else 0.0 for change in changes],
        [float(change.freedom) for change in changes],
        0.0,
    )
    return bool((p_values > _ALPHA / len(changes)).all())


def _is_sorted_by(values: RawColumn) -> bool:
    return _lies_together(values) if isinstance(values, list) else _is_sorted(values)


def _is_sorted(values: Numbers) -> bool:
    """Whether the values that are there never fall or never rise, and more seldom would by chance than once in a million."""
    there = _there(values)
    steps = _directions(there)
    if (steps > 0).any() and (steps < 0).any():
        return False
    _, counts = np.unique(there, return_counts=True)
    return log(2) + _log_chance(counts.tolist()) < _LEAST_CHANCE


def _lies_together(values: list[bytes]) -> bool:
    """Whether each text's rows are all together, and more seldom would be by chance than once in a million."""
    there = [value for value in values if value]
    counts = Counter(there)
    runs = sum(before != after for before, after in pairwise(there)) + bool(there)
    if runs > len(counts):
        return False
    return lgamma(len(counts) + 1) + _log_chance(counts.values()) < _LEAST_CHANCE


def _log_chance(counts: Iterable[int]) -> float:
    """The logarithm of the share of all orders of so many equal values that have one order of the values."""
    each = list(counts)
    return sum(lgamma(count + 1) for count in each) - lgamma(sum(each) + 1)


def _counts_rows(values: RawColumn) -> bool:
    """Whether it numbers the rows up or down, or the moments at which they came."""
    if isinstance(values, list):
        return False
    there = _there(values)
    steps = _directions(there)
    if len(there) < 2 or not ((steps > 0).all() or (steps < 0).all()):
        return False
    return bool((there == np.floor(there)).all()) or (_EPOCH_S[0] < there.min() and there.max() < _EPOCH_S[1])


def _directions(there: Numbers) -> NDArray[np.int8]:
    """1 where a value is above the one before, -1 below; a difference could overflow."""
    return (there[1:] > there[:-1]).astype(np.int8) - (there[1:] < there[:-1]).astype(np.int8)


def _there(values: Numbers) -> Numbers:
    is_there = values != np.iinfo(np.int64).min if values.dtype.kind == "i" else ~np.isnan(values)
    found: Numbers = values[is_there]
    return found


def _holds_times(values: RawColumn) -> bool:
    """Whether its texts are dates or times by ISO 8601, from the first to the last or back."""
    if not isinstance(values, list):
        return False
    there = [value for value in values if value]
    try:
        for value in set(there):
            datetime.fromisoformat(value.decode())
    except ValueError:
        return False
    # Such texts are in the order of their bytes.
    return there in (sorted(there), sorted(there, reverse=True))
