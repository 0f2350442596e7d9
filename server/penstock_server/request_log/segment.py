"""The segment file: a worker appends logged requests to it, and the compactor converts it to Parquet.

A segment begins with a line that names the format, then come frames: length, CRC-32, and a msgpack body. The first body
is the header, every other one a logged request. A worker that dies leaves a torn last frame, and a reader stops before
it. No length is trusted beyond the end of the file.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from penstock.names import VersionKey
from penstock_server.errors import InvalidInputError

FORMAT: Final = b"penstock request log 1\n"
MAX_FRAME_BYTES: Final = 256 * 1024 * 1024
"""More than the largest request takes with its answer."""
MAX_COLUMNS: Final = 65_536
_HEAD: Final = struct.Struct("<II")


class LoggedTensor(msgspec.Struct, frozen=True, array_like=True):
    """A block of a request or an answer.

    Attributes:
        names: the columns that share the block, side by side in each row; one for most.
        datatype: the protocol's name of its type.
        is_list: a row of a column may hold other than one element.
    """

    names: tuple[str, ...]
    datatype: str
    is_list: bool = False


class SegmentHeader(msgspec.Struct, frozen=True, array_like=True):
    """What all requests of a segment share: the version that answered, and its blocks."""

    model: str
    version: str
    inputs: tuple[LoggedTensor, ...]
    outputs: tuple[LoggedTensor, ...]

    def __post_init__(self) -> None:
        columns = sum(len(tensor.names) for tensor in (*self.inputs, *self.outputs))
        if columns > MAX_COLUMNS:
            raise ValueError(f"{columns} columns, expected at most {MAX_COLUMNS}")


class LoggedRequest(msgspec.Struct, frozen=True, array_like=True):
    """A request and its answer.

    Attributes:
        answered_s: when it was answered, seconds since 1970.
        rows: how many rows its blocks hold.
        inputs, outputs: raw contents in the order of the header's blocks, as they are on the wire.
        trace_id: of the trace that it belongs to, in 32 digits, or "".
        weight: the share of requests that this version was to get when it got this one, 0 to 1; None if the request named it.
    """

    answered_s: float
    request_id: str
    role: str
    rows: int
    inputs: tuple[bytes, ...]
    outputs: tuple[bytes, ...]
    trace_id: str = ""
    weight: float | None = None


BlockForm = tuple[tuple[str, ...], str, tuple[int, ...], bool]
"""The names, the datatype and a row's dimensions of a block, and whether it is one tensor of a request that runs alone."""


def header_of(key: VersionKey, inputs: Iterable[BlockForm], outputs: Iterable[BlockForm]) -> SegmentHeader:
    """The header for a version with these blocks."""
    return SegmentHeader(*key, tuple(map(_logged, inputs)), tuple(map(_logged, outputs)))


def _logged(block: BlockForm) -> LoggedTensor:
    names, datatype, row_shape, is_whole = block
    # A request that runs alone is one row of the log, so each of its tensors is a list there.
    return LoggedTensor(names, datatype, is_list=is_whole or any(size != 1 for size in row_shape))


_encoder: Final = msgspec.msgpack.Encoder()
_headers: Final = msgspec.msgpack.Decoder(SegmentHeader)
_requests: Final = msgspec.msgpack.Decoder(LoggedRequest)


def framed(body: SegmentHeader | LoggedRequest) -> bytes:
    """A header or a request as one frame."""
    encoded = _encoder.encode(body)
    return _HEAD.pack(len(encoded), zlib.crc32(encoded)) + encoded


def read_segment(path: Path) -> tuple[SegmentHeader, Iterator[LoggedRequest]]:
    """A segment's header, and its whole requests, read one by one.

    Raises:
        InvalidInputError: the file is not a segment, or its header is cut short.
    """
    bodies = _bodies(path)
    try:
        header = _headers.decode(next(bodies))
    except (StopIteration, msgspec.DecodeError, ValueError) as error:
        raise InvalidInputError(f"{path} is not a segment of a request log, or its header is cut short") from error
    return header, _read_requests(bodies)


def _read_requests(bodies: Iterator[bytes]) -> Iterator[LoggedRequest]:
    for body in bodies:
        try:
            yield _requests.decode(body)
        except msgspec.DecodeError:
            return


def _bodies(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        left = path.stat().st_size - len(FORMAT)
        if file.read(len(FORMAT)) != FORMAT:
            return
        while (body := _body(file, left)) is not None:
            left -= _HEAD.size + len(body)
            yield body


def _body(file: BinaryIO, left: int) -> bytes | None:
    """The next frame's body, or None where the file ends or is torn."""
    head = file.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    size, checksum = _HEAD.unpack(head)
    if size > min(left - _HEAD.size, MAX_FRAME_BYTES):
        return None
    body = file.read(size)
    return body if len(body) == size and zlib.crc32(body) == checksum else None
