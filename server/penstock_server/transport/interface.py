"""The seam between a transport and the services: the table of methods, and what a transport and its reactor promise.

A transport accepts calls, hands each message to its method's handler on the reactor's thread, and sends what the call is
told to. A handler that raises a `PenstockError` fails its call with that error's status.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from penstock_server.call import Call

UnaryHandler = Callable[[bytes, Call], None]

StreamReceiver = Callable[[bytes | None], None]
"""Gets each message of the caller, and None when it has sent its last."""

StreamHandler = Callable[[Call], StreamReceiver]


@dataclass(frozen=True, slots=True)
class Methods:
    """Every method served, by its full path such as `/package.Service/Method`."""

    unary: Mapping[str, UnaryHandler]
    streams: Mapping[str, StreamHandler]

    def __or__(self, other: "Methods") -> "Methods":
        """Both tables as one."""
        return Methods({**self.unary, **other.unary}, {**self.streams, **other.streams})


class Transport(Protocol):
    """Accepts calls and drives the reactor, on one thread."""

    def run(self) -> None:
        """Serves until drained; the calling thread becomes the reactor's."""

    def post(self, action: Callable[[], None]) -> None:
        """Runs an action soon on the reactor's thread; safe from any thread."""

    def listen(self, address: str) -> None:
        """Binds `host:port` and accepts calls; safe from any thread, raises `UnavailableError` when it cannot bind."""

    def drain(self, grace_s: float) -> None:
        """Accepts no more, lets calls end for `grace_s`, then cancels them and makes `run` return; from any thread."""


class Reactor(Protocol):
    """What a transport drives: the work that waits between events.

    Attributes:
        is_due: a step has work to do now.
    """

    is_due: bool

    def step(self) -> float:
        """Runs what is due; the seconds until it should be called again, 0 when work is left."""
