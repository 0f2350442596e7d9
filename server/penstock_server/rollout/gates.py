"""What each metric says of a version that is rolled out: whether it is proven worse, or shown to be good enough.

Both are e-values that are valid however often one looks (`rollout.sequential`), from totals (`rollout.evidence`). Pure.
"""

from collections.abc import Sequence
from math import inf
from typing import NamedTuple

import msgspec
import numpy as np

from penstock_server.rollout import sequential, shares
from penstock_server.rollout.evidence import FIRST_ERRORS, FOURTH_ERRORS, LABELLED, REQUESTS, WRONG, Evidence
from penstock_server.rollout.sequential import Pairs, Reals, threshold
from penstock_server.rollout.spec import QUANTILES, RATES, Metric, RolloutSpec

INTERVAL_ALPHA = 0.05
"""Intervals are for people: the truth is ever outside of one with this chance."""


MOST_EVIDENCE = 1000.0
"""More is shown as this."""
FIRST_AND_FOURTH = (0.8, 0.2)
"""How much the first errors of keys weigh, and their fourth. Errors without a key are in both, and lose nothing."""


class Gate(msgspec.Struct, frozen=True):
    """What one metric says.

    Attributes:
        metric: which.
        margin: how much worse is tolerated, as in the specification.
        version: the metric's value for the version, None where there is none: a share of requests or rows, a mean distance, or
            a mean value.
        champion: its value for the champion.
        worse: the evidence that the version is worse, where 1 is enough.
        within: the evidence that it is not worse by the margin, where 1 is enough.
        sentence: the same in words.
    """

    metric: Metric
    margin: float
    version: float | None
    champion: float | None
    worse: float
    within: float
    sentence: str

    @property
    def is_worse(self) -> bool:
        return self.worse >= 1

    @property
    def is_within(self) -> bool:
        return self.within >= 1


class _Reading(NamedTuple):
    """What a metric shows: values, the logarithms of both e-values, and words."""

    version: float | None
    champion: float | None
    worse: float
    within: float
    what: str
    margin: str


def gate_of(metric: Metric, spec: RolloutSpec, evidence: Evidence, distance_edges: Sequence[float]) -> Gate:
    """What one of a rollout's metrics says.

    Args:
        metric: one of `spec.gates`.
        spec: the rollout's.
        evidence: what is known.
        distance_edges: the upper ends of the cells of `Evidence.distances`.
    """
    margin = spec.gates[metric]
    # Any of the gates may roll the version back, so each has its part of what may go wrong; the promotion needs all of them.
    alarm, enough = spec.false_rollbacks / len(spec.gates), spec.false_promotions
    if metric in RATES:
        found = _rate(metric, margin, spec, evidence)
    elif metric == "disagreement":
        found = _disagreement(margin, evidence, spec.dispersion)
    elif metric == "distance":
        found = _distance(margin, evidence, distance_edges, spec.dispersion)
    elif metric == "accuracy":
        found = _accuracy(margin, evidence, spec.dispersion)
    else:
        found = _value(margin, evidence, alarm, enough)
    worse, within = (
        min(max(0.0, log_e / threshold(alpha)), MOST_EVIDENCE)
        for log_e, alpha in ((found.worse, alarm), (found.within, enough))
    )
    if worse >= 1:
        end = "proven worse"
    elif within >= 1:
        end = f"shown to be within {found.margin}"
    else:
        end = f"not shown to be within {found.margin} yet"
    sentence = f"{metric}: {found.what}: {end}"
    return Gate(metric, margin, found.version, found.champion, worse, within, sentence)


def _rate(metric: Metric, margin: float, spec: RolloutSpec, evidence: Evidence) -> _Reading:
    splits, dispersion = evidence.splits(metric), spec.dispersion
    ours, theirs = evidence.total(metric)
    requests, champions = evidence.total(REQUESTS)
    worse = float(sequential.log_e_worse(splits, dispersion=dispersion)) if splits else 0.0
    within = float(sequential.log_e_within(splits, margin, dispersion=dispersion)) if splits else 0.0
    if metric == "errors" and splits:
        worse, within = _errors_by_key(evidence, margin, dispersion, within)
    floor = spec.errors_floor if metric == "errors" else margin * (1 - QUANTILES[metric])
    if 0 < floor < 1 and requests:
        # Where next to nothing fails, or is slow, there is nothing to compare. Two tests of one thing share what may go wrong.
        below = sequential.log_e_share_below(ours / dispersion, requests / dispersion, floor)
        within = float(sequential.log_e_average([within, below]))
    version, champion = _share(ours, requests), _share(theirs, champions)
    name = "fails" if metric == "errors" else f"takes longer than the champion's {metric} did"
    what = f"it {name} on {_percent(version)} of {requests:,} requests, the champion on {_percent(champion)}"
    return _Reading(version, champion, worse, within, what, f"{margin:g} times the champion's")


def _errors_by_key(evidence: Evidence, margin: float, dispersion: float, within: float) -> tuple[float, float]:
    """That more keys fail, and that neither more keys nor more requests do; `within` is the latter's.

    The router draws keys, so the first errors of keys are what can be tested, and their fourth, which sees keys that fail every
    time. For the promotion that is not enough: of keys that all fail sooner or later, as many do whatever the version. So
    errors must be shown to be within too, however few of a key.
    """
    first, fourth = (evidence.splits(metric) for metric in (FIRST_ERRORS, FOURTH_ERRORS))
    of_keys = [sequential.log_e_worse(each, dispersion=dispersion) for each in (first, fourth)]
    worse = float(sequential.log_e_average(of_keys, FIRST_AND_FOURTH))
    keys = float(sequential.log_e_within(first, margin, dispersion=dispersion))
    return worse, min(keys, within)


def _disagreement(limit: float, evidence: Evidence, dispersion: float) -> _Reading:
    counts, lower, upper = _share_cells(evidence)
    requests = counts.sum()
    mean = float(counts @ upper / requests) if requests else None
    return _Reading(
        mean,
        None,
        float(sequential.log_e_shares_above(lower, counts / dispersion, limit)),
        float(sequential.log_e_shares_below(upper, counts / dispersion, limit)),
        f"answers differ from the champion's on up to {_percent(mean)} of the rows, over {int(requests):,} requests",
        f"{100 * limit:g} %",
    )


def _distance(limit: float, evidence: Evidence, edges: Sequence[float], dispersion: float) -> _Reading:
    counts, lower, upper = _cells(evidence, edges)
    requests = counts.sum()
    mean = float(counts @ upper / requests) if requests else None
    return _Reading(
        mean,
        None,
        float(sequential.log_e_mean_above(lower, counts / dispersion, limit)),
        float(sequential.log_e_mean_below(upper, counts / dispersion, limit)),
        f"scores are up to {_number(mean)} from the champion's on average, over {int(requests):,} requests",
        f"{limit:g}",
    )


def _share_cells(evidence: Evidence) -> tuple[Reals, Reals, Reals]:
    """Requests by the share of rows that differ, and the lower and upper end of each cell."""
    counts = np.array(evidence.differing or (0,) * len(shares.EDGES), np.float64)
    return counts, np.array([0.0, *shares.EDGES[:-1]]), np.array(shares.EDGES)


def _cells(evidence: Evidence, edges: Sequence[float]) -> tuple[Reals, Reals, Reals]:
    """Requests by distance, and the lower and upper end of each cell. What is farther than 1 counts as 1: means need bounds."""
    counts = np.array(evidence.distances or (0,) * (len(edges) + 1), np.float64)
    return counts, np.minimum([0.0, *edges], 1.0), np.minimum([*edges, edges[-1]], 1.0)


def _accuracy(points: float, evidence: Evidence, dispersion: float) -> _Reading:
    """By rows that both answered, as shadow, and by rows that either answered, as canary: the mean of both e-values is one."""
    margin = points / 100
    _, only_champion, only_version, neither = evidence.pairs
    pairs = Pairs(only_version, only_champion, sum(evidence.pairs))
    (ours, theirs), (our_wrong, their_wrong) = evidence.total(LABELLED), evidence.total(WRONG)
    worse, within = [0.0], [0.0]
    if pairs.total:
        worse = [float(sequential.log_e_paired_worse(pairs))]
        within = [float(sequential.log_e_paired_within(pairs, margin))]
    if our_wrong + their_wrong:
        splits = evidence.splits(WRONG)
        # The margin as a ratio, by the champion's measured rate c. No proof holds for that, yet what errs in c errs in the
        # split too, the other way: it compares the version's rate with c + m, the log of which varies by (c / (c + m))^2 of
        # what the split reckons with. So it is cautious: of 200 versions worse by the margin (5 % wrong, one point, a weight
        # of 25 %, 12,000 labels, looked at 60 times) 2.5 % passed where 5 % may, and 35 % of equal ones. By a bound on the
        # rate that holds at all looks it were 0.5 % and 18 %.
        rate = max(their_wrong / theirs if theirs else 0.0, 1e-9)
        canary_worse = float(sequential.log_e_worse(splits, dispersion=dispersion))
        canary_within = float(sequential.log_e_within(splits, 1 + margin / rate, dispersion=dispersion))
        worse = [*worse, canary_worse] if pairs.total else [canary_worse]
        within = [*within, canary_within] if pairs.total else [canary_within]
    ours_all, theirs_all = ours + pairs.total, theirs + pairs.total
    version = _share(ours_all - our_wrong - only_champion - neither, ours_all)
    champion = _share(theirs_all - their_wrong - only_version - neither, theirs_all)
    return _Reading(
        version,
        champion,
        float(sequential.log_e_average(worse)),
        float(sequential.log_e_average(within)),
        f"it is right on {_percent(version)} of {ours_all:,} labelled requests, the champion on {_percent(champion)} of "
        f"{theirs_all:,}",
        f"{points:g} {'point' if points == 1 else 'points'}",
    )


def _value(margin: float, evidence: Evidence, alarm: float, enough: float) -> _Reading:
    ours, theirs = evidence.moments
    version = ours.total / ours.size if ours.size else None
    champion = theirs.total / theirs.size if theirs.size else None
    is_worse = sequential.difference_interval(ours, theirs, alarm).high < 0
    is_within = sequential.difference_interval(ours, theirs, enough).low > -margin
    return _Reading(
        version,
        champion,
        inf if is_worse else 0.0,
        inf if is_within else 0.0,
        f"answers are worth {_number(version)} on average, the champion's {_number(champion)}",
        f"{margin:g}",
    )


def interval_of(
    metric: Metric, spec: RolloutSpec, evidence: Evidence, distance_edges: Sequence[float]
) -> tuple[float, float]:
    """What the truth is between at all looks, with a chance of 95 %; for people, since it takes milliseconds.

    Of a rate the ratio to the champion's, of errors that of keys' first ones; of accuracy the difference, in points, of the
    shadow's and the champion's on the same requests, or without a shadow the ratio of what is wrong; of value the difference;
    of a share or a distance itself.
    """
    rate = FIRST_ERRORS if metric == "errors" else metric
    splits = evidence.splits(rate if metric in RATES else WRONG)
    pairs = Pairs(evidence.pairs[2], evidence.pairs[1], sum(evidence.pairs))
    found = (0.0, inf)
    if metric == "value":
        found = sequential.difference_interval(*evidence.moments, INTERVAL_ALPHA)
    elif metric == "disagreement":
        found = _mean_interval(*_share_cells(evidence), spec.dispersion)
    elif metric == "distance":
        found = _mean_interval(*_cells(evidence, distance_edges), spec.dispersion)
    elif metric == "accuracy" and pairs.total:
        low, high = sequential.points_interval(pairs, INTERVAL_ALPHA)
        found = (100 * low, 100 * high)
    elif any(split.canary or split.champion for split in splits):
        found = sequential.ratio_interval(splits, INTERVAL_ALPHA, dispersion=spec.dispersion)
    return found


def _mean_interval(counts: Reals, lower: Reals, upper: Reals, dispersion: float) -> tuple[float, float]:
    if not counts.any():
        return 0.0, 1.0
    return sequential.mean_interval(lower, counts / dispersion, INTERVAL_ALPHA, upper=upper)


def _share(part: float, whole: float) -> float | None:
    return part / whole if whole else None


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.3g} %"


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.4g}"
