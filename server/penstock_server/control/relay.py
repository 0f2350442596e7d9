"""The worker's end of questions about the whole server: calls wait here until the supervisor has answered.

A worker knows its own counts alone, and the supervisor sums over all. So a method of the control plane is not computed
in a worker: its message goes to the supervisor over the control socket, and the answer comes back as bytes. The
transport's methods call `ask`, the thread that obeys the supervisor `answered`.
"""

from collections.abc import Callable
from itertools import count
from typing import Final

from penstock_server import errors
from penstock_server.call import Call
from penstock_server.control.messages import Answer, Fact, Question, Refusal
from penstock_server.errors import OverloadedError, PenstockError

MAX_WAITING: Final = 32
"""Questions on their way at once: so few frames fit the socket's buffer, and asking can never hold the reactor."""


class Relay:
    """Questions on their way; all of it on the reactor's thread.

    Args:
        tell: sends a fact to the supervisor.
        post: runs an action soon on the reactor's thread.
    """

    def __init__(self, tell: Callable[[Fact], None], post: Callable[[Callable[[], None]], None]) -> None:
        self._tell = tell
        self._post = post
        self._numbers = count(1)
        self._waiting: dict[int, Call] = {}

    def ask(self, method: str, message: bytes, call: Call) -> None:
        """Sends a call's message on; the call is answered when the supervisor has.

        Raises:
            OverloadedError: too many questions wait already.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise OverloadedError(f"{MAX_WAITING} questions about the server wait already; ask again later")
        number = next(self._numbers)
        self._waiting[number] = call
        call.pending = _Waiting(self, number)
        call.watch()
        self._tell(Question(number, method, message))

    def answered(self, answer: Answer | Refusal) -> None:
        """The supervisor has answered; from any thread."""
        self._post(lambda: self._pass_on(answer))

    def forget(self, number: int) -> None:
        """The caller left; its answer will be dropped."""
        self._waiting.pop(number, None)

    def _pass_on(self, answer: Answer | Refusal) -> None:
        call = self._waiting.pop(answer.number, None)
        if call is None:
            return
        call.pending = None
        if isinstance(answer, Answer):
            call.finish(answer.body)
        else:
            call.fail(error_of(answer))


class _Waiting:
    """What a call holds while its question is on its way."""

    __slots__ = ("_number", "_relay")

    def __init__(self, relay: Relay, number: int) -> None:
        self._relay = relay
        self._number = number

    def cancelled(self) -> None:
        self._relay.forget(self._number)


def error_of(refusal: Refusal) -> PenstockError:
    """The error that the supervisor raised; one that it has no class for shows nothing of the server's insides."""
    kind = getattr(errors, refusal.kind, PenstockError)
    if isinstance(kind, type) and issubclass(kind, PenstockError):
        return kind(refusal.reason)
    return PenstockError(refusal.reason)
