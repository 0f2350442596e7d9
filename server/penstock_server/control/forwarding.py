"""The supervisor's end of questions about the whole server: each is answered on a thread, whatever becomes of it.

It decides nothing but who answers and how many at once; what an answer holds is its responder's. The supervisor hands in
what its workers ask.
"""

import asyncio
from collections.abc import Callable, Mapping
from itertools import count
from typing import Final

import structlog

from penstock_server import errors
from penstock_server.call import Call
from penstock_server.control.messages import MAX_FRAME_BYTES, ControlError, ControlReply, ControlRequest, Event
from penstock_server.errors import InvalidInputError, OverloadedError, PenstockError, UnsupportedError

log = structlog.get_logger(__name__)

MAX_ANSWER_BYTES: Final = MAX_FRAME_BYTES // 2

Responder = Callable[[bytes], bytes]
"""From a method's message to its reply, both as they are on the wire; raises a `PenstockError` to refuse."""


class ControlResponder:
    """Answers questions with the responders of their methods, two at a time: the rest of the supervisor goes on."""

    def __init__(self, responders: Mapping[str, Responder]) -> None:
        self._responders = responders
        self._running: set[asyncio.Task[None]] = set()
        self._two_at_a_time = asyncio.Semaphore(2)

    def take(self, question: ControlRequest, tell: Callable[[ControlReply | ControlError], None]) -> None:
        """Answers a question soon; `tell` gets the answer on the loop."""
        task = asyncio.create_task(self._answer(question, tell))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def close(self) -> None:
        """Waits for the answers that are being made, which a thread cannot abandon."""
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _answer(self, question: ControlRequest, tell: Callable[[ControlReply | ControlError], None]) -> None:
        async with self._two_at_a_time:
            answer = await asyncio.to_thread(self.answer, question)
        tell(answer)

    def answer(self, question: ControlRequest) -> ControlReply | ControlError:
        """The answer to a question, or why there is none."""
        try:
            responder = self._responders.get(question.method)
            if responder is None:
                raise UnsupportedError(f"this server answers no {question.method!r}")
            body = responder(question.body)
            if len(body) > MAX_ANSWER_BYTES:
                raise InvalidInputError(f"the answer takes {len(body)} bytes, at most {MAX_ANSWER_BYTES}; ask for less")
            return ControlReply(question.number, body)
        except PenstockError as error:
            return ControlError(question.number, type(error).__name__, str(error))
        except Exception:
            log.exception("question failed", method=question.method)
            return ControlError(question.number, PenstockError.__name__, "the question failed")


MAX_WAITING: Final = 32
"""Questions on their way at once: so few frames fit the socket's buffer, and asking can never hold the reactor."""


class ForwardedCalls:
    """Questions on their way; all of it on the reactor's thread.

    Args:
        tell: sends a event to the supervisor.
        post: runs an action soon on the reactor's thread.
    """

    def __init__(self, tell: Callable[[Event], None], post: Callable[[Callable[[], None]], None]) -> None:
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
        self._tell(ControlRequest(number, method, message))

    def answered(self, answer: ControlReply | ControlError) -> None:
        """The supervisor has answered; from any thread."""
        self._post(lambda: self._pass_on(answer))

    def forget(self, number: int) -> None:
        """The caller left; its answer will be dropped."""
        self._waiting.pop(number, None)

    def _pass_on(self, answer: ControlReply | ControlError) -> None:
        call = self._waiting.pop(answer.number, None)
        if call is None:
            return
        call.pending = None
        if isinstance(answer, ControlReply):
            call.finish(answer.body)
        else:
            call.fail(error_of(answer))


class _Waiting:
    """What a call holds while its question is on its way."""

    __slots__ = ("_number", "_relay")

    def __init__(self, relay: ForwardedCalls, number: int) -> None:
        self._relay = relay
        self._number = number

    def cancelled(self) -> None:
        self._relay.forget(self._number)


def error_of(refusal: ControlError) -> PenstockError:
    """The error that the supervisor raised; one that it has no class for shows nothing of the server's insides."""
    kind = getattr(errors, refusal.kind, PenstockError)
    if isinstance(kind, type) and issubclass(kind, PenstockError):
        return kind(refusal.reason)
    return PenstockError(refusal.reason)
