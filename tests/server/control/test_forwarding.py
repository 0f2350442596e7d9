import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from penstock_server.control import forwarding
from penstock_server.control.forwarding import MAX_WAITING, REPLIES_AT_ONCE, ControlResponder, ForwardedCalls, error_of
from penstock_server.control.messages import ControlError, ControlReply, ControlRequest, Event
from penstock_server.control.worker_link import WorkerLink
from penstock_server.errors import InvalidInputError, NotFoundError, OverloadedError, PenstockError


def missing(_body: bytes) -> bytes:
    raise NotFoundError("no model 'm'")


def broken(_body: bytes) -> bytes:
    raise RuntimeError("secret")


RESPONDER = ControlResponder({"Echo": lambda body: body + b"!", "Missing": missing, "Broken": broken})


@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("Echo", ControlReply(7, b"a!")),
        ("Missing", ControlError(7, "NotFoundError", "no model 'm'")),
        ("Other", ControlError(7, "UnsupportedError", "this server has no control method 'Other'")),
        ("Broken", ControlError(7, "PenstockError", "the control request failed")),
    ],
)
def test_every_request_has_a_reply(method: str, expected: ControlReply | ControlError) -> None:
    assert RESPONDER.reply_to(ControlRequest(7, method, b"a")) == expected


def test_a_reply_fits_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forwarding, "MAX_REPLY_BYTES", 3)
    assert RESPONDER.reply_to(ControlRequest(1, "Echo", b"ab")) == ControlReply(1, b"ab!")
    error = RESPONDER.reply_to(ControlRequest(1, "Echo", b"abc"))
    assert error == ControlError(1, "InvalidInputError", "the reply takes 4 bytes, at most 3; ask for less")


async def test_replies_are_made_on_a_few_threads_and_sent_on_the_loop() -> None:
    threads: list[threading.Thread] = []
    sent: list[tuple[ControlReply | ControlError, threading.Thread]] = []
    together = threading.Barrier(REPLIES_AT_ONCE)

    def slow(body: bytes) -> bytes:
        threads.append(threading.current_thread())
        together.wait(10)  # goes on when two are made at once
        return body

    responder = ControlResponder({"Slow": slow})
    for number in range(2 * REPLIES_AT_ONCE):
        responder.respond(
            ControlRequest(number, "Slow", b"x"), lambda reply: sent.append((reply, threading.current_thread()))
        )
    assert sent == []
    await asyncio.wait_for(responder.close(), 10)
    assert sorted(reply.number for reply, _ in sent) == list(range(2 * REPLIES_AT_ONCE))
    assert all(isinstance(reply, ControlReply) for reply, _ in sent)
    assert {thread for _, thread in sent} == {threading.current_thread()}
    assert threading.current_thread() not in threads


async def test_a_waiter_answers_on_the_loop_and_holds_up_no_thread() -> None:
    is_there = asyncio.Event()
    sent: asyncio.Queue[ControlReply | ControlError] = asyncio.Queue()

    async def wait(body: bytes) -> bytes:
        await is_there.wait()
        if not body:
            raise NotFoundError("no model ''")
        if body == b"bug":
            raise RuntimeError("secret")
        return body

    responder = ControlResponder({"Echo": lambda body: body}, {"Wait": wait})
    for number, body in enumerate([b"a", b"", b"bug"] + [b"a"] * REPLIES_AT_ONCE):
        responder.respond(ControlRequest(number, "Wait", body), sent.put_nowait)
    responder.respond(ControlRequest(9, "Echo", b"x"), sent.put_nowait)
    async with asyncio.timeout(10):
        assert await sent.get() == ControlReply(9, b"x")
        is_there.set()
        found = [await sent.get() for _ in range(3)]
    assert found == [
        ControlReply(0, b"a"),
        ControlError(1, "NotFoundError", "no model ''"),
        ControlError(2, "PenstockError", "the control request failed"),
    ]
    await responder.close()


async def test_what_waits_ends_with_the_responder() -> None:
    async def forever(_body: bytes) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    responder = ControlResponder({}, {"Wait": forever})
    sent: list[Any] = []
    responder.respond(ControlRequest(1, "Wait", b""), sent.append)
    async with asyncio.timeout(10):
        await responder.close()
    assert sent == []


class Supervisor:
    """What forwarded calls see of the supervisor and of the reactor, which here acts when it is told to."""

    def __init__(self) -> None:
        self.requests: list[Event] = []
        self.posted: list[Callable[[], None]] = []
        self.calls = ForwardedCalls(self.requests.append, self.posted.append)

    def forward(self, message: bytes, call: Any) -> None:
        self.calls.forward("DriftState", message, call)

    def reply(self, reply: ControlReply | ControlError) -> None:
        self.calls.on_reply(reply)
        while self.posted:
            self.posted.pop(0)()


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    one = Supervisor()
    yield one
    one.calls.close()


def test_a_reply_finds_its_call(supervisor: Supervisor, fake_call: Any) -> None:
    calls = [fake_call(), fake_call()]
    for call, message in zip(calls, [b"a", b"b"], strict=True):
        supervisor.calls.forward("DriftState", message, call)
    supervisor.calls.close()
    assert supervisor.requests == [ControlRequest(1, "DriftState", b"a"), ControlRequest(2, "DriftState", b"b")]
    assert all(call.is_watched for call in calls)
    supervisor.reply(ControlReply(2, b"B"))
    assert (calls[1].answer, calls[0].answers, calls[1].pending) == (b"B", [], None)
    supervisor.reply(ControlError(1, "NotFoundError", "no model 'm'"))
    assert (type(calls[0].answer), str(calls[0].answer)) == (NotFoundError, "no model 'm'")


def test_a_reply_waits_for_the_reactor(supervisor: Supervisor, fake_call: Any) -> None:
    call = fake_call()
    supervisor.calls.forward("DriftState", b"", call)
    supervisor.calls.on_reply(ControlReply(1, b"A"))
    assert call.answers == []
    supervisor.posted.pop()()
    assert call.answer == b"A"


def test_a_caller_that_left_is_forgotten(supervisor: Supervisor, fake_call: Any) -> None:
    call = fake_call()
    supervisor.calls.forward("DriftState", b"", call)
    call.leave()
    supervisor.reply(ControlReply(1, b"late"))
    supervisor.reply(ControlReply(77, b"never requested"))
    assert (call.answers, call.late_answers) == ([], 0)


def test_only_a_bounded_number_of_calls_waits(supervisor: Supervisor, fake_call: Any) -> None:
    calls = [fake_call() for _ in range(MAX_WAITING)]
    for call in calls:
        supervisor.calls.forward("DriftState", b"", call)
    with pytest.raises(OverloadedError, match=f"{MAX_WAITING} control calls wait for the supervisor already"):
        supervisor.calls.forward("DriftState", b"", fake_call())
    calls[3].leave()
    with pytest.raises(OverloadedError):  # the supervisor works on it all the same
        supervisor.calls.forward("DriftState", b"", fake_call())
    supervisor.reply(ControlReply(4, b"nobody waits for it"))
    supervisor.calls.forward("DriftState", b"", fake_call())


def test_a_full_socket_holds_up_nobody(fake_call: Any) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        calls = ForwardedCalls(WorkerLink(ours).send, lambda action: action())
        taken = threading.Event()

        def reactor() -> None:
            for _ in range(MAX_WAITING):
                calls.forward("DriftState", bytes(64 * 1024), fake_call())
            taken.set()

        threading.Thread(target=reactor, daemon=True).start()
        assert taken.wait(10), "forwarding waits for a socket that nobody reads"
        theirs.settimeout(10)
        received = 0
        while received < MAX_WAITING * 64 * 1024:
            received += len(theirs.recv(1 << 20))
        calls.close()


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
