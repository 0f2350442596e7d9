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
from typing import Any, TypeVar

import grpc
import grpc.aio
import structlog

from penstock_server.call import UNARY, Cancellable, Metadata
from penstock_server.errors import OverloadedError, PenstockError, UnavailableError, UnsupportedError
from penstock_server.transport.certificate import names_of_context
from penstock_server.transport.connections import close_connections, close_listeners
from penstock_server.transport.interface import (
    IDLE_S,
    LEAST_WORDS_S,
    Methods,
    Refused,
    Scheduler,
    StreamHandler,
    UnaryHandler,
    cannot_listen,
    ignore_refusal,
    last_words_s,
)
from penstock_server.transport.settings import TransportSettings
from penstock_server.transport.status import OK, Status, StatusCode, status_of, trailers_of
from penstock_server.transport.window import StreamWindow

log = structlog.get_logger(__name__)

ResultT = TypeVar("ResultT")

CLOCK_STEP_S = 0.5
"""Two readings of the wall clock in a row that are further apart mean that the clock was set between them."""


def deadline_of(context: Any, *, wall: Callable[[], float] = time.time) -> float:
    """A call's deadline on the monotonic clock; grpc.aio computes the time that remains on the wall clock."""
    while True:
        before_s = wall()
        remaining_s = context.time_remaining()
        if remaining_s is None:
            return inf
        if before_s <= wall() < before_s + CLOCK_STEP_S:
            return time.monotonic() + float(remaining_s)


class _AioCall:
    """One RPC of grpc.aio; answers from another thread wake the loop."""

    kind = UNARY

    def __init__(self, context: "grpc.aio.ServicerContext[Any, Any]", loop: asyncio.AbstractEventLoop) -> None:
        self.deadline_s = deadline_of(context)
        self.is_over = False
        self.pending: Cancellable | None = None
        self.headers: Metadata = ()
        self.trailers: Metadata = ()
        self._room = asyncio.Event()
        self._window = StreamWindow()
        # Answers may come from the thread that ran the model.
        self._lock = threading.Lock()
        self._context = context
        self._loop = loop
        self._thread = threading.get_ident()
        self._outbox: deque[bytes | Status] = deque()
        self._wake = asyncio.Event()

    def watch(self) -> None:
        """Does nothing: grpc.aio cancels the call's task."""

    def metadata(self) -> Metadata:
        return tuple((key, value) for key, value in self._context.invocation_metadata() or ())

    def peer(self) -> tuple[str, ...]:
        return names_of_context(self._context.auth_context())

    def address(self) -> str:
        """Where the call comes from, as grpc names it."""
        return self._context.peer()

    @property
    def is_quiet(self) -> bool:
        """Whether nothing of it is unanswered or unsent."""
        return self._window.is_quiet

    def received(self, size: int) -> None:
        """A message of a stream came."""
        with self._lock:
            self._window.received(size)

    async def wait_for_room(self) -> None:
        """Waits until a stream may receive its next message."""
        while not self._window.is_open:
            self._room.clear()
            await self._room.wait()

    def send(self, message: bytes) -> None:
        if not self.is_over:
            if self._window.is_overrun:
                self.fail(OverloadedError("too many messages wait for the caller to read them"))
            else:
                self._put(message)

    def finish(self, message: bytes | None = None) -> None:
        if not self.is_over:
            self.is_over = True
            self._put(*(() if message is None else (message,)), OK)

    def fail(self, error: PenstockError) -> None:
        if not self.is_over:
            self.is_over = True
            self._put(status_of(error))

    def abort(self, error: PenstockError) -> None:
        """Ends a call that is not answered yet, and gives up what waits for it."""
        if not self.is_over:
            self._outbox.clear()  # a caller that does not read would not read the status behind it either
            pending, self.pending = self.pending, None
            self.fail(error)
            if pending is not None:
                pending.cancelled()

    def _put(self, *replies: bytes | Status) -> None:
        with self._lock:
            for reply in replies:
                if isinstance(reply, bytes):
                    self._window.replied(len(reply))
            self._outbox.extend(replies)
        if threading.get_ident() == self._thread:
            self._woken()
        else:
            self._loop.call_soon_threadsafe(self._woken)

    def _woken(self) -> None:
        self._wake.set()
        self._room.set()

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
            # Resumed when the message has left, which takes as long as the caller has no room for it.
            with self._lock:
                self._window.sent()
            self._room.set()

    async def _end(self, status: Status) -> None:
        trailers = tuple(trailers_of(self.trailers, status))
        if status.code is not StatusCode.OK:
            await self._context.abort(grpc.StatusCode[status.code.name], status.details, trailers)
        elif trailers:
            self._context.set_trailing_metadata(trailers)

    def leave(self) -> None:
        """The caller is gone, or the call ended."""
        if not self.is_over:
            self.is_over = True
            if self.pending is not None:
                self.pending.cancelled()
        self.pending = None


class AioTransport:
    """Serves methods from one event loop of its own."""

    def __init__(
        self, methods: Methods, scheduler: Scheduler, settings: TransportSettings, *, refused: Refused = ignore_refusal
    ) -> None:
        self.described = f"aio (grpcio {grpc.__version__})"
        self._methods = methods
        self._scheduler = scheduler
        self._settings = settings
        self._refused = refused
        self._loop = _new_loop()
        self._stopped = asyncio.Event()
        self._is_step_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._server: grpc.aio.Server | None = None
        self._address = ""
        self._running: dict[_AioCall, bool] = {}
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
            if credentials is None:  # noqa: SIM108 - two calls read better as two branches
                port = server.add_insecure_port(address)
            else:
                port = server.add_secure_port(address, credentials)
        except RuntimeError as error:
            raise cannot_listen(address) from error
        await server.start()
        self._server = server
        self._address = address if address.startswith("unix:") else f":{port}"

    def drain(self, grace_s: float) -> None:
        def begin() -> None:
            if self._draining is None:
                self._draining = self._loop.create_task(self._drain(grace_s))

        with suppress(RuntimeError):  # the loop is closed: drained already
            self._loop.call_soon_threadsafe(begin)

    async def _drain(self, grace_s: float) -> None:
        if self._server is not None:
            close_listeners(self._address)
            await self._end_calls(grace_s)
            close_connections(self._address)
            await self._server.stop(0)  # the core cancels what it still has, and finds nobody to tell
        self._stopped.set()

    async def _end_calls(self, grace_s: float) -> None:
        """Waits until no call runs; what outlasts the grace ends UNAVAILABLE."""
        end_at_s = self._loop.time() + grace_s - last_words_s(grace_s)
        give_up_at_s = end_at_s + max(last_words_s(grace_s), LEAST_WORDS_S)
        # Calls that are on the wire now are refused in words rather than by the end of their connection.
        await asyncio.sleep(min(IDLE_S, grace_s))
        while self._running and (now_s := self._loop.time()) < give_up_at_s:
            for call, is_stream in tuple(self._running.items()):
                if now_s >= end_at_s or (is_stream and call.is_quiet):
                    call.abort(UnavailableError("the server is shutting down"))
            close_connections(self._address, {call.address() for call in self._running})
            await asyncio.sleep(min(IDLE_S, max(end_at_s - now_s, IDLE_S / 5)))
        if self._running:
            log.info("calls did not take their status in time; leaving them", calls=len(self._running))

    def refusal(self, path: str) -> PenstockError | None:
        """Why a call of this method is refused before a handler gets it; None when it is not."""
        if self._draining is not None and path not in self._methods.during_drain:
            return UnavailableError("the server is shutting down")
        if path not in self._methods.unary and path not in self._methods.streams:
            return UnsupportedError("this method is not served")
        return None

    async def refuse(self, error: PenstockError, context: "grpc.aio.ServicerContext[bytes, bytes]") -> None:
        """Ends a call with an error before its messages are received."""
        self._refused(error)
        status = status_of(error)
        await context.abort(grpc.StatusCode[status.code.name], status.details, status.trailers)

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
        self._add(call, context, is_stream=False)
        try:
            self._guarded(call, handler, message, call)
            self._schedule_step()
            reply = b""
            async for part in call.replies():
                reply = part
            return reply
        finally:
            call.leave()

    def _add(self, call: _AioCall, context: "grpc.aio.ServicerContext[bytes, bytes]", *, is_stream: bool) -> None:
        def done(_context: Any) -> None:
            self._running.pop(call, None)

        self._running[call] = is_stream
        context.add_done_callback(done)  # type: ignore[arg-type]  # its stub asks for a class of its own

    async def stream(
        self, handler: StreamHandler, messages: AsyncIterator[bytes], context: "grpc.aio.ServicerContext[bytes, bytes]"
    ) -> AsyncIterator[bytes]:
        """One streaming call; its reader is a task that ends with the writer."""
        call = _AioCall(context, self._loop)
        self._add(call, context, is_stream=True)
        reader = asyncio.create_task(self._read(call, handler, messages))
        try:
            async for reply in call.replies():
                yield reply
        finally:
            call.leave()
            reader.cancel()

    async def _read(self, call: _AioCall, handler: StreamHandler, messages: AsyncIterator[bytes]) -> None:
        receiver = self._guarded(call, handler, call)
        try:
            if receiver is None:
                return
            async for message in messages:
                call.received(len(message))
                self._guarded(call, receiver, message)
                self._schedule_step()
                await call.wait_for_room()
            self._guarded(call, receiver, None)
        finally:
            # grpc.aio keeps the error that ends a failed call, with this frame, in a reference cycle of its own.
            del receiver, call

    def _guarded(self, call: _AioCall, function: Callable[..., ResultT], *arguments: Any) -> ResultT | None:
        """The function's result; the call fails, and there is none, when it raises."""
        try:
            return function(*arguments)
        except PenstockError as error:
            call.fail(error)
        except Exception:
            log.exception("handler failed")
            call.fail(PenstockError())
        return None


class _Handlers(grpc.GenericRpcHandler):
    """Finds a method's handler by its path, with messages left as bytes."""

    def __init__(self, transport: AioTransport, methods: Methods) -> None:
        self._transport = transport
        self._methods = methods

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[bytes, bytes]":
        path = handler_call_details.method
        if (refusal := self._transport.refusal(path)) is not None:
            return grpc.stream_stream_rpc_method_handler(self._refuse(refusal))
        if (unary := self._methods.unary.get(path)) is not None:
            return grpc.unary_unary_rpc_method_handler(self._unary(unary))
        return grpc.stream_stream_rpc_method_handler(self._stream(self._methods.streams[path]))

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

    def _refuse(self, error: PenstockError) -> Any:
        async def answer(
            _messages: AsyncIterator[bytes], context: "grpc.aio.ServicerContext[bytes, bytes]"
        ) -> AsyncIterator[bytes]:
            await self._transport.refuse(error, context)
            yield b""  # never reached: it makes this a stream

        return answer


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
