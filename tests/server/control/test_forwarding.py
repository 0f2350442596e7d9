import asyncio
import threading

import pytest

from penstock_server.control import forwarding as desks
from penstock_server.control.forwarding import ControlResponder
from penstock_server.control.messages import ControlError, ControlReply, ControlRequest
from penstock_server.errors import NotFoundError


def missing(_body: bytes) -> bytes:
    raise NotFoundError("no model 'm'")


def broken(_body: bytes) -> bytes:
    raise RuntimeError("secret")


DESK = ControlResponder({"Echo": lambda body: body + b"!", "Missing": missing, "Broken": broken})


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("Echo", ControlReply(7, b"a!")),
        ("Missing", ControlError(7, "NotFoundError", "no model 'm'")),
        ("Other", ControlError(7, "UnsupportedError", "this server answers no 'Other'")),
        ("Broken", ControlError(7, "PenstockError", "the question failed")),
    ],
)
def test_every_question_is_answered(method: str, expected: ControlReply | ControlError) -> None:
    assert DESK.answer(ControlRequest(7, method, b"a")) == expected


def test_an_answer_fits_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desks, "MAX_ANSWER_BYTES", 3)
    assert DESK.answer(ControlRequest(1, "Echo", b"ab")) == ControlReply(1, b"ab!")
    refusal = DESK.answer(ControlRequest(1, "Echo", b"abc"))
    assert refusal == ControlError(1, "InvalidInputError", "the answer takes 4 bytes, at most 3; ask for less")


async def test_answers_are_made_beside_the_loop_and_told_on_it() -> None:
    threads: list[threading.Thread] = []
    told: list[tuple[ControlReply | ControlError, threading.Thread]] = []

    def slow(body: bytes) -> bytes:
        threads.append(threading.current_thread())
        return body

    desk = ControlResponder({"Slow": slow})
    for number in range(5):
        desk.take(
            ControlRequest(number, "Slow", b"x"), lambda answer: told.append((answer, threading.current_thread()))
        )
    assert told == []
    await asyncio.wait_for(desk.close(), 10)
    assert sorted(answer.number for answer, _ in told) == [0, 1, 2, 3, 4]
    assert {thread for _, thread in told} == {threading.current_thread()}
    assert threading.current_thread() not in threads
