"""Several predictions in flight from one thread: asks ahead, and gives the answers in the order of the requests.

`Client.predict_many` uses it. How calls overlap is a `Pipe`'s: over one connection of the client's own, or a channel of
grpcio. Only the first attempt of a request overlaps with others: a call that must be tried again is tried at its turn.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Final, Literal, Protocol, get_args

import numpy as np

from penstock.names import INFER_METHOD
from penstock_client.errors import PenstockClientError
from penstock_client.headers import Headers
from penstock_client.prediction import Prediction
from penstock_client.request import RequestOptions
from penstock_client.rows import Rows
from penstock_client.session import METHODS, Session
from penstock_client.steps import Attempt, Failure, Pause, Steps

OnError = Literal["raise", "return"]
"""What becomes of a request that failed: its error ends the iteration, or takes the answer's place."""

DEFAULT_IN_FLIGHT: Final = 16


class Pipe(Protocol):
    """Calls that overlap, for one thread."""

    def start(self, path: str, payload: bytes, timeout_s: float, headers: Headers = ()) -> Any:
        """Starts a call and returns what `wait` takes."""

    def wait(self, ticket: Any) -> bytes | Failure:
        """How the call ended."""

    def close(self) -> None:
        """Cancels what is still in flight."""


@dataclass(frozen=True, slots=True)
class Request:
    """One prediction to ask for."""

    options: RequestOptions
    rows: Rows


@dataclass(slots=True)
class _Asked:
    """A request in flight, with the steps that it takes; or its answer already."""

    steps: Steps[Prediction]
    headers: Headers
    ticket: Any = None
    answer: Prediction | PenstockClientError | None = None


def check_many(in_flight: int, on_error: str) -> None:
    """Raises `ValueError` for options that `predict_many` does not take."""
    if in_flight < 1 or on_error not in get_args(OnError):
        raise ValueError(f"expected in_flight >= 1 and on_error as 'raise' or 'return', got {in_flight}, {on_error!r}")


def each_row(rows: Iterable[Rows]) -> Iterable[Rows]:
    """The rows of each request; an array is a request for each of its rows."""
    return (rows[at : at + 1] for at in range(len(rows))) if isinstance(rows, np.ndarray) else rows


def requests(
    options: Callable[[str | None, str | None], RequestOptions],
    rows: Iterable[Rows],
    routing_keys: Iterable[str] | None,
    request_ids: Iterable[str] | None,
) -> Iterator[Request]:
    """The requests, made as they are asked for; raises `ValueError` if there are fewer or more keys or ids than rows."""
    if routing_keys is None and request_ids is None:
        same = options(None, None)
        return (Request(same, each) for each in each_row(rows))
    has_both = routing_keys is not None and request_ids is not None
    keys = repeat(None) if routing_keys is None else routing_keys
    ids = repeat(None) if request_ids is None else request_ids
    if has_both:
        return (Request(options(key, own), each) for each, key, own in zip(each_row(rows), keys, ids, strict=True))
    # The repeated one never ends, so that only the other can be compared with the rows.
    given = zip(each_row(rows), keys if request_ids is None else ids, strict=True)
    if request_ids is None:
        return (Request(options(key, None), each) for each, key in given)
    return (Request(options(None, own), each) for each, own in given)


class Many:
    """Asks and answers.

    Args:
        session: decides what to send and what a reply means.
        pipe: carries first attempts.
        perform: performs a step by blocking, for all others.
        headers: of each call; asked for when a request is sent.
        timeout_s: seconds until a request gives up, from when it is sent; None for the session's.
    """

    def __init__(
        self,
        session: Session,
        pipe: Pipe,
        perform: Callable[[Attempt | Pause, Headers], bytes | Failure | None],
        headers: Callable[[], Headers],
        timeout_s: float | None,
    ) -> None:
        self._session = session
        self._pipe = pipe
        self._perform = perform
        self._headers = headers
        self._timeout_s = timeout_s

    def answers(self, asked: Iterable[Request], in_flight: int, on_error: OnError) -> Iterator[Any]:
        """The answers in order, with at most so many requests in flight."""
        waiting: deque[_Asked] = deque()
        try:
            for request in asked:
                waiting.append(self._ask(request))
                if len(waiting) >= in_flight:
                    yield self._given(waiting.popleft(), on_error)
            while waiting:
                yield self._given(waiting.popleft(), on_error)
        finally:
            for each in waiting:
                each.steps.close()
            self._pipe.close()

    def _ask(self, request: Request) -> _Asked:
        asked = _Asked(self._session.predict(request.options, request.rows, self._timeout_s), self._headers())
        attempt = self._first_attempt(asked)
        if attempt is not None:
            path = METHODS[attempt.method]
            asked.ticket = self._pipe.start(path, attempt.payload, attempt.timeout_s, asked.headers)
        return asked

    def _first_attempt(self, asked: _Asked) -> Attempt | None:
        """The attempt that the steps come to, after the model's metadata where it is not known; or sets the answer."""
        outcome: bytes | Failure | None = None
        try:
            while True:
                step = asked.steps.send(outcome)
                if isinstance(step, Attempt) and step.method == INFER_METHOD:
                    return step
                outcome = self._perform(step, asked.headers)
        except StopIteration as finished:
            asked.answer = finished.value
        except PenstockClientError as error:
            asked.answer = error
        return None

    def _given(self, asked: _Asked, on_error: OnError) -> Prediction | PenstockClientError:
        try:
            answer = self._answer(asked) if asked.answer is None else asked.answer
        except PenstockClientError as error:
            answer = error
        if on_error == "raise" and isinstance(answer, PenstockClientError):
            raise answer
        return answer

    def _answer(self, asked: _Asked) -> Prediction:
        outcome: bytes | Failure | None = self._pipe.wait(asked.ticket)
        while True:
            try:
                step = asked.steps.send(outcome)
            except StopIteration as finished:
                answer: Prediction = finished.value
                return answer
            outcome = self._perform(step, asked.headers)
