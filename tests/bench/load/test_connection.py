"""The connection against a peer written with frames."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.load import headers
from bench.load.connection import Calls, Connection
from bench.load.frames import scan
from penstock_client.http2 import frames
from penstock_client.http2.frames import ProtocolError, header_block

BLOCK = headers.request_block("/s/m", "127.0.0.1:1")
OK_TRAILERS = header_block([("grpc-status", "0")])
WHOLE = frames.END_STREAM | frames.END_HEADERS


def connection(*messages: bytes) -> Connection:
    return Connection(Calls(BLOCK, messages or (b"ping",)))


def sent(link: Connection) -> list[tuple[int, int, int, bytes]]:
    """The frames that the client sends now, without the preface."""
    output = link.take_output().removeprefix(frames.PREFACE)
    found, consumed = scan(output)
    assert consumed == len(output)
    return [(kind, flags, stream, output[start:end]) for kind, flags, stream, start, end in found]


def answer(stream: int, trailers: bytes = OK_TRAILERS, message: bytes = b"\0\0\0\0\0") -> bytes:
    return (
        frames.frame(frames.HEADERS, frames.END_HEADERS, stream, header_block([(":status", "200")]))
        + frames.frame(frames.DATA, 0, stream, message)
        + frames.frame(frames.HEADERS, WHOLE, stream, trailers)
    )


def body(link: Connection, stream: int) -> bytes:
    return b"".join(payload for kind, _, each, payload in sent(link) if kind == frames.DATA and each == stream)


def test_it_opens_with_the_preface_no_header_table_and_wide_windows() -> None:
    link = connection()
    output = link.take_output()
    assert output.startswith(frames.PREFACE)
    (settings, update), _ = scan(output[len(frames.PREFACE) :])
    rest = output[len(frames.PREFACE) :]
    assert frames.parsed_settings(rest[settings[3] : settings[4]]) == {1: 0, 2: 0, 4: 2**31 - 1}
    assert update[0] == frames.WINDOW_UPDATE
    assert link.take_output() == b""


def test_calls_take_odd_streams_and_the_messages_in_turn() -> None:
    link = connection(b"a", b"bc")
    link.take_output()
    for due in (1.0, 2.0, 3.0):
        link.submit(due)
    assert sent(link) == [
        (frames.HEADERS, frames.END_HEADERS, 1, BLOCK),
        (frames.DATA, frames.END_STREAM, 1, b"\0\0\0\0\1a"),
        (frames.HEADERS, frames.END_HEADERS, 3, BLOCK),
        (frames.DATA, frames.END_STREAM, 3, b"\0\0\0\0\2bc"),
        (frames.HEADERS, frames.END_HEADERS, 5, BLOCK),
        (frames.DATA, frames.END_STREAM, 5, b"\0\0\0\0\1a"),
    ]
    assert link.in_flight == 3


@given(st.lists(st.integers(0, 200), max_size=6))
def test_each_call_has_one_outcome_however_the_answer_is_cut(cuts) -> None:
    link = connection()
    for due in (1.0, 2.0, 3.0):
        link.submit(due)
    data = answer(3) + answer(1, header_block([("grpc-status", "13")])) + answer(5)
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    outcomes = [each for i, j in pairwise(edges) for each in link.receive(data[i:j])]
    assert outcomes == [(2.0, ""), (1.0, "grpc-status 13"), (3.0, "")]
    assert link.in_flight == 0


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (frames.frame(frames.HEADERS, WHOLE, 1, OK_TRAILERS), "grpc-status 0 without a message"),
        (frames.frame(frames.HEADERS, WHOLE, 1, header_block([(":status", "503")])), "no grpc-status, HTTP status 503"),
        (frames.frame(frames.DATA, frames.END_STREAM, 1, b"\0\0\0\0\0"), "ended without trailers"),
        (frames.frame(frames.RST_STREAM, 0, 1, (8).to_bytes(4, "big")), "reset with HTTP/2 error 8"),
        (frames.frame(frames.GOAWAY, 0, 0, bytes(8)), "refused by GOAWAY"),
    ],
)
def test_anything_but_a_good_answer_is_a_failure_with_a_reason(data, reason) -> None:
    link = connection()
    link.submit(1.0)
    assert link.receive(data) == [(1.0, reason)]
    assert link.in_flight == 0


def test_trailers_may_be_continued_padded_and_prioritised() -> None:
    link = connection()
    link.submit(1.0)
    link.submit(2.0)
    data = (
        frames.frame(frames.DATA, 0, 1, b"\0\0\0\0\0")
        + frames.frame(frames.HEADERS, frames.END_STREAM, 1, OK_TRAILERS[:3])
        + frames.frame(frames.CONTINUATION, 0, 1, OK_TRAILERS[3:5])
        + frames.frame(frames.CONTINUATION, frames.END_HEADERS, 1, OK_TRAILERS[5:])
        + frames.frame(frames.DATA, 0, 3, b"\0\0\0\0\0")
        + frames.frame(frames.HEADERS, WHOLE | frames.PADDED, 3, b"\x02" + OK_TRAILERS + b"\0\0")
    )
    assert link.receive(data) == [(1.0, ""), (2.0, "")]


@pytest.mark.parametrize(
    "data",
    [
        frames.frame(frames.CONTINUATION, 0, 1, b""),
        frames.frame(frames.HEADERS, frames.END_STREAM, 1, b"") + frames.frame(frames.PING, 0, 0, bytes(8)),
        frames.frame(frames.HEADERS, frames.END_STREAM, 1, b"") + frames.frame(frames.CONTINUATION, 0, 3, b""),
    ],
)
def test_broken_header_blocks_end_the_connection(data) -> None:
    link = connection()
    link.submit(1.0)
    with pytest.raises(ProtocolError):
        link.receive(data)


def test_ping_and_settings_are_answered() -> None:
    link = connection()
    link.take_output()
    link.receive(frames.frame(frames.PING, 0, 0, b"12345678") + frames.settings({frames.MAX_CONCURRENT_STREAMS: 9}))
    assert sent(link) == [(frames.PING, frames.ACK, 0, b"12345678"), (frames.SETTINGS, frames.ACK, 0, b"")]
    assert link.max_streams == 9
    link.receive(frames.frame(frames.PING, frames.ACK, 0, bytes(8)) + frames.frame(frames.SETTINGS, frames.ACK, 0))
    assert sent(link) == []


def test_answers_after_their_calls_end_are_ignored() -> None:
    link = connection()
    link.submit(1.0)
    assert len(link.receive(answer(1))) == 1
    assert link.receive(answer(1)) == []


def test_close_fails_what_is_in_flight_once() -> None:
    link = connection()
    link.submit(1.0)
    link.submit(2.0)
    assert link.close("lost") == [(1.0, "lost"), (2.0, "lost")]
    assert link.close("lost") == []
    assert link.is_closing


def test_goaway_spares_earlier_streams_and_stops_new_ones() -> None:
    link = connection()
    link.submit(1.0)
    link.submit(2.0)
    assert link.receive(frames.frame(frames.GOAWAY, 0, 0, (1).to_bytes(4, "big") + bytes(4))) == [
        (2.0, "refused by GOAWAY")
    ]
    assert link.is_closing
    assert link.receive(answer(1)) == [(1.0, "")]


def test_a_large_body_waits_for_the_connections_window_and_is_cut_into_frames() -> None:
    message = bytes(range(256)) * 400
    link = connection(message)
    link.submit(1.0)
    first = [each for each in sent(link) if each[0] == frames.DATA]
    assert sum(len(payload) for *_, payload in first) == frames.DEFAULT_WINDOW_BYTES
    assert max(len(payload) for *_, payload in first) == frames.MAX_FRAME_BYTES
    assert not any(flags & frames.END_STREAM for _, flags, _, _ in first)
    link.receive(frames.window_update(0, 10**6))
    assert sent(link) == []  # the stream's own window is spent too
    link.receive(frames.window_update(1, 10**6))
    rest = sent(link)
    assert rest[-1][1] == frames.END_STREAM
    whole = b"".join(payload for *_, payload in first + rest)
    assert whole == b"\0" + len(message).to_bytes(4, "big") + message


def test_small_bodies_wait_for_the_connections_window_too() -> None:
    link = connection(bytes(995))
    link.take_output()
    for number in range(70):
        link.submit(float(number))
    data = [each for each in sent(link) if each[0] == frames.DATA]
    assert sum(len(payload) for *_, payload in data) == frames.DEFAULT_WINDOW_BYTES
    link.receive(frames.window_update(0, 10**5))
    data += sent(link)
    assert sum(len(payload) for *_, payload in data) == 70 * 1000
    assert sum(flags for _, flags, _, _ in data) == 70


def test_a_new_initial_window_reaches_bodies_that_wait() -> None:
    link = connection(bytes(100_000))
    link.submit(1.0)
    link.receive(frames.window_update(0, 10**6))
    link.take_output()
    link.receive(frames.settings({frames.INITIAL_WINDOW_SIZE: frames.DEFAULT_WINDOW_BYTES + 10}))
    assert len(body(link, 1)) == 10
    link.receive(frames.settings({frames.INITIAL_WINDOW_SIZE: 5}))  # the stream's window is negative now
    link.receive(frames.window_update(1, 20))
    assert body(link, 1) == b""


def test_a_call_that_is_answered_before_its_body_was_sent_is_cancelled() -> None:
    link = connection(bytes(100_000))
    link.submit(1.0)
    link.take_output()
    refusal = frames.frame(frames.HEADERS, WHOLE, 1, header_block([("grpc-status", "8")]))
    assert link.receive(refusal) == [(1.0, "grpc-status 8")]
    assert [(kind, stream) for kind, _, stream, _ in sent(link)] == [(frames.RST_STREAM, 1)]


def test_the_connections_window_is_given_back_before_it_is_spent() -> None:
    link = connection()
    link.take_output()
    chunk = frames.frame(frames.DATA, 0, 1, bytes(frames.MAX_FRAME_BYTES))
    for _ in range(2**29 // frames.MAX_FRAME_BYTES // 64):
        link.receive(chunk * 64)
    assert sent(link) == [(frames.WINDOW_UPDATE, 0, 0, (2**29).to_bytes(4, "big"))]
