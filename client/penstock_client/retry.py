"""Decides whether another attempt follows a failed one, after what pause, and how many the client affords.

A prediction changes nothing at the server, so an attempt that reached no server is safe to repeat. After overload the
client retries only if the server names a time: callers that all retry at once keep a full queue full.
"""

from dataclasses import dataclass

import grpc

from penstock_client.steps import Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How pauses between attempts grow: `initial_s`, times `multiplier` each time, up to `cap_s`.

    A pause is a random part of that, from nothing to the whole, so that callers that failed together do not come back together.

    >>> Backoff(initial_s=0.1, cap_s=0.3).ceiling_s(retry=0), Backoff(initial_s=0.1, cap_s=0.3).ceiling_s(retry=5)
    (0.1, 0.3)
    """

    initial_s: float = 0.05
    cap_s: float = 1.0
    multiplier: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.initial_s <= self.cap_s or self.multiplier < 1:
            raise ValueError(f"expected 0 < initial_s <= cap_s and multiplier >= 1, got {self}")

    def ceiling_s(self, *, retry: int) -> float:
        """The longest pause before retry number `retry`, counted from 0."""
        # The exponent is bounded so that a long run of retries cannot overflow a float.
        return min(self.cap_s, self.initial_s * self.multiplier ** min(retry, 64))


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryBudget:
    """How much of its calls a client may repeat: a bucket of `tokens`, of which a failed attempt takes one.

    An answer puts `ratio` of a token back. While the bucket is half empty or more, nothing is tried again: where a server fails
    for long, the client then adds a `ratio` of its calls at most. Threads may share it; now and then a token may get lost.

    Source: gRPC proposal A6, "Throttling Retry Attempts and Hedged RPCs".

    >>> RetryBudget(tokens=0)
    Traceback (most recent call last):
    ValueError: expected tokens above 0 and a ratio above 0, got RetryBudget(tokens=0, ratio=0.1)
    """

    tokens: float = 200.0
    ratio: float = 0.1

    def __post_init__(self) -> None:
        if self.tokens <= 0 or self.ratio <= 0:
            raise ValueError(f"expected tokens above 0 and a ratio above 0, got {self}")


class Bucket:
    """The state of a budget.

    Attributes:
        is_full: whether no answer need be counted.
    """

    __slots__ = ("_budget", "_left", "is_full")

    def __init__(self, budget: RetryBudget | None) -> None:
        self._budget = budget
        self._left = 0.0 if budget is None else budget.tokens
        self.is_full = True

    @property
    def affords_retry(self) -> bool:
        """Whether a failed attempt may be followed by another."""
        return self._budget is None or self._left > self._budget.tokens / 2

    def on_failure(self) -> None:
        """Counts an attempt that ended in a way that a retry might mend."""
        if self._budget is not None:
            self._left = max(0.0, self._left - 1.0)
            self.is_full = False

    def on_answer(self) -> None:
        """Counts an answer; need not be called while `is_full`."""
        if self._budget is not None:
            self._left = min(self._budget.tokens, self._left + self._budget.ratio)
            self.is_full = self._left == self._budget.tokens


def pause_before_retry_s(
    failure: Failure, backoff: Backoff, *, retry: int, retries: int, remaining_s: float, fraction: float
) -> float | None:
    """The pause before the next attempt, or None if there is none.

    Args:
        failure: how the last attempt ended.
        backoff: how pauses grow.
        retry: the number of this retry, counted from 0.
        retries: how many are allowed.
        remaining_s: the time left before the call's deadline; a pause that would use it up is not started.
        fraction: a uniform random number from 0 to 1; it spreads callers over the whole of the ceiling.

    Source: gRPC proposal A6 for the pushback, which replaces the backoff.

    >>> lost = Failure(grpc.StatusCode.UNAVAILABLE)
    >>> pause_before_retry_s(lost, Backoff(), retry=0, retries=3, remaining_s=1.0, fraction=1.0)
    0.05
    >>> pause_before_retry_s(lost, Backoff(), retry=3, retries=3, remaining_s=1.0, fraction=1.0) is None
    True
    """
    if retry >= retries or not _may_retry(failure):
        return None
    pause_s = failure.pushback_s
    if pause_s is None:
        pause_s = backoff.ceiling_s(retry=retry) * fraction
    return pause_s if pause_s < remaining_s else None


def is_countable(failure: Failure) -> bool:
    """Whether a failure takes a token: one that could be retried, or that the server wants no retry of."""
    return _may_retry(failure) or failure.pushback_s is not None


def _may_retry(failure: Failure) -> bool:
    if failure.code is grpc.StatusCode.UNAVAILABLE:
        return failure.pushback_s is None or failure.pushback_s >= 0
    if failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return failure.pushback_s is not None and failure.pushback_s >= 0
    return False
