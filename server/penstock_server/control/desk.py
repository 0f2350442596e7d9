"""The supervisor's end of questions about the whole server: each is answered on a thread, whatever becomes of it.

It decides nothing but who answers and how many at once; what an answer holds is its responder's. The supervisor hands in
what its workers ask.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from penstock_server.control.messages import MAX_FRAME_BYTES, Answer, Question, Refusal
from penstock_server.errors import InvalidInputError, PenstockError, UnsupportedError

log = structlog.get_logger(__name__)

MAX_ANSWER_BYTES: Final = MAX_FRAME_BYTES // 2

Responder = Callable[[bytes], bytes]
"""From a method's message to its reply, both as they are on the wire; raises a `PenstockError` to refuse."""


class Desk:
    """Answers questions with the responders of their methods, two at a time: the rest of the supervisor goes on."""

    def __init__(self, responders: Mapping[str, Responder]) -> None:
        self._responders = responders
        self._running: set[asyncio.Task[None]] = set()
        self._two_at_a_time = asyncio.Semaphore(2)

    def take(self, question: Question, tell: Callable[[Answer | Refusal], None]) -> None:
        """Answers a question soon; `tell` gets the answer on the loop."""
        task = asyncio.create_task(self._answer(question, tell))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def close(self) -> None:
        """Waits for the answers that are being made, which a thread cannot abandon."""
        await asyncio.gather(*self._running, return_exceptions=True)

    async def _answer(self, question: Question, tell: Callable[[Answer | Refusal], None]) -> None:
        async with self._two_at_a_time:
            answer = await asyncio.to_thread(self.answer, question)
        tell(answer)

    def answer(self, question: Question) -> Answer | Refusal:
        """The answer to a question, or why there is none."""
        try:
            responder = self._responders.get(question.method)
            if responder is None:
                raise UnsupportedError(f"this server answers no {question.method!r}")
            body = responder(question.body)
            if len(body) > MAX_ANSWER_BYTES:
                raise InvalidInputError(f"the answer takes {len(body)} bytes, at most {MAX_ANSWER_BYTES}; ask for less")
            return Answer(question.number, body)
        except PenstockError as error:
            return Refusal(question.number, type(error).__name__, str(error))
        except Exception:
            log.exception("question failed", method=question.method)
            return Refusal(question.number, PenstockError.__name__, "the question failed")
