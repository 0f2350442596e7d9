"""The judges: each says in which minute it rolls each of many rollouts back.

Rules of other tools are written anew from their documents and sources. A rule that sees the canary alone gets limits that
fit the simulated service: 99 % of requests answered, and a 99th percentile of 500 ms, as the tools' own examples have.
Each looks as often as its example says. What a tool does not look at, it cannot see: none but Penstock compares labelled
answers of a shadow.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from bench.judges.worlds import EDGES_MS, MINUTES, Counts, Reals, Seen
from penstock_server.rollout import sequential
from penstock_server.rollout.gates import FIRST_AND_FOURTH
from penstock_server.rollout.sequential import Pairs, Split, threshold

ALPHA: Final = 0.03
"""The most likely that Penstock rolls a good version back, in however long a rollout."""
BETA: Final = 0.05
"""The most likely that it calls a version as good that is worse by a margin."""
SUCCESS: Final = 0.99
P99_MS: Final = 500.0
NEVER: Final = np.inf

Booleans = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Judge:
    """One rule.

    Attributes:
        name: for people.
        source: where the rule is from.
        rule: gives [runs] the minute, from 1, after which each run is rolled back, or infinity.
    """

    name: str
    source: str
    rule: Callable[[Seen], Reals]


def penstock(seen: Seen) -> Reals:
    """Errors, and latencies above the champion's p99 of the hour before, each with half of alpha; or labelled pairs.

    Of the errors of each key its first counts, and apart from these its fourth; without keys each is both.
    """
    first_errors, fourth_errors, _ = _by_key(seen)
    evidence = [log_e_worse(seen, each) for each in (first_errors, fourth_errors)]
    return _penstock(seen, sequential.log_e_average(evidence, FIRST_AND_FOURTH))


def penstock_by_error(seen: Seen) -> Reals:
    """As `penstock`, with every error."""
    return _penstock(seen, log_e_worse(seen, seen.errors))


def penstock_by_time(seen: Seen) -> Reals:
    """The same, with errors divided by how much they came together in the hour before."""
    dispersion = sequential.dispersion_over_time(seen.errors_before)
    return _penstock(seen, log_e_worse(seen, seen.errors, dispersion[:, None]))


def _penstock(seen: Seen, of_errors: Reals) -> Reals:
    if seen.pairs is not None:
        return first(sequential.log_e_paired_worse(_pairs(seen.pairs)) >= threshold(ALPHA))
    of_latency = log_e_worse(seen, _slow(seen))
    return first(np.maximum(of_errors, of_latency) >= threshold(ALPHA / 2))


def promoted(seen: Seen) -> Reals:
    """The minute after which an equal canary is shown to be within Penstock's default margins, each with a risk of 5 %.

    Half as many errors again, of keys and in all, few of each key, and twice as many requests above the champion's p99; for a
    shadow two points of accuracy.
    """
    if seen.pairs is not None:
        return first(sequential.log_e_paired_within(_pairs(seen.pairs), 0.02) >= threshold(BETA))
    first_errors, _, counted_errors = _by_key(seen)
    evidence = [
        sequential.log_e_within(splits(seen, events), margin)
        for events, margin in ((first_errors, 1.5), (counted_errors, 1.5), (_slow(seen), 2.0))
    ]
    return first(np.min(evidence, axis=0) >= threshold(BETA))


def _by_key(seen: Seen) -> Counts:
    """Errors of [3, sides, runs, minutes], as `Seen` has them by key."""
    if seen.errors_by_key is not None:
        return seen.errors_by_key
    return np.stack([seen.errors] * 3)


def log_e_worse(seen: Seen, events: Counts, dispersion: Any = 1.0) -> Reals:
    """[runs, minutes] the evidence after each minute, of events of [sides, runs, minutes]."""
    found = sequential.log_e_worse(splits(seen, events), dispersion=dispersion)
    return np.broadcast_to(found, events.shape[1:])


def splits(seen: Seen, events: Counts) -> list[Split]:
    """Events of [sides, runs, minutes] until each minute, by the weight that was in force."""
    champion, canary = events
    return [
        Split(float(share), *(np.where(seen.shares == share, each, 0).cumsum(axis=1) for each in (canary, champion)))
        for share in np.unique(seen.shares)
    ]


def _slow(seen: Seen) -> Counts:
    """Requests above the champion's p99 of the hour before."""
    edge = sequential.exceedance_edge(seen.latency_before, 0.99)
    assert edge is not None
    return seen.latency[..., edge + 1 :].sum(axis=-1)


def _pairs(pairs: Counts) -> Pairs:
    so_far = pairs.cumsum(axis=1)
    return Pairs(so_far[..., 0], so_far[..., 1], so_far.sum(axis=-1))


def argo_example(seen: Seen) -> Reals:
    """Success of 95 % or more in each 5 minutes; more than 3 failed measurements end it."""
    success = 1 - ratio(every(5, seen.errors[1]), every(5, seen.requests[1]))
    return first(_repeated(5, (success < 0.95).cumsum(axis=1) > 3))


def argo(seen: Seen) -> Reals:
    """Success of 99 % or more and a p99 of at most 500 ms in each minute; the default failureLimit is 0."""
    return first(_fails(seen))


def flagger(seen: Seen) -> Reals:
    """The same checks; the fifth that fails rolls back. Checks that succeed in between change nothing."""
    return first(_fails(seen).cumsum(axis=1) >= 5)


def sagemaker(seen: Seen) -> Reals:
    """Two periods in a row in alarm: more than 1 % of errors in 10 minutes, or a mean latency above 100 ms in 5."""
    failing = ratio(every(10, seen.errors[1]), every(10, seen.requests[1])) > 1 - SUCCESS
    slow = mean_ms(every(5, seen.latency[1])) > 100
    alarms = [_repeated(width, each & _shifted(each)) for width, each in ((10, failing), (5, slow))]
    return first(alarms[0] | alarms[1])


def kayenta(seen: Seen) -> Reals:
    """The Netflix judge every 5 minutes from the tenth on, over all minutes until then; below the marginal score of 75 it ends.

    Three metrics of the same weight, by minute: errors, p99 and mean latency. One is high if the lower end of the 98 %
    interval of the Hodges-Lehmann shift is above a quarter of the shift, and the mean is no lower. The champion stands
    for the baseline. Intervals are asymptotic as in Kayenta, without its correction for ties; outliers are kept.
    """
    found = np.zeros(seen.errors.shape[1:], np.bool_)
    series = [
        (ratio(seen.errors[side], seen.requests[side]), p99_ms(seen.latency[side]), mean_ms(seen.latency[side]))
        for side in (0, 1)
    ]
    for end in range(10, MINUTES + 1, 5):
        high = sum(
            _is_high(control[:, :end], experiment[:, :end]).astype(int)
            for control, experiment in zip(*series, strict=True)
        )
        found[:, end - 1] = 100 * (1 - high / 3) < 75
    return first(found)


def z_test(seen: Seen) -> Reals:
    """Every minute over all so far: 5 % two-sided tests of the share of errors, and of the mean latency."""
    errors, requests, cells = (each.cumsum(axis=2) for each in (seen.errors, seen.requests, seen.latency))
    share = ratio(errors.sum(axis=0), requests.sum(axis=0))
    inverse = ratio(1.0, requests[0]) + ratio(1.0, requests[1])
    shares = ratio(errors, requests)
    worse = ratio(shares[1] - shares[0], np.sqrt(share * (1 - share) * inverse)) > 1.96
    means, variances = mean_ms(cells), _variance_ms(cells)
    slower = ratio(means[1] - means[0], np.sqrt((variances * ratio(1.0, requests)).sum(axis=0))) > 1.96
    return first(worse | slower)


JUDGES: Final = (
    Judge(
        "Penstock",
        "`rollout.sequential` on each key's first and fourth error, and on latencies above the champion's p99, each at 1.5 %; "
        "on pairs at 3 %",
        penstock,
    ),
    Judge("Penstock, every error", "the same, with every error", penstock_by_error),
    Judge("Penstock, dispersion", "that, with errors divided by `dispersion_over_time`", penstock_by_time),
    Judge(
        "Argo Rollouts, example",
        "docs/features/analysis.md, background analysis: 5m, success >= 0.95, failureLimit 3",
        argo_example,
    ),
    Judge("Argo Rollouts, 99 %", "1m, success >= 0.99, p99 of 500 ms, and the default failureLimit 0", argo),
    Judge(
        "Flagger",
        "docs/gitbook/usage/how-it-works.md, pkg/controller/scheduler.go: 1m, 99 %, p99 of 500 ms, and threshold 5",
        flagger,
    ),
    Judge(
        "Kayenta",
        "NetflixACAJudge.scala, MannWhitneyClassifier.scala: tolerance 0.25, confidence 98 %, marginal 75, each 5m from 10m on",
        kayenta,
    ),
    Judge(
        "SageMaker",
        "the alarms of deployment-guardrails-configuration on the new fleet: errors in two periods of 10m (above 1 %, since "
        "the example's average of more than 1 cannot be), a mean latency above 100 ms in two of 5m",
        sagemaker,
    ),
    Judge("z-test", "two-sided, 5 %, of errors and of the mean latency, each minute over all so far", z_test),
)


def first(found: Booleans) -> Reals:
    """[runs] the first minute, from 1, of those that are true in [runs, minutes]."""
    return np.where(found.any(axis=1), found.argmax(axis=1) + 1.0, NEVER)


def every(width: int, counts: Counts) -> Counts:
    """Sums over so many minutes each: [runs, periods, ...]."""
    return counts.reshape(len(counts), MINUTES // width, width, *counts.shape[2:]).sum(axis=2)


def ratio(above: Any, below: Any) -> Reals:
    """0 where there is nothing below."""
    shape = np.broadcast(above, below).shape
    return np.divide(above, below, out=np.zeros(shape), where=np.broadcast_to(np.asarray(below) > 0, shape))


_WIDTHS: Final = np.diff(EDGES_MS, prepend=0.0, append=EDGES_MS[-1])
_MIDDLES: Final = np.concatenate([EDGES_MS, EDGES_MS[-1:]]) - _WIDTHS / 2


def mean_ms(cells: Counts) -> Reals:
    """The mean latency, each cell standing for its middle."""
    return ratio(cells @ _MIDDLES, cells.sum(axis=-1))


def p99_ms(cells: Counts) -> Reals:
    """As Prometheus' histogram_quantile: linear within a cell, and the last edge above it."""
    total = np.cumsum(cells, axis=-1)
    wanted = 0.99 * total[..., -1:]
    at = (total < wanted).sum(axis=-1, keepdims=True).clip(0, len(EDGES_MS) - 1)
    here, until = np.take_along_axis(cells, at, -1)[..., 0], np.take_along_axis(total, at, -1)[..., 0]
    part = ratio(wanted[..., 0] - (until - here), here).clip(0, 1)
    upper, width = EDGES_MS[at[..., 0]], _WIDTHS[at[..., 0]]
    found = np.where(total[..., -2] < wanted[..., 0], EDGES_MS[-1], upper - width * (1 - part))
    return np.where(total[..., -1] > 0, found, 0.0)


def _variance_ms(cells: Counts) -> Reals:
    return np.maximum(ratio(cells @ _MIDDLES**2, cells.sum(axis=-1)) - mean_ms(cells) ** 2, 0.0)


def _fails(seen: Seen) -> Booleans:
    there = seen.requests[1] > 0
    return there & ((1 - ratio(seen.errors[1], seen.requests[1]) < SUCCESS) | (p99_ms(seen.latency[1]) > P99_MS))


def _is_high(control: Reals, experiment: Reals) -> Booleans:
    """Whether the Netflix judge calls the experiment high; [runs] of [runs, minutes] each."""
    runs, count = control.shape
    differences = (experiment[:, :, None] - control[:, None, :]).reshape(runs, -1)
    pairs = count * count
    off = 2.3263478740408408 * np.sqrt(pairs * (2 * count + 1) / 12)
    lower_at, middle_at = max(0, int(pairs / 2 - off)), pairs // 2
    parted = np.partition(differences, (lower_at, middle_at), axis=1)
    lower, estimate = parted[:, lower_at], parted[:, middle_at]
    return (lower > 0.25 * np.abs(estimate)) & (experiment.mean(axis=1) >= control.mean(axis=1))


def _shifted(alarm: Booleans) -> Booleans:
    return np.concatenate([np.zeros((len(alarm), 1), np.bool_), alarm[:, :-1]], axis=1)


def _repeated(width: int, periods: Booleans) -> Booleans:
    """Minutes of periods: what is known at the end of a period is known from its last minute on."""
    found = np.zeros((len(periods), MINUTES), np.bool_)
    found[:, width - 1 :: width] = periods
    return found
