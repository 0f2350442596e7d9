"""Decodes the JSON files of Penstock: any bytes give the value or one sentence, and newer formats are refused by name.

Every such file carries `"format"`, so that an old server meets a new file with a clear refusal, not with half of it.
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
        InvalidInputError: It is not JSON, not of this shape, or of another format than `FORMAT`.
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
