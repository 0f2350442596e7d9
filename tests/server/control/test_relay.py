from collections.abc import Callable
from typing import Any

import pytest

from penstock_server.control.forwarding import MAX_WAITING, ForwardedCalls, error_of
from penstock_server.control.messages import ControlError, ControlReply, ControlRequest, Event
from penstock_server.errors import InvalidInputError, NotFoundError, OverloadedError, PenstockError


class Supervisor:
    """What a relay sees of the supervisor and of the reactor, which here acts when it is told to."""

    def __init__(self) -> None:
        self.asked: list[Event] = []
        self.posted: list[Callable[[], None]] = []
        self.relay = ForwardedCalls(self.asked.append, self.posted.append)

    def answer(self, answer: ControlReply | ControlError) -> None:
        self.relay.answered(answer)
        while self.posted:
            self.posted.pop(0)()


@pytest.fixture
def supervisor() -> Supervisor:
    return Supervisor()


def test_an_answer_finds_its_call(supervisor: Supervisor, fake_call: Any) -> None:
    calls = [fake_call(), fake_call()]
    for call, message in zip(calls, [b"a", b"b"], strict=True):
        supervisor.relay.ask("DriftState", message, call)
    assert supervisor.asked == [ControlRequest(1, "DriftState", b"a"), ControlRequest(2, "DriftState", b"b")]
    assert all(call.is_watched for call in calls)
    supervisor.answer(ControlReply(2, b"B"))
    assert (calls[1].answer, calls[0].answers, calls[1].pending) == (b"B", [], None)
    supervisor.answer(ControlError(1, "NotFoundError", "no model 'm'"))
    assert (type(calls[0].answer), str(calls[0].answer)) == (NotFoundError, "no model 'm'")


def test_an_answer_waits_for_the_reactor(supervisor: Supervisor, fake_call: Any) -> None:
    call = fake_call()
    supervisor.relay.ask("DriftState", b"", call)
    supervisor.relay.answered(ControlReply(1, b"A"))
    assert call.answers == []
    supervisor.posted.pop()()
    assert call.answer == b"A"


def test_a_caller_that_left_is_forgotten(supervisor: Supervisor, fake_call: Any) -> None:
    call = fake_call()
    supervisor.relay.ask("DriftState", b"", call)
    call.leave()
    supervisor.answer(ControlReply(1, b"late"))
    supervisor.answer(ControlReply(77, b"never asked"))
    assert (call.answers, call.late_answers) == ([], 0)


def test_so_many_questions_and_no_more(supervisor: Supervisor, fake_call: Any) -> None:
    calls = [fake_call() for _ in range(MAX_WAITING)]
    for call in calls:
        supervisor.relay.ask("DriftState", b"", call)
    with pytest.raises(OverloadedError, match=f"{MAX_WAITING} questions about the server wait already"):
        supervisor.relay.ask("DriftState", b"", fake_call())
    calls[3].leave()
    supervisor.relay.ask("DriftState", b"", fake_call())


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("InvalidInputError", InvalidInputError),
        ("PenstockError", PenstockError),
        ("SomethingNewer", PenstockError),
        ("__doc__", PenstockError),
    ],
)
def test_errors_keep_their_class(kind: str, expected: type[PenstockError]) -> None:
    error = error_of(ControlError(1, kind, "why"))
    assert (type(error), str(error)) == (expected, "why")
