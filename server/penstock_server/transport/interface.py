"""The seam between transports and services: the table of methods, and what a transport and a scheduler promise.

A transport accepts calls, hands each message to its method's handler, and sends the handler's replies. Its own thread is
the reactor: handlers and the scheduler's steps run there. A handler that raises a `PenstockError` fails its call with that
error's status.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from penstock_server.call import Call, Metadata
from penstock_server.errors import PenstockError, UnavailableError

UnaryHandler = Callable[[bytes, Call], None]

IDLE_S: Final = 0.05
"""The longest wait of an idle reactor, which bounds how late a posted action runs."""
LAST_WORDS_S: Final = 1.0
"""The end of the grace, at most a tenth of it, in which the statuses of calls that still run leave; then the transport ends."""
LEAST_WORDS_S: Final = 0.25
"""The time that they have even when the grace is short."""

StreamReceiver = Callable[[bytes | None], None]
"""Gets each message of the caller, and None after the last."""

StreamHandler = Callable[[Call], StreamReceiver]


@dataclass(frozen=True, slots=True)
class Methods:
    """Every method served, by its full path such as `/package.Service/Method`.

    Attributes:
        during_drain: unary methods that are answered while the server drains; calls of others are refused then.
    """

    unary: Mapping[str, UnaryHandler]
    streams: Mapping[str, StreamHandler]
    during_drain: frozenset[str] = frozenset()

    def __or__(self, other: "Methods") -> "Methods":
        return Methods(
            {**self.unary, **other.unary}, {**self.streams, **other.streams}, self.during_drain | other.during_drain
        )


Refused = Callable[[PenstockError], None]
"""Counts a call that the transport itself refused, before any handler got it."""


def ignore_refusal(_error: PenstockError) -> None:
    """Counts nothing."""


def cannot_listen(address: str) -> UnavailableError:
    """The error of a transport that cannot bind an address."""
    return UnavailableError(f"cannot listen on {address}: the port is in use or the address is not this machine's")


def last_words_s(grace_s: float) -> float:
    """How long before the end of the grace the calls that still run are ended, so that all is over within it."""
    return min(LAST_WORDS_S, grace_s / 10)


class PlainPort(Protocol):
    """What a transport does for plain requests, whose calls are numbers of slots; on the reactor's thread."""

    def send_replies(self, operations: int, count: int, block: int, *, is_shared: bool = False) -> None:
        """Does what kernels wrote at these addresses: operations as `layout` has them, and the messages that they send.

        Other threads may have the interpreter meanwhile if it `is_shared`.
        """

    def fail(self, slot: int, error: PenstockError) -> None:
        """Ends a call with an error's status."""

    def ending(self, error: PenstockError) -> bytes:
        """What kernels are to write for a call that ends with an error, as often as they like."""
        ...

    def metadata_of(self, slot: int) -> Metadata:
        """The metadata of a call that is not over."""
        ...

    def call(self, slot: int, deadline_ns: int) -> Call:
        """The call as an object, for the general path."""
        ...


class Sifter(Protocol):
    """Takes plain requests out of a turn's events before Python sees them."""

    def sift(self, events: int, count: int, now_ns: int) -> int:
        """Marks those of `count` events at this address that it takes; how many are left."""
        ...

    def stop(self, error: PenstockError, count: Callable[[], None]) -> None:
        """Refuses all of them from now on, each of them counted; what waits is still answered."""

    def give_up(self) -> list[int]:
        """Gives up all that waits or runs, as if the callers had left; their calls, which the transport ends."""
        ...


class Transport(Protocol):
    """Accepts calls and runs a scheduler, on one thread: the reactor.

    Attributes:
        described: what it is, and what it is made of, for people.
    """

    described: str

    def run(self) -> None:
        """Serves until drained; the calling thread becomes the reactor's."""

    def post(self, action: Callable[[], None]) -> None:
        """Runs an action soon on the reactor's thread; safe from any thread."""

    def listen(self, address: str) -> None:
        """Binds `host:port` and accepts calls; safe from any thread, raises `UnavailableError` when it cannot bind."""

    def drain(self, grace_s: float) -> None:
        """Ends the transport, and makes `run` return; safe from any thread.

        Calls that run are answered. New ones end UNAVAILABLE, and so do those that still run when `grace_s` is nearly over.
        A stream ends UNAVAILABLE as soon as all of its messages are answered. A connection without calls is closed.
        """


class Scheduler(Protocol):
    """The work that a transport runs between events; it cuts the transports' dependency on prediction.

    Attributes:
        is_due: a step has work to do now.
    """

    is_due: bool

    def step(self) -> float:
        """Runs what is due; returns the seconds until it should be called again, 0 when work is left."""
