"""Files that are whole or not there: what kind a file is, the digest of its content, and the content.

Other users must not be able to put machine code, or what it trusts, into these files: folders are made for this user alone.
"""

import hashlib
from pathlib import Path
from typing import Final

from penstock_server import atomic

_DIGEST_BYTES: Final = hashlib.sha256().digest_size


def read(path: Path, kind: bytes) -> bytes | None:
    """The file's content; None if there is no file, it is of another kind, or damaged."""
    try:
        data = path.read_bytes()
    except OSError:
        return None
    content = data[len(kind) + _DIGEST_BYTES :]
    return content if data[: len(kind) + _DIGEST_BYTES] == kind + hashlib.sha256(content).digest() else None


def write(path: Path, kind: bytes, content: bytes) -> None:
    """Writes the file in one step: a reader sees a whole file or none, even when several processes write it.

    Raises:
        OSError: the folder cannot be created or written to.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    atomic.write(path, kind + hashlib.sha256(content).digest() + content)
