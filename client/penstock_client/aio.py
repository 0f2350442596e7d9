"""The client for asyncio: performs the session's steps by awaiting."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from types import TracebackType
from typing import Any, Literal, Self, overload

from numpy.typing import ArrayLike

from penstock import penstock_pb2
from penstock_client.balanced import AwaitedCallsOf, BalancedAwaitedCalls
from penstock_client.base import ClientBase
from penstock_client.channel import is_url
from penstock_client.errors import PenstockClientError
from penstock_client.feedback import Labels, Values
from penstock_client.grpcio import AwaitedChannelCalls
from penstock_client.headers import Headers, trace_headers
from penstock_client.hedged import HedgedAwaitedCalls
from penstock_client.http2.awaiting import AwaitedCalls
from penstock_client.http2.target import Target
from penstock_client.many import DEFAULT_IN_FLIGHT, OnError, check_many, each_row
from penstock_client.metadata import ModelMetadata, ModelState
from penstock_client.prediction import Prediction
from penstock_client.request import RequestOptions
from penstock_client.rows import Rows
from penstock_client.session import METHODS, STREAM_PATH
from penstock_client.steps import Attempt, Failure, Pause, Steps, T
from penstock_client.streams import Stream
from penstock_client.tensors import Extra


class AsyncClient(ClientBase):
    """`Client`, awaited: the same settings, methods, rules and errors.

    It may be created anywhere, and belongs to the event loop of its first call. Cancelling a task that awaits it
    cancels the call at the server too.

    >>> import asyncio
    >>> from penstock_client import AsyncClient
    >>> async def fares():
    ...     async with AsyncClient(address) as client:
    ...         return await client.predict("fares", {"age": [41, 7], "city": ["Oslo", None]})
    >>> asyncio.run(fares())["fare"]
    array([82., 14.])
    """

    def __post_init__(self) -> None:
        """Leaves the connection to the first call, which knows the event loop."""
        super().__post_init__()
        self._calls: AwaitedCallsOf | None = None

    async def predict(
        self,
        model: str,
        rows: Rows,
        *,
        version: str = "",
        outputs: Sequence[str] | None = None,
        routing_key: str | None = None,
        request_id: str | None = None,
        timeout_s: float | None = None,
        priority: int | None = None,
        extra: Extra = "ignore",
        explain: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Prediction:
        """The model's outputs for the rows; see `Client.predict`."""
        options = RequestOptions(
            model=model,
            version=version,
            outputs=outputs,
            routing_key=routing_key,
            request_id=request_id,
            priority=priority,
            extra=extra,
            explain=explain,
        )
        return await self._run(self._session.predict(options, rows, timeout_s), self._headers(model, headers))

    @overload
    def predict_many(
        self,
        model: str,
        rows: Iterable[Rows] | AsyncIterable[Rows],
        *,
        in_flight: int = ...,
        on_error: Literal["raise"] = ...,
        version: str = ...,
        outputs: Sequence[str] | None = ...,
        timeout_s: float | None = ...,
        priority: int | None = ...,
        extra: Extra = ...,
        explain: bool = ...,
        headers: Mapping[str, str] | None = ...,
    ) -> AsyncGenerator[Prediction, None]: ...

    @overload
    def predict_many(
        self,
        model: str,
        rows: Iterable[Rows] | AsyncIterable[Rows],
        *,
        in_flight: int = ...,
        on_error: OnError,
        version: str = ...,
        outputs: Sequence[str] | None = ...,
        timeout_s: float | None = ...,
        priority: int | None = ...,
        extra: Extra = ...,
        explain: bool = ...,
        headers: Mapping[str, str] | None = ...,
    ) -> AsyncGenerator[Prediction | PenstockClientError, None]: ...

    def predict_many(
        self,
        model: str,
        rows: Iterable[Rows] | AsyncIterable[Rows],
        *,
        in_flight: int = DEFAULT_IN_FLIGHT,
        on_error: OnError = "raise",
        version: str = "",
        outputs: Sequence[str] | None = None,
        timeout_s: float | None = None,
        priority: int | None = None,
        extra: Extra = "ignore",
        explain: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[Any, None]:
        """The predictions for many requests, in their order, each a task of its own; see `Client.predict_many`.

        `rows` may be asynchronous too. `timeout_s` counts from when a request is taken from it. A loop that is left early
        cancels what is in flight when the generator is closed, which `contextlib.aclosing` does at once.

        >>> async def ages():
        ...     passengers = ({"age": age, "city": "Oslo"} for age in (41, 7))
        ...     async with AsyncClient(address) as client:
        ...         return [answer["fare"].item() async for answer in client.predict_many("fares", passengers)]
        >>> asyncio.run(ages())
        [82.0, 14.0]
        """
        check_many(in_flight, on_error)
        self._check_open()

        async def answer(each: Rows) -> Prediction | PenstockClientError:
            try:
                return await self.predict(
                    model,
                    each,
                    version=version,
                    outputs=outputs,
                    timeout_s=timeout_s,
                    priority=priority,
                    extra=extra,
                    explain=explain,
                    headers=headers,
                )
            except PenstockClientError as error:
                return error

        return _answers(answer, rows, in_flight, on_error)

    async def predict_stream(
        self,
        model: str,
        rows: Iterable[Rows] | AsyncIterable[Rows],
        *,
        on_error: OnError = "raise",
        version: str = "",
        outputs: Sequence[str] | None = None,
        routing_key: str | None = None,
        request_ids: Iterable[str] | None = None,
        timeout_s: float | None = None,
        priority: int | None = None,
        extra: Extra = "ignore",
        explain: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> AsyncGenerator[Any, None]:
        """The answers of one stream of requests, as the server gives them; see `Client.predict_stream`.

        `rows` may be asynchronous too. A stream that is left early is cancelled when the generator is closed, which
        `contextlib.aclosing` does at once.
        """
        check_many(1, on_error)
        self._check_open()
        options = RequestOptions(
            model=model,
            version=version,
            outputs=outputs,
            routing_key=routing_key,
            priority=priority,
            extra=extra,
            explain=explain,
        )
        own = self._headers(model, headers)
        declared = await self._run(self._session.declared(options, timeout_s), own)
        stream = Stream(self._session, self._server, options, declared, request_ids=request_ids, on_error=on_error)
        address = self._stream_address()
        calls = AwaitedChannelCalls(address, self._tls(), self.headers, self._options(address))
        try:
            requests = stream.awaited_requests(rows)
            async with aclosing(calls.stream(STREAM_PATH, requests, timeout_s, stream.headers(own))) as answers:
                async for outcome in answers:
                    yield stream.answer(outcome)
            stream.ended()
        finally:
            await calls.close()

    async def metadata(self, model: str, version: str = "", *, timeout_s: float | None = None) -> ModelMetadata:
        """The model's current versions, inputs and outputs; see `Client.metadata`."""
        return await self._run(self._session.metadata(model, version, timeout_s))

    async def is_ready(self, model: str | None = None, version: str = "", *, timeout_s: float | None = None) -> bool:
        """Whether the server, or the model named, answers predictions; see `Client.is_ready`."""
        return await self._run(self._session.is_ready(model, version, timeout_s))

    async def is_live(self, *, timeout_s: float | None = None) -> bool:
        """Whether the server answers; see `Client.is_live`."""
        return await self._run(self._session.is_live(timeout_s))

    async def wait_ready(self, model: str | None = None, version: str = "", *, timeout_s: float = 60.0) -> None:
        """Returns as soon as the server, or the model named, answers predictions; see `Client.wait_ready`."""
        return await self._run(self._session.wait_ready(model, version, timeout_s))

    async def index(self, *, only_ready: bool = False, timeout_s: float | None = None) -> tuple[ModelState, ...]:
        """The models and versions that the server knows; see `Client.index`."""
        return await self._run(self._session.index(only_ready=only_ready, timeout_s=timeout_s))

    async def drift_state(
        self, model: str = "", version: str = "", *, timeout_s: float | None = None
    ) -> penstock_pb2.DriftStateResponse:
        """How far the served rows are from the training rows; see `Client.drift_state`."""
        return await self._run(self._session.drift_state(model, version, timeout_s))

    async def feedback(
        self,
        model: str,
        labels: Labels = None,
        *,
        ids: Sequence[str] | None = None,
        values: Values = None,
        rows: ArrayLike | None = None,
        timeout_s: float | None = None,
    ) -> int:
        """Tells what was true of rows that were answered; see `Client.feedback`."""
        return await self._run(
            self._session.feedback(model, labels, ids=ids, values=values, rows=rows, timeout_s=timeout_s)
        )

    async def close(self) -> None:
        """Closes the connection; calls of other tasks end with an error."""
        self._is_closed = True
        if self._calls is not None:
            await self._calls.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, steps: Steps[T], headers: Headers | None = None) -> T:
        self._check_open()
        headers = trace_headers() if headers is None else headers
        outcome: bytes | Failure | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as finished:
                answer: T = finished.value
                return answer
            if isinstance(step, Pause):
                await asyncio.sleep(step.seconds)
                outcome = None
            else:
                outcome = await self._perform(step, headers)

    async def _perform(self, step: Attempt, headers: Headers) -> bytes | Failure:
        if self._calls is None:
            self._calls = self._opened()
        return await self._calls.call(METHODS[step.method], step.payload, step.timeout_s, headers)

    def _opened(self) -> AwaitedCallsOf:
        calls = self._unhedged()
        if self.hedge_after_s is None:
            return calls
        return HedgedAwaitedCalls(calls, self.hedge_after_s, self._session.affords_hedge)

    def _unhedged(self) -> AwaitedCallsOf:
        if self._is_balanced:
            resolve = partial(asyncio.to_thread, self._resolved)
            return BalancedAwaitedCalls(resolve, is_fixed=not self._has_names, balancing=self.balancing)
        ((address, target), *_) = self._targets.items()
        return self._calls_of(address, target)

    def _calls_of(self, address: str, target: Target | None) -> AwaitedCallsOf:
        if is_url(address):
            from penstock_client.rest.calls import AwaitedRestCalls

            return AwaitedRestCalls(address, self._tls(), self.headers, self.max_message_bytes)
        if target is None:
            return AwaitedChannelCalls(address, self._tls(), self.headers, self._options(address))
        return AwaitedCalls(target, self.headers, self.max_message_bytes)


async def _answers(
    answer: Callable[[Rows], Coroutine[Any, Any, Prediction | PenstockClientError]],
    rows: Iterable[Rows] | AsyncIterable[Rows],
    in_flight: int,
    on_error: OnError,
) -> AsyncGenerator[Any, None]:
    waiting: deque[asyncio.Task[Prediction | PenstockClientError]] = deque()

    async def first() -> Prediction | PenstockClientError:
        found = await waiting[0]
        waiting.popleft()
        if on_error == "raise" and isinstance(found, PenstockClientError):
            raise found
        return found

    try:
        async for each in rows if isinstance(rows, AsyncIterable) else _awaited(rows):
            waiting.append(asyncio.create_task(answer(each)))
            if len(waiting) >= in_flight:
                yield await first()
        while waiting:
            yield await first()
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


async def _awaited(rows: Iterable[Rows]) -> AsyncGenerator[Rows, None]:
    for each in each_row(rows):
        yield each
