"""Learns what things cost from totals: least squares over the seconds that were looked at, from a first guess on.

What is seen is how long something was busy in a second, and how many of each thing it did: turns, connections and requests, or
batches and rows. Under a load that hardly changes these are always in the same proportion, and nothing says which of them the
time went into. So the fit starts from a guess, as if that had been seen, and moves from there as far as it must. What is seen
under load counts most and stays longest: old seconds fade with the time that was busy since, so that a quiet night does not
forget the day.
"""

from collections.abc import Sequence
from math import exp
from typing import Final

import numpy as np

_MEMORY_S: Final = 15.0
"""Busy seconds after which what was seen counts for a third."""
_NOISE: Final = 0.1
_NOISE_S: Final = 0.002
"""What is seen is off by a tenth, and by so much that belongs to something else."""
_LEAST: Final = 0.2
"""No thing costs less than this share of the guess: a fit may find that one of several costs nothing."""


class CostFit:
    """Bayesian least squares: the costs are at first known up to a factor of about two.

    Args:
        guess: seconds that each thing costs, more than 0.
    """

    def __init__(self, guess: Sequence[float]) -> None:
        self._guess = np.array(guess, np.float64)
        self._trust = np.diag(self._guess**-2)
        self._weights = np.zeros_like(self._trust)
        self._sums = np.zeros_like(self._guess)

    @property
    def costs(self) -> tuple[float, ...]:
        """What each thing costs, by all that was seen."""
        weights, sums = self._trust + self._weights, self._trust @ self._guess + self._sums
        found = least = _LEAST * self._guess
        free = np.ones(len(least), bool)
        while free.any():
            others = weights[np.ix_(free, ~free)] @ least[~free]
            solved = np.linalg.solve(weights[np.ix_(free, free)], sums[free] - others)
            found = least.copy()
            found[free] = solved
            if (found >= least).all():
                break
            free &= found >= least
        return tuple(np.maximum(found, least).tolist())

    def add(self, busy_s: float, counts: Sequence[float]) -> None:
        """Takes in how long it was busy, and how many of each thing it did."""
        seen = np.array(counts, np.float64)
        # By what was guessed: a slow second must not count for less than a fast one.
        weight = (_NOISE * float(seen @ self._guess) + _NOISE_S) ** -2
        fade = exp(-busy_s / _MEMORY_S)
        self._weights = fade * self._weights + weight * np.outer(seen, seen)
        self._sums = fade * self._sums + weight * busy_s * seen
