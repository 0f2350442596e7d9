"""Which files of compiled kernels stay in the cache folder: those in use, and the newest of each set."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from penstock_server import leases

KEPT: Final = 8
"""How many files of a set stay that nobody uses: environments, releases and machines may share the folder."""


def keep(path: Path) -> None:
    """Makes a file the newest, so that `sweep` leaves it for the next start of the server that uses it."""
    with suppress(OSError):  # a read-only cache is not swept either
        os.utime(path)


def sweep(folder: Path) -> None:
    """Deletes the oldest files of each set beyond the `KEPT` newest, but none that has a lease."""
    sets: dict[str, list[tuple[int, Path]]] = {}
    for path in folder.glob("kernels-*.bin"):
        with suppress(OSError):  # another process removed it
            sets.setdefault(path.name.rpartition("-")[0], []).append((path.stat().st_mtime_ns, path))
    for dated in sets.values():
        for _, path in sorted(dated, reverse=True)[KEPT:]:
            _delete(path)


def _delete(path: Path) -> None:
    with leases.for_deleting(path) as is_free, suppress(OSError):
        if is_free:
            path.unlink()
