"""The REST port with its kernels, over the native transport and real sockets: what they answer, and what they leave."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, Final

import numpy as np
import pytest

from penstock import inference_pb2 as pb
from penstock_server.call import Call
from penstock_server.errors import InvalidInputError, PenstockError
from penstock_server.kernels import compiled
from penstock_server.prediction.encode import ReplyEncoder, TensorInfo, encoded_id
from penstock_server.rest.forms import Forms
from penstock_server.rest.kernel_set import KERNELS
from penstock_server.rest.routes import Routes
from penstock_server.rest.server import IDLE_S, REQUEST_S, SWEEP_S, HttpExchange, RestServer
from penstock_server.rest.signatures import Signatures
from penstock_server.transport.interface import Methods
from penstock_server.transport.kernel_set import KERNELS as TRANSPORT_KERNELS
from penstock_server.transport.local import DirectCalls
from penstock_server.transport.native import NativeTransport
from penstock_server.transport.shared_port import SharedPort
from tests.server.transport.test_transports import TIMEOUT_S, Service, running

INFER: Final = "/inference.GRPCInferenceService/ModelInfer"
WIDTH: Final = 40
"""Of an answer, so that some fill a small buffer."""


class Model:
    """Answers each row with its own numbers, or does what a test says instead."""

    def __init__(self) -> None:
        self.encoder = ReplyEncoder(("m", "1"), "champion", (TensorInfo("y", "FP32", (-1, WIDTH)),))
        self.instead: Callable[[Call], bool] | None = None
        self.seen: SimpleQueue[Call] = SimpleQueue()
        self.metadata: list[Any] = []
        self.cancelled_calls: SimpleQueue[None] = SimpleQueue()

    def infer(self, message: bytes, call: Call) -> None:
        request = pb.ModelInferRequest.FromString(message)
        self.metadata = list(call.metadata())
        values = np.frombuffer(request.raw_input_contents[0], "<f4")
        answer = self.reply(values, request.id)
        if self.instead is None or not self.instead(call):
            call.finish(answer)
        self.seen.put(call)

    def reply(self, values: Any, request_id: str = "") -> bytes:
        rows = np.resize(values, (1, WIDTH)).astype("<f4")
        return self.encoder.batch([rows], 1, 0.0).reply(0, 1, encoded_id(request_id), None, 1)

    def hold(self, call: Call) -> bool:
        call.pending = self
        return True

    def cancelled(self) -> None:
        self.cancelled_calls.put(None)


class World:
    """A port whose model is the test's."""

    def __init__(self, transport: NativeTransport, model: Model) -> None:
        self.transport = transport
        self.model = model
        self.later_s = 0.0
        self.python: list[HttpExchange] = []
        self.refused: list[PenstockError] = []
        self.port = SharedPort.bind("127.0.0.1:0")
        self.forms = Forms(compiled.library(KERNELS), transport)
        direct = DirectCalls(Methods({}, {}))
        self.routes = Routes(
            transport, Signatures(direct, lambda: None), post=transport.post, most_bytes=1 << 20, forms=self.forms
        )
        self.server = RestServer(
            self.port,
            self._answer,
            most_bytes=1 << 20,
            refused=self.refused.append,
            forms=self.forms,
            adopt=self.routes.adopt,
            clock=lambda: time.monotonic() + self.later_s,
        )
        self.server.listen()

    def _answer(self, exchange: HttpExchange) -> None:
        self.python.append(exchange)
        self.routes.answer(exchange)

    def on_reactor(self, act: Callable[[], Any]) -> Any:
        done: SimpleQueue[Any] = SimpleQueue()
        self.transport.post(lambda: done.put(act()))
        return done.get(timeout=TIMEOUT_S)

    def pass_s(self, seconds: float) -> None:
        def look() -> None:
            self.later_s += seconds
            self.server.look_after()
            self.later_s += SWEEP_S
            self.server.look_after()

        self.on_reactor(look)

    def connect(self, *, buffer_bytes: int = 0) -> "Caller":
        connection = socket.socket()
        if buffer_bytes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        connection.settimeout(TIMEOUT_S)
        connection.connect(("127.0.0.1", self.port.number))
        return Caller(connection)

    def learn(self, caller: "Caller", **more: Any) -> None:
        """Has kernels learn of the requests that `Caller` sends."""
        for number in range(3):
            assert caller.ask(number, **more) == number
        self.python.clear()
        while not self.model.seen.empty():
            self.model.seen.get()


def request_of(number: float, *, request_id: str = "", headers: str = "") -> bytes:
    body: dict[str, Any] = {"id": request_id} if request_id else {}
    body["inputs"] = [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [float(number), 0.5]}]
    encoded = json.dumps(body).encode()
    head = f"POST /v2/models/m/infer HTTP/1.1\r\nHost: a\r\n{headers}Content-Length: {len(encoded)}\r\n\r\n"
    return head.encode() + encoded


class Caller:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.rest = b""

    def send(self, number: float, **more: Any) -> None:
        self.socket.sendall(request_of(number, **more))

    def receive(self) -> tuple[int, Any]:
        """The next answer: its status, and what its JSON says."""
        while b"\r\n\r\n" not in self.rest:
            self._more()
        head, _, body = self.rest.partition(b"\r\n\r\n")
        size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        while len(body) < size:
            self._more()
            body = self.rest.partition(b"\r\n\r\n")[2]
        self.rest = body[size:]
        return int(head.split()[1]), json.loads(body[:size])

    def _more(self) -> None:
        part = self.socket.recv(1 << 16)
        assert part, self.rest
        self.rest += part

    def number(self) -> float:
        status, answer = self.receive()
        assert status == 200, answer
        number: float = answer["outputs"][0]["data"][0]
        return number

    def ask(self, number: float, **more: Any) -> float:
        self.send(number, **more)
        return self.number()

    def is_ended(self) -> bool:
        try:
            return self.socket.recv(1) == b""
        except ConnectionError:
            return True

    def close(self) -> None:
        self.socket.close()


@pytest.fixture(scope="module", autouse=True)
def _compiled() -> None:
    compiled.ensure_compiled(TRANSPORT_KERNELS)


@contextmanager
def opened() -> Iterator[World]:
    model = Model()
    with running("native", Service(), more=Methods({INFER: model.infer}, {})) as (transport, _):
        assert isinstance(transport, NativeTransport)
        ready: SimpleQueue[World] = SimpleQueue()

        def build() -> None:
            world = World(transport, model)
            transport.take_in(world.server)
            ready.put(world)

        transport.post(build)
        yield ready.get(timeout=TIMEOUT_S)


@pytest.fixture
def world() -> Iterator[World]:
    with opened() as made:
        yield made


@pytest.fixture
def caller(world: World) -> Iterator[Caller]:
    connected = world.connect()
    yield connected
    connected.close()


def test_requests_that_are_alike_are_answered_by_kernels(world: World, caller: Caller) -> None:
    world.learn(caller)
    others = [world.connect() for _ in range(20)]
    for number in (-1.25, 0.1, 3e-9, 12345678.0):
        for each in [caller, *others]:
            each.send(number)
        for each in [caller, *others]:
            assert each.number() == float(np.float32(number))
    assert world.python == []
    for each in others:
        each.close()


def test_the_answers_of_kernels_are_those_of_python(world: World, caller: Caller) -> None:
    answers = []
    for _ in range(4):
        caller.send(0.75, request_id="a-1")
        answers.append(caller.receive())
    assert len(world.python) == 2
    assert all(answer == answers[0] for answer in answers)
    assert answers[0][1]["id"] == "a-1"


@pytest.mark.parametrize("size", [1, 7, 100])
def test_requests_come_in_parts(world: World, caller: Caller, size: int) -> None:
    world.learn(caller)
    caller.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    raw = request_of(5)
    for at in range(0, len(raw), size):
        caller.socket.sendall(raw[at : at + size])
    assert caller.number() == 5
    assert world.python == []


def test_a_form_is_learnt_of_requests_in_two_parts(world: World, caller: Caller) -> None:
    for _ in range(3):
        head, found, body = request_of(5).partition(b"\r\n\r\n")
        seen = len(world.python)
        caller.socket.sendall(head + found)
        world.on_reactor(lambda: None)
        caller.socket.sendall(body)
        assert caller.number() == 5
    assert seen == 2
    assert len(world.python) == 2


def test_requests_that_come_together_are_answered_in_their_order(world: World, caller: Caller) -> None:
    world.learn(caller)
    for _ in range(3):
        caller.socket.sendall(b"".join(map(request_of, range(5))))
        assert [caller.number() for _ in range(5)] == [0, 1, 2, 3, 4]


def test_a_request_behind_one_that_kernels_have_is_answered_after_it(world: World, caller: Caller) -> None:
    world.learn(caller)
    world.model.instead = world.model.hold
    caller.send(1)
    held = world.model.seen.get(timeout=TIMEOUT_S)
    world.model.instead = None
    caller.send(2)
    world.model.seen.get(timeout=TIMEOUT_S)
    held.finish(world.model.reply([1.0]))
    assert [caller.number(), caller.number()] == [1, 2]
    assert len(world.python) == 1
    assert caller.ask(3) == 3
    assert len(world.python) == 1


def test_a_caller_that_leaves_gives_its_call_up(world: World, caller: Caller) -> None:
    world.learn(caller)
    world.model.instead = world.model.hold
    caller.send(1)
    held = world.model.seen.get(timeout=TIMEOUT_S)
    caller.close()
    world.model.cancelled_calls.get(timeout=TIMEOUT_S)
    held.finish(world.model.reply([1.0]))  # nobody gets it
    world.model.instead = None
    other = world.connect()
    assert other.ask(2) == 2
    other.close()


def test_an_error_is_answered_and_the_connection_goes_on(world: World, caller: Caller) -> None:
    world.learn(caller)

    def fail(_call: Call) -> bool:
        raise InvalidInputError("not so")

    world.model.instead = fail
    caller.send(1)
    assert caller.receive() == (400, {"error": "not so"})
    world.model.instead = None
    assert caller.ask(2) == 2
    assert world.python == []


def test_a_reply_that_kernels_cannot_write_is_written_by_python(world: World, caller: Caller) -> None:
    world.learn(caller)

    def finish(call: Call) -> bool:
        call.finish(world.model.reply([np.nan, 1.0]))
        return True

    world.model.instead = finish
    caller.send(1)
    status, answer = caller.receive()
    assert (status, answer["outputs"][0]["data"][:2]) == (200, ["NaN", 1.0])
    world.model.instead = None
    assert caller.ask(2) == 2


def test_what_kernels_do_not_know_is_python_s(world: World, caller: Caller) -> None:
    world.learn(caller)
    caller.socket.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n" + request_of(7))
    while b"ok\n" not in caller.rest:
        caller._more()
    caller.rest = caller.rest.partition(b"ok\n")[2]
    assert caller.number() == 7
    assert caller.ask(8) == 8
    assert len(world.python) == 2


@pytest.mark.parametrize("kept", [0, 1, 10, 40, -1])
def test_a_body_that_ends_too_soon_is_refused_at_once(world: World, caller: Caller, kept: int) -> None:
    """It begins as one that is known, and its length says that nothing more comes."""
    world.learn(caller)
    head, _, body = request_of(7).partition(b"\r\n\r\n")
    beginning = body[:kept]
    length = str(len(beginning)).encode()
    caller.socket.sendall(head.partition(b"Content-Length")[0] + b"Content-Length: " + length + b"\r\n\r\n" + beginning)
    status, _ = caller.receive()
    assert status == 400
    assert caller.ask(8) == 8


def test_the_headers_that_methods_see_are_those_of_the_request(world: World, caller: Caller) -> None:
    traces = [f"00-{number:032x}-{number:016x}-01" for number in range(1, 6)]
    for trace in traces:
        headers = f"Authorization: Bearer x\r\nTraceparent: {trace}\r\nTracestate: a=b\r\n"
        assert caller.ask(1, headers=headers) == 1
        assert world.model.metadata == [("authorization", "Bearer x"), ("traceparent", trace), ("tracestate", "a=b")]
    assert len(world.python) == 2


def test_a_caller_that_reads_late_gets_every_answer_whole(world: World) -> None:
    caller = world.connect(buffer_bytes=2048)
    world.learn(caller)

    def shrink() -> Any:
        (connection,) = world.server._connections.values()
        connection._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        return connection

    connection = world.on_reactor(shrink)
    sent = 0
    while sent < 200 and not connection._unsent:
        caller.send(sent)
        world.model.seen.get(timeout=TIMEOUT_S)
        world.on_reactor(lambda: None)
        world.on_reactor(lambda: None)
        sent += 1
    assert connection._unsent
    assert world.python == []  # it was kernels that could not send it
    assert [caller.number() for _ in range(sent)] == list(range(sent))
    assert caller.ask(-1) == -1
    assert world.python == []
    caller.close()


def test_a_request_that_does_not_come_to_its_end_is_refused(world: World, caller: Caller) -> None:
    world.learn(caller)
    caller.socket.sendall(request_of(1)[:-5])
    world.on_reactor(lambda: None)
    world.on_reactor(lambda: None)
    world.pass_s(REQUEST_S + 1)
    assert caller.receive()[0] == 408
    assert caller.is_ended()


def test_idle_connections_end_and_those_that_wait_do_not(world: World, caller: Caller) -> None:
    world.learn(caller)
    world.pass_s(IDLE_S - 5)
    assert caller.ask(1) == 1
    waiting = world.connect()
    world.model.instead = world.model.hold
    waiting.send(2)
    while world.model.seen.get(timeout=TIMEOUT_S).is_over:
        pass
    world.pass_s(IDLE_S + 5)
    assert caller.is_ended()
    assert world.server.connections == 1
    waiting.close()
    world.model.cancelled_calls.get(timeout=TIMEOUT_S)


def test_what_runs_is_answered_when_the_port_drains(world: World, caller: Caller) -> None:
    world.learn(caller)
    world.model.instead = world.model.hold
    caller.send(1)
    held = world.model.seen.get(timeout=TIMEOUT_S)
    begun = world.connect()
    begun.socket.sendall(request_of(2)[:50])
    for _ in range(3):
        world.on_reactor(lambda: None)
    world.on_reactor(world.server.begin_drain)
    assert not world.server.drained.is_set()
    begun.socket.sendall(request_of(2)[50:])
    assert begun.receive() == (503, {"error": "the server is shutting down"})
    assert begun.is_ended()
    held.finish(world.model.reply([1.0]))
    assert caller.number() == 1
    assert caller.is_ended()
    begun.close()
    assert world.server.drained.wait(TIMEOUT_S)


def test_what_still_runs_is_ended_with_an_error(world: World, caller: Caller) -> None:
    world.learn(caller)
    world.model.instead = world.model.hold
    caller.send(1)
    world.model.seen.get(timeout=TIMEOUT_S)
    world.on_reactor(world.server.begin_drain)
    world.on_reactor(world.server.give_up)
    assert caller.receive() == (503, {"error": "the server is shutting down"})
    world.model.cancelled_calls.get(timeout=TIMEOUT_S)
