"""Orders waiting requests by priority, first in first out within one, so that none waits forever.

The queue that owns it decides how much is taken and when; this module knows no clock and no cost.
"""

from collections import deque
from collections.abc import Iterator
from itertools import chain
from math import inf
from typing import Final, Generic, Protocol, TypeVar

HIGHEST: Final = 1
LOWEST: Final = 9
DEFAULT: Final = 5
"""The priority of requests that name none, or 0: the middle, so that a caller may go lower as well as higher."""
LEVEL_S: Final = 1.0
"""What a level is worth in waiting: a request goes before those of the next lower level that arrived up to this much
earlier. So no request is overtaken by one that arrives `(LOWEST - HIGHEST) * LEVEL_S` seconds later."""


class QueueItem(Protocol):
    """What batching needs to know of a request, so that it need not know the request path.

    Attributes:
        is_alone: no other shares its batch.
        is_waiting: it is in a queue, which alone sets this.
    """

    rows: int
    size_bytes: int
    deadline_s: float
    arrived_s: float
    priority: int
    is_alone: bool
    is_waiting: bool

    @property
    def is_over(self) -> bool:
        """Answered or cancelled."""
        ...


ItemT = TypeVar("ItemT", bound=QueueItem)


class _Level(Generic[ItemT]):
    __slots__ = ("items", "requests", "rows")

    def __init__(self) -> None:
        self.items: deque[ItemT] = deque()
        self.rows = 0
        self.requests = 0


class PriorityLevels(Generic[ItemT]):
    """All that waits, a level per priority.

    An item that was discarded keeps its place until it comes up; levels count the others.

    Attributes:
        default: the level of the default priority, which is that of nearly every request: its owner may append to it
            and take from it directly. It counts nothing of its own: its counts are what the others leave of the totals.
        others: the levels of other priorities, by priority; one without items is absent.
    """

    __slots__ = ("default", "others")

    def __init__(self) -> None:
        self.default: deque[ItemT] = deque()
        self.others: dict[int, _Level[ItemT]] = {}

    def __iter__(self) -> Iterator[ItemT]:
        return chain(self.default, *(level.items for level in self.others.values()))

    def add(self, item: ItemT) -> None:
        """Puts the item last at its level."""
        if item.priority == DEFAULT:
            self.default.append(item)
            return
        level = self.others.setdefault(item.priority, _Level())
        level.items.append(item)
        level.rows += item.rows
        level.requests += 1

    def uncount(self, item: ItemT) -> None:
        """Counts the item no longer; the item itself stays in its place."""
        if level := self.others.get(item.priority):
            level.rows -= item.rows
            level.requests -= 1

    def popped(self, item: ItemT) -> None:
        """Records that the owner took the first item, this one, off its level."""
        if (level := self.others.get(item.priority)) and not level.items:
            del self.others[item.priority]

    def first(self) -> deque[ItemT]:
        """The level whose first item goes next; an empty one when nothing waits."""
        default = self.default
        best, best_s = default, default[0].arrived_s + DEFAULT * LEVEL_S if default else inf
        for priority, level in self.others.items():
            rank_s = level.items[0].arrived_s + priority * LEVEL_S
            if rank_s < best_s or (rank_s == best_s and priority < best[0].priority):
                best, best_s = level.items, rank_s
        return best

    def newest(self) -> Iterator[Iterator[ItemT]]:
        """Each level in turn, its newest item first."""
        yield reversed(self.default)
        for level in self.others.values():
            yield reversed(level.items)

    def ahead(self, priority: int, rows: int, requests: int) -> tuple[int, int]:
        """Of the totals that wait, the rows and requests that a new item of this priority would wait for."""
        if priority < DEFAULT:
            levels = [level for at, level in self.others.items() if at <= priority]
            return sum(level.rows for level in levels), sum(level.requests for level in levels)
        for at, level in self.others.items():
            if at > priority:
                rows -= level.rows
                requests -= level.requests
        return rows, requests

    def clear(self) -> None:
        self.default.clear()
        self.others.clear()
