"""How often each identity may call: token buckets in memory that all workers of a server share.

A bucket is one number, the time at which it will be full (the generic cell rate algorithm), so a call takes one comparison
and one store, and compiled kernels do the same. Two workers may store at the same moment, and then one call more is let
through. A bucket that is full says nothing, so its place is free for another identity.
"""

import ctypes
import hashlib
import mmap
import os
from collections.abc import Callable
from math import ceil
from pathlib import Path
from time import monotonic_ns
from typing import Final

from penstock_server.access.policy import Limit
from penstock_server.errors import LimitedError

PLACES: Final = 1 << 15
"""Buckets that are not full, at most."""
_TRIES: Final = 32
_SECOND_NS: Final = 1_000_000_000
WORDS: Final = 2
"""Of a bucket: whose it is, and when it will be full, in nanoseconds on the monotonic clock, which all processes share."""
FILE_BYTES: Final = PLACES * WORDS * 8


def interval_ns(limit: Limit) -> int:
    """What one call takes from a bucket, as time."""
    return max(1, ceil(_SECOND_NS / limit.per_s))


def depth_ns(limit: Limit) -> int:
    """How much a bucket holds, as time: never less than one call."""
    return int(max(1.0, limit.at_once) * interval_ns(limit))


class CallerBuckets:
    """The buckets of all identities that have a limit.

    Args:
        file: in shared memory, where all workers find it; None for memory of this process alone.
    """

    def __init__(self, file: Path | None = None, *, now_ns: Callable[[], int] = monotonic_ns) -> None:
        self._now_ns = now_ns
        if file is None:
            self._map = mmap.mmap(-1, FILE_BYTES)
        else:
            descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                if os.fstat(descriptor).st_size < FILE_BYTES:
                    os.ftruncate(descriptor, FILE_BYTES)
                self._map = mmap.mmap(descriptor, FILE_BYTES)
            finally:
                os.close(descriptor)
        self.words = memoryview(self._map).cast("q")
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))

    def take(self, name: str, limit: Limit) -> None:
        """Takes a call's worth from an identity's bucket.

        Raises:
            LimitedError: there is not enough in it; says when there will be.
        """
        now = self._now_ns()
        at = self.place(name) + 1
        full = max(self.words[at], now) + interval_ns(limit)
        wait = full - now - depth_ns(limit)
        if wait > 0:
            raise LimitedError("the caller calls too often; try again later", retry_after_s=wait / _SECOND_NS)
        self.words[at] = full

    def address_of(self, name: str) -> int:
        """Where an identity's bucket is, for kernels; it may be another's when `key_of` its name is no longer there."""
        return self._address + 8 * self.place(name)

    def place(self, name: str) -> int:
        """Where in `words` an identity's bucket is, which begins with `key_of` its name."""
        key, words, now = key_of(name), self.words, self._now_ns()
        first = key % PLACES
        free = -1
        for step in range(_TRIES):
            at = (first + step) % PLACES * WORDS
            if words[at] == key:
                return at
            if free < 0 and words[at + 1] <= now:
                free = at
        # Where nothing is free near its place, two identities share a bucket.
        at = first * WORDS if free < 0 else free
        words[at + 1] = 0
        words[at] = key
        return at


def key_of(name: str) -> int:
    """A number for a name, never 0."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") >> 1 | 1
