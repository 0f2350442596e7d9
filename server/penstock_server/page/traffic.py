"""How much each version is asked now: rates, errors and times between two readings of the counters. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock.names import FAULTS, VersionKey
from penstock_server.metrics.counters import LATENCY_EDGES_S, REFUSALS, STAGES, SharedCounters

_FAULTS: Final = [REFUSALS.index(reason) for reason in FAULTS]
_TOTAL: Final = STAGES.index("total")


@dataclass(frozen=True, slots=True, eq=False)
class TrafficTotals:
    """What was counted of one version, over all workers.

    Attributes:
        requests: answered.
        failures: not answered, by the server's fault.
        latency: [buckets + 1] the answered ones by what they took in all.
    """

    requests: int
    failures: int
    latency: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class TrafficReading:
    """All versions at one moment, in seconds on the monotonic clock."""

    at_s: float
    versions: Mapping[VersionKey, TrafficTotals]


@dataclass(frozen=True, slots=True)
class Traffic:
    """Between two readings; None is not known.

    Attributes:
        requests_per_s: answered.
        errors: the share that the server failed to answer.
        p50_s, p99_s: the bounds that as many answers took at most; None without an answer, or over the last bound.
    """

    requests_per_s: float
    errors: float | None
    p50_s: float | None
    p99_s: float | None


def totals(workers: Sequence[SharedCounters]) -> TrafficTotals:
    """A version's totals, by its counters in each worker, of which there is at least one."""
    return TrafficTotals(
        sum(int(each.requests[0]) for each in workers),
        sum(int(each.refusals[_FAULTS].sum()) for each in workers),
        sum((each.latency[_TOTAL] for each in workers[1:]), start=workers[0].latency[_TOTAL].copy()),
    )


def traffic(before: TrafficReading, after: TrafficReading) -> dict[VersionKey, Traffic]:
    """Of each version that was counted at both readings, and asked between them.

    A version that is loaded anew begins at zero: what was counted of it is not known for this time.
    """
    seconds = after.at_s - before.at_s
    found = {}
    for key, last in after.versions.items():
        first = before.versions.get(key)
        if first is None or last.requests < first.requests or seconds <= 0:
            continue
        requests, failures = last.requests - first.requests, max(0, last.failures - first.failures)
        if requests or failures:
            found[key] = _of(requests, failures, last.latency - first.latency, seconds)
    return found


def together(before: TrafficReading, after: TrafficReading, keys: Iterable[VersionKey]) -> Traffic:
    """Of these versions, which were counted at both readings, as if they were one."""
    pairs = [(before.versions[key], after.versions[key]) for key in keys]
    return _of(
        sum(last.requests - first.requests for first, last in pairs),
        sum(max(0, last.failures - first.failures) for first, last in pairs),
        sum((last.latency - first.latency for first, last in pairs), start=np.zeros(1, np.int64)),
        max(after.at_s - before.at_s, 1e-9),
    )


def _of(requests: int, failures: int, latency: NDArray[np.int64], seconds: float) -> Traffic:
    return Traffic(
        requests / seconds,
        failures / (requests + failures) if requests + failures else None,
        quantile(0.5, latency),
        quantile(0.99, latency),
    )


def quantile(q: float, latency: NDArray[np.int64]) -> float | None:
    """The bound in seconds that at least this share of the answers took at most.

    Args:
        q: the share, 0 to 1.
        latency: [buckets + 1] answers.
    """
    answers = np.cumsum(latency)
    if not answers[-1] > 0:
        return None
    cell = int(np.searchsorted(answers, q * answers[-1]))
    return LATENCY_EDGES_S[cell] if cell < len(LATENCY_EDGES_S) else None
