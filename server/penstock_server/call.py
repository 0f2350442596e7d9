"""One RPC as the rooms behind the transport see it: it is answered once, now or later.

A handler returns at once. It answers before that or afterwards, on the reactor's thread: threads that run models never
see a call. One suite of tests checks that every transport keeps these promises.
"""

from collections.abc import Sequence
from typing import Final, Protocol

from penstock_server.errors import PenstockError

Metadata = Sequence[tuple[str, str | bytes]]

UNARY: Final = 0
STREAMED: Final = 1
"""One message of a stream."""
HTTP: Final = 2
"""It came to another port of this process."""


class Cancellable(Protocol):
    """Something that waits on behalf of a call."""

    def cancelled(self) -> None:
        """The caller left; release what is held for it."""


class Call(Protocol):
    """One RPC. After `finish`, `fail` or the caller's leaving it is over, and further answers are dropped.

    Attributes:
        deadline_s: the caller's deadline on the monotonic clock, infinite when it set none.
        is_over: answered, failed or cancelled.
        pending: what is cancelled when the caller leaves, once the call is watched; a handler that answers later sets it.
        headers, trailers: metadata to send, before the first reply and with the status; empty unless a handler sets them.
    """

    deadline_s: float
    is_over: bool
    pending: Cancellable | None
    headers: Metadata
    trailers: Metadata

    @property
    def kind(self) -> int:
        """How it came: `UNARY`, `STREAMED` or `HTTP`."""
        ...

    def watch(self) -> None:
        """Notices from now on when the caller leaves; a handler that answers at once need not pay for it."""

    def metadata(self) -> Metadata:
        """The caller's metadata."""

    def peer(self) -> tuple[str, ...]:
        """The names of the caller's certificate, which has been verified, as `access.identity` writes them; none without."""
        ...

    def send(self, message: bytes) -> None:
        """One reply of a stream, in order."""

    def finish(self, message: bytes | None = None) -> None:
        """Ends the call with status OK; a unary call gives its reply here."""

    def fail(self, error: PenstockError) -> None:
        """Ends the call with the error's status."""
