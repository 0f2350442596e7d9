"""Static tokens: random texts, of which the server's file holds the hashes alone.

A line of the file is a name, the token's SHA-256 in hexadecimal, and perhaps the day or time at which it ends:

    shop  4f1c...  2027-01-31
    # comments begin so

A token has 256 random bits, so its hash needs neither salt nor a slow function.
"""

import hashlib
import re
import secrets
from datetime import UTC, datetime
from math import inf
from pathlib import Path
from typing import Final

from penstock_server.access.identity import Identity
from penstock_server.errors import InvalidInputError

PREFIX: Final = "pst_"
"""With it scanners for leaked secrets find tokens."""
_RANDOM_BYTES: Final = 32
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@/-]{0,127}")
_HASH: Final = re.compile(r"[0-9a-f]{64}")
MAX_FILE_BYTES: Final = 1 << 24


def new_token() -> str:
    """A token that nobody can guess."""
    return PREFIX + secrets.token_urlsafe(_RANDOM_BYTES)


def hash_of(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def line_of(name: str, token: str, ends: str = "") -> str:
    """The line of the file for a token.

    Raises:
        InvalidInputError: the name or the end is none.
    """
    line = " ".join(filter(None, (name, hash_of(token).hex(), ends)))
    read_tokens(line, "the new token")
    return line


def read_tokens(text: str, source: str) -> dict[bytes, Identity]:
    """The identities in a file's text by the hashes of their tokens.

    Raises:
        InvalidInputError: a line is none; names it.
    """
    found: dict[bytes, Identity] = {}
    for number, raw in enumerate(text.splitlines(), 1):
        words = raw.partition("#")[0].split()
        if not words:
            continue
        where = f"{source}, line {number}"
        if len(words) > 3 or len(words) < 2:
            raise InvalidInputError(f"{where} has {len(words)} words, expected a name, a hash, and perhaps an end")
        name, digest = words[0], words[1].lower()
        if not _NAME.fullmatch(name):
            raise InvalidInputError(f"{where} has the name {name[:40]!r}, expected letters, digits and . _ @ / -")
        if not _HASH.fullmatch(digest):
            raise InvalidInputError(
                f"{where} has no SHA-256 of 64 hexadecimal digits; `penstock token new` writes lines"
            )
        if bytes.fromhex(digest) in found:
            raise InvalidInputError(f"{where} has the hash of another line, expected each token once")
        ends_s = inf if len(words) == 2 else _end_s(words[2], where)
        found[bytes.fromhex(digest)] = Identity((f"token:{name}",), ends_s)
    return found


def _end_s(text: str, where: str) -> float:
    try:
        end = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInputError(f"{where} ends at {text[:40]!r}, expected a day or time such as 2027-01-31") from None
    return (end if end.tzinfo else end.replace(tzinfo=UTC)).timestamp()


def read_token_file(file: Path) -> dict[bytes, Identity]:
    """The identities in a file.

    Raises:
        InvalidInputError: it cannot be read, or a line is none.
    """
    return read_tokens(read_text(file), str(file))


def read_text(file: Path) -> str:
    """A small file's text.

    Raises:
        InvalidInputError: it cannot be read.
    """
    try:
        with file.open("rb") as opened:
            content = opened.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InvalidInputError(f"cannot read {file}: {error.strerror}") from error
    if len(content) > MAX_FILE_BYTES:
        raise InvalidInputError(f"{file} has more than {MAX_FILE_BYTES:,} bytes")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"{file} is not text in UTF-8") from error
