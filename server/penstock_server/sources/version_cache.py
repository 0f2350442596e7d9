"""Keeps local copies of fetched versions, so that each is fetched from the registry only once.

A copy appears whole or not at all, and is handed out with a lease, so that no sweep comes between. It is kept under the
*identity* of what was registered, since a version may be deleted and registered again with other files. The source decides
what an identity is, and how files are fetched. `cache_sweep` deletes copies that nobody needs.

Files of the same content are one file on disk, whatever versions, models and registries they belong to (`shared_files`).

    <cache>/models/<registry>/<model>/<version>/<identity>/       the version's files
    <cache>/models/<registry>/<model>/<version>/<identity>.json   the size and digest of each; its time is that of the last use
    <cache>/models/<registry>/<model>/<version>/.partial-*/       what is being downloaded, under a lease, or a crash left
    <cache>/files/<digest>                                        the shared files
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
from penstock_server.models import manifest, strict_json, version_folder
from penstock_server.paths import file_name_for
from penstock_server.sources.shared_files import SharedFiles, digest_of
from penstock_server.sources.source import VersionFiles

PARTIAL: Final = ".partial-"


class CopyRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a copy is, with the size and the SHA-256 of each of its files; earlier servers wrote no digests."""

    identity: str
    sizes_bytes: Mapping[str, int]
    digests: Mapping[str, str] = {}
    format: int = strict_json.FORMAT


_records: Final = msgspec.json.Decoder(CopyRecord)


class VersionCache:
    """The copies of one registry's versions. Several threads and processes may use it at once.

    Args:
        cache_dir: Penstock's cache folder.
        registry: the registry's name, any text.

    Attributes:
        files: what they have in common with the copies of other versions.
    """

    def __init__(self, cache_dir: Path, registry: str) -> None:
        self._folder = cache_dir / "models" / file_name_for(registry)
        self.files = shared_files_of(cache_dir)

    def find(self, model: str, version: str, identity: str | None = None) -> VersionFiles | None:
        """A whole copy; None if there is none, or it is damaged: each file is read. It counts as used now.

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
        if lease is None or not _is_whole(copy, record):
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
            InvalidInputError: nothing was downloaded, or a file is another one than was published.
            UnavailableError: the copy cannot be written, for example because the disk is full.
        """
        place = self._place(model, version)
        try:
            with _partial(place) as partial:
                files = partial / "files"
                files.mkdir()
                copy = place / file_name_for(identity)
                record, lease = self._move(download(files), copy, identity)
                atomic.write(partial / "record", msgspec.json.encode(record))
                os.replace(partial / "record", record_of(copy))
        except OSError as error:
            reason = error.strerror or error
            raise UnavailableError(f"a copy cannot be written to the cache folder {place}: {reason}") from error
        return VersionFiles(copy, identity, lease)

    def _move(self, files: Path, copy: Path, identity: str) -> tuple[CopyRecord, leases.Lease]:
        """Moves the folder `files` to `copy` unless a copy just like it is there; returns what it is, and a lease."""
        sizes_bytes = _sizes_bytes(files)
        if not sizes_bytes:
            raise InvalidInputError("there are no files in what was published; expected at least model.onnx")
        digests = {name: self.files.share(files / name) for name in sizes_bytes}
        _check_published(files, digests)
        record = CopyRecord(identity, sizes_bytes, digests)
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
                return record, lease
            # Another process stored the same copy first, or the copy there is damaged, or it is being swept. Checking before
            # the renaming could take the copy away from the process that was first.
            theirs = leases.take(copy)
            if theirs is not None and _is_whole(copy, record):
                return record, theirs
            if theirs is not None:
                with contextlib.suppress(FileNotFoundError):  # another process did the same first
                    copy.rename(tempfile.mkdtemp(prefix=PARTIAL, dir=copy.parent))

    def _place(self, model: str, version: str) -> Path:
        return self._folder / file_name_for(model) / file_name_for(version)


def shared_files_of(cache_dir: Path) -> SharedFiles:
    """The files that copies in a cache folder have in common."""
    return SharedFiles(cache_dir / "files")


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


def _check_published(files: Path, digests: Mapping[str, str]) -> None:
    """Checks what came against the manifest, so that what is damaged or not there yet is not kept but fetched again."""
    for name, expected in manifest.named(files).items():
        if name not in digests:
            raise InvalidInputError(f"file {version_folder.shown(name)} is missing, which {manifest.NAME} names")
        if digests[name] != expected:
            raise InvalidInputError(
                f"file {version_folder.shown(name)} came as another than was published: its digest is {digests[name]}; the "
                f"manifest expects {expected}"
            )


def _is_whole(copy: Path, record: CopyRecord) -> bool:
    try:
        return _sizes_bytes(copy) == record.sizes_bytes and all(
            digest_of(copy / name) == digest for name, digest in record.digests.items()
        )
    except OSError:
        return False


def _sizes_bytes(folder: Path) -> dict[str, int]:
    """The size of each file; none if they cannot be looked at."""
    try:
        return {name: (folder / name).stat().st_size for name in version_folder.file_names(folder)}
    except OSError:
        return {}
