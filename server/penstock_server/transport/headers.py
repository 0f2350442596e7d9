"""Metadata as HTTP/2 carries it: blocks of pairs for the kernels, gRPC's escapes for messages, base64 for bytes.

Source: "gRPC over HTTP2", the protocol's description in grpc/grpc.
"""

import binascii
import struct
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote_from_bytes, unquote_to_bytes

from penstock_server.call import Metadata
from penstock_server.transport.status import Status, StatusCode, trailers_of

_OF_STATUS: Final = frozenset({"grpc-status", "grpc-message"})
_CODES: Final = {int(code): code for code in StatusCode}
_SIZES: Final = struct.Struct("<II")
_PLAIN: Final = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")
_BINARY: Final = "-bin"
HIDDEN: Final = frozenset({"te", "grpc-accept-encoding"})
"""What belongs to the protocol and no handler asks for."""
_ACCEPTED: Final = b"grpc-accept-encoding"
ENCODINGS: Final = "identity,deflate,gzip"


def pair(name: str, value: str | bytes) -> bytes:
    """One header in a block: both sizes as 32 bits, then name and value."""
    raw_name, raw_value = name.encode(), value if isinstance(value, bytes) else value.encode()
    return _SIZES.pack(len(raw_name), len(raw_value)) + raw_name + raw_value


OPENING: Final = (
    pair(":status", "200") + pair("content-type", "application/grpc") + pair("grpc-accept-encoding", ENCODINGS)
)
"""The headers of every answer."""
GZIP: Final = pair("grpc-encoding", "gzip")
"""Follows them where messages may be compressed."""


def encoded(metadata: Metadata) -> bytes:
    """Metadata as a block; values under names that end in `-bin` are bytes."""
    return b"".join(pair(name, _base64(value) if name.endswith(_BINARY) else value) for name, value in metadata)


def as_received(metadata: Metadata) -> bytes:
    """Metadata as the block from which `decoded` gives them: each character of a text is a byte of the wire."""
    return b"".join(
        pair(name, value.encode("latin-1") if isinstance(value, str) else _base64(value)) for name, value in metadata
    )


def _pairs(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(block):
        name_size, value_size = _SIZES.unpack_from(block, at)
        at += _SIZES.size
        yield block[at : at + name_size], block[at + name_size : at + name_size + value_size]
        at += name_size + value_size


def decoded(block: bytes) -> Metadata:
    """The metadata in a block, as gRPC gives them to handlers."""
    found: list[tuple[str, str | bytes]] = []
    for raw_name, value in _pairs(block):
        name = raw_name.decode("latin-1")
        if name.endswith(_BINARY):
            found += [(name, _bytes(part)) for part in value.split(b",")]
        elif name not in HIDDEN:
            found.append((name, value.decode("latin-1")))
    return tuple(found)


def accepts_gzip(block: bytes) -> bool:
    """Whether the caller whose metadata this is takes messages that are compressed so."""
    return any(
        name == _ACCEPTED and b"gzip" in (part.strip() for part in value.split(b",")) for name, value in _pairs(block)
    )


def ending(status: Status, own: Metadata) -> bytes:
    """The trailers that end a call."""
    block = pair("grpc-status", str(status.number))
    if status.details:
        block += pair("grpc-message", quote_from_bytes(status.details.encode(), safe=_PLAIN))
    return block + encoded(trailers_of(own, status))


def status_in(block: bytes) -> Status:
    """The status that trailers name; INTERNAL where they name none."""
    found = dict(_pairs(block))
    number = found.get(b"grpc-status", b"13")
    details = unquote_to_bytes(found.get(b"grpc-message", b"")).decode(errors="replace")
    code = _CODES.get(int(number) if number.isdigit() else 13, StatusCode.INTERNAL)
    return Status(code, details, tuple(pair for pair in decoded(block) if pair[0] not in _OF_STATUS))


def _base64(value: str | bytes) -> bytes:
    raw = value.encode() if isinstance(value, str) else value
    return binascii.b2a_base64(raw, newline=False).rstrip(b"=")


def _bytes(text: bytes) -> bytes:
    try:
        return binascii.a2b_base64(text.strip() + b"=" * (-len(text.strip()) % 4), strict_mode=True)
    except binascii.Error:
        return text
