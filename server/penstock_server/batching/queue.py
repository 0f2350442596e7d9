"""The queue of one version: which waiting requests form the next batch, and when that batch is due.

It only decides: it has no clock, no thread and sends no answers. The executor that owns it adds what arrives, asks for
the next batch when it is free, and answers the requests in it. Sizes count rows, since a request may hold many and a
model's cost follows its rows.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import inf
from typing import Generic

from penstock_server.batching.cost import Cost, CostModel, batch_rows, finish_s, finish_singly_s, is_patient
from penstock_server.batching.limits import BatchLimits
from penstock_server.batching.priorities import DEFAULT, ItemT, PriorityLevels


@dataclass(frozen=True, slots=True)
class Batch(Generic[ItemT]):
    """The requests to run together, in the order served, and those that can no longer be answered in time."""

    items: list[ItemT]
    expired: list[ItemT]
    rows: int


class BatchQueue(Generic[ItemT]):
    """The waiting requests of one version, by priority, and first in first out within one.

    Every item that was added leaves exactly once: in a batch, among its expired, or through `discard`. An item that is
    over (answered or cancelled) is dropped silently, so cancellation needs no search through the queue. The queue
    trusts its cost model: if that is exact, no request in a batch is answered after its deadline.

    Attributes:
        rows, size_bytes: what waits.
        cost: what batches take; it is updated once a request had a deadline, or if the model has an objective.
    """

    __slots__ = (
        "_busy_until_s",
        "_default",
        "_delayed_until_s",
        "_halfway_s",
        "_is_running",
        "_is_timed",
        "_levels",
        "_others",
        "cost",
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
        self._levels: PriorityLevels[ItemT] = PriorityLevels()
        # Read several times per request, so kept as attributes of the queue itself.
        self._default = self._levels.default
        self._others = self._levels.others
        # Costs matter, and are updated, only where a request has a deadline or the model an objective.
        self._is_timed = limits.objective_ms is not None
        self._is_running = False
        self._busy_until_s = -inf
        self._delayed_until_s = inf
        self._halfway_s = inf

    def __len__(self) -> int:
        return len(self._levels) if self._others else len(self._default)

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and no batch runs."""
        return not self._default and not self._others and not self._is_running

    def is_in_time(self, item: ItemT, now_s: float, *, one: bool = False) -> bool:
        """Whether the item, if added now, would be answered before its deadline without waiting too long for that.

        A refusal while nothing waits or runs rests on the cost alone, so the cost is doubted.

        Args:
            item: not added yet.
            now_s: the time; the next batch can start then, or when the one that runs should end.
            one: requests run one by one.
        """
        self._is_timed = True
        start_s = max(now_s, self._busy_until_s)
        ahead = self.rows
        if self._others or item.priority != DEFAULT:
            ahead -= self._levels.rows_behind(item.priority, ahead)
        cost = self.cost.cost
        if one:
            end_s = finish_singly_s(start_s, cost, rows=ahead + item.rows, requests=len(self) + 1)
        else:
            largest = batch_rows(cost, self.limits.objective_s, self.max_rows)
            # A request larger than a batch runs alone.
            largest = max(largest, item.rows)
            end_s = finish_s(start_s, cost, rows=ahead + item.rows, largest=largest)
        if end_s < item.deadline_s and (
            self.limits.objective_ms is not None
            or is_patient(item.arrived_s, end_s, item.deadline_s, own_s=cost.of(item.rows))
        ):
            return True
        if self.is_idle:
            self.cost.doubt()
        return False

    def add(self, item: ItemT) -> bool:
        """Adds the item; False when the queue is full.

        A request larger than the whole queue is accepted when nothing else waits: otherwise it could never be served.
        """
        limits = self.limits
        if self.rows + item.rows > limits.queue_rows and self.rows:
            return False
        if self.size_bytes + item.size_bytes > limits.queue_bytes and self.size_bytes:
            return False
        if (len(self) if self._others else len(self._default)) >= limits.queue_requests and not self._swept():
            return False
        if item.priority == DEFAULT:
            self._default.append(item)
        else:
            self._levels.add(item)
        self.rows += item.rows
        self.size_bytes += item.size_bytes
        if limits.max_delay_s:
            self._delay_for(item)
        return True

    def _swept(self) -> bool:
        """Drops items that are over, which count no rows but take up places; whether there is room for a request now."""
        living = [item for item in self._levels if not item.is_over]
        self._levels.clear()
        for item in living:
            self._levels.add(item)
        return len(living) < self.limits.queue_requests

    def _delay_for(self, item: ItemT) -> None:
        self._delayed_until_s = min(self._delayed_until_s, item.arrived_s + self.limits.max_delay_s)
        self._halfway_s = min(self._halfway_s, (item.arrived_s + item.deadline_s) / 2)

    def discard(self, item: ItemT) -> None:
        """Gives back the rows of an item that is over; the item itself is dropped when it comes up.

        An item that a batch has taken keeps its rows: they lie between those of other items.
        """
        if not item.is_waiting:
            return
        self.rows -= item.rows
        self.size_bytes -= item.size_bytes
        self._levels.discard(item)
        item.rows = item.size_bytes = 0

    def newest(self) -> Iterator[Iterator[ItemT]]:
        """What waits: each level of priority, its newest first."""
        return self._levels.newest()

    def due_s(self) -> float:
        """When the next batch should run: the past when it is ready now, infinite when nothing waits."""
        if not self._default and not self._others:
            return inf
        limits = self.limits
        if limits.max_delay_s == 0 or self.rows >= self.max_rows:
            return 0.0
        return min(self._delayed_until_s, self._halfway_s - self.cost.of(self.rows) / 2)

    def next_batch(self, now_s: float, *, one: bool = False) -> Batch[ItemT]:
        """Takes the next batch off the queue, which runs until `ended`; empty when all that waited was over or expired.

        It is as large as can be answered before the earliest deadline in it. With an objective, while a full batch
        waits, a request that would only fit a smaller one is given up.

        Args:
            now_s: when the batch starts.
            one: at most one request, for models whose requests cannot run together.
        """
        items: list[ItemT] = []
        expired: list[ItemT] = []
        rows = 0
        until_s = inf
        others = self._others
        levels = self._levels
        cost = self.cost.cost
        start_s, row_s = now_s + cost.base_s, cost.row_s
        limits = self.limits
        has_objective = limits.objective_ms is not None
        max_rows = batch_rows(cost, limits.objective_s, self.max_rows) if has_objective else self.max_rows
        # Under overload one late request would keep a whole batch small: with an objective it is given up instead.
        full_s = start_s + row_s * max_rows if has_objective and not one else start_s
        while waiting := (levels.first() if others else self._default):
            item = waiting[0]
            deadline_s = item.deadline_s
            with_item = rows + item.rows
            end_s = start_s + row_s * with_item
            if item.is_over:
                pass
            elif (end_s >= deadline_s and start_s + row_s * item.rows >= deadline_s) or (
                deadline_s <= full_s and self.rows - item.rows + rows >= max_rows
            ):
                expired.append(item)
            elif items and (one or with_item > max_rows or end_s >= until_s or end_s >= deadline_s):
                break
            else:
                items.append(item)
                rows = with_item
                if deadline_s != inf:
                    until_s = min(until_s, deadline_s)
            waiting.popleft()
            item.is_waiting = False
            self.rows -= item.rows
            self.size_bytes -= item.size_bytes
            if others and item.priority != DEFAULT:
                levels.took(item)
        self._is_running = bool(items)
        if items and self._is_timed:
            self._busy_until_s = now_s + cost.of(rows)
        if expired and not items:
            self.cost.doubt()
        if limits.max_delay_s:
            self._delay_for_all()
        return Batch(items, expired, rows)

    def _delay_for_all(self) -> None:
        self._delayed_until_s = self._halfway_s = inf
        for item in self._levels:
            self._delay_for(item)

    def ended(self, rows: int, took_s: float | None) -> None:
        """Records that the running batch ended, and how long its rows took; None when that says nothing about the cost."""
        self._is_running = False
        if self._is_timed:
            self._busy_until_s = -inf
            if took_s is not None:
                self.cost.update(rows, took_s)

    def clear(self) -> list[ItemT]:
        """Takes everything off the queue, and returns the items that are not over yet."""
        left = [item for item in self._levels if not item.is_over]
        self._levels.clear()
        self.rows = self.size_bytes = 0
        return left
