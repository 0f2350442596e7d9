"""Calls over a channel of grpcio, which speaks with whatever it can reach; both clients use it where `http2` does not do."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Mapping
from typing import Any

import grpc
import grpc.aio

from penstock_client.channel import ChannelOptions, Tls, call_metadata
from penstock_client.headers import Headers
from penstock_client.steps import Failure, failure_of


class ChannelCalls:
    """Unary calls to one server. Threads may share it.

    Attributes:
        is_closed: calls end at once; grpcio raises a ValueError, also where another thread closes the channel just now.
    """

    def __init__(self, address: str, tls: Tls | None, headers: Mapping[str, str], options: ChannelOptions) -> None:
        self._channel = (
            grpc.insecure_channel(address, options)
            if tls is None
            else grpc.secure_channel(address, tls.credentials(), options)
        )
        self.is_closed = False
        self._metadata = call_metadata(headers)
        self._methods: dict[str, grpc.UnaryUnaryMultiCallable[bytes, bytes]] = {}

    def call(self, path: str, payload: bytes, timeout_s: float, headers: Headers = ()) -> bytes | Failure:
        """The reply to one message, or how the call failed."""
        if self.is_closed:
            return _closed()
        try:
            reply: bytes = self._method(path)(payload, timeout=timeout_s, metadata=self._metadata + headers)
        except grpc.RpcError as error:
            return failure_of(error)
        except ValueError:
            if self.is_closed:
                return _closed()
            raise
        return reply

    def pipe(self, ahead: int) -> "ChannelPipe":  # noqa: ARG002 - grpcio sends each call at once
        """Calls that overlap."""
        return ChannelPipe(self)

    def started(self, path: str, payload: bytes, timeout_s: float, headers: Headers) -> Any:
        """A call that goes on by itself; None on a channel that is closed."""
        if self.is_closed:
            return None
        try:
            return self._method(path).future(payload, timeout=timeout_s, metadata=self._metadata + headers)
        except ValueError:
            if self.is_closed:
                return None
            raise

    def stream(
        self, path: str, payloads: Iterator[bytes], timeout_s: float | None, headers: Headers
    ) -> Generator[bytes | Failure, None, None]:
        """The messages that answer these, as they come; the last may be how the call failed. Leaving early cancels it."""
        method: grpc.StreamStreamMultiCallable[bytes, bytes] = self._channel.stream_stream(path)
        try:
            call = method(payloads, timeout=timeout_s, metadata=self._metadata + headers)
        except ValueError:
            if not self.is_closed:
                raise
            yield _closed()
            return
        try:
            yield from call
        except grpc.RpcError as error:
            yield failure_of(error)
        finally:
            call.cancel()

    def close(self) -> None:
        """Closes the channel; calls of other threads end with an error."""
        self.is_closed = True
        self._channel.close()

    def _method(self, path: str) -> "grpc.UnaryUnaryMultiCallable[bytes, bytes]":
        method = self._methods.get(path)
        if method is None:
            method = self._methods[path] = self._channel.unary_unary(path)
        return method


class ChannelPipe:
    """Calls that overlap on a channel, for one thread."""

    def __init__(self, calls: ChannelCalls) -> None:
        self._calls = calls
        self._open: dict[int, Any] = {}
        self._started = 0

    def start(self, path: str, payload: bytes, timeout_s: float, headers: Headers = ()) -> int:
        """Starts a call and returns what `wait` takes."""
        self._started += 1
        call = self._calls.started(path, payload, timeout_s, headers)
        if call is not None:
            self._open[self._started] = call
        return self._started

    def wait(self, ticket: int) -> bytes | Failure:
        """How the call ended."""
        call = self._open.get(ticket)
        if call is None:
            return _closed()
        try:
            reply: bytes = call.result()
        except grpc.RpcError as error:
            return failure_of(error)
        except grpc.FutureCancelledError:
            return _closed()
        finally:
            if call.done():
                del self._open[ticket]
        return reply

    def close(self) -> None:
        """Cancels what is still in flight."""
        for call in self._open.values():
            call.cancel()
        self._open.clear()


class AwaitedChannelCalls:
    """Unary calls to one server, from the tasks of the event loop in which it is made."""

    def __init__(self, address: str, tls: Tls | None, headers: Mapping[str, str], options: ChannelOptions) -> None:
        self._channel = (
            grpc.aio.insecure_channel(address, options)
            if tls is None
            else grpc.aio.secure_channel(address, tls.credentials(), options)
        )
        self._is_closed = False
        self._metadata = call_metadata(headers)
        self._methods: dict[str, grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = {}

    async def call(self, path: str, payload: bytes, timeout_s: float, headers: Headers = ()) -> bytes | Failure:
        """The reply to one message, or how the call failed."""
        if self._is_closed:
            return _closed()
        if path not in self._methods:
            self._methods[path] = self._channel.unary_unary(path)
        try:
            reply: bytes = await self._methods[path](payload, timeout=timeout_s, metadata=self._metadata + headers)
        except grpc.RpcError as error:
            return failure_of(error)
        except asyncio.CancelledError:
            # grpc.aio reports a channel that was closed under a call as if this task had been cancelled.
            if self._is_closed and not _is_being_cancelled():
                return _closed()
            raise
        return reply

    async def stream(
        self, path: str, payloads: AsyncIterator[bytes], timeout_s: float | None, headers: Headers
    ) -> AsyncGenerator[bytes | Failure, None]:
        """The messages that answer these, as they come; the last may be how the call failed. Leaving early cancels it."""
        method: grpc.aio.StreamStreamMultiCallable[bytes, bytes] = self._channel.stream_stream(path)
        call = method(payloads, timeout=timeout_s, metadata=self._metadata + headers)
        try:
            async for message in call:
                yield message
        except grpc.RpcError as error:
            yield failure_of(error)
        finally:
            call.cancel()

    async def close(self) -> None:
        """Closes the channel; calls of other tasks end with an error."""
        self._is_closed = True
        await self._channel.close()


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _closed() -> Failure:
    return Failure(grpc.StatusCode.CANCELLED, "the client was closed during the call")
