"""gRPC above HTTP/2, spoken byte by byte to a native transport that runs: prefixes, headers, deadlines, metadata.

Source: "gRPC over HTTP2", the protocol's description in grpc/grpc.
"""

import base64
import time
from typing import Final

import pytest

from bench.fuzz.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GRPC,
    NO_ERROR,
    POST,
    PROTOCOL_ERROR,
    Pair,
    asks,
    call,
    frame,
    message,
    opening,
    prefixed,
    reset,
    window,
)
from penstock_server.errors import InvalidInputError, UnsupportedError
from tests.server.transport.http2_peer import Answer, Peer
from tests.server.transport.test_transports import Service

TIMEOUT_S: Final = 10.0
INVALID, UNIMPLEMENTED, INTERNAL, EXHAUSTED, LATE = 3, 12, 13, 8, 4
BAD_PREFIX: Final = "the message does not begin with gRPC's five bytes, or is cut short"
CONTENT: Final = b"abc"
WHOLE: Final = prefixed(CONTENT)


def hold(peer: Peer, service: Service, stream: int, *more: Pair) -> None:
    """Makes a call that is held, and waits until it is."""
    before = len(service.held)
    peer.send(call(stream, b"", "Hold", *more))
    end_s = time.monotonic() + TIMEOUT_S
    while len(service.held) == before and time.monotonic() < end_s:
        time.sleep(0.001)
    assert len(service.held) == before + 1


def told(answer: Answer) -> tuple[int | None, str | None]:
    return answer.status, answer.headers.get("grpc-message")


@pytest.mark.parametrize("method", ["Echo", "EchoAll"])
@pytest.mark.parametrize("at", range(1, len(WHOLE)))
def test_a_message_may_be_torn_anywhere(peer: Peer, method: str, at: int) -> None:
    peer.send(opening(1, asks(method)), frame(DATA, 0, 1, WHOLE[:at]))
    assert peer.is_alive()  # so the first part has been read by itself
    peer.send(frame(DATA, END_STREAM, 1, WHOLE[at:]))
    assert (peer.finish(1).messages, peer.answer(1).status) == ([CONTENT], 0)


@pytest.mark.parametrize("method", ["Echo", "EchoAll"])
def test_a_message_may_come_byte_by_byte(peer: Peer, method: str) -> None:
    peer.send(opening(1, asks(method)))
    for at in range(len(WHOLE)):
        peer.send(frame(DATA, 0, 1, WHOLE[at : at + 1]))
        peer.read_what_came()
    peer.send(frame(DATA, END_STREAM, 1))
    assert peer.finish(1).messages == [CONTENT]


@pytest.mark.parametrize("size", [1, 3, 5, 7, 8, 11, 13])
def test_messages_of_a_stream_may_share_frames_in_any_way(peer: Peer, size: int) -> None:
    messages = [b"", b"a", b"", b"", b"bcd" * 20, b"e"]
    whole = b"".join(map(prefixed, messages))
    peer.send(opening(1, asks("EchoAll")))
    peer.send(*(frame(DATA, 0, 1, whole[at : at + size]) for at in range(0, len(whole), size)))
    peer.send(frame(DATA, END_STREAM, 1))
    assert peer.finish(1).messages == messages


@pytest.mark.parametrize("first", [b"", b"a", bytes(2000)])
@pytest.mark.parametrize("second", [b"", b"b"])
def test_a_unary_call_has_one_message(peer: Peer, first: bytes, second: bytes) -> None:
    peer.send(opening(1), frame(DATA, END_STREAM, 1, prefixed(first) + prefixed(second)))
    assert told(peer.finish(1)) == (INVALID, "expected one message, the caller sent more")
    peer.send(opening(3, asks("Echo"), END_HEADERS | END_STREAM))
    assert told(peer.finish(3)) == (INVALID, "expected one message, the caller sent none")
    assert peer.is_alive()


@pytest.mark.parametrize("method", ["Echo", "EchoAll"])
@pytest.mark.parametrize("size", range(1, len(WHOLE)))
def test_a_message_that_is_cut_short_is_refused(peer: Peer, method: str, size: int) -> None:
    peer.send(opening(1, asks(method)), frame(DATA, END_STREAM, 1, WHOLE[:size]))
    assert told(peer.finish(1)) == (INVALID, BAD_PREFIX)
    assert peer.is_alive()


def test_a_unary_call_waits_for_the_end_of_its_stream(peer: Peer) -> None:
    peer.send(opening(1), message(1, flags=0))
    assert peer.is_alive()
    time.sleep(0.1)
    peer.read_what_came()
    assert peer.answer(1).headers == {}
    peer.send(frame(DATA, END_STREAM, 1))
    assert peer.finish(1).messages == [b"ab"]


def test_a_stream_is_answered_before_its_end(peer: Peer) -> None:
    peer.send(opening(1, asks("EchoAll")), message(1, flags=0))
    peer.until(lambda: peer.answer(1).messages == [b"ab"])
    assert not peer.answer(1).is_ended
    peer.send(reset(1))
    assert peer.is_alive()


@pytest.mark.parametrize("method", ["Echo", "EchoAll"])
@pytest.mark.parametrize("compressed", [2, 3, 128, 255])
def test_the_compressed_flag_is_0_or_1(peer: Peer, method: str, compressed: int) -> None:
    peer.send(opening(1, asks(method)), frame(DATA, END_STREAM, 1, prefixed(CONTENT, compressed)))
    assert told(peer.finish(1)) == (INVALID, BAD_PREFIX)
    assert peer.is_alive()


@pytest.mark.parametrize("encoding", [None, "identity", "gzip", "deflate", "snappy", "GZIP", ""])
def test_a_compressed_message_needs_an_encoding_that_is_known(peer: Peer, encoding: str | None) -> None:
    more = () if encoding is None else (("grpc-encoding", encoding),)
    peer.send(opening(1, asks("Echo", *more)), frame(DATA, END_STREAM, 1, prefixed(CONTENT, 1)))
    status, details = told(peer.finish(1))
    if encoding in {"gzip", "deflate"}:
        assert (status, details) == (INVALID, "the message's compression is damaged")
    else:
        assert status == UNIMPLEMENTED
        assert details is not None
        assert details.endswith("expected one of identity,deflate,gzip")
    # What is not compressed needs none.
    peer.send(opening(3, asks("Echo", *more)), message(3))
    assert peer.finish(3).messages == [b"ab"]


@pytest.mark.parametrize(
    "kind", ["application/grpc+proto", "application/grpc;charset=utf-8", "application/grpc+json", "application/grpc"]
)
def test_grpc_has_several_content_types(peer: Peer, kind: str) -> None:
    peer.send(opening(1, (*POST, (":path", "/t.T/Echo"), ("content-type", kind))), message(1))
    assert peer.finish(1).messages == [b"ab"]


@pytest.mark.parametrize(
    "kind", ["application/json", "application/grpc-web", "application/grpcx", "application/grp", "text/html", "", None]
)
def test_other_content_types_are_answered_in_http(peer: Peer, native_service: Service, kind: str | None) -> None:
    pairs: tuple[Pair, ...] = (*POST, (":path", "/t.T/Echo"))
    peer.send(opening(1, pairs if kind is None else (*pairs, ("content-type", kind))), message(1))
    answer = peer.finish(1)
    assert (answer.headers[":status"], answer.status, answer.body) == ("415", UNIMPLEMENTED, b"")
    assert isinstance(native_service.refusals[-1], UnsupportedError)
    assert peer.is_alive()


@pytest.mark.parametrize("method", ["GET", "PUT", "OPTIONS", "post", "POSTS"])
def test_grpc_is_posted(peer: Peer, method: str) -> None:
    peer.send(opening(1, ((":method", method), *POST[1:], (":path", "/t.T/Echo"), *GRPC), END_HEADERS | END_STREAM))
    answer = peer.finish(1)
    assert (answer.headers[":status"], answer.status) == ("415", UNIMPLEMENTED)
    assert peer.is_alive()


def test_connect_opens_no_tunnel(peer: Peer) -> None:
    peer.send(opening(1, ((":method", "CONNECT"), (":authority", "internal:22")), END_HEADERS | END_STREAM))
    assert peer.finish(1).headers[":status"] == "415"
    peer.send(opening(3, asks("Echo", (":protocol", "websocket"))))
    assert peer.finish(3).reset == PROTOCOL_ERROR
    assert peer.is_alive()


@pytest.mark.parametrize(
    "path", ["/", "/t.T", "/t.T/Echo/", "/t.T/echo", "//t.T/Echo", "/t.T/Echo?a=b", "/" + "x" * 9000]
)
def test_a_path_is_that_of_a_method(peer: Peer, path: str) -> None:
    peer.send(opening(1, (*POST, (":path", path), *GRPC)), message(1))
    assert told(peer.finish(1)) == (UNIMPLEMENTED, "this method is not served")
    assert peer.answer(1).reset in {None, NO_ERROR}
    assert peer.is_alive()


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [
        ("1H", 3600), ("2M", 120), ("30S", 30), ("90000m", 90), ("60000000u", 60), ("99999999n", 0.099999999),
        ("00640511H", 640_511 * 3600), ("00000001S", 1), ("99999999S", 99999999), ("5S", 5),
    ],
)  # fmt: skip
def test_a_deadline_has_every_unit_and_up_to_eight_digits(
    peer: Peer, native_service: Service, timeout: str, seconds: float
) -> None:
    before = time.monotonic()
    hold(peer, native_service, 1, ("grpc-timeout", timeout))
    left = native_service.deadlines[-1] - before
    assert seconds <= left < seconds + 1 + seconds * 1e-9
    peer.send(reset(1))


@pytest.mark.parametrize(
    "timeout",
    [
        "",
        "1",
        "S",
        "1s",
        "1h",
        "-1S",
        "+1S",
        " 1S",
        "1 S",
        "1S ",
        "1.5S",
        "0x1S",
        "123456789S",
        "1SS",
        "1µ",
        "١S",
        "1\t",
    ],
)
def test_what_is_no_deadline_is_refused(peer: Peer, native_service: Service, timeout: str) -> None:
    pairs = asks("Echo", ("grpc-timeout", timeout.encode().decode("latin-1")))
    peer.send(opening(1, pairs), message(1))
    answer = peer.finish(1)
    if answer.reset == PROTOCOL_ERROR:
        # RFC 9113, 8.2.1: no field's value begins or ends with white space.
        assert timeout != timeout.strip()
    else:
        assert told(answer) == (INVALID, "grpc-timeout is not up to eight digits and a unit of H, M, S, m, u or n")
        assert isinstance(native_service.refusals[-1], InvalidInputError)
    assert peer.is_alive()


def test_a_deadline_passes_while_a_message_is_awaited(peer: Peer) -> None:
    peer.send(opening(1, asks("Echo", ("grpc-timeout", "50m"))), frame(DATA, 0, 1, WHOLE[:6]))
    assert told(peer.finish(1)) == (LATE, "the deadline has passed")
    assert peer.is_alive()


@pytest.mark.parametrize("timeout", ["0n", "1n", "0H"])
@pytest.mark.parametrize("method", ["Hold", "HoldAll"])
def test_a_deadline_that_has_passed_already_ends_the_call(peer: Peer, method: str, timeout: str) -> None:
    peer.send(opening(1, asks(method, ("grpc-timeout", timeout))), message(1, flags=0))
    assert told(peer.finish(1)) == (LATE, "the deadline has passed")
    assert peer.is_alive()


@pytest.mark.parametrize("value", [b"", b"a", b"ab", b"abc", bytes(range(256)), b"\xff\xfe\xfd"])
@pytest.mark.parametrize("is_padded", [True, False])
def test_binary_metadata_come_with_padding_or_without(
    peer: Peer, native_service: Service, value: bytes, is_padded: bool
) -> None:
    text = base64.b64encode(value).decode()
    hold(peer, native_service, 1, ("x-blob-bin", text if is_padded else text.rstrip("=")))
    assert native_service.metadata[-1]["x-blob-bin"] == value
    peer.send(reset(1))


def test_metadata_that_are_no_base64_harm_nothing(peer: Peer, native_service: Service) -> None:
    for at, text in enumerate(("*", "abcde", "=", "====", "a=b", "\xff\xff")):
        hold(peer, native_service, 2 * at + 1, ("x-blob-bin", text))
        assert "x-blob-bin" in native_service.metadata[-1]
    assert peer.is_alive()


def test_answers_escape_what_is_not_ascii(peer: Peer) -> None:
    peer.send(call(1, b"accents", "Refuse"))
    status, details = told(peer.finish(1))
    assert status == 5
    assert details == "no model 'mod%C3%A8le %F0%9F%98%80 100%25'"


def test_an_early_answer_stops_the_caller(peer: Peer) -> None:
    """RFC 9113, 8.1: the server has answered and needs no more of the request."""
    peer.send(opening(1, asks("Nothing")), frame(DATA, 0, 1, WHOLE))
    answer = peer.finish(1)
    peer.until(lambda: answer.reset is not None)
    assert (answer.status, answer.reset) == (UNIMPLEMENTED, NO_ERROR)
    peer.send(frame(DATA, 0, 1, bytes(1000)), window(1, 10))  # on the way meanwhile
    assert peer.is_alive()


@pytest.mark.parametrize("announced", [(1 << 26) + 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1])
@pytest.mark.parametrize("method", ["Echo", "EchoAll"])
def test_a_message_that_says_it_is_too_large_is_refused_at_once(peer: Peer, method: str, announced: int) -> None:
    peer.send(opening(1, asks(method)), frame(DATA, 0, 1, b"\0" + announced.to_bytes(4, "big") + b"a"))
    assert told(peer.finish(1)) == (EXHAUSTED, f"the message is larger than {1 << 26} bytes")
    assert peer.is_alive()
