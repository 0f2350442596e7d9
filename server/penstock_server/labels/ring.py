"""A file of records of 64 bytes that one worker writes and the joiner takes: answers in one kind of file, labels in another.

The last word of a record is its number, which is written after the others, so that a reader never takes half a record. The
reader keeps how far it has come, and says so in the file, where the writer sees how much room there is. Neither waits for
the other; what a process has written stays when it is killed. The file is locked by its writer: two servers that follow each
other in one folder never write to the same one.
"""

import fcntl
import mmap
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.labels import layout
from penstock_server.labels.layout import PAGE_BYTES

WRITTEN, TAKEN, LOST, RECORDS = (
    at // 8 for at in (layout.PAGE_WRITTEN, layout.PAGE_TAKEN, layout.PAGE_LOST, layout.PAGE_PLACES)
)
"""Words of the page."""
RECORD_WORDS: Final = layout.RECORD_BYTES // 8
NUMBER: Final = layout.RECORD_NUMBER // 8
"""The word of a record that holds its number, from 1."""
SUFFIX: Final = ".ring"


class Ring:
    """A file, mapped.

    Args:
        path: the file, which is there.

    Attributes:
        memory: of the whole file.
        words: the page's.
        records: [places, `RECORD_WORDS`].

    Raises:
        OSError: it cannot be opened.
        ValueError: it is no such file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 0)
        every: NDArray[np.int64] = np.frombuffer(self.memory, np.int64)
        self.words = every[: PAGE_BYTES // 8]
        self.records = every[PAGE_BYTES // 8 :].reshape(-1, RECORD_WORDS)
        if len(self.memory) <= PAGE_BYTES or self.words[RECORDS] != len(self.records):
            raise ValueError(f"{path} is not a file of records")

    @property
    def written(self) -> int:
        return int(self.words[WRITTEN])

    @property
    def taken(self) -> int:
        return int(self.words[TAKEN])

    @property
    def lost(self) -> int:
        return int(self.words[LOST])

    def read(self, start: int, most: int) -> NDArray[np.int64]:
        """The records from this one on that are whole, at most so many; a copy, [records, `RECORD_WORDS`]."""
        places = len(self.records)
        at = np.arange(start, start + min(most, places)) % places
        # The numbers first: what is read before its number may be older than that.
        is_whole = self.records[at, NUMBER] == np.arange(start + 1, start + 1 + len(at))
        whole: NDArray[np.int64] = self.records[at[: len(at) if is_whole.all() else int(is_whole.argmin())]]
        return whole

    def release(self, taken: int) -> None:
        """Says that the writer may write over the records before this one."""
        self.words[TAKEN] = taken

    def append(self, records: NDArray[np.int64]) -> bool:
        """Writes records, all or none; false where there is no room. Only the file's one writer may, on one thread."""
        written, places, size = self.written, len(self.records), len(records)
        if written + size - self.taken > places:
            return False
        at = (written + np.arange(size)) % places
        self.records[at, :NUMBER] = records[:, :NUMBER]
        self.records[at, NUMBER] = np.arange(written + 1, written + 1 + size)
        self.words[WRITTEN] = written + size
        return True


def create(path: Path, places: int) -> None:
    """Makes a file with room for so many records.

    Raises:
        OSError: there is no room for it.
    """
    fresh = path.with_suffix(".new")
    with fresh.open("wb") as file:
        # Not truncated: on a full disk the first write to the mapping would end the process (SIGBUS). And not only allocated:
        # then the first write to each page takes ten times as long, in the request path.
        head = np.zeros(PAGE_BYTES // 8, np.int64)
        head[RECORDS] = places
        file.write(head.tobytes())
        file.write(bytes(places * layout.RECORD_BYTES))
    fresh.rename(path)


class OwnRing:
    """A worker's own file of one kind, locked as long as this lives: that of its slot, or one more where that is in use.

    Args:
        folder: made if there is none.
        kind: what its name begins with.
        slot: the worker's.
        places: of a new file.

    Attributes:
        ring: mapped, with what another writer has left behind.

    Raises:
        OSError: there is no room, or it cannot be written.
    """

    def __init__(self, folder: Path, kind: str, slot: int, places: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for turn in count():
            path = folder / f"{kind}-{slot}{f'-{turn}' if turn else ''}{SUFFIX}"
            if self._lock(path, places):
                break
        self.ring = Ring(path)
        # The last writer may have ended before it could say what it had written.
        self.ring.words[WRITTEN] += len(self.ring.read(self.ring.written, len(self.ring.records)))

    def _lock(self, path: Path, places: int) -> bool:
        lock = path.with_suffix(".lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return False
        self._file: Any = lock
        try:
            Ring(path)
        except (OSError, ValueError):
            create(path, places)
        return True

    def close(self) -> None:
        """Gives the file up."""
        with suppress(OSError):
            self._file.close()


def rings_in(folder: Path, kind: str) -> list[Path]:
    """The files of a kind, whoever writes them."""
    return sorted(folder.glob(f"{kind}-*{SUFFIX}"))
