"""Reads files from a folder of untrusted content: no path leaves the folder, no file is larger than expected.

`manifest` and `artifact` know what the files mean. Every failure is an `InvalidInputError` that names the file and what was
expected.
"""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from penstock_server.errors import InvalidInputError

MAX_NAME_CHARS = 1024


def shown(name: str) -> str:
    """An untrusted name as an error shows it: quoted, and cut to 100 characters."""
    return repr(name) if len(name) <= 100 else f"{name[:100]!r}..."


def locate(folder: Path, name: str) -> Path:
    """The regular file `name` of `folder`, with symbolic links resolved.

    Links are followed as long as they stay in the folder: Kubernetes mounts files that way.

    Raises:
        InvalidInputError: The name or a link leads out of the folder, or there is no such regular file.
    """
    _refuse_outside(name)
    try:
        root = folder.resolve(strict=True)
        path = (root / name).resolve(strict=True)
        is_file = path.is_file()
    except FileNotFoundError as error:
        raise InvalidInputError(f"file {shown(name)} is missing; the folder holds {_contents(folder)}") from error
    except (OSError, RuntimeError, ValueError) as error:
        raise InvalidInputError(f"file {shown(name)} cannot be read: {_reason(error)}") from error
    if not path.is_relative_to(root):
        raise InvalidInputError(f"file {shown(name)} is a link that leaves the version's folder; expected a file in it")
    if not is_file:
        raise InvalidInputError(f"file {shown(name)} is not a regular file; expected one")
    return path


def read_bytes(folder: Path, name: str, *, max_bytes: int) -> bytes:
    """The content of the file `name`.

    Raises:
        InvalidInputError: As `locate`, or the file is larger than `max_bytes` or cannot be read.
    """
    path = locate(folder, name)
    try:
        with path.open("rb") as file:
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise InvalidInputError(f"file {shown(name)} cannot be read: {_reason(error)}") from error
    if len(content) > max_bytes:
        raise InvalidInputError(f"file {shown(name)} is too large; expected at most {max_bytes:,} bytes")
    return content


def has(folder: Path, name: str) -> bool:
    """Whether anything has this name, even a broken link."""
    path = folder / name
    return path.exists() or path.is_symlink()


def digest_of(content: bytes) -> str:
    """The SHA-256 as manifests write it: `sha256:` and 64 hexadecimal digits."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def file_digest(folder: Path, name: str) -> str:
    """The digest of the file `name`, read in pieces.

    Raises:
        InvalidInputError: As `locate`, or the file cannot be read.
    """
    path = locate(folder, name)
    try:
        with path.open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except OSError as error:
        raise InvalidInputError(f"file {shown(name)} cannot be read: {_reason(error)}") from error


def file_names(folder: Path) -> Iterator[str]:
    """The relative names, with forward slashes and in order, of all files below `folder`."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield path.relative_to(folder).as_posix()


FileStates = list[tuple[str, int, int]]
"""The name of each file, its size in bytes, and the time of its last change in nanoseconds."""


def file_states(folder: Path) -> FileStates:
    """What tells the files below `folder` from others without reading them, in the order of their names."""
    found = []
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            state = path.stat()
            found.append((str(path.relative_to(folder)), state.st_size, state.st_mtime_ns))
    return sorted(found)


def _refuse_outside(name: str) -> None:
    parts = name.split("/")
    is_plain = name.isprintable() and "\\" not in name and all(part not in ("", ".", "..") for part in parts)
    if not is_plain or len(name) > MAX_NAME_CHARS or PurePosixPath(name).is_absolute():
        raise InvalidInputError(
            f"file name {shown(name)} is refused; expected a plain path inside the version's folder"
        )


def _contents(folder: Path) -> str:
    try:
        names = sorted(path.name for path in folder.iterdir())
    except OSError:
        return "nothing that can be listed"
    return ", ".join(map(shown, names[:8])) + (", ..." if len(names) > 8 else "") if names else "nothing"


def _reason(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)
