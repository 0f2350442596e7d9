"""One stream of predictions: its requests, written as they are taken, and its answers, read as they come.

`ModelStreamInfer` carries them. A server may give one request several answers, or none yet, so an answer belongs to a
request by its id alone. gRPC's core takes the requests in a thread of its own, as fast as the server reads them.
"""

import math
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from dataclasses import replace
from typing import Final

from penstock import inference_pb2
from penstock_client.errors import PenstockClientError, ServerError, meaning_of
from penstock_client.headers import Headers
from penstock_client.many import OnError, each_row
from penstock_client.metadata import ModelMetadata
from penstock_client.prediction import Prediction, parsed, prediction_in
from penstock_client.request import RequestOptions
from penstock_client.rows import Rows
from penstock_client.session import Session
from penstock_client.steps import Failure

ENDS_WITH_STATUS: Final = ("triton_grpc_error", "true")
"""Asks the server to end the stream with the status of the first error, in place of a message without one."""


class Stream:
    """The requests and the answers of one stream.

    Args:
        session: casts rows.
        server: its address, for errors.
        options: of every request.
        declared: what the model declares.
        request_ids: one for each request; None for none.
        on_error: "raise" ends the stream with the first error, "return" gives each in the place of an answer.
    """

    def __init__(
        self,
        session: Session,
        server: str,
        options: RequestOptions,
        declared: ModelMetadata,
        *,
        request_ids: Iterable[str] | None,
        on_error: OnError,
    ) -> None:
        self._session = session
        self._server = server
        self._options = options
        self._declared = declared
        self._ids = None if request_ids is None else iter(request_ids)
        self._on_error = on_error
        self._failed: Exception | None = None

    def headers(self, own: Headers) -> Headers:
        """What goes with the stream."""
        return (*own, ENDS_WITH_STATUS) if self._on_error == "raise" else own

    def requests(self, rows: Iterable[Rows]) -> Iterator[bytes]:
        """The requests; they end where rows cannot be sent, or cannot be had, which `ended` tells."""
        try:
            for each in each_row(rows):
                yield self._request(each)
        except Exception as error:  # noqa: BLE001 - gRPC's thread takes them, and the caller's is to hear of it
            self._failed = error

    async def awaited_requests(self, rows: Iterable[Rows] | AsyncIterable[Rows]) -> AsyncIterator[bytes]:
        """The same, from rows that may be asynchronous."""
        try:
            if isinstance(rows, AsyncIterable):
                async for each in rows:
                    yield self._request(each)
            else:
                for each in each_row(rows):
                    yield self._request(each)
        except Exception as error:  # noqa: BLE001 - as in `requests`
            self._failed = error

    def answer(self, outcome: bytes | Failure) -> Prediction | PenstockClientError:
        """The answer that a message of the stream holds, or the error; raises where the stream has ended with it."""
        if isinstance(outcome, Failure):
            kind = meaning_of(outcome.code, outcome.details)
            details = outcome.details or f"the stream failed with {outcome.code.name}"
            raise self._named(kind(details, code=outcome.code)) from outcome.cause
        try:
            message = parsed(inference_pb2.ModelStreamInferResponse, outcome)
            if message.error_message:
                raise ServerError(message.error_message)
            reply = message.infer_response
            return prediction_in(reply, round_trip_s=math.nan, explains=self._options.explain)
        except PenstockClientError as error:
            if self._on_error == "raise":
                raise self._named(error) from error.__cause__
            return self._named(error)

    def ended(self) -> None:
        """The server has answered all; raises what kept requests from being sent."""
        if self._failed is not None:
            raise self._failed

    def _request(self, rows: Rows) -> bytes:
        options = self._options
        if self._ids is not None:
            own = next(self._ids, None)
            if own is None:
                raise ValueError("there are fewer request_ids than rows; expected one for each")
            options = replace(options, request_id=own)
        try:
            return self._session.encoded(options, rows, self._declared)
        except PenstockClientError as error:
            raise self._named(error) from error.__cause__

    def _named(self, error: PenstockClientError) -> PenstockClientError:
        error.model, error.server = self._options.model, self._server
        return error
