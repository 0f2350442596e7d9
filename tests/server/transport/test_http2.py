"""HTTP/2's rules, case by case, against a native transport that runs: what h2spec checks, and gRPC's own layer above it.

Each case says what RFC 9113 asks for. Where it leaves a choice, this is ours. After each the connection that is to live
answers a call, and so does another one, which nobody disturbs.
"""

import socket
import time
from dataclasses import dataclass
from typing import Final

import grpc
import pytest

from bench.fuzz.frames import (
    ACK,
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    GRPC,
    HAS_PRIORITY,
    HEADERS,
    NO_ERROR,
    PADDED,
    PING,
    POST,
    PREFACE,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    REFUSED_STREAM,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    Pair,
    asks,
    block,
    call,
    frame,
    in_frames,
    message,
    opening,
    prefixed,
    reset,
    settings,
    window,
)
from penstock_server.errors import OverloadedError
from penstock_server.transport import layout
from penstock_server.transport.native import MAX_HEADERS, MOST_STREAMS, STREAM_WINDOW
from penstock_server.transport.settings import TransportSettings
from tests.server.transport.http2_peer import Peer
from tests.server.transport.test_transports import Service, running, unary

TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Ends:
    """The connection ends with a GOAWAY of this code."""

    code: int


@dataclass(frozen=True, slots=True)
class Resets:
    """Stream 1 is reset with this code."""

    code: int


@dataclass(frozen=True, slots=True)
class Answers:
    """Stream 1 is answered with these messages and this status."""

    messages: tuple[bytes, ...] = (b"ab",)
    status: int | None = 0


@dataclass(frozen=True, slots=True)
class Ignores:
    """Nothing comes of it."""


@dataclass(frozen=True, slots=True)
class Leaves:
    """Stream 1 is answered with these messages, and the connection ends without a complaint."""

    messages: tuple[bytes, ...] = ()


Reaction = Ends | Resets | Answers | Ignores | Leaves
IGNORED: Final = Ignores()
ANSWERED: Final = Answers()


@dataclass(frozen=True, slots=True)
class Case:
    section: str
    name: str
    sent: bytes
    reaction: Reaction


def without(*names: str) -> tuple[Pair, ...]:
    """The headers of a call without these."""
    return tuple(pair for pair in asks("Echo") if pair[0] not in names)


def put(pair: Pair, at: int) -> tuple[Pair, ...]:
    """The headers of a call with another one at this place."""
    pairs = asks("Echo")
    return (*pairs[:at], pair, *pairs[at:])


def padded(kind: int, flags: int, stream: int, payload: bytes, padding: int, said: int | None = None) -> bytes:
    """A frame with padding, which may say that it has more than it has."""
    size = padding if said is None else said
    return frame(kind, flags | PADDED, stream, bytes((size,)) + payload + bytes(padding))


def blockwise(stream: int, *pieces: bytes, flags: int = 0) -> bytes:
    """Headers in as many frames as there are pieces."""
    frames = [frame(HEADERS if at == 0 else CONTINUATION, flags if at == 0 else 0, stream, piece)
              for at, piece in enumerate(pieces)]  # fmt: skip
    last = frames.pop()
    return b"".join(frames) + last[:4] + bytes((last[4] | END_HEADERS,)) + last[5:]


def depends(on: int) -> bytes:
    """A priority (RFC 7540, 6.3)."""
    return on.to_bytes(4, "big") + b"\x10"


BLOCK: Final = block(asks("Echo"))
HALF: Final = len(BLOCK) // 2
LARGEST: Final = 1 << 14
PENDING: Final = opening(1)
"""A call without its message: its stream is open."""
HELD: Final = call(1, method="Hold")
"""A call that is not answered: its stream is half closed."""
INDEXED: Final = b"\x83\x86"
""":method POST and :scheme http from HPACK's static table."""

CASES: Final = (
    # The start of a connection. Others of this kind are below, since here the connection has begun.
    Case("3.4", "settings may be empty", settings() + call(1), ANSWERED),
    # Frames.
    Case("4.1", "an unknown type is ignored", frame(0xEE, 0xFF, 0, bytes(8)) + call(1), ANSWERED),
    Case("4.1", "an unknown type on an idle stream is ignored", frame(0xEE, 0, 77, bytes(8)) + call(1), ANSWERED),
    Case("4.1", "unknown flags are ignored", frame(PING, 0xF6, 0, bytes(8)) + call(1), ANSWERED),
    Case("4.1", "the reserved bit is ignored", frame(PING, 0, 1 << 31, bytes(8)) + call(1), ANSWERED),
    Case("4.2", "DATA of the largest size",
         PENDING + frame(DATA, END_STREAM, 1, prefixed(bytes(LARGEST - 5))), Answers((bytes(LARGEST - 5),))),
    Case("4.2", "DATA over it", PENDING + frame(DATA, 0, 1, bytes(LARGEST + 1)), Ends(FRAME_SIZE_ERROR)),
    Case("4.2", "HEADERS over it", frame(HEADERS, END_HEADERS, 1, BLOCK + bytes(LARGEST)), Ends(FRAME_SIZE_ERROR)),
    Case("4.2", "a length of 16 MB", frame(HEADERS, END_HEADERS, 1, BLOCK, length=0xFFFFFF), Ends(FRAME_SIZE_ERROR)),
    Case("4.2", "an unknown type over it", frame(0xEE, 0, 0, bytes(LARGEST + 1)), Ends(FRAME_SIZE_ERROR)),
    Case("4.3", "a block that is no HPACK", frame(HEADERS, END_HEADERS, 1, b"\xff" * 20), Ends(COMPRESSION_ERROR)),
    Case("4.3", "PRIORITY inside a block",
         frame(HEADERS, 0, 1, BLOCK) + frame(PRIORITY, 0, 3, depends(0)), Ends(PROTOCOL_ERROR)),
    Case("4.3", "HEADERS of another stream inside a block", frame(HEADERS, 0, 1, BLOCK) + opening(3),
         Ends(PROTOCOL_ERROR)),
    Case("4.3", "an unknown type inside a block", frame(HEADERS, 0, 1, BLOCK) + frame(0xEE, 0, 1), Ends(PROTOCOL_ERROR)),
    Case("4.3", "PING inside a block", frame(HEADERS, 0, 1, BLOCK) + frame(PING, 0, 0, bytes(8)), Ends(PROTOCOL_ERROR)),
    Case("4.3", "a block that ends inside a field", frame(HEADERS, END_HEADERS, 1, BLOCK[:-1]), Ends(COMPRESSION_ERROR)),
    # Idle streams.
    Case("5.1", "DATA on an idle stream", message(1), Ends(PROTOCOL_ERROR)),
    Case("5.1", "RST_STREAM on an idle stream", reset(1), Ends(PROTOCOL_ERROR)),
    Case("5.1", "WINDOW_UPDATE on an idle stream", window(1, 10), Ends(PROTOCOL_ERROR)),
    Case("5.1", "CONTINUATION on an idle stream", frame(CONTINUATION, END_HEADERS, 1, BLOCK), Ends(PROTOCOL_ERROR)),
    Case("5.1", "PRIORITY on an idle stream", frame(PRIORITY, 0, 1, depends(0)) + call(1), ANSWERED),
    Case("5.1", "DATA on an idle stream of the server", message(2), Ends(PROTOCOL_ERROR)),
    # Half-closed streams: the caller has ended its side, and the server has not answered.
    Case("5.1", "DATA after END_STREAM", HELD + message(1), Ends(STREAM_CLOSED)),
    Case("5.1", "HEADERS after END_STREAM", HELD + opening(1), Ends(STREAM_CLOSED)),
    Case("5.1", "CONTINUATION after END_STREAM", HELD + frame(CONTINUATION, END_HEADERS, 1, BLOCK), Ends(PROTOCOL_ERROR)),
    Case("5.1", "WINDOW_UPDATE after END_STREAM", opening(1) + message(1) + window(1, 10), ANSWERED),
    Case("5.1", "PRIORITY after END_STREAM", opening(1) + message(1) + frame(PRIORITY, 0, 1, depends(0)), ANSWERED),
    # Closed streams.
    # What comes late on a closed stream may be an error or be ignored; nghttp2 remembers no closed streams, and ignores it.
    Case("5.1", "DATA after RST_STREAM", HELD + reset(1) + message(1), IGNORED),
    Case("5.1", "HEADERS after RST_STREAM", HELD + reset(1) + opening(1), IGNORED),
    Case("5.1", "CONTINUATION after RST_STREAM",
         HELD + reset(1) + frame(CONTINUATION, END_HEADERS, 1, BLOCK), Ends(PROTOCOL_ERROR)),
    Case("5.1", "WINDOW_UPDATE after RST_STREAM", HELD + reset(1) + window(1, 10), IGNORED),
    Case("5.1", "RST_STREAM twice", HELD + reset(1) + reset(1), IGNORED),
    Case("5.1", "PRIORITY after RST_STREAM", HELD + reset(1) + frame(PRIORITY, 0, 1, depends(0)), IGNORED),
    Case("5.1.1", "an even stream", opening(2), Ends(PROTOCOL_ERROR)),
    # The RFC asks for a connection error here. nghttp2 cannot tell such headers from the trailers of a stream that it has
    # reset, and which the peer still believes open, so it reads them and opens no stream.
    Case("5.1.1", "a lower stream than before", call(7, method="Hold") + call(1), IGNORED),
    Case("5.1.1", "DATA on a stream that a higher one has closed", call(7, method="Hold") + message(1), IGNORED),
    Case("5.1.1", "streams may be left out", call(1) + call(15), ANSWERED),
    # RFC 7540's priorities are gone; an implementation that still knows them may say so.
    Case("5.3.1", "HEADERS that depend on themselves",
         frame(HEADERS, END_HEADERS | HAS_PRIORITY, 1, depends(1) + BLOCK), Ends(PROTOCOL_ERROR)),
    Case("5.3.1", "PRIORITY that depends on itself", frame(PRIORITY, 0, 1, depends(1)), Ends(PROTOCOL_ERROR)),
    Case("5.3.2", "HEADERS with a priority",
         frame(HEADERS, END_HEADERS | HAS_PRIORITY, 1, depends(0) + BLOCK) + message(1), ANSWERED),
    # DATA.
    Case("6.1", "DATA on stream 0", frame(DATA, 0, 0, b"abc"), Ends(PROTOCOL_ERROR)),
    Case("6.1", "DATA with padding", PENDING + padded(DATA, END_STREAM, 1, prefixed(b"ab"), 100), ANSWERED),
    Case("6.1", "DATA that is all padding", PENDING + padded(DATA, 0, 1, b"", 255) + message(1), ANSWERED),
    Case("6.1", "padding as long as the payload", PENDING + padded(DATA, 0, 1, b"", 4, said=5), Ends(PROTOCOL_ERROR)),
    Case("6.1", "padding longer than the payload", PENDING + padded(DATA, 0, 1, b"abcd", 4, said=200),
         Ends(PROTOCOL_ERROR)),
    Case("6.1", "padding without its length", PENDING + frame(DATA, PADDED, 1), Ends(PROTOCOL_ERROR)),
    Case("6.1", "empty DATA before a message", PENDING + frame(DATA, 0, 1) + message(1), ANSWERED),
    Case("6.1", "empty DATA ends a stream", PENDING + message(1, flags=0) + frame(DATA, END_STREAM, 1), ANSWERED),
    # HEADERS.
    Case("6.2", "HEADERS on stream 0", frame(HEADERS, END_HEADERS, 0, BLOCK), Ends(PROTOCOL_ERROR)),
    Case("6.2", "HEADERS with padding", padded(HEADERS, END_HEADERS, 1, BLOCK, 9) + message(1), ANSWERED),
    Case("6.2", "padding longer than the block", padded(HEADERS, END_HEADERS, 1, BLOCK, 0, said=len(BLOCK) + 1),
         Ends(PROTOCOL_ERROR)),
    Case("6.2", "a priority that is cut", frame(HEADERS, END_HEADERS | HAS_PRIORITY, 1, bytes(4)), Ends(FRAME_SIZE_ERROR)),
    # PRIORITY.
    Case("6.3", "PRIORITY on stream 0", frame(PRIORITY, 0, 0, depends(1)), Ends(PROTOCOL_ERROR)),
    Case("6.3", "PRIORITY of four bytes", frame(PRIORITY, 0, 1, bytes(4)), Ends(FRAME_SIZE_ERROR)),
    # RST_STREAM.
    Case("6.4", "RST_STREAM on stream 0", reset(0), Ends(PROTOCOL_ERROR)),
    Case("6.4", "RST_STREAM of three bytes", HELD + frame(RST_STREAM, 0, 1, bytes(3)), Ends(FRAME_SIZE_ERROR)),
    Case("6.4", "RST_STREAM of five bytes", HELD + frame(RST_STREAM, 0, 1, bytes(5)), Ends(FRAME_SIZE_ERROR)),
    # SETTINGS.
    Case("6.5", "an acknowledgement with a payload", frame(SETTINGS, ACK, 0, bytes(6)), Ends(FRAME_SIZE_ERROR)),
    Case("6.5", "SETTINGS on a stream", frame(SETTINGS, 0, 1, bytes(6)), Ends(PROTOCOL_ERROR)),
    Case("6.5", "SETTINGS of five bytes", frame(SETTINGS, 0, 0, bytes(5)), Ends(FRAME_SIZE_ERROR)),
    Case("6.5.2", "a push setting of 2", settings((2, 2)), Ends(PROTOCOL_ERROR)),
    Case("6.5.2", "a window over 2^31-1", settings((4, 1 << 31)), Ends(FLOW_CONTROL_ERROR)),
    Case("6.5.2", "frames under 2^14", settings((5, LARGEST - 1)), Ends(PROTOCOL_ERROR)),
    Case("6.5.2", "frames over 2^24-1", settings((5, 1 << 24)), Ends(PROTOCOL_ERROR)),
    Case("6.5.2", "frames of 2^24-1", settings((5, (1 << 24) - 1)) + call(1), ANSWERED),
    Case("6.5.2", "an unknown setting", settings((0xEEEE, 77)) + call(1), ANSWERED),
    Case("6.5.2", "a table of 0 for headers", settings((1, 0)) + call(1), ANSWERED),
    Case("6.5.2", "a table of 4 GB for headers", settings((1, 0xFFFFFFFF)) + call(1), ANSWERED),
    Case("6.5.2", "no streams for the server", settings((3, 0)) + call(1), ANSWERED),
    Case("6.5.3", "the last of several values holds", settings((4, 0), (4, 100)) + call(1), ANSWERED),
    Case("6.5.3", "an acknowledgement of nothing", frame(SETTINGS, ACK, 0), Ends(PROTOCOL_ERROR)),
    # PUSH_PROMISE.
    Case("6.6", "PUSH_PROMISE from a client", HELD + frame(PUSH_PROMISE, END_HEADERS, 1, bytes((0, 0, 0, 2)) + BLOCK),
         Ends(PROTOCOL_ERROR)),
    Case("8.4", "PUSH_PROMISE on an idle stream", frame(PUSH_PROMISE, END_HEADERS, 1, bytes((0, 0, 0, 2)) + BLOCK),
         Ends(PROTOCOL_ERROR)),
    # PING.
    Case("6.7", "an acknowledgement of no PING", frame(PING, ACK, 0, b"nobodys!"), IGNORED),
    Case("6.7", "PING on a stream", frame(PING, 0, 1, bytes(8)), Ends(PROTOCOL_ERROR)),
    Case("6.7", "PING of six bytes", frame(PING, 0, 0, bytes(6)), Ends(FRAME_SIZE_ERROR)),
    Case("6.7", "PING of nine bytes", frame(PING, 0, 0, bytes(9)), Ends(FRAME_SIZE_ERROR)),
    # GOAWAY.
    Case("6.8", "GOAWAY on a stream", frame(GOAWAY, 0, 1, bytes(8)), Ends(PROTOCOL_ERROR)),
    Case("6.8", "GOAWAY of seven bytes", frame(GOAWAY, 0, 0, bytes(7)), Ends(FRAME_SIZE_ERROR)),
    Case("6.8", "calls that run are answered after GOAWAY",
         PENDING + frame(GOAWAY, 0, 0, bytes(8) + b"bye") + message(1), Leaves((b"ab",))),
    Case("6.8", "a connection without calls ends after GOAWAY", frame(GOAWAY, 0, 0, bytes(8)), Leaves()),
    # WINDOW_UPDATE.
    Case("6.9", "an increment of 0 for the connection", window(0, 0), Ends(PROTOCOL_ERROR)),
    Case("6.9", "an increment of 0 for a stream", HELD + window(1, 0), Ends(PROTOCOL_ERROR)),
    Case("6.9", "WINDOW_UPDATE of three bytes", frame(WINDOW_UPDATE, 0, 0, bytes(3)), Ends(FRAME_SIZE_ERROR)),
    Case("6.9", "WINDOW_UPDATE of five bytes", frame(WINDOW_UPDATE, 0, 0, bytes(5)), Ends(FRAME_SIZE_ERROR)),
    Case("6.9.1", "a connection's window over 2^31-1", window(0, 0x7FFFFFFF), Ends(FLOW_CONTROL_ERROR)),
    Case("6.9.1", "a stream's window over 2^31-1", HELD + window(1, 0x7FFFFFFF), Resets(FLOW_CONTROL_ERROR)),
    # The RFC asks for a connection error here; nghttp2 resets the streams whose windows are wrong, and no others.
    Case("6.9.2", "a setting that takes a stream's window over 2^31-1",
         HELD + window(1, 0x7FFFFFFF - 65_535) + settings((4, 65_536)), Resets(FLOW_CONTROL_ERROR)),
    # CONTINUATION.
    Case("6.10", "a block in two frames", blockwise(1, BLOCK[:HALF], BLOCK[HALF:]) + message(1), ANSWERED),
    Case("6.10", "a block in one-byte frames of up to eight",
         blockwise(1, *(BLOCK[at : at + 1] for at in range(7)), BLOCK[7:]) + message(1), ANSWERED),
    Case("6.10", "an empty CONTINUATION", blockwise(1, BLOCK, b"") + message(1), ANSWERED),
    Case("6.10", "DATA inside a block", frame(HEADERS, 0, 1, BLOCK) + message(1), Ends(PROTOCOL_ERROR)),
    Case("6.10", "CONTINUATION on stream 0", frame(HEADERS, 0, 1, BLOCK) + frame(CONTINUATION, END_HEADERS, 0),
         Ends(PROTOCOL_ERROR)),
    Case("6.10", "CONTINUATION of another stream", frame(HEADERS, 0, 1, BLOCK) + frame(CONTINUATION, END_HEADERS, 3),
         Ends(PROTOCOL_ERROR)),
    Case("6.10", "CONTINUATION after the end of a block",
         opening(1) + frame(CONTINUATION, END_HEADERS, 1, block((("a", "b"),))), Ends(PROTOCOL_ERROR)),
    Case("6.10", "CONTINUATION after DATA",
         opening(1) + message(1, flags=0) + frame(CONTINUATION, END_HEADERS, 1, BLOCK), Ends(PROTOCOL_ERROR)),
    # Error codes.
    Case("7", "GOAWAY with an unknown code", frame(GOAWAY, 0, 0, bytes(4) + b"\0\0\0\xff"), Leaves()),
    Case("7", "RST_STREAM with an unknown code", HELD + reset(1, 0xFF), IGNORED),
    # Messages.
    Case("8.1", "trailers end a request", PENDING + message(1, flags=0)
         + frame(HEADERS, END_HEADERS | END_STREAM, 1, block((("x-trailer", "t"),))), ANSWERED),
    Case("8.1", "second headers that end nothing", PENDING + frame(HEADERS, END_HEADERS, 1, block((("a", "b"),))),
         Resets(PROTOCOL_ERROR)),
    Case("8.1", "trailers with a pseudo-header", PENDING
         + frame(HEADERS, END_HEADERS | END_STREAM, 1, block(((":path", "/"),))), Resets(PROTOCOL_ERROR)),
    Case("8.2.1", "an upper-case name", opening(1, asks("Echo", ("X-Test", "a"))), Resets(PROTOCOL_ERROR)),
    Case("8.2.1", "a name with a space", opening(1, asks("Echo", ("x test", "a"))), Resets(PROTOCOL_ERROR)),
    Case("8.2.1", "a name with a zero", opening(1, asks("Echo", ("x\0test", "a"))), Resets(PROTOCOL_ERROR)),
    Case("8.2.1", "a name beyond ASCII", opening(1, asks("Echo", ("x\xe9", "a"))), Resets(PROTOCOL_ERROR)),
    Case("8.2.1", "an empty name", opening(1, asks("Echo", ("", "a"))), Resets(PROTOCOL_ERROR)),
    Case("8.2.1", "a name with a colon", opening(1, asks("Echo", ("a:b", "a"))), Resets(PROTOCOL_ERROR)),
    Case("8.2.1", "a value with a line's end", opening(1, asks("Echo", ("x-test", "a\r\nb"))), Resets(PROTOCOL_ERROR)),
    Case("8.2.1", "a value with a zero", opening(1, asks("Echo", ("x-test", "a\0b"))), Resets(PROTOCOL_ERROR)),
    Case("8.2.1", "an empty value", opening(1, asks("Echo", ("x-test", ""))) + message(1), ANSWERED),
    *(Case("8.2.2", f"{name}: {value}", opening(1, asks("Echo", (name, value))), Resets(PROTOCOL_ERROR))
      for name, value in (("connection", "close"), ("keep-alive", "timeout=5"), ("proxy-connection", "close"),
                          ("transfer-encoding", "chunked"), ("upgrade", "h2c"))),
    Case("8.2.2", "te: gzip", opening(1, (*POST, (":path", "/t.T/Echo"), GRPC[0], ("te", "gzip"))), Resets(PROTOCOL_ERROR)),
    Case("8.3", "an unknown pseudo-header", opening(1, put((":test", "a"), 0)), Resets(PROTOCOL_ERROR)),
    Case("8.3", "an answer's pseudo-header", opening(1, put((":status", "200"), 0)), Resets(PROTOCOL_ERROR)),
    Case("8.3", "a pseudo-header after another header", opening(1, (*without(":path"), (":path", "/t.T/Echo"))),
         Resets(PROTOCOL_ERROR)),
    *(Case("8.3.1", f"no {name}", opening(1, without(name)), Resets(PROTOCOL_ERROR))
      for name in (":method", ":scheme", ":path")),
    *(Case("8.3.1", f"two {name}", opening(1, put((name, value), 1)), Resets(PROTOCOL_ERROR))
      for name, value in ((":method", "POST"), (":scheme", "http"), (":path", "/t.T/Echo"), (":authority", "a"))),
    Case("8.3.1", "host instead of :authority", opening(1, (*without(":authority"), ("host", "a"))) + message(1), ANSWERED),
    Case("8.3.1", "neither :authority nor host", opening(1, without(":authority")), Resets(PROTOCOL_ERROR)),
    Case("8.3.1", "an empty :path", opening(1, put((":path", ""), 0)), Resets(PROTOCOL_ERROR)),
    Case("8.3.1", "a :path without a slash", opening(1, (*POST, (":path", "t.T/Echo"), *GRPC)), Resets(PROTOCOL_ERROR)),
    Case("8.1.1", "a content-length that DATA exceed", opening(1, asks("Echo", ("content-length", "6"))) + message(1),
         Resets(PROTOCOL_ERROR)),
    Case("8.1.1", "a content-length that DATA do not reach",
         opening(1, asks("Echo", ("content-length", "8"))) + message(1), Resets(PROTOCOL_ERROR)),
    Case("8.1.1", "a content-length of two frames",
         opening(1, asks("Echo", ("content-length", "7"))) + frame(DATA, 0, 1, prefixed(b"ab")[:3])
         + frame(DATA, END_STREAM, 1, prefixed(b"ab")[3:]), ANSWERED),
    Case("8.1.1", "a content-length that is no number", opening(1, asks("Echo", ("content-length", "7a"))),
         Resets(PROTOCOL_ERROR)),
    Case("8.1.1", "a content-length twice",
         opening(1, asks("Echo", ("content-length", "7"), ("content-length", "7"))), Resets(PROTOCOL_ERROR)),
    Case("8.1.1", "a content-length without DATA",
         opening(1, asks("Echo", ("content-length", "7")), END_HEADERS | END_STREAM), Resets(PROTOCOL_ERROR)),
    # HPACK (RFC 7541).
    Case("7541 2.3.3", "an index that no table has", frame(HEADERS, END_HEADERS, 1, b"\xbe" + BLOCK), Ends(COMPRESSION_ERROR)),
    Case("7541 4.2", "a table's size after a field",
         frame(HEADERS, END_HEADERS, 1, BLOCK + b"\x20"), Ends(COMPRESSION_ERROR)),
    Case("7541 4.2", "a table's size before the fields",
         frame(HEADERS, END_HEADERS, 1, b"\x20" + BLOCK) + message(1), ANSWERED),
    Case("7541 5.1", "an integer without an end", frame(HEADERS, END_HEADERS, 1, b"\xff" + b"\xff" * 40),
         Ends(COMPRESSION_ERROR)),
    Case("7541 5.2", "Huffman's padding over seven bits", frame(HEADERS, END_HEADERS, 1, b"\x00\x01a\x82\x1f\xff" + BLOCK),
         Ends(COMPRESSION_ERROR)),
    Case("7541 5.2", "Huffman's padding of zeros", frame(HEADERS, END_HEADERS, 1, b"\x00\x01a\x81\x18" + BLOCK),
         Ends(COMPRESSION_ERROR)),
    Case("7541 5.2", "Huffman's end of string", frame(HEADERS, END_HEADERS, 1, b"\x00\x01a\x84\xff\xff\xff\xff" + BLOCK),
         Ends(COMPRESSION_ERROR)),
    Case("7541 6.1", "an index of 0", frame(HEADERS, END_HEADERS, 1, b"\x80" + BLOCK), Ends(COMPRESSION_ERROR)),
    Case("7541 6.3", "a table larger than the setting", frame(HEADERS, END_HEADERS, 1, b"\x3f\xe2\x1f" + BLOCK),
         Ends(COMPRESSION_ERROR)),
    Case("7541 C.2", "fields from the static table",
         frame(HEADERS, END_HEADERS, 1, INDEXED + block((POST[2], (":path", "/t.T/Echo"), GRPC[0]))) + message(1), ANSWERED),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.section} {case.name}")
def test_rules(peer: Peer, case: Case) -> None:
    peer.send(case.sent)
    reaction = case.reaction
    if isinstance(reaction, Ends):
        assert [got.code for got in peer.until_closed()] == [reaction.code]
        return
    answer = peer.answer(1)
    if isinstance(reaction, Leaves):
        assert (peer.until_closed(), tuple(answer.messages)) == ([], reaction.messages)
        return
    assert peer.is_alive()
    if isinstance(reaction, Resets):
        assert (answer.reset, answer.status) == (reaction.code, None)
    elif isinstance(reaction, Answers):
        peer.finish(1)
        assert (tuple(answer.messages), answer.status) == (reaction.messages, reaction.status)
        assert answer.reset in (None, NO_ERROR)
    else:
        assert (answer.reset, answer.headers) == (None, {})
    assert peer.of(GOAWAY) == []


@pytest.mark.parametrize(
    "begun",
    [b"", PREFACE[:1], PREFACE[:20], PREFACE, PREFACE + settings()[:5]],
    ids=["nothing", "a letter", "most of it", "all of it", "half of its settings"],
)
def test_a_connection_must_begin_in_time(begun: bytes) -> None:
    service = Service()
    with running("native", service) as (transport, address):
        transport._tables.state[layout.PREFACE_TIMEOUT // 8] = 400_000_000  # type: ignore[attr-defined]
        with Peer(address) as other, Peer(address, begun) as late:
            other.shake_hands()
            before_s = time.monotonic()
            assert late.until_closed() == []
            assert 0.3 < time.monotonic() - before_s < TIMEOUT_S / 2
            assert other.is_alive()


@pytest.mark.parametrize("size", [1, 7, 23])
def test_the_preface_may_come_in_pieces(native_address: str, size: int) -> None:
    opens = PREFACE + settings() + call(1)
    with Peer(native_address, b"") as slow:
        for at in range(0, len(opens), size):
            slow.send(opens[at : at + size])
        assert slow.finish(1).messages == [b"ab"]


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nhost: a\r\n\r\n",
        b"POST /t.T/Echo HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n",
        b"PUT /a HTTP/1.0\r\n\r\n",
        # RFC 9113, 3.1: the upgrade of RFC 7540 is gone.
        b"GET / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABk\r\n\r\n",
    ],
    ids=["GET", "POST", "HTTP/1.0", "upgrade"],
)
@pytest.mark.parametrize("is_slow", [False, True])
def test_who_speaks_http_1_is_told_so(native_address: str, sent: bytes, is_slow: bool) -> None:
    with socket.create_connection(native_address.rsplit(":", 1), TIMEOUT_S) as plain:
        if is_slow:
            plain.sendall(sent[:1])
            time.sleep(0.05)
            sent = sent[1:]
        plain.sendall(sent)
        told = b""
        while data := plain.recv(4096):
            told += data
    assert told.startswith(b"HTTP/1.1 400 ")
    assert told.endswith(b"\r\n\r\nthis port speaks gRPC, which is over HTTP/2\n")


@pytest.mark.parametrize(
    ("begins", "code"),
    [
        (PREFACE + opening(1), PROTOCOL_ERROR),
        (PREFACE + frame(PING, 0, 0, bytes(8)), PROTOCOL_ERROR),
        (PREFACE + frame(SETTINGS, ACK, 0), PROTOCOL_ERROR),
    ],
    ids=["headers", "ping", "an acknowledgement"],
)
def test_the_first_frame_is_settings(native_address: str, begins: bytes, code: int) -> None:
    with Peer(native_address, begins) as wrong:
        assert [got.code for got in wrong.until_closed()] == [code]


def test_what_is_no_http_ends_without_a_word_of_http_2(native_address: str) -> None:
    with socket.create_connection(native_address.rsplit(":", 1), TIMEOUT_S) as plain:
        plain.sendall(bytes(100))
        assert plain.recv(100).startswith(b"HTTP/1.1 400 ")


def test_settings_are_answered_once_each_and_a_ping_with_its_own_bytes(peer: Peer) -> None:
    peer.send(settings((4, 70_000)), frame(PING, 0, 0, b"tortoise"))
    assert peer.is_alive()
    # One acknowledgement is of the opening's settings.
    assert [got.payload for got in peer.of(SETTINGS) if got.flags & ACK] == [b"", b""]
    assert [(got.flags, got.payload) for got in peer.of(PING)] == [(ACK, b"tortoise")]


def test_the_server_says_its_limits_first(native_address: str) -> None:
    with Peer(native_address) as new:
        new.until(lambda: bool(new.of(SETTINGS)))
        payload = new.of(SETTINGS)[0].payload
        said = {payload[at + 1]: int.from_bytes(payload[at + 2 : at + 6], "big") for at in range(0, len(payload), 6)}
        assert new.others[0].kind == SETTINGS
        assert said == {3: MOST_STREAMS, 4: STREAM_WINDOW, 6: MAX_HEADERS}


def test_more_streams_than_the_setting_are_refused() -> None:
    service = Service()
    limited = running("native", service, TransportSettings(max_streams=3))
    with limited as (_, address), Peer(address) as before, Peer(address) as after:
        # Until the setting is acknowledged the caller may not know it (RFC 9113, 5.1.2 and 6.5.3).
        before.send(*(call(stream, method="Hold") for stream in (1, 3, 5, 7)))
        assert before.finish(7).reset == REFUSED_STREAM
        before.send(reset(1))
        assert before.is_alive()
        after.shake_hands()
        after.send(*(call(stream, method="Hold") for stream in (1, 3, 5, 7)))
        assert [got.code for got in after.until_closed()] in ([PROTOCOL_ERROR], [])
        assert after.answer(7).reset in (REFUSED_STREAM, None)


def body(size: int) -> bytes:
    return bytes(at * 31 % 251 for at in range(size))


def data_of(peer: Peer, stream: int) -> int:
    """How many bytes of DATA have come when the server has said all that it can now: the answer to a ping tells."""
    seen = len(peer.of(PING))
    peer.send(frame(PING, 0, 0, bytes(8)))
    peer.until(lambda: len(peer.of(PING)) > seen)
    peer.send(frame(PING, 0, 0, bytes(8)))  # what was ready went out behind the first
    peer.until(lambda: len(peer.of(PING)) > seen + 1)
    return len(peer.answer(stream).body)


def test_an_answer_waits_for_the_window_of_its_connection(peer: Peer) -> None:
    content = body(100_000)
    peer.send(settings((4, 1_000_000)), opening(1), *in_frames(1, prefixed(content)))
    peer.until(lambda: len(peer.answer(1).body) >= 65_535)
    assert data_of(peer, 1) == 65_535
    peer.send(window(0, 5_000))
    assert data_of(peer, 1) == 70_535
    peer.send(window(0, 1_000_000))
    assert peer.finish(1).messages == [content]


def test_an_answer_waits_for_the_window_of_its_stream(peer: Peer) -> None:
    peer.send(settings((4, 1)), call(1, b"abc"))
    peer.until(lambda: bool(peer.answer(1).body))
    assert data_of(peer, 1) == 1
    peer.send(window(1, 3))
    assert data_of(peer, 1) == 4
    peer.send(window(1, 100))
    assert peer.finish(1).messages == [b"abc"]


def test_a_setting_changes_the_windows_of_open_streams_even_to_below_nothing(peer: Peer) -> None:
    peer.send(settings((4, 3)), call(1, b"abc"))
    peer.until(lambda: bool(peer.answer(1).body))
    assert data_of(peer, 1) == 3
    peer.send(settings((4, 2)))  # the window is -1 now
    assert data_of(peer, 1) == 3
    peer.send(window(1, 1))  # and 0
    assert data_of(peer, 1) == 3
    peer.send(window(1, 1))
    assert data_of(peer, 1) == 4
    peer.send(settings((4, 100)))
    assert peer.finish(1).messages == [b"abc"]


def test_an_empty_answer_needs_no_window(peer: Peer) -> None:
    peer.send(settings((4, 0)), opening(1, asks("Nothing"), END_HEADERS | END_STREAM))
    assert peer.finish(1).status == 12


def test_the_server_gives_windows_back_also_those_of_padding(peer: Peer) -> None:
    content = body(3 * STREAM_WINDOW // 256)
    whole = prefixed(content)
    peer.send(opening(1))
    for at in range(0, len(whole), 16):
        peer.send(*(padded(DATA, 0, 1, whole[at + one : at + one + 1], 255) for one in range(16)))
    peer.send(frame(DATA, END_STREAM, 1))
    assert peer.finish(1).messages == [content]
    assert (
        sum(int.from_bytes(got.payload, "big") for got in peer.of(WINDOW_UPDATE) if got.stream == 1)
        >= 2 * STREAM_WINDOW
    )


BAD: Final = block(asks("Echo", ("connection", "close")))
FLOODS: Final = {
    # The attack of CVE-2023-44487: calls that are cancelled at once, so that no limit of streams holds them.
    "rapid resets": lambda at: call(2 * at + 1, method="Hold") + reset(2 * at + 1),
    # Its mirror (CVE-2025-8671): the server itself is made to reset them, by an error of the caller's.
    "resets by the server": lambda at: call(2 * at + 1, method="Hold") + window(2 * at + 1, 0x7FFFFFFF),
    "malformed calls": lambda at: frame(HEADERS, END_HEADERS | END_STREAM, 2 * at + 1, BAD),
    "pings": lambda _: frame(PING, 0, 0, bytes(8)),
    "settings": lambda _: settings(),
    "priorities": lambda at: frame(PRIORITY, 0, 2 * at + 1, depends(0)),
    "empty data": lambda at: opening(1) if at == 0 else frame(DATA, 0, 1),
    "data that are all padding": lambda at: opening(1) if at == 0 else padded(DATA, 0, 1, b"", 0),
    "a block in many frames": lambda at: frame(
        CONTINUATION if at else HEADERS, 0, 1, BLOCK if at == 0 else b"\x00\x01a\x01b"
    ),
}
PIECE: Final = 100


@pytest.mark.long
@pytest.mark.parametrize("flood", FLOODS)
def test_a_flood_ends_its_connection_and_no_other(peer: Peer, bystander: grpc.Channel, flood: str) -> None:
    answered = 0
    for at in range(0, 1_000_000, PIECE):
        peer.send(*(FLOODS[flood](one) for one in range(at, at + PIECE)))
        if at % 1000 == 0:
            assert unary(bystander, "Echo")(b"others", timeout=TIMEOUT_S) == b"others"
            answered += 1
        peer.read_what_came()
        if peer.is_closed:
            break
    assert [got.code for got in peer.until_closed()] == [ENHANCE_YOUR_CALM]
    assert answered


def test_one_settings_frame_has_few_entries(peer: Peer) -> None:
    peer.send(settings(*((0xEE00 + at, at) for at in range(2000))))
    assert [got.code for got in peer.until_closed()] == [ENHANCE_YOUR_CALM]


def test_headers_are_bounded(peer: Peer, native_service: Service) -> None:
    value = "v" * 1000
    peer.send(opening(1, asks("Echo", *((f"x-{at}", value) for at in range(14)))), message(1))
    assert peer.finish(1).status == 0
    large = block(asks("Echo", *((f"x-{at}", value) for at in range(40))))
    peer.send(blockwise(3, large[:16_000], large[16_000:32_000], large[32_000:]), message(3))
    refused = peer.finish(3)
    assert (refused.status, refused.headers["grpc-message"]) == (8, f"the metadata are larger than {MAX_HEADERS} bytes")
    assert peer.is_alive()
    assert isinstance(native_service.refusals[-1], OverloadedError)


def test_a_small_block_that_unfolds_to_large_headers_is_bounded(peer: Peer) -> None:
    """A field of 4 kB that HPACK's table remembers costs a byte each time."""
    entry = b"\x40" + block((("x-large", "v" * 3900),))[1:]
    peer.send(frame(HEADERS, END_HEADERS, 1, BLOCK + entry), message(1))
    assert peer.finish(1).status == 0
    peer.send(frame(HEADERS, END_HEADERS, 3, BLOCK + b"\xbe" * 10_000), message(3))
    assert peer.finish(3).status == 8
    peer.send(frame(HEADERS, END_HEADERS, 5, BLOCK + b"\xbe" * 3), message(5))
    assert peer.finish(5).status == 0
