"""Distances between the rows served and the rows trained on: pure functions of counts and sums.

Counts are int64 [..., cells], as `features.counting` has them. Every function takes many columns at once and reduces
the last axis. Missing, infinite and unseen values are cells like others, so a column that goes missing is drift. Cells
in which neither side has rows are left out: B, the number of cells, counts the others. p are reference shares of M
rows, q current shares of N rows. Both sides must have rows; `enough_rows` says whether these are enough.

`significance` says how certain a difference is.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

ROWS_PER_CELL: Final = 25
"""Below N = 25 B the estimators are noise: at N = 100 and B = 10 raw PSI calls two in three quiet windows drift."""

CellCounts = NDArray[np.int64]
Reals = NDArray[np.float64]


def rows_needed(reference: CellCounts, current: CellCounts) -> CellCounts:
    """25 rows per cell that either side has rows in."""
    return np.asarray(ROWS_PER_CELL * _present(reference, current).sum(axis=-1), np.int64)[()]


def enough_rows(reference: CellCounts, current: CellCounts) -> NDArray[np.bool_]:
    """Whether both sides have `rows_needed`."""
    needed = rows_needed(reference, current)
    fewest = np.minimum(reference.sum(axis=-1), current.sum(axis=-1))
    return np.asarray((needed > 0) & (fewest >= needed), np.bool_)


def dispersion(parts: CellCounts) -> Reals:
    """How much more counts vary from part to part of a window than those of independent rows, 1 or more.

    Pearson's statistic of the table of parts and cells, by its degrees of freedom. Rows that repeat, and bursts of rows that
    are alike, vary more; and so does a window in which the rows change.

    Args:
        parts: int64 [parts, ..., cells].

    Returns:
        float64 [...].

    >>> float(dispersion(np.array([[30, 20, 10], [10, 20, 30], [20, 20, 20]])))
    5.0
    """
    rows, cells = parts.sum(axis=-1, keepdims=True), parts.sum(axis=0)
    total = cells.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        expected = rows * (cells / total)
        terms = np.where(expected > 0, (parts - expected) ** 2 / expected, 0.0)
        freedom = ((rows[..., 0] > 0).sum(axis=0) - 1) * ((cells > 0).sum(axis=-1) - 1)
        found = np.where(freedom > 0, terms.sum(axis=(0, -1)) / freedom, 1.0)
    return _real(np.maximum(found, 1.0))


def neighbours(parts: CellCounts | Reals) -> tuple[Reals, Reals]:
    """How much each part of a stretch of rows differs from the next: Pearson's statistics, and their degrees of freedom.

    Args:
        parts: [parts, ..., cells].

    Returns:
        float64 [parts - 1, ...] each; both 0 where a part has no rows.
    """
    before, after = np.asarray(parts[:-1], np.float64), np.asarray(parts[1:], np.float64)
    both = before + after
    rows_before, rows_after = before.sum(axis=-1, keepdims=True), after.sum(axis=-1, keepdims=True)
    has_rows = (rows_before * rows_after)[..., 0] > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = (before * rows_after - after * rows_before) ** 2 / (both * rows_before * rows_after)
    found = np.where(has_rows, np.where(both > 0, terms, 0.0).sum(axis=-1), 0.0)
    freedom = np.where(has_rows, np.maximum((both > 0).sum(axis=-1) - 1.0, 0.0), 0.0)
    return _real(found), _real(freedom)


def jensen_shannon(reference: CellCounts, current: CellCounts) -> Reals:
    """The Jensen-Shannon distance in base 2: the root of the divergence, 0 for equal shares, 1 for disjoint ones."""
    p, q = _shares(reference), _shares(current)
    middle = (p + q) / 2
    divergence = (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2
    return _real(np.sqrt(np.clip(divergence, 0.0, 1.0)))


def psi(reference: CellCounts, current: CellCounts) -> Reals:
    """The population stability index, sum (p - q) ln(p / q), with empty cells filled as Evidently fills them.

    An empty share becomes 1e-4, or a millionth of the smallest share of its side where that is no larger than 1e-4;
    nothing is normalised again. For comparison with other tools: it depends on N, which `psi_unbiased` does not.
    """
    there = _present(reference, current)
    p, q = _filled(_shares(reference)), _filled(_shares(current))
    return _real(np.where(there, (p - q) * np.log(p / q), 0.0).sum(axis=-1))


def psi_smoothed(reference: CellCounts, current: CellCounts) -> Reals:
    """The population stability index of shares with half a row added to each cell (Jeffreys)."""
    there = _present(reference, current)
    p, q = _shares(np.where(there, reference + 0.5, 0.0)), _shares(np.where(there, current + 0.5, 0.0))
    ratio = np.divide(p, q, out=np.ones_like(p), where=there)
    return _real(((p - q) * np.log(ratio)).sum(axis=-1))


def psi_unbiased(reference: CellCounts, current: CellCounts) -> Reals:
    """`psi_smoothed` less its mean without drift, (B - 1)(1/N + 1/M); around 0 then, a little below at times."""
    return psi_smoothed(reference, current) - degrees_of_freedom(reference, current) * sampling_noise(
        reference, current
    )


def degrees_of_freedom(reference: CellCounts, current: CellCounts) -> Reals:
    """The number of cells less one, B - 1."""
    return _real(_present(reference, current).sum(axis=-1) - 1.0)


def sampling_noise(reference: CellCounts, current: CellCounts, known: Any = 1.0, now: Any = 1.0) -> Reals:
    """known/M + now/N, by which smoothed indices are chi-square, `known` and `now` being each side's dispersion."""
    return _real(known / reference.sum(axis=-1) + now / current.sum(axis=-1))


def kolmogorov_smirnov(reference: CellCounts, current: CellCounts) -> tuple[Reals, Reals]:
    """The largest distance of two distribution functions at the edges of bins, and the most that it may be too small.

    Args:
        reference: int64 [..., B], rows in increasing bins.
        current: the same.

    Returns:
        D and s: the true distance is at least D and at most D + s, the largest share of a bin on either side.
    """
    p, q = _shares(reference), _shares(current)
    largest = np.abs(np.cumsum(p - q, axis=-1)).max(axis=-1)
    return _real(largest), _real(np.maximum(p, q).max(axis=-1))


def wasserstein(reference: CellCounts, current: CellCounts, sums: tuple[Reals, Reals], edges: Reals) -> Reals:
    """A lower bound of the Wasserstein distance of two columns of numbers, from counts and sums in bins.

    The integral of a distribution function over a bin from a to b is b F(b) - a F(a) less the mean part of the bin's sum,
    exactly. So what is lost is only what cancels inside a bin in which the two functions cross.

    Args:
        reference: int64 [..., B], rows in increasing bins, of which the end ones are open.
        current: the same.
        sums: float64 [..., B] of each side, of the values in each bin.
        edges: float64 [..., B], where each bin ends; the last edge again where it has no end.

    Returns:
        In the column's unit; NaN where a sum overflowed.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        known, now = _integrals(reference, sums[0], edges), _integrals(current, sums[1], edges)
        return _real(np.abs(known - now).sum(axis=-1))


def _integrals(counts: CellCounts, sums: Reals, edges: Reals) -> Reals:
    """The integral of the distribution function over each bin; over the last, of the function less 1."""
    rows = counts.sum(axis=-1, keepdims=True)
    at_edges = edges * np.cumsum(counts, axis=-1) / rows
    return _real(np.diff(at_edges, axis=-1, prepend=0.0) - sums / rows)


def _present(reference: CellCounts, current: CellCounts) -> NDArray[np.bool_]:
    if reference.shape != current.shape:
        raise ValueError(
            f"reference counts {list(reference.shape)} and current {list(current.shape)}, expected one shape"
        )
    return np.asarray((reference > 0) | (current > 0), np.bool_)


def _shares(counts: NDArray[Any]) -> Reals:
    total = counts.sum(axis=-1, keepdims=True)
    if not (total > 0).all():
        raise ValueError("there are no rows, expected at least one on each side")
    return _real(counts / total)


def _filled(shares: Reals) -> Reals:
    smallest = np.where(shares > 0, shares, np.inf).min(axis=-1, keepdims=True)
    return np.where(shares > 0, shares, np.where(smallest > 1e-4, 1e-4, smallest / 1e6))


def _relative_entropy(p: Reals, q: Reals) -> Reals:
    ratio = np.divide(p, q, out=np.ones_like(p), where=p > 0)
    return _real((p * np.log2(ratio)).sum(axis=-1))


def _real(values: Any) -> Reals:
    return np.asarray(values, np.float64)[()]
