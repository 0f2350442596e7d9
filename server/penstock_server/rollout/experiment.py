"""Several versions side by side with fixed weights (A/B/n): who got how much, and how each canary compares with the champion.

Nothing is decided here: weights stay as somebody has set them, and bandits, which move weights to what looks best, are out of
scope. Intervals hold at every look (`rollout.sequential`), each by itself: among twenty of them one is expected to miss. Pure.
"""

from collections.abc import Iterator, Mapping
from math import inf, isfinite
from typing import Final, Literal

import msgspec

from penstock_server.rollout import sequential
from penstock_server.rollout.evidence import VersionTotals
from penstock_server.rollout.gates import INTERVAL_ALPHA, MOST_EVIDENCE
from penstock_server.rollout.sequential import Interval, Moments, Split, threshold
from penstock_server.rollout.spec import QUANTILES

MISMATCH_ALPHA: Final = 0.001
"""How likely it may ever be that weights which were kept are called a mismatch: it voids the whole comparison."""

Kind = Literal["ratio", "difference"]


class ArmTotals(msgspec.Struct, frozen=True):
    """What was counted of one version since the weights came into force.

    Attributes:
        requests, errors: those that it got by chance or by key, and those of them that failed because of it.
        measured: those whose latency was measured since it is known what slow is.
        slow: by p50, p95 and p99, how many of these took longer than so many of the champion's did before; empty before that.
        labelled, wrong: requests whose first row has a label, and those whose prediction there was another one.
        values: what answers were worth, of each request that of its first row.
        first_errors: errors that are the first of their routing key; None if each is.
    """

    requests: int = 0
    errors: int = 0
    measured: int = 0
    slow: Mapping[str, int] = msgspec.field(default_factory=dict)
    labelled: int = 0
    wrong: int = 0
    values: tuple[float, float, float] = (0.0, 0.0, 0.0)
    first_errors: int | None = None


class Comparison(msgspec.Struct, frozen=True):
    """One metric of a canary beside the champion.

    Attributes:
        metric: errors, first_errors, p50, p95, p99, accuracy or value. The interval of errors takes requests for independent of
            each other; that of first errors, which is there once a routing key has failed again, takes keys for it.
        version, champion: its value for each, None where nothing is known: the share of requests that failed or were slow, the
            share of right rows, or the mean value.
        kind: what the interval is of: the ratio of both rates, or the difference of means. Of accuracy it is the ratio of
            wrong requests by weight, which takes it that labels come as often to each version's answers.
        low, high: what the truth is between, at all looks, with a chance of 95 %; None for no end.
    """

    metric: str
    version: float | None
    champion: float | None
    kind: Kind
    low: float | None
    high: float | None


class ArmReport(msgspec.Struct, frozen=True):
    """One version.

    Attributes:
        weight: its share by design, 0 to 1.
        exposure: its share of the requests that came; None before the first.
        comparisons: with the champion; none of the champion itself, nor while it gets nothing.
    """

    version: str
    role: Literal["champion", "canary"]
    weight: float
    requests: int
    exposure: float | None
    comparisons: tuple[Comparison, ...] = ()


class Experiment(msgspec.Struct, frozen=True):
    """One model's versions since their weights came into force, or since this server began, if that was later.

    Attributes:
        since_s: when that was, in seconds since 1970.
        mismatch: the evidence that requests were not shared by the weights, where 1 is enough. Requests without a key are drawn
            anew each; where they bring keys, a few busy ones look like a mismatch too.
        arms: the champion first.
    """

    model: str
    champion: str
    since_s: float
    mismatch: float
    arms: tuple[ArmReport, ...]

    @property
    def is_mismatched(self) -> bool:
        return self.mismatch >= 1


def compared(
    model: str, champion: str, weights: Mapping[str, float], totals: Mapping[str, ArmTotals], since_s: float
) -> Experiment:
    """What is known of a model's versions.

    Args:
        model: its name.
        champion: the champion's version.
        weights: the share of each version by design, which add up to 1; the champion's may be 0.
        totals: what was counted of each.
        since_s: since when, in seconds since 1970.
    """
    given = [version for version, weight in weights.items() if weight > 0]
    counts = [totals[version].requests for version in given]
    log_e = float(sequential.log_e_mismatch([([weights[each] for each in given], counts)])) if len(given) > 1 else 0.0
    arms = []
    for version in sorted(weights, key=lambda each: (each != champion, each)):
        own = totals[version]
        is_compared = version != champion and weights[champion] > 0
        share = weights[version] / (weights[version] + weights[champion]) if is_compared else 0.0
        arms.append(
            ArmReport(
                version,
                "champion" if version == champion else "canary",
                weights[version],
                own.requests,
                own.requests / sum(counts) if sum(counts) else None,
                tuple(_comparisons(own, totals[champion], share)) if is_compared else (),
            )
        )
    evidence = min(max(0.0, log_e / threshold(MISMATCH_ALPHA)), MOST_EVIDENCE)
    return Experiment(model, champion, since_s, evidence, tuple(arms))


def _comparisons(ours: ArmTotals, theirs: ArmTotals, share: float) -> Iterator[Comparison]:
    yield _rates("errors", (ours.errors, ours.requests), (theirs.errors, theirs.requests), share)
    first = [each.errors if each.first_errors is None else each.first_errors for each in (ours, theirs)]
    if first != [ours.errors, theirs.errors]:
        yield _rates("first_errors", (first[0], ours.requests), (first[1], theirs.requests), share)
    for metric in QUANTILES:
        if metric in ours.slow and metric in theirs.slow:
            slow = (ours.slow[metric], ours.measured), (theirs.slow[metric], theirs.measured)
            yield _rates(metric, *slow, share)
    if ours.labelled and theirs.labelled:
        wrong = _rates("accuracy", (ours.wrong, ours.labelled), (theirs.wrong, theirs.labelled), share)
        right = [None if rate is None else 1 - rate for rate in (wrong.version, wrong.champion)]
        yield msgspec.structs.replace(wrong, version=right[0], champion=right[1])
    if ours.values[0] and theirs.values[0]:
        mine, other = Moments(*ours.values), Moments(*theirs.values)
        version, champion = (each.total / each.size if each.size else None for each in (mine, other))
        between = sequential.difference_interval(mine, other, INTERVAL_ALPHA)
        yield Comparison("value", version, champion, "difference", *_ends(between))


def _rates(metric: str, ours: tuple[int, int], theirs: tuple[int, int], share: float) -> Comparison:
    """Of (events, units) of both."""
    between = Interval(0.0, inf)
    if ours[0] or theirs[0]:
        between = sequential.ratio_interval([Split(share, ours[0], theirs[0])], INTERVAL_ALPHA)
    version, champion = (part / whole if whole else None for part, whole in (ours, theirs))
    return Comparison(metric, version, champion, "ratio", *_ends(between))


def _ends(interval: Interval) -> tuple[float | None, float | None]:
    low, high = (end if isfinite(end) else None for end in interval)
    return low, high


def slow_of(totals: VersionTotals, bounds: Mapping[str, int]) -> dict[str, int]:
    """How many requests took longer than each bound, the number of a cell of the latency histogram."""
    return {metric: sum(totals.latency[cell + 1 :]) for metric, cell in bounds.items()}
