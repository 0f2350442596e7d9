"""Maps each error to its gRPC status; no other module knows the codes, or what of an error callers may see.

Clients refuse more than 8 KiB of headers and trailers, and show "Stream removed" instead of what was said. So details and
trailers are bounded here, whatever an error quotes.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import ceil
from typing import Final

from penstock_server import errors
from penstock_server.call import Metadata
from penstock_server.errors import PenstockError


class StatusCode(IntEnum):
    """gRPC's codes. Those of grpcio are the same, and 25 ms and 8 MB of a worker that serves over HTTP/2 of its own."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


_CODES: Final[dict[type[PenstockError], StatusCode]] = {
    errors.InvalidInputError: StatusCode.INVALID_ARGUMENT,
    errors.NotFoundError: StatusCode.NOT_FOUND,
    errors.NotReadyError: StatusCode.UNAVAILABLE,
    errors.StandbyError: StatusCode.UNAVAILABLE,
    # Not UNAVAILABLE, which clients retry on their own: they would triple the load when it is already too high.
    errors.OverloadedError: StatusCode.RESOURCE_EXHAUSTED,
    errors.DeadlinePassedError: StatusCode.DEADLINE_EXCEEDED,
    errors.ModelFailedError: StatusCode.INTERNAL,
    errors.RefusedByModelError: StatusCode.INVALID_ARGUMENT,
    errors.UnavailableError: StatusCode.UNAVAILABLE,
    errors.UnsupportedError: StatusCode.UNIMPLEMENTED,
    errors.DeniedError: StatusCode.PERMISSION_DENIED,
    errors.UnauthenticatedError: StatusCode.UNAUTHENTICATED,
    errors.LimitedError: StatusCode.RESOURCE_EXHAUSTED,
}
MAX_DETAILS_BYTES: Final = 1024
"""Bytes of UTF-8; on the wire each byte that is no printable ASCII takes three."""
MAX_TRAILERS_BYTES: Final = 4096
_PAIR_BYTES: Final = 32
"""What HTTP/2 counts for a pair beside its name and value."""
_CUT: Final = "..."

_SOURCES: Final = r"(?:py|pyx|pxi|pyc|so|c|cc|cpp|cxx|h|hpp|cu|rs)"


def _places(folders: Sequence[str]) -> "re.Pattern[str]":
    """Matches what tells where something lies on this machine: paths below these folders of the root, and source lines.

    A name that merely begins with a slash, as the tensors of PyTorch's exports do, is no path of this machine.
    """
    roots = "|".join(sorted(map(re.escape, folders), reverse=True)) or "(?!)"
    return re.compile(
        rf"(?P<quote>['\"`])(?:file:)?/+(?:{roots})(?:/(?:(?!(?P=quote)).)*)?(?P=quote)"
        rf"|(?<![\w/.~-])(?:file:)?/+(?:{roots})(?:/[^\s'\"`,;)\]]*)?(?![\w-])"
        rf"|(?:[\w.@+-]*/)+[\w.@+-]+\.{_SOURCES}\b(?::\d+)?"
        rf"|\b[\w@+-]+\.{_SOURCES}:\d+"
    )


def _root_folders() -> list[str]:
    try:
        return [entry.name for entry in os.scandir("/") if entry.is_dir()]
    except OSError:
        return []


_PLACES: Final = _places(_root_folders())
_PUSHBACK: Final = "grpc-retry-pushback-ms"
"""When a client may try again; below 0 it is not to (gRPC's A6)."""
_DO_NOT_RETRY: Final[Metadata] = ((_PUSHBACK, "-1"),)


@dataclass(frozen=True, slots=True)
class Status:
    """How a call ends: a gRPC code, its details in one sentence, and trailing metadata."""

    code: StatusCode
    details: str
    trailers: Metadata = ()

    @property
    def number(self) -> int:
        """The code as it is on the wire."""
        return int(self.code)


OK: Final = Status(StatusCode.OK, "")


def status_of(error: PenstockError) -> Status:
    """The status that a caller sees for this error."""
    code = _CODES.get(type(error), StatusCode.INTERNAL)
    details = shown(str(error)) if type(error) in _CODES else "internal error"
    return Status(code, details, _trailers(error))


def _trailers(error: PenstockError) -> Metadata:
    if isinstance(error, errors.LimitedError | errors.StandbyError):
        return ((_PUSHBACK, str(max(1, ceil(1000 * error.retry_after_s)))),)
    return _DO_NOT_RETRY if isinstance(error, errors.OverloadedError) else ()


def shown(text: str) -> str:
    """The text as callers may see it: without places on this machine, as valid UTF-8 of at most `MAX_DETAILS_BYTES`."""
    text = text[: 4 * MAX_DETAILS_BYTES]  # bounds what the search costs
    if "/" in text or ":" in text:
        text = _PLACES.sub("(a file of the server)", text)
    encoded = text.encode(errors="replace")
    if len(encoded) > MAX_DETAILS_BYTES:
        encoded = encoded[: MAX_DETAILS_BYTES - len(_CUT)]
        return encoded.decode(errors="ignore") + _CUT
    return encoded.decode()


def trailers_of(own: Metadata, status: Status) -> Metadata:
    """The trailing metadata of a call: the status's, and as many of the call's own as fit `MAX_TRAILERS_BYTES`."""
    if not own:
        return status.trailers
    kept = list(status.trailers)
    size = sum(map(_size, kept))
    for pair in own:
        size += _size(pair)
        if size > MAX_TRAILERS_BYTES:
            break
        kept.append(pair)
    return tuple(kept)


def _size(pair: tuple[str, str | bytes]) -> int:
    return len(pair[0]) + len(pair[1]) + _PAIR_BYTES
