"""The portable transport: grpc.aio on uvloop, public interfaces only, and the reference for how a call behaves.

The event loop's thread is the reactor. A step is scheduled behind all events that are ready, so batches form as they do
with the completion queue, at the cost of the loop and its futures.
"""

import asyncio
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from math import inf
from typing import Any

import grpc
import grpc.aio
import structlog

from penstock_server.call import Cancellable, Metadata
from penstock_server.errors import PenstockError
from penstock_server.transport.interface import (
    IDLE_S,
    UNANSWERED_MESSAGES,
    Methods,
    Scheduler,
    StreamHandler,
    UnaryHandler,
    cannot_listen,
)
from penstock_server.transport.settings import TransportSettings
from penstock_server.transport.status import OK, Status, status_of

log = structlog.get_logger(__name__)


class _AioCall:
    """One RPC of grpc.aio; answers from another thread wake the loop."""

    def __init__(self, context: "grpc.aio.ServicerContext[Any, Any]", loop: asyncio.AbstractEventLoop) -> None:
        remaining = context.time_remaining()
        self.deadline_s = inf if remaining is None else time.monotonic() + remaining
        self.is_over = False
        self.pending: Cancellable | None = None
        self.headers: Metadata = ()
        self.trailers: Metadata = ()
        self._context = context
        self._loop = loop
        self._thread = threading.get_ident()
        self._outbox: deque[bytes | Status] = deque()
        self._wake = asyncio.Event()

    def watch(self) -> None:
        """Does nothing: grpc.aio cancels the call's task."""

    def metadata(self) -> Metadata:
        return tuple((key, value) for key, value in self._context.invocation_metadata() or ())

    def send(self, message: bytes) -> None:
        if not self.is_over:
            self._put(message)

    def finish(self, message: bytes | None = None) -> None:
        if not self.is_over:
            self.is_over = True
            self._put(*(() if message is None else (message,)), OK)

    def fail(self, error: PenstockError) -> None:
        if not self.is_over:
            self.is_over = True
            self._put(status_of(error))

    def _put(self, *replies: bytes | Status) -> None:
        self._outbox.extend(replies)
        if threading.get_ident() == self._thread:
            self._wake.set()
        else:
            self._loop.call_soon_threadsafe(self._wake.set)

    async def replies(self) -> AsyncIterator[bytes]:
        """The messages to send; afterwards the context has the status."""
        while True:
            while not self._outbox:
                self._wake.clear()
                await self._wake.wait()
            reply = self._outbox.popleft()
            if self.headers:
                await self._context.send_initial_metadata(tuple(self.headers))
                self.headers = ()
            if isinstance(reply, Status):
                await self._end(reply)
                return
            yield reply

    async def _end(self, status: Status) -> None:
        if status.code is not grpc.StatusCode.OK:
            await self._context.abort(status.code, status.details, (*self.trailers, *status.trailers))
        elif self.trailers:
            self._context.set_trailing_metadata(tuple(self.trailers))

    def leave(self) -> None:
        """The caller is gone, or the call ended."""
        if not self.is_over:
            self.is_over = True
            if self.pending is not None:
                self.pending.cancelled()
        self.pending = None


class AioTransport:
    """Serves methods from one event loop of its own."""

    def __init__(self, methods: Methods, scheduler: Scheduler, settings: TransportSettings) -> None:
        self._methods = methods
        self._scheduler = scheduler
        self._settings = settings
        self._loop = _new_loop()
        self._stopped = asyncio.Event()
        self._is_step_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._server: grpc.aio.Server | None = None
        self._draining: asyncio.Task[None] | None = None

    def run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        self._schedule_step()
        await self._stopped.wait()

    def post(self, action: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop is closed: nothing is served any more
            self._loop.call_soon_threadsafe(self._act, action)

    def _act(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception:
            log.exception("posted action failed")
        self._schedule_step()

    def listen(self, address: str) -> None:
        asyncio.run_coroutine_threadsafe(self._listen(address), self._loop).result()

    async def _listen(self, address: str) -> None:
        server = grpc.aio.server(options=self._settings.options())
        server.add_generic_rpc_handlers((_Handlers(self, self._methods),))
        credentials = self._settings.server_credentials()
        try:
            if credentials is None:
                server.add_insecure_port(address)
            else:
                server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise cannot_listen(address) from error
        await server.start()
        self._server = server

    def drain(self, grace_s: float) -> None:
        def begin() -> None:
            self._draining = self._loop.create_task(self._drain(grace_s))

        with suppress(RuntimeError):  # the loop is closed: drained already
            self._loop.call_soon_threadsafe(begin)

    async def _drain(self, grace_s: float) -> None:
        if self._server is not None:
            await self._server.stop(grace_s)
        self._stopped.set()

    def _schedule_step(self) -> None:
        if not self._is_step_due:
            self._is_step_due = True
            self._loop.call_soon(self._step)

    def _step(self) -> None:
        self._is_step_due = False
        if self._timer is not None:
            self._timer.cancel()
        wait_s = self._scheduler.step()
        if wait_s <= 0:
            self._schedule_step()
        else:
            self._timer = self._loop.call_later(min(wait_s, IDLE_S), self._schedule_step)

    async def unary(
        self, handler: UnaryHandler, message: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]"
    ) -> bytes:
        """One unary call, from its message to its reply."""
        call = _AioCall(context, self._loop)
        try:
            self._guard(call, lambda: handler(message, call))
            self._schedule_step()
            reply = b""
            async for part in call.replies():
                reply = part
            return reply
        finally:
            call.leave()

    async def stream(
        self, handler: StreamHandler, messages: AsyncIterator[bytes], context: "grpc.aio.ServicerContext[bytes, bytes]"
    ) -> AsyncIterator[bytes]:
        """One streaming call; its reader is a task that ends with the writer."""
        call = _AioCall(context, self._loop)
        room = asyncio.Semaphore(UNANSWERED_MESSAGES)
        reader = asyncio.create_task(self._read(call, handler(call), messages, room))
        try:
            async for reply in call.replies():
                room.release()
                yield reply
        finally:
            call.leave()
            reader.cancel()

    async def _read(
        self,
        call: _AioCall,
        receiver: Callable[[bytes | None], None],
        messages: AsyncIterator[bytes],
        room: asyncio.Semaphore,
    ) -> None:
        async for message in messages:
            await room.acquire()
            self._guard(call, lambda message=message: receiver(message))  # type: ignore[misc]
            self._schedule_step()
        self._guard(call, lambda: receiver(None))

    def _guard(self, call: _AioCall, action: Callable[[], None]) -> None:
        try:
            action()
        except PenstockError as error:
            call.fail(error)
        except Exception:
            log.exception("handler failed")
            call.fail(PenstockError())


class _Handlers(grpc.GenericRpcHandler):
    """Finds a method's handler by its path, with messages left as bytes."""

    def __init__(self, transport: AioTransport, methods: Methods) -> None:
        self._transport = transport
        self._methods = methods

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes] | None":
        path = handler_call_details.method
        if (unary := self._methods.unary.get(path)) is not None:
            return grpc.unary_unary_rpc_method_handler(self._unary(unary))
        if (stream := self._methods.streams.get(path)) is not None:
            return grpc.stream_stream_rpc_method_handler(self._stream(stream))
        return None

    def _unary(self, handler: UnaryHandler) -> Any:
        async def answer(message: bytes, context: "grpc.aio.ServicerContext[bytes, bytes]") -> bytes:
            return await self._transport.unary(handler, message, context)

        return answer

    def _stream(self, handler: StreamHandler) -> Any:
        async def answer(
            messages: AsyncIterator[bytes], context: "grpc.aio.ServicerContext[bytes, bytes]"
        ) -> AsyncIterator[bytes]:
            async for reply in self._transport.stream(handler, messages, context):
                yield reply

        return answer


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
