"""The REST port over real sockets, with a handler that the test answers for; its turns are the test's."""

import select
import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from penstock_server.errors import NotFoundError, PenstockError, UnavailableError
from penstock_server.rest.answers import Answer
from penstock_server.rest.http import BadRequestError, Request, RequestReader
from penstock_server.rest.server import (
    ANSWER_S,
    IDLE_S,
    LINGER_S,
    PACKED_FROM_BYTES,
    PIPELINED,
    REQUEST_S,
    SWEEP_S,
    UNSENT_BYTES,
    HttpExchange,
    RestServer,
)
from penstock_server.transport.shared_port import SharedPort
from tests.server.conftest import FakeClock

WAIT_S = 10.0
GET = b"GET /%d HTTP/1.1\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\n"


class Cancelled:
    """What waits on behalf of a caller."""

    def __init__(self) -> None:
        self.count = 0

    def cancelled(self) -> None:
        self.count += 1


class Port:
    """A server, its clock, and what came."""

    def __init__(self, *, connections: int = 8, most_bytes: int = 1000, at: int = 0, is_listening: bool = True) -> None:
        self.clock = FakeClock()
        self.exchanges: list[HttpExchange] = []
        self.refused: list[PenstockError] = []
        self.handler: Callable[[HttpExchange], None] = self.exchanges.append
        self.port = SharedPort.bind(f"127.0.0.1:{at}")
        self.server = RestServer(
            self.port,
            self._handle,
            most_bytes=most_bytes,
            refused=self.refused.append,
            connections=connections,
            clock=self.clock,
        )
        if is_listening:
            self.server.listen()

    def _handle(self, exchange: HttpExchange) -> None:
        self.handler(exchange)

    def connect(self) -> socket.socket:
        caller = socket.create_connection(("127.0.0.1", self.port.number), timeout=WAIT_S)
        self.turn()
        return caller

    def turn(self) -> None:
        """The next turn in which something is there."""
        ready, _, _ = select.select([self.server.descriptor], [], [], WAIT_S)
        assert ready
        self.server.turn()

    def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self.turn()

    def pass_s(self, seconds: float) -> None:
        self.clock.now += seconds
        self.server.look_after()
        self.clock.now += SWEEP_S
        self.server.look_after()


@pytest.fixture
def port() -> Iterator[Port]:
    opened = Port()
    yield opened
    opened.server.close()


def received(caller: socket.socket, ending: bytes) -> bytes:
    data = b""
    while not data.endswith(ending):
        part = caller.recv(1 << 16)
        assert part, data
        data += part
    return data


def is_ended(caller: socket.socket) -> bool:
    try:
        return caller.recv(1 << 16) == b""
    except ConnectionError:
        return True


def test_a_port_at_which_another_has_come_to_listen_is_told() -> None:
    late = Port(is_listening=False)
    number = late.port.number
    other = Port(at=number)
    try:
        with pytest.raises(
            UnavailableError, match=rf"^cannot listen on the REST port {number}: Address already in use$"
        ):
            late.server.listen()
    finally:
        other.server.close()
        late.server.close()


def test_requests_are_answered_in_their_order_whenever_the_answers_come(port: Port) -> None:
    with port.connect() as caller:
        caller.sendall(GET % 1 + GET % 2 + GET % 3)
        port.until(lambda: len(port.exchanges) == 3)
        first, second, third = port.exchanges
        third.answer(Answer(b"3"))
        second.answer(Answer(b"2"))
        first.answer(Answer(b"1"))
        data = received(caller, b"3")
        assert [data.find(body) for body in (b"\r\n\r\n1", b"\r\n\r\n2", b"\r\n\r\n3")] == sorted(
            data.find(body) for body in (b"\r\n\r\n1", b"\r\n\r\n2", b"\r\n\r\n3")
        )


def test_what_a_handler_raises_is_the_answer(port: Port) -> None:
    def raising(exchange: HttpExchange) -> None:
        kind = exchange.request.target
        raise {b"/1": NotFoundError("no"), b"/2": BadRequestError(405, "not so", more=b"allow: GET\r\n")}.get(
            kind, ZeroDivisionError()
        )

    port.handler = raising
    with port.connect() as caller:
        for number, expected in ((1, b"404"), (2, b"405"), (3, b"500")):
            caller.sendall(GET % number)
            port.turn()
            assert received(caller, b"}").startswith(b"HTTP/1.1 " + expected)
        assert [type(error).__name__ for error in port.refused] == ["NotFoundError", "InvalidInputError"]


def test_a_caller_that_leaves_gives_up_what_waits(port: Port) -> None:
    caller = port.connect()
    caller.sendall(GET % 1 + GET % 2)
    port.until(lambda: len(port.exchanges) == 2)
    waits = [Cancelled(), Cancelled()]
    for exchange, pending in zip(port.exchanges, waits, strict=True):
        exchange.pending = pending
    port.exchanges[1].answer(Answer(b"2"))  # which waits for the first
    caller.close()
    port.turn()
    assert [pending.count for pending in waits] == [1, 0]
    port.exchanges[0].answer(Answer(b"1"))  # too late, and nothing happens


def test_what_cannot_be_read_is_answered_behind_what_came_before(port: Port) -> None:
    with port.connect() as caller:
        caller.sendall(GET % 1 + b"nonsense\r\n\r\n")
        port.turn()
        port.exchanges[0].answer(Answer(b"1"))
        data = received(caller, b"}")
        assert data.index(b"\r\n\r\n1HTTP/1.1 400") < data.index(b"connection: close")
        assert data.count(b"connection: close") == 1
        assert is_ended(caller)
        caller.sendall(b"more")  # it is taken, so that what was said can be read
        port.turn()
        port.pass_s(LINGER_S)
        assert not port.server.connections


def test_a_grpc_client_is_turned_away_at_once(port: Port) -> None:
    with port.connect() as caller:
        caller.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(20))
        port.turn()
        assert is_ended(caller)


def test_a_body_is_asked_for_when_its_caller_waits(port: Port) -> None:
    with port.connect() as caller:
        caller.sendall(b"POST / HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        port.turn()
        assert received(caller, b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        caller.sendall(b"ab")
        port.turn()
        assert port.exchanges[0].request.body == b"ab"


def test_a_connection_ends_after_its_last_answer(port: Port) -> None:
    with port.connect() as caller:
        caller.sendall(b"GET /1 HTTP/1.1\r\nConnection: close\r\n\r\n" + GET % 2)
        port.turn()
        (exchange,) = port.exchanges
        exchange.answer(Answer(b"1"))
        assert b"connection: close" in received(caller, b"1")
        assert is_ended(caller)


@pytest.mark.parametrize("body", [b"", b"abc"])
def test_half_a_request_has_its_time(port: Port, body: bytes) -> None:
    with port.connect() as caller:
        caller.sendall(POST + body)
        port.turn()
        port.pass_s(REQUEST_S)
        assert received(caller, b"}").startswith(b"HTTP/1.1 408")
        assert is_ended(caller)


def test_an_idle_connection_has_its_time_and_one_that_waits_for_its_answer_has_more(port: Port) -> None:
    with port.connect() as caller:
        caller.sendall(GET % 1)
        port.turn()
        port.pass_s(10 * IDLE_S)
        port.exchanges[0].answer(Answer(b"1"))
        received(caller, b"1")
        port.pass_s(IDLE_S - 1)
        caller.sendall(GET % 2)
        port.turn()
        port.exchanges[1].answer(Answer(b"2"))
        received(caller, b"2")
        port.pass_s(IDLE_S)
        assert is_ended(caller)


def test_a_caller_that_reads_nothing_has_its_time_and_is_read_no_further(port: Port) -> None:
    with port.connect() as caller:
        caller.sendall(GET % 1)
        port.turn()
        port.exchanges[0].answer(Answer(b"a" * (20 * UNSENT_BYTES), 200, b"text/plain"))
        caller.sendall(GET % 2)
        port.server.turn()
        assert len(port.exchanges) == 1
        port.pass_s(ANSWER_S)
        with pytest.raises((AssertionError, ConnectionError)):
            received(caller, b"the end")  # it is cut


def test_a_large_answer_is_sent_as_there_is_room(port: Port) -> None:
    with port.connect() as caller:
        caller.sendall(GET % 1)
        port.turn()
        body = b"a" * (8 * UNSENT_BYTES) + b"end"
        port.exchanges[0].answer(Answer(body, 200, b"text/plain"))
        data = b""
        caller.setblocking(False)
        while not data.endswith(b"end"):
            ready, _, _ = select.select([caller, port.server.descriptor], [], [], WAIT_S)
            if port.server.descriptor in ready:
                port.server.turn()
            if caller in ready:
                data += caller.recv(1 << 20)
        assert data.endswith(body)


def test_a_flood_of_requests_waits_for_its_answers(port: Port) -> None:
    with port.connect() as caller:
        for number in range(PIPELINED):
            caller.sendall(GET % number)
            port.until(lambda number=number: len(port.exchanges) == number + 1)  # type: ignore[misc]
        caller.sendall(GET % 99)
        port.server.turn()
        assert len(port.exchanges) == PIPELINED
        for exchange in tuple(port.exchanges):
            exchange.answer(Answer(b"x"))
        port.until(lambda: len(port.exchanges) == PIPELINED + 1)


def test_an_answer_is_packed_for_those_who_take_it(port: Port) -> None:
    with port.connect() as caller:
        for accepted, is_packed in ((b"gzip", True), (b"identity", False)):
            caller.sendall(b"GET / HTTP/1.1\r\nAccept-Encoding: %b\r\n\r\n" % accepted)
            port.turn()
            port.exchanges.pop().answer(Answer(b"a" * PACKED_FROM_BYTES))
            data = caller.recv(1 << 16)
            assert (b"content-encoding: gzip" in data) == is_packed
            assert (len(data) < PACKED_FROM_BYTES) == is_packed


def test_head_has_the_head_alone(port: Port) -> None:
    with port.connect() as caller:
        caller.sendall(b"HEAD / HTTP/1.1\r\n\r\n")
        port.turn()
        port.exchanges[0].answer(Answer(b"abc"))
        assert b"content-length: 3" in received(caller, b"\r\n\r\n")


def test_an_idle_connection_gives_way_to_a_new_one() -> None:
    port = Port(connections=2)
    try:
        first, second = port.connect(), port.connect()
        first.sendall(GET % 1)
        port.turn()
        with port.connect() as third:
            assert is_ended(second)
            third.sendall(GET % 2)
            port.turn()
            assert len(port.exchanges) == 2
            with socket.create_connection(("127.0.0.1", port.port.number), timeout=WAIT_S) as fourth:
                port.turn()
                assert is_ended(fourth)  # both others wait for answers
        first.close()
        second.close()
    finally:
        port.server.close()


def test_draining_answers_what_runs_and_refuses_what_comes(port: Port) -> None:
    with port.connect() as idle, port.connect() as busy:
        busy.sendall(GET % 1)
        port.turn()
        number = port.port.number
        port.server.begin_drain()
        assert is_ended(idle)
        assert not port.server.drained.is_set()
        port.exchanges[0].answer(Answer(b"1"))
        assert b"connection: close" in received(busy, b"1")
        assert port.server.drained.is_set()
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", number), timeout=WAIT_S)


def test_a_request_that_comes_while_the_port_drains_is_refused_in_words(port: Port) -> None:
    with port.connect() as caller:
        caller.sendall(POST)
        port.turn()
        port.server.begin_drain()
        caller.sendall(b"hello")
        port.turn()
        data = received(caller, b"}")
        assert data.startswith(b"HTTP/1.1 503 ")
        assert b"connection: close" in data
        assert port.server.drained.is_set()
        assert [type(error).__name__ for error in port.refused] == ["UnavailableError"]


def test_a_bug_that_a_connection_brings_about_ends_that_one_alone(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_reader: RequestReader, _data: bytes) -> list[Request]:
        raise ZeroDivisionError

    with port.connect() as other:
        with monkeypatch.context() as patch:
            patch.setattr(RequestReader, "receive", broken)
            with port.connect() as caller:
                caller.sendall(GET % 1)
                port.turn()
                assert is_ended(caller)
        other.sendall(GET % 2)
        port.turn()
        assert port.exchanges[0].request.target == b"/2"


def test_answers_that_are_given_up_after_their_caller_has_left_are_nobody_s(port: Port) -> None:
    """The first one cannot be sent, which ends the connection before the second one is given up."""
    caller = port.connect()
    caller.sendall(GET % 1 + GET % 2)
    port.until(lambda: len(port.exchanges) == 2)
    pending = port.exchanges[1].pending = Cancelled()
    caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    caller.close()  # with a reset
    port.server.begin_drain()
    port.server.give_up()
    assert pending.count == 1
    assert port.server.drained.is_set()
    port.exchanges[1].answer(Answer(b"too late"))


def test_what_is_not_answered_in_time_is_given_up_in_words(port: Port) -> None:
    with port.connect() as caller:
        caller.sendall(GET % 1)
        port.turn()
        pending = port.exchanges[0].pending = Cancelled()
        port.server.begin_drain()
        port.server.give_up()
        data = received(caller, b"}")
        assert data.startswith(b"HTTP/1.1 503")
        assert b"shutting down" in data
        assert pending.count == 1
        assert port.server.drained.is_set()


def test_bodies_that_are_not_whole_are_bounded_together(port: Port, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port.server, "_most_held", 8)
    with port.connect() as first, port.connect() as second:
        first.sendall(POST + b"abcd")
        port.turn()
        second.sendall(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n" + b"efghi")
        port.turn()
        assert is_ended(second)
        first.sendall(b"e")
        port.turn()
        assert port.exchanges[0].request.body == b"abcde"
