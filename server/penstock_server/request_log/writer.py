"""The thread of a worker that appends sampled requests to segments, one open segment per version.

It writes up to a hundred times per second, so it never holds the interpreter for long. A segment that is large or old
enough is closed, which is a rename; the compactor looks for the new name. When the disk refuses a write, requests are
dropped and counted, and the writer tries again after `RETRY_S`.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from penstock_server.request_log.files import OpenSegment, folder_bytes, open_segment
from penstock_server.request_log.sampler import RequestSampler

log = structlog.get_logger(__name__)

GATHER_S: Final = 0.01
LOOK_S: Final = 1.0
"""How late an old segment is closed when nothing else is written."""
RETRY_S: Final = 5.0


class RequestLogWriter:
    """Writes what samplers kept, on a thread of its own.

    Args:
        spool: the folder of segments; made at the first write.
        rotate_bytes, rotate_s: the size and age at which a segment is closed.
        spool_bytes: the most bytes that the folder may hold, over all workers; beyond that nothing is written.
        clock: the age of segments and the time of retries.
    """

    def __init__(
        self,
        spool: Path,
        *,
        rotate_bytes: int,
        rotate_s: float,
        spool_bytes: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spool = spool
        self._rotate_bytes = rotate_bytes
        self._rotate_s = rotate_s
        self._spool_bytes = spool_bytes
        self._clock = clock
        self._added: deque[RequestSampler] = deque()
        self._samplers: list[RequestSampler] = []
        self._segments: dict[RequestSampler, OpenSegment] = {}
        self._refused_until_s = float("-inf")
        self._has_work = threading.Event()
        self._is_stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="request-log", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Wakes the thread, since a request waits in a sampler; from any thread."""
        if not self._has_work.is_set():
            self._has_work.set()

    def add(self, sampler: RequestSampler) -> None:
        """Adds a sampler, to take from until it is closed; from any thread."""
        self._added.append(sampler)

    def close(self) -> None:
        """Writes what waits, closes every segment and ends the thread."""
        self._is_stopped.set()
        self._has_work.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._is_stopped.is_set():
            self._has_work.wait(LOOK_S)
            self._is_stopped.wait(GATHER_S)
            self._has_work.clear()
            self._guarded_step()
        self._guarded_step()
        for sampler, segment in list(self._segments.items()):
            self._finish(sampler, segment)

    def _guarded_step(self) -> None:
        try:
            self.step()
        except Exception:
            log.exception("writing the request log failed")

    def step(self) -> None:
        """Writes what waits now, and closes the segments that are large or old enough."""
        while self._added:
            self._samplers.append(self._added.popleft())
        for sampler in self._samplers:
            is_last = sampler.is_closed
            self._write(sampler)
            segment = self._segments.get(sampler)
            if segment is not None and (is_last or self._is_full(segment)):
                self._finish(sampler, segment)
            if is_last:
                self._samplers = [other for other in self._samplers if other is not sampler]

    def _is_full(self, segment: OpenSegment) -> bool:
        return segment.size_bytes >= self._rotate_bytes or self._clock() - segment.opened_s >= self._rotate_s

    def _write(self, sampler: RequestSampler) -> None:
        rows = 0
        while (request := sampler.take()) is not None:
            if self._clock() < self._refused_until_s:
                sampler.report.request_log_dropped("disk", request.rows)
                continue
            try:
                segment = self._segments.get(sampler) or self._open(sampler)
                segment.append(request.logged())
                rows += request.rows
                if self._is_full(segment):
                    self._finish(sampler, segment)
            except OSError as error:
                sampler.report.request_log_dropped("disk", request.rows)
                self._refuse(sampler, str(error.strerror or error))
        self._flush(sampler, rows)

    def _flush(self, sampler: RequestSampler, rows: int) -> None:
        """Hands the rows to the system: only then they count as written, or as dropped."""
        try:
            if (segment := self._segments.get(sampler)) is not None:
                segment.flush()
        except OSError as error:
            sampler.report.request_log_dropped("disk", rows)
            self._refuse(sampler, str(error.strerror or error))
        else:
            if rows:
                sampler.report.request_logged(rows)

    def _open(self, sampler: RequestSampler) -> OpenSegment:
        if folder_bytes(self._spool) >= self._spool_bytes:
            raise OSError(f"{self._spool} holds {self._spool_bytes} bytes that wait to become Parquet")
        segment = open_segment(self._spool, sampler.header, self._clock())
        self._segments[sampler] = segment
        return segment

    def _finish(self, sampler: RequestSampler, segment: OpenSegment) -> None:
        del self._segments[sampler]
        try:
            segment.finish()
        except OSError as error:
            segment.abandon()
            self._refuse(sampler, str(error.strerror or error))

    def _refuse(self, sampler: RequestSampler, reason: str) -> None:
        """Handles a refusal of the disk: leaves the segment as it is, and tries nothing for `RETRY_S`."""
        segment = self._segments.pop(sampler, None)
        if segment is not None:
            segment.abandon()
        if self._clock() >= self._refused_until_s:
            log.warning("the request log cannot be written; requests are dropped from it", reason=reason)
        self._refused_until_s = self._clock() + RETRY_S
