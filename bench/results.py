"""Measurements, their medians over rounds, and ratios of servers measured in the same round.

A ratio is the median of the rounds' ratios. The two servers of a round are measured one after the other, so a machine
that slows down during a run changes the ratio little.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

import numpy as np
from numpy.typing import NDArray

from bench.load.plan import LoadResult


def percentile(latencies_s: NDArray[np.float64], percent: float) -> float | None:
    """The smallest latency that at least `percent` of the requests did not exceed (nearest rank); None without any.

    It is always a measured value, never one between two.
    """
    if not 0 < percent <= 100:
        raise ValueError(f"a percentile is above 0 and at most 100, got {percent}")
    if not latencies_s.size:
        return None
    return float(np.percentile(latencies_s, percent, method="inverted_cdf"))


@dataclass(frozen=True, slots=True)
class Measurement:
    """One server under one scenario in one round; None if nothing succeeded.

    Attributes:
        cpu_us: CPU microseconds of the server and its workers per request.
        capacity_per_s: what the server answered in a closed loop just before, if the load depends on it.
        goodput_per_s: answers within the deadline, counted from when each request was due, if there was one.
    """

    scenario: str
    server: str
    round: int
    requests_per_s: float
    cpu_us: float | None
    p50_ms: float | None
    p99_ms: float | None
    attempted: int
    failures: dict[str, int]
    capacity_per_s: float | None = None
    goodput_per_s: float | None = None

    @property
    def failed(self) -> int:
        """Requests without a good answer."""
        return sum(self.failures.values())

    @property
    def goodput_share(self) -> float | None:
        """Goodput as a share of the capacity measured just before."""
        return (
            self.goodput_per_s / self.capacity_per_s if self.goodput_per_s is not None and self.capacity_per_s else None
        )


@dataclass(frozen=True, slots=True)
class Summary:
    """One server under one scenario over all rounds; a ratio is how many times better it is than the baseline."""

    scenario: str
    server: str
    requests_per_s: float
    cpu_us: float | None
    p50_ms: float | None
    p99_ms: float | None
    attempted: int
    failed: int
    throughput_ratio: float | None
    cpu_ratio: float | None
    p99_ratio: float | None
    capacity_per_s: float | None = None
    goodput_per_s: float | None = None
    goodput_share: float | None = None


def measurement(
    scenario: str,
    server: str,
    number: int,
    result: LoadResult,
    *,
    capacity_per_s: float | None = None,
    deadline_s: float | None = None,
) -> Measurement:
    """The measurement that a load run gives."""
    count = result.latencies_s.size
    p50_s, p99_s = (percentile(result.latencies_s, percent) for percent in (50, 99))
    return Measurement(
        scenario=scenario,
        server=server,
        round=number,
        requests_per_s=result.requests_per_s,
        cpu_us=result.probed * 1e6 / count if count and result.probed is not None else None,
        p50_ms=None if p50_s is None else p50_s * 1e3,
        p99_ms=None if p99_s is None else p99_s * 1e3,
        attempted=result.attempted,
        failures=result.failures,
        capacity_per_s=capacity_per_s,
        goodput_per_s=None if deadline_s is None else goodput_per_s(result, deadline_s),
    )


def goodput_per_s(result: LoadResult, deadline_s: float) -> float:
    """Answers within the deadline per second of the window."""
    return int((result.latencies_s <= deadline_s).sum()) / result.window_s if result.window_s > 0 else 0.0


def summarise(measurements: Iterable[Measurement], *, baseline: str) -> list[Summary]:
    """One summary per scenario and server, in the order of first measurement."""
    groups: dict[tuple[str, str], list[Measurement]] = {}
    for each in measurements:
        groups.setdefault((each.scenario, each.server), []).append(each)
    return [
        _summary(
            rounds, {each.round: each for each in groups.get((scenario, baseline), [])} if server != baseline else {}
        )
        for (scenario, server), rounds in groups.items()
    ]


def _summary(rounds: list[Measurement], baseline: dict[int, Measurement]) -> Summary:
    pairs = [(each, baseline[each.round]) for each in rounds if each.round in baseline]
    return Summary(
        scenario=rounds[0].scenario,
        server=rounds[0].server,
        requests_per_s=median(each.requests_per_s for each in rounds),
        cpu_us=_median(each.cpu_us for each in rounds),
        p50_ms=_median(each.p50_ms for each in rounds),
        p99_ms=_median(each.p99_ms for each in rounds),
        attempted=sum(each.attempted for each in rounds),
        failed=sum(each.failed for each in rounds),
        throughput_ratio=_ratio(pairs, lambda mine, theirs: (mine.requests_per_s, theirs.requests_per_s)),
        cpu_ratio=_ratio(pairs, lambda mine, theirs: (theirs.cpu_us, mine.cpu_us)),
        p99_ratio=_ratio(pairs, lambda mine, theirs: (theirs.p99_ms, mine.p99_ms)),
        capacity_per_s=_median(each.capacity_per_s for each in rounds),
        goodput_per_s=_median(each.goodput_per_s for each in rounds),
        goodput_share=_median(each.goodput_share for each in rounds),
    )


def _median(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return median(present) if present else None


def _ratio(
    pairs: list[tuple[Measurement, Measurement]],
    parts: Callable[[Measurement, Measurement], tuple[float | None, float | None]],
) -> float | None:
    """The median of the pairs' ratios, without pairs in which a part is absent or zero."""
    fractions = [parts(mine, theirs) for mine, theirs in pairs]
    return _median(above / below for above, below in fractions if above is not None and below)
