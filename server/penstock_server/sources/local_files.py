"""Copies a version from a folder of this machine: regular files below its own root, and nothing else.

A registry's author names the folder, so it may be any. Three rules keep that harmless:
- the root must look like a version: a regular file `MLmodel` or `model.onnx` is in it (`/etc` or `/dev` is none);
- a symbolic link, device, pipe or socket below the root refuses the version, and none of them is ever opened;
- bytes, files and depth are bounded while they are copied, whatever the sizes say.

No path is looked up twice: each folder is opened once, and its files relative to that, so that nothing can be exchanged
on the way.
"""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from penstock_server.errors import InvalidInputError, NotFoundError, UnavailableError
from penstock_server.models.version_folder import shown
from penstock_server.sources.budget import Budget

_CHUNK_BYTES: Final = 1024 * 1024
_MARKS: Final = ("MLmodel", "model.onnx")
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KINDS: Final = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
)


def local_path(uri: str) -> Path | None:
    """The folder that the address of a version's files names on this machine; None if they are elsewhere.

    Raises:
        InvalidInputError: it is no address.
    """
    if uri.startswith("/"):
        return Path(uri)
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise InvalidInputError(f"its source is no address: {error}") from error
    if parts.scheme == "file" and parts.netloc in ("", "localhost"):
        return Path(unquote(parts.path))
    # A relative path is relative to the folder that the registry and this server were started in.
    return Path(uri).absolute() if uri and not parts.scheme and not parts.netloc else None


def copy_folder(source: Path, target: Path, budget: Budget, inspect: Callable[[Path], None]) -> None:
    """Copies the version at `source` into the empty folder `target`.

    Args:
        source: where it is.
        target: where it goes.
        budget: its bounds.
        inspect: looks into `target` once `MLmodel` is there, and raises if the rest is not worth copying.

    Raises:
        NotFoundError: there is no such folder.
        InvalidInputError: it is no version, holds what is no regular file, or is too large.
        UnavailableError: it cannot be read.
    """
    try:
        descriptor = os.open(source, _FOLDER)
    except (FileNotFoundError, NotADirectoryError) as error:
        if source.exists():
            raise InvalidInputError("its source is not a folder; expected the folder of an MLflow model") from error
        raise NotFoundError("its folder is not on this machine, or was deleted") from error
    except (OSError, ValueError) as error:
        raise UnavailableError(f"its folder cannot be read: {_why(error)}") from error
    try:
        if _mark_of(descriptor) == _MARKS[0]:
            _copy_file(descriptor, _MARKS[0], target / _MARKS[0], budget)
            inspect(target)
        _copy_below(descriptor, target, budget, 0)
    except OSError as error:
        raise UnavailableError(f"its files cannot be copied: {_why(error)}") from error
    finally:
        os.close(descriptor)


def _mark_of(folder: int) -> str:
    """The file by which the folder looks like a version."""
    for name in _MARKS:
        try:
            if stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                return name
        except FileNotFoundError:
            continue
    raise InvalidInputError(
        f"its source is a folder without {' or '.join(_MARKS)}; expected the folder of an MLflow model"
    )


def _copy_below(folder: int, target: Path, budget: Budget, depth: int) -> None:
    with os.scandir(folder) as entries:
        for entry in entries:
            if depth == 0 and (target / entry.name).exists():
                continue  # copied already, to look into it
            found = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                budget.folder(entry.name, depth + 1)
                (target / entry.name).mkdir()
                below = os.open(entry.name, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
                try:
                    _copy_below(below, target / entry.name, budget, depth + 1)
                finally:
                    os.close(below)
            else:
                _refuse_irregular(entry.name, found.st_mode)
                budget.file(entry.name, found.st_size)
                _copy_file(folder, entry.name, target / entry.name, budget)


def _copy_file(folder: int, name: str, target: Path, budget: Budget) -> None:
    with open(os.open(name, _FILE, dir_fd=folder), "rb", buffering=0) as source, target.open("xb", buffering=0) as copy:
        _refuse_irregular(name, os.fstat(source.fileno()).st_mode)
        while chunk := source.read(min(_CHUNK_BYTES, budget.bytes_left + 1)):
            budget.add(len(chunk))
            copy.write(chunk)


def _refuse_irregular(name: str, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = next((words for is_kind, words in _KINDS if is_kind(mode)), "no regular file")
        raise InvalidInputError(f"its file {shown(name)} is {kind}; expected regular files only")


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
