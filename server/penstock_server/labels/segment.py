"""A segment of kept answers: a file of rows in the order of time, and an index by the keys of their ids.

A segment is written to its end and deleted whole, so no answer is ever moved on disk. Rows lie as they come, so those of a
time are a slice; the index of a full segment is a file too, that of an open one lies in memory as a few sorted runs, which are
merged as they grow. Labels are written into the rows.
"""

import mmap
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

ROW: Final = np.dtype(
    [
        ("key", "<u8"),
        ("time_ns", "<i8"),
        ("subject", "<u4"),
        ("row", "<u4"),
        ("prediction", "<f8"),
        ("score", "<f8"),
        ("label", "<f8"),
        ("value", "<f8"),
        ("label_delay_s", "<f4"),
        ("value_delay_s", "<f4"),
        ("label_step", "<u4"),
        ("value_step", "<u4"),
    ]
)
"""A kept answer. The label is a class as predictions count them, or a number; it is there when its step is not 0, which says in
which step of the joiner it came. So is the value. Delays are those between the answer and its label."""
INDEX_BYTES: Final = 12
ROW_BYTES: Final = ROW.itemsize + INDEX_BYTES
"""What a kept answer takes on disk."""
ROWS: Final = ".rows"
INDEX: Final = ".index"
_GROWTH_BYTES: Final = 4 * 1024**2
Rows = NDArray[Any]
"""Of `ROW`."""


class Segment:
    """A segment, mapped.

    Args:
        folder: where its files are.
        number: its own; later ones have larger numbers.
        capacity: rows that there may be.
        count: those that there are.

    Attributes:
        rows: [capacity] of `ROW`; those from `count` on mean nothing.

    Raises:
        OSError: its file cannot be opened, or made.
    """

    def __init__(self, folder: Path, number: int, capacity: int, count: int = 0) -> None:
        self.number = number
        self.capacity = capacity
        self.count = count
        self._rows_path = folder / f"{number:012d}{ROWS}"
        self._index_path = folder / f"{number:012d}{INDEX}"
        with self._rows_path.open("r+b" if count else "w+b") as file:
            self._descriptor = os.dup(file.fileno())
            self._allocated = count * ROW.itemsize
            # The mapping goes beyond what is allocated, and nothing is written there.
            os.truncate(self._descriptor, capacity * ROW.itemsize)
            self._memory = mmap.mmap(self._descriptor, capacity * ROW.itemsize)
        self.rows: Rows = np.frombuffer(self._memory, ROW)
        # Sorted keys with the places of their rows, longest first.
        self._runs: list[tuple[NDArray[np.uint64], NDArray[np.uint32]]] = []
        if count and not self._open_index():
            self._add_run(self.rows["key"][:count].copy(), 0)
            if self.is_full:
                self._write_index()

    @property
    def is_full(self) -> bool:
        return self.count == self.capacity

    @property
    def size_bytes(self) -> int:
        """What its files take; the index of an open segment is a file later."""
        return os.fstat(self._descriptor).st_blocks * 512 + self.count * INDEX_BYTES

    def append(self, rows: Rows) -> int:
        """Takes as many of these rows as fit; how many those are.

        Raises:
            OSError: the disk is full; no row is taken.
        """
        size = min(len(rows), self.capacity - self.count)
        end = (self.count + size) * ROW.itemsize
        if end > self._allocated:
            # Not left to the write, which on a full disk would end the process (SIGBUS).
            grown = min(self.capacity * ROW.itemsize, end + _GROWTH_BYTES)
            os.posix_fallocate(self._descriptor, self._allocated, grown - self._allocated)
            self._allocated = grown
        self.rows[self.count : self.count + size] = rows[:size]
        self._add_run(rows["key"][:size].copy(), self.count)
        self.count += size
        if self.is_full:
            self._write_index()
        return size

    def find(self, keys: NDArray[np.uint64]) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
        """The rows of these keys, which are sorted: for each row found, which key it has and its place."""
        which: list[NDArray[np.intp]] = []
        places: list[NDArray[np.int64]] = []
        for sorted_keys, sorted_places in self._runs:
            at = np.searchsorted(sorted_keys, keys)
            inside = np.flatnonzero(at < len(sorted_keys))
            hits = inside[sorted_keys[at[inside]] == keys[inside]]
            at = at[hits]
            # A request of several rows, retries and shadows have the same key: the next entries too.
            while len(hits):
                which.append(hits)
                places.append(sorted_places[at].astype(np.int64))
                at = at + 1
                goes_on = at < len(sorted_keys)
                hits, at = hits[goes_on], at[goes_on]
                goes_on = sorted_keys[at] == keys[hits]
                hits, at = hits[goes_on], at[goes_on]
        if not which:
            return np.zeros(0, np.intp), np.zeros(0, np.int64)
        return np.concatenate(which), np.concatenate(places)

    def forget_after(self, step: int) -> None:
        """Takes back the labels of later steps, which never came to their end."""
        rows = self.rows[: self.count]
        for column in ("label_step", "value_step"):
            rows[column][rows[column] > step] = 0

    def delete(self) -> None:
        """Deletes its files. Who has rows of it in hand may go on reading them."""
        self._rows_path.unlink(missing_ok=True)
        self._index_path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Closes its file, whose mapping ends with the last array of it."""
        with suppress(OSError):
            os.close(self._descriptor)
        self._descriptor = -1

    def _add_run(self, keys: NDArray[np.uint64], first: int) -> None:
        order = np.argsort(keys, kind="stable")
        self._runs.append((keys[order], (order + first).astype(np.uint32)))
        # A run is merged with the one before it while that is not twice as long: so there are few, and each row is merged
        # as often as there are.
        while len(self._runs) > 1 and len(self._runs[-2][0]) < 2 * len(self._runs[-1][0]):
            self._merge_last()

    def _merge_last(self) -> None:
        (first_keys, first_places), (keys, places) = self._runs[-2:]
        at = np.searchsorted(first_keys, keys, side="right") + np.arange(len(keys))
        is_new = np.zeros(len(first_keys) + len(keys), bool)
        is_new[at] = True
        merged_keys, merged_places = np.empty(len(is_new), np.uint64), np.empty(len(is_new), np.uint32)
        merged_keys[is_new], merged_keys[~is_new] = keys, first_keys
        merged_places[is_new], merged_places[~is_new] = places, first_places
        self._runs[-2:] = [(merged_keys, merged_places)]

    def _write_index(self) -> None:
        """Moves the index to its file."""
        while len(self._runs) > 1:
            self._merge_last()
        ((keys, places),) = self._runs
        fresh = self._index_path.with_suffix(".new")
        with suppress(OSError):  # it stays in memory, and is written when the segment is opened again
            with fresh.open("wb") as file:
                file.write(keys.tobytes())
                file.write(places.tobytes())
            fresh.rename(self._index_path)
            self._open_index()

    def _open_index(self) -> bool:
        """Maps the index's file; whether it is there and whole."""
        try:
            with self._index_path.open("rb") as file:
                memory = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        except (OSError, ValueError):
            return False
        if len(memory) != self.count * INDEX_BYTES or not self.is_full:
            return False
        keys: NDArray[np.uint64] = np.frombuffer(memory, np.uint64, self.count)
        self._runs = [(keys, np.frombuffer(memory, np.uint32, self.count, offset=self.count * 8))]
        return True
