"""How far the rows served lie from the rows trained on: pure functions of counts, a column at a time.

Counts are int64 [columns, cells], as `features.baseline` lays them out; missing, infinite and unseen values are cells
like others, so that a column that goes missing is drift. The cells that neither side has rows in do not exist: they add
nothing, and B, the number of cells, counts the others. p are reference shares of M rows, q current shares of N rows.

Too few rows answer None and not zero. Who collects the counts, and what becomes of an alarm, is decided elsewhere.
"""

from math import erfc, exp, lgamma, log, sqrt
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

ROWS_PER_CELL: Final = 25
"""Below N = 25 B the estimators are noise: at N = 100 and B = 10 raw PSI calls two in three quiet windows drift."""

MINIMUM_EFFECT: Final = 0.1
"""The PSI that is still called no drift, by `p_value`."""

Counts = NDArray[np.int64]
Reals = NDArray[np.float64]


def drift_scores(reference: Counts, current: Counts) -> tuple[float | None, ...]:
    """The Jensen-Shannon distance of each column, 0 to 1; None where there are too few rows to tell.

    Args:
        reference: int64 [columns, cells], the training rows.
        current: the same of the rows served.
    """
    _same_shape(reference, current)
    return tuple(
        jensen_shannon(known, now) if enough_rows(known, now) else None
        for known, now in zip(reference, current, strict=True)
    )


def enough_rows(reference: Counts, current: Counts) -> bool:
    """Whether both sides have at least 25 rows for each cell."""
    cells = int(np.count_nonzero((reference > 0) | (current > 0)))
    return cells > 0 and int(min(reference.sum(), current.sum())) >= ROWS_PER_CELL * cells


def jensen_shannon(reference: Counts, current: Counts) -> float:
    """The Jensen-Shannon distance in base 2: the root of the divergence, 0 for equal shares, 1 for disjoint ones."""
    p, q = _shares(reference), _shares(current)
    middle = (p + q) / 2
    divergence = (_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2
    return sqrt(min(max(divergence, 0.0), 1.0))


def psi(reference: Counts, current: Counts) -> float:
    """The population stability index, sum (p - q) ln(p / q), with empty cells filled as Evidently fills them.

    An empty share becomes 1e-4, or a millionth of the smallest share of its side where that is no larger than 1e-4;
    nothing is normalised again. For comparison with other tools: it depends on N, which `psi_unbiased` does not.
    """
    known, now = _present(reference, current)
    p, q = _filled(_shares(known)), _filled(_shares(now))
    return float(np.sum((p - q) * np.log(p / q)))


def psi_smoothed(reference: Counts, current: Counts) -> float:
    """The population stability index of shares with half a row added to each cell (Jeffreys)."""
    known, now = _present(reference, current)
    p, q = _shares(known + 0.5), _shares(now + 0.5)
    return float(np.sum((p - q) * np.log(p / q)))


def psi_unbiased(reference: Counts, current: Counts) -> float:
    """`psi_smoothed` less its mean without drift, (B - 1)(1/N + 1/M); around 0 then, a little below at times."""
    known, _ = _present(reference, current)
    return psi_smoothed(reference, current) - (len(known) - 1) * _noise(reference, current)


def p_value(
    reference: Counts, current: Counts, minimum_effect: float = MINIMUM_EFFECT, dispersion: float = 1.0
) -> float:
    """How likely so large an index is, if the true one is `minimum_effect`: noncentral chi-square's upper tail.

    Args:
        reference: the training rows in each cell.
        current: the rows served.
        minimum_effect: the true PSI that is tolerated; 0 is the ordinary chi-square test.
        dispersion: how much more the counts vary than independent rows would; 1 or more.
    """
    known, _ = _present(reference, current)
    noise = dispersion * _noise(reference, current)
    return noncentral_tail(psi_smoothed(reference, current) / noise, len(known) - 1, minimum_effect / noise)


def benjamini_hochberg(p_values: ArrayLike, rate: float) -> NDArray[np.bool_]:
    """Which hypotheses to reject so that of those rejected at most the share `rate` is expected to be wrong."""
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values, kind="stable")
    passing = np.flatnonzero(values[order] <= rate * np.arange(1, len(values) + 1) / max(len(values), 1))
    rejected = np.zeros(len(values), np.bool_)
    rejected[order[: passing[-1] + 1 if len(passing) else 0]] = True
    return rejected


def noncentral_tail(value: float, freedom: int, noncentrality: float) -> float:
    """P(X > value) of the noncentral chi-square distribution: central tails in a Poisson mixture.

    The tails with 2, 4, 6 ... more degrees of freedom follow from the first by adding one positive term each, so nothing
    cancels. Beyond ten deviations above the mixture's mean the weights are nothing.
    """
    if value <= 0 or freedom <= 0:
        return 1.0
    mean, half = noncentrality / 2, value / 2
    terms = np.arange(int(mean + 10 * sqrt(mean) + 40))
    # ln of half^(f/2 + j) e^-half / Gamma(f/2 + j + 1): what the j-th tail adds to make the next.
    log_factors = np.concatenate([[0.0], np.cumsum(np.log(freedom / 2 + terms[1:]))])
    added = np.exp((freedom / 2 + terms) * log(half) - half - log_factors - lgamma(freedom / 2 + 1))
    tails = _central_tail(half, freedom) + np.concatenate([[0.0], np.cumsum(added[:-1])])
    if mean == 0:
        return float(min(tails[0], 1.0))
    log_factorials = np.concatenate([[0.0], np.cumsum(np.log(terms[1:]))])
    return float(min(np.sum(np.exp(terms * log(mean) - mean - log_factorials) * tails), 1.0))


def _central_tail(half: float, freedom: int) -> float:
    """P(chi-square > 2 half): from the closed form of one or two degrees of freedom, up by two at a time."""
    shape = 0.5 if freedom % 2 else 1.0
    tail = erfc(sqrt(half)) if freedom % 2 else exp(-half)
    while shape < freedom / 2:
        tail += exp(shape * log(half) - half - lgamma(shape + 1))
        shape += 1
    return tail


def _present(reference: Counts, current: Counts) -> tuple[Counts, Counts]:
    _same_shape(reference, current)
    there = (reference > 0) | (current > 0)
    return reference[there], current[there]


def _same_shape(reference: Counts, current: Counts) -> None:
    if reference.shape != current.shape:
        raise ValueError(
            f"reference counts {list(reference.shape)} and current {list(current.shape)}, expected one shape"
        )


def _shares(counts: NDArray[np.generic]) -> Reals:
    total = counts.sum()
    if total <= 0:
        raise ValueError("there are no rows, expected at least one on each side")
    return np.asarray(counts / total, np.float64)


def _filled(shares: Reals) -> Reals:
    smallest = shares[shares > 0].min()
    return np.where(shares > 0, shares, 1e-4 if smallest > 1e-4 else smallest / 1e6)


def _noise(reference: Counts, current: Counts) -> float:
    return float(1 / reference.sum() + 1 / current.sum())


def _relative_entropy(p: Reals, q: Reals) -> float:
    there = p > 0
    return float(np.sum(p[there] * np.log2(p[there] / q[there])))
