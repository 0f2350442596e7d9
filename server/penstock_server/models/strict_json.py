"""Decodes Penstock's own JSON files strictly: any bytes give the value, or an error of one sentence.

The files are manifests, golden requests, the last known state and the cache's records. Each has a `"format"`, which is
read first, so that an old server refuses a newer file by its format and not by an unknown field.

Decoders are made when a module is imported, here and everywhere in the server. The first look that msgspec takes at a
class fills what it keeps about that class, and another thread that decodes the class meanwhile ends the process
(msgspec 0.22).
"""

from typing import Final, TypeVar

import msgspec

from penstock_server.errors import InvalidInputError

FORMAT = 1
_Content = TypeVar("_Content")


class _Versioned(msgspec.Struct):
    format: int


_versioned: Final = msgspec.json.Decoder(_Versioned)


def decode(raw: bytes, decoder: msgspec.json.Decoder[_Content]) -> _Content:
    """The value that `raw` holds, of the decoder's type.

    Raises:
        InvalidInputError: It is not JSON, does not fit the type, or has a format other than `FORMAT`.
    """
    found = _decode(raw, _versioned).format
    if found != FORMAT:
        raise InvalidInputError(f"format is {found}; this release reads format {FORMAT}")
    return _decode(raw, decoder)


def _decode(raw: bytes, decoder: msgspec.json.Decoder[_Content]) -> _Content:
    try:
        return decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"not the expected JSON: {error}") from error
    except RecursionError as error:
        raise InvalidInputError("not the expected JSON: it is nested too deeply") from error
