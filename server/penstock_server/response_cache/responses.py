"""The answers of a worker's versions, by what was asked: all on the reactor's thread, but for the making of keys.

What is kept is what a version gave for the rows of one request, as the model gave it. So all that comes after the model is done
for each request as if it had run: which outputs it asks for, its id, the role in the reply, what is counted and logged.

Rows are found by a hash of 128 bits, BLAKE2b with a random key per loaded version. Rows themselves would take more memory than
most answers. Nobody who does not know the key can look for two rows with one hash, and by chance it takes 2 ** 64 requests. And
no version finds what another one has left, whatever their numbers are.

Source: RFC 7693, "The BLAKE2 Cryptographic Hash and Message Authentication Code (MAC)".
"""

import os
import sys
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any, Final, NamedTuple, Protocol

from numpy.typing import NDArray

from penstock_server.models.servable import Given, Outputs, Shapes
from penstock_server.response_cache.lru import LeastRecentlyUsed

KEY_BYTES: Final = 16
ENTRY_BYTES: Final = 640
"""What an entry takes besides its arrays: its key and its places in tables, and the objects that hold the arrays."""
ARRAY_BYTES: Final = 16
"""What an array takes besides what Python says of it: memory is given out in pieces of so many bytes."""


class ResponseCounts(Protocol):
    """Where a version's answers are counted; others of the version may count there too."""

    def cached(self, size_bytes: int) -> None:
        """So many bytes are kept in addition, or fewer."""

    def evicted(self) -> None:
        """An answer made room for others."""


class _Kept(NamedTuple):
    owner: "VersionResponses"
    outputs: Outputs


class ResponseCache:
    """The memory for the answers of all versions of a worker."""

    def __init__(self, max_bytes: int) -> None:
        self._lru: LeastRecentlyUsed[bytes, _Kept] = LeastRecentlyUsed(max_bytes)

    @property
    def size_bytes(self) -> int:
        """What is kept, as it counts."""
        return self._lru.size_bytes

    def version(self, counts: ResponseCounts) -> "VersionResponses":
        """A place for the answers of one version, as it was loaded now."""
        return VersionResponses(self._lru, counts)


class VersionResponses:
    """The answers of one version, until `close`."""

    def __init__(self, lru: LeastRecentlyUsed[bytes, _Kept], counts: ResponseCounts) -> None:
        self._lru = lru
        self._counts = counts
        self._hash = blake2b(digest_size=KEY_BYTES, key=os.urandom(blake2b.MAX_KEY_SIZE))
        self._keys: set[bytes] = set()
        self._is_closed = False

    def key(self, blocks: Sequence[bytes], rows: int, shapes: Shapes | None, given: Given) -> bytes:
        """Stands for the decoded rows of a request; on any thread, which others may use meanwhile if they are many bytes."""
        found = self._hash.copy()
        # Where each part ends is told first, so that no two requests give the same bytes.
        found.update(repr((rows, [*map(len, blocks)], shapes, [(each.name, each.shape) for each in given])).encode())
        for block in blocks:
            found.update(block)
        for each in given:
            found.update(each.block)
        return found.digest()

    def get(self, key: bytes) -> Outputs | None:
        """What the version gave for these rows; None if that is not kept."""
        kept = self._lru.get(key)
        return None if kept is None else kept.outputs

    def put(self, key: bytes, outputs: Outputs) -> None:
        """Keeps what the version gave for the rows of one request, as it is: the arrays must be nobody else's."""
        if self._is_closed:
            return
        if key in self._keys:
            self._discard(key)
        size = size_bytes(outputs.arrays)
        evicted = self._lru.put(key, _Kept(self, outputs), size)
        if evicted is None:
            return
        self._keys.add(key)
        self._counts.cached(size)
        for gone, entry in evicted:
            entry.value.owner._evicted(gone, entry.size_bytes)  # noqa: SLF001 - of its own kind

    def close(self) -> None:
        """Forgets everything, and keeps nothing more."""
        self._is_closed = True
        for key in [*self._keys]:
            self._discard(key)

    def _discard(self, key: bytes) -> None:
        entry = self._lru.discard(key)
        if entry is not None:
            self._keys.remove(key)
            self._counts.cached(-entry.size_bytes)

    def _evicted(self, key: bytes, size: int) -> None:
        self._keys.remove(key)
        self._counts.cached(-size)
        self._counts.evicted()


def size_bytes(arrays: Sequence[NDArray[Any]]) -> int:
    """What an entry of these arrays counts: its numbers and texts, and the objects that hold them.

    A text counts as often as it is there, although some of them may be one object.
    """
    size = ENTRY_BYTES
    for array in arrays:
        size += sys.getsizeof(array) + ARRAY_BYTES
        if array.dtype.hasobject:
            size += sum(map(sys.getsizeof, array.flat))
    return size
