"""What hostile callers can make the native transport hold: every table is given back, and none is filled over its end."""

import os
import socket
import ssl
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from errno import EAGAIN
from pathlib import Path
from typing import Any, Final

import numpy as np
import pytest

from bench.fuzz.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    HEADERS,
    PREFACE,
    REFUSED_STREAM,
    asks,
    block,
    call,
    frame,
    in_frames,
    opening,
    prefixed,
    reset,
    settings,
    window,
)
from bench.fuzz.server import Server
from penstock_server.transport import layout
from penstock_server.transport.native import STREAM_WINDOW
from penstock_server.transport.settings import TransportSettings
from penstock_server.transport.window import WINDOW_MESSAGES
from tests.server.transport.http2_peer import Peer
from tests.server.transport.test_transports import Service, running

TIMEOUT_S: Final = 20.0
EMPTY_MESSAGES: Final = bytes(5 * 3276)
"""As many as one frame holds."""


def eventually(is_so: Callable[[], bool]) -> bool:
    end_s = time.monotonic() + TIMEOUT_S
    while not is_so():
        if time.monotonic() > end_s:
            return False
        time.sleep(0.005)
    return True


def word(transport: Any, at: int) -> int:
    return int(transport._tables.state[at // 8])


@contextmanager
def asleep(service: Service) -> Iterator[None]:
    """Has the reactor sleep meanwhile, so that all that comes is there when it looks."""
    sleeps, wakes = threading.Event(), threading.Event()

    def sleep() -> None:
        sleeps.set()
        wakes.wait(TIMEOUT_S)

    service.scheduler.waiting.append(sleep)
    assert sleeps.wait(TIMEOUT_S)
    yield
    wakes.set()


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.mark.parametrize(
    ("prefix", "size"),
    [
        ("C_", layout.CONNECTION_BYTES), ("S_", layout.STREAM_BYTES), ("E_", layout.EVENT_BYTES),
        ("N_", layout.NODE_BYTES), ("M_", layout.METHOD_BYTES), ("O_", layout.OPERATION_BYTES),
        ("P_", layout.PORT_ROW_BYTES),
    ],
)  # fmt: skip
def test_the_words_of_a_row_are_in_it(prefix: str, size: int) -> None:
    words = [at for name, at in vars(layout).items() if name.startswith(prefix)]
    assert len(words) == len(set(words))
    assert max(words) + layout.WORD_BYTES <= size


def test_the_words_of_the_state_are_in_it() -> None:
    ends_with_listeners = layout.LISTENER_TABLE + layout.LISTENERS * layout.LISTENER_BYTES
    assert layout.TLS_READS + layout.WORD_BYTES <= layout.LISTENER_TABLE
    assert ends_with_listeners <= layout.LISTENER_COUNT
    assert layout.TURNS + layout.WORD_BYTES <= layout.STATE_BYTES


def test_the_events_of_a_turn_and_of_all_streams_have_room() -> None:
    of_a_turn = layout.ENOUGH_EVENTS + (1 + layout.MOST_TLS_READS) * layout.EVENTS_PER_READ
    assert of_a_turn + layout.OTHER_EVENTS <= layout.MAX_EVENTS


@pytest.mark.long
@pytest.mark.parametrize("is_encrypted", [False, True])
def test_a_turn_takes_no_more_than_its_events_have_room_for(service: Service, tls: Path, is_encrypted: bool) -> None:
    settings = (
        TransportSettings(tls_certificate=tls / "server.pem", tls_key=tls / "server.key")
        if is_encrypted
        else TransportSettings()
    )
    context = ssl.create_default_context(cafile=str(tls / "server.pem"))
    context.set_alpn_protocols(["h2"])
    frames = 5 if is_encrypted else 15  # a turn reads 64 kB with TLS, four times that without
    with running("native", service, settings) as (transport, address), ExitStack() as stack:
        peers = [
            stack.enter_context(Peer(address, tls=context if is_encrypted else None))
            for _ in range(32 if is_encrypted else 8)
        ]
        for peer in peers:
            peer.shake_hands()
            # The first message ends the call, and those that follow are looked at nevertheless until its stream is gone.
            peer.send(opening(1, asks("Swell")))
        with asleep(service):
            senders = [
                threading.Thread(target=peer.send, args=(frame(DATA, 0, 1, EMPTY_MESSAGES) * frames,)) for peer in peers
            ]
            for sender in senders:
                sender.start()
            time.sleep(0.5)
        for sender in senders:
            sender.join()
        for peer in peers:
            assert peer.finish(1).status == 13
        events = transport._tables.events  # type: ignore[attr-defined]
        used = int(np.flatnonzero(events[:, layout.E_KIND // 8])[-1])
        reads = 1 + (layout.MOST_TLS_READS if is_encrypted else 0)
        assert layout.ENOUGH_EVENTS < used < layout.ENOUGH_EVENTS + reads * layout.EVENTS_PER_READ + 100
        assert peers[0].is_alive()


KEPT: Final = (
    layout.OPEN_STREAMS, layout.OPEN_CONNECTIONS, layout.FREE_STREAM_COUNT, layout.FREE_CONNECTION_COUNT,
    layout.PARTIAL_BYTES, layout.EVENT_COUNT, layout.TLS_READS,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Served:
    """A transport that runs."""

    transport: Any
    address: str

    def kept(self) -> list[int]:
        return [word(self.transport, at) for at in KEPT]

    @property
    def held_bytes(self) -> int:
        return word(self.transport, layout.PARTIAL_BYTES)

    @property
    def open_streams(self) -> int:
        return word(self.transport, layout.OPEN_STREAMS)

    def set(self, at: int, value: int) -> None:
        self.transport._tables.state[at // 8] = value

    def peer(self) -> Peer:
        opened = Peer(self.address)
        opened.shake_hands()
        return opened


@pytest.fixture
def served(service: Service) -> Iterator[Served]:
    """A transport whose tables must be as they were before, when the connections of a test have gone."""
    with running("native", service) as (transport, address):
        found = Served(transport, address)
        before = found.kept()
        yield found
        assert eventually(lambda: found.kept() == before), f"{found.kept()}, before {before}"
        with found.peer() as another:
            assert another.is_alive()


def test_cancelled_calls_leave_nothing(served: Served, service: Service) -> None:
    with served.peer() as peer:
        for first in range(1, 4000, 200):
            streams = range(first, first + 200, 2)
            peer.send(*(call(stream, bytes(1000), "Hold") for stream in streams))
            for _ in streams:
                assert service.received.acquire(timeout=TIMEOUT_S)
            peer.send(*(reset(stream) for stream in streams))
            for _ in streams:
                assert service.cancellations.acquire(timeout=TIMEOUT_S)
        assert peer.is_alive()
        assert eventually(lambda: served.open_streams == 0)
        assert served.held_bytes == 0


def conversation(method: str) -> list[bytes]:
    """A call in many frames, with trailers."""
    content = prefixed(b"abc")
    return [
        opening(1, asks(method, ("x-one", "1" * 100))),
        *(frame(DATA, 0, 1, content[at : at + 3]) for at in range(0, len(content), 3)),
        frame(DATA, 0, 1, prefixed(bytes(300))),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, block((("x-last", "t"),))),
    ]


METHODS: Final = ("Echo", "Hold", "Later", "EchoAll", "HoldAll", "Broken", "Nothing", "Bug")


@pytest.mark.parametrize("method", METHODS)
def test_streams_that_are_reset_at_any_point_leave_nothing(served: Served, method: str) -> None:
    frames = conversation(method)
    with served.peer() as peer:
        for stream in range(1, 2 * len(frames) * 20, 2):
            cut = stream // 2 % len(frames) + 1
            peer.send(*(one[:5] + stream.to_bytes(4, "big") + one[9:] for one in frames[:cut]), reset(stream))
        assert peer.is_alive()
        assert eventually(lambda: served.open_streams == 0)


@pytest.mark.parametrize("method", METHODS)
def test_connections_that_break_at_any_byte_leave_nothing(served: Served, method: str) -> None:
    whole = PREFACE + settings() + b"".join(conversation(method))
    for cut in range(0, len(whole), 3):
        with Peer(served.address, whole[:cut]) as peer:
            if cut % 2:  # ends with a reset of TCP, not in order
                peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_a_large_message_takes_what_has_come_of_it(served: Served) -> None:
    announced = (64 * 1024 * 1024).to_bytes(4, "big")
    with served.peer() as peer:
        for stream in range(1, 2001, 2):
            peer.send(opening(stream), frame(DATA, 0, stream, b"\0" + announced + b"a"))
        assert peer.is_alive()
        assert served.open_streams >= 1000
        assert served.held_bytes <= 1000 * 2048  # headers too


def test_unfinished_messages_of_one_leave_room_for_others(served: Served) -> None:
    served.set(layout.MAX_PARTIAL_BYTES, 8 << 20)
    announced = (1 << 20).to_bytes(4, "big")
    with served.peer() as greedy, served.peer() as other:
        for stream in range(1, 41, 2):
            greedy.send(opening(stream), frame(DATA, 0, stream, b"\0" + announced))
            for _ in range(62):
                greedy.send(frame(DATA, 0, stream, bytes(16_000)))
        assert greedy.is_alive() in (True, False)  # it has been read to its end
        assert 2 << 20 < served.held_bytes <= 5 << 20
        refused = [greedy.finish(stream) for stream in (35, 37, 39)]
        assert {answer.status for answer in refused} == {8}
        assert refused[0].headers["grpc-message"].startswith("too much is held for this connection already")
        other.send(opening(1), *in_frames(1, prefixed(bytes(1 << 20))))
        other.send(window(0, 1 << 21), window(1, 1 << 21))
        assert len(other.finish(1).body) == 5 + (1 << 20)


def test_headers_that_cost_the_caller_nothing_are_held_within_the_bound(served: Served) -> None:
    """A field that HPACK's table remembers costs a byte, and its call four kilobytes."""
    served.set(layout.MAX_PARTIAL_BYTES, 4 << 20)
    entry = b"\x40" + block((("x-large", "v" * 3900),))[1:]
    with served.peer() as peer, served.peer() as other:
        peer.send(frame(HEADERS, END_HEADERS, 1, block(asks("Hold")) + entry))
        large = block(asks("Hold")) + b"\xbe" * 3
        for stream in range(3, 2001, 2):
            peer.send(frame(HEADERS, END_HEADERS, stream, large))
        assert peer.finish(1999).status == 8
        assert served.held_bytes <= 3 << 20
        assert other.is_alive()


def test_answers_that_nobody_reads_are_held_within_the_bound(served: Served) -> None:
    served.set(layout.MAX_PARTIAL_BYTES, 8 << 20)
    with served.peer() as peer, served.peer() as other:
        peer.send(settings((4, 0)))  # no window for any answer
        content = bytes(100_000)
        streams = range(1, 401, 2)
        for stream in streams:
            peer.send(opening(stream), *in_frames(stream, prefixed(content)))
        assert peer.finish(streams[-1]).status == 8
        assert 2 << 20 < served.held_bytes <= 6 << 20
        assert other.is_alive()
        peer.send(settings((4, 1 << 20)), window(0, 1 << 30))
        statuses = Counter(peer.finish(stream).status for stream in streams)
        assert statuses[0] + statuses[8] == len(streams)
        assert statuses[0] > 20
        assert eventually(lambda: served.held_bytes == 0)


def test_who_never_reads_from_its_socket_holds_no_more_than_the_bound(served: Served) -> None:
    served.set(layout.MAX_PARTIAL_BYTES, 8 << 20)
    with served.peer() as peer, served.peer() as other:
        peer.send(settings((4, 1 << 30)), window(0, 1 << 30))
        content = prefixed(bytes(100_000))
        peer.socket.settimeout(1.0)
        highest = 0
        for stream in range(1, 1001, 2):
            peer.send(opening(stream), *in_frames(stream, content))
            highest = max(highest, served.held_bytes)
        assert other.is_alive()
        highest = max(highest, served.held_bytes)
        assert 2 << 20 < highest <= 6 << 20
        peer.socket.settimeout(TIMEOUT_S)
        statuses = Counter(peer.finish(stream).status for stream in range(1, 1001, 2))
        assert statuses[0] + statuses[8] == 500


def test_calls_of_one_leave_rows_for_others(served: Served) -> None:
    free = word(served.transport, layout.FREE_STREAM_COUNT)
    with served.peer() as greedy, served.peer() as second, served.peer() as third:
        served.set(layout.FREE_STREAM_COUNT, 12)  # as if all others were taken
        greedy.send(*(call(stream, method="Hold") for stream in range(1, 41, 2)))
        assert greedy.finish(39).reset == REFUSED_STREAM
        assert served.open_streams == 6
        second.send(*(call(stream, method="Hold") for stream in range(1, 41, 2)))
        assert second.finish(39).reset == REFUSED_STREAM
        assert served.open_streams == 9
        assert third.is_alive()
        greedy.socket.close()
        second.socket.close()
        assert eventually(lambda: served.open_streams == 0)
        assert word(served.transport, layout.FREE_STREAM_COUNT) == 12
    assert eventually(lambda: word(served.transport, layout.OPEN_CONNECTIONS) == 0)
    served.set(layout.FREE_STREAM_COUNT, free)


def pause(served: Served, peer: Peer, streams: Sequence[int]) -> None:
    """Opens streams whose answers the caller does not take, and waits until they are given no more messages."""
    flags = served.transport._tables.streams[:, layout.S_FLAGS // 8]
    few = prefixed(b"") * (WINDOW_MESSAGES + 1)
    peer.send(settings((4, 0)))
    peer.send(*(opening(stream, asks("EchoAll")) + frame(DATA, 0, stream, few) for stream in streams))
    assert eventually(lambda: np.count_nonzero(flags & layout.IS_PAUSED) == len(streams))


def test_who_sends_more_than_the_window_of_a_stream_is_stopped(served: Served) -> None:
    with served.peer() as peer, served.peer() as other:
        pause(served, peer, [1])
        for sent in range(0, STREAM_WINDOW + 16_384, 16_384):
            peer.send(frame(DATA, 0, 1, prefixed(bytes(16_379))))
            assert sent <= STREAM_WINDOW
        assert peer.finish(1).reset == FLOW_CONTROL_ERROR
        peer.send(settings((4, 65_535)))
        assert peer.is_alive()
        assert other.is_alive()


def test_streams_that_wait_hold_the_window_of_their_connection(served: Served) -> None:
    """A handler that is ahead of its caller is given no more messages: what comes meanwhile is bounded by the windows."""
    served.set(layout.WINDOW, 1 << 20)
    streams = range(1, 17, 2)
    with served.peer() as peer:
        pause(served, peer, streams)
        # 160 kB on each of eight are within the windows of all streams, and over the connection's.
        peer.send(*(frame(DATA, 0, stream, prefixed(bytes(16_000))) for _ in range(10) for stream in streams))
        assert [got.code for got in peer.until_closed()] == [FLOW_CONTROL_ERROR]


def test_streams_that_waited_give_the_window_back(served: Served) -> None:
    """The server says so in steps of half a window, so that is what a caller can always send."""
    served.set(layout.WINDOW, 1 << 20)
    with served.peer() as peer:
        for first in range(1, 129, 16):
            streams = range(first, first + 16, 2)
            pause(served, peer, streams)
            peer.send(*(frame(DATA, 0, stream, prefixed(bytes(16_000))) for _ in range(3) for stream in streams))
            if first % 32 == 1:
                peer.send(*(reset(stream) for stream in streams))
            else:
                peer.send(*(window(stream, 1 << 20) for stream in streams), window(0, 1 << 20))
                peer.send(*(frame(DATA, END_STREAM, stream) for stream in streams))
                assert [len(peer.finish(stream).messages) for stream in streams] == [WINDOW_MESSAGES + 4] * len(streams)
            assert eventually(lambda: served.open_streams == 0)
        peer.send(settings((4, 1 << 20)))
        assert peer.is_alive()


class Late:
    """A scheduler that answers a call when its deadline has passed and nobody has looked at that yet."""

    is_due = False

    def __init__(self, service: Service) -> None:
        self.service = service
        self.transport: Any = None
        self.has_answered = threading.Event()
        self.goes_on = threading.Event()

    def step(self) -> float:
        held = self.service.held
        if held and not self.has_answered.is_set() and word(self.transport, layout.EVENT_COUNT):
            held[0].finish(b"in time after all")
            self.has_answered.set()
            self.goes_on.wait(TIMEOUT_S)
        return 0.001


def test_a_deadline_that_passed_ends_no_later_call(service: Service) -> None:
    """The answered call's row is free at once, and the next call takes it before the event of the deadline is taken up."""
    late = service.scheduler = Late(service)  # type: ignore[assignment]
    with running("native", service) as (transport, address), Peer(address) as peer:
        late.transport = transport
        peer.send(call(1, b"", "Hold", ("grpc-timeout", "50m")))
        assert late.has_answered.wait(TIMEOUT_S)
        peer.send(call(3, b"next"))
        time.sleep(0.05)
        late.goes_on.set()
        assert peer.finish(1).messages == [b"in time after all"]
        assert (peer.finish(3).messages, peer.answer(3).status) == ([b"next"], 0)
        assert service.refusals == []


def feed_until_closed(server: Server, number: int, headers: bytes, most: int) -> int:
    """Sends calls whose answers nobody reads; how many, until the connection is closed."""
    sent = 0
    while server._is_open(number) and sent < most:
        streams = range(2 * sent + 1, 2 * (sent + 500) + 1, 2)
        server._feed(number, b"".join(frame(HEADERS, END_HEADERS | END_STREAM, at, headers) for at in streams))
        server._turn()
        sent += 500
    return sent


def test_refusals_that_nobody_reads_are_bounded() -> None:
    """A RST_STREAM waits in nghttp2 when the socket takes no more, and belongs to no stream that would be counted."""
    server = Server()
    number = server._kernels["adopt"](server._address)
    server._feed(number, PREFACE + settings())
    free = server._cells[layout.FREE_STREAM_COUNT // 8]
    server._cells[layout.FREE_STREAM_COUNT // 8] = 0  # as if all rows were taken
    sent = feed_until_closed(server, number, block(asks("Echo")), 1_000_000)
    # A megabyte of them wait to be encrypted, and then so many in nghttp2.
    assert 0 <= sent - (1 << 20) // 13 - layout.MOST_QUEUED < 30_000
    server._cells[layout.FREE_STREAM_COUNT // 8] = free
    server._turn()
    server.check_other()
    server.check_tables()
    server.close()


def test_who_floods_and_does_not_read_is_left_in_a_second() -> None:
    server = Server()
    number = server._kernels["adopt"](server._address)
    server._feed(number, PREFACE + settings())
    malformed = block(asks("Echo", ("connection", "close")))
    assert feed_until_closed(server, number, malformed, 3 * layout.MOST_RESETS) == 3 * layout.MOST_RESETS
    before = server._kept()
    # What follows may take longer than the second that is given.
    server._tables.connections[number, layout.C_CLOSE_AT // 8] += 60 * layout.SECOND
    feed_until_closed(server, number, malformed, layout.MOST_RESETS)
    assert server._kept() == before  # nothing is looked at any more
    server._kernels["look_after"](server._address)
    assert server._is_open(number)
    server._tables.connections[number, layout.C_CLOSE_AT // 8] -= 61 * layout.SECOND
    server._kernels["look_after"](server._address)
    assert not server._is_open(number)
    server._turn()
    server._turn()
    server.check_other()
    server.check_tables()
    server.close()


def client_hello(context: ssl.SSLContext) -> bytes:
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="localhost")
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@pytest.mark.long
def test_tls_callers_that_break_at_any_point_leave_nothing(service: Service, tls: Path) -> None:
    settings_ = TransportSettings(tls_certificate=tls / "server.pem", tls_key=tls / "server.key")
    context = ssl.create_default_context(cafile=str(tls / "server.pem"))
    context.set_alpn_protocols(["h2"])
    hello = client_hello(context)
    whole = PREFACE + settings() + b"".join(conversation("EchoAll"))
    with running("native", service, settings_) as (transport, address):
        found = Served(transport, address)
        before = found.kept()
        for cut in range(0, len(hello), 7):
            with Peer(address, hello[:cut] + b"\xff" * (cut % 2)):
                pass
        for cut in range(0, len(whole), 40):
            with Peer(address, whole[:cut], tls=context) as peer:
                if cut % 80:
                    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with Peer(address, b"GET / HTTP/1.1\r\n\r\n"), pytest.raises(ssl.SSLError):
            Peer(address, tls=ssl.create_default_context())  # does not know the certificate
        no_http2 = ssl.create_default_context(cafile=str(tls / "server.pem"))
        with Peer(address, tls=no_http2) as peer:
            assert peer.until_closed() == []
        assert eventually(lambda: found.kept() == before), f"{found.kept()}, before {before}"
        assert eventually(lambda: not found.transport._tls._connections)
        with Peer(address, tls=context) as peer:
            assert peer.is_alive()


def test_tls_writes_nothing_to_a_descriptor_that_is_closed(
    service: Service, tls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may be another file's by then. Here the first bytes end the connection while tickets of TLS wait to be sent."""
    failures: list[int | None] = []
    write = os.write

    def watched(descriptor: int, data: bytes) -> int:
        try:
            return write(descriptor, data)
        except OSError as error:
            failures.append(error.errno)
            raise

    monkeypatch.setattr("penstock_server.transport.native_tls.os.write", watched)
    context = ssl.create_default_context(cafile=str(tls / "server.pem"))
    context.set_alpn_protocols(["h2"])
    settings_ = TransportSettings(tls_certificate=tls / "server.pem", tls_key=tls / "server.key")
    with running("native", service, settings_) as (transport, address):
        for _ in range(5):
            incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            client = context.wrap_bio(incoming, outgoing, server_hostname="localhost")
            with Peer(address, b"") as peer:
                while client.version() != "TLSv1.3" or not client.selected_alpn_protocol():
                    with suppress(ssl.SSLWantReadError):
                        client.do_handshake()
                        break
                    peer.send(outgoing.read())
                    incoming.write(peer.socket.recv(1 << 16))
                client.write(b"this is no HTTP/2 at all")
                peer.send(outgoing.read())
                assert peer.until_closed() == []
        assert eventually(lambda: word(transport, layout.OPEN_CONNECTIONS) == 0)
    assert set(failures) <= {EAGAIN}


def test_rows_of_connections_that_ended_are_looked_after_no_more(served: Served) -> None:
    peers = [served.peer() for _ in range(50)]
    assert word(served.transport, layout.CONNECTION_END) == 50
    for peer in peers:
        peer.socket.close()
    assert eventually(lambda: word(served.transport, layout.CONNECTION_END) == 0)
