"""The counters of all workers: the supervisor creates their files here, and reads them at a scrape.

A worker slot keeps its counters when its process is replaced, so totals never fall. Counters are removed when their
version is unloaded, which ends its series.
"""

import shutil
import tempfile
from collections.abc import Set as AbstractSet
from itertools import count
from pathlib import Path
from typing import Self

from penstock.names import VersionKey
from penstock_server.metrics.counters import CountersShape, SharedCounters, create_counters

_MEMORY = Path("/dev/shm")  # noqa: S108 - the system's shared memory; the store makes a private folder in it


class CounterStore:
    """Shared counters by worker slot and version, in a private folder that is removed with the store."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="penstock-", dir=_MEMORY if _MEMORY.is_dir() else None))
        self._numbers = count()
        self._versions: dict[tuple[int, VersionKey], tuple[Path, SharedCounters]] = {}
        self._slots: dict[int, tuple[Path, SharedCounters]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._versions.clear()
        self._slots.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    def slot(self, slot: int) -> Path:
        """The file of a slot's counters for requests that are refused before a version is found."""
        if slot not in self._slots:
            self._slots[slot] = self._create(CountersShape())
        return self._slots[slot][0]

    def version(self, slot: int, key: VersionKey, shape: CountersShape) -> Path:
        """The file of a version's counters in a slot; the same one after its worker was replaced."""
        if (slot, key) not in self._versions:
            self._versions[slot, key] = self._create(shape)
        return self._versions[slot, key][0]

    def keep(self, slot: int, keys: AbstractSet[VersionKey]) -> None:
        """Removes a slot's counters of all other versions: its worker may have died with versions no longer desired."""
        for held_slot, key in list(self._versions):
            if held_slot == slot and key not in keys:
                self.forget(slot, key)

    def forget(self, slot: int, key: VersionKey) -> None:
        """Removes a version's counters in a slot, where it was unloaded."""
        found = self._versions.pop((slot, key), None)
        if found is not None:
            found[0].unlink(missing_ok=True)

    def of_version(self, key: VersionKey) -> list[SharedCounters]:
        """A version's counters in every slot."""
        return [counters for (_, held), (_, counters) in list(self._versions.items()) if held == key]

    def of_slots(self) -> dict[int, SharedCounters]:
        """Each slot's own counters."""
        return {slot: counters for slot, (_, counters) in list(self._slots.items())}

    def _create(self, shape: CountersShape) -> tuple[Path, SharedCounters]:
        path = self._folder / str(next(self._numbers))
        return path, create_counters(path, shape)
