"""Expected accuracy: what share of a window's answers is right, told from how sure the model is, without any label.

A hold-out, rows that the model did not train on, says how often it is right when it is so sure. Serving counts how sure it is.
Together they give the share of right answers **if the relation between features and truth held**: rows may become harder, and
that shows; where the same features come to mean something else, nothing here can see it. So it is never called the accuracy.

This is confidence-based performance estimation (CBPE) with bins in place of a calibration curve. Publishing fits the
hold-out, and `evaluate` estimates each window.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.drift.baseline import DISPERSION_BLOCKS, HoldOut, NumberBaseline
from penstock_server.drift.fit import fit_number
from penstock_server.drift.report import ExpectedAccuracy
from penstock_server.errors import InvalidInputError
from penstock_server.features.counting import EXTRA_CELLS

Reals = NDArray[np.float64]
Integers = NDArray[np.int64]

LEAST_ROWS: Final = 200
"""Of a hold-out: with fewer its own accuracy is known to 7 % at best."""
LEAST_EFFECTIVE: Final = 25.0
"""Rows of a window that do not hang together; with fewer the band is as wide as what it is about."""
_BAND: Final = 1.959964
"""Standard deviations on either side: 95 % of a normal distribution."""


def fit_holdout(name: str, confidence: Reals, is_right: NDArray[np.bool_]) -> tuple[NumberBaseline, HoldOut]:
    """The baseline of a confidence on the hold-out, in quantile bins of its own, and how often the model was right in each.

    The confidence on training rows would be no reference: a model is surer of these.

    Args:
        name: what the confidence is called.
        confidence: float64 [rows], in the order of time.
        is_right: bool [rows].

    Raises:
        InvalidInputError: there are too few rows with a confidence.
    """
    is_known = np.isfinite(confidence)
    if is_known.sum() < LEAST_ROWS:
        raise InvalidInputError(f"the hold-out has {is_known.sum()} rows with an answer, expected {LEAST_ROWS} or more")
    numbers = fit_number(name, confidence)
    bins = np.searchsorted(numbers.edges, confidence[is_known], side="right")
    rows = np.array(numbers.counts, np.int64)
    right = is_right[is_known]
    correct = np.bincount(bins, right, minlength=len(rows)).astype(np.int64)
    return numbers, HoldOut(tuple(correct.tolist()), _variance(shares_right(correct, rows)[bins], right))


def shares_right(correct: Integers, rows: Integers) -> Reals:
    """The share of right answers in each bin, with half a row of either kind added."""
    shares: Reals = (correct + 0.5) / (rows + 1)
    return shares


def _variance(expected: Reals, is_right: NDArray[np.bool_]) -> float:
    """How much the share of right answers varies from part to part beside what was expected of each row, and beyond chance."""
    blocks = np.array_split(np.arange(len(expected)), DISPERSION_BLOCKS)
    off = np.array([(is_right[block] - expected[block]).mean() for block in blocks])
    chance = np.array([(expected[block] * (1 - expected[block])).sum() / len(block) ** 2 for block in blocks])
    return max(0.0, float((off**2 - chance).mean()))


def expected_accuracy(
    holdout: HoldOut, known: Integers, current: Integers, outside: Integers, dispersion: float = 1.0
) -> ExpectedAccuracy | None:
    """The expected share of right answers of a window, with its band; None if the window has too few rows.

    With the window's shares q of N rows, and the share a of right answers among n rows of the hold-out in each bin:
    sum q a, with the variance sum q a (1 - a) / N + sum q^2 a (1 - a) / n, and that between the hold-out's parts.

    Args:
        holdout: what was right of the hold-out.
        known: its rows, int64 [bins + 3]: by the confidence's bin, then the missing, infinite and unseen.
        current: the window's rows, the same.
        outside: the window's finite rows below and above the hold-out's, int64 [2].
        dispersion: so many of the window's rows say as much as one would that does not hang together with others.
    """
    total = int(current.sum())
    bins = len(holdout.correct)
    rows, found = known[:bins], current[:bins]
    finite = int(found.sum())
    if finite < LEAST_EFFECTIVE * dispersion:
        return None
    correct = np.array(holdout.correct, np.int64)
    right, share = shares_right(correct, rows), found / finite
    chance = right * (1 - right)
    variance = float(
        (share * chance).sum() * dispersion / finite
        + (share**2 * chance / np.maximum(rows, 1)).sum()
        + holdout.variance
    )
    value, margin = float((share * right).sum()), _BAND * variance**0.5
    return ExpectedAccuracy(
        value=value,
        low=max(0.0, value - margin),
        high=min(1.0, value + margin),
        reference=float(correct.sum() / rows.sum()),
        reference_rows=int(rows.sum()),
        outside_ratio=float((current[-EXTRA_CELLS:].sum() + outside.sum()) / total),
    )
