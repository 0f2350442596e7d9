"""Simulations of the drift rules on counts whose true index is known.

Shares at a chosen population stability index from the reference's are an exponential tilt of the reference's.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock_server.drift.fit import dispersion
from penstock_server.drift.significance import benjamini_hochberg, p_value
from penstock_server.drift.statistics import psi_smoothed

REFERENCE_ROWS = 5000
NAIVE = 0.1
"""The rule of thumb: a smoothed index above this is drift, whatever the number of rows. A raw index errs more often."""

_Counts = NDArray[np.int64]
_Reals = NDArray[np.float64]


def tilted(shares: _Reals, index: float) -> _Reals:
    """Shares at this population stability index from `shares`, by bisection of a tilt."""
    low, high = 0.0, 4.0
    for _ in range(80):
        tilt = (low + high) / 2
        moved = shares * np.exp(tilt * np.linspace(-1, 1, len(shares)))
        moved /= moved.sum()
        low, high = (tilt, high) if np.sum((shares - moved) * np.log(shares / moved)) < index else (low, tilt)
    return moved


def drawn(rng: np.random.Generator, bins: int, rows: int, index: float, runs: int) -> tuple[_Counts, _Counts]:
    """References of equal shares and windows at this index from them, [runs, bins] each."""
    shares = np.full(bins, 1 / bins)
    return rng.multinomial(REFERENCE_ROWS, shares, runs), rng.multinomial(rows, tilted(shares, index), runs)


@dataclass(frozen=True, slots=True)
class Rejections:
    """How often each rule reported drift."""

    at_5: float
    at_1: float
    naive: float


def rejections(rng: np.random.Generator, bins: int, rows: int, index: float, runs: int) -> Rejections:
    """The rule at two levels and the rule of thumb, at this true index."""
    reference, current = drawn(rng, bins, rows, index, runs)
    found = p_value(reference, current)
    return Rejections(
        float(np.mean(found < 0.05)),
        float(np.mean(found < 0.01)),
        float(np.mean(psi_smoothed(reference, current) > NAIVE)),
    )


def null_mean(rng: np.random.Generator, bins: int, rows: int, runs: int) -> tuple[float, float]:
    """The mean of the smoothed index without drift, and its Monte Carlo error."""
    found = psi_smoothed(*drawn(rng, bins, rows, 0.0, runs))
    return float(found.mean()), float(found.std() / np.sqrt(runs))


def ordinary_size(rng: np.random.Generator, bins: int, rows: int, runs: int) -> float:
    """How often the test of no change at all rejects at 5 % without drift."""
    return float(np.mean(p_value(*drawn(rng, bins, rows, 0.0, runs), 0.0) < 0.05))


def run_lengths(rng: np.random.Generator, alpha: float, streams: int, most_looks: int) -> tuple[float, int]:
    """The looks until the first false alarm of the test of no change, for a window that slides by one of 12 parts per look.

    Returns:
        Looks divided by alarms, which counts streams without an alarm in full; and the alarms.
    """
    bins, rows, width = 10, 100, 12
    shares = np.full(bins, 1 / bins)
    ring = rng.multinomial(rows, shares, (width, streams))
    waiting = np.ones(streams, np.bool_)
    looks = alarms = 0
    references = rng.multinomial(200 * REFERENCE_ROWS, shares, streams)
    for look in range(most_looks):
        ring[look % width] = rng.multinomial(rows, shares, streams)
        looks += int(waiting.sum())
        rejected = waiting & (p_value(references, ring.sum(axis=0), 0.0) < alpha)
        alarms += int(rejected.sum())
        waiting &= ~rejected
        if not waiting.any():
            break
    return looks / max(alarms, 1), alarms


@dataclass(frozen=True, slots=True)
class Discoveries:
    """Over windows of many features: the false share of reported drift, and power."""

    false_share: float
    power: float


def discoveries(rng: np.random.Generator, rate: float, quiet_index: float, drifted: int, windows: int) -> Discoveries:
    """Twenty features in each window, of which some drift by 0.25 and the others by `quiet_index`."""
    features, bins, rows = 20, 20, 1000
    shares = np.full(bins, 1 / bins)
    truth = np.arange(features) < drifted
    moved = np.where(truth[:, None], tilted(shares, 0.25), tilted(shares, quiet_index))
    false_share, right = 0.0, 0
    for _ in range(windows):
        reference = rng.multinomial(REFERENCE_ROWS, shares, features)
        current = np.array([rng.multinomial(rows, one) for one in moved])
        called = benjamini_hochberg(p_value(reference, current), rate)
        right += int((called & truth).sum())
        false_share += int((called & ~truth).sum()) / max(int(called.sum()), 1)
    return Discoveries(false_share / windows, right / max(drifted * windows, 1))


def clumped_size(rng: np.random.Generator, length: int, runs: int) -> tuple[float, float]:
    """False alarms at 5 % of the test of no change where rows come in clumps: without a dispersion, and with one.

    The dispersion is the one that a baseline estimates from its own rows in the order of time.
    """
    bins, rows = 10, 1000
    plain, known = 0, 0
    for _ in range(runs):
        cells = np.repeat(rng.integers(0, bins, REFERENCE_ROWS // length), length)
        reference = np.bincount(cells, minlength=bins)
        current = length * rng.multinomial(rows // length, np.full(bins, 1 / bins))
        plain += bool(p_value(reference, current, 0.0) < 0.05)
        known += bool(p_value(reference, current, 0.0, dispersion(cells)) < 0.05)
    return plain / runs, known / runs
