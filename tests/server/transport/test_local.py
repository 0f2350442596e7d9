"""Calls from within the process, over the native transport's tables and straight to their handlers."""

import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import Any

import pytest

from penstock_server.call import Call, Cancellable
from penstock_server.errors import InvalidInputError, PenstockError
from penstock_server.transport.interface import Methods
from penstock_server.transport.local import CallMaker, DirectCalls
from penstock_server.transport.status import Status, StatusCode
from tests.server.transport.test_transports import TIMEOUT_S, Service, running

PATH = "/local.Test/"


class Handlers:
    """What the calls reach."""

    def __init__(self) -> None:
        self.held: SimpleQueue[Call] = SimpleQueue()
        self.cancelled_calls: SimpleQueue[None] = SimpleQueue()
        self.seen: SimpleQueue[Any] = SimpleQueue()

    def methods(self) -> Methods:
        return Methods(
            {PATH + "Echo": self.echo, PATH + "Fail": self.fail, PATH + "Hold": self.hold, PATH + "Bug": self.bug}, {}
        )

    def echo(self, message: bytes, call: Call) -> None:
        self.seen.put((list(call.metadata()), call.peer()))
        call.trailers = (("a", "b"),) if message == b"trailers" else ()
        call.finish(message[::-1])

    def fail(self, message: bytes, _call: Call) -> None:
        raise InvalidInputError(message.decode())

    def bug(self, _message: bytes, _call: Call) -> None:
        raise ZeroDivisionError

    def hold(self, _message: bytes, call: Call) -> None:
        call.pending = self
        self.held.put(call)

    def cancelled(self) -> None:
        self.cancelled_calls.put(None)


class Told:
    """How a call ended."""

    def __init__(self) -> None:
        self.outcomes: SimpleQueue[bytes | Status] = SimpleQueue()

    def replied(self, message: bytes) -> None:
        self.outcomes.put(message)

    def ended(self, status: Status) -> None:
        self.outcomes.put(status)

    @property
    def outcome(self) -> bytes | Status:
        return self.outcomes.get(timeout=TIMEOUT_S)


Run = Callable[[Callable[[CallMaker], Any]], Any]


@pytest.fixture(scope="module")
def handlers() -> Handlers:
    return Handlers()


@pytest.fixture(scope="module", params=["native", "direct"])
def run(request: pytest.FixtureRequest, handlers: Handlers) -> Iterator[Run]:
    """Runs something with a caller on its reactor's thread."""
    if request.param == "direct":
        caller = DirectCalls(handlers.methods())
        yield lambda act: act(caller)
        return
    with running("native", Service(), more=handlers.methods()) as (transport, _):

        def on_reactor(act: Callable[[CallMaker], Any]) -> Any:
            done: SimpleQueue[Any] = SimpleQueue()
            transport.post(lambda: done.put(act(transport)))
            return done.get(timeout=TIMEOUT_S)

        yield on_reactor


def begun(run: Run, method: str, message: bytes = b"", **more: Any) -> tuple[Told, Cancellable | None]:
    told = Told()
    call = run(
        lambda caller: caller.begin(PATH + method, message, more.get("metadata", ()), told, more.get("peer", ()))
    )
    return told, call


@pytest.mark.parametrize("message", [b"", b"abc", b"x" * 100_000, b"trailers"])
def test_a_call_is_answered(run: Run, handlers: Handlers, message: bytes) -> None:
    handlers.seen = SimpleQueue()
    told, _ = begun(run, "Echo", message, metadata=[("authorization", "Bearer é")], peer=("cn:shop",))
    assert told.outcome == message[::-1]
    assert handlers.seen.get(timeout=TIMEOUT_S) == ([("authorization", "Bearer é")], ("cn:shop",))


@pytest.mark.parametrize(
    ("method", "code", "details"),
    [
        ("Fail", StatusCode.INVALID_ARGUMENT, "not so: 100 % é"),
        ("Bug", StatusCode.INTERNAL, "internal error"),
        ("Nothing", StatusCode.UNIMPLEMENTED, "this method is not served"),
    ],
)
def test_a_call_that_fails_ends_with_its_status(run: Run, method: str, code: StatusCode, details: str) -> None:
    told, _ = begun(run, method, "not so: 100 % é".encode())
    outcome = told.outcome
    assert isinstance(outcome, Status)
    assert (outcome.code, outcome.details) == (code, details)


def test_an_answer_may_come_later(run: Run, handlers: Handlers) -> None:
    first, _ = begun(run, "Hold")
    second, _ = begun(run, "Hold")
    calls = [handlers.held.get(timeout=TIMEOUT_S) for _ in range(2)]
    run(lambda _: calls[1].finish(b"2"))
    run(lambda _: calls[0].fail(PenstockError()))
    assert second.outcome == b"2"
    assert isinstance(first.outcome, Status)


def test_a_call_that_is_given_up_is_told_to_its_handler_and_to_nobody_else(run: Run, handlers: Handlers) -> None:
    told, call = begun(run, "Hold")
    held = handlers.held.get(timeout=TIMEOUT_S)
    assert call is not None
    run(lambda _: call.cancelled())
    handlers.cancelled_calls.get(timeout=TIMEOUT_S)
    run(lambda _: held.finish(b"too late"))
    again, _ = begun(run, "Echo", b"ab")  # which may have the slot that was free
    assert again.outcome == b"ba"
    assert told.outcomes.empty()


def test_many_calls_at_once_get_their_own_answers(run: Run) -> None:
    told = run(
        lambda caller: [
            (number, outcome := Told(), caller.begin(PATH + "Echo", b"%d" % number, (), outcome))
            for number in range(3000)
        ]
    )
    assert all(outcome.outcome == (b"%d" % number)[::-1] for number, outcome, _ in told)
    assert threading.active_count() < 50
