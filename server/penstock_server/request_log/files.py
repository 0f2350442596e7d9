"""Where the request log's files lie and what their names say: spooled segments, and Parquet by model and version.

A file is written under another name and renamed when it is whole. An open segment is locked by its worker, so that a
lock which can be had tells that the worker is gone and nobody will finish it.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import BinaryIO, Final

from penstock_server.request_log.segment import FORMAT, LoggedRequest, SegmentHeader, framed

SPOOL: Final = ".spool"
OPEN: Final = ".open"
CLOSED: Final = ".segment"
NEW: Final = ".new"
PARQUET: Final = ".parquet"
UNFINISHED: Final = ".parquet.new"
DAMAGED: Final = ".damaged"
LOCK: Final = ".lock"
_numbers: Final = count()


class OpenSegment:
    """A segment that is being written, by one thread.

    Attributes:
        size_bytes: what was appended.
        opened_s: when it was opened, on the caller's clock.
    """

    def __init__(self, path: Path, file: BinaryIO, opened_s: float) -> None:
        self._path = path
        self._file = file
        self.opened_s = opened_s
        self.size_bytes = 0

    def append(self, body: SegmentHeader | LoggedRequest) -> None:
        """Appends a frame."""
        frame = framed(body)
        self._file.write(frame)
        self.size_bytes += len(frame)

    def flush(self) -> None:
        """Hands what was appended to the system, which keeps it even if this process is killed."""
        self._file.flush()

    def finish(self) -> None:
        """Closes it and gives it the name under which it becomes Parquet."""
        self._file.flush()
        self._path.rename(self._path.with_suffix(CLOSED))
        self._file.close()

    def abandon(self) -> None:
        """Lets go of it; what is whole of it will be read."""
        with suppress(OSError):
            self._file.close()


def open_segment(spool: Path, header: SegmentHeader, now_s: float) -> OpenSegment:
    """A new segment with its header, locked; `OSError` when it cannot be written."""
    spool.mkdir(parents=True, exist_ok=True)
    path = spool / f"{stamp()}-{os.getpid()}-{next(_numbers)}{OPEN}"
    fresh = path.with_suffix(NEW)
    file = fresh.open("xb")
    try:
        # Locked before it has the name that others look for, so an open segment without a lock is an orphan.
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fresh.rename(path)
        file.write(FORMAT)
        segment = OpenSegment(path, file, now_s)
        segment.append(header)
        file.flush()
    except OSError:
        for undo in (file.close, fresh.unlink, path.unlink):
            with suppress(OSError):
                undo()
        raise
    return segment


def stamp() -> str:
    """The time, in the form that file names begin with: they sort by it."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")


def finished_segments(spool: Path) -> Iterator[Path]:
    """The segments that nobody writes to any more, oldest first."""
    for path in sorted(spool.glob(f"*{CLOSED}")) + sorted(spool.glob(f"*{OPEN}")):
        if path.suffix == CLOSED or _is_orphan(path):
            yield path


def _is_orphan(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False  # somebody writes to it, or has just renamed it
    return True


def folder_bytes(folder: Path) -> int:
    """What the files in a folder and below it take."""
    return sum(size for _, size in sized_files(folder))


def sized_files(folder: Path) -> list[tuple[Path, int]]:
    """Every file in a folder and below it, with its size; those that vanish meanwhile are not there."""
    found = []
    for path in folder.rglob("*"):
        with suppress(OSError):
            if path.is_file():
                found.append((path, path.stat().st_size))
    return found
