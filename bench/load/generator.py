"""Sends a plan's load from one thread and counts what comes back.

It decides when to send, by the plan's arrivals, and when to measure; the protocols are `connection` and `http1`. The
clock is read after every receive and before every send, so a batch of answers costs two readings.
"""

import gc
import select
import selectors
import sys
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np

from bench.load.arrivals import Arrivals, arrivals_of
from bench.load.connection import Calls, Outcome
from bench.load.headers import request_block
from bench.load.http1 import HttpCalls
from bench.load.link import Link, links
from bench.load.plan import LoadPlan, LoadResult, endpoint
from penstock_client.http2.frames import ProtocolError

_LOOK_S = 0.05  # how often an idle run reads the clock and `should_stop`
_REASONS_LIMIT = 32  # distinct reasons for failure: texts that differ each time must not fill the memory


class LoadError(Exception):
    """The load cannot be sent as planned."""


def run(
    plan: LoadPlan, *, probe: Callable[[], float] | None = None, should_stop: Callable[[], bool] | None = None
) -> LoadResult:
    """Sends the load and waits for its answers.

    Args:
        plan: what to send.
        probe: read when the window opens and when it closes, such as a server's CPU seconds.
        should_stop: called about every 50 ms; true ends the sending and the window early.

    Raises:
        LoadError: the server accepts no connection, or fewer streams than planned.
    """
    calls = calls_of(plan)
    with selectors.EpollSelector() as selector, _without_collector():
        try:
            address = endpoint(plan.address)
            with links(address, calls, plan.connections, selector, is_tls=plan.is_tls, idle=plan.idle) as opened:
                return _Run(plan, opened, selector, probe, should_stop).result()
        except OSError as error:
            raise LoadError(f"no connection to {plan.address}: {error}") from error


def calls_of(plan: LoadPlan) -> Calls | HttpCalls:
    """The bytes of a plan's calls."""
    if plan.is_http1:
        return HttpCalls(plan.path, plan.address, plan.messages)
    headers = () if plan.timeout_s is None else (("grpc-timeout", f"{max(1, round(plan.timeout_s * 1e6))}u"),)
    return Calls(request_block(plan.path, plan.address, (*headers, *plan.headers)), plan.messages)


@contextmanager
def _without_collector() -> Iterator[None]:
    """Turns the garbage collector off: a run makes no cycles, and a collection would look like a slow server."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Run:
    """One run's state: before its window, in it, or draining."""

    def __init__(
        self,
        plan: LoadPlan,
        opened: list[Link],
        selector: selectors.EpollSelector,
        probe: Callable[[], float] | None,
        should_stop: Callable[[], bool] | None,
    ) -> None:
        self._plan = plan
        self._links = opened
        self._selector = selector
        self._probe = probe
        self._should_stop = should_stop
        self._attempted = 0
        self._ended = 0
        self._succeeded = 0
        self._failures: Counter[str] = Counter()
        self._latencies_s = array("d")
        self._turn = 0
        self._opened_at: float | None = None
        self._closed_at: float | None = None
        self._probes: list[float] = []
        self._look_at = 0.0
        start = time.perf_counter()
        self._open_at = start + plan.warmup_s
        self._close_at = self._open_at + plan.duration_s
        self._arrivals: Arrivals = arrivals_of(plan, start)

    def result(self) -> LoadResult:
        """Runs to the end."""
        self._fill_all(time.perf_counter())
        while self._goes_on(time.perf_counter()):
            for key, events in self._wait():
                link: Link = key.data
                if events & selectors.EVENT_READ:
                    self._receive(link)
                elif link.is_open:
                    self._flush(link)
            if self._arrivals.is_open:
                self._fill_all(time.perf_counter())
        for link in self._links:
            self._lose(link, "no answer in time")
        opened_at = self._opened_at if self._opened_at is not None else self._open_at
        closed_at = self._closed_at if self._closed_at is not None else time.perf_counter()
        return LoadResult(
            attempted=self._attempted,
            succeeded=self._succeeded,
            failures=dict(self._failures),
            window_s=max(0.0, closed_at - opened_at),
            latencies_s=np.array(self._latencies_s),
            probed=self._probes[1] - self._probes[0] if len(self._probes) == 2 else None,
        )

    def _goes_on(self, now: float) -> bool:
        """Opens and closes the window at its times; false if there is nothing left to wait for."""
        if self._opened_at is None and now >= self._open_at:
            self._opened_at = self._read_probe()
        if self._should_stop and now >= self._look_at:
            self._look_at = now + _LOOK_S
            if self._should_stop():
                self._arrivals.stop()
        is_idle = self._attempted == self._ended
        is_done = is_idle and (self._arrivals.is_spent or all(link.connection.is_closing for link in self._links))
        if self._closed_at is None and (is_done or now >= self._close_at):
            self._arrivals.stop()
            self._closed_at = self._read_probe()
        return not is_done and now < self._close_at + self._plan.grace_s

    def _read_probe(self) -> float:
        if self._probe:
            self._probes.append(self._probe())
        return time.perf_counter()

    def _wait(self) -> list[tuple[selectors.SelectorKey, int]]:
        """The sockets with something to do."""
        # An epoll waits in whole milliseconds, too coarse for arrivals; a select over the epoll waits in microseconds.
        if self._arrivals.is_open:
            timeout_s = min(_LOOK_S, max(0.0, self._arrivals.next_due() - time.perf_counter()))
            select.select([self._selector], [], [], timeout_s)
            return self._selector.select(0)
        return self._selector.select(_LOOK_S)

    def _receive(self, link: Link) -> None:
        if not link.is_open:
            return
        try:
            data = link.read()
            if data is None:
                return
            now = time.perf_counter()
            if not data:
                self._lose(link, "connection closed by the server")
                return
            self._count(link.connection.receive(data), now)
        except (OSError, ProtocolError) as error:
            self._lose(link, f"connection lost: {error}")
            return
        if link.connection.max_streams < self._plan.streams:
            raise LoadError(
                f"the server allows {link.connection.max_streams} streams per connection, expected {self._plan.streams}"
            )
        if not self._arrivals.is_open:
            self._fill(link, time.perf_counter())
        self._flush(link)

    def _count(self, outcomes: list[Outcome], now: float) -> None:
        is_measured = self._opened_at is not None and self._closed_at is None
        self._ended += len(outcomes)
        for due, failure in outcomes:
            if failure:
                known = failure in self._failures or len(self._failures) < _REASONS_LIMIT
                self._failures[failure if known else "other"] += 1
            else:
                self._succeeded += 1
                if is_measured:
                    self._latencies_s.append(now - due)

    def _fill(self, link: Link, now: float, *, at_most: int = sys.maxsize) -> int:
        """Starts calls on one connection until it is full or none is due; returns how many."""
        connection = link.connection
        started = 0
        while started < at_most and connection.in_flight < self._plan.streams and not connection.is_closing:
            due = self._arrivals.take(now)
            if due is None:
                break
            connection.submit(due)
            started += 1
        self._attempted += started
        return started

    def _fill_all(self, now: float) -> None:
        """Starts what is due; open-loop arrivals take the connections in turn."""
        if not self._arrivals.is_open:
            for link in self._links:
                self._fill(link, now)
                self._flush(link)
            return
        full_in_a_row = 0
        while self._arrivals.next_due() <= now and full_in_a_row < len(self._links):
            link = self._links[self._turn % len(self._links)]
            self._turn += 1
            if self._fill(link, now, at_most=1):
                full_in_a_row = 0
                self._flush(link)
            else:
                full_in_a_row += 1

    def _flush(self, link: Link) -> None:
        if link.is_open:
            try:
                link.flush()
            except OSError as error:
                self._lose(link, f"connection lost: {error}")

    def _lose(self, link: Link, reason: str) -> None:
        self._count(link.connection.close(reason), 0.0)
        link.close()
