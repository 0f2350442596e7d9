"""The names and places of the request log's files: spooled segments, and Parquet by model and version.

A file is written under another name and renamed when it is whole. A worker locks its open segment, so an open segment
without a lock has lost its worker and will not be finished.
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
    """A segment that one thread is writing.

    Attributes:
        size_bytes: the bytes appended.
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
        """Hands what was appended to the operating system, which keeps it even if this process is killed."""
        self._file.flush()

    def finish(self) -> None:
        """Closes the segment and renames it, so that the compactor converts it."""
        self._file.flush()
        self._path.rename(self._path.with_suffix(CLOSED))
        self._file.close()

    def abandon(self) -> None:
        """Closes the file as it is; the compactor reads the frames that are whole."""
        with suppress(OSError):
            self._file.close()


def open_segment(spool: Path, header: SegmentHeader, now_s: float) -> OpenSegment:
    """A new segment with its header, locked; `OSError` when it cannot be written."""
    spool.mkdir(parents=True, exist_ok=True)
    path = spool / f"{stamp()}-{os.getpid()}-{next(_numbers)}{OPEN}"
    fresh = path.with_suffix(NEW)
    file = fresh.open("xb")
    try:
        # Locked before it has the name that the compactor looks for, so an open segment without a lock is an orphan.
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
    """The time as a prefix of file names, which sort by it."""
    return datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")


def finished_segments(spool: Path) -> Iterator[Path]:
    """The segments that no worker writes to any more, oldest first."""
    for path in sorted(spool.glob(f"*{CLOSED}")) + sorted(spool.glob(f"*{OPEN}")):
        if path.suffix == CLOSED or _is_orphan(path):
            yield path


def _is_orphan(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False  # a worker writes to it, or has just renamed it
    return True


def folder_bytes(folder: Path) -> int:
    """What the files in a folder and below it take."""
    return sum(size for _, size in sized_files(folder))


def sized_files(folder: Path) -> list[tuple[Path, int]]:
    """Every file in a folder and below it, with its size; files that disappear meanwhile are left out."""
    found = []
    for path in folder.rglob("*"):
        with suppress(OSError):
            if path.is_file():
                found.append((path, path.stat().st_size))
    return found
