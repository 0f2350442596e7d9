"""One line in the log for each call that controls the server: who asked for what, and what became of it."""

from typing import Final

import structlog

from penstock_server.call import Call, Cancellable, Metadata
from penstock_server.errors import PenstockError

log = structlog.get_logger(__name__)

EVENT: Final = "control action"
LONGEST: Final = 200
"""Of what a caller wrote, and of an error that quotes it."""


def write_down(*, who: str, action: str, model: str, result: str) -> None:
    """Writes one line: who asked for what of which model, "" for the whole server, and what became of it."""
    log.info(EVENT, who=who, action=action[:LONGEST], model=model[:LONGEST], result=result[:LONGEST])


class Audited:
    """A call that leaves one line when it is over, however it ends.

    Args:
        call: the call.
        who: the caller's name.
        action: the method's name.
        model: which it names, "" for the whole server.

    Attributes:
        who: the caller's name.
    """

    def __init__(self, call: Call, *, who: str, action: str, model: str) -> None:
        self._call = call
        self.who = who
        self._action = action
        self._model = model
        self._is_written = False
        self._pending: Cancellable | None = None

    def write(self, result: str) -> None:
        """Writes the line, unless it is written."""
        if not self._is_written:
            self._is_written = True
            write_down(who=self.who, action=self._action, model=self._model, result=result)

    def finish(self, message: bytes | None = None) -> None:
        self.write("done")
        self._call.finish(message)

    def fail(self, error: PenstockError) -> None:
        self.write(str(error) or type(error).__name__)
        self._call.fail(error)

    def send(self, message: bytes) -> None:
        self._call.send(message)

    def watch(self) -> None:
        self._call.watch()

    @property
    def kind(self) -> int:
        return self._call.kind

    def metadata(self) -> Metadata:
        return self._call.metadata()

    def peer(self) -> tuple[str, ...]:
        return self._call.peer()

    def cancelled(self) -> None:
        """The caller left; what it asked for may happen all the same."""
        self.write("its caller left")
        if self._pending is not None:
            self._pending.cancelled()

    @property
    def pending(self) -> Cancellable | None:
        return self._pending

    @pending.setter
    def pending(self, pending: Cancellable | None) -> None:
        self._pending = pending
        self._call.pending = None if pending is None else self

    @property
    def deadline_s(self) -> float:
        return self._call.deadline_s

    @deadline_s.setter
    def deadline_s(self, deadline_s: float) -> None:
        self._call.deadline_s = deadline_s

    @property
    def is_over(self) -> bool:
        return self._call.is_over

    @is_over.setter
    def is_over(self, is_over: bool) -> None:
        self._call.is_over = is_over

    @property
    def headers(self) -> Metadata:
        return self._call.headers

    @headers.setter
    def headers(self, headers: Metadata) -> None:
        self._call.headers = headers

    @property
    def trailers(self) -> Metadata:
        return self._call.trailers

    @trailers.setter
    def trailers(self, trailers: Metadata) -> None:
        self._call.trailers = trailers
