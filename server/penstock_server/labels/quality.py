"""How good a version's answers are by their labels: accuracy, AUC, calibration and errors, each of some rows. Pure.

Sources: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927); DeLong, DeLong and
Clarke-Pearson, "Comparing the areas under two or more correlated ROC curves", Biometrics 44 (1988);
Naeini, Cooper and Hauskrecht, "Obtaining well calibrated probabilities using Bayesian binning", AAAI 2015.
"""

from math import sqrt
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

Z: Final = 1.959963984540054
"""Of 95 %."""
MOST_ERROR: Final = 1e101
"""The largest error of a number that is summed: larger ones, and those of answers that are no number, are left out."""
BINS: Final = 15
"""Of the confidence, of equal width."""


class QualityInterval(msgspec.Struct, frozen=True):
    """A number that is known from a sample, and between which bounds the true one is in 95 of 100 such samples."""

    value: float
    low: float
    high: float


class Quality(msgspec.Struct, frozen=True, omit_defaults=True):
    """How good answers are; what is not known is None.

    Attributes:
        rows: with a label that counts.
        since_ns: when the oldest of them was answered, since 1970.
        accuracy: the share of right classes.
        auc: of two classes, how likely a row of the second has a larger score than one of the first.
        calibration_error: the expected calibration error: how far confidence and the share of right answers are apart.
        mean_absolute_error, root_mean_squared_error, mean_error: of numbers; the last is answer less truth.
    """

    rows: int
    since_ns: int = 0
    accuracy: QualityInterval | None = None
    auc: QualityInterval | None = None
    calibration_error: float | None = None
    mean_absolute_error: QualityInterval | None = None
    root_mean_squared_error: float | None = None
    mean_error: float | None = None


def quality_of_classes(
    answers: NDArray[np.float64],
    truths: NDArray[np.float64],
    scores: NDArray[np.float64],
    classes: int,
    since_ns: int = 0,
) -> Quality:
    """Of a classifier's answers, [N] each.

    Args:
        answers: class labels.
        truths: class labels.
        scores: the probability of the second class of two, or of the answered one of more; NaN for none.
        classes: how many there are; 0 where that is not known, and then those are counted that are seen.
        since_ns: when the oldest was answered.
    """
    rows = len(answers)
    if not rows:
        return Quality(0)
    is_right = answers == truths
    seen = np.unique(np.concatenate([answers, truths]))
    is_binary = (classes or len(seen)) == 2
    known = np.isfinite(scores)
    confidence = scores
    auc = None
    if is_binary:
        second = 1.0 if classes else seen[-1]
        confidence = np.where(answers == second, scores, 1 - scores)
        auc = area_under_curve(scores[known], truths[known] == second)
    return Quality(
        rows,
        since_ns,
        accuracy=share(int(is_right.sum()), rows),
        auc=auc,
        calibration_error=calibration_error(confidence[known], is_right[known]),
    )


def quality_of_numbers(answers: NDArray[np.float64], truths: NDArray[np.float64], since_ns: int = 0) -> Quality:
    """Of a regression's answers, [N] each."""
    errors = answers - truths
    # One that is infinite, or none, would be all that a mean says.
    errors = errors[np.abs(errors) <= MOST_ERROR]
    rows = len(errors)
    if not rows:
        return Quality(0)
    return Quality(
        rows,
        since_ns,
        mean_absolute_error=mean(np.abs(errors)),
        root_mean_squared_error=float(np.sqrt(np.mean(errors**2))),
        mean_error=float(errors.mean()),
    )


def share(hits: int, rows: int) -> QualityInterval:
    """A share with Wilson's interval.

    >>> share(90, 100)
    Interval(value=0.9, low=0.825633645..., high=0.94477082...)
    """
    rate = hits / rows
    centre = (rate + Z * Z / (2 * rows)) / (1 + Z * Z / rows)
    half = Z / (1 + Z * Z / rows) * sqrt(rate * (1 - rate) / rows + Z * Z / (4 * rows * rows))
    return QualityInterval(rate, max(0.0, centre - half), min(1.0, centre + half))


def mean(values: NDArray[np.float64]) -> QualityInterval | None:
    """A mean with the interval of the normal distribution; None of fewer than two."""
    if len(values) < 2:
        return None
    value = float(values.mean())
    half = Z * float(values.std(ddof=1)) / sqrt(len(values))
    return QualityInterval(value, value - half, value + half)


def area_under_curve(scores: NDArray[np.float64], is_positive: NDArray[np.bool_]) -> QualityInterval | None:
    """The area under the receiver operating characteristic with DeLong's interval; None unless both classes are there."""
    positives, negatives = int(is_positive.sum()), int((~is_positive).sum())
    if not positives or not negatives:
        return None
    ranks = _midranks(scores)
    up = (ranks[is_positive] - _midranks(scores[is_positive])) / negatives
    down = 1 - (ranks[~is_positive] - _midranks(scores[~is_positive])) / positives
    area = float(up.mean())
    variance = sum(part.var(ddof=1) / len(part) for part in (up, down) if len(part) > 1)
    half = Z * sqrt(variance)
    return QualityInterval(area, max(0.0, area - half), min(1.0, area + half))


def calibration_error(confidence: NDArray[np.float64], is_right: NDArray[np.bool_]) -> float | None:
    """The expected calibration error in `BINS` bins of equal width; None without a score."""
    if not len(confidence):
        return None
    cells = np.clip((confidence * BINS).astype(np.int64), 0, BINS - 1)
    gaps = np.bincount(cells, confidence, BINS) - np.bincount(cells, is_right.astype(np.float64), BINS)
    return float(np.abs(gaps).sum() / len(confidence))


def _midranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1, of equal values their mean."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: NDArray[np.float64] = ((2 * ends - counts + 1) / 2)[place]
    return ranks
