"""Header blocks: the request's, encoded once, and the verdict over a response's trailers.

This client announces a header table of size 0, so a block's meaning depends on no earlier block: it is decoded the
first time and looked up afterwards.
Source: RFC 7541 (HPACK); gRPC over HTTP/2, "Responses".
"""

from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote

from hpack import Decoder
from hpack.exceptions import HPACKError

from penstock_client.http2.frames import ProtocolError, header_block

OK: Final = ""
"""The verdict over trailers with grpc-status 0; every other verdict is the reason for a failure."""

_KNOWN_LIMIT: Final = 1024
_MESSAGE_CHARACTERS: Final = 80


def request_block(path: str, authority: str, extra: Iterable[tuple[str, str]] = ()) -> bytes:
    """The header block of a gRPC call."""
    fields = (
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", authority),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        *extra,
    )
    return header_block(fields)


def decode(block: bytes) -> list[tuple[str, str]]:
    """The fields of a block from a server, given a header table of size 0.

    Raises:
        ProtocolError: the block is torn, or refers to a table that must be empty.
    """
    decoder = Decoder()
    decoder.header_table_size = decoder.max_allowed_table_size = 0
    try:
        return [(str(name), str(value)) for name, value in decoder.decode(block)]
    except (HPACKError, UnicodeDecodeError) as error:
        raise ProtocolError(f"a header block cannot be decoded: {error}") from error


def judge(fields: Iterable[tuple[str, str]]) -> str:
    """The verdict over a response's trailers: `OK`, or one short reason."""
    values = dict(fields)
    status = values.get("grpc-status")
    if status == "0":
        return OK
    if status is None:
        return f"no grpc-status, HTTP status {values.get(':status', 'absent')}"
    message = unquote(values.get("grpc-message", ""))[:_MESSAGE_CHARACTERS]
    return f"grpc-status {status}: {message}" if message else f"grpc-status {status}"


class Verdicts:
    """Remembers the verdict over each distinct trailer block."""

    __slots__ = ("_known",)

    def __init__(self) -> None:
        self._known: dict[bytes, str] = {}

    def of(self, block: bytes) -> str:
        """The verdict over a block; a new block is decoded."""
        verdict = self._known.get(block)
        if verdict is None:
            if len(self._known) >= _KNOWN_LIMIT:  # trailers that differ each time must not fill the memory
                self._known.clear()
            verdict = self._known[block] = judge(decode(block))
        return verdict
