"""Calls from within the process: another port makes them, and they are answered as if they had come over gRPC.

Over the native transport they are rows of its table, so that compiled kernels take those that are plain. Over the others
the handler is called at once.
"""

from collections.abc import Callable
from math import inf
from typing import NamedTuple, Protocol

import structlog

from penstock_server.call import HTTP, Cancellable, Metadata
from penstock_server.errors import PenstockError, UnsupportedError
from penstock_server.transport.interface import Methods
from penstock_server.transport.status import Status, status_of

log = structlog.get_logger(__name__)


class Outcome(Protocol):
    """Who made a call, and is told once how it ends; on the reactor's thread."""

    def replied(self, message: bytes) -> None:
        """The answer."""

    def ended(self, status: Status) -> None:
        """There is none."""


class CallMaker(Protocol):
    """Makes calls; on the reactor's thread."""

    def begin(
        self, path: str, message: bytes, metadata: Metadata, outcome: Outcome, peer: tuple[str, ...] = ()
    ) -> Cancellable | None:
        """Makes a unary call; what gives it up, or None if it is over already.

        Args:
            path: the method's.
            message: what is asked.
            metadata: what the handler sees of the caller's headers.
            outcome: is told how it ends.
            peer: the names of the caller's verified certificate, as `call.Call.peer` gives them.
        """
        ...


class DirectCalls:
    """Hands calls to their handlers.

    Args:
        methods: the handlers.
    """

    def __init__(self, methods: Methods) -> None:
        self._methods = methods

    def begin(
        self, path: str, message: bytes, metadata: Metadata, outcome: Outcome, peer: tuple[str, ...] = ()
    ) -> Cancellable | None:
        call = _DirectCall(metadata, outcome, peer)
        handler = self._methods.unary.get(path)
        try:
            if handler is None:
                raise UnsupportedError("this method is not served")
            handler(message, call)
        except PenstockError as error:
            call.fail(error)
        except Exception:
            log.exception("handler failed")
            call.fail(PenstockError())
        return None if call.is_over else call


class _DirectCall:
    """A `call.Call` whose answer its maker gets."""

    __slots__ = ("_metadata", "_outcome", "_peer", "deadline_s", "headers", "is_over", "pending", "trailers")

    kind = HTTP

    def __init__(self, metadata: Metadata, outcome: Outcome, peer: tuple[str, ...]) -> None:
        self._metadata = metadata
        self._peer = peer
        self._outcome = outcome
        self.deadline_s = inf
        self.is_over = False
        self.pending: Cancellable | None = None
        self.headers: Metadata = ()
        self.trailers: Metadata = ()

    def watch(self) -> None:
        """Does nothing: who made the call says when it is given up."""

    def metadata(self) -> Metadata:
        return self._metadata

    def peer(self) -> tuple[str, ...]:
        return self._peer

    def send(self, message: bytes) -> None:
        self.finish(message)

    def finish(self, message: bytes | None = None) -> None:
        if not self.is_over:
            self.is_over = True
            self.pending = None
            self._outcome.replied(message or b"")

    def fail(self, error: PenstockError) -> None:
        if not self.is_over:
            self.is_over = True
            self.pending = None
            self._outcome.ended(status_of(error))

    def cancelled(self) -> None:
        """Gives the call up."""
        if not self.is_over:
            self.is_over = True
            pending, self.pending = self.pending, None
            if pending is not None:
                pending.cancelled()


class Begin(NamedTuple):
    """What kernels of another port need to begin a call.

    Attributes:
        state: the address of the native transport's state.
        address: of its kernel `begin_call`.
        connection: the number of the connection of local calls.
        method: the number of the method that is called.
    """

    state: int
    address: int
    connection: int
    method: int


class GuestKernels(NamedTuple):
    """Kernels of another port that begin calls: their addresses, as `layout` has them.

    Attributes:
        state: the first word of each.
        turn: takes up what has come.
        reply: takes the reply to a call that they have begun.
    """

    state: int
    turn: int
    reply: int


class LocalCall:
    """A call over the native transport, until it ends.

    Args:
        cancel: gives up the call in a slot.
    """

    __slots__ = ("_cancel", "_slot", "outcome", "peer")

    def __init__(self, slot: int, outcome: Outcome, cancel: Callable[[int], None], peer: tuple[str, ...] = ()) -> None:
        self._slot = slot
        self.peer = peer
        self._cancel = cancel
        self.outcome = outcome

    def cancelled(self) -> None:
        """Gives the call up."""
        self._cancel(self._slot)
