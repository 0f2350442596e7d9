"""The client for ordinary code: performs the session's steps by blocking."""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from types import TracebackType
from typing import Any, Literal, Self, overload

import numpy as np
from numpy.typing import ArrayLike

from penstock import penstock_pb2
from penstock_client.balanced import BalancedCalls, Calls
from penstock_client.base import ClientBase
from penstock_client.channel import is_url
from penstock_client.errors import PenstockClientError
from penstock_client.feedback import Labels, Values
from penstock_client.grpcio import ChannelCalls
from penstock_client.headers import Headers, trace_headers
from penstock_client.hedged import HedgedCalls
from penstock_client.http2.blocking import DirectCalls
from penstock_client.http2.target import Target
from penstock_client.many import DEFAULT_IN_FLIGHT, Many, OnError, check_many, requests
from penstock_client.metadata import ModelMetadata, ModelState
from penstock_client.prediction import Prediction
from penstock_client.request import RequestOptions
from penstock_client.rows import Rows
from penstock_client.session import METHODS, STREAM_PATH
from penstock_client.steps import Attempt, Failure, Pause, Steps, T
from penstock_client.streams import Stream
from penstock_client.tensors import Extra


class Client(ClientBase):
    """Gets predictions from a model server. Threads may share a client; keep it, since a new one connects again.

    Each method raises a `PenstockClientError` that says what was wrong, for which model, and at which server.

    >>> from penstock_client import Client
    >>> with Client(address) as client:
    ...     prediction = client.predict("fares", {"age": [41, 7], "city": ["Oslo", None]})
    >>> prediction["fare"]
    array([82., 14.])
    >>> prediction.version, prediction.role
    ('3', 'champion')
    """

    def __post_init__(self) -> None:
        """Decides how calls go; the first one connects."""
        super().__post_init__()
        ((address, target), *_) = self._targets.items()
        self._calls: Calls = (
            BalancedCalls(self._resolved, is_fixed=not self._has_names, balancing=self.balancing)
            if self._is_balanced
            else self._calls_of(address, target)
        )
        if self.hedge_after_s is not None:
            self._calls = HedgedCalls(self._calls, self.hedge_after_s, self._session.affords_hedge)

    def predict(
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
        """The model's outputs for the rows.

        What a model declares is fetched once per model and version, and the rows are cast to it. A request that does
        not fit what was fetched earlier is tried once more if the model's inputs have changed since.

        Args:
            model: the model's name.
            rows: a dict of columns, or of single values for one row; a list of dicts or of named tuples; a 2-D array;
                a pandas or polars DataFrame; or a pyarrow Table. Columns go by name, in any order, wherever the model
                declares names: one input per column, or a matrix whose columns the server knows. Columns of a matrix
                without names, and arrays, go by position. A 1-D array is one column, never one row.
            version: a version or an alias such as "@champion"; empty leaves the choice to the server.
            outputs: the names of the outputs to return; None for all.
            routing_key: requests with the same key go to the same version while a canary grows.
            request_id: the id that the server echoes and that labels are joined by; None sends none.
            timeout_s: seconds until the call gives up; None for the client's setting.
            priority: the queue priority, 1 the highest; None leaves it to the server.
            extra: columns that the model does not take are left out, and logged once; "refuse" refuses them instead.
            explain: the prediction's `attributions` say how much each raw column moved each row's answer. Only a Penstock
                server can tell, and only of versions that were published with an explanation.
            headers: sent with this call, beside the client's own; the current span of OpenTelemetry goes with it by itself.

        No value is changed: `penstock_client.values` says what each datatype holds, and the rest is refused.

        Raises:
            InvalidRequestError: the rows or an option do not fit the model.
            ModelNotFoundError: the server has no such model or version.
            OverloadedError: the server's queue is full.
            DeadlineExceededError: no answer within `timeout_s`.
            ServerUnavailableError: no server could be reached, even after the retries.
            UnsupportedError: attributions were asked for, and the version gives none; says why.
            ServerError: the server failed.

        >>> client.predict("iris", [[5.1, 3.5, 1.4, 0.2]])["species"]
        array(['setosa'], dtype=object)
        >>> client.predict("fares", {"age": 41, "city": "Oslo"}, request_id="a-17").request_id
        'a-17'
        >>> client.predict("fares", {"age": [41]})
        Traceback (most recent call last):
        penstock_client.errors.InvalidRequestError: the columns do not match the model's inputs: missing 'city'...
        """
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
        return self._run(self._session.predict(options, rows, timeout_s), self._headers(model, headers))

    @overload
    def predict_many(
        self,
        model: str,
        rows: Iterable[Rows],
        *,
        in_flight: int = ...,
        on_error: Literal["raise"] = ...,
        version: str = ...,
        outputs: Sequence[str] | None = ...,
        routing_keys: Iterable[str] | None = ...,
        request_ids: Iterable[str] | None = ...,
        timeout_s: float | None = ...,
        priority: int | None = ...,
        extra: Extra = ...,
        explain: bool = ...,
        headers: Mapping[str, str] | None = ...,
    ) -> Iterator[Prediction]: ...

    @overload
    def predict_many(
        self,
        model: str,
        rows: Iterable[Rows],
        *,
        in_flight: int = ...,
        on_error: OnError,
        version: str = ...,
        outputs: Sequence[str] | None = ...,
        routing_keys: Iterable[str] | None = ...,
        request_ids: Iterable[str] | None = ...,
        timeout_s: float | None = ...,
        priority: int | None = ...,
        extra: Extra = ...,
        explain: bool = ...,
        headers: Mapping[str, str] | None = ...,
    ) -> Iterator[Prediction | PenstockClientError]: ...

    def predict_many(
        self,
        model: str,
        rows: Iterable[Rows],
        *,
        in_flight: int = DEFAULT_IN_FLIGHT,
        on_error: OnError = "raise",
        version: str = "",
        outputs: Sequence[str] | None = None,
        routing_keys: Iterable[str] | None = None,
        request_ids: Iterable[str] | None = None,
        timeout_s: float | None = None,
        priority: int | None = None,
        extra: Extra = "ignore",
        explain: bool = False,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[Any]:
        """The predictions for many requests, in their order, with several in flight from this thread.

        Each element of `rows` is a request of its own, in any form that `predict` takes, such as a dict for one row. The
        next ones are taken and sent while earlier ones are answered, so no more than `in_flight` are held at a time.
        Leaving the loop early cancels those in flight. One thread at a time may iterate.

        Args:
            model: the model's name.
            rows: the requests' rows, taken one by one as answers are asked for; an array is a request for each of its rows.
            in_flight: how many requests may wait for their answers.
            on_error: "raise" ends the iteration with the error of the first request that failed; "return" gives each
                error in the place of the request's answer, and goes on.
            version: as in `predict`, and so are `outputs`, `priority`, `extra` and `explain`.
            outputs: for every request.
            routing_keys: one for each request; None for none.
            request_ids: one for each request; None for none.
            timeout_s: of each request, from when it is sent. An answer that came in time and is asked for later is an
                answer; its `round_trip_s` includes the time that it waited here.
            priority: for every request.
            extra: for every request.
            explain: for every request.
            headers: for every request.

        Raises:
            ValueError: `in_flight` is below 1, or there are more or fewer keys or ids than rows.
            PenstockClientError: what `predict` raises.

        >>> passengers = ({"age": age, "city": "Oslo"} for age in (41, 7))
        >>> [answer["fare"].item() for answer in client.predict_many("fares", passengers)]
        [82.0, 14.0]
        """
        check_many(in_flight, on_error)
        self._check_open()

        def options(routing_key: str | None, request_id: str | None) -> RequestOptions:
            return RequestOptions(
                model=model,
                version=version,
                outputs=outputs,
                routing_key=routing_key,
                request_id=request_id,
                priority=priority,
                extra=extra,
                explain=explain,
            )

        # Rows that are there already are sent several at a time; an iterator's next one may be long in coming.
        pipe = self._calls.pipe(max(1, in_flight // 2) if isinstance(rows, Sequence | np.ndarray) else 1)
        many = Many(self._session, pipe, self._perform, lambda: self._headers(model, headers), timeout_s)
        return many.answers(requests(options, rows, routing_keys, request_ids), in_flight, on_error)

    def predict_stream(
        self,
        model: str,
        rows: Iterable[Rows],
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
    ) -> Iterator[Any]:
        """The answers of one stream of requests, in the order in which the server gives them.

        For models that answer a request several times, such as token by token, and for rows that come over time: each of
        `rows` is sent as soon as it is there, and answers are given as they come. A server may answer in another order than it
        was asked, which `request_ids` tell. A stream goes by a channel of grpcio, is not tried again, and is cancelled by
        leaving the loop. Where each request has one answer, `predict_many` costs a fraction.

        Args:
            model: the model's name.
            rows: the requests' rows, in any form that `predict` takes; gRPC takes them in a thread of its own. An array is a
                request for each of its rows.
            on_error: "raise" ends the stream with the first error; "return" gives each in the place of an answer.
            version: as in `predict`, and so are `outputs`, `priority`, `extra`, `explain` and `headers`.
            outputs: for every request.
            routing_key: for every request.
            request_ids: one for each request; None for none.
            timeout_s: seconds until the whole stream ends; None for no end.
            priority: for every request.
            extra: for every request.
            explain: for every request.
            headers: of the stream.

        Raises:
            ValueError: there are fewer ids than rows.
            PenstockClientError: what `predict` raises.

        >>> passengers = ({"age": age, "city": "Oslo"} for age in (41, 7))
        >>> [answer["fare"].item() for answer in client.predict_stream("fares", passengers)]
        [82.0, 14.0]
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
        declared = self._run(self._session.declared(options, timeout_s), own)
        stream = Stream(self._session, self._server, options, declared, request_ids=request_ids, on_error=on_error)
        return self._streamed(stream, rows, timeout_s, own)

    def metadata(self, model: str, version: str = "", *, timeout_s: float | None = None) -> ModelMetadata:
        """The model's current versions, inputs and outputs.

        >>> [(spec.name, spec.datatype) for spec in client.metadata("fares").inputs]
        [('age', 'INT64'), ('city', 'BYTES')]
        """
        return self._run(self._session.metadata(model, version, timeout_s))

    def is_ready(self, model: str | None = None, version: str = "", *, timeout_s: float | None = None) -> bool:
        """Whether the server, or the model named, answers predictions; also False if no server answers.

        >>> client.is_ready(), client.is_ready("fares"), client.is_ready("nothing")
        (True, True, False)
        """
        return self._run(self._session.is_ready(model, version, timeout_s))

    def is_live(self, *, timeout_s: float | None = None) -> bool:
        """Whether the server answers; one attempt, False if none does.

        >>> client.is_live()
        True
        """
        return self._run(self._session.is_live(timeout_s))

    def wait_ready(self, model: str | None = None, version: str = "", *, timeout_s: float = 60.0) -> None:
        """Returns as soon as the server, or the model named, answers predictions; until then it asks again and again.

        Raises:
            DeadlineExceededError: it does not within `timeout_s`; says what it answered last.
            AccessDeniedError: the server refuses this caller.

        >>> client.wait_ready("fares")
        >>> client.wait_ready("nothing", timeout_s=0.02)
        Traceback (most recent call last):
        penstock_client.errors.DeadlineExceededError: model 'nothing' is not ready after 0.02 s: no model 'nothing' is...
        """
        return self._run(self._session.wait_ready(model, version, timeout_s))

    def index(self, *, only_ready: bool = False, timeout_s: float | None = None) -> tuple[ModelState, ...]:
        """The models and versions that the server knows, and their states.

        >>> client.index()[0]
        ModelState(name='fares', version='3', state='READY', reason='')
        """
        return self._run(self._session.index(only_ready=only_ready, timeout_s=timeout_s))

    def drift_state(
        self, model: str = "", version: str = "", *, timeout_s: float | None = None
    ) -> penstock_pb2.DriftStateResponse:
        """How far the served rows are from the training rows, over all workers of a Penstock server.

        Args:
            model: the model's name; empty for all.
            version: a version or an alias such as "@champion"; empty for all.
            timeout_s: seconds until the call gives up; None for the client's setting.

        Raises:
            ModelNotFoundError: the server has no such model or version.
            UnsupportedError: the server is not Penstock.
        """
        return self._run(self._session.drift_state(model, version, timeout_s))

    def feedback(
        self,
        model: str,
        labels: Labels = None,
        *,
        ids: Sequence[str] | None = None,
        values: Values = None,
        rows: ArrayLike | None = None,
        timeout_s: float | None = None,
    ) -> int:
        """Tells a Penstock server what was true of rows that it answered; it joins that with the answers by their ids.

        All of it is taken when this returns, and may be sent again: of an answer the first label counts.

        Args:
            model: whose answers these are about.
            labels: by the `request_id` of a prediction, a class as the model names it or a number; a list of them for a request
                of several rows. Or a list with one for each of `ids`. None where only values are known.
            ids: of the requests, where labels are a list.
            values: what answers were worth, such as a margin, by id or as a list.
            rows: where ids and labels are lists: which row of its request each is about, from 0; None for the first.
            timeout_s: seconds until the call gives up; None for the client's setting.

        Returns:
            How many labels were taken: all of them.

        Raises:
            InvalidRequestError: a label is none, or lengths differ.
            ModelNotFoundError: the server has no such model, or takes no labels of it.
            OverloadedError: labels come faster than the server joins them, even after the retries.
            UnsupportedError: the server takes no labels.

        >>> client.feedback("fares", {"a-17": 84.5, "a-18": 12.0})
        2
        """
        return self._run(self._session.feedback(model, labels, ids=ids, values=values, rows=rows, timeout_s=timeout_s))

    def close(self) -> None:
        """Closes all connections; calls of other threads end with an error."""
        self._is_closed = True
        self._calls.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _streamed(
        self, stream: Stream, rows: Iterable[Rows], timeout_s: float | None, own: Headers
    ) -> Iterator[Prediction | PenstockClientError]:
        with closing(self._stream_calls()) as calls:
            answers = calls.stream(STREAM_PATH, stream.requests(rows), timeout_s, stream.headers(own))
            with closing(answers):
                for outcome in answers:
                    yield stream.answer(outcome)
            stream.ended()

    def _stream_calls(self) -> ChannelCalls:
        address = self._stream_address()
        return ChannelCalls(address, self._tls(), self.headers, self._options(address))

    def _calls_of(self, address: str, target: Target | None) -> Calls:
        if is_url(address):
            from penstock_client.rest.calls import RestCalls

            return RestCalls(address, self._tls(), self.headers, self.max_message_bytes)
        if target is None:
            return ChannelCalls(address, self._tls(), self.headers, self._options(address))
        return DirectCalls(target, self.headers, self.max_message_bytes)

    def _run(self, steps: Steps[T], headers: Headers | None = None) -> T:
        self._check_open()
        headers = trace_headers() if headers is None else headers
        outcome: bytes | Failure | None = None
        while True:
            try:
                step = steps.send(outcome)
            except StopIteration as finished:
                answer: T = finished.value
                return answer
            outcome = self._perform(step, headers)

    def _perform(self, step: Attempt | Pause, headers: Headers) -> bytes | Failure | None:
        if isinstance(step, Pause):
            time.sleep(step.seconds)
            return None
        return self._calls.call(METHODS[step.method], step.payload, step.timeout_s, headers)
