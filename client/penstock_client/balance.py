"""Which of several servers takes the next call, which are left out, and which are to be looked at: decisions, without I/O.

The one with the fewest calls in flight takes the next; those that are equal take turns. One that could not be reached, or that
says that it does not serve, is left out until a check finds it well. Where all are out, they are asked all the same: a call
that tries costs less than one that gives up.

`balanced` performs the calls, the checks (grpc.health.v1) and the look-ups of names.
"""

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import grpc

from penstock_client.steps import Failure

C = TypeVar("C")

HEALTH_METHOD: Final = "/grpc.health.v1.Health/Check"
SERVING: Final = b"\x08\x01"
"""A `HealthCheckResponse` of SERVING; the request for the whole server is empty."""
_ILL: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})
_FIRST_CHECK_S: Final = 0.1
_MOST_DOUBLINGS: Final = 16
_DOUBT_S: Final = 1.0
"""How often names are asked for at most, while servers fail."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Balancing:
    """How a client of several servers looks after them.

    Attributes:
        check_every_s: seconds between two looks at a server; one that is left out is looked at sooner at first.
        check_timeout_s: how long it may take to say that it is well.
        resolve_every_s: seconds until the addresses of a `dns:///` name are asked for again; also asked for where a call fails.

    >>> Balancing(check_every_s=0)
    Traceback (most recent call last):
    ValueError: expected times above 0, got Balancing(check_every_s=0, check_timeout_s=1.0, resolve_every_s=30.0)
    """

    check_every_s: float = 5.0
    check_timeout_s: float = 1.0
    resolve_every_s: float = 30.0

    def __post_init__(self) -> None:
        if min(self.check_every_s, self.check_timeout_s, self.resolve_every_s) <= 0:
            raise ValueError(f"expected times above 0, got {self}")


@dataclass(slots=True, eq=False)
class Place(Generic[C]):
    """One server.

    Attributes:
        key: its address.
        calls: how it is called.
        in_flight: calls that have not ended.
        failures: since it was last known to be well; 0 while it is.
        check_at_s: when it is looked at next.
        is_kept: whether it is still among the servers.
    """

    key: str
    calls: C
    check_at_s: float
    in_flight: int = 0
    failures: int = 0
    is_kept: bool = True


class Places(Generic[C]):
    """The servers and what is known of each. Threads may share it.

    Args:
        balancing: the times.
        is_fixed: whether the servers are always the same, so that no name is asked for again.
    """

    def __init__(self, balancing: Balancing, *, is_fixed: bool) -> None:
        self._balancing = balancing
        self._is_fixed = is_fixed
        self._resolved_s = -math.inf
        self._is_doubtful = False
        self._places: tuple[Place[C], ...] = ()
        self._turn = 0
        self._lock = threading.Lock()

    @property
    def all(self) -> tuple[Place[C], ...]:
        """The servers."""
        return self._places

    def begin(self, tried: tuple[Place[C], ...] = ()) -> Place[C] | None:
        """The server that takes a call, which is counted; None if there is none beside those tried."""
        with self._lock:
            left = [place for place in self._places if place not in tried] if tried else self._places
            if not left:
                return None
            self._turn += 1
            at = self._turn % len(left)
            turns = (*left[at:], *left[:at])
            well: tuple[Place[C], ...] = tuple(place for place in turns if not place.failures)
            best = (
                min(well, key=lambda place: place.in_flight) if well else min(turns, key=lambda place: place.failures)
            )
            best.in_flight += 1
            return best

    def end(self, place: Place[C], outcome: object, now: float) -> bool:
        """Counts the end of a call; returns whether the server's connections are to be closed, as it is one no longer."""
        with self._lock:
            place.in_flight -= 1
            if isinstance(outcome, Failure) and outcome.code is grpc.StatusCode.UNAVAILABLE:
                self._fail(place, now)
            return not place.is_kept and not place.in_flight

    def update(self, found: Mapping[str, Callable[[], C]], now: float) -> list[Place[C]]:
        """Makes these the servers, and keeps those that were; returns those whose connections are to be closed."""
        with self._lock:
            self._resolved_s, self._is_doubtful = now, False
            known = {place.key: place for place in self._places}
            self._places = tuple(
                known.get(key) or Place(key, make(), now + self._balancing.check_every_s) for key, make in found.items()
            )
            gone = [place for key, place in known.items() if key not in found]
            for place in gone:
                place.is_kept = False
            return [place for place in gone if not place.in_flight]

    def due(self, now: float) -> list[Place[C]]:
        """The servers to look at now."""
        return [place for place in self._places if place.check_at_s <= now]

    def resolve_at_s(self) -> float:
        """When names are asked for again: every so often, and soon after a server failed; infinite where there are none."""
        if self._is_fixed:
            return math.inf
        wait_s = self._balancing.resolve_every_s
        return self._resolved_s + (min(wait_s, _DOUBT_S) if self._is_doubtful else wait_s)

    def unresolved(self, now: float) -> None:
        """Names could not be asked for; the servers are those that were."""
        self._resolved_s, self._is_doubtful = now, True

    def next_look_s(self) -> float:
        """When there is something to do next."""
        return min(self.resolve_at_s(), min((place.check_at_s for place in self._places), default=math.inf))

    def forget(self) -> None:
        """After a fork, in the child: no call is in flight."""
        self._lock = threading.Lock()
        for place in self._places:
            place.in_flight = 0

    def checked(self, place: Place[C], outcome: bytes | Failure, now: float) -> None:
        """Takes what a server answered to a check. One that knows no such service, or no such caller, is well."""
        with self._lock:
            if outcome.code in _ILL if isinstance(outcome, Failure) else outcome != SERVING:
                self._fail(place, now)
            else:
                place.failures, place.check_at_s = 0, now + self._balancing.check_every_s

    def _fail(self, place: Place[C], now: float) -> None:
        # Callers that were under way fail together; one check answers them all.
        if place.failures and place.check_at_s > now:
            return
        self._is_doubtful = True
        place.failures += 1
        doubled_s = _FIRST_CHECK_S * 2 ** min(place.failures - 1, _MOST_DOUBLINGS)
        place.check_at_s = now + min(doubled_s, self._balancing.check_every_s)
