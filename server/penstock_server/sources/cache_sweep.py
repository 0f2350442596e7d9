"""Deletes from the cache folder what no server needs: copies of versions, compiled kernels, and what crashes left.

What is in use has a lease (`leases`), held by the server that uses it. What a server would need after a restart is in
its last known state. Both stay, however large. Files that copies share count once, and go with the last of those copies.
Several servers may share the folder, and sweep it at once.
"""

import contextlib
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock_server import leases
from penstock_server.kernels import kept
from penstock_server.paths import file_name_for
from penstock_server.sources.combined_source import LastKnownState
from penstock_server.sources.settings import CacheSettings
from penstock_server.sources.version_cache import PARTIAL, record_of, shared_files_of

FORGOTTEN_AFTER_S: Final = 30 * 24 * 3600.0
"""A last known state that was not confirmed for so long is that of a server that is no more."""


FileKey = tuple[int, int]
"""The device and the number of a file, which all its names have in common."""


@dataclass(frozen=True, slots=True)
class Copy:
    """One copy in the cache.

    Attributes:
        path: its folder.
        model: the folder of its model.
        files: the size of each of its files in bytes, by what tells the file from others; copies may share some.
        used_s: when it was last begun to be used, on the wall clock, which file times are on.
        is_needed: whether a server desired it last.
    """

    path: Path
    model: Path
    files: Mapping[FileKey, int]
    used_s: float
    is_needed: bool


def unneeded(copies: Iterable[Copy], settings: CacheSettings) -> list[Copy]:
    """Which copies to delete, unless they are in use: all but the last used ones of each model, and more until all fit.

    Pure. Those used longest ago come first.
    """
    held: Counter[FileKey] = Counter()
    total_bytes = 0
    kept: dict[Path, int] = {}
    excess: list[Copy] = []
    spare: list[Copy] = []
    for copy in sorted(copies, key=lambda copy: copy.used_s, reverse=True):
        if not copy.is_needed and kept.get(copy.model, 0) >= settings.keep:
            excess.append(copy)
            continue
        total_bytes += sum(size_bytes for file, size_bytes in copy.files.items() if not held[file])
        held.update(copy.files.keys())
        if not copy.is_needed:
            kept[copy.model] = kept.get(copy.model, 0) + 1
            spare.append(copy)
    while spare and total_bytes > settings.max_bytes:
        excess.append(spare.pop())
        held.subtract(excess[-1].files.keys())
        total_bytes -= sum(size_bytes for file, size_bytes in excess[-1].files.items() if not held[file])
    return sorted(excess, key=lambda copy: copy.used_s)


def sweep(cache_dir: Path, settings: CacheSettings) -> None:
    """Deletes what is not needed below Penstock's cache folder; what cannot be deleted now is left for the next time."""
    needed = _needed(cache_dir)
    models = cache_dir / "models"
    for partial in models.glob(f"*/*/*/{PARTIAL}*"):
        _delete(partial)
    for copy in unneeded(_copies(models, needed), settings):
        _delete(copy.path)
    shared_files_of(cache_dir).sweep()
    kept.sweep(cache_dir)


def _needed(cache_dir: Path) -> set[tuple[str, str, str]]:
    """The names of the folders of model, version and identity of all that servers desired last; "" is any identity."""
    found = set()
    for desired in LastKnownState(cache_dir).all(newer_than_s=time.time() - FORGOTTEN_AFTER_S):
        for model, plan in desired.models.items():
            for version in plan.versions:
                identity = desired.identity(model, version)
                found.add((file_name_for(model), file_name_for(version), identity and file_name_for(identity)))
    return found


def _copies(models: Path, needed: Collection[tuple[str, str, str]]) -> Iterator[Copy]:
    for path in models.glob("*/*/*/*"):
        if path.name.startswith(".") or not path.is_dir():
            continue
        version, model = path.parent, path.parent.parent
        is_desired = any((model.name, version.name, identity) in needed for identity in (path.name, ""))
        yield Copy(path, model, _files(path), _changed_s(record_of(path)), is_desired or _is_used(path))


def _files(copy: Path) -> dict[FileKey, int]:
    found = {}
    for place, _, names in os.walk(copy):
        for name in names:
            with contextlib.suppress(OSError):  # another server deletes it
                state = os.stat(os.path.join(place, name), follow_symlinks=False)
                found[state.st_dev, state.st_ino] = state.st_size
    return found


def _is_used(path: Path) -> bool:
    with leases.for_deleting(path) as is_free:
        return not is_free


def _delete(path: Path) -> None:
    """Deletes a folder that nobody has a lease on; it is first renamed, so that no part of it is taken."""
    with leases.for_deleting(path) as is_free, contextlib.suppress(OSError):
        if not is_free:
            return
        record_of(path).unlink(missing_ok=True)
        if path.name.startswith(PARTIAL):
            shutil.rmtree(path, ignore_errors=True)
        else:
            aside = tempfile.mkdtemp(prefix=PARTIAL, dir=path.parent)
            os.rename(path, aside)
            shutil.rmtree(aside, ignore_errors=True)
        for folder in (path.parent, path.parent.parent):
            folder.rmdir()  # only if it is empty now


def _changed_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
