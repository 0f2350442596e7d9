"""The queue of one version: which waiting requests form the next batch, and when that batch is due.

It only decides: it has no clock, no thread and sends no answers. The executor that owns it adds what arrives, asks for
the next batch when it is free, and answers the requests in it. Sizes count rows, since a request may hold many and a
model's cost follows its rows.
"""

from collections.abc import Iterator
from dataclasses import replace
from math import inf
from typing import Final, Generic

from msgspec import Struct

from penstock_server.batching.cost import Cost, CostModel, batch_rows, finish_s, finish_singly_s, is_patient
from penstock_server.batching.limits import BatchLimits
from penstock_server.batching.priorities import DEFAULT, ItemT, PriorityLevels

_PROBE_PAUSE: Final = 20
"""Between two probes passes this multiple of what the last one took: so probes take at most 5 % of a model's time."""
_FEW: Final = 64
"""Discarded items that may keep their places beyond as many as wait."""


class Batch(Struct, Generic[ItemT], frozen=True):
    """The requests to run together, in the order served, and those that can no longer be answered in time.

    It is a struct, since one is made per batch on the request path and a frozen dataclass takes a microsecond more.

    Attributes:
        counts: the rows that each item brought. Replies are cut by them, whatever becomes of the item meanwhile.
        rows: their sum.
        is_probe: the batch runs to find out what it costs, although its deadline may pass.
    """

    items: list[ItemT]
    counts: list[int]
    expired: list[ItemT]
    rows: int
    is_probe: bool = False


class BatchQueue(Generic[ItemT]):
    """The waiting requests of one version, by priority, and first in first out within one.

    Every item that was added leaves exactly once: in a batch, among its expired, or through `discard`; `is_waiting` tells
    whether it has. An item that is over (answered or cancelled) is dropped silently, so cancellation needs no search
    through the queue. The queue trusts its cost model: if that is exact, no request in a batch is answered after its
    deadline.

    The cost model learns from what ran and from nothing else. A line that is too high would refuse every request, so that
    nothing ran and nothing were learned. Therefore, while nothing waits or runs, a request that looks too late is now and
    then admitted as a probe: it runs in any case, and its caller waits no longer than its own deadline.

    Attributes:
        rows, requests, size_bytes: what waits.
        ready_rows: the rows that wait for no others.
        cost: what batches take; it is updated once a request had a deadline, or if the model has an objective.
    """

    __slots__ = (
        "_busy_until_s",
        "_default",
        "_delayed_until_s",
        "_discarded",
        "_halfway_s",
        "_is_running",
        "_is_timed",
        "_levels",
        "_others",
        "_probe",
        "_probe_at_s",
        "cost",
        "limits",
        "max_rows",
        "ready_rows",
        "requests",
        "rows",
        "size_bytes",
    )

    def __init__(self, limits: BatchLimits, cost: Cost | None = None) -> None:
        self.limits = limits
        self.max_rows = limits.most_rows
        self.ready_rows = min(limits.ready_rows or self.max_rows, self.max_rows)
        self.rows = 0
        self.requests = 0
        self.size_bytes = 0
        self.cost = CostModel(cost or Cost(0.0, 0.0), self.max_rows)
        self._levels: PriorityLevels[ItemT] = PriorityLevels()
        # Read several times per request, so kept as attributes of the queue itself.
        self._default = self._levels.default
        self._others = self._levels.others
        # Discarded items that still have their places.
        self._discarded = 0
        # Costs matter, and are updated, only where a request has a deadline or the model an objective.
        self._is_timed = limits.objective_ms is not None
        self._is_running = False
        self._busy_until_s = -inf
        self._delayed_until_s = inf
        self._halfway_s = inf
        self._probe: ItemT | None = None
        self._probe_at_s = -inf

    def __len__(self) -> int:
        return self.requests

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and no batch runs."""
        return not self.requests and not self._is_running

    @property
    def largest_rows(self) -> int:
        """The rows of the largest batch that the objective allows."""
        return batch_rows(self.cost.cost, self.limits.objective_s, self.max_rows)

    @property
    def probe_at_s(self) -> float:
        """From when on a request may run to find out what a batch costs; infinite while one does."""
        return self._probe_at_s

    def admits(self, item: ItemT, now_s: float, *, one: bool = False, ahead_rows: int = 0) -> bool:
        """Whether the item, if added now, would be answered before its deadline without waiting too long for that.

        An item that would not is admitted all the same when it is to be the next probe.

        Args:
            item: not added yet.
            now_s: the time; the next batch can start then, or when the one that runs should end.
            one: requests run one by one.
            ahead_rows: what waits elsewhere and runs before it.
        """
        self._is_timed = True
        start_s = max(now_s, self._busy_until_s)
        rows, requests = self.rows, self.requests
        if self._others or item.priority != DEFAULT:
            rows, requests = self._levels.ahead(item.priority, rows, requests)
        cost = self.cost.cost
        if one:
            end_s = finish_singly_s(start_s, cost, rows=rows + item.rows, requests=requests + 1)
        else:
            largest = batch_rows(cost, self.limits.objective_s, self.max_rows)
            # A request larger than a batch runs alone.
            largest = max(largest, item.rows)
            end_s = finish_s(start_s, cost, rows=rows + ahead_rows + item.rows, largest=largest)
        if end_s < item.deadline_s and (
            self.limits.objective_ms is not None
            or is_patient(item.arrived_s, end_s, item.deadline_s, own_s=cost.of(item.rows))
        ):
            return True
        if self.requests or self._is_running or ahead_rows or start_s > now_s or now_s < self._probe_at_s:
            return False
        self._probe = item
        return True

    def add(self, item: ItemT) -> bool:
        """Adds the item; False when the queue is full.

        A request larger than the whole queue is accepted when nothing else waits: otherwise it could never be served.
        """
        limits = self.limits
        if self.rows + item.rows > limits.queue_rows and self.rows:
            return False
        if self.size_bytes + item.size_bytes > limits.queue_bytes and self.size_bytes:
            return False
        if self.requests >= limits.queue_requests:
            return False
        if item.priority == DEFAULT:
            self._default.append(item)
        else:
            self._levels.add(item)
        item.is_waiting = True
        self.rows += item.rows
        self.requests += 1
        self.size_bytes += item.size_bytes
        if limits.max_delay_s:
            self._delay_for(item)
        return True

    def _delay_for(self, item: ItemT) -> None:
        self._delayed_until_s = min(self._delayed_until_s, item.arrived_s + self.limits.max_delay_s)
        self._halfway_s = min(self._halfway_s, (item.arrived_s + item.deadline_s) / 2)

    def _uncount(self, item: ItemT) -> None:
        """The one place where an item stops counting; it happens once, since the item waits no longer then."""
        item.is_waiting = False
        self.rows -= item.rows
        self.requests -= 1
        self.size_bytes -= item.size_bytes
        if item.priority != DEFAULT:
            self._levels.uncount(item)

    def _dropped(self, _item: ItemT) -> None:
        self._discarded -= 1

    def discard(self, item: ItemT) -> bool:
        """Gives back the place of an item that is over; False when it waits no longer.

        The item itself is dropped when it comes up. A batch keeps the rows of an item that it has taken.
        """
        if not item.is_waiting:
            return False
        self._uncount(item)
        self._discarded += 1
        if not self.requests:
            self._levels.clear()
            self._discarded = 0
        elif self._discarded > self.requests + _FEW:
            self._sweep()
        return True

    def _sweep(self) -> None:
        """Drops discarded items, of which there are more than others: so this costs each discard a constant time."""
        waiting = [item for item in self._levels if item.is_waiting]
        self._levels.clear()
        self._discarded = 0
        for item in waiting:
            self._levels.add(item)

    def newest(self) -> Iterator[Iterator[ItemT]]:
        """What waits: each level of priority, its newest first; discarded items too."""
        return self._levels.newest()

    def hurry(self) -> None:
        """Waits for no company from now on."""
        self.limits = replace(self.limits, max_delay_s=0.0)

    def due_s(self) -> float:
        """When the next batch should run: the past when it is ready now, infinite when nothing waits."""
        if not self.requests:
            return inf
        limits = self.limits
        if limits.max_delay_s == 0 or self.rows >= self.ready_rows:
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
        if (probe := self._probe) is not None:
            self._probe = None
            if probe.is_waiting and not probe.is_over:
                self.discard(probe)  # it keeps a place, as a discarded item does
                return self._probe_batch(probe, [], now_s)
        items: list[ItemT] = []
        counts: list[int] = []
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
            item_rows = item.rows
            with_item = rows + item_rows
            end_s = start_s + row_s * with_item
            if not item.is_waiting or item.is_over:
                pass
            elif (end_s >= deadline_s and start_s + row_s * item_rows >= deadline_s) or (
                deadline_s <= full_s and self.rows - item_rows + rows >= max_rows
            ):
                expired.append(item)
            elif items and (one or with_item > max_rows or end_s >= until_s or end_s >= deadline_s or item.is_alone):
                break
            else:
                items.append(item)
                counts.append(item_rows)
                rows = with_item
                one = one or item.is_alone
                if deadline_s != inf:
                    until_s = min(until_s, deadline_s)
            waiting.popleft()
            (self._uncount if item.is_waiting else self._dropped)(item)
            if item.priority != DEFAULT:
                levels.popped(item)
        if expired and not items and expired[-1].deadline_s > now_s >= self._probe_at_s:
            # The line alone gives them up, and nothing would run that could correct it.
            return self._probe_batch(expired.pop(), expired, now_s)
        self._start(bool(items), rows, now_s)
        return Batch(items, counts, expired, rows)

    def _probe_batch(self, probe: ItemT, expired: list[ItemT], now_s: float) -> Batch[ItemT]:
        self._start(True, probe.rows, now_s)
        self._probe_at_s = inf  # until it has ended
        return Batch([probe], [probe.rows], expired, probe.rows, is_probe=True)

    def _start(self, is_running: bool, rows: int, now_s: float) -> None:
        self._is_running = is_running
        if is_running:
            self._busy_until_s = now_s + self.cost.of(rows)
        if self.limits.max_delay_s:
            self._delayed_until_s = self._halfway_s = inf
            for item in self._levels:
                if item.is_waiting:
                    self._delay_for(item)

    def set_busy_until(self, until_s: float) -> None:
        """When what runs beside the queue should end."""
        self._busy_until_s = until_s

    def ended(self, batch: Batch[ItemT], now_s: float, took_s: float | None) -> None:
        """Records that the running batch ended, and how long it took; None when that says nothing about the cost."""
        self._is_running = False
        self._busy_until_s = -inf
        if self._is_timed and took_s is not None:
            self.cost.update(batch.rows, took_s, is_probe=batch.is_probe)
        if batch.is_probe:
            self._probe_at_s = now_s + _PROBE_PAUSE * (self.cost.of(batch.rows) if took_s is None else took_s)

    def clear(self) -> list[ItemT]:
        """Takes everything off the queue, and returns the items that are not over yet."""
        left = [item for item in self._levels if item.is_waiting]
        for item in left:
            self._uncount(item)
        self._levels.clear()
        self._discarded = 0
        return [item for item in left if not item.is_over]
