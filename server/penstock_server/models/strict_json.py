"""Decodes Penstock's own JSON files strictly: any bytes give the value, or an error of one sentence.

The files are manifests, golden requests, the last known state and the cache's records. Each has a `"format"`, which is
read first, so that an old server refuses a newer file by its format and not by an unknown field.
"""

from typing import TypeVar

import msgspec

from penstock_server.errors import InvalidInputError

FORMAT = 1
_Content = TypeVar("_Content")


class _Versioned(msgspec.Struct):
    format: int


def decode(raw: bytes, kind: type[_Content]) -> _Content:
    """The value of type `kind` that `raw` holds.

    Raises:
        InvalidInputError: It is not JSON, does not fit `kind`, or has a format other than `FORMAT`.
    """
    found = _decode(raw, _Versioned).format
    if found != FORMAT:
        raise InvalidInputError(f"format is {found}; this release reads format {FORMAT}")
    return _decode(raw, kind)


def _decode(raw: bytes, kind: type[_Content]) -> _Content:
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"not the expected JSON: {error}") from error
    except RecursionError as error:
        raise InvalidInputError("not the expected JSON: it is nested too deeply") from error
