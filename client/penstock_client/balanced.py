"""Calls to several servers: `balance` decides which takes each, and this module calls, checks and looks names up.

The checks run in a thread, or a task, of their own, which begins with the first call. `base` says which servers there are.
"""

import asyncio
import os
import socket
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Protocol

import grpc

from penstock_client.balance import HEALTH_METHOD, Balancing, Place, Places
from penstock_client.headers import Headers
from penstock_client.steps import Failure

_MOST_PLACES: Final = 5
"""How many servers a call tries that certainly did nothing for it."""
_MOST_WAIT_S: Final = 3600.0


class Calls(Protocol):
    """Calls to one server, for threads."""

    def call(self, path: str, payload: bytes, timeout_s: float, headers: Headers = ()) -> bytes | Failure:
        """The reply to one message, or how the call failed."""

    def pipe(self, ahead: int) -> Any:
        """Calls that overlap."""

    def close(self) -> None:
        """Closes every connection."""


class AwaitedCallsOf(Protocol):
    """Calls to one server, for tasks."""

    async def call(self, path: str, payload: bytes, timeout_s: float, headers: Headers = ()) -> bytes | Failure:
        """The reply to one message, or how the call failed."""

    async def close(self) -> None:
        """Closes every connection."""


Resolved = Mapping[str, Callable[[], Any]]
"""The servers by address, and what makes the calls of each."""


class BalancedCalls:
    """Unary calls to several servers. Threads may share it.

    Args:
        resolve: finds the servers; raises `OSError` where it cannot.
        is_fixed: whether it always finds the same.
        balancing: the times.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        resolve: Callable[[], Resolved],
        *,
        is_fixed: bool,
        balancing: Balancing,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._resolve = resolve
        self._balancing = balancing
        self._clock = clock
        self._places: Places[Calls] = Places(balancing, is_fixed=is_fixed)
        self._wake = threading.Event()
        self._watcher: threading.Thread | None = None
        self._beginning = threading.Lock()
        self._is_closed = False
        _ALL.add(self)

    def call(self, path: str, payload: bytes, timeout_s: float, headers: Headers = ()) -> bytes | Failure:
        """The reply to one message, or how the call failed at the last server that was asked."""
        deadline_s = self._clock() + timeout_s
        end = self._begun()
        tried: tuple[Place[Calls], ...] = ()
        while end is None or (end.is_unsent and len(tried) < _MOST_PLACES):
            place = self._places.begin(tried)
            left_s = deadline_s - self._clock()
            if place is None or (tried and left_s <= 0):
                self._end(place, None)
                return end or nowhere()
            outcome: bytes | Failure | None = None
            try:
                outcome = place.calls.call(path, payload, left_s, headers)
            finally:
                self._end(place, outcome)
            if not isinstance(outcome, Failure):
                return outcome
            end, tried = outcome, (*tried, place)
        return end

    def pipe(self, ahead: int) -> "BalancedPipe":  # noqa: ARG002 - a server's calls go out at once: others may get the next
        """Calls that overlap."""
        return BalancedPipe(self)

    def begin(self) -> Place[Calls] | None:
        """The server that takes the next call; `end` it."""
        return None if self._begun() else self._places.begin()

    def end(self, place: Place[Calls], outcome: bytes | Failure | None) -> None:
        """Counts the end of a call."""
        self._end(place, outcome)

    def close(self) -> None:
        """Closes every connection; calls of other threads end with an error."""
        self._is_closed = True
        self._wake.set()
        for place in self._places.all:
            place.calls.close()

    def forget(self) -> None:
        """After a fork, in the child: the thread that looks after the servers is the parent's."""
        self._watcher = None
        self._wake = threading.Event()
        self._beginning = threading.Lock()
        self._places.forget()

    def look(self) -> float:
        """Looks up names and checks servers that are due; returns the seconds until the next look, negative to end."""
        if self._is_closed:
            return -1.0
        if self._places.resolve_at_s() <= self._clock():
            try:
                self._update()
            except OSError:
                self._places.unresolved(self._clock())
        for place in self._places.due(self._clock()):
            outcome = place.calls.call(HEALTH_METHOD, b"", self._balancing.check_timeout_s)
            self._places.checked(place, outcome, self._clock())
        return max(0.0, min(_MOST_WAIT_S, self._places.next_look_s() - self._clock()))

    def _begun(self) -> Failure | None:
        """Finds the servers at the first call, and has them looked after; or says why there are none."""
        if self._watcher is not None:
            return None
        with self._beginning:
            if self._watcher is None and not self._is_closed:
                try:
                    self._update()
                except OSError as error:
                    return nowhere(str(error))
                arguments = (weakref.ref(self), self._wake)
                self._watcher = threading.Thread(target=_watch, args=arguments, daemon=True, name="penstock-balance")
                self._watcher.start()
        return None

    def _update(self) -> None:
        for place in self._places.update(self._resolve(), self._clock()):
            place.calls.close()
        if self._is_closed:
            self.close()

    def _end(self, place: Place[Calls] | None, outcome: bytes | Failure | None) -> None:
        if place is None:
            return
        if self._places.end(place, outcome, self._clock()):
            place.calls.close()
        if place.failures and isinstance(outcome, Failure):
            self._wake.set()


class BalancedPipe:
    """Calls that overlap, each at the server that is best just then, for one thread."""

    def __init__(self, calls: BalancedCalls) -> None:
        self._calls = calls
        self._pipes: dict[Place[Calls], Any] = {}
        self._open: set[_Ticket] = set()

    def start(self, path: str, payload: bytes, timeout_s: float, headers: Headers = ()) -> "_Ticket":
        """Starts a call and returns what `wait` takes."""
        place = self._calls.begin()
        ticket = _Ticket(place)
        if place is not None:
            self._open.add(ticket)
            if place not in self._pipes:
                self._pipes[place] = place.calls.pipe(1)
            ticket.own = self._pipes[place].start(path, payload, timeout_s, headers)
        return ticket

    def wait(self, ticket: "_Ticket") -> bytes | Failure:
        """How the call ended."""
        if ticket.place is None:
            return nowhere()
        outcome: bytes | Failure | None = None
        try:
            outcome = self._pipes[ticket.place].wait(ticket.own)
        finally:
            self._open.discard(ticket)
            self._calls.end(ticket.place, outcome)
        return outcome

    def close(self) -> None:
        """Cancels what is still in flight."""
        for pipe in self._pipes.values():
            pipe.close()
        for ticket in self._open:
            if ticket.place is not None:
                self._calls.end(ticket.place, None)
        self._open.clear()


class _Ticket:
    """A call of a pipe: its server, and the server's own ticket."""

    __slots__ = ("own", "place")

    def __init__(self, place: Place[Calls] | None) -> None:
        self.place = place
        self.own: Any = None


class BalancedAwaitedCalls:
    """Unary calls to several servers, from the tasks of the event loop in which it is made; see `BalancedCalls`."""

    def __init__(self, resolve: Callable[[], Awaitable[Resolved]], *, is_fixed: bool, balancing: Balancing) -> None:
        self._resolve = resolve
        self._balancing = balancing
        self._loop = asyncio.get_running_loop()
        self._places: Places[AwaitedCallsOf] = Places(balancing, is_fixed=is_fixed)
        self._wake = asyncio.Event()
        self._beginning = asyncio.Lock()
        self._watcher: asyncio.Task[None] | None = None
        self._is_closed = False

    async def call(self, path: str, payload: bytes, timeout_s: float, headers: Headers = ()) -> bytes | Failure:
        """The reply to one message, or how the call failed at the last server that was asked."""
        deadline_s = self._loop.time() + timeout_s
        end = None if self._watcher is not None else await self._begun()
        tried: tuple[Place[AwaitedCallsOf], ...] = ()
        while end is None or (end.is_unsent and len(tried) < _MOST_PLACES):
            place = self._places.begin(tried)
            left_s = deadline_s - self._loop.time()
            if place is None or (tried and left_s <= 0):
                await self._end(place, None)
                return end or nowhere()
            outcome: bytes | Failure | None = None
            try:
                outcome = await place.calls.call(path, payload, left_s, headers)
            finally:
                await self._end(place, outcome)
            if not isinstance(outcome, Failure):
                return outcome
            end, tried = outcome, (*tried, place)
        return end

    async def close(self) -> None:
        """Closes every connection; calls of other tasks end with an error."""
        self._is_closed = True
        if self._watcher is not None:
            self._watcher.cancel()
            with suppress(asyncio.CancelledError):
                await self._watcher
        for place in self._places.all:
            await place.calls.close()

    async def _begun(self) -> Failure | None:
        async with self._beginning:
            if self._watcher is None and not self._is_closed:
                try:
                    await self._update()
                except OSError as error:
                    return nowhere(str(error))
                self._watcher = self._loop.create_task(self._watch())
        return None

    async def _watch(self) -> None:
        while True:
            if self._places.resolve_at_s() <= self._loop.time():
                try:
                    await self._update()
                except OSError:
                    self._places.unresolved(self._loop.time())
            for place in self._places.due(self._loop.time()):
                outcome = await place.calls.call(HEALTH_METHOD, b"", self._balancing.check_timeout_s)
                self._places.checked(place, outcome, self._loop.time())
            wait_s = min(_MOST_WAIT_S, self._places.next_look_s() - self._loop.time())
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, wait_s)):
                    await self._wake.wait()
            self._wake.clear()

    async def _update(self) -> None:
        for place in self._places.update(await self._resolve(), self._loop.time()):
            await place.calls.close()

    async def _end(self, place: Place[AwaitedCallsOf] | None, outcome: bytes | Failure | None) -> None:
        if place is None:
            return
        if self._places.end(place, outcome, self._loop.time()):
            await place.calls.close()
        if place.failures and isinstance(outcome, Failure):
            self._wake.set()


def nowhere(reason: str = "no server is known") -> Failure:
    """There is no server to ask."""
    return Failure(grpc.StatusCode.UNAVAILABLE, f"failed to find a server: {reason}", is_unsent=True)


def numbers(host: str, port: int) -> list[str]:
    """The numeric addresses of a name, in the system's order; raises `OSError` where it has none.

    >>> numbers("127.0.0.1", 1)
    ['127.0.0.1']
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(place[0]) for _, _, _, _, place in found))


def _watch(calls: "weakref.ref[BalancedCalls]", wake: threading.Event) -> None:
    """Looks after the servers until the client is closed, or nobody has it any more."""
    while (own := calls()) is not None and (wait_s := own.look()) >= 0:
        del own
        wake.wait(wait_s)
        wake.clear()


_ALL: Final[weakref.WeakSet[BalancedCalls]] = weakref.WeakSet()


def _after_fork() -> None:
    for calls in list(_ALL):
        calls.forget()


os.register_at_fork(after_in_child=_after_fork)
