"""Forwards calls that only the supervisor can answer: from a worker over its socket, and the reply back.

Both ends are here. `ForwardedCalls` is the worker's: it holds each call until the reply comes.
`ControlResponder` is the supervisor's: it answers on threads, so that nothing else waits. The responders that `app`
passes in decide what a reply holds.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from itertools import count
from queue import SimpleQueue
from typing import Final

import structlog

from penstock_server import errors, frames
from penstock_server.call import Call
from penstock_server.control.messages import ControlError, ControlReply, ControlRequest, Event
from penstock_server.errors import InvalidInputError, OverloadedError, PenstockError, UnsupportedError

log = structlog.get_logger(__name__)

MAX_REPLY_BYTES: Final = frames.MAX_FRAME_BYTES // 2
MAX_WAITING: Final = 32
"""Requests in flight per worker, from their arrival until the supervisor's reply, whether or not the caller still waits."""
REPLIES_AT_ONCE: Final = 2

Responder = Callable[[bytes], bytes]
"""From a method's message to its reply, both encoded; a `PenstockError` fails the call."""
Waiter = Callable[[bytes], Awaitable[bytes]]
"""The same on the loop, for replies that wait for what happens there."""


class ControlResponder:
    """Answers requests with the responder of their method, a few at a time, or with its waiter."""

    def __init__(self, responders: Mapping[str, Responder], waiters: Mapping[str, Waiter] | None = None) -> None:
        self._responders = responders
        self._waiters = waiters or {}
        self._running: set[asyncio.Task[None]] = set()
        self._waiting: set[asyncio.Task[None]] = set()
        self._permits = asyncio.Semaphore(REPLIES_AT_ONCE)

    def respond(self, request: ControlRequest, send: Callable[[ControlReply | ControlError], None]) -> None:
        """Answers a request soon, by calling `send` on the loop."""
        tasks = self._waiting if request.method in self._waiters else self._running
        task = asyncio.create_task(self._respond(request, send))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def close(self) -> None:
        """Waits for the replies in progress, since a thread cannot be stopped; those on the loop end."""
        for task in self._waiting:
            task.cancel()
        await asyncio.gather(*self._running, *self._waiting, return_exceptions=True)

    async def _respond(self, request: ControlRequest, send: Callable[[ControlReply | ControlError], None]) -> None:
        waiter = self._waiters.get(request.method)
        if waiter is not None:
            send(await self._awaited(request, waiter))
            return
        async with self._permits:
            reply = await asyncio.to_thread(self.reply_to, request)
        send(reply)

    async def _awaited(self, request: ControlRequest, waiter: Waiter) -> ControlReply | ControlError:
        try:
            return ControlReply(request.number, await waiter(request.body))
        except Exception as error:  # noqa: BLE001 - the reply tells it, or the log
            return _failed(request, error)

    def reply_to(self, request: ControlRequest) -> ControlReply | ControlError:
        """The reply to a request, or its error."""
        try:
            responder = self._responders.get(request.method)
            if responder is None:
                raise UnsupportedError(f"this server has no control method {request.method!r}")
            body = responder(request.body)
            if len(body) > MAX_REPLY_BYTES:
                raise InvalidInputError(f"the reply takes {len(body)} bytes, at most {MAX_REPLY_BYTES}; ask for less")
            return ControlReply(request.number, body)
        except Exception as error:  # noqa: BLE001 - the reply tells it, or the log
            return _failed(request, error)


def _failed(request: ControlRequest, error: Exception) -> ControlError:
    """The reply to a request that failed; of an error that is not the caller's only the log tells more."""
    if isinstance(error, PenstockError):
        return ControlError(request.number, type(error).__name__, str(error))
    log.error("control request failed", method=request.method, exc_info=error)
    return ControlError(request.number, PenstockError.__name__, "the control request failed")


class ForwardedCalls:
    """The calls of a worker that wait for the supervisor's reply.

    They are taken and answered on the reactor's thread. A thread of its own sends, since the supervisor's socket may be
    full; nothing that a caller sends holds up the reactor.

    Args:
        send: sends an event to the supervisor; it may block.
        post: runs an action soon on the reactor's thread.
    """

    def __init__(self, send: Callable[[Event], None], post: Callable[[Callable[[], None]], None]) -> None:
        self._send = send
        self._post = post
        self._numbers = count(1)
        self._waiting: dict[int, Call | None] = {}
        self._unsent: SimpleQueue[ControlRequest | None] = SimpleQueue()
        self._sender: threading.Thread | None = None

    def forward(self, method: str, message: bytes, call: Call) -> None:
        """Forwards a call's message; the call is answered when the reply comes.

        Raises:
            OverloadedError: `MAX_WAITING` requests are in flight already.
        """
        if len(self._waiting) >= MAX_WAITING:
            raise OverloadedError(f"{MAX_WAITING} control calls wait for the supervisor already; try again later")
        if self._sender is None:
            self._sender = threading.Thread(target=self._send_all, name="control-calls", daemon=True)
            self._sender.start()
        number = next(self._numbers)
        self._waiting[number] = call
        call.pending = _Waiting(self._waiting, number)
        call.watch()
        self._unsent.put(ControlRequest(number, method, message))

    def close(self) -> None:
        """Sends what was taken, and ends the thread that sends."""
        if self._sender is not None:
            self._unsent.put(None)
            self._sender.join()

    def _send_all(self) -> None:
        while (request := self._unsent.get()) is not None:
            self._send(request)

    def on_reply(self, reply: ControlReply | ControlError) -> None:
        """The supervisor has replied; from any thread."""
        self._post(lambda: self._answer(reply))

    def _answer(self, reply: ControlReply | ControlError) -> None:
        call = self._waiting.pop(reply.number, None)
        if call is None:
            return  # the caller left
        call.pending = None
        if isinstance(reply, ControlReply):
            call.finish(reply.body)
        else:
            call.fail(error_of(reply))


class _Waiting:
    """A forwarded call's `pending`: forgets the call when its caller leaves.

    Its place stays taken until the reply: a caller that asks and leaves in a loop would fill the supervisor otherwise.
    """

    __slots__ = ("_number", "_waiting")

    def __init__(self, waiting: dict[int, Call | None], number: int) -> None:
        self._waiting = waiting
        self._number = number

    def cancelled(self) -> None:
        if self._number in self._waiting:
            self._waiting[self._number] = None


def error_of(error: ControlError) -> PenstockError:
    """The error that the supervisor raised; of an unknown class it is a `PenstockError`, which callers see as internal."""
    kind = getattr(errors, error.kind, PenstockError)
    if isinstance(kind, type) and issubclass(kind, PenstockError):
        return kind(error.reason)
    return PenstockError(error.reason)
