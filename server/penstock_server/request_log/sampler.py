"""Samples a worker's answered requests for the request log, and hands them to the writer's thread.

A sampler belongs to one version's executor. It draws how many requests to let pass until it keeps the next one, so a
batch without a kept request costs one comparison. For a kept request it takes references to the raw inputs, and copies
its part of the outputs. The writer's thread appends it to a segment. When the thread falls behind or the disk refuses,
requests are dropped and counted, and nothing waits.
"""

import math
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from math import inf, nan
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from penstock.tensors import to_raw
from penstock_server.metrics.recorder import Recorder
from penstock_server.request_log.segment import LoggedRequest, SegmentHeader

QUEUE_BYTES: Final = 8 * 1024 * 1024
"""The bytes that may wait for the thread, per version."""
REQUEST_BYTES: Final = 512
"""The bytes that a waiting request takes besides its contents."""


class SampledRequest(NamedTuple):
    """A request on its way to the log.

    It keeps no reference to the call, which would keep the transport's memory. It is a tuple, since it is made on the
    request path and a frozen dataclass takes three times as long.

    Attributes:
        rows: those of its blocks; 1 for a request that ran alone, whose tensors are one row of the log whatever their shape.
        arrays: its part of the outputs, a copy of its own.
        size_bytes: about what it takes while it waits.
        trace_id: of the trace that it belongs to, in 32 digits, or "".
        weight: the share of requests that the version was to get, 0 to 1; NaN if the request named it.
    """

    answered_s: float
    role: str
    rows: int
    id_field: bytes
    blocks: Sequence[bytes]
    arrays: Sequence[NDArray[Any]]
    size_bytes: int
    trace_id: str = ""
    weight: float = nan

    def logged(self) -> LoggedRequest:
        """The request as it is written: text and raw contents."""
        return LoggedRequest(
            self.answered_s,
            id_text(self.id_field),
            self.role,
            self.rows,
            tuple(bytes(block) for block in self.blocks),
            tuple(to_raw(array) for array in self.arrays),
            self.trace_id,
            None if math.isnan(self.weight) else self.weight,
        )


class RequestSampler:
    """Samples one version's answered requests. The executor draws and keeps, another thread takes.

    Args:
        header: what the version's segments begin with.
        sample_ratio: the share of requests to keep, above 0 and at most 1.
        report: counts what is written and dropped.
        wake: wakes the writing thread.
        clock: seconds since 1970.
        fraction: a random number from 0 up to 1 at each call.

    Attributes:
        role: the version's role now.
        to_pass: int64 [1], how many requests pass before the next that is kept; kernels count there too.
    """

    def __init__(
        self,
        header: SegmentHeader,
        *,
        sample_ratio: float,
        report: Recorder,
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
        self.to_pass = np.array([self._gap()], np.int64)
        self._waiting: deque[SampledRequest] = deque()
        self._kept_bytes = 0
        self._taken_bytes = 0

    def draw(self, requests: int) -> Sequence[int]:
        """The positions of those to keep among the next `requests`; usually none."""
        at = int(self.to_pass[0])
        if at >= requests:
            self.to_pass[0] = at - requests
            return ()
        drawn: list[int] = []
        while at < requests:
            drawn.append(at)
            at += 1 + self._gap()
        self.to_pass[0] = at - requests
        return drawn

    def keep(
        self,
        *,
        id_field: bytes,
        rows: int,
        blocks: Sequence[bytes],
        arrays: Sequence[NDArray[Any]],
        is_whole: bool = False,
        trace_id: str = "",
        weight: float = nan,
    ) -> None:
        """Keeps a request that was drawn and answered, unless too much waits.

        Args:
            id_field: its id as the reply has it: a tag, a length, the text.
            rows: how many rows it has.
            blocks: its raw inputs.
            arrays: its part of the outputs, copied here; those that the header does not know are not kept.
            is_whole: it ran alone, so its tensors are one row of the log.
            trace_id: of the trace that it belongs to, in 32 digits, or "".
            weight: the share of requests that the version was to get, 0 to 1; NaN if the request named it.
        """
        arrays = arrays[: len(self.header.outputs)]
        size = REQUEST_BYTES + sum(map(len, blocks)) + sum(array.nbytes for array in arrays)
        if self._kept_bytes - self._taken_bytes + size > QUEUE_BYTES:
            self.report.request_log_dropped("busy", rows)
            return
        self._kept_bytes += size
        copies = [array.copy() for array in arrays]
        rows = 1 if is_whole else rows
        self._waiting.append(
            SampledRequest(self._clock(), self.role, rows, id_field, blocks, copies, size, trace_id, weight)
        )
        self._wake()

    def take(self) -> SampledRequest | None:
        """Takes the request that has waited longest; None when none waits."""
        if not self._waiting:
            return None
        request = self._waiting.popleft()
        self._taken_bytes += request.size_bytes
        return request

    def close(self) -> None:
        """Ends sampling: the version is unloaded."""
        self.is_closed = True
        self._wake()

    def _gap(self) -> int:
        """How many requests to let pass before the next: geometric, as if each were drawn by itself."""
        if self._log_passing == -inf:
            return 0
        return int(min(math.log1p(-self._fraction()) / self._log_passing, 2.0**62))


def id_text(id_field: bytes) -> str:
    r"""The id in a reply's id field.

    >>> id_text(b"\x1a\x03abc"), id_text(b"")
    ('abc', '')
    """
    at = 1
    while at < len(id_field) and id_field[at] & 128:
        at += 1
    return id_field[at + 1 :].decode("utf-8", "replace")
