"""How small a drift a column can show: the smallest index that a window of N rows is called drift for at a given power.

Pure. Publishing warns with it, and reports say it beside a column: that a column did not drift is no news where no drift of
it would be seen. Exactly, as publishing has it, it takes a millisecond per column; about, as each report has it for the rows of
its window, a millisecond for hundreds of columns.
"""

from math import log, sqrt
from statistics import NormalDist
from typing import Any, Final

import numpy as np

from penstock_server.drift.report import RATE
from penstock_server.drift.significance import MINIMUM_EFFECT, noncentral_tail
from penstock_server.drift.statistics import CellCounts, Reals, rows_needed

POWER: Final = 0.8
"""How often a drift of the smallest detectable size is seen, by custom."""

_HALVINGS: Final = 20
"""They narrow a bracket to a millionth, which is more than anybody reads."""


def smallest_detectable(
    reference: CellCounts,
    rows: int,
    minimum_effect: Any = MINIMUM_EFFECT,
    dispersion: Any = 1.0,
    *,
    rate: float = RATE,
    power: float = POWER,
) -> Reals:
    """The true population stability index that the share `power` of windows of `rows` rows are called drift for.

    The test is that of `significance.p_value`, of one column at this rate; where columns are judged together it takes a
    little more. The index in units of its noise is noncentral chi-square: around the tolerated one where the threshold
    comes from, around the true one where the power does.

    Args:
        reference: int64 [..., cells], the training rows in each cell; the window is taken to have rows in the same ones.
        rows: N, in the window.
        minimum_effect: the index that is tolerated.
        dispersion: how much more the counts vary than independent rows would.
        rate: the share of false calls.
        power: the share of true ones.

    Returns:
        float64 [...]; infinite where nothing is ever called drift: a side has too few rows, or all are in one cell.
    """
    counts = np.asarray(reference, np.int64)
    total, needed = counts.sum(axis=-1), rows_needed(counts, counts)
    freedom = np.maximum((counts > 0).sum(axis=-1) - 1.0, 0.0)
    noise = dispersion * (1 / np.maximum(total, 1) + 1 / max(rows, 1))
    found = noise * _effect(_threshold(freedom, minimum_effect / noise, rate), freedom, power)
    is_judged = (freedom > 0) & (np.minimum(total, rows) >= needed)
    return np.asarray(np.where(is_judged, found, np.inf), np.float64)[()]


def about_detectable(
    freedom: Reals, noise: Reals, minimum_effect: Any, *, rate: float = RATE, power: float = POWER
) -> Reals:
    """About the same, by a closed form of the quantiles: to 3 % with two cells, to 1 % with three, to 0.3 % with ten.

    Args:
        freedom: float64 [columns], the cells less one.
        noise: float64 [columns], by which the index is chi-square.
        minimum_effect: float64 [columns], the index that is tolerated.
        rate: the share of false calls.
        power: the share of true ones.

    Returns:
        float64 [columns]; infinite where all rows are in one cell.
    """
    shape = np.maximum(freedom, 1.0)
    threshold = _about_quantile(shape, minimum_effect / noise, NormalDist().inv_cdf(1 - rate))
    low, high = np.zeros_like(threshold), _most(threshold, power)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        is_seen = _about_quantile(shape, middle, NormalDist().inv_cdf(1 - power)) >= threshold
        low, high = np.where(is_seen, low, middle), np.where(is_seen, middle, high)
    return np.where(freedom > 0, noise * (low + high) / 2, np.inf)


def _about_quantile(freedom: Reals, noncentrality: Reals, deviations: float) -> Reals:
    """A noncentral chi-square distribution's quantile, by a power of the values that is nearly normal (Sankaran 1963)."""
    mean = freedom + noncentrality
    half_variance = mean + noncentrality
    exponent = 1 - 2 * mean * (mean + 2 * noncentrality) / (3 * half_variance**2)
    spread = half_variance / mean**2
    bent = spread * (exponent - 1) * (1 - 3 * exponent)
    middle = 1 + exponent * spread * (exponent - 1 - (2 - exponent) * bent / 2)
    deviation = exponent * np.sqrt(2 * spread) * (1 + bent / 2)
    found: Reals = mean * np.maximum(middle + deviations * deviation, 0.0) ** (1 / exponent)
    return found


# The brackets: such a value is the square of the length of normal numbers around a point, and of a length the share
# e^(-d^2 / 2) at most is more than d beyond its mean, on either side. Its mean is between the root of the square's mean and
# that of one less.


def _threshold(freedom: Reals, noncentrality: Reals, rate: float) -> Reals:
    """What the share `rate` of noncentral chi-square values exceed."""
    most = (np.sqrt(freedom + noncentrality) + sqrt(-2 * log(rate))) ** 2
    low, high = np.zeros_like(most), most
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        is_below = noncentral_tail(middle, freedom, noncentrality) > rate
        low, high = np.where(is_below, middle, low), np.where(is_below, high, middle)
    return (low + high) / 2


def _effect(threshold: Reals, freedom: Reals, power: float) -> Reals:
    """The noncentrality of which the share `power` of the values exceed the threshold."""
    most = _most(threshold, power)
    low, high = np.zeros_like(most), most
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        is_seen = noncentral_tail(threshold, freedom, middle) >= power
        low, high = np.where(is_seen, low, middle), np.where(is_seen, middle, high)
    return (low + high) / 2


def _most(threshold: Reals, power: float) -> Reals:
    found: Reals = (np.sqrt(threshold) + sqrt(-2 * log(1 - power))) ** 2 + 1
    return found
