"""The counters of all workers: the supervisor creates their files here, and reads them at a scrape.

A worker slot keeps its counters when its process is replaced, so totals never fall. Counters are removed when their
version is unloaded, which ends its series. A version whose files were replaced starts anew: the new files count aside
until they answer.

The folder is in the system's shared memory, which nothing empties after a server that was killed. So the supervisor locks
its folder, and a start removes the folders that nobody has locked.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final, Self

import structlog

from penstock.names import VersionKey
from penstock_server.metrics.counters import CACHE_CELLS, CountersShape, SharedCounters, create_counters

log = structlog.get_logger(__name__)

_MEMORY = Path("/dev/shm")  # noqa: S108 - the system's shared memory; the store makes a private folder in it
_PREFIX: Final = "penstock-counters-"
_UNLOCKED_PREFIX: Final = ".penstock-new-"


@dataclass(frozen=True, slots=True)
class _Counters:
    identity: str
    path: Path
    shared: SharedCounters


class CounterStore:
    """Shared counters by worker slot and version, in a private folder that is removed with the store."""

    def __init__(self) -> None:
        place = _MEMORY if _MEMORY.is_dir() else Path(tempfile.gettempdir())
        sweep(place)
        self._folder, self._lock = _locked_folder(place)
        self._numbers = count()
        # By version and slot: each scrape and each look at drift asks for one version after another.
        self._versions: dict[VersionKey, dict[int, _Counters]] = {}
        self._next: dict[tuple[int, VersionKey], _Counters] = {}
        self._slots: dict[int, _Counters] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._versions.clear()
        self._next.clear()
        self._slots.clear()
        shutil.rmtree(self._folder, ignore_errors=True)
        os.close(self._lock)

    @property
    def folder(self) -> Path:
        """Where the files are, and what else all workers of a server share."""
        return self._folder

    def slot(self, slot: int) -> Path:
        """The file of a slot's counters for requests that are refused before a version is found."""
        if slot not in self._slots:
            self._slots[slot] = self._create("", CountersShape())
        return self._slots[slot].path

    def version(self, slot: int, key: VersionKey, shape: CountersShape, identity: str = "") -> Path:
        """The file of a version's counters in a slot; the same one after its worker was replaced.

        When others of the version's files count there already, these count aside until `replace`.
        """
        held = self._versions.get(key, {}).get(slot)
        if held is None:
            held = self._create(identity, shape)
            self._versions.setdefault(key, {})[slot] = held
        elif held.identity != identity:
            self._drop(self._next.pop((slot, key), None))
            held = self._next[slot, key] = self._create(identity, shape)
        return held.path

    def replace(self, slot: int, key: VersionKey, identity: str) -> None:
        """Lets the version's new files count in place of the former: they answer from now on."""
        found = self._next.get((slot, key))
        if found is not None and found.identity == identity:
            self._drop(self._versions.get(key, {}).get(slot))
            self._versions.setdefault(key, {})[slot] = self._next.pop((slot, key))

    def keep(self, slot: int, keys: AbstractSet[VersionKey]) -> None:
        """Removes a slot's counters of all other versions: its worker may have died with versions no longer desired."""
        for key in self._versions.keys() - keys:
            self.forget(slot, key)

    def forget(self, slot: int, key: VersionKey) -> None:
        """Removes a version's counters in a slot, where it was unloaded."""
        slots = self._versions.get(key, {})
        self._drop(slots.pop(slot, None))
        if not slots:
            self._versions.pop(key, None)
        self._drop(self._next.pop((slot, key), None))

    def of_version(self, key: VersionKey, identity: str | None = None) -> list[SharedCounters]:
        """A version's counters in every slot; with an identity, only where these files count."""
        return [
            counters.shared
            for counters in list(self._versions.get(key, {}).values())
            if identity in (None, counters.identity)
        ]

    def generation(self, key: VersionKey) -> str:
        """Differs between two states of a version's counters of which one began anew in some slot."""
        return ",".join(sorted(counters.path.name for counters in list(self._versions.get(key, {}).values())))

    def of_slots(self) -> dict[int, SharedCounters]:
        """Each slot's own counters."""
        return {slot: counters.shared for slot, counters in list(self._slots.items())}

    def beat_ns(self, slot: int) -> int:
        """When the loop of the slot's worker last came round; 0 before the first time."""
        counters = self._slots.get(slot)
        return 0 if counters is None else int(counters.shared.beat_ns[0])

    def runs(self) -> dict[int, dict[VersionKey, int]]:
        """When the run of each version began that runs now, by slot; of several at once in a worker, the first."""
        found: dict[int, dict[VersionKey, int]] = {}
        for slot, key, counters in self._all():
            began = [since_ns for since_ns in counters.shared.running_since_ns.tolist() if since_ns]
            if began:
                found.setdefault(slot, {})[key] = min(began)
        return found

    def still(self, slot: int) -> None:
        """Forgets the life of the slot's former worker, which left its beat and its runs behind."""
        if slot in self._slots:
            self._slots[slot].shared.beat_ns[0] = 0
        for held_slot, _, counters in self._all():
            if held_slot == slot:
                counters.shared.running_since_ns[:] = 0
                counters.shared.waiting[:] = 0
                counters.shared.cache[CACHE_CELLS.index("bytes")] = 0

    def uses(self, slot: int) -> dict[VersionKey, tuple[float, bool]]:
        """When each version last answered in a slot, in seconds by the monotonic clock, and whether calls of it wait or run."""
        return {
            key: (
                int(counters.shared.answered_ns[0]) / 1e9,
                bool(counters.shared.waiting.any() or counters.shared.running_since_ns.any()),
            )
            for held_slot, key, counters in self._all()
            if held_slot == slot
        }

    def _all(self) -> list[tuple[int, VersionKey, _Counters]]:
        """The counters of versions, with those that count aside, by slot."""
        held = [
            (slot, key, counters)
            for key, slots in list(self._versions.items())
            for slot, counters in list(slots.items())
        ]
        return [*held, *((slot, key, counters) for (slot, key), counters in list(self._next.items()))]

    def _create(self, identity: str, shape: CountersShape) -> _Counters:
        path = self._folder / str(next(self._numbers))
        return _Counters(identity, path, create_counters(path, shape))

    def _drop(self, counters: _Counters | None) -> None:
        if counters is not None:
            counters.path.unlink(missing_ok=True)


def _locked_folder(place: Path) -> tuple[Path, int]:
    """A new folder, and the descriptor that locks it: the lock ends with this process, however it ends."""
    # Locked before it gets the name that a sweep looks for.
    new = Path(tempfile.mkdtemp(prefix=_UNLOCKED_PREFIX, dir=place))
    descriptor = os.open(new, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    folder = place / f"{_PREFIX}{new.name.removeprefix(_UNLOCKED_PREFIX)}"
    new.rename(folder)
    return folder, descriptor


def sweep(place: Path) -> None:
    """Removes the folders whose server is gone: nobody has them locked."""
    for folder in place.glob(f"{_PREFIX}*"):
        with suppress(OSError):  # somebody else's, or removed meanwhile
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder)
                log.info("removed the counters of a server that is gone", folder=folder.name)
            finally:
                os.close(descriptor)
