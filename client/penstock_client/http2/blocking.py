"""Calls over sockets of the client's own, for threads that wait for them.

A connection belongs to one caller at a time, so a call is one write and one read by the thread that wants the answer: no
other thread, no lock, no queue. As many connections are open as threads have called at the same time; idle ones are used
again, the last one first.
"""

import os
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import grpc

from penstock_client.headers import Headers
from penstock_client.http2 import frames, outcome
from penstock_client.http2.connection import Connection
from penstock_client.http2.hpack import KnownBlocks
from penstock_client.http2.link import LateError, Link
from penstock_client.http2.target import Target, milliseconds
from penstock_client.steps import Failure

_MOST_IDLE: Final = 64
MOST_PLACES: Final = 5
"""How many connections a call tries whose servers say that they did nothing for it, as one does that stops."""
_MOST_BLOCKS: Final = 256
_LINGER_S: Final = 0.001
"""How long a call may wait for others to be sent with, while these keep coming."""
_AGENT: Final = "penstock"


class HeaderWriter:
    """The header blocks of requests, each made once: they differ by method and timeout alone."""

    def __init__(self, target: Target, headers: Mapping[str, str]) -> None:
        self._scheme = "https" if target.context is not None else "http"
        self._authority = target.authority
        self._headers = tuple((name.lower(), value) for name, value in headers.items())
        self._blocks: dict[tuple[str, int], bytes] = {}

    def block(self, path: str, timeout_s: float, headers: Headers = ()) -> bytes:
        """The block of a request to this path; `headers` are of this request alone."""
        key = path, milliseconds(timeout_s)
        block = self._blocks.get(key)
        if block is None:
            if len(self._blocks) >= _MOST_BLOCKS:
                self._blocks = {}
            fields = (
                (":method", "POST"),
                (":scheme", self._scheme),
                (":path", path),
                (":authority", self._authority),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
                ("user-agent", _AGENT),
                ("grpc-timeout", frames.timeout_text(key[1])),
            )
            block = self._blocks[key] = frames.header_block((*fields, *self._headers))
        return block + frames.header_block(headers) if headers else block


class DirectCalls:
    """Unary calls to one server. Threads may share it; a process that was forked has connections of its own.

    Args:
        target: where to connect.
        headers: sent with every call.
        max_message_bytes: the longest reply that is taken.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        target: Target,
        headers: Mapping[str, str],
        max_message_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._target = target
        self._writer = HeaderWriter(target, headers)
        self._known = KnownBlocks()
        self._max_message_bytes = max_message_bytes
        self._clock = clock
        # Lists and sets are changed by single operations only, which threads may do at the same time.
        self._idle: list[Link] = []
        self._links: set[Link] = set()
        self._is_closed = False
        _ALL.add(self)

    def call(self, path: str, payload: bytes, timeout_s: float, headers: Headers = ()) -> bytes | Failure:
        """The reply to one message, or how the call failed."""
        now = self._clock()
        deadline_s = now + timeout_s
        block = self._writer.block(path, timeout_s, headers)
        for _ in range(MOST_PLACES):
            link = self.link(deadline_s)
            if isinstance(link, Failure):
                return link
            try:
                stream = link.start(block, payload, now)
                end = link.wait(stream, deadline_s)
            except LateError:
                link.cancel(stream)
                end = late()
            except BaseException:
                # An interrupt leaves no call behind: with its connection, the server hears that it is over.
                link.lose(grpc.StatusCode.CANCELLED, "the caller was interrupted")
                self.give_back(link)
                raise
            self.give_back(link)
            if end is not None:
                return end
        return refused()

    def link(self, deadline_s: float) -> Link | Failure:
        """A connection that no other caller has until it is given back."""
        while self._idle:
            try:
                link = self._idle.pop()
            except IndexError:  # another thread took the last one
                break
            if link.is_usable():
                return link
            self.give_back(link)
        return self._opened(deadline_s)

    def give_back(self, link: Link) -> None:
        """Ends a caller's use of a connection; it serves the next one if it can."""
        connection = link.connection
        if connection.has_output:
            # Servers wait for acknowledgements, and the next call may be long in coming.
            link.flush_nowait()
        # What a server did not take in time would keep the next caller waiting.
        is_clean = not connection.is_closing and not connection.open and not connection.has_output
        if link.lost is None and is_clean and not self._is_closed and len(self._idle) < _MOST_IDLE:
            self._idle.append(link)
            if not self._is_closed:
                return
        link.lose(grpc.StatusCode.CANCELLED, "the connection is not used any more")
        self._links.discard(link)

    def pipe(self, ahead: int) -> "DirectPipe":
        """Calls that overlap; see `DirectPipe`."""
        return DirectPipe(self, ahead, self._clock)

    def block(self, path: str, timeout_s: float, headers: Headers) -> bytes:
        """The header block of a request."""
        return self._writer.block(path, timeout_s, headers)

    def close(self) -> None:
        """Closes every connection; calls of other threads end with an error."""
        self._is_closed = True
        for link in list(self._links):
            link.shut("the client was closed during the call")
        while self._idle:
            self.give_back(self._idle.pop())

    def forget(self) -> None:
        """After a fork, in the child: leaves the connections to the parent."""
        links, self._links, self._idle = self._links, set(), []
        for link in links:
            link.forget()

    def _opened(self, deadline_s: float) -> Link | Failure:
        try:
            connected = self._target.connected(deadline_s, self._clock)
        except TimeoutError:
            if self._clock() >= deadline_s:
                return late()
            return unreached(self._target, "no answer")
        except OSError as error:
            return unreached(self._target, str(error))
        link = Link(connected, Connection(self._max_message_bytes, self._known), self._clock)
        self._links.add(link)
        if self._is_closed:
            link.shut("the client was closed during the call")
        return link


@dataclass(slots=True)
class _Ticket:
    """A call that was started; with the link and the stream that carry it, or how it failed already."""

    path: str
    payload: bytes
    timeout_s: float
    deadline_s: float
    headers: Headers
    link: Link | None = None
    stream: int = 0
    failure: Failure | None = None


class DirectPipe:
    """Calls that overlap on one connection, for one thread.

    Args:
        calls: whose connections these are.
        ahead: how many calls may be written before they are sent; more of them in one piece cost less. 1 sends each at once.
    """

    def __init__(self, calls: DirectCalls, ahead: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._calls = calls
        self._ahead = ahead
        self._clock = clock
        self._unsent: list[_Ticket] = []
        self._link: Link | None = None
        self._closing: list[Link] = []  # their calls go on, and no other starts there

    def start(self, path: str, payload: bytes, timeout_s: float, headers: Headers = ()) -> _Ticket:
        """Starts a call and returns what `wait` takes."""
        now = self._clock()
        ticket = _Ticket(path, payload, timeout_s, now + timeout_s, headers)
        link = self._usable(ticket.deadline_s)
        if isinstance(link, Failure):
            ticket.failure = link
            return ticket
        ticket.link, ticket.stream = link, link.start(self._calls.block(path, timeout_s, headers), payload, now)
        self._unsent.append(ticket)
        if len(self._unsent) >= self._ahead or now > self._unsent[0].deadline_s - self._unsent[0].timeout_s + _LINGER_S:
            self._on_sending(now)
            self._flush(link, ticket.deadline_s)
        return ticket

    def wait(self, ticket: _Ticket) -> bytes | Failure:
        """How the call ended."""
        link = ticket.link
        if link is None:
            return ticket.failure or late()
        if self._unsent and ticket.stream not in link.outcomes:
            self._on_sending(self._clock())
        try:
            end = link.wait(ticket.stream, ticket.deadline_s)
        except LateError:
            link.cancel(ticket.stream)
            end = late()
        except BaseException:
            link.lose(grpc.StatusCode.CANCELLED, "the caller was interrupted")
            raise
        if end is not None:
            return end
        left_s = ticket.deadline_s - self._clock()
        return self._calls.call(ticket.path, ticket.payload, left_s, ticket.headers) if left_s > 0 else late()

    def close(self) -> None:
        """Cancels what is still in flight."""
        for link in (*self._closing, *([] if self._link is None else [self._link])):
            if link.connection.open:
                link.lose(grpc.StatusCode.CANCELLED, "the caller left")
            self._calls.give_back(link)
        self._closing, self._link = [], None

    def _usable(self, deadline_s: float) -> Link | Failure:
        link = self._link
        if link is not None:
            if link.lost is None and not link.connection.is_closing:
                return link
            self._closing.append(link)
            self._link = None
        for each in [each for each in self._closing if each.lost is not None or not each.connection.open]:
            self._closing.remove(each)
            self._calls.give_back(each)
        found = self._calls.link(deadline_s)
        if isinstance(found, Link):
            self._link = found
        return found

    def _on_sending(self, now: float) -> None:
        """Counts the deadlines of what was not sent before from now on, as the server will."""
        for ticket in self._unsent:
            ticket.deadline_s = now + ticket.timeout_s
        self._unsent.clear()

    def _flush(self, link: Link, deadline_s: float) -> None:
        try:
            link.flush(deadline_s)
        except LateError:
            # What was not taken is sent later; each call has its own deadline at its turn.
            return
        except BaseException:
            link.lose(grpc.StatusCode.CANCELLED, "the caller was interrupted")
            raise


def late() -> Failure:
    """No answer came in time."""
    return outcome.failure(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded")


def refused() -> Failure:
    """Every server that was asked said that it did nothing."""
    return replace(
        outcome.failure(grpc.StatusCode.UNAVAILABLE, "the server takes no calls, as one does that stops"),
        is_unsent=True,
    )


def unreached(target: Target, reason: str) -> Failure:
    """No connection could be made."""
    where = target.path or target.authority
    return replace(
        outcome.failure(grpc.StatusCode.UNAVAILABLE, f"failed to connect to {where}: {reason}"), is_unsent=True
    )


_ALL: Final[weakref.WeakSet[DirectCalls]] = weakref.WeakSet()


def _after_fork() -> None:
    for calls in list(_ALL):
        calls.forget()


os.register_at_fork(after_in_child=_after_fork)
