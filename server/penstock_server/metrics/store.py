"""The boards of all workers: created by the supervisor, handed out by path, read at scrape.

Each worker slot keeps its boards when its process is replaced, so totals never go back. A board goes when its version is
unloaded, and with it the version's series.
"""

import shutil
import tempfile
from collections.abc import Set as AbstractSet
from itertools import count
from pathlib import Path
from typing import Self

from penstock.names import VersionKey
from penstock_server.metrics.counters import CountersShape, SharedCounters, create_counters

_MEMORY = Path("/dev/shm")  # noqa: S108 - the system's shared memory; the folder in it is ours alone


class CounterStore:
    """Boards by worker slot and version, in a private folder that goes with the store."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="penstock-", dir=_MEMORY if _MEMORY.is_dir() else None))
        self._numbers = count()
        self._boards: dict[tuple[int, VersionKey], tuple[Path, SharedCounters]] = {}
        self._slots: dict[int, tuple[Path, SharedCounters]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._boards.clear()
        self._slots.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def slot(self, slot: int) -> Path:
        """The board for what a worker refuses before it knows a version."""
        if slot not in self._slots:
            self._slots[slot] = self._create(CountersShape())
        return self._slots[slot][0]

    def version(self, slot: int, key: VersionKey, shape: CountersShape) -> Path:
        """A version's board in a slot; the same one again when its worker was replaced."""
        if (slot, key) not in self._boards:
            self._boards[slot, key] = self._create(shape)
        return self._boards[slot, key][0]

    def keep(self, slot: int, keys: AbstractSet[VersionKey]) -> None:
        """Forgets the boards of a slot for all versions but these: its worker died, and some are no longer wanted."""
        for held_slot, key in list(self._boards):
            if held_slot == slot and key not in keys:
                self.forget(slot, key)

    def forget(self, slot: int, key: VersionKey) -> None:
        """A version was unloaded: its counts end here."""
        found = self._boards.pop((slot, key), None)
        if found is not None:
            found[0].unlink(missing_ok=True)

    def of_version(self, key: VersionKey) -> list[SharedCounters]:
        """Every slot's board of a version."""
        return [board for (_, held), (_, board) in list(self._boards.items()) if held == key]

    def of_slots(self) -> dict[int, SharedCounters]:
        """Each slot's own board."""
        return {slot: board for slot, (_, board) in list(self._slots.items())}

    def _create(self, shape: CountersShape) -> tuple[Path, SharedCounters]:
        path = self._folder / str(next(self._numbers))
        return path, create_counters(path, shape)
