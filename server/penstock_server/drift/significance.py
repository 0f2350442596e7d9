"""Tests whether rows drifted, with error control over many columns; pure functions.

A column is tested against the smallest effect that matters: with enough rows, a test against no change at all is always
significant. The smoothed index divided by its noise is then noncentral chi-square. Columns are judged together, so that
the expected share of wrong ones among those called drifted is limited.
"""

from math import erfc, exp, lgamma, log, sqrt
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from penstock_server.drift.statistics import CellCounts, Reals, degrees_of_freedom, psi_smoothed, sampling_noise

MINIMUM_EFFECT: Final = 0.1
"""The population stability index that is still no drift, unless a baseline or a setting says otherwise."""

_SPREADS: Final = 9
"""Deviations beyond which a distribution has less than 1e-17, and a Poisson distribution's terms add no more."""
_MARGIN: Final = 60
_CERTAIN: Final = 38
"""Deviations beyond which a distribution has less than 1e-300."""
_TERMS_AT_ONCE: Final = 1_000_000


def p_value(
    reference: CellCounts,
    current: CellCounts,
    minimum_effect: Any = MINIMUM_EFFECT,
    dispersion: Any = 1.0,
    dispersion_now: Any = 1.0,
) -> Reals:
    """How likely so large an index is, if the true one is `minimum_effect`: noncentral chi-square's upper tail.

    Args:
        reference: int64 [..., cells], the training rows in each cell.
        current: the rows served.
        minimum_effect: the true PSI that is tolerated; 0 is the ordinary chi-square test.
        dispersion: how much more the counts vary than independent rows would; 1 or more.
        dispersion_now: the same of the rows served, where they vary more than those trained on.
    """
    noise = sampling_noise(reference, current, dispersion, np.maximum(dispersion, dispersion_now))
    freedom = degrees_of_freedom(reference, current)
    return noncentral_tail(psi_smoothed(reference, current) / noise, freedom, minimum_effect / noise)


def benjamini_hochberg(p_values: ArrayLike, rate: float) -> NDArray[np.bool_]:
    """Which hypotheses to reject so that of those rejected at most the share `rate` is expected to be wrong."""
    values = np.asarray(p_values, np.float64)
    order = np.argsort(values, kind="stable")
    passing = np.flatnonzero(values[order] <= rate * np.arange(1, len(values) + 1) / len(values))
    rejected = np.zeros(len(values), np.bool_)
    rejected[order[: passing[-1] + 1 if len(passing) else 0]] = True
    return rejected


def simes(p_values: ArrayLike) -> float:
    """One p-value of the hypothesis that nothing drifted: up to a rate exactly where `benjamini_hochberg` rejects any."""
    values = np.sort(np.asarray(p_values, np.float64))
    if not len(values):
        raise ValueError("there are no p-values, expected at least one")
    return float((values * len(values) / np.arange(1, len(values) + 1)).min())


def noncentral_tail(value: Any, freedom: Any, noncentrality: Any) -> Reals:
    """P(X > value) of noncentral chi-square distributions: central tails in a Poisson mixture.

    Args:
        value: float64 [...], broadcast with the others.
        freedom: whole numbers.
        noncentrality: 0 is the central distribution.

    Returns:
        float64 [...], 1 where there is no value or no freedom, 0 below 1e-300.
    """
    values, *others = np.broadcast_arrays(np.maximum(value, 0.0), freedom, noncentrality)
    half, shape, mean = (np.ravel(each) / 2 for each in (values, *others))
    is_possible = (half > 0) & (shape > 0)
    # A value is the square of the length of normal numbers around a point, and a length strays no farther than a single
    # normal number does. So beyond some deviations the tail is 1, but for rounding, or 0.
    deviations = np.sqrt(2 * half) - np.sqrt(2 * (shape + mean))
    tails = np.where(is_possible & (deviations > 0), 0.0, 1.0)
    open_ones = np.flatnonzero(is_possible & (deviations > -_SPREADS) & (deviations < _CERTAIN))
    starts, widths = _windows(half[open_ones], mean[open_ones])
    step = max(1, _TERMS_AT_ONCE // int(widths.max(initial=1)))
    for at in range(0, len(open_ones), step):
        some, part = open_ones[at : at + step], slice(at, at + step)
        tails[some] = _mixtures(half[some], shape[some], mean[some], starts[part], int(widths[part].max()))
    found: Reals = tails.reshape(values.shape)[()]
    return found


def _windows(half: Reals, mean: Reals) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The terms of a mixture that count: from below both the weights' middle and the tails', to beyond their product's."""
    low, high = np.minimum(half, mean), np.sqrt(mean * np.maximum(half, mean))
    start = np.maximum(low - _SPREADS * np.sqrt(low) - _MARGIN, 0).astype(np.int64)
    end = (high + _SPREADS * np.sqrt(high) + _MARGIN).astype(np.int64)
    return start, end - start


def _mixtures(half: Reals, shape: Reals, mean: Reals, start: NDArray[np.int64], width: int) -> Reals:
    """Sums of weights times tails over `width` terms from `start`, one row per distribution.

    The tails with 2, 4, 6 ... more degrees of freedom follow from the first by adding one positive term each, so nothing
    cancels.
    """
    terms = start[:, None] + np.arange(width)
    factorials = _log_gammas(start.astype(np.float64) + 1, width)
    # ln of half^(shape + j) e^-half / Gamma(shape + j + 1): what the j-th tail adds to make the next.
    added = np.exp(
        (shape[:, None] + terms) * np.log(half)[:, None] - half[:, None] - _log_gammas(shape + start + 1, width)
    )
    first = [_central_tail(one, 2 * form) if at == 0 else 0.0 for one, form, at in zip(half, shape, start, strict=True)]
    tails = np.array(first)[:, None] + np.cumsum(added, axis=1) - added
    with np.errstate(divide="ignore", invalid="ignore"):
        exponents = np.where(terms > 0, terms * np.log(mean)[:, None], 0.0) - mean[:, None] - factorials
    total: Reals = np.minimum((np.exp(exponents) * tails).sum(axis=1), 1.0)
    return total


def _log_gammas(first: Reals, width: int) -> Reals:
    """The logarithms of Gamma of `first`, `first` + 1, ..., one row per value of `first`."""
    steps = np.log(first[:, None] + np.arange(width - 1))
    starts = np.array([lgamma(one) for one in first])[:, None]
    return np.concatenate([starts, starts + np.cumsum(steps, axis=1)], axis=1)


def _central_tail(half: float, freedom: float) -> float:
    """P(chi-square > 2 half): from the closed form of one or two degrees of freedom, up by two at a time."""
    is_odd = int(freedom) % 2
    shape = 0.5 if is_odd else 1.0
    tail = erfc(sqrt(half)) if is_odd else exp(-half)
    while shape < freedom / 2:
        tail += exp(shape * log(half) - half - lgamma(shape + 1))
        shape += 1
    return tail
