"""Follows what a server is asked and what that costs, from counters that are there anyway, and says what would fit.

Nothing is measured on the request path. Each second the workers' counters are read, and from the system how long their
reactors were busy: on a core, or waiting for one. What the models took of that is counted; the rest is the transport's,
decoding and answering. The costs come out of both (`cost_fit`), the capacity out of the costs (`estimate`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import exp, inf
from typing import Final

import numpy as np

from penstock.names import VersionKey
from penstock_server.batching.cost import Cost
from penstock_server.capacity.cost_fit import CostFit
from penstock_server.capacity.estimate import (
    BatchRuns,
    ServerCapacity,
    TurnCost,
    VersionLoad,
    capacity,
    distinct,
)
from penstock_server.metrics.counters import CACHE_CELLS, REFUSALS, ROWS_EDGES, SharedCounters

UNKNOWN: Final = Cost(50e-6, 1e-6)
"""Of models of which no load has told what they take."""
_RATE_S: Final = 5.0
"""Rates span about so many seconds."""
_FEWEST: Final = 20
"""Fewer requests in a second say nothing about what they cost."""
_TOO_MANY: Final = [REFUSALS.index(reason) for reason in ("overloaded", "deadline")]
_HIT_ROWS: Final = CACHE_CELLS.index("hit_rows")


@dataclass(frozen=True, slots=True)
class MeteredTotals:
    """Totals of one version over all workers.

    Attributes:
        asked: requests that were answered, or refused because there were too many.
        answered: those that were answered.
        rows: that ran.
        batches: that ran.
        model_s: what they took, features and graph.
        short_s: those of them that have few rows enough to run on the reactor.
    """

    asked: float
    answered: float
    rows: float
    batches: float
    model_s: float
    short_s: float


def counted(workers: Sequence[SharedCounters], short_rows: int) -> MeteredTotals:
    """A version's totals, by its counters in each worker."""
    answered = sum(int(each.requests[0]) for each in workers)
    refused = sum(int(each.refusals[_TOO_MANY].sum()) for each in workers)
    rows = sum(int(each.rows[0]) - int(each.cache[_HIT_ROWS]) for each in workers)
    taken = np.sum([each.batch_ns.sum(axis=0) for each in workers], axis=0) / 1e9
    short = np.searchsorted(ROWS_EDGES, short_rows, side="right")
    return MeteredTotals(
        answered + refused,
        answered,
        rows,
        sum(int(each.batch_rows.sum()) for each in workers),
        float(taken.sum()),
        float(taken[:short].sum()),
    )


@dataclass(frozen=True, slots=True)
class VersionReading:
    """A loaded version.

    Attributes:
        answers: whether requests that name no version come to it.
    """

    key: VersionKey
    runs: BatchRuns
    counted: MeteredTotals
    answers: bool


@dataclass(frozen=True, slots=True)
class MeterReading:
    """What there is to see at one moment.

    Attributes:
        at_s: when, on the monotonic clock.
        busy_s: by process, how long each worker's reactor has been busy.
        connections: of all workers together; None where that is not known.
    """

    at_s: float
    busy_s: Mapping[int, float]
    connections: int | None
    versions: Sequence[VersionReading]


class _Version:
    """What is known of one version."""

    def __init__(self, runs: BatchRuns) -> None:
        self.runs = runs
        guess = runs.cost if runs.cost.of(1) > 0 else UNKNOWN
        self._fit = CostFit([max(guess.base_s, 1e-7), max(guess.row_s, 1e-9)])
        self._asked = self._span_s = 0.0
        self._requests = self._rows = 0.0

    def add(self, grown: MeteredTotals, span_s: float) -> None:
        fade = exp(-span_s / _RATE_S)
        self._asked, self._span_s = fade * self._asked + grown.asked, fade * self._span_s + span_s
        if grown.answered:
            self._requests, self._rows = fade * self._requests + grown.answered, fade * self._rows + grown.rows
        if grown.batches:
            self._fit.add(grown.model_s, [grown.batches, grown.rows])

    def load(self, key: VersionKey) -> VersionLoad:
        known = replace(self.runs, cost=Cost(*self._fit.costs))
        rate = self._asked / self._span_s if self._span_s else 0.0
        return VersionLoad(*key, known, rate, self._rows / self._requests if self._requests else 1.0)


class CapacityMeter:
    """Looks at a server's counters each second; what it knows can be read on any thread.

    Args:
        turn: what the transport's turns take, as a guess.
        workers: how many there are.
        cores: that they may use.
        max_streams: calls in flight per connection; None where there is no limit.
    """

    def __init__(self, turn: TurnCost, *, workers: int, cores: float, max_streams: int | None = None) -> None:
        self._turns = CostFit([turn.turn_s, turn.connection_s, turn.request_s])
        self._workers = workers
        self._cores = cores
        self._max_streams = max_streams
        self._versions: dict[VersionKey, _Version] = {}
        self._last: MeterReading | None = None
        self._known = ServerCapacity()

    @property
    def turn(self) -> TurnCost:
        """What a turn takes, as far as it is known."""
        return TurnCost(*self._turns.costs)

    def known(self) -> ServerCapacity:
        """The capacity at the last look."""
        return self._known

    def look(self, reading: MeterReading) -> None:
        """Takes in what there is to see now."""
        for each in reading.versions:
            if (held := self._versions.get(each.key)) is None or held.runs != each.runs:
                self._versions[each.key] = _Version(each.runs)
        for gone in self._versions.keys() - {each.key for each in reading.versions}:
            del self._versions[gone]
        if self._last is not None and reading.at_s > self._last.at_s:
            self._grow(self._last, reading)
        self._last = reading
        self._known = self._capacity(reading)

    def _grow(self, last: MeterReading, now: MeterReading) -> None:
        before = {each.key: each.counted for each in last.versions}
        grown = {
            each.key: _grown(before[each.key], each.counted)
            for each in now.versions
            if each.key in before and each.counted.answered >= before[each.key].answered
        }
        for key, each in grown.items():
            self._versions[key].add(each, now.at_s - last.at_s)
        requests = sum(each.answered for each in grown.values())
        # A worker that was replaced was busy with other things.
        if requests >= _FEWEST and now.busy_s.keys() == last.busy_s.keys() and len(grown) == len(now.versions):
            self._learn(grown, sum(now.busy_s.values()) - sum(last.busy_s.values()), now.connections)

    def _learn(self, grown: Mapping[VersionKey, MeteredTotals], busy_s: float, connections: int | None) -> None:
        asked = [each for each in grown.values() if each.batches]
        each_has = inf if connections is None else max(1.0, connections / self._workers)
        for key, each in grown.items():
            if self._versions[key].runs.is_inline:
                busy_s -= each.model_s
            elif len(asked) == 1:
                busy_s -= each.short_s
        turns = sum(each.batches for each in asked)
        read = sum(each.batches * distinct(each_has, each.answered / each.batches) for each in asked)
        self._turns.add(max(busy_s, 0.0), [turns, read, sum(each.answered for each in asked)])

    def _capacity(self, reading: MeterReading) -> ServerCapacity:
        loads = {each.key: self._versions[each.key].load(each.key) for each in reading.versions}
        answering = {each.key for each in reading.versions if each.answers}
        each_has = inf if not reading.connections else max(1.0, reading.connections / self._workers)
        return capacity(
            [load for key, load in loads.items() if key in answering or load.requests_per_s > 0],
            self.turn,
            workers=self._workers,
            cores=self._cores,
            connections=each_has,
            most_requests=inf if self._max_streams is None else each_has * self._max_streams,
        )


def _grown(before: MeteredTotals, after: MeteredTotals) -> MeteredTotals:
    return MeteredTotals(
        after.asked - before.asked,
        after.answered - before.answered,
        after.rows - before.rows,
        after.batches - before.batches,
        after.model_s - before.model_s,
        after.short_s - before.short_s,
    )
