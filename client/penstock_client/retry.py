"""Decides whether another attempt follows a failed one, and after what pause.

A prediction changes nothing at the server, so an attempt that reached no server is safe to repeat. After overload the
client retries only if the server names a time: callers that all retry at once keep a full queue full.
"""

from dataclasses import dataclass

import grpc

from penstock_client.steps import Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How pauses between attempts grow: `initial_s`, times `multiplier` each time, up to `cap_s`; then jittered.

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
        fraction: a uniform random number from 0 to 1; it spreads callers over the upper half of the ceiling.

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
        pause_s = backoff.ceiling_s(retry=retry) * (1 + fraction) / 2
    return pause_s if pause_s < remaining_s else None


def _may_retry(failure: Failure) -> bool:
    if failure.code is grpc.StatusCode.UNAVAILABLE:
        return failure.pushback_s is None or failure.pushback_s >= 0
    if failure.code is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return failure.pushback_s is not None and failure.pushback_s >= 0
    return False
