"""Keeps one file on disk for all copies of versions that hold the same content, under its SHA-256.

A file of a copy and the one here are the same file with two names (hard links), so nobody counts who uses it: the file
system does. What no copy has any more is deleted by `sweep`. Every step is one call of the system, so neither a crash nor a
sweep by another server leaves anything but a file that is not shared. Where a file system has no hard links, or the file
belongs to another user, each copy keeps its own.

    <folder>/<64 hexadecimal digits>
"""

import hashlib
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

MIN_BYTES: Final = 4096
"""Smaller files take a block each however they are kept, and a version may have thousands."""
_SCHEME: Final = "sha256:"


class SharedFiles:
    """The files of one folder. Several threads and processes may use it at once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # What was read when it was taken is not read once more when it is shared.
        self._taken: dict[tuple[int, int, int, int], str] = {}

    def take(self, digest: str, target: Path) -> bool:
        """Makes `target` the file of this digest, if it is here and whole; a damaged one is forgotten.

        Args:
            digest: `sha256:` and 64 hexadecimal digits.
            target: where nothing is yet; its folder is there.
        """
        try:
            os.link(self._place(digest), target)
            if digest_of(target) == digest:
                self._taken[_state(target)] = digest
                return True
        except OSError:  # it is not here, or it cannot be linked
            return False
        with suppress(OSError):
            target.unlink()
            self._place(digest).unlink()
        return False

    def share(self, path: Path) -> str:
        """Makes a file one with that of the same content here, or puts it here if there is none; returns its digest.

        Raises:
            OSError: the file cannot be read.
        """
        digest = self._taken.pop(_state(path), None) or digest_of(path)
        if path.stat().st_size < MIN_BYTES:
            return digest
        with suppress(OSError):
            self._merge(path, self._place(digest), digest)
        return digest

    def _merge(self, path: Path, place: Path, digest: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        if place.exists():
            if place.samefile(path):
                return
            if digest_of(place) == digest:
                aside = path.with_name(f".linked-{secrets.token_hex(8)}")
                try:
                    os.link(place, aside)
                    os.replace(aside, path)
                finally:
                    aside.unlink(missing_ok=True)
                return
            place.unlink()  # it is damaged
        os.link(path, place)

    def sweep(self) -> None:
        """Deletes the files that no copy has. One that is taken at this moment stays whole where it was taken to."""
        with suppress(OSError), os.scandir(self._folder) as entries:
            for entry in entries:
                with suppress(OSError):
                    if entry.stat(follow_symlinks=False).st_nlink == 1:
                        os.unlink(entry.path)

    def _place(self, digest: str) -> Path:
        return self._folder / digest.removeprefix(_SCHEME)


def _state(path: Path) -> tuple[int, int, int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def digest_of(path: Path) -> str:
    """The SHA-256 of a file as manifests write it; raises OSError."""
    with path.open("rb") as file:
        return f"{_SCHEME}{hashlib.file_digest(file, 'sha256').hexdigest()}"
