import json

import pytest

from penstock_server.errors import (
    DeadlinePassedError,
    DeniedError,
    InvalidInputError,
    LimitedError,
    ModelFailedError,
    NotFoundError,
    OverloadedError,
    PenstockError,
    UnauthenticatedError,
    UnavailableError,
    UnsupportedError,
)
from penstock_server.rest.answers import Answer, Continuation, LateRefusal, RestOutcome, error_answer, status_answer
from penstock_server.rest.http import BadRequestError, Request
from penstock_server.transport.status import Status, StatusCode


class Asked:
    """An exchange that keeps its answers."""

    peer = ()
    pending = None

    def __init__(self) -> None:
        self.request = Request(b"GET", b"/", {}, b"", is_kept=True)
        self.answers: list[Answer] = []

    def answer(self, answer: Answer) -> None:
        self.answers.append(answer)

    @property
    def status(self) -> int:
        (answer,) = self.answers
        return answer.status


@pytest.mark.parametrize(
    ("error", "status", "more"),
    [
        (InvalidInputError("no"), 400, b""),
        (UnauthenticatedError("no"), 401, b"www-authenticate: Bearer\r\n"),
        (DeniedError("no"), 403, b""),
        (NotFoundError("no"), 404, b""),
        (OverloadedError("no"), 429, b""),
        (LimitedError("no", retry_after_s=1.2), 429, b"retry-after: 2\r\n"),
        (ModelFailedError("no"), 500, b""),
        (PenstockError("hidden"), 500, b""),
        (UnsupportedError("no"), 501, b""),
        (UnavailableError("no"), 503, b""),
        (DeadlinePassedError("no"), 504, b""),
        (BadRequestError(405, "no", more=b"allow: GET\r\n"), 405, b"allow: GET\r\n"),
    ],
)
def test_an_error_is_a_status_and_a_sentence(error: PenstockError | BadRequestError, status: int, more: bytes) -> None:
    answer = error_answer(error)
    assert (answer.status, answer.more) == (status, more)
    assert json.loads(answer.body) == {"error": "internal error" if "hidden" in str(error) else "no"}


def broken(_message: bytes) -> Answer:
    raise ZeroDivisionError


def refusing(_message: bytes) -> Answer:
    raise InvalidInputError("JSON cannot say it")


@pytest.mark.parametrize(("render", "status"), [(Answer, 200), (refusing, 400), (broken, 500)])
def test_a_reply_is_answered_whatever_becomes_of_it(render: type[Answer], status: int) -> None:
    asked = Asked()
    RestOutcome(asked, render, lambda *_: False).replied(b"")
    assert asked.status == status


def test_a_large_reply_is_made_elsewhere() -> None:
    asked = Asked()
    RestOutcome(asked, broken, lambda *_: True).replied(b"")
    assert asked.answers == []


def test_what_goes_on_with_a_reply_may_not_leave_its_caller_waiting() -> None:
    asked, replies = Asked(), list[bytes]()
    Continuation(asked, replies.append).replied(b"x")
    assert (replies, asked.answers) == ([b"x"], [])
    Continuation(asked, broken).replied(b"x")
    assert asked.status == 500


@pytest.mark.parametrize(
    ("code", "status"),
    [
        (StatusCode.UNAUTHENTICATED, 401),
        (StatusCode.PERMISSION_DENIED, 403),
        (StatusCode.NOT_FOUND, 404),
        (StatusCode.INVALID_ARGUMENT, 422),  # the caller may ask, so it learns what is wrong with its rows
    ],
)
def test_what_is_wrong_with_rows_is_told_to_those_who_may_ask(code: StatusCode, status: int) -> None:
    asked = Asked()
    LateRefusal(asked, BadRequestError(422, "of the rows")).ended(Status(code, "of the method"))
    assert asked.status == status


def test_a_status_that_http_does_not_have_is_an_error_of_the_server() -> None:
    assert status_answer(Status(StatusCode.DATA_LOSS, "lost")).status == 500
