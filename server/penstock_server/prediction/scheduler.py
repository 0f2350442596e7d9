"""Starts the batches that are due, one of each executor in turn, between the events of a transport."""

from collections import deque
from collections.abc import MutableSequence
from math import inf
from time import monotonic_ns
from typing import Final
from weakref import ReferenceType, ref

import structlog

from penstock_server.clock import Clock
from penstock_server.plain.requests import PlainRequests
from penstock_server.prediction.executor import Executor

log = structlog.get_logger(__name__)

IDLE_S: Final = 1.0
ALONE_S: Final = 0.1
"""An executor is alone if no other has run a batch for this time."""


class BatchScheduler:
    """Runs executors fairly: each that is due starts one batch per step, however many requests wait at the others.

    Args:
        beat: one cell, which gets the time of each step in nanoseconds: the supervisor sees by it that the loop runs.

    Attributes:
        is_due: a step has work to do now.
    """

    def __init__(self, clock: Clock, beat: MutableSequence[int] | memoryview | None = None) -> None:
        self._clock = clock
        self._beat = [0] if beat is None else beat
        self._active: deque[Executor] = deque()
        self.is_due = False
        self._plain: PlainRequests | None = None
        # Whose batches have run since; None where they were several executors'. One that was unloaded must not be kept.
        self._only: ReferenceType[Executor] | None = None
        self._only_since_s = inf

    def take_plain(self, plain: PlainRequests) -> None:
        """Has the lanes of plain requests looked at in each step."""
        self._plain = plain

    def activate(self, executor: Executor) -> None:
        """Adds an executor whose queue is no longer empty, and which says that it is active until it is dropped."""
        self._active.append(executor)
        self.is_due = True

    def is_alone(self, executor: Executor, now_s: float) -> bool:
        """Whether no other executor has run a batch for `ALONE_S`; this one runs one now."""
        if self._only is None or self._only() is not executor:
            self._only, self._only_since_s = ref(executor), now_s
        return now_s - self._only_since_s >= ALONE_S

    def step(self) -> float:
        """Starts one batch of each executor that is due; returns the seconds until the next is due, 0 when one still is."""
        wait_s = IDLE_S
        self._beat[0] = monotonic_ns()
        if self._plain is not None:
            if self._plain.step(self._clock()):
                wait_s = 0.0
            if self._plain.has_run:
                self._only = None
        for _ in range(len(self._active)):
            executor = self._active.popleft()
            now_s = self._clock()
            if executor.due_s() <= now_s:
                try:
                    executor.run(now_s)
                except Exception:
                    log.exception("batch failed", model=executor.servable.key[0], version=executor.servable.key[1])
            due_s = executor.due_s()
            if due_s != inf:
                self._active.append(executor)
                executor.watch()
                wait_s = min(wait_s, max(0.0, due_s - now_s))
            else:
                executor.is_active = False
        self.is_due = wait_s <= 0
        return wait_s
