"""What a replay found, as a record: how often two versions agree, for which classes, how far apart their scores are, where.

Pure. Rows count as independent in the intervals.
"""

from collections import Counter
from dataclasses import dataclass
from math import exp, inf
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.metrics.counters import SCORE_EDGES
from penstock_server.rollout import sequential

MOST_DIFFERENT: Final = 20
MOST_CLASSES: Final = 64
"""Classes that are told apart, as the server's counters do; rows of further ones are counted together."""
ALPHA: Final = 0.05
OTHERS: Final = "others"
_MOST_LOG_E: Final = 700.0
"""About the largest whose exponential is a number."""


@dataclass(frozen=True, slots=True)
class Share:
    """A share of rows with its interval of 95 %, which holds however often one looks; None without rows."""

    rows: int
    of: int
    share: float | None
    low: float | None
    high: float | None


def share(rows: int, of: int) -> Share:
    """The share that `rows` are of `of`."""
    if not of:
        return Share(rows, of, None, None, None)
    return Share(rows, of, rows / of, *sequential.share_interval(rows, of, ALPHA))


@dataclass(frozen=True, slots=True)
class ClassAgreement:
    """The rows that got a class in the log, and how many of them got it again."""

    name: str
    agreement: Share


@dataclass(frozen=True, slots=True)
class ClassPair:
    """Rows with one class in the log and another one now."""

    logged: str
    candidate: str
    rows: int


@dataclass(frozen=True, slots=True)
class Distances:
    """How far apart scores are: the largest absolute difference over a row's scores.

    Attributes:
        edges, rows: a histogram: `rows[i]` are those up to `edges[i]` and above the edge before; the last of `rows` is above
            all. The edges are those of `penstock_shadow_score_distance`.
        infinite: rows that are left out of all but the histogram, where scores have different shapes or one is NaN.
    """

    mean: float | None
    median: float | None
    p90: float | None
    p99: float | None
    largest: float | None
    infinite: int
    edges: tuple[float, ...]
    rows: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DifferentRow:
    """A row whose answers are far apart; classes where both versions have some, numbers where both answer with one."""

    request_id: str
    row: int
    time: str
    version: str
    logged: str | None
    candidate: str | None
    logged_value: float | None
    candidate_value: float | None
    distance: float


@dataclass(frozen=True, slots=True)
class PairedTruth:
    """Answers to rows whose true class is known.

    Attributes:
        logged, candidate: accuracy.
        both, only_logged, only_candidate, neither: rows by who was right.
        low, high: an interval of 95 % for the candidate's accuracy less that of what was answered, at every look.
        e_value: McNemar's, against the null that both are equally accurate; from 20 on that is refuted at 5 %, at every look.
        unknown: labels that name no class of the version; their rows are not counted.
    """

    logged: Share
    candidate: Share
    both: int
    only_logged: int
    only_candidate: int
    neither: int
    low: float
    high: float
    e_value: float
    unknown: int


@dataclass(frozen=True, slots=True)
class PairedErrors:
    """Answers to rows whose true number is known.

    Attributes:
        mean_absolute, root_mean_squared: errors of what was logged, and of the candidate.
        closer: rows to which the candidate's answer is closer; rows with equal errors count in neither number.
        farther: rows to which the logged answer is closer.
    """

    rows: int
    mean_absolute: tuple[float, float]
    root_mean_squared: tuple[float, float]
    closer: int
    farther: int


@dataclass(frozen=True, slots=True)
class Unanswered:
    """Rows that were not compared, and why."""

    reason: str
    rows: int


@dataclass(frozen=True, slots=True)
class Replay:
    """What a replay found.

    Attributes:
        title: for people.
        rows: that the log holds, without what a shadow was given.
        compared: those that both answered.
        incompatible: rows that lack a column that the candidate takes, by column; a row counts for each that it lacks.
        refused, failed: rows that the candidate refuses or fails on, by reason.
        versions: rows by the version that answered.
        first, last: when the log's rows were answered, by ISO 8601 in UTC.
        agreement: the share of compared rows with the same answer: the same class, or scores within 0.001 of each other.
        by_class: by the class in the log; empty without classes.
        changed: how many rows went from which class to which, the most first.
        different: the rows that are farthest apart, those with another class first.
        truth, errors: by labels, where some are given.
        took_s: the candidate's time for all rows.
    """

    title: str
    rows: int
    compared: int
    incompatible: tuple[Unanswered, ...]
    refused: tuple[Unanswered, ...]
    failed: tuple[Unanswered, ...]
    versions: dict[str, int]
    first: str | None
    last: str | None
    agreement: Share
    by_class: tuple[ClassAgreement, ...]
    changed: tuple[ClassPair, ...]
    distances: Distances
    different: tuple[DifferentRow, ...]
    truth: PairedTruth | None
    errors: PairedErrors | None
    took_s: float

    @property
    def disagreement(self) -> float | None:
        """The share of compared rows with another answer; None without any."""
        return None if self.agreement.share is None else 1 - self.agreement.share


def by_class(pairs: Counter[tuple[str, str]]) -> tuple[tuple[ClassAgreement, ...], tuple[ClassPair, ...]]:
    """Agreement by the class in the log, and the changes, the most rows first.

    Args:
        pairs: rows by the class in the log and the candidate's.
    """
    totals: Counter[str] = Counter()
    for (logged, _), rows in pairs.items():
        totals[logged] += rows
    kept = [name for name, _ in totals.most_common(MOST_CLASSES)]
    found = [ClassAgreement(name, share(pairs[name, name], totals[name])) for name in sorted(kept, key=_by_number)]
    if len(totals) > len(kept):
        rest = [(pair, rows) for pair, rows in pairs.items() if pair[0] not in kept]
        agreeing = sum(rows for (logged, candidate), rows in rest if logged == candidate)
        found.append(ClassAgreement(OTHERS, share(agreeing, sum(rows for _, rows in rest))))
    changed = [ClassPair(*pair, rows) for pair, rows in pairs.most_common() if pair[0] != pair[1]]
    return tuple(found), tuple(changed[:MOST_CLASSES])


def _by_number(name: str) -> tuple[float, str]:
    try:
        return float(name), name
    except ValueError:
        return inf, name


def distances(values: NDArray[np.float64]) -> Distances:
    """The distances of all compared rows, summed up."""
    cells = np.searchsorted(SCORE_EDGES, values, side="left")
    counts = tuple(np.bincount(cells, minlength=len(SCORE_EDGES) + 1).tolist())
    finite = values[np.isfinite(values)]
    infinite = len(values) - len(finite)
    if not len(finite):
        return Distances(None, None, None, None, None, infinite, SCORE_EDGES, counts)
    median, p90, p99 = np.quantile(finite, (0.5, 0.9, 0.99)).tolist()
    return Distances(float(finite.mean()), median, p90, p99, float(finite.max()), infinite, SCORE_EDGES, counts)


def paired_truth(right: NDArray[np.bool_], unknown: int) -> PairedTruth:
    """The paired table of who was right.

    Args:
        right: bool [2, rows], the log and the candidate.
        unknown: labels that name no class.
    """
    logged, candidate = right
    rows = right.shape[1]
    only_logged, only_candidate = int((logged & ~candidate).sum()), int((~logged & candidate).sum())
    pairs = sequential.Pairs(only_candidate, only_logged, rows)
    low, high = sequential.points_interval(pairs, ALPHA)
    return PairedTruth(
        share(int(logged.sum()), rows),
        share(int(candidate.sum()), rows),
        both=int((logged & candidate).sum()),
        only_logged=only_logged,
        only_candidate=only_candidate,
        neither=int((~logged & ~candidate).sum()),
        low=low,
        high=high,
        e_value=exp(min(float(sequential.log_e_mcnemar(pairs)), _MOST_LOG_E)),
        unknown=unknown,
    )


def paired_errors(values: NDArray[np.float64], truth: NDArray[np.float64]) -> PairedErrors:
    """The errors of both.

    Args:
        values: [2, rows], one row at least: what was answered, and what the candidate answers.
        truth: [rows].
    """
    gaps = np.abs(values - truth)
    absolute, squared = gaps.mean(axis=1).tolist(), np.sqrt((gaps**2).mean(axis=1)).tolist()
    closer, farther = int((gaps[1] < gaps[0]).sum()), int((gaps[1] > gaps[0]).sum())
    return PairedErrors(
        len(truth), (absolute[0], absolute[1]), (squared[0], squared[1]), closer=closer, farther=farther
    )
