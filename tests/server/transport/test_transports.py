"""Both transports, one behaviour: unary and streaming calls, deadlines, cancellation, errors, limits, drain, TLS."""

import gc
import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import pytest

from penstock_server.call import Call
from penstock_server.control.port import reserve
from penstock_server.errors import (
    InvalidInputError,
    NotFoundError,
    OverloadedError,
    PenstockError,
    UnavailableError,
    UnsupportedError,
)
from penstock_server.transport.aio import AioTransport
from penstock_server.transport.choose import native_transport
from penstock_server.transport.completion_queue import CompletionQueueTransport
from penstock_server.transport.guest import Guest
from penstock_server.transport.interface import IDLE_S, Methods, StreamReceiver, Transport
from penstock_server.transport.native import NativeTransport
from penstock_server.transport.settings import TransportSettings
from penstock_server.transport.window import WINDOW_BYTES, WINDOW_MESSAGES

TIMEOUT_S = 10.0
KINDS: dict[str, Callable[..., Transport]] = {
    "native": native_transport,
    "completion-queue": CompletionQueueTransport,
    "aio": AioTransport,
}


class Actions:
    """A scheduler whose work is what the test hands it."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    @property
    def is_due(self) -> bool:
        return bool(self.waiting)

    def step(self) -> float:
        while self.waiting:
            self.waiting.pop(0)()
        return 0.01


class Service:
    """Methods that show what a transport does."""

    def __init__(self) -> None:
        self.scheduler = Actions()
        self.held: list[Call] = []
        self.received = threading.Semaphore(0)
        self.cancellations = threading.Semaphore(0)
        self.deadlines: list[float] = []
        self.metadata: list[dict[str, str | bytes]] = []
        self.refusals: list[PenstockError] = []
        self.receivers: list[weakref.finalize[Any, Any]] = []
        self.taken = 0
        self.taken_changed = threading.Condition()

    @property
    def methods(self) -> Methods:
        return Methods(
            {
                "/t.T/Echo": lambda message, call: call.finish(message),
                "/t.T/Later": lambda message, call: self.scheduler.waiting.append(lambda: call.finish(message)),
                "/t.T/Threaded": self.threaded,
                "/t.T/Hold": self.hold,
                "/t.T/Refuse": self.refuse,
                "/t.T/Bug": self.bug,
                "/t.T/Tell": self.tell,
            },
            {
                "/t.T/EchoAll": self.echo_all,
                "/t.T/HoldAll": self.hold_all,
                "/t.T/Count": self.count,
                "/t.T/Broken": self.broken,
                "/t.T/TellAll": self.tell_all,
                "/t.T/Swell": self.swell,
                "/t.T/Flood": self.flood,
            },
            frozenset({"/t.T/Echo"}),
        )

    def threaded(self, message: bytes, call: Call) -> None:
        threading.Thread(target=call.finish, args=(message,)).start()

    def hold(self, _message: bytes, call: Call) -> None:
        self.metadata.append(dict(call.metadata()))
        self.deadlines.append(call.deadline_s)
        call.pending = self
        call.watch()
        self.held.append(call)
        self.received.release()

    def cancelled(self) -> None:
        self.cancellations.release()

    def refuse(self, message: bytes, _call: Call) -> None:
        kinds: dict[bytes, PenstockError] = {
            b"invalid": InvalidInputError("expected 3 columns, got 2"),
            b"missing": NotFoundError("no such model"),
            b"full": OverloadedError("the queue is full"),
            b"plain": PenstockError("secret"),
            b"long": InvalidInputError("a name of " + "é" * 100_000),
            b"path": InvalidInputError("cannot read /tmp/x/model.onnx"),
            b"accents": NotFoundError("no model 'modèle 😀 100%'"),
        }
        raise kinds[message]

    def bug(self, _message: bytes, _call: Call) -> None:
        raise RuntimeError("secret")

    def tell(self, message: bytes, call: Call) -> None:
        call.headers = (("x-header", "h"), ("x-bytes-bin", bytes(3)))
        call.trailers = (("x-trailer", "t"),)
        if message.startswith(b"many"):
            call.trailers = tuple((f"x-{number}", "v" * 100) for number in range(1000))
        if message.endswith(b"fail"):
            raise OverloadedError("the queue is full")
        call.finish(message)

    def tell_all(self, call: Call) -> StreamReceiver:
        call.headers = (("x-header", "h"),)
        call.trailers = (("x-trailer", "t"),)
        return self.echo_all(call)

    def hold_all(self, call: Call) -> StreamReceiver:
        call.pending = self
        return lambda message: None if message is None else call.send(message)

    def echo_all(self, call: Call) -> StreamReceiver:
        call.pending = self
        receiver = EchoReceiver(call)
        self.receivers.append(weakref.finalize(receiver, self.received.release))
        return receiver

    def swell(self, call: Call) -> StreamReceiver:
        """Answers each message with as many bytes as it says."""

        def receive(message: bytes | None) -> None:
            if message is None:
                call.finish()
                return
            with self.taken_changed:
                self.taken += 1
                self.taken_changed.notify_all()
            call.send(bytes(int(message)))

        return receive

    def flood(self, call: Call) -> StreamReceiver:
        """Sends without being asked, as long as the call takes it."""

        def receive(_message: bytes | None) -> None:
            while not call.is_over:
                call.send(bytes(100_000))
            self.received.release()

        return receive

    def count(self, call: Call) -> StreamReceiver:
        def receive(message: bytes | None) -> None:
            if message is not None:
                for number in range(int(message)):
                    call.send(str(number).encode())
                call.finish()

        return receive

    def broken(self, call: Call) -> StreamReceiver:
        def receive(message: bytes | None) -> None:
            call.send(b"one")
            raise InvalidInputError(f"message {message!r} is wrong")

        return receive


class EchoReceiver:
    """Refers to its call, as receivers do, and to itself in no way."""

    def __init__(self, call: Call) -> None:
        self.call = call

    def __call__(self, message: bytes | None) -> None:
        if message is None:
            self.call.finish()
        elif message == b"fail":
            raise InvalidInputError("this message fails")
        else:
            self.call.send(message)


@contextmanager
def running(
    kind: str,
    service: Service,
    settings: TransportSettings | None = None,
    *,
    more: Methods | None = None,
    guest: Guest | None = None,
) -> Iterator[tuple[Transport, str]]:
    methods = service.methods if more is None else service.methods | more
    transport: Transport = KINDS[kind](
        methods, service.scheduler, settings or TransportSettings(), refused=service.refusals.append
    )
    if guest is not None:
        assert isinstance(transport, NativeTransport)
        transport.take_in(guest)
    thread = threading.Thread(target=transport.run)
    thread.start()
    with reserve("127.0.0.1", 0) as reserved:
        address = f"127.0.0.1:{reserved.getsockname()[1]}"
        try:
            transport.listen(address)
            yield transport, address
        finally:
            transport.drain(0)
            thread.join(TIMEOUT_S)
            assert not thread.is_alive()


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def channel(kind: str, service: Service) -> Iterator[grpc.Channel]:
    with running(kind, service) as (_, address), grpc.insecure_channel(address) as opened:
        yield opened


def unary(channel: grpc.Channel, method: str) -> "grpc.UnaryUnaryMultiCallable[bytes, bytes]":
    return channel.unary_unary(f"/t.T/{method}", request_serializer=bytes, response_deserializer=bytes)


def stream(channel: grpc.Channel, method: str) -> "grpc.StreamStreamMultiCallable[bytes, bytes]":
    return channel.stream_stream(f"/t.T/{method}", request_serializer=bytes, response_deserializer=bytes)


@pytest.mark.parametrize("method", ["Echo", "Later", "Threaded"])
def test_unary_answers_at_once_later_and_from_another_thread(channel: grpc.Channel, method: str) -> None:
    for message in (b"", b"abc", bytes(100_000)):
        assert unary(channel, method)(message, timeout=TIMEOUT_S) == message


def test_many_calls_at_once(channel: grpc.Channel) -> None:
    call = unary(channel, "Later")
    with ThreadPoolExecutor(16) as pool:
        messages = [str(number).encode() for number in range(500)]
        assert list(pool.map(lambda message: call(message, timeout=TIMEOUT_S), messages)) == messages


@pytest.mark.parametrize(
    ("message", "code", "details"),
    [
        (b"invalid", grpc.StatusCode.INVALID_ARGUMENT, "expected 3 columns, got 2"),
        (b"missing", grpc.StatusCode.NOT_FOUND, "no such model"),
        (b"full", grpc.StatusCode.RESOURCE_EXHAUSTED, "the queue is full"),
        (b"plain", grpc.StatusCode.INTERNAL, "internal error"),
    ],
)
def test_errors_become_statuses(channel: grpc.Channel, message: bytes, code: grpc.StatusCode, details: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        unary(channel, "Refuse")(message, timeout=TIMEOUT_S)
    assert (caught.value.code(), caught.value.details()) == (code, details)


@pytest.mark.parametrize(
    ("message", "details"),
    [
        (b"long", "a name of " + "é" * 505 + "..."),
        (b"path", "cannot read (a file of the server)"),
        (b"accents", "no model 'modèle 😀 100%'"),
    ],
)
def test_details_arrive_as_they_are_bounded_and_without_paths(
    channel: grpc.Channel, message: bytes, details: str
) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        unary(channel, "Refuse")(message, timeout=TIMEOUT_S)
    assert caught.value.code() in {grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND}
    assert caught.value.details() == details


def test_trailers_that_clients_would_refuse_are_left_out(channel: grpc.Channel) -> None:
    _, call = unary(channel, "Tell").with_call(b"many", timeout=TIMEOUT_S)
    with pytest.raises(grpc.RpcError) as caught:
        unary(channel, "Tell")(b"many fail", timeout=TIMEOUT_S)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    for metadata in (call.trailing_metadata(), caught.value.trailing_metadata()):
        assert 10 < len(told(metadata)) < 100


def test_a_full_queue_tells_clients_not_to_retry(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        unary(channel, "Refuse")(b"full", timeout=TIMEOUT_S)
    assert ("grpc-retry-pushback-ms", "-1") in [tuple(pair) for pair in caught.value.trailing_metadata()]


def test_a_bug_shows_nothing_and_harms_nobody_else(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        unary(channel, "Bug")(b"", timeout=TIMEOUT_S)
    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    assert unary(channel, "Echo")(b"still here", timeout=TIMEOUT_S) == b"still here"


def test_unknown_methods_are_refused_and_counted(channel: grpc.Channel, service: Service) -> None:
    for method in ("Nothing", "Echo/", "x" * 5000):
        with pytest.raises(grpc.RpcError) as caught:
            unary(channel, method)(bytes(100_000), timeout=TIMEOUT_S)
        assert (caught.value.code(), caught.value.details()) == (
            grpc.StatusCode.UNIMPLEMENTED, "this method is not served",
        )  # fmt: skip
    with pytest.raises(grpc.RpcError) as caught:
        list(stream(channel, "Nothing")(iter([b"a", b"b"]), timeout=TIMEOUT_S))
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert [type(error) for error in service.refusals] == [UnsupportedError] * 4


def test_deadline_and_metadata_reach_the_handler(channel: grpc.Channel, service: Service) -> None:
    before = time.monotonic()
    future = unary(channel, "Hold").future(b"", timeout=5.0, metadata=(("tenant", "a"), ("blob-bin", b"\x00\xff")))
    assert service.received.acquire(timeout=TIMEOUT_S)
    assert before + 4.0 < service.deadlines[0] < time.monotonic() + 5.5
    assert service.metadata[0]["tenant"] == "a"
    assert service.metadata[0]["blob-bin"] == b"\x00\xff"
    service.scheduler.waiting.append(lambda: service.held[0].finish(b"done"))
    assert future.result(timeout=TIMEOUT_S) == b"done"


def test_no_deadline_is_infinite(channel: grpc.Channel, service: Service) -> None:
    future = unary(channel, "Hold").future(b"")
    assert service.received.acquire(timeout=TIMEOUT_S)
    assert service.deadlines[0] == float("inf")
    future.cancel()


def test_cancellation_reaches_what_waits(channel: grpc.Channel, service: Service) -> None:
    future = unary(channel, "Hold").future(b"", timeout=TIMEOUT_S)
    assert service.received.acquire(timeout=TIMEOUT_S)
    future.cancel()
    assert service.cancellations.acquire(timeout=TIMEOUT_S)
    assert service.held[0].is_over
    service.held[0].finish(b"too late")  # dropped, harms nothing
    assert unary(channel, "Echo")(b"x", timeout=TIMEOUT_S) == b"x"


def test_a_passed_deadline_reaches_what_waits(channel: grpc.Channel, service: Service) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        unary(channel, "Hold")(b"", timeout=0.1)
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert service.cancellations.acquire(timeout=TIMEOUT_S)


def told(metadata: Any) -> dict[str, str | bytes]:
    return {key: value for key, value in metadata or () if key.startswith("x-")}


def test_metadata_go_before_and_after_a_reply(channel: grpc.Channel) -> None:
    reply, call = unary(channel, "Tell").with_call(b"a", timeout=TIMEOUT_S)
    assert reply == b"a"
    assert told(call.initial_metadata()) == {"x-header": "h", "x-bytes-bin": bytes(3)}
    assert told(call.trailing_metadata()) == {"x-trailer": "t"}


def test_a_failed_call_has_its_metadata_beside_those_of_the_status(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        unary(channel, "Tell")(b"fail", timeout=TIMEOUT_S)
    assert told(caught.value.initial_metadata()) == {"x-header": "h", "x-bytes-bin": bytes(3)}
    trailers = dict(caught.value.trailing_metadata())
    assert trailers["x-trailer"] == "t"
    assert "grpc-retry-pushback-ms" in trailers


def test_a_stream_has_metadata_too(channel: grpc.Channel) -> None:
    replies = stream(channel, "TellAll")(iter([b"a", b"b"]), timeout=TIMEOUT_S)
    assert list(replies) == [b"a", b"b"]
    assert told(replies.initial_metadata()) == {"x-header": "h"}
    assert told(replies.trailing_metadata()) == {"x-trailer": "t"}


def test_streams_answer_each_message_in_order(channel: grpc.Channel) -> None:
    messages = [str(number).encode() for number in range(WINDOW_MESSAGES * 5)]
    assert list(stream(channel, "EchoAll")(iter(messages), timeout=TIMEOUT_S)) == messages


def test_server_streaming(channel: grpc.Channel) -> None:
    call = channel.unary_stream("/t.T/Count", request_serializer=bytes, response_deserializer=bytes)
    assert list(call(b"100", timeout=TIMEOUT_S)) == [str(number).encode() for number in range(100)]


def test_a_stream_delivers_what_it_sent_before_its_error(channel: grpc.Channel) -> None:
    replies = stream(channel, "Broken")(iter([b"a"]), timeout=TIMEOUT_S)
    assert next(replies) == b"one"
    with pytest.raises(grpc.RpcError) as caught:
        next(replies)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_cancelled_stream_reaches_what_waits(channel: grpc.Channel, service: Service) -> None:
    ended = threading.Event()

    def messages() -> Iterator[bytes]:
        yield b"a"
        ended.wait(TIMEOUT_S)

    replies = stream(channel, "HoldAll")(messages(), timeout=TIMEOUT_S)
    assert next(replies) == b"a"
    replies.cancel()
    assert service.cancellations.acquire(timeout=TIMEOUT_S)
    ended.set()


def test_oversized_messages_are_refused_and_the_connection_lives(kind: str, service: Service) -> None:
    limited = running(kind, service, TransportSettings(max_message_bytes=1024))
    with limited as (_, address), grpc.insecure_channel(address) as opened:
        with pytest.raises(grpc.RpcError) as caught:
            unary(opened, "Echo")(bytes(2000), timeout=TIMEOUT_S)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert unary(opened, "Echo")(bytes(900), timeout=TIMEOUT_S) == bytes(900)


@pytest.mark.long
def test_a_compression_bomb_is_refused_by_its_size_when_unpacked(kind: str, service: Service) -> None:
    limited = running(kind, service, TransportSettings(max_message_bytes=100_000))
    options = [("grpc.max_send_message_length", -1)]
    with (
        limited as (_, address),
        grpc.insecure_channel(address, options=options, compression=grpc.Compression.Gzip) as opened,
    ):
        assert unary(opened, "Echo")(bytes(90_000), timeout=TIMEOUT_S) == bytes(90_000)
        with pytest.raises(grpc.RpcError) as caught:
            unary(opened, "Echo")(bytes(50_000_000), timeout=TIMEOUT_S)  # packed it takes 50 kB
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert unary(opened, "Echo")(b"others live", timeout=TIMEOUT_S) == b"others live"


def tls_settings(tls: Path) -> TransportSettings:
    return TransportSettings(tls_certificate=tls / "server.pem", tls_key=tls / "server.key")


def test_tls_serves_who_speaks_it_and_others_are_unavailable(kind: str, service: Service, tls: Path) -> None:
    credentials = grpc.ssl_channel_credentials((tls / "server.pem").read_bytes())
    with running(kind, service, tls_settings(tls)) as (transport, address):
        with grpc.insecure_channel(address) as plain, pytest.raises(grpc.RpcError) as caught:
            unary(plain, "Echo")(b"a", timeout=TIMEOUT_S)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        with grpc.secure_channel(address, credentials) as secure:
            assert unary(secure, "Echo")(b"a", timeout=TIMEOUT_S) == b"a"
            future = unary(secure, "Hold").future(b"", timeout=TIMEOUT_S)
            assert service.received.acquire(timeout=TIMEOUT_S)
            transport.drain(TIMEOUT_S)
            service.scheduler.waiting.append(lambda: service.held[0].finish(bytes(1_000_000)))
            assert future.result(timeout=TIMEOUT_S) == bytes(1_000_000)


def test_who_speaks_tls_to_a_plain_port_is_unavailable(kind: str, service: Service, tls: Path) -> None:
    credentials = grpc.ssl_channel_credentials((tls / "server.pem").read_bytes())
    with running(kind, service) as (_, address):
        with grpc.secure_channel(address, credentials) as secure, pytest.raises(grpc.RpcError) as caught:
            unary(secure, "Echo")(b"a", timeout=TIMEOUT_S)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        with grpc.insecure_channel(address) as plain:
            assert unary(plain, "Echo")(b"a", timeout=TIMEOUT_S) == b"a"


def test_a_socket_file_serves(kind: str, service: Service, tmp_path: Path) -> None:
    transport: Transport = KINDS[kind](service.methods, service.scheduler, TransportSettings())
    thread = threading.Thread(target=transport.run)
    thread.start()
    address = f"unix:{tmp_path / 'p.sock'}"
    try:
        transport.listen(address)
        with grpc.insecure_channel(address) as opened:
            assert unary(opened, "Echo")(b"a", timeout=TIMEOUT_S) == b"a"
            future = unary(opened, "Hold").future(b"", timeout=TIMEOUT_S)
            assert service.received.acquire(timeout=TIMEOUT_S)
            transport.drain(TIMEOUT_S)
            service.scheduler.waiting.append(lambda: service.held[0].finish(b"finished"))
            assert future.result(timeout=TIMEOUT_S) == b"finished"
    finally:
        transport.drain(0)
        thread.join(TIMEOUT_S)
    assert not thread.is_alive()


def test_gzip_is_understood(kind: str, service: Service) -> None:
    compressed = grpc.Compression.Gzip
    with running(kind, service) as (_, address), grpc.insecure_channel(address, compression=compressed) as opened:
        assert unary(opened, "Echo")(bytes(10_000), timeout=TIMEOUT_S) == bytes(10_000)


@pytest.fixture
def without_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.long
@pytest.mark.usefixtures("without_collector")
def test_an_ended_stream_leaves_no_reference_cycle(channel: grpc.Channel, service: Service) -> None:
    ended = threading.Event()

    def left_open() -> Iterator[bytes]:
        yield b"a"
        ended.wait(TIMEOUT_S)

    assert list(stream(channel, "EchoAll")(iter([b"a", b"b"]), timeout=TIMEOUT_S)) == [b"a", b"b"]
    with pytest.raises(grpc.RpcError):
        list(stream(channel, "EchoAll")(iter([b"a", b"fail", b"c"]), timeout=TIMEOUT_S))
    cancelled = stream(channel, "EchoAll")(left_open(), timeout=TIMEOUT_S)
    assert next(cancelled) == b"a"
    cancelled.cancel()
    late = stream(channel, "EchoAll")(left_open(), timeout=0.2)
    with pytest.raises(grpc.RpcError):
        list(late)
    ended.set()
    for _ in range(4):
        assert service.received.acquire(timeout=TIMEOUT_S), "a receiver, and with it its call, is still there"
    assert len(service.receivers) == 4


@pytest.mark.long
@pytest.mark.parametrize(("size", "sent"), [(100_000, 1000), (2_000_000, 60)])
def test_a_stream_that_nobody_reads_is_received_no_further(
    channel: grpc.Channel, service: Service, size: int, sent: int
) -> None:
    call = stream(channel, "Swell")(iter([str(size).encode()] * sent), timeout=60)
    with service.taken_changed:
        while service.taken_changed.wait(0.3):  # until the server takes no more
            pass
    # What the window holds, and what the sockets and the two ends of HTTP/2 buffer.
    assert service.taken * size <= WINDOW_BYTES + 16 * 1024 * 1024
    assert service.taken < sent / 3
    assert unary(channel, "Echo")(b"others live", timeout=TIMEOUT_S) == b"others live"
    assert [len(reply) for reply in call] == [size] * sent  # and goes on when it is read


def test_a_handler_that_sends_unasked_cannot_fill_the_memory(channel: grpc.Channel, service: Service) -> None:
    call = stream(channel, "Flood")(iter([b"a"]), timeout=TIMEOUT_S)
    assert service.received.acquire(timeout=TIMEOUT_S)
    with pytest.raises(grpc.RpcError) as caught:
        for _ in call:
            pass
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert caught.value.details() == "too many messages wait for the caller to read them"


def test_drain_lets_calls_finish(kind: str, service: Service) -> None:
    with running(kind, service) as (transport, address), grpc.insecure_channel(address) as opened:
        future = unary(opened, "Hold").future(b"", timeout=TIMEOUT_S)
        assert service.received.acquire(timeout=TIMEOUT_S)
        transport.drain(TIMEOUT_S)
        service.scheduler.waiting.append(lambda: service.held[0].finish(b"finished"))
        assert future.result(timeout=TIMEOUT_S) == b"finished"


def test_what_outlasts_the_grace_ends_unavailable(kind: str, service: Service) -> None:
    with running(kind, service) as (transport, address), grpc.insecure_channel(address) as opened:
        future = unary(opened, "Hold").future(b"", timeout=TIMEOUT_S)
        assert service.received.acquire(timeout=TIMEOUT_S)
        transport.drain(0.05)
        error = future.exception(timeout=TIMEOUT_S)
        assert isinstance(error, grpc.RpcError)
        assert (error.code(), error.details()) == (grpc.StatusCode.UNAVAILABLE, "the server is shutting down")
        assert service.cancellations.acquire(timeout=TIMEOUT_S)  # what waited for the call is told
        assert service.held[0].is_over


def test_a_draining_server_refuses_new_calls_and_answers_those_of_probes(kind: str, service: Service) -> None:
    with running(kind, service) as (transport, address), grpc.insecure_channel(address) as opened:
        future = unary(opened, "Hold").future(b"", timeout=TIMEOUT_S)
        assert service.received.acquire(timeout=TIMEOUT_S)
        transport.drain(TIMEOUT_S)
        drained = threading.Event()
        transport.post(drained.set)
        assert drained.wait(TIMEOUT_S)
        for method in ("Later", "Nothing"):
            with pytest.raises(grpc.RpcError) as caught:
                unary(opened, method)(b"", timeout=TIMEOUT_S)
            assert (caught.value.code(), caught.value.details()) == (
                grpc.StatusCode.UNAVAILABLE, "the server is shutting down",
            )  # fmt: skip
        with pytest.raises(grpc.RpcError) as caught:
            list(stream(opened, "EchoAll")(iter([b"a"]), timeout=TIMEOUT_S))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert unary(opened, "Echo")(b"probe", timeout=TIMEOUT_S) == b"probe"
        assert [type(error) for error in service.refusals] == [UnavailableError] * 3
        service.scheduler.waiting.append(lambda: service.held[0].finish(b"finished"))
        assert future.result(timeout=TIMEOUT_S) == b"finished"


def test_a_stream_whose_messages_are_answered_ends_with_the_drain(kind: str, service: Service) -> None:
    ended = threading.Event()

    def messages() -> Iterator[bytes]:
        yield b"a"
        ended.wait(TIMEOUT_S)

    with running(kind, service) as (transport, address), grpc.insecure_channel(address) as opened:
        replies = stream(opened, "EchoAll")(messages(), timeout=TIMEOUT_S)
        assert next(replies) == b"a"
        transport.drain(TIMEOUT_S * 10)
        with pytest.raises(grpc.RpcError) as caught:
            next(replies)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert service.cancellations.acquire(timeout=TIMEOUT_S)
        ended.set()


@pytest.mark.parametrize("grace_s", [0.0, TIMEOUT_S])
def test_no_call_under_load_is_cancelled_by_a_drain(kind: str, service: Service, grace_s: float) -> None:
    codes: set[grpc.StatusCode] = set()
    answered = threading.Semaphore(0)

    def call_until_refused(address: str) -> None:
        with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as opened:
            while True:
                try:
                    assert unary(opened, "Later")(b"x", timeout=TIMEOUT_S) == b"x"
                    answered.release()
                except grpc.RpcError as error:
                    codes.add(error.code())
                    if error.code() is grpc.StatusCode.UNAVAILABLE:
                        return

    with running(kind, service) as (transport, address):
        threads = [threading.Thread(target=call_until_refused, args=(address,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for _ in range(100):
            assert answered.acquire(timeout=TIMEOUT_S)
        transport.drain(grace_s)
        for thread in threads:
            thread.join(TIMEOUT_S)
            assert not thread.is_alive()
    assert codes == {grpc.StatusCode.UNAVAILABLE}


def test_a_posted_action_wakes_the_reactor(kind: str, service: Service) -> None:
    with running(kind, service) as (transport, address), grpc.insecure_channel(address) as channel:
        unary(channel, "Echo")(b"", timeout=TIMEOUT_S)
        started_s = time.monotonic()
        for _ in range(40):
            done = threading.Event()
            transport.post(done.set)
            assert done.wait(TIMEOUT_S)
        # An idle reactor looks by itself each `IDLE_S`.
        assert time.monotonic() - started_s < 40 * IDLE_S / 4


def test_posted_actions_run_on_the_reactor(kind: str, service: Service) -> None:
    with running(kind, service) as (transport, _):
        threads: list[str] = []
        done = threading.Event()
        transport.post(lambda: 1 / 0)  # logged, and the next one runs
        transport.post(lambda: (threads.append(threading.current_thread().name), done.set()))
        assert done.wait(TIMEOUT_S)
        assert threads != [threading.current_thread().name]


def test_an_address_that_cannot_be_bound_is_an_error(kind: str, service: Service) -> None:
    transport: Transport = KINDS[kind](service.methods, service.scheduler, TransportSettings())
    thread = threading.Thread(target=transport.run)
    thread.start()
    try:
        with pytest.raises(UnavailableError, match="cannot listen on"):
            transport.listen("192.0.2.1:1")
    finally:
        transport.drain(0)
        thread.join(TIMEOUT_S)
    assert not thread.is_alive()


def frames(opened: socket.socket) -> Iterator[tuple[int, bytes]]:
    """The type and payload of each HTTP/2 frame that the server sends, which is told that a client is there."""
    opened.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))
    with opened.makefile("rb") as file:
        while len(head := file.read(9)) == 9:
            yield head[3], file.read(int.from_bytes(head[:3], "big"))


def test_an_old_connection_is_told_to_go_away(kind: str, service: Service) -> None:
    with running(kind, service, TransportSettings(connection_age_s=0.1)) as (_, address):
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as opened:
            goaway = next(payload for type_, payload in frames(opened) if type_ == 7)
        assert goaway[4:8] == bytes(4)  # no error


def test_a_connection_is_told_how_many_calls_it_may_have(kind: str, service: Service) -> None:
    with running(kind, service, TransportSettings(max_streams=7)) as (_, address):
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), timeout=TIMEOUT_S) as opened:
            settings = next(payload for type_, payload in frames(opened) if type_ == 4)
        assert (3).to_bytes(2, "big") + (7).to_bytes(4, "big") in [
            settings[at : at + 6] for at in range(0, len(settings), 6)
        ]


class Relay:
    """Stands between a caller and a server, and counts the bytes that the server sends."""

    def __init__(self, address: str) -> None:
        host, port = address.rsplit(":", 1)
        self._server = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.sent = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                caller, _ = self._listener.accept()
                server = socket.create_connection(self._server)
                threading.Thread(target=self._pass, args=(caller, server, False), daemon=True).start()
                threading.Thread(target=self._pass, args=(server, caller, True), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, is_counted: bool) -> None:
        with suppress(OSError), source, target:
            while data := source.recv(65536):
                self.sent += len(data) if is_counted else 0
                target.sendall(data)

    def close(self) -> None:
        self._listener.close()


@contextmanager
def relayed(kind: str, service: Service, compression: Any) -> Iterator[tuple[Relay, grpc.Channel]]:
    with running(kind, service, TransportSettings(compression=compression)) as (_, address):
        relay = Relay(address)
        # Otherwise the channel goes to another's connection, since their options are the same.
        with grpc.insecure_channel(relay.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            yield relay, channel
        relay.close()


@pytest.mark.parametrize(("compression", "is_small"), [("none", False), ("gzip", True)])
def test_replies_are_compressed_where_the_settings_say(
    kind: str, service: Service, compression: str, is_small: bool
) -> None:
    message = bytes(100_000)
    with relayed(kind, service, compression) as (relay, channel):
        for method in ("Echo", "Later", "Threaded", "Tell"):
            before = relay.sent
            assert unary(channel, method)(message, timeout=TIMEOUT_S) == message
            assert (relay.sent - before < 5_000) == is_small, method
        before = relay.sent
        assert list(stream(channel, "EchoAll")(iter([message, b"small", message]), timeout=TIMEOUT_S)) == [
            message, b"small", message,
        ]  # fmt: skip
        assert (relay.sent - before < 10_000) == is_small


@pytest.mark.parametrize("message", [b"", b"x", os.urandom(100_000)])
def test_what_does_not_compress_arrives_all_the_same(kind: str, service: Service, message: bytes) -> None:
    with relayed(kind, service, "gzip") as (_, channel):
        assert unary(channel, "Echo")(message, timeout=TIMEOUT_S) == message
        assert list(stream(channel, "EchoAll")(iter([message, message]), timeout=TIMEOUT_S)) == [message, message]
