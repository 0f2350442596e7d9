"""The process that turns the workers' segments into Parquet and keeps the folder within its size.

The supervisor starts it when requests are logged, and again if it ends. Nothing is lost then, since a segment is
deleted only when its Parquet file is whole. It runs at a low priority. It ends when its standard input does, after a
last step, so it outlives the workers but not the server.

Several servers may log to one folder: the compactor of one has the folder's lock and converts the segments of all, and that
of another goes on when it ends.
"""

import fcntl
import os
import sys
from pathlib import Path
from typing import BinaryIO, Final

import msgspec
import structlog

from penstock_server import lifeline
from penstock_server.errors import InvalidInputError
from penstock_server.log_setup import configure_logging
from penstock_server.paths import file_name_for
from penstock_server.request_log.files import (
    DAMAGED,
    LOCK,
    PARQUET,
    SPOOL,
    UNFINISHED,
    finished_segments,
    sized_files,
)
from penstock_server.request_log.parquet import convert
from penstock_server.request_log.segment import read_segment

log = structlog.get_logger(__name__)

LOOK_S: Final = 1.0


class RequestLogFolder:
    """A folder of logged requests: `MODEL/VERSION/TIME-*.parquet`, and the segments that become such files.

    Args:
        folder: made at the first write.
        max_bytes: what all files in it may take, segments included; the oldest Parquet is deleted first.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._spool = folder / SPOOL
        self._max_bytes = max_bytes

    def tidy(self) -> None:
        """Removes the half-written files of a process that was killed."""
        for path in self._folder.rglob(f"*{UNFINISHED}"):
            path.unlink(missing_ok=True)

    def step(self) -> None:
        """Converts every finished segment, and makes room. Segments stay for the next step when the disk refuses."""
        self.make_room()
        for segment in finished_segments(self._spool):
            try:
                self._convert(segment)
            except InvalidInputError as error:
                log.error("a segment of the request log cannot be read", reason=str(error))
                # Moved out of the spool, whose size decides whether workers may write.
                segment.rename(self._folder / f"{segment.stem}{DAMAGED}")
            self.make_room()

    def _convert(self, segment: Path) -> None:
        if segment.stat().st_size == 0:
            segment.unlink()  # its worker died before it wrote a byte
            return
        header, _ = read_segment(segment)
        place = self._folder / file_name_for(header.model) / file_name_for(header.version)
        convert(segment, place / f"{segment.stem}{PARQUET}")
        segment.unlink()

    def make_room(self) -> None:
        """Deletes the oldest files until the folder is within its size; never a segment, which is not converted yet."""
        files = sized_files(self._folder)
        excess = sum(size for _, size in files) - self._max_bytes
        done = [(path, size) for path, size in files if path.suffix in (PARQUET, DAMAGED)]
        for path, size in sorted(done, key=lambda each: each[0].name):
            if excess <= 0:
                return
            path.unlink(missing_ok=True)
            excess -= size


_arguments: Final = msgspec.json.Decoder(tuple[str, int])


def main() -> None:
    """Runs a step once per second until standard input ends, and a last one then."""
    lifeline.end_with_parent(int(sys.argv[2]))
    folder, max_bytes = _arguments.decode(sys.argv[1])
    configure_logging()
    log_folder = RequestLogFolder(Path(folder), max_bytes)
    lock = None
    has_ended = False
    while not has_ended:
        has_ended = lifeline.input_has_ended(LOOK_S)
        if lock is not None and not _is_there(lock, Path(folder)):
            lock.close()
            lock = None
        if lock is None and (lock := _lock(Path(folder))) is not None:
            log_folder.tidy()
        if lock is not None:
            _guarded_step(log_folder)


def _lock(folder: Path) -> BinaryIO | None:
    """The lock of the folder; None when another server's process has it, or the folder cannot be made."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("ab")
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def _is_there(lock: BinaryIO, folder: Path) -> bool:
    """Whether the lock is that of the folder as it is now: somebody may have deleted it, and another server made it anew."""
    try:
        return os.path.samestat(os.fstat(lock.fileno()), (folder / LOCK).stat())
    except OSError:
        return False


def _guarded_step(log_folder: RequestLogFolder) -> None:
    try:
        log_folder.step()
    except OSError as error:
        log.warning("segments cannot be converted now; trying again", reason=str(error))
    except Exception:
        log.exception("segments cannot be converted now; trying again")


if __name__ == "__main__":
    main()
