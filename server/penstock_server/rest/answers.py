"""How a call that came over HTTP is answered: its error becomes a status of HTTP and a sentence in JSON."""

from collections.abc import Callable
from math import ceil
from typing import Any, Final, NamedTuple, Protocol

import msgspec
import structlog

from penstock_server.call import Cancellable
from penstock_server.errors import PenstockError
from penstock_server.rest.http import JSON, BadRequestError, Request
from penstock_server.transport.status import Status, StatusCode, status_of

log = structlog.get_logger(__name__)

_STATUSES: Final = {0: 200, 3: 400, 4: 504, 5: 404, 7: 403, 8: 429, 12: 501, 13: 500, 14: 503, 16: 401}
"""Of HTTP, for the numbers of gRPC: as `google.rpc.Code` maps them, and as grpc-gateway does."""
_INVALID: Final = 3
_PUSHBACK: Final = "grpc-retry-pushback-ms"
_CHALLENGE: Final = b"www-authenticate: Bearer\r\n"


class Answer(NamedTuple):
    """What goes back to a caller.

    Attributes:
        more: further header lines, each with its end of line.
    """

    body: bytes
    status: int = 200
    content_type: bytes = JSON
    more: bytes = b""


class Exchange(Protocol):
    """One request and the place for its answer.

    Attributes:
        request: what came.
        raw: the request as it came, if kernels may learn of it; else empty.
        pending: what is cancelled when the caller leaves.
        peer: the names of the caller's verified certificate.
    """

    request: Request
    raw: bytes
    peer: tuple[str, ...]
    pending: Cancellable | None

    def answer(self, answer: Answer) -> None:
        """Sends the answer, once the answers to the requests before it are sent."""


class RestOutcome:
    """Makes an answer of how a call ends.

    Args:
        exchange: gets the answer.
        render: makes it of the method's reply.
        render_large: does that elsewhere if the reply is large; false if it is not.
    """

    __slots__ = ("_exchange", "_render", "_render_large")

    def __init__(
        self,
        exchange: Exchange,
        render: Callable[[bytes], Answer],
        render_large: Callable[[Exchange, Callable[[bytes], Answer], bytes], bool],
    ) -> None:
        self._exchange = exchange
        self._render = render
        self._render_large = render_large

    def replied(self, message: bytes) -> None:
        if self._render_large(self._exchange, self._render, message):
            return
        try:
            answer = self._render(message)
        except PenstockError as error:
            answer = error_answer(error)
        except Exception:  # the caller must not wait for ever
            log.exception("an HTTP answer failed")
            answer = error_answer(PenstockError())
        self._exchange.answer(answer)

    def ended(self, status: Status) -> None:
        self._exchange.answer(status_answer(status))


class Continuation:
    """Goes on with a method's reply; answers with the status that it ended with, unless `otherwise` goes on without a reply."""

    __slots__ = ("_exchange", "_otherwise", "_then")

    def __init__(
        self, exchange: Exchange, then: Callable[[bytes], None], otherwise: Callable[[], None] | None = None
    ) -> None:
        self._exchange = exchange
        self._then = then
        self._otherwise = otherwise

    def replied(self, message: bytes) -> None:
        self._go_on(lambda: self._then(message))

    def ended(self, status: Status) -> None:
        if self._otherwise is None or status.code is StatusCode.UNAVAILABLE:
            self._exchange.answer(status_answer(status))
        else:
            self._go_on(self._otherwise)

    def _go_on(self, go_on: Callable[[], None]) -> None:
        try:
            go_on()
        except (PenstockError, BadRequestError) as error:
            self._exchange.answer(error_answer(error))
        except Exception:  # the caller must not wait for ever
            log.exception("an HTTP answer failed")
            self._exchange.answer(error_answer(PenstockError()))


class LateRefusal:
    """Answers with an error, unless the caller may not ask, or asks for what is not there: then that is said."""

    __slots__ = ("_error", "_exchange")

    def __init__(self, exchange: Exchange, error: PenstockError | BadRequestError) -> None:
        self._exchange = exchange
        self._error = error

    def replied(self, message: bytes) -> None:  # noqa: ARG002
        self._exchange.answer(error_answer(self._error))

    def ended(self, status: Status) -> None:
        is_invalid = _STATUSES.get(status.number) == _STATUSES[_INVALID]
        self._exchange.answer(error_answer(self._error) if is_invalid else status_answer(status))


def error_answer(error: PenstockError | BadRequestError) -> Answer:
    """The answer that an error becomes, as Triton and KServe write it."""
    if isinstance(error, BadRequestError):
        return said(error.status, str(error), more=error.more)
    return status_answer(status_of(error))


def status_answer(status: Status) -> Answer:
    """The answer that a status of gRPC becomes."""
    number = _STATUSES.get(status.number, 500)
    more = _CHALLENGE if number == 401 else b""
    for name, value in status.trailers:
        if name == _PUSHBACK and isinstance(value, str) and value.isdigit():
            more = b"retry-after: %d\r\n" % ceil(int(value) / 1000)  # seconds, RFC 9110, 10.2.3
    return said(number, status.details, more=more)


def said(status: int, why: str, *, more: bytes = b"") -> Answer:
    """An answer that says in one sentence what is wrong."""
    return Answer(msgspec.json.encode({"error": why}), status, more=more)


def as_json(value: Any, status: int = 200) -> Answer:
    """An answer of JSON."""
    return Answer(msgspec.json.encode(value), status)
