"""What is kept within a bound of bytes: the entries that were asked for last.

It decides which entries go and knows nothing of what they hold. Every step takes the same time, however many there are,
but for one eviction per entry that goes.
"""

from collections import OrderedDict
from collections.abc import Hashable
from typing import Generic, NamedTuple, TypeVar

Key = TypeVar("Key", bound=Hashable)
Value = TypeVar("Value")


class KeptEntry(NamedTuple, Generic[Value]):
    """What is kept under a key, and the bytes that count for it."""

    value: Value
    size_bytes: int


class LeastRecentlyUsed(Generic[Key, Value]):
    """Entries whose bytes never come to more than `max_bytes`; the ones that were asked for longest ago make room.

    Attributes:
        max_bytes: of all entries together.
        size_bytes: of those that are kept now.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.size_bytes = 0
        # The one that was asked for last is at the end.
        self._entries: OrderedDict[Key, KeptEntry[Value]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key) -> Value | None:
        """What is kept under a key, which is the last one asked for from now on; None if nothing is."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        self._entries.move_to_end(key)
        return entry.value

    def put(self, key: Key, value: Value, size_bytes: int) -> list[tuple[Key, KeptEntry[Value]]] | None:
        """Keeps an entry in place of the one under its key, and returns those that made room for it, the oldest first.

        What is larger than all the room is not kept, makes no room, and returns None.
        """
        if size_bytes > self.max_bytes:
            return None
        self.discard(key)
        self._entries[key] = KeptEntry(value, size_bytes)
        self.size_bytes += size_bytes
        evicted = []
        while self.size_bytes > self.max_bytes:
            gone = self._entries.popitem(last=False)
            self.size_bytes -= gone[1].size_bytes
            evicted.append(gone)
        return evicted

    def discard(self, key: Key) -> KeptEntry[Value] | None:
        """Forgets an entry, and returns it; None if there is none."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.size_bytes -= entry.size_bytes
        return entry
