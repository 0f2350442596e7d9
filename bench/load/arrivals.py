"""When the next request is due. Pure: told the time, never reads it. Called by `generator`."""

from typing import Protocol

import numpy as np

from bench.load.plan import LoadPlan


class Pace(Protocol):
    """Says, one request after another, when each was due."""

    is_open: bool

    def take(self, now: float) -> float | None:
        """The due time of a request to send now, which is then spent; None when there is none yet, or none left."""
        ...

    def next_due(self) -> float:
        """When to ask again if nothing else happens; infinity when no time will change the answer."""
        ...

    def stop(self) -> None:
        """Gives out no more."""
        ...

    @property
    def is_spent(self) -> bool:
        """Whether none is left to give out."""
        ...


class ClosedPace:
    """A request is due whenever there is room for it: an answer releases the next."""

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


class PoissonPace:
    """Requests are due at random times of a mean rate, whatever the server does: a slow server meets a queue.

    A request that finds no room keeps its due time, so that waiting for room counts as latency.
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


def pace_of(plan: LoadPlan, start: float) -> Pace:
    """The pace that a plan asks for, from a start time on the caller's clock."""
    if plan.rate_per_s is None:
        return ClosedPace(max_requests=plan.max_requests)
    return PoissonPace(
        start=start,
        rate_per_s=plan.rate_per_s,
        seconds=plan.warmup_s + plan.duration_s,
        max_requests=plan.max_requests,
        seed=plan.seed,
    )
