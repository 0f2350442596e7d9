"""One connection against `h2`, another implementation of HTTP/2, as its server."""

import struct

import grpc
import h2.config
import h2.connection
import h2.events
import h2.settings
import hpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_client.http2 import frames
from penstock_client.http2.connection import Connection
from penstock_client.http2.frames import ProtocolError, frame, header_block
from penstock_client.http2.hpack import KnownBlocks
from penstock_client.steps import Failure

REQUEST = header_block(
    [(":method", "POST"), (":scheme", "http"), (":path", "/a/b"), (":authority", "x:1"), ("te", "trailers")]
)
HEADERS = [(":status", "200"), ("content-type", "application/grpc")]
OK = [("grpc-status", "0")]
LIMIT = 100_000


def message(payload):
    return b"\0" + len(payload).to_bytes(4, "big") + payload


class Server:
    """An h2 server that takes whole requests."""

    def __init__(self, **settings):
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        if settings:
            self.h2.local_settings = h2.settings.Settings(
                client=False, initial_values={getattr(h2.settings.SettingCodes, k): v for k, v in settings.items()}
            )
        self.h2.initiate_connection()
        self.requests = {}
        self.ended = []
        self.resets = []

    def take(self, data):
        for event in self.h2.receive_data(data):
            if isinstance(event, h2.events.RequestReceived):
                self.requests[event.stream_id] = b""
            elif isinstance(event, h2.events.DataReceived):
                self.requests[event.stream_id] += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.ended.append(event.stream_id)
            elif isinstance(event, h2.events.StreamReset):
                self.resets.append(event.stream_id)
        return self.h2.data_to_send()

    def answer(self, stream, payload, trailers=OK, headers=HEADERS):
        self.h2.send_headers(stream, headers)
        body = message(payload)
        while body:
            size = min(len(body), 16_384)
            self.h2.send_data(stream, body[:size])
            body = body[size:]
        self.h2.send_headers(stream, trailers, end_stream=True)
        return self.h2.data_to_send()


class Pair:
    """A client and a server, and what ended."""

    def __init__(self, **settings):
        self.client = Connection(LIMIT, KnownBlocks())
        self.server = Server(**settings)
        self.ends = {}
        self.exchange()

    def exchange(self):
        while True:
            data = self.client.take_output() if self.client.has_output else b""
            back = self.server.take(data) if data else self.server.h2.data_to_send()
            if not back:
                return
            self.hear(back)

    def hear(self, data, size=None):
        for at in range(0, len(data), size or len(data) or 1):
            self.ends.update(self.client.receive(data[at : at + (size or len(data))]))


@pytest.fixture
def pair():
    return Pair()


@given(st.lists(st.binary(max_size=40_000), min_size=1, max_size=5), st.integers(1, 5000))
def test_every_call_gets_its_own_answer_however_the_bytes_are_cut(payloads, size):
    pair = Pair()
    streams = [pair.client.start(REQUEST, payload) for payload in payloads]
    pair.exchange()
    assert [pair.server.requests[stream] for stream in streams] == [message(payload) for payload in payloads]
    assert pair.server.ended == streams
    for stream, payload in reversed(list(zip(streams, payloads, strict=True))):
        pair.hear(pair.server.answer(stream, payload[::-1]), size)
    assert pair.ends == {stream: payload[::-1] for stream, payload in zip(streams, payloads, strict=True)}
    assert pair.client.open == 0


def test_a_request_beyond_the_windows_waits_for_them():
    pair = Pair(INITIAL_WINDOW_SIZE=1000)
    payload = bytes(range(256)) * 1000
    stream = pair.client.start(REQUEST, payload)
    pair.exchange()
    assert pair.server.requests[stream] == message(payload)
    assert pair.server.ended == [stream]


def test_a_window_that_shrinks_below_nothing_is_kept_to(pair):
    pair.client.receive(frames.settings({frames.INITIAL_WINDOW_SIZE: 10}))
    stream = pair.client.start(REQUEST, b"x" * 20)
    pair.client.receive(frames.settings({frames.INITIAL_WINDOW_SIZE: 4}))
    pair.client.take_output()
    pair.client.receive(frames.window_update(stream, 6))
    assert not pair.client.has_output
    pair.client.receive(frames.window_update(stream, 1))
    assert pair.client.take_output() == frame(frames.DATA, 0, stream, b"x")


def test_calls_beyond_the_servers_limit_wait_their_turn():
    pair = Pair(MAX_CONCURRENT_STREAMS=2)
    streams = [pair.client.start(REQUEST, bytes([number])) for number in range(5)]
    for stream in streams:
        pair.exchange()
        assert len(pair.server.requests) <= len(pair.ends) + 2
        pair.hear(pair.server.answer(stream, b"!"))
    assert pair.ends == dict.fromkeys(streams, b"!")


def test_one_call_at_most_starts_before_the_server_has_said_how_many():
    connection = Connection(LIMIT, KnownBlocks())
    first, *_ = [connection.start(REQUEST, b"") for _ in range(3)]
    server = Server()
    server.take(connection.take_output())
    assert list(server.requests) == [first]
    connection.receive(frames.settings({}))
    server.take(connection.take_output())
    assert list(server.requests) == [1, 3, 5]
    connection.receive(frames.settings({frames.MAX_CONCURRENT_STREAMS: 3}) + frames.settings({}))
    connection.start(REQUEST, b"")
    server.take(connection.take_output())
    assert list(server.requests) == [1, 3, 5]


def test_a_call_that_waits_can_be_cancelled():
    pair = Pair(MAX_CONCURRENT_STREAMS=1)
    first, second, third = (pair.client.start(REQUEST, b"") for _ in range(3))
    pair.client.cancel(second)
    pair.exchange()
    pair.hear(pair.server.answer(first, b"1"))
    pair.exchange()
    assert set(pair.server.requests) == {first, third}


def test_a_cancelled_call_is_reset_and_its_answer_ignored(pair):
    stream = pair.client.start(REQUEST, b"")
    pair.exchange()
    late = pair.server.answer(stream, b"late")
    pair.client.cancel(stream)
    pair.exchange()
    assert pair.server.resets in ([stream], [])
    pair.hear(late)
    other = pair.client.start(REQUEST, b"")
    pair.exchange()
    pair.hear(pair.server.answer(other, b"yes"))
    assert pair.ends == {other: b"yes"}


def test_what_the_answer_to_a_cancelled_call_has_remembered_later_ones_refer_to():
    pair, encoder = Pair(), hpack.Encoder()
    cancelled, stream = (pair.client.start(REQUEST, b"") for _ in range(2))
    pair.exchange()
    pair.client.cancel(cancelled)
    for each in (cancelled, stream):
        pair.hear(
            frame(frames.HEADERS, frames.END_HEADERS, each, encoder.encode(HEADERS))
            + frame(frames.DATA, 0, each, message(b"yes"))
            + frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, each, encoder.encode(OK))
        )
    assert pair.ends == {stream: b"yes"}


@pytest.mark.parametrize(
    ("trailers", "code", "details"),
    [
        ([("grpc-status", "5"), ("grpc-message", "no%20%C3%A4 model")], grpc.StatusCode.NOT_FOUND, "no ä model"),
        ([("grpc-status", "14")], grpc.StatusCode.UNAVAILABLE, ""),
        ([("grpc-status", "99")], grpc.StatusCode.UNKNOWN, ""),
        ([("grpc-status", "x")], grpc.StatusCode.UNKNOWN, ""),
        ([("other", "1")], grpc.StatusCode.UNKNOWN, "without a status"),
    ],
)
def test_trailers_say_how_a_call_failed(pair, trailers, code, details):
    stream = pair.client.start(REQUEST, b"")
    pair.exchange()
    pair.hear(pair.server.answer(stream, b"ignored", trailers=trailers))
    end = pair.ends[stream]
    assert isinstance(end, Failure)
    assert end.code is code
    assert details in end.details
    assert end.cause.code() is code


def test_a_pushback_is_read(pair):
    stream = pair.client.start(REQUEST, b"")
    pair.exchange()
    pair.server.h2.send_headers(
        stream, [*HEADERS, ("grpc-status", "8"), ("grpc-retry-pushback-ms", "250")], end_stream=True
    )
    pair.exchange()
    assert pair.ends[stream].pushback_s == 0.25


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([(":status", "503"), ("content-type", "text/html")], grpc.StatusCode.UNAVAILABLE),
        ([(":status", "404"), ("content-type", "application/grpc")], grpc.StatusCode.UNIMPLEMENTED),
        ([(":status", "200"), ("content-type", "text/html")], grpc.StatusCode.UNKNOWN),
        ([(":status", "401")], grpc.StatusCode.UNAUTHENTICATED),
    ],
)
@pytest.mark.parametrize("is_end", [False, True])
def test_an_answer_that_is_not_grpcs_fails_by_its_http_status(pair, headers, code, is_end):
    stream = pair.client.start(REQUEST, b"")
    pair.exchange()
    pair.server.h2.send_headers(stream, headers, end_stream=is_end)
    pair.exchange()
    assert pair.ends[stream].code is code
    assert pair.server.resets == [stream] * (not is_end)


def test_an_interim_answer_is_passed_over(pair):
    stream = pair.client.start(REQUEST, b"")
    pair.exchange()
    pair.hear(frame(frames.HEADERS, frames.END_HEADERS, stream, header_block([(":status", "103")])))
    pair.hear(pair.server.answer(stream, b"yes"))
    assert pair.ends == {stream: b"yes"}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "no whole message"),
        (b"\0\0\0\0", "no whole message"),
        (message(b"ab")[:-1], "no whole message"),
        (message(b"ab") + b"x", "more than one message"),
        (message(b"") + message(b""), "more than one message"),
        (b"\1\0\0\0\1x", "compressed"),
    ],
)
@pytest.mark.parametrize("size", [1, 5, 100])
def test_a_body_that_is_not_one_message_fails(pair, body, words, size):
    stream = pair.client.start(REQUEST, b"")
    pair.exchange()
    pair.server.h2.send_headers(stream, HEADERS)
    for at in range(0, len(body), size):
        pair.server.h2.send_data(stream, body[at : at + size])
    pair.server.h2.send_headers(stream, OK, end_stream=True)
    pair.hear(pair.server.h2.data_to_send())
    assert pair.ends[stream].code is grpc.StatusCode.INTERNAL
    assert words in pair.ends[stream].details
    assert pair.client.open == 0


def test_a_reply_beyond_the_limit_ends_before_it_is_read(pair):
    stream = pair.client.start(REQUEST, b"")
    pair.exchange()
    pair.server.h2.send_headers(stream, HEADERS)
    pair.server.h2.send_data(stream, b"\0" + (LIMIT + 1).to_bytes(4, "big"))
    pair.exchange()
    assert pair.ends[stream].code is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "larger than max (100001 vs. 100000)" in pair.ends[stream].details
    assert pair.server.resets == [stream]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (0, grpc.StatusCode.INTERNAL),
        (2, grpc.StatusCode.INTERNAL),
        (8, grpc.StatusCode.CANCELLED),
        (11, grpc.StatusCode.RESOURCE_EXHAUSTED),
        (12, grpc.StatusCode.PERMISSION_DENIED),
    ],
)
def test_a_reset_fails_the_call(pair, error, code):
    stream = pair.client.start(REQUEST, b"")
    pair.exchange()
    pair.hear(frame(frames.RST_STREAM, 0, stream, error.to_bytes(4, "big")))
    assert pair.ends[stream].code is code


def test_a_refused_stream_may_go_elsewhere(pair):
    stream = pair.client.start(REQUEST, b"")
    pair.hear(frame(frames.RST_STREAM, 0, stream, (7).to_bytes(4, "big")))
    assert pair.ends == {stream: None}


def test_a_goaway_ends_what_the_server_has_not_begun(pair):
    pair.client.receive(frames.settings({frames.MAX_CONCURRENT_STREAMS: 3}))
    first, second, third, waiting = (pair.client.start(REQUEST, b"") for _ in range(4))
    pair.exchange()
    pair.hear(frame(frames.GOAWAY, 0, 0, struct.pack(">II", second, 0)))
    assert pair.client.is_closing
    assert pair.ends == {third: None, waiting: None}
    pair.hear(pair.server.answer(first, b"1") + pair.server.answer(second, b"2"))
    assert pair.ends == {third: None, waiting: None, first: b"1", second: b"2"}


def test_a_server_that_ends_hears_acknowledgements_late(pair):
    stream = pair.client.start(REQUEST, b"")
    other = pair.client.start(REQUEST, b"")
    pair.exchange()
    ping = frame(frames.PING, 0, 0, b"12345678")
    pair.hear(frame(frames.GOAWAY, 0, 0, struct.pack(">II", 2**31 - 1, 0)) + ping)
    assert pair.client.is_closing
    assert pair.client.has_output
    assert pair.client.take_output() == frame(frames.PING, frames.ACK, 0, b"12345678")
    pair.hear(frame(frames.GOAWAY, 0, 0, struct.pack(">II", other, 0)) + ping + frames.settings({}))
    pair.client.cancel(other)
    assert not pair.client.has_output
    assert pair.client.has_acknowledgements
    late = frame(frames.PING, frames.ACK, 0, b"12345678") + frame(frames.SETTINGS, frames.ACK, 0) + frames.reset(other)
    assert pair.client.take_output() == late
    assert not pair.client.has_acknowledgements
    pair.hear(pair.server.answer(stream, b"yes"))
    assert pair.ends == {stream: b"yes"}


def test_pings_are_answered_and_settings_acknowledged(pair):
    pair.hear(frame(frames.PING, 0, 0, b"12345678") + frames.settings({99: 1}))
    assert pair.client.take_output() == frame(frames.PING, frames.ACK, 0, b"12345678") + frame(
        frames.SETTINGS, frames.ACK, 0
    )
    pair.client.ping()
    ping = pair.client.take_output()
    assert pair.server.take(ping) == frame(frames.PING, frames.ACK, 0, b"penstock")


def test_padding_priority_continuation_and_unknown_frames_are_read(pair):
    stream = pair.client.start(REQUEST, b"")
    block = header_block(HEADERS)
    body = message(b"yes")
    flags = frames.PADDED | frames.PRIORITY
    pair.hear(frame(frames.HEADERS, flags, stream, b"\2" + bytes(5) + block[:7] + b"\0\0"))
    pair.hear(frame(frames.CONTINUATION, 0, stream, block[7:9]))
    pair.hear(frame(frames.CONTINUATION, frames.END_HEADERS, stream, block[9:]))
    pair.hear(frame(77, 0, stream, b"?") + frame(frames.DATA, frames.PADDED, stream, b"\3" + body + b"\0\0\0"))
    pair.hear(frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, stream, header_block(OK)))
    assert pair.ends == {stream: b"yes"}


@pytest.mark.parametrize(
    "data",
    [
        frame(frames.DATA, 0, 7, b"x"),
        frame(frames.HEADERS, frames.END_HEADERS, 2, b""),
        frame(frames.HEADERS, frames.END_HEADERS, 1, b"\xbe"),
        frame(frames.HEADERS, 0, 1, b"") + frame(frames.PING, 0, 0, bytes(8)),
        frame(frames.HEADERS, 0, 1, b"") + frame(frames.CONTINUATION, 0, 1, bytes(16_000)) * 5,
        frame(frames.CONTINUATION, 0, 1, b""),
        frame(frames.PUSH_PROMISE, 0, 1, bytes(4)),
        frame(frames.SETTINGS, 0, 0, bytes(5)),
        frames.settings({frames.INITIAL_WINDOW_SIZE: 2**31}),
        frames.window_update(0, 2**31 - 1),
        frame(frames.DATA, frames.PADDED, 1, b"\5"),
        frame(frames.HEADERS, frames.PRIORITY | frames.END_HEADERS, 1, b"\0"),
        frame(frames.RST_STREAM, 0, 9, bytes(4)),
        (16_385).to_bytes(3, "big") + bytes(6),
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
    ],
)
def test_what_breaks_the_protocol_ends_the_connection(data):
    connection = Connection(LIMIT, KnownBlocks())
    connection.start(REQUEST, b"")
    with pytest.raises(ProtocolError):
        connection.receive(data)


@given(
    st.binary(max_size=200), st.lists(st.tuples(st.integers(0, 11), st.integers(0, 255), st.integers(0, 5)), max_size=4)
)
def test_no_bytes_do_more_than_end_calls_or_the_connection(noise, kinds):
    connection = Connection(LIMIT, KnownBlocks())
    streams = {connection.start(REQUEST, b"") for _ in range(3)}
    data = b"".join(frame(kind, flags, stream, noise[:40]) for kind, flags, stream in kinds) + noise
    ended = []
    try:
        ended = [stream for stream, _ in connection.receive(data)]
    except ProtocolError:
        return
    assert len(ended) == len(set(ended))
    assert set(ended) <= streams
    assert connection.open == 3 - len(ended)


def test_the_connections_window_is_given_back(pair):
    stream = pair.client.start(REQUEST, b"")
    pair.exchange()
    pair.client._uncredited_bytes = 2**29 - 10
    pair.hear(pair.server.answer(stream, b"x" * 10))
    assert pair.client.take_output() == frames.window_update(0, 2**29 + 5)


def test_numbers_run_out():
    connection = Connection(LIMIT, KnownBlocks())
    connection._next_stream = 2**31 - 3
    connection.start(REQUEST, b"")
    assert connection.is_closing


def test_headers_that_were_seen_mean_the_same_again(pair):
    for payload in (b"1", b"2", b"3"):
        stream = pair.client.start(REQUEST, b"")
        pair.exchange()
        pair.hear(pair.server.answer(stream, payload))
        assert pair.ends[stream] == payload
    begun, ended = header_block(HEADERS), header_block(OK)
    # What ended one answer begins no other, and what began one does not end it.
    stream = pair.client.start(REQUEST, b"")
    pair.hear(frame(frames.HEADERS, frames.END_HEADERS, stream, ended))
    assert pair.ends[stream].code is grpc.StatusCode.UNKNOWN
    stream = pair.client.start(REQUEST, b"")
    pair.hear(frame(frames.HEADERS, frames.END_HEADERS | frames.END_STREAM, stream, begun))
    assert "without a status" in pair.ends[stream].details
    stream = pair.client.start(REQUEST, b"")
    pair.hear(frame(frames.HEADERS, frames.END_HEADERS, stream, begun) * 2)
    assert "headers twice" in pair.ends[stream].details
