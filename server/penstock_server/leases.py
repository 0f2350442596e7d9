"""Leases on files and folders of the cache, so that nothing is deleted that some process uses.

A lease is a lock of the kernel (`flock(2)`): it ends with its process, however that ends, and needs no file of its own.
Where a file system has no such locks nothing is deleted, since nobody gets a lock for deleting.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
    return _lock(path, fcntl.LOCK_SH)


@contextmanager
def for_deleting(path: Path) -> Iterator[bool]:
    """Whether nobody has a lease on what is at the path; nobody gets one meanwhile."""
    lock = _lock(path, fcntl.LOCK_EX)
    try:
        yield lock is not None
    finally:
        if lock is not None:
            lock.close()


def _lock(path: Path, kind: int) -> Lease | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        found, there = os.fstat(descriptor), os.stat(path)
    except OSError:
        os.close(descriptor)
        return None
    if (found.st_dev, found.st_ino) != (there.st_dev, there.st_ino):  # deleted, or another in its place
        os.close(descriptor)
        return None
    return Lease(path, descriptor)
