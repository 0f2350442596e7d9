"""What clients in other languages put on the wire, frame by frame, where the libraries of the other tests do it differently."""

import gzip
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock import inference_pb2 as pb
from penstock.tensors import to_raw
from penstock_client.http2 import frames
from penstock_client.http2.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    INITIAL_WINDOW_SIZE,
    PADDED,
    PING,
    PRIORITY,
    RST_STREAM,
)
from tests.integration.conftest import starting
from tests.integration.foreign_clients import INFER, SERVING, STREAM, WATCH, framed, unframed
from tests.integration.raw_caller import RawCaller, padded, prioritized, split_headers

pytestmark = pytest.mark.slow

ROWS = np.array([[1.0, 2.0], [-1.0, -3.0], [0.5, 0.25]], np.float32)
PRIORITY_FRAME = 2
CANCEL = (8).to_bytes(4, "big")


def asked(**fields: Any) -> bytes:
    made = pb.ModelInferRequest(model_name="flag", raw_input_contents=[ROWS.tobytes()], **fields)
    made.inputs.add(name="X", datatype="FP32", shape=ROWS.shape)
    return framed(made.SerializeToString())


TEXT = to_raw(np.array([["x" * 300_000, "y" * 400_000]], object))


def asked_for_much() -> bytes:
    made = pb.ModelInferRequest(model_name="strings", raw_input_contents=[TEXT, ROWS[:1].tobytes()])
    made.inputs.add(name="text", datatype="BYTES", shape=[1, 2])
    made.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    return framed(made.SerializeToString())


def call(caller: RawCaller, stream: int, body: bytes | None = None, **more: str) -> None:
    caller.send(caller.headers(stream, INFER, **more), frames.frame(DATA, END_STREAM, stream, body or asked()))


def assert_answered(caller: RawCaller, *streams: int) -> None:
    for stream in streams:
        answer = caller.answer(stream)
        assert (answer.status, answer.headers[":status"]) == ("0", "200")
        (reply,) = unframed(answer.body)
        labels = pb.ModelInferResponse.FromString(reply).raw_output_contents[0]
        assert np.frombuffer(labels, np.int64).tolist() == [1, 0, 1]


@pytest.fixture(scope="module")
def address(
    transport: str,
    environment: dict[str, str],
    logs: Path,
    plain_repository: Path,
) -> Iterator[str]:
    with starting(environment, logs) as start:
        server = start("--transport", transport, "--model-repository", str(plain_repository)).wait_ready()
        assert server.transports() == [transport]
        yield server.grpc


@pytest.fixture
def caller(address: str) -> Iterator[RawCaller]:
    with RawCaller(address) as opened:
        yield opened


NATIVE_ALONE = pytest.mark.parametrize("transport", ["native"], indirect=True)
"""gRPC's core knows no padding, though RFC 9113 (6.1, 6.2) allows it, and answers a unary call before its end."""


def test_each_message_may_bring_a_ping(caller: RawCaller) -> None:
    """As those do that estimate how much a connection holds (Go, C++): a ping beside data, its answer timed."""
    for number in range(100):
        payload = number.to_bytes(8, "big")
        stream = 2 * number + 1
        caller.send(caller.headers(stream, INFER), frames.frame(PING, 0, 0, payload))
        caller.send(frames.frame(DATA, END_STREAM, stream, asked()), frames.window_update(0, 1 + number))
        assert_answered(caller, stream)
        caller.until(lambda payload=payload: payload in caller.acknowledged)  # type: ignore[misc]
    assert caller.go_away is None


def test_many_pings_at_once_are_answered(caller: RawCaller) -> None:
    payloads = [number.to_bytes(8, "big") for number in range(200)]
    caller.send(*(frames.frame(PING, 0, 0, payload) for payload in payloads))
    caller.until(lambda: len(caller.acknowledged) == len(payloads))
    assert caller.acknowledged == payloads
    call(caller, 1)
    assert_answered(caller, 1)


@pytest.mark.parametrize("size", [1, 2, 7])
def test_a_request_may_come_in_small_pieces(caller: RawCaller, size: int) -> None:
    body = asked()
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    caller.send(split_headers(1, caller.block(INFER), 32))
    for number, part in enumerate(parts):
        flags = END_STREAM if number == len(parts) - 1 else 0
        caller.send(frames.frame(DATA, 0, 1), frames.frame(DATA, flags, 1, part))
    assert_answered(caller, 1)


def test_the_bytes_may_come_one_by_one(caller: RawCaller) -> None:
    sent = caller.headers(1, INFER) + frames.frame(DATA, END_STREAM, 1, asked())
    for at in range(len(sent)):
        caller.send(sent[at : at + 1])
    assert_answered(caller, 1)


@NATIVE_ALONE
def test_a_request_is_answered_at_its_end(caller: RawCaller) -> None:
    caller.send(caller.headers(1, INFER), frames.frame(DATA, 0, 1, asked()))
    caller.ping(b"the end?")
    assert not caller.answers[1].headers
    caller.send(frames.frame(DATA, END_STREAM, 1))
    assert_answered(caller, 1)


def test_trailers_may_end_a_request(caller: RawCaller) -> None:
    for stream, path, body in ((1, INFER, asked()), (3, STREAM, asked(id="a") + asked(id="b"))):
        caller.send(caller.headers(stream, path), frames.frame(DATA, 0, stream, body))
        trailers = caller.encoded(("x-checksum", "1"), ("x-bytes-bin", "AAE"))
        caller.send(frames.frame(HEADERS, END_HEADERS | END_STREAM, stream, trailers))
    assert_answered(caller, 1)
    replies = [pb.ModelStreamInferResponse.FromString(reply) for reply in unframed(caller.answer(3).body)]
    assert [reply.infer_response.id for reply in replies] == ["a", "b"]
    assert caller.answers[3].status == "0"


@NATIVE_ALONE
@pytest.mark.parametrize("padding", [1, 255])
def test_headers_may_have_padding_and_priority(caller: RawCaller, padding: int) -> None:
    caller.send(frames.frame(PRIORITY_FRAME, 0, 3, prioritized(b"", depends_on=0, weight=200)))
    block = padded(prioritized(caller.block(INFER), depends_on=3, weight=15), padding)
    caller.send(frames.frame(HEADERS, END_HEADERS | PADDED | PRIORITY, 5, block))
    caller.send(frames.frame(DATA, END_STREAM | PADDED, 5, padded(asked(), padding)))
    caller.send(frames.frame(PRIORITY_FRAME, 0, 5, prioritized(b"", depends_on=0, weight=1)))
    assert_answered(caller, 5)


def test_what_is_not_known_is_passed_over(caller: RawCaller) -> None:
    caller.send(frames.settings({0xF0F0: 7, 0x8: 1}), frames.frame(0xBE, 0xFF, 0, b"grease"))
    caller.send(caller.headers(1, INFER, x_new="1", priority="u=3", baggage="a=b"))
    caller.send(frames.frame(0xBE, 0, 1, b"grease"), frames.frame(DATA, END_STREAM, 1, asked()))
    assert_answered(caller, 1)


@pytest.mark.parametrize("content_type", ["application/grpc+proto", "application/grpc;charset=utf-8"])
def test_forms_of_the_content_type(caller: RawCaller, content_type: str) -> None:
    caller.send(caller.headers(1, INFER, content_type=content_type))
    caller.send(frames.frame(DATA, END_STREAM, 1, asked()))
    assert_answered(caller, 1)


PACKED = gzip.compress(asked()[5:])


@pytest.mark.parametrize(
    "packed",
    [PACKED[:-9], PACKED[:-3], PACKED[:-8] + bytes(8), PACKED + b"more", PACKED[:20] + b"\xff" + PACKED[21:]],
    ids=["cut in its data", "cut in its sums", "wrong sum", "more behind it", "wrong data"],
)
def test_a_damaged_compressed_message_is_refused(caller: RawCaller, transport: str, packed: bytes) -> None:
    body = bytes([1]) + len(packed).to_bytes(4, "big") + packed
    for stream, path in ((1, INFER), (3, STREAM)):
        caller.send(caller.headers(stream, path, grpc_encoding="gzip"), frames.frame(DATA, END_STREAM, stream, body))
        answer = caller.answer(stream)
        invalid, internal = "3", "13"  # gRPC's core takes the caller's mistake for its own
        assert (answer.status, answer.body) == (invalid if transport == "native" else internal, b"")
    call(caller, 5)
    assert_answered(caller, 5)


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_answers_are_not_compressed_though_the_caller_could_read_them(caller: RawCaller, encoding: str) -> None:
    body = framed(asked()[5:], is_compressed=encoding == "gzip")
    caller.send(caller.headers(1, INFER, grpc_encoding=encoding, grpc_accept_encoding="identity,deflate,gzip"))
    caller.send(frames.frame(DATA, END_STREAM, 1, body))
    assert_answered(caller, 1)
    assert "grpc-encoding" not in caller.answers[1].headers


def test_an_answer_takes_the_room_that_it_gets(address: str) -> None:
    """A caller that gives little room, in odd sizes, then so much that the window was below zero."""
    random_sizes = random.Random(0)
    with RawCaller(address, {INITIAL_WINDOW_SIZE: 0}, gives_room=False) as caller:
        call(caller, 1)
        call(caller, 3)
        caller.ping(b"no room ")
        assert (caller.answers[1].body, caller.answers[3].body) == (b"", b"")
        while not caller.answers[1].has_ended:
            before = len(caller.answers[1].body)
            size = random_sizes.randint(1, 40)
            caller.send(frames.window_update(1, size))
            caller.until(lambda: caller.answers[1].has_ended or len(caller.answers[1].body) == before + size)  # noqa: B023
        assert_answered(caller, 1)
        assert caller.answers[3].body == b""
        caller.send(frames.window_update(3, 5))
        caller.until(lambda: len(caller.answers[3].body) == 5)
        caller.send(frames.settings({INITIAL_WINDOW_SIZE: 100}))
        caller.until(lambda: len(caller.answers[3].body) == 105)
        caller.send(frames.settings({INITIAL_WINDOW_SIZE: 10}))  # the room is now 90 below nothing
        caller.send(frames.window_update(3, 90))
        caller.ping(b"no room!")
        assert len(caller.answers[3].body) == 105
        caller.send(frames.window_update(3, 5))
        caller.until(lambda: len(caller.answers[3].body) == 110)
        caller.send(frames.settings({INITIAL_WINDOW_SIZE: 1 << 20}))
        assert_answered(caller, 3)


def test_an_answer_waits_for_the_room_of_the_connection(address: str) -> None:
    with RawCaller(address, {INITIAL_WINDOW_SIZE: 1 << 30}, gives_room=False) as caller:
        caller.open(1, INFER)
        caller.upload(1, asked_for_much())
        caller.until(lambda: len(caller.answers[1].body) == frames.DEFAULT_WINDOW_BYTES)
        call(caller, 3)
        caller.ping(b"no room ")
        assert caller.answers[3].body == b""
        caller.send(frames.window_update(0, 1 << 30))
        assert_answered(caller, 3)
        (reply,) = unframed(caller.answer(1).body)
        assert pb.ModelInferResponse.FromString(reply).raw_output_contents[0] == TEXT


def test_requests_larger_than_the_windows_are_given_room(caller: RawCaller) -> None:
    for stream in (1, 3, 5):
        caller.open(stream, INFER)
        caller.upload(stream, asked_for_much())
        (reply,) = unframed(caller.answer(stream).body)
        assert pb.ModelInferResponse.FromString(reply).raw_output_contents[0] == TEXT


@NATIVE_ALONE
def test_padding_is_given_room(caller: RawCaller) -> None:
    caller.open(1, STREAM)
    body = asked() * 30
    assert len(body) * 257 > 1 << 18  # more than the stream's window
    caller.upload(1, body, padding=255, most=1)
    assert (len(unframed(caller.answer(1).body)), caller.answers[1].status) == (30, "0")


def test_a_caller_that_goes_away_is_answered_first(address: str) -> None:
    with RawCaller(address, gives_room=False) as caller:
        caller.open(1, INFER)
        caller.send(frames.frame(GOAWAY, 0, 0, bytes(8)))
        caller.send(frames.frame(DATA, END_STREAM, 1, asked()))
        assert_answered(caller, 1)


def test_resets_harm_no_other_call(caller: RawCaller) -> None:
    for stream in range(1, 2001, 2):
        caller.open(stream, INFER if stream % 4 == 1 else WATCH)
        if stream % 3 == 0:
            caller.send(frames.frame(DATA, 0, stream, asked()[:20]))
        caller.send(frames.frame(RST_STREAM, 0, stream, CANCEL))
    call(caller, 2001)
    assert_answered(caller, 2001)
    assert caller.go_away is None


def test_the_server_keeps_deadlines_by_itself(caller: RawCaller) -> None:
    caller.send(caller.headers(1, WATCH, grpc_timeout="150m"), frames.frame(DATA, END_STREAM, 1, framed(b"")))
    caller.send(caller.headers(3, INFER, grpc_timeout="100m"), frames.frame(DATA, 0, 3, asked()[:10]))
    assert caller.answer(1).status == "4"
    assert unframed(caller.answers[1].body) == [SERVING]
    assert caller.answer(3).status == "4"
    call(caller, 5)
    assert_answered(caller, 5)


def test_many_streams_are_open_at_once(caller: RawCaller) -> None:
    streams = range(1, 1001, 2)
    for stream in streams:
        caller.open(stream, INFER)
    shuffled = random.Random(1).sample(streams, len(streams))
    for stream in shuffled:
        caller.send(frames.frame(DATA, END_STREAM, stream, asked()))
    assert_answered(caller, *streams)
