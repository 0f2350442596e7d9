"""Writes a file in one step: neither a reader nor a crash leaves half of it."""

import os
import tempfile
from pathlib import Path


def write(path: Path, content: bytes) -> None:
    """Replaces the file's content in one step, creating its folder when need be.

    Raises:
        OSError: It cannot be written; what was there stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".partial-", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
