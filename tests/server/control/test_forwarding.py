import asyncio
import threading

import pytest

from penstock_server.control import forwarding as desks
from penstock_server.control.forwarding import Desk
from penstock_server.control.messages import Answer, Question, Refusal
from penstock_server.errors import NotFoundError


def missing(_body: bytes) -> bytes:
    raise NotFoundError("no model 'm'")


def broken(_body: bytes) -> bytes:
    raise RuntimeError("secret")


DESK = Desk({"Echo": lambda body: body + b"!", "Missing": missing, "Broken": broken})


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("Echo", Answer(7, b"a!")),
        ("Missing", Refusal(7, "NotFoundError", "no model 'm'")),
        ("Other", Refusal(7, "UnsupportedError", "this server answers no 'Other'")),
        ("Broken", Refusal(7, "PenstockError", "the question failed")),
    ],
)
def test_every_question_is_answered(method: str, expected: Answer | Refusal) -> None:
    assert DESK.answer(Question(7, method, b"a")) == expected


def test_an_answer_fits_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desks, "MAX_ANSWER_BYTES", 3)
    assert DESK.answer(Question(1, "Echo", b"ab")) == Answer(1, b"ab!")
    refusal = DESK.answer(Question(1, "Echo", b"abc"))
    assert refusal == Refusal(1, "InvalidInputError", "the answer takes 4 bytes, at most 3; ask for less")


async def test_answers_are_made_beside_the_loop_and_told_on_it() -> None:
    threads: list[threading.Thread] = []
    told: list[tuple[Answer | Refusal, threading.Thread]] = []

    def slow(body: bytes) -> bytes:
        threads.append(threading.current_thread())
        return body

    desk = Desk({"Slow": slow})
    for number in range(5):
        desk.take(Question(number, "Slow", b"x"), lambda answer: told.append((answer, threading.current_thread())))
    assert told == []
    await asyncio.wait_for(desk.close(), 10)
    assert sorted(answer.number for answer, _ in told) == [0, 1, 2, 3, 4]
    assert {thread for _, thread in told} == {threading.current_thread()}
    assert threading.current_thread() not in threads
