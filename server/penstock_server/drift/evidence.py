"""How strongly counts speak against "no drift that matters", valid however often one looks; pure functions.

The null is that the rows' true shares q have a relative entropy KL(p || q) of at most a tolerance from the training shares p.
An e-value is at most 1 on average under the null, and grows exponentially with the rows outside it: a Dirichlet mixture over
all alternatives, divided by the largest likelihood within the null (universal inference: Wasserman, Ramdas and Balakrishnan,
PNAS 2020). The sum of the e-values over possible beginnings passes a threshold A by chance at most once in A looks on average
(Shiryaev-Roberts e-detector: Shin, Ramdas and Rinaldo, 2022), and the beginning with the largest is when the drift began.

Counts may be fractions: rows that hang together count as fewer.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Reals = NDArray[np.float64]

CONCENTRATION: Final = 20.0
"""The rows that the mixture's prior, centred on the training shares, is worth."""
_SHIFT: Final = 8
_STIRLING: Final = (1 / 12, -1 / 360, 1 / 1260, -1 / 1680, 1 / 1188)
_STEPS: Final = 100
_PRECISION: Final = 1e-10
_NEARLY: Final = 1 - 1e-9
"""As near as shares come to counts that leave a cell empty, which have an infinite relative entropy however small the cell."""


def tolerance(minimum_effect: Any, reference_rows: Any, cells: Any, dispersion: Any = 1.0) -> Reals:
    """The relative entropy, in nats, that is still no drift.

    A population stability index is about twice as large. The training shares are known from some rows only, which adds what
    such an estimate is off on average.

    Args:
        minimum_effect: the index that is still no drift.
        reference_rows: the training rows.
        cells: that a column has.
        dispersion: how much more the training counts vary than independent rows would.
    """
    return np.asarray(minimum_effect / 2 + dispersion * (cells - 1) / (2 * np.maximum(reference_rows, 1)), np.float64)


def log_e_values(shares: Reals, counts: Reals, tolerated: Any) -> Reals:
    """The logarithms of the e-values of counts.

    Args:
        shares: float64 [..., cells], the training shares, which sum to 1; 0 where a column has no such cell.
        counts: float64 [..., cells], the rows in each cell, 0 where there is none.
        tolerated: the relative entropy that is still no drift, in nats; broadcast with the others without their last axis.

    Returns:
        float64 [...]; 0 where there are no rows.
    """
    p, c = np.broadcast_arrays(np.asarray(shares, np.float64), np.asarray(counts, np.float64))
    kappa = np.broadcast_to(tolerated, p.shape[:-1]).reshape(-1)
    shape, p, c = p.shape[:-1], p.reshape(-1, p.shape[-1]), c.reshape(-1, c.shape[-1])
    rows = c.sum(axis=-1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(p > 0, c / (p * rows[:, None]), 1.0)
    prior = CONCENTRATION * p
    grown = np.zeros_like(c)
    some = c > 0
    grown[some] = log_gamma(prior[some] + c[some]) - log_gamma(prior[some])
    mixture = log_gamma(np.full(1, CONCENTRATION)) - log_gamma(CONCENTRATION + rows) + grown.sum(axis=-1)
    # Within the null the likeliest shares are p moved towards the counts' own as far as the tolerance allows.
    towards = _towards(p, ratio, kappa)
    with np.errstate(divide="ignore"):
        logs = np.log(np.where(some, p * (1 + towards[:, None] * (ratio - 1)), 1.0))
    found: Reals = np.where(rows > 0, mixture - (c * logs).sum(axis=-1), 0.0).reshape(shape)
    return found


def is_outside(shares: Reals, counts: Reals, tolerated: Any) -> NDArray[np.bool_]:
    """Whether counts' own shares are outside the null, with arguments as `log_e_values`: elsewhere its values are at most 0."""
    rows = counts.sum(axis=-1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        moved = np.where(shares > 0, counts / (shares * rows) - 1, 0.0)
        entropy = -(shares * np.log1p(_NEARLY * moved)).sum(axis=-1)
    return np.asarray(entropy > tolerated, np.bool_)


def log_e_values_above(share: Any, counts: Any, rows: Any) -> Reals:
    """The logarithms of the e-values of how often something happened, against the null that its share is at most `share`.

    Args:
        share: the largest that is no alarm, above 0 and below 1.
        counts: how often it happened; at most `rows`.
        rows: of which it might have.
    """
    p, c, n = np.broadcast_arrays(*(np.asarray(each, np.float64) for each in (share, counts, rows)))
    prior, rest = CONCENTRATION * p, CONCENTRATION * (1 - p)
    mixture = log_gamma(np.full_like(p, CONCENTRATION)) - log_gamma(CONCENTRATION + n)
    mixture = mixture + log_gamma(prior + c) - log_gamma(prior) + log_gamma(rest + n - c) - log_gamma(rest)
    likeliest = np.minimum(c / np.maximum(n, 1e-300), p)
    with np.errstate(divide="ignore", invalid="ignore"):
        best = np.where(c > 0, c * np.log(likeliest), 0.0) + np.where(n > c, (n - c) * np.log1p(-likeliest), 0.0)
    found: Reals = np.where(n > 0, mixture - best, 0.0)
    return found


def _towards(p: Reals, ratio: Reals, kappa: Reals) -> Reals:
    """How far, 0 to 1, shares may move from p towards p * ratio within a relative entropy of kappa; one per row.

    The relative entropy as a function of the way is convex and rises, so Newton's steps come down to the root from its right.
    """
    moved = ratio - 1
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        whole = -(p * np.log1p(_NEARLY * moved)).sum(axis=-1)
        found = np.where(whole > kappa, np.sqrt(2 * kappa / (p * moved**2).sum(axis=-1)), _NEARLY)
    # NaN is a row without counts.
    open_ones = np.flatnonzero(whole > kappa)
    way = np.minimum(found[open_ones], 0.5)
    p, moved, kappa = p[open_ones], moved[open_ones], kappa[open_ones]
    for _ in range(_STEPS):
        place = 1 + way[:, None] * moved
        slope = -(p * moved / place).sum(axis=-1)
        with np.errstate(divide="ignore", invalid="ignore"):
            step = np.where(slope > 0, (kappa + (p * np.log(place)).sum(axis=-1)) / slope, 0.0)
        following = np.where(way + step < _NEARLY, way + step, (way + _NEARLY) / 2)
        following = np.where(kappa > 0, np.maximum(following, 0.0), 0.0)
        is_done = bool((np.abs(following - way) <= _PRECISION * following).all())
        way = following
        if is_done:
            break
    found[open_ones] = way
    result: Reals = found
    return result


def log_gamma(values: Reals) -> Reals:
    """The logarithm of Gamma for positive values, to about 1e-14 of the larger of it and 1: Stirling's series from 8 on."""
    x = np.asarray(values, np.float64)
    is_small = x < _SHIFT
    raised = np.where(is_small, x + _SHIFT, x)
    below = np.ones_like(x)
    small = x[is_small]
    product = np.ones_like(small)
    for step in range(_SHIFT):
        product *= small + step
    below[is_small] = product
    inverse = 1 / raised
    square = inverse * inverse
    series = np.zeros_like(x)
    for term in reversed(_STIRLING):
        series = series * square + term
    found: Reals = (raised - 0.5) * np.log(raised) - raised + 0.5 * np.log(2 * np.pi) + series * inverse - np.log(below)
    return found
