"""Keeps local copies of fetched versions, so that each is fetched from the registry only once.

A copy appears whole or not at all, and is handed out with a lease, so that no sweep comes between. It is kept under the
*identity* of what was registered, since a version may be deleted and registered again with other files. The source decides
what an identity is, and how files are fetched. `cache_sweep` deletes copies that nobody needs.

    <folder>/<model>/<version>/<identity>/         the version's files
    <folder>/<model>/<version>/<identity>.json     the size of each of them; the time of this file is that of the last use
    <folder>/<model>/<version>/.partial-*/         what is being downloaded, under a lease; without one, what a crash left
"""

import contextlib
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from penstock_server import atomic, leases
from penstock_server.errors import InvalidInputError, UnavailableError
from penstock_server.models import strict_json, version_folder
from penstock_server.paths import file_name_for
from penstock_server.sources.source import VersionFiles

PARTIAL: Final = ".partial-"


class CopyRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a copy is, and the size of each of its files."""

    identity: str
    sizes_bytes: Mapping[str, int]
    format: int = strict_json.FORMAT


_records: Final = msgspec.json.Decoder(CopyRecord)


class VersionCache:
    """The copies below one folder. Several threads and processes may use it at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, model: str, version: str, identity: str | None = None) -> VersionFiles | None:
        """A whole copy; None if there is none. It counts as used now.

        Args:
            model: any text.
            version: any text.
            identity: the identity that the copy must have; None takes the one that was used last.
        """
        place = self._place(model, version)
        record = _record(place, identity)
        if record is None or not record.sizes_bytes:
            return None
        copy = place / file_name_for(record.identity)
        lease = leases.take(copy)
        if lease is None or _sizes_bytes(copy) != record.sizes_bytes:
            return None
        with contextlib.suppress(OSError):
            now_ns = time.time_ns()  # finer than the clock that the kernel would take
            os.utime(record_of(copy), ns=(now_ns, now_ns))
        return VersionFiles(copy, record.identity, lease)

    def store(self, model: str, version: str, identity: str, download: Callable[[Path], Path]) -> VersionFiles:
        """Makes a copy.

        Args:
            model: any text.
            version: any text.
            identity: the copy's identity.
            download: puts the files into the empty folder that it is given, and returns the folder that holds them:
                that one, or one below it. Its exceptions propagate.

        Raises:
            InvalidInputError: nothing was downloaded.
            UnavailableError: the copy cannot be written, for example because the disk is full.
        """
        place = self._place(model, version)
        try:
            with _partial(place) as partial:
                files = partial / "files"
                files.mkdir()
                copy = place / file_name_for(identity)
                sizes_bytes, lease = _move(download(files), copy)
                record = CopyRecord(identity=identity, sizes_bytes=sizes_bytes)
                atomic.write(partial / "record", msgspec.json.encode(record))
                os.replace(partial / "record", record_of(copy))
        except OSError as error:
            reason = error.strerror or error
            raise UnavailableError(f"a copy cannot be written to the cache folder {place}: {reason}") from error
        return VersionFiles(copy, identity, lease)

    def _place(self, model: str, version: str) -> Path:
        return self._folder / file_name_for(model) / file_name_for(version)


def record_of(copy: Path) -> Path:
    """The file that describes a copy."""
    return copy.with_name(f"{copy.name}.json")


def read_record(path: Path) -> CopyRecord | None:
    """A copy's record; None if there is none, or it is damaged."""
    try:
        return strict_json.decode(path.read_bytes(), _records)
    except (OSError, InvalidInputError):
        return None


def _record(place: Path, identity: str | None) -> CopyRecord | None:
    if identity is not None:
        return read_record(record_of(place / file_name_for(identity)))
    try:
        latest = sorted(place.glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
    except OSError:  # one was deleted meanwhile
        return None
    return next((found for path in reversed(latest) if (found := read_record(path)) is not None), None)


@contextmanager
def _partial(place: Path) -> Iterator[Path]:
    """An empty folder for what is not whole yet. Its lease tells a sweep that it is not what a crash left."""
    folder, lease = leases.new_folder(place, PARTIAL)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        lease.close()


def _move(files: Path, copy: Path) -> tuple[Mapping[str, int], leases.Lease]:
    """Moves the folder `files` to `copy` unless a copy just like it is there; returns the sizes of its files, and a lease."""
    sizes_bytes = _sizes_bytes(files)
    if not sizes_bytes:
        raise InvalidInputError("there are no files in what was published; expected at least model.onnx")
    lease = leases.take(files)  # a lease stays with what is renamed
    if lease is None:
        raise OSError(errno.ENOENT, "it was deleted while it was downloaded", str(files))
    while True:
        try:
            files.rename(copy)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        else:
            return sizes_bytes, lease
        # Another process stored the same copy first, or the copy there is damaged, or it is being swept. Checking before
        # the renaming could take the copy away from the process that was first.
        theirs = leases.take(copy)
        if theirs is not None and _sizes_bytes(copy) == sizes_bytes:
            return sizes_bytes, theirs
        if theirs is not None:
            with contextlib.suppress(FileNotFoundError):  # another process did the same first
                copy.rename(tempfile.mkdtemp(prefix=PARTIAL, dir=copy.parent))


def _sizes_bytes(folder: Path) -> dict[str, int]:
    """The size of each file: enough to notice a copy that a full disk or a lost write cut short."""
    try:
        return {name: (folder / name).stat().st_size for name in version_folder.file_names(folder)}
    except OSError:
        return {}
