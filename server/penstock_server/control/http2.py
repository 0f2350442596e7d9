"""Answers gRPC clients that come to the HTTP port by mistake: each call fails with a sentence that they show.

Only as much of HTTP/2 (RFC 9113) as that takes: no state of streams, no windows, and no compression of headers.
"""

import struct
from typing import Final
from urllib.parse import quote

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MOST_BYTES: Final = 64 * 1024
"""After this much from one client the connection ends."""
_HEAD: Final = struct.Struct(">HBBBI")
_DATA, _HEADERS, _SETTINGS, _PING = 0, 1, 4, 6
_ACK, _END_STREAM, _END_HEADERS = 1, 1, 4
_FRAME_BYTES: Final = 16_384
_UNIMPLEMENTED: Final = 12


class GrpcRefusal:
    """The server's side of one connection, after the client's preface.

    Args:
        sentence: what each call fails with.
    """

    def __init__(self, sentence: str) -> None:
        fields = b"\x88\x0f\x10" + _text("application/grpc")  # :status 200; content-type is field 31 of the table
        for name, value in (("grpc-status", str(_UNIMPLEMENTED)), ("grpc-message", quote(sentence, safe=" ,;:'()/-"))):
            fields += b"\0" + _text(name) + _text(value)
        self._fields = fields
        self._received = b""
        self._total = 0
        self._is_greeted = False

    def receive(self, data: bytes) -> bytes | None:
        """What to send for the next bytes; None ends the connection."""
        self._total += len(data)
        if self._total > MOST_BYTES:
            return None
        answer = b""
        if not self._is_greeted:
            self._is_greeted = True
            answer = _frame(_SETTINGS, 0, 0, b"")
        self._received += data
        while len(self._received) >= _HEAD.size:
            high, low, kind, flags, stream = _HEAD.unpack_from(self._received)
            size = high << 8 | low
            if size > _FRAME_BYTES:
                return None
            if len(self._received) < _HEAD.size + size:
                break
            payload, self._received = (
                self._received[_HEAD.size : _HEAD.size + size],
                self._received[_HEAD.size + size :],
            )
            if kind == _SETTINGS and not flags & _ACK:
                answer += _frame(_SETTINGS, _ACK, 0, b"")
            elif kind == _PING and not flags & _ACK:
                answer += _frame(_PING, _ACK, 0, payload)
            elif kind == _HEADERS:
                answer += _frame(_HEADERS, _END_STREAM | _END_HEADERS, stream & 0x7FFFFFFF, self._fields)
        return answer


def _frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return _HEAD.pack(len(payload) >> 8, len(payload) & 0xFF, kind, flags, stream) + payload


def _text(value: str) -> bytes:
    """A string of HPACK, not compressed; its length is below 127, or takes further bytes."""
    raw = value.encode("ascii")
    if len(raw) < 127:
        return bytes([len(raw)]) + raw
    length, rest = b"\x7f", len(raw) - 127
    while rest >= 128:
        length += bytes([rest & 0x7F | 0x80])
        rest >>= 7
    return length + bytes([rest]) + raw
