"""When the next request is due: in a closed loop, or at the times of Poisson arrivals. It never reads a clock."""

from typing import Protocol

import numpy as np

from bench.load.plan import LoadPlan


class Arrivals(Protocol):
    """The due times of requests, one after another."""

    is_open: bool

    def take(self, now: float) -> float | None:
        """The due time of the next request, if it is to be sent now; None if none is due yet, or none is left."""
        ...

    def next_due(self) -> float:
        """When the next request is due, if that depends on time alone; otherwise infinity."""
        ...

    def stop(self) -> None:
        """Ends the arrivals: none is left."""
        ...

    @property
    def is_spent(self) -> bool:
        """Whether none is left."""
        ...


class ClosedLoop:
    """A request is due whenever there is room for it: each answer releases the next request."""

    is_open = False

    def __init__(self, *, max_requests: int) -> None:
        self._left = max_requests

    def take(self, now: float) -> float | None:
        if self._left <= 0:
            return None
        self._left -= 1
        return now

    def next_due(self) -> float:
        return float("inf")

    def stop(self) -> None:
        self._left = 0

    @property
    def is_spent(self) -> bool:
        return self._left <= 0


class PoissonArrivals:
    """Requests are due at random times of a mean rate, however slow the server is: a slow server gets a queue.

    A request that finds no room keeps its due time, so that the wait for room counts as latency.
    """

    is_open = True

    def __init__(self, *, start: float, rate_per_s: float, seconds: float, max_requests: int, seed: int) -> None:
        count = min(max_requests, int(rate_per_s * seconds + 6 * np.sqrt(rate_per_s * seconds)) + 1)
        gaps = np.random.default_rng(seed).exponential(1 / rate_per_s, count)
        times = start + np.cumsum(gaps)
        self._times: list[float] = times[times < start + seconds].tolist()
        self._next = 0

    def take(self, now: float) -> float | None:
        if self._next >= len(self._times) or self._times[self._next] > now:
            return None
        self._next += 1
        return self._times[self._next - 1]

    def next_due(self) -> float:
        return float("inf") if self.is_spent else self._times[self._next]

    def stop(self) -> None:
        self._times = self._times[: self._next]

    @property
    def is_spent(self) -> bool:
        return self._next >= len(self._times)


def arrivals_of(plan: LoadPlan, start: float) -> Arrivals:
    """A plan's arrivals, from a start time on the caller's clock."""
    if plan.rate_per_s is None:
        return ClosedLoop(max_requests=plan.max_requests)
    return PoissonArrivals(
        start=start,
        rate_per_s=plan.rate_per_s,
        seconds=plan.warmup_s + plan.duration_s,
        max_requests=plan.max_requests,
        seed=plan.seed,
    )
