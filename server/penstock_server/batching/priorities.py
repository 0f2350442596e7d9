"""The order of what waits: by priority, first in first out within one, and nobody passed over for ever.

The queue that owns it decides how much is taken and when; nothing here knows time or cost.
"""

from collections import deque
from collections.abc import Iterator
from math import inf
from typing import Final, Generic, Protocol, TypeVar

HIGHEST: Final = 1
LOWEST: Final = 9
DEFAULT: Final = 5
"""The level of requests that name none, or 0: the middle, so that a caller may step back as well as forward."""
LEVEL_S: Final = 1.0
"""What a level is worth in waiting: a request goes before those of the next lower level that arrived up to this much
earlier. So nobody is overtaken by what arrives `(LOWEST - HIGHEST) * LEVEL_S` seconds later."""


class Ranked(Protocol):
    """What the order needs to know of a request."""

    rows: int
    arrived_s: float
    priority: int


RankedT = TypeVar("RankedT", bound=Ranked)


class _Level(Generic[RankedT]):
    __slots__ = ("items", "rows")

    def __init__(self) -> None:
        self.items: deque[RankedT] = deque()
        self.rows = 0


class PriorityLevels(dict[int, _Level[RankedT]]):
    """What waits at another level than the default, which is the queue's own list; levels without any are absent.

    A dict, since its truth is asked several times a request and where nobody uses priorities it is empty.
    """

    __slots__ = ()

    def count(self) -> int:
        """The requests at all of these levels."""
        return sum(len(level.items) for level in self.values())

    def waiting(self) -> Iterator[RankedT]:
        """All of them, in no order."""
        for level in self.values():
            yield from level.items

    def add(self, item: RankedT) -> None:
        """Puts the item last at its level."""
        level = self.setdefault(item.priority, _Level())
        level.items.append(item)
        level.rows += item.rows

    def discard(self, item: RankedT) -> None:
        """Forgets the rows of an item that stays where it is."""
        if level := self.get(item.priority):
            level.rows -= item.rows

    def took(self, item: RankedT) -> None:
        """The first item of its level was taken off."""
        level = self[item.priority]
        level.rows -= item.rows
        if not level.items:
            del self[item.priority]

    def first(self, default: deque[RankedT]) -> deque[RankedT]:
        """The level whose first item goes next; `default` when no level holds any."""
        best, best_s = default, default[0].arrived_s + DEFAULT * LEVEL_S if default else inf
        for priority, level in self.items():
            rank_s = level.items[0].arrived_s + priority * LEVEL_S
            if rank_s < best_s or (rank_s == best_s and priority < best[0].priority):
                best, best_s = level.items, rank_s
        return best

    def newest(self) -> Iterator[Iterator[RankedT]]:
        """Each level, its newest first."""
        return (reversed(level.items) for level in self.values())

    def rows_behind(self, priority: int, total: int) -> int:
        """Of `total` rows that wait at all levels, those at lower levels than this one."""
        behind = sum(level.rows for at, level in self.items() if at > priority)
        if priority < DEFAULT:
            behind += total - sum(level.rows for level in self.values())
        return behind
