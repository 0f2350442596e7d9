"""The queue of one version: which waiting requests form the next batch, and when that batch is due.

It decides without doing: no clock of its own, no thread, no answer to anybody. The lane that owns it adds what arrives,
asks for the next batch when it is free, and answers whatever comes back. Sizes count rows, since a request may hold
many and a model's cost follows its rows.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from penstock_server.errors import InvalidInputError

FOREVER_S = float("inf")


class Waiting(Protocol):
    """What the queue needs to know of a request."""

    rows: int
    deadline_s: float
    arrived_s: float

    @property
    def is_over(self) -> bool:
        """Answered or cancelled."""
        ...


ItemT = TypeVar("ItemT", bound=Waiting)


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How large a batch and its queue may grow.

    Attributes:
        max_rows: rows of one batch; a single request with more runs alone.
        max_delay_s: how long a request may wait for company, though never for more than half of the time that its
            deadline leaves. 0 is work-conserving: a batch is what arrived while the last one ran, so batches grow with
            load and nobody waits without reason.
        queue_rows: rows that may wait, and requests; one that would exceed it is refused.
    """

    max_rows: int = 64
    max_delay_s: float = 0.0
    queue_rows: int = 4096

    def __post_init__(self) -> None:
        if self.max_rows < 1 or self.queue_rows < 1 or not 0 <= self.max_delay_s < FOREVER_S:
            raise InvalidInputError(
                "batch limits take max_rows >= 1, queue_rows >= 1 and max_delay_s >= 0, got "
                f"{self.max_rows}, {self.queue_rows} and {self.max_delay_s}"
            )


@dataclass(frozen=True, slots=True)
class Batch(Generic[ItemT]):
    """The requests to run together, in order of arrival, and those whose deadline passed while they waited."""

    items: list[ItemT]
    expired: list[ItemT]
    rows: int


class BatchQueue(Generic[ItemT]):
    """First in, first out, by rows.

    Every item that was added leaves exactly once: in a batch, among its expired, or through `discard`. An item that is
    over (answered or cancelled) is dropped silently, so cancellation needs no search through the queue.
    """

    __slots__ = ("_company_until_s", "_items", "limits", "rows")

    def __init__(self, limits: BatchLimits) -> None:
        self.limits = limits
        self.rows = 0
        self._items: deque[ItemT] = deque()
        self._company_until_s = FOREVER_S

    def __len__(self) -> int:
        return len(self._items)

    def add(self, item: ItemT) -> bool:
        """Takes the item, or refuses it with False when its rows do not fit.

        A request larger than the whole queue is taken when nothing else waits: it could never be served otherwise.
        """
        limits = self.limits
        if self.rows + item.rows > limits.queue_rows and self.rows:
            return False
        if len(self._items) >= limits.queue_rows and not self._swept():
            return False
        self._items.append(item)
        self.rows += item.rows
        if limits.max_delay_s:
            self._company_until_s = min(self._company_until_s, self._waits_until_s(item))
        return True

    def _swept(self) -> bool:
        """Drops the dead, who count no rows but hold a place; whether there is room for a request."""
        self._items = deque(item for item in self._items if not item.is_over)
        return len(self._items) < self.limits.queue_rows

    def _waits_until_s(self, item: ItemT) -> float:
        return item.arrived_s + min(self.limits.max_delay_s, (item.deadline_s - item.arrived_s) / 2)

    def discard(self, item: ItemT) -> None:
        """Gives back the rows of a waiting item that is over; the item itself is dropped when it comes up."""
        self.rows -= item.rows
        item.rows = 0

    def newest(self) -> Iterator[ItemT]:
        """What waits, the newest first."""
        return reversed(self._items)

    def due_s(self) -> float:
        """When the next batch should run: the past when it is ready now, `FOREVER_S` when nothing waits."""
        if not self._items:
            return FOREVER_S
        limits = self.limits
        if limits.max_delay_s == 0 or self.rows >= limits.max_rows:
            return 0.0
        return self._company_until_s

    def next_batch(self, now_s: float, *, one: bool = False) -> Batch[ItemT]:
        """Takes the next batch off the queue; it may be empty when all that waited was over or expired.

        Args:
            now_s: what the deadlines are compared with.
            one: at most one request, for models whose requests cannot run together.
        """
        items: list[ItemT] = []
        expired: list[ItemT] = []
        rows = 0
        waiting = self._items
        max_rows = self.limits.max_rows
        while waiting:
            item = waiting[0]
            if item.is_over:
                waiting.popleft()
                self.rows -= item.rows
            elif item.deadline_s <= now_s:
                expired.append(waiting.popleft())
                self.rows -= item.rows
            elif items and (one or rows + item.rows > max_rows):
                break
            else:
                items.append(waiting.popleft())
                self.rows -= item.rows
                rows += item.rows
        if self.limits.max_delay_s:
            self._company_until_s = min(map(self._waits_until_s, waiting), default=FOREVER_S)
        return Batch(items, expired, rows)

    def clear(self) -> list[ItemT]:
        """Takes everything off the queue; what of it is not over yet."""
        left = [item for item in self._items if not item.is_over]
        self._items.clear()
        self.rows = 0
        return left
