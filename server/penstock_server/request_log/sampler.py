"""The request log in a worker: which answered requests are kept, and how they leave the request path.

A tap belongs to one version's executor. It draws how many requests to let pass until the next one is kept, so a batch of
which none is kept costs a comparison; of the kept it takes references to the request's own bytes and copies its part of
the answer. A thread writes them to segments; when it falls behind, or the disk refuses, requests are dropped and
counted, and nothing waits. What becomes of a segment is decided by another process.
"""

import math
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Final, NamedTuple, Protocol

from numpy.typing import NDArray

from penstock.tensors import to_raw
from penstock_server.request_log.segment import LoggedRequest, SegmentHeader

QUEUE_BYTES: Final = 8 * 1024 * 1024
"""What may wait for the thread, a version."""
REQUEST_BYTES: Final = 512
"""What a waiting request takes beside its contents."""


class Taken(Protocol):
    """A request's input as the executor holds it."""

    @property
    def blocks(self) -> Sequence[bytes]:
        """Its raw contents."""

    @property
    def shapes(self) -> Sequence[tuple[int, ...]] | None:
        """Each block's shape, for a request that ran alone."""


class Answered(Protocol):
    """A request of a batch, as the executor holds it."""

    @property
    def rows(self) -> int:
        """How many rows it has."""

    @property
    def id_field(self) -> bytes:
        """Its id as the reply has it: a tag, a length, the text."""

    @property
    def taken(self) -> Taken:
        """Its input."""


class LogReport(Protocol):
    """Counts what became of sampled requests."""

    def request_logged(self, rows: int) -> None:
        """Rows were written."""

    def request_log_dropped(self, reason: str, rows: int) -> None:
        """Rows were not: "busy" when too much waited, "disk" when the disk refused them."""


class Kept(NamedTuple):
    """A request on its way to the log.

    It holds nothing of the call, which would keep the transport's memory. A tuple, since one is made on the request path
    and a frozen dataclass takes three times as long.

    Attributes:
        rows: those of its blocks; 1 for a request that ran alone, whose tensors are one row of the log whatever their shape.
        arrays: its part of the outputs, a copy of its own.
        size_bytes: what it takes while it waits, about.
    """

    answered_s: float
    role: str
    rows: int
    id_field: bytes
    blocks: Sequence[bytes]
    arrays: Sequence[NDArray[Any]]
    size_bytes: int

    def request(self) -> LoggedRequest:
        """In the form that is written: text and raw contents."""
        return LoggedRequest(
            self.answered_s,
            id_text(self.id_field),
            self.role,
            self.rows,
            tuple(bytes(block) for block in self.blocks),
            tuple(to_raw(array) for array in self.arrays),
        )


class RequestTap:
    """Samples one version's answered requests. One thread offers, another takes.

    Args:
        header: what the version's segments begin with.
        sample_ratio: the share of requests to keep, above 0 and at most 1.
        report: counts what is written and dropped.
        wake: tells the writing thread that something waits.
        clock: seconds since 1970.
        fraction: a random number from 0 up to 1 at each call.

    Attributes:
        role: the part that the version plays now.
    """

    def __init__(
        self,
        header: SegmentHeader,
        *,
        sample_ratio: float,
        report: LogReport,
        wake: Callable[[], None],
        clock: Callable[[], float] = time.time,
        fraction: Callable[[], float] = random.random,
    ) -> None:
        self.header = header
        self.report = report
        self.role = ""
        self.is_closed = False
        self._wake = wake
        self._clock = clock
        self._fraction = fraction
        self._log_passing = -inf if sample_ratio >= 1 else math.log1p(-sample_ratio)
        self._to_pass = self._gap()
        self._waiting: deque[Kept] = deque()
        self._offered_bytes = 0
        self._taken_bytes = 0

    def offer(self, items: Sequence[Answered], answered: Sequence[Answered], arrays: Sequence[NDArray[Any]]) -> None:
        """Keeps a sample of a batch.

        Args:
            items: the batch, in the order of its rows.
            answered: those of them whose callers got an answer.
            arrays: the outputs, rows along their first axes; of any shape when the batch is one request that ran alone.
        """
        if self._to_pass >= len(items):
            self._to_pass -= len(items)
            return
        now_s = self._clock()
        start = 0
        for item in items:
            if self._to_pass:
                self._to_pass -= 1
            else:
                self._to_pass = self._gap()
                if len(answered) == len(items) or item in answered:
                    self._keep(item, start, arrays, now_s)
            start += item.rows
        self._wake()

    def take(self) -> Kept | None:
        """The one that waits longest; None when none does."""
        if not self._waiting:
            return None
        kept = self._waiting.popleft()
        self._taken_bytes += kept.size_bytes
        return kept

    def close(self) -> None:
        """No more will be offered: the version is unloaded."""
        self.is_closed = True
        self._wake()

    def _keep(self, item: Answered, start: int, arrays: Sequence[NDArray[Any]], now_s: float) -> None:
        taken = item.taken
        is_alone = taken.shapes is not None
        own = arrays if is_alone else [array[start : start + item.rows] for array in arrays]
        size = REQUEST_BYTES + sum(map(len, taken.blocks)) + sum(array.nbytes for array in own)
        if self._offered_bytes - self._taken_bytes + size > QUEUE_BYTES:
            self.report.request_log_dropped("busy", item.rows)
            return
        self._offered_bytes += size
        rows = 1 if is_alone else item.rows
        copies = [array.copy() for array in own]
        self._waiting.append(Kept(now_s, self.role, rows, item.id_field, taken.blocks, copies, size))

    def _gap(self) -> int:
        """How many requests to let pass before the next: geometric, as if each were drawn for itself."""
        if self._log_passing == -inf:
            return 0
        return int(math.log1p(-self._fraction()) / self._log_passing)


def id_text(id_field: bytes) -> str:
    r"""The id in a reply's id field.

    >>> id_text(b"\x1a\x03abc"), id_text(b"")
    ('abc', '')
    """
    at = 1
    while at < len(id_field) and id_field[at] & 128:
        at += 1
    return id_field[at + 1 :].decode("utf-8", "replace")
