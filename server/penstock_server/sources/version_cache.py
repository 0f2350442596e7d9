"""Keeps local copies of fetched versions, so that each is fetched from the registry only once.

A copy appears whole or not at all. It is kept under the *identity* of what was registered, since a version may be
deleted and registered again with other files. The source decides what an identity is, and how files are fetched.

    <folder>/<model>/<version>/current.json    the identity in use, and the size of each of its files
    <folder>/<model>/<version>/<identity>/     the version's files
"""

import contextlib
import errno
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from penstock_server import atomic
from penstock_server.errors import InvalidInputError, UnavailableError
from penstock_server.models import strict_json, version_folder
from penstock_server.paths import file_name_for

_PARTIAL = ".partial-"
_FORGOTTEN_AFTER_S = 24 * 3600.0


class _Current(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    identity: str
    sizes_bytes: Mapping[str, int]
    format: int = strict_json.FORMAT


class VersionCache:
    """The copies below one folder. Several threads and processes may use it at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, model: str, version: str, identity: str | None = None) -> Path | None:
        """The folder of a whole copy; None if there is none.

        Args:
            model: any text.
            version: any text.
            identity: the identity that the copy must have; None takes the one that was stored last.
        """
        place = self._place(model, version)
        current = _read_current(place)
        if current is None or identity not in (None, current.identity):
            return None
        copy = place / file_name_for(current.identity)
        return copy if current.sizes_bytes and _sizes_bytes(copy) == current.sizes_bytes else None

    def identity(self, model: str, version: str) -> str | None:
        """The identity of the copy that was stored last."""
        current = _read_current(self._place(model, version))
        return None if current is None else current.identity

    def store(self, model: str, version: str, identity: str, download: Callable[[Path], Path]) -> Path:
        """Makes a copy and returns its folder.

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
            place.mkdir(parents=True, exist_ok=True)
            _sweep(place)
            with tempfile.TemporaryDirectory(prefix=_PARTIAL, dir=place, ignore_cleanup_errors=True) as aside:
                files = download(Path(aside))
                copy = place / file_name_for(identity)
                sizes_bytes = _move(files, copy)
            record = _Current(identity=identity, sizes_bytes=sizes_bytes)
            atomic.write(place / "current.json", msgspec.json.encode(record))
        except OSError as error:
            reason = error.strerror or error
            raise UnavailableError(f"a copy cannot be written to the cache folder {place}: {reason}") from error
        return copy

    def _place(self, model: str, version: str) -> Path:
        return self._folder / file_name_for(model) / file_name_for(version)


def _read_current(place: Path) -> _Current | None:
    try:
        return strict_json.decode((place / "current.json").read_bytes(), _Current)
    except (OSError, InvalidInputError):
        return None


def _move(files: Path, copy: Path) -> Mapping[str, int]:
    """Moves the folder `files` to `copy` unless a copy just like it is there; returns the sizes of its files."""
    sizes_bytes = _sizes_bytes(files)
    if not sizes_bytes:
        raise InvalidInputError("there are no files in what was published; expected at least model.onnx")
    try:
        files.rename(copy)
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        # Another process stored the same copy first, or the copy there is damaged. Checking before the renaming could take
        # the copy away from the process that was first.
        if _sizes_bytes(copy) != sizes_bytes:
            copy.rename(tempfile.mkdtemp(prefix=_PARTIAL, dir=copy.parent))
            files.rename(copy)
    return sizes_bytes


def _sizes_bytes(folder: Path) -> dict[str, int]:
    """The size of each file: enough to notice a copy that a full disk or a lost write cut short."""
    try:
        return {name: (folder / name).stat().st_size for name in version_folder.file_names(folder)}
    except OSError:
        return {}


def _sweep(place: Path) -> None:
    """Removes what crashed downloads left behind."""
    for partial in place.glob(f"{_PARTIAL}*"):
        # The wall clock, because file times are on it.
        with contextlib.suppress(FileNotFoundError):
            if time.time() - partial.stat().st_mtime > _FORGOTTEN_AFTER_S:
                shutil.rmtree(partial, ignore_errors=True)
