"""The queue of one version: which waiting requests form the next batch, and when that batch is due.

It decides without doing: no clock of its own, no thread, no answer to anybody. The executor that owns it adds what arrives,
asks for the next batch when it is free, and answers whatever comes back. Sizes count rows, since a request may hold
many and a model's cost follows its rows.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from math import inf
from typing import Generic, Protocol, TypeVar

from penstock_server.batching.cost import Cost, CostModel, batch_rows, finish_s, finish_singly_s, is_patient
from penstock_server.batching.limits import BatchLimits
from penstock_server.batching.priorities import DEFAULT, PriorityLevels


class Waiting(Protocol):
    """What the queue needs to know of a request."""

    rows: int
    size_bytes: int
    deadline_s: float
    arrived_s: float
    priority: int

    @property
    def is_over(self) -> bool:
        """Answered or cancelled."""
        ...


ItemT = TypeVar("ItemT", bound=Waiting)


@dataclass(frozen=True, slots=True)
class Batch(Generic[ItemT]):
    """The requests to run together, in the order served, and those that can no longer be answered in time."""

    items: list[ItemT]
    expired: list[ItemT]
    rows: int


class BatchQueue(Generic[ItemT]):
    """By priority, first in first out within one, by rows.

    Every item that was added leaves exactly once: in a batch, among its expired, or through `discard`. An item that is
    over (answered or cancelled) is dropped silently, so cancellation needs no search through the queue. What the cost
    says is never in doubt here: with an exact one, nobody in a batch is answered after their deadline.

    Attributes:
        rows, size_bytes: what waits.
        cost: what batches take; `update` it where `is_timed`.
        is_timed: a request had a deadline, so that costs matter.
    """

    __slots__ = (
        "_company_until_s",
        "_halfway_s",
        "_items",
        "_others",
        "cost",
        "is_timed",
        "limits",
        "max_rows",
        "rows",
        "size_bytes",
    )

    def __init__(self, limits: BatchLimits, cost: Cost | None = None) -> None:
        self.limits = limits
        self.max_rows = limits.most_rows
        self.rows = 0
        self.size_bytes = 0
        self.cost = CostModel(cost or Cost(0.0, 0.0), self.max_rows)
        self.is_timed = limits.objective_ms is not None
        self._items: deque[ItemT] = deque()
        self._others: PriorityLevels[ItemT] = PriorityLevels()
        self._company_until_s = inf
        self._halfway_s = inf

    def __len__(self) -> int:
        return len(self._items) + self._others.count() if self._others else len(self._items)

    def is_in_time(self, item: ItemT, start_s: float, *, one: bool = False) -> bool:
        """Whether the item, if added now, would be answered before its deadline, and not wait all too long for that.

        Args:
            item: not added yet.
            start_s: when the next batch can start: now, or when the one that runs should end.
            one: requests run one by one.
        """
        self.is_timed = True
        ahead = self.rows
        if self._others or item.priority != DEFAULT:
            ahead -= self._others.rows_behind(item.priority, ahead)
        cost = self.cost.cost
        if one:
            end_s = finish_singly_s(start_s, cost, rows=ahead + item.rows, requests=len(self) + 1)
        else:
            largest = batch_rows(cost, self.limits.objective_s, self.max_rows)
            # A request larger than a batch runs alone.
            largest = max(largest, item.rows)
            end_s = finish_s(start_s, cost, rows=ahead + item.rows, largest=largest)
        if self.limits.objective_ms is not None or end_s >= item.deadline_s:
            return end_s < item.deadline_s
        return is_patient(item.arrived_s, end_s, item.deadline_s, own_s=cost.of(item.rows))

    def add(self, item: ItemT) -> bool:
        """Takes the item, or refuses it with False when its rows do not fit.

        A request larger than the whole queue is taken when nothing else waits: it could never be served otherwise.
        """
        limits = self.limits
        if self.rows + item.rows > limits.queue_rows and self.rows:
            return False
        if self.size_bytes + item.size_bytes > limits.queue_bytes and self.size_bytes:
            return False
        if (len(self) if self._others else len(self._items)) >= limits.queue_requests and not self._swept():
            return False
        if item.priority == DEFAULT:
            self._items.append(item)
        else:
            self._others.add(item)
        self.rows += item.rows
        self.size_bytes += item.size_bytes
        if limits.max_delay_s:
            self._waits(item)
        return True

    def _swept(self) -> bool:
        """Drops the dead, who count no rows but hold a place; whether there is room for a request."""
        living = [item for item in chain(self._items, self._others.waiting()) if not item.is_over]
        self._items = deque(item for item in living if item.priority == DEFAULT)
        self._others.clear()
        for item in living:
            if item.priority != DEFAULT:
                self._others.add(item)
        return len(living) < self.limits.queue_requests

    def _waits(self, item: ItemT) -> None:
        self._company_until_s = min(self._company_until_s, item.arrived_s + self.limits.max_delay_s)
        self._halfway_s = min(self._halfway_s, (item.arrived_s + item.deadline_s) / 2)

    def discard(self, item: ItemT) -> None:
        """Gives back the rows of a waiting item that is over; the item itself is dropped when it comes up."""
        self.rows -= item.rows
        self.size_bytes -= item.size_bytes
        if self._others:
            self._others.discard(item)
        item.rows = item.size_bytes = 0

    def newest(self) -> Iterator[Iterator[ItemT]]:
        """What waits: each level of priority, its newest first."""
        yield reversed(self._items)
        if self._others:
            yield from self._others.newest()

    def due_s(self) -> float:
        """When the next batch should run: the past when it is ready now, infinite when nothing waits."""
        if not self._items and not self._others:
            return inf
        limits = self.limits
        if limits.max_delay_s == 0 or self.rows >= self.max_rows:
            return 0.0
        return min(self._company_until_s, self._halfway_s - self.cost.of(self.rows) / 2)

    def next_batch(self, now_s: float, *, one: bool = False) -> Batch[ItemT]:
        """Takes the next batch off the queue; it may be empty when all that waited was over or expired.

        It is as large as can be answered before the earliest deadline in it. With an objective, while a full batch
        waits, a request that could only go in a smaller one is given up.

        Args:
            now_s: when the batch starts.
            one: at most one request, for models whose requests cannot run together.
        """
        items: list[ItemT] = []
        expired: list[ItemT] = []
        rows = 0
        until_s = inf
        others = self._others
        cost = self.cost.cost
        start_s, row_s = now_s + cost.base_s, cost.row_s
        limits = self.limits
        has_objective = limits.objective_ms is not None
        max_rows = batch_rows(cost, limits.objective_s, self.max_rows) if has_objective else self.max_rows
        # Under overload one late request would keep a whole batch small: with an objective it is given up instead.
        full_s = start_s + row_s * max_rows if has_objective and not one else start_s
        while waiting := (others.first(self._items) if others else self._items):
            item = waiting[0]
            deadline_s = item.deadline_s
            wanted = rows + item.rows
            end_s = start_s + row_s * wanted
            if item.is_over:
                pass
            elif (end_s >= deadline_s and start_s + row_s * item.rows >= deadline_s) or (
                deadline_s <= full_s and self.rows - item.rows + rows >= max_rows
            ):
                expired.append(item)
            elif items and (one or wanted > max_rows or end_s >= until_s or end_s >= deadline_s):
                break
            else:
                items.append(item)
                rows = wanted
                if deadline_s != inf:
                    until_s = min(until_s, deadline_s)
            waiting.popleft()
            self.rows -= item.rows
            self.size_bytes -= item.size_bytes
            if others and item.priority != DEFAULT:
                others.took(item)
        if expired and not items:
            self.cost.doubt()
        if limits.max_delay_s:
            self._wait_anew()
        return Batch(items, expired, rows)

    def _wait_anew(self) -> None:
        self._company_until_s = self._halfway_s = inf
        for item in chain(self._items, self._others.waiting()):
            self._waits(item)

    def clear(self) -> list[ItemT]:
        """Takes everything off the queue; what of it is not over yet."""
        left = [item for item in chain(self._items, self._others.waiting()) if not item.is_over]
        self._items.clear()
        self._others.clear()
        self.rows = self.size_bytes = 0
        return left
