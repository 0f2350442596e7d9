"""The client for asyncio: performs the session's steps by awaiting."""

import asyncio
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import grpc
import grpc.aio

from penstock import penstock_pb2
from penstock_client.base import ClientBase
from penstock_client.channel import call_metadata
from penstock_client.metadata import ModelMetadata, ModelState
from penstock_client.prediction import Prediction
from penstock_client.reply import plain_prediction
from penstock_client.request import RequestOptions
from penstock_client.rows import Rows
from penstock_client.session import METHODS
from penstock_client.steps import Attempt, Failure, Made, Pause, Steps, T, failure_of
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
        """Leaves the channel to the first call, which knows the event loop."""
        super().__post_init__()
        self._metadata = call_metadata(self.headers)
        self._channel: grpc.aio.Channel | None = None
        self._methods: dict[str, grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]] = {}

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
        self._check_open()
        attempt = self._session.planned(options, rows, timeout_s)
        if attempt is None:
            return await self._run(self._session.predict(options, rows, timeout_s))
        begun_s = time.monotonic()
        outcome = await self._perform(attempt)
        made = Made(outcome, begun_s, time.monotonic() - begun_s)
        prediction = plain_prediction(made, explains=explain)
        if prediction is not None:
            return prediction
        return await self._run(self._session.predict(options, rows, timeout_s, made))

    async def metadata(self, model: str, version: str = "", *, timeout_s: float | None = None) -> ModelMetadata:
        """The model's current versions, inputs and outputs; see `Client.metadata`."""
        return await self._run(self._session.metadata(model, version, timeout_s))

    async def is_ready(self, model: str | None = None, version: str = "", *, timeout_s: float | None = None) -> bool:
        """Whether the server, or the model named, answers predictions; see `Client.is_ready`."""
        return await self._run(self._session.is_ready(model, version, timeout_s))

    async def is_live(self, *, timeout_s: float | None = None) -> bool:
        """Whether the server answers; see `Client.is_live`."""
        return await self._run(self._session.is_live(timeout_s))

    async def index(self, *, only_ready: bool = False, timeout_s: float | None = None) -> tuple[ModelState, ...]:
        """The models and versions that the server knows; see `Client.index`."""
        return await self._run(self._session.index(only_ready=only_ready, timeout_s=timeout_s))

    async def drift_state(
        self, model: str = "", version: str = "", *, timeout_s: float | None = None
    ) -> penstock_pb2.DriftStateResponse:
        """How far the served rows are from the training rows; see `Client.drift_state`."""
        return await self._run(self._session.drift_state(model, version, timeout_s))

    async def close(self) -> None:
        """Closes the channel; calls of other tasks end with an error."""
        self._is_closed = True
        if self._channel is not None:
            await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, steps: Steps[T]) -> T:
        self._check_open()
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
                outcome = await self._perform(step)

    async def _perform(self, step: Attempt) -> bytes | Failure:
        method = self._method(step.method)
        try:
            reply: bytes = await method(step.payload, timeout=step.timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            return failure_of(error)
        except asyncio.CancelledError:
            # grpc.aio reports a channel that was closed under a call as if this task had been cancelled.
            if self._is_closed and not _is_being_cancelled():
                return Failure(grpc.StatusCode.CANCELLED, "the client was closed during the call")
            raise
        return reply

    def _method(self, name: str) -> "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]":
        if self._channel is None:
            self._channel = self._opened()
            self._methods = {name: self._channel.unary_unary(path) for name, path in METHODS.items()}
        return self._methods[name]

    def _opened(self) -> grpc.aio.Channel:
        tls = self._tls()
        if tls is None:
            return grpc.aio.insecure_channel(self.address, self._options())
        return grpc.aio.secure_channel(self.address, tls.credentials(), self._options())


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
