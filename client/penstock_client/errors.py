"""The client's errors, one class per meaning, and the table from gRPC's codes to them.

An error says what was wrong, for which model, and at which server. `session` raises them, with gRPC's own exception as
the cause; `retry` decides which failures are tried again.
"""

from typing import Final

import grpc


class PenstockClientError(Exception):
    """The base of all errors that the client raises.

    Attributes:
        details: one sentence, the server's or the client's own.
        code: the gRPC status, or None if no call was made.
        model: the requested model; empty if there was none.
        server: the server's address; empty if the error arose before it was known.

    >>> str(OverloadedError("the queue is full", model="fraud", server="models:8001"))
    "the queue is full (model 'fraud' at models:8001)"
    """

    code: grpc.StatusCode | None = None

    def __init__(self, details: str, *, code: grpc.StatusCode | None = None, model: str = "", server: str = "") -> None:
        super().__init__(details)
        self.details = details
        self.code = code or type(self).code
        self.model = model
        self.server = server

    def __str__(self) -> str:
        where = f"model {self.model!r}" if self.model else "the server"
        return f"{self.details} ({where} at {self.server})" if self.server else self.details


class InvalidRequestError(PenstockClientError):
    """The rows or an option do not fit the model, as the client or the server found. A retry fails the same way."""

    code = grpc.StatusCode.INVALID_ARGUMENT


class ModelNotFoundError(PenstockClientError):
    """The server has no such model or version."""

    code = grpc.StatusCode.NOT_FOUND


class OverloadedError(PenstockClientError):
    """The server refused the request because its queue is full."""

    code = grpc.StatusCode.RESOURCE_EXHAUSTED


class DeadlineExceededError(PenstockClientError):
    """No answer came within the call's `timeout_s`, attempts and pauses included."""

    code = grpc.StatusCode.DEADLINE_EXCEEDED


class ServerUnavailableError(PenstockClientError):
    """The server cannot be reached, or is starting or stopping; the retries are used up."""

    code = grpc.StatusCode.UNAVAILABLE


class UnsupportedError(PenstockClientError):
    """The server does not implement the method."""

    code = grpc.StatusCode.UNIMPLEMENTED


class AccessDeniedError(PenstockClientError):
    """The server, or a proxy in front of it, refuses this caller."""

    code = grpc.StatusCode.PERMISSION_DENIED


class ServerError(PenstockClientError):
    """The server failed, cancelled the call, or sent a reply that cannot be read."""

    code = grpc.StatusCode.INTERNAL


MEANINGS: Final[dict[grpc.StatusCode, type[PenstockClientError]]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequestError,
    grpc.StatusCode.OUT_OF_RANGE: InvalidRequestError,
    grpc.StatusCode.NOT_FOUND: ModelNotFoundError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineExceededError,
    grpc.StatusCode.UNAVAILABLE: ServerUnavailableError,
    grpc.StatusCode.UNIMPLEMENTED: UnsupportedError,
    grpc.StatusCode.UNAUTHENTICATED: AccessDeniedError,
    grpc.StatusCode.PERMISSION_DENIED: AccessDeniedError,
}
"""The class of each code; all other codes are a `ServerError`."""


def meaning_of(code: grpc.StatusCode, details: str) -> type[PenstockClientError]:
    """The class of error that a status means.

    >>> meaning_of(grpc.StatusCode.NOT_FOUND, "no such model").__name__
    'ModelNotFoundError'
    """
    # gRPC's core reports its message limits with the code of overload; only the text tells them apart.
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "message larger than max" in details:
        return InvalidRequestError
    return MEANINGS.get(code, ServerError)
