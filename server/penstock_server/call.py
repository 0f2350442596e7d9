"""One RPC as the rooms behind the transport see it: answered once, now or later.

A handler returns at once; it answers then or afterwards, from the reactor's thread or from the one that ran the model.
Every transport keeps these promises, and one suite of tests holds them to it.
"""

from collections.abc import Sequence
from typing import Protocol

from penstock_server.errors import PenstockError

Metadata = Sequence[tuple[str, str | bytes]]


class Cancellable(Protocol):
    """Something that waits on behalf of a call."""

    def cancelled(self) -> None:
        """The caller left: give back what is held for it."""


class Call(Protocol):
    """One RPC. After `finish`, `fail` or the caller's leaving it is over, and further answers are dropped.

    Attributes:
        deadline_s: the caller's deadline on the monotonic clock, infinite when it set none.
        is_over: answered, failed or cancelled.
        pending: told when the caller leaves, once it is watched; a handler that answers later puts itself here.
        headers, trailers: metadata to send, before the first reply and with the status; nothing unless a handler sets them.
    """

    deadline_s: float
    is_over: bool
    pending: Cancellable | None
    headers: Metadata
    trailers: Metadata

    def watch(self) -> None:
        """Learns from now on when the caller leaves; who answers at once need not pay for it."""

    def metadata(self) -> Metadata:
        """What the caller sent beside its message."""

    def send(self, message: bytes) -> None:
        """One reply of a stream, in order."""

    def finish(self, message: bytes | None = None) -> None:
        """Ends the call well; a unary call gives its reply here."""

    def fail(self, error: PenstockError) -> None:
        """Ends the call with the error's status."""
