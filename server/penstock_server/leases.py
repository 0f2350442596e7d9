"""Leases on files and folders of the cache, so that nothing is deleted that some process uses.

A lease is a lock of the kernel (`flock(2)`): it ends with its process, however that ends, and needs no file of its own.
Where a file system has no such locks nothing is deleted, since nobody gets a lock for deleting.
"""

import errno
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

PATIENCE_S: Final = 0.1
"""So long a lease is waited for: a sweep locks what it looks at for a moment, also what it then leaves."""
_LOOK_S: Final = 0.002
_ATTEMPTS: Final = 100


class Lease:
    """Keeps a file or folder from being deleted until it is closed, or the process ends."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self._descriptor = descriptor

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def __del__(self) -> None:
        self.close()


def take(path: Path) -> Lease | None:
    """A lease on what is at the path; None if nothing is there, or it is being deleted."""
    until_s = time.monotonic() + PATIENCE_S
    while True:
        try:
            return _lock(path, fcntl.LOCK_SH)
        except BlockingIOError:
            if time.monotonic() >= until_s:
                return None
        except OSError as error:
            # Where there are no locks nothing is ever deleted, so that nothing needs to be held.
            has_locks = error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)
            return None if has_locks else Lease(path, -1)
        time.sleep(_LOOK_S)


def new_folder(parent: Path, prefix: str) -> tuple[Path, Lease]:
    """Makes a folder of a new name, and takes its lease; a sweep of another process may come at any moment.

    Raises:
        OSError: it cannot be made.
    """
    for _ in range(_ATTEMPTS):
        try:
            parent.mkdir(parents=True, exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
        except FileNotFoundError:  # a parent was empty, and was swept
            continue
        lease = take(folder)
        if lease is not None:
            return folder, lease
    raise OSError(errno.EAGAIN, f"each new folder was deleted at once, {_ATTEMPTS} times", str(parent))


@contextmanager
def for_deleting(path: Path) -> Iterator[bool]:
    """Whether nobody has a lease on what is at the path; nobody gets one meanwhile."""
    try:
        lock = _lock(path, fcntl.LOCK_EX)
    except OSError:
        lock = None
    try:
        yield lock is not None
    finally:
        if lock is not None:
            lock.close()


def _lock(path: Path, kind: int) -> Lease | None:
    """The lock; None if what was there was deleted, or another is in its place. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        found, there = os.fstat(descriptor), os.stat(path)
    except OSError:
        os.close(descriptor)
        raise
    if (found.st_dev, found.st_ino) != (there.st_dev, there.st_ino):
        os.close(descriptor)
        return None
    return Lease(path, descriptor)
