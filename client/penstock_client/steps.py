"""The steps of a session, as records: one attempt of a call, or one pause.

A session's methods are generators of these steps. `client` and `aio` perform each one, blocking or awaiting, and send its
outcome back. So all decisions are made in one place that does no I/O.
"""

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import grpc

T = TypeVar("T")

PUSHBACK_KEY = "grpc-retry-pushback-ms"


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt of one unary method; answered by the reply's bytes or a `Failure`."""

    method: str
    payload: bytes
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Pause:
    """A wait before the next attempt; answered by None."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Failure:
    """How an attempt failed.

    Attributes:
        pushback_s: the pause that the server asked for; negative if it asked for no further attempt, None if it asked
            for nothing.
        is_unsent: no server has begun with it, for certain, so that another one may be asked at once.
        cause: gRPC's exception, if one was raised.
    """

    code: grpc.StatusCode
    details: str = ""
    pushback_s: float | None = None
    cause: BaseException | None = None
    is_unsent: bool = False


@dataclass(frozen=True, slots=True)
class Made:
    """The attempt that a plan had the bytes of; the general steps go on from it.

    Attributes:
        outcome: how it ended.
        begun_s: when it began, by the session's clock.
        taken_s: how long it took.
    """

    outcome: bytes | Failure
    begun_s: float
    taken_s: float


Steps = Generator[Attempt | Pause, bytes | Failure | None, T]


def failure_of(error: grpc.RpcError) -> Failure:
    """The failure that an exception of `grpc` or `grpc.aio` reports."""
    # grpc and grpc.aio declare different types for trailers; both hold pairs.
    trailers: Iterable[tuple[str, str | bytes]] = cast("Any", error.trailing_metadata() or ())
    pushback = next((value for key, value in trailers if key == PUSHBACK_KEY), None)
    return Failure(error.code(), error.details() or "", None if pushback is None else pushback_s(pushback), error)


def pushback_s(trailer: str | bytes) -> float:
    """The pause that a pushback trailer asks for; negative for "never".

    Source: gRPC proposal A6, "Pushback": a value that is not a number means that the call must not be tried again.

    >>> pushback_s("250"), pushback_s("-1"), pushback_s("soon")
    (0.25, -1.0, -1.0)
    """
    try:
        milliseconds = int(trailer)
    except ValueError:
        return -1.0
    return milliseconds / 1000 if milliseconds >= 0 else -1.0
