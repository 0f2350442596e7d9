"""Valid conversations of a client, each a list of what it writes: first the preface with its settings, then frames."""

import struct
from typing import Final

import hpack

from bench.fuzz import plain
from bench.fuzz.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HAS_PRIORITY,
    HEADERS,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    SETTINGS,
    Pair,
    asks,
    block,
    call,
    frame,
    message,
    opening,
    prefixed,
    reset,
    settings,
    window,
)
from penstock import inference_pb2 as pb

UNARY: Final = ("Echo", "Hold", "Fail", "Tell", "Infer")
STREAMS: Final = ("EchoAll", "FailAll", "Many")

_OPENS: Final = PREFACE + settings((3, 100), (4, 1 << 20))
_METADATA: Final[tuple[Pair, ...]] = (
    ("user-agent", "grpc-python/1.76.0 grpc-c/51.0.0 (linux; chttp2)"),
    ("grpc-accept-encoding", "identity, deflate, gzip"),
    ("grpc-timeout", "2500m"),
    ("x-tenant", "a"),
    ("x-blob-bin", "AAEC/w=="),
)


def infer(columns: int = 3, rows: int = 2) -> bytes:
    """A request of the inference protocol, with what a client can put into one."""
    request = pb.ModelInferRequest(model_name="flights", model_version="3", id="request-1")
    request.parameters["routing_key"].string_param = "user-7"
    request.parameters["timeout"].int64_param = 1000
    for at in range(columns):
        tensor = request.inputs.add(name=f"column_{at}", datatype="FP32", shape=[rows, 1])
        tensor.parameters["a"].bool_param = True
        request.raw_input_contents.append(struct.pack(f"<{rows}f", *range(rows)))
    request.outputs.add(name="label")
    return request.SerializeToString()


def _remembered(*calls: tuple[int, tuple[Pair, ...]]) -> list[bytes]:
    """Calls whose headers use HPACK's tables and Huffman's code, as clients send them."""
    encoder = hpack.Encoder()
    found = []
    for stream, pairs in calls:
        found.append(frame(HEADERS, END_HEADERS, stream, encoder.encode(list(pairs))))
        found.append(message(stream, infer()))
    return found


def _padded(kind: int, flags: int, stream: int, payload: bytes, padding: int) -> bytes:
    return frame(kind, flags | PADDED, stream, bytes((padding,)) + payload + bytes(padding))


def _all() -> tuple[tuple[bytes, ...], ...]:
    half = len(block(asks("Echo"))) // 2
    whole = block(asks("Echo"))
    torn = prefixed(b"torn over frames")
    return (
        (_OPENS, frame(SETTINGS, ACK, 0), call(1), window(0, 1000)),
        (_OPENS, *(call(stream, infer(), "Infer", *_METADATA) for stream in (1, 3, 5)), frame(PING, 0, 0, b"12345678")),
        (_OPENS, *(call(stream, plain.request(stream // 2 + 1), "Infer") for stream in (1, 3, 5, 7))),
        (
            _OPENS,
            call(1, plain.request(3), "Infer", ("grpc-timeout", "1S")),
            call(3, plain.request(60), "Infer"),
            reset(3),
        ),
        (
            _OPENS,
            frame(SETTINGS, ACK, 0),
            *_remembered(*((at, asks(UNARY[at % 5], *_METADATA)) for at in (1, 3, 5, 7))),
        ),
        (
            _OPENS,
            opening(1, asks("EchoAll", *_METADATA)),
            frame(DATA, 0, 1, prefixed(b"") * 5),
            frame(DATA, 0, 1, prefixed(b"one") + prefixed(b"two" * 50)),
            *(frame(DATA, 0, 1, torn[at : at + 4]) for at in range(0, len(torn), 4)),
            window(1, 1 << 16),
            frame(HEADERS, END_HEADERS | END_STREAM, 1, block((("x-last", "t"),))),
        ),
        (
            _OPENS,
            opening(1, asks("Many")),
            message(1, b"40"),
            opening(3, asks("FailAll")),
            frame(DATA, 0, 3, prefixed(b"a")),
            call(5, b"x", "Tell"),
            window(1, 100),
            reset(1),
        ),
        (
            _OPENS,
            frame(HEADERS, 0, 1, whole[:half]),
            frame(CONTINUATION, 0, 1, whole[half : half + 9]),
            frame(CONTINUATION, END_HEADERS, 1, whole[half + 9 :]),
            _padded(DATA, 0, 1, prefixed(b"abc")[:3], 7),
            _padded(DATA, END_STREAM, 1, prefixed(b"abc")[3:], 200),
            frame(
                HEADERS, END_HEADERS | HAS_PRIORITY, 3, b"\0\0\0\0\x10" + block(asks("Echo", ("content-length", "7")))
            ),
            message(3),
            frame(PRIORITY, 0, 3, b"\0\0\0\x01\x20"),
        ),
        (
            PREFACE + settings((4, 3)),
            call(1, b"waits for its window"),
            call(3, bytes(5000), "Hold"),
            settings((4, 2)),
            window(1, 9),
            settings((4, 1 << 16), (1, 0), (5, 1 << 15)),
            window(0, 1 << 20),
            frame(SETTINGS, ACK, 0),
            call(5, bytes(20_000)),
            frame(GOAWAY, 0, 0, bytes(8) + b"bye"),
        ),
        (
            _OPENS,
            *(call(stream, b"held", "Hold", ("grpc-timeout", "1n")) for stream in (1, 3)),
            call(5, prefixed(b"several")),
            opening(7, asks("Echo")),
            frame(DATA, END_STREAM, 7, prefixed(b"one") + prefixed(b"two")),
            opening(9, asks("Nothing"), END_HEADERS | END_STREAM),
            reset(3),
            call(11, b"\x1f\x8b", "Echo", ("grpc-encoding", "gzip")),
            opening(13, asks("Echo", ("grpc-encoding", "gzip"))),
            frame(DATA, END_STREAM, 13, prefixed(bytes(20), 1)),
        ),
    )


def _single(parts: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """The opening, and then each frame by itself."""
    found = [parts[0]]
    rest = b"".join(parts[1:])
    while rest:
        size = 9 + int.from_bytes(rest[:3], "big")
        found.append(rest[:size])
        rest = rest[size:]
    return tuple(found)


CONVERSATIONS: Final = tuple(map(_single, _all()))
