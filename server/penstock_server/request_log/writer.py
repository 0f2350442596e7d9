"""The thread of a worker that appends sampled requests to segments, one open segment a version.

It looks a hundred times a second while there is something to write: no batch has to wake it, and it never has so much to
do at once that the reactor would miss the interpreter. A segment that is large or old enough is closed, which is a
rename; the process that makes Parquet of it looks for those names. A disk that refuses costs the requests that came while
it did and nothing else: they are counted, and the disk is asked again after a while.
"""

import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from penstock_server.request_log.files import OpenSegment, folder_bytes, open_segment
from penstock_server.request_log.sampler import RequestTap

log = structlog.get_logger(__name__)

GATHER_S: Final = 0.01
LOOK_S: Final = 1.0
"""How late a segment that is old enough is closed, when nothing else is written."""
RETRY_S: Final = 5.0


class RequestLogThread:
    """Writes what taps kept.

    Args:
        spool: the folder of segments; made when it is first written to.
        rotate_bytes, rotate_s: the size and age at which a segment is closed.
        spool_bytes: what the folder may hold, of all workers; beyond it nothing is written.
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
        self._added: deque[RequestTap] = deque()
        self._taps: list[RequestTap] = []
        self._segments: dict[RequestTap, OpenSegment] = {}
        self._refused_until_s = float("-inf")
        self._is_wanted = threading.Event()
        self._is_stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="request-log", daemon=True)

    def start(self) -> None:
        """Begins to write."""
        self._thread.start()

    def wake(self) -> None:
        """Something waits in a tap; from any thread."""
        if not self._is_wanted.is_set():
            self._is_wanted.set()

    def add(self, tap: RequestTap) -> None:
        """Takes from a tap from now on, until it is closed; from any thread."""
        self._added.append(tap)

    def close(self) -> None:
        """Writes what waits, closes every segment and ends the thread."""
        self._is_stopped.set()
        self._is_wanted.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._is_stopped.is_set():
            self._is_wanted.wait(LOOK_S)
            self._is_stopped.wait(GATHER_S)
            self._is_wanted.clear()
            self._guarded_step()
        self._guarded_step()
        for tap, segment in list(self._segments.items()):
            self._finish(tap, segment)

    def _guarded_step(self) -> None:
        try:
            self.step()
        except Exception:
            log.exception("writing the request log failed")

    def step(self) -> None:
        """Writes what waits now, and closes the segments whose time has come."""
        while self._added:
            self._taps.append(self._added.popleft())
        for tap in self._taps:
            is_last = tap.is_closed
            self._write(tap)
            segment = self._segments.get(tap)
            if segment is not None and (is_last or self._is_full(segment)):
                self._finish(tap, segment)
            if is_last:
                self._taps = [held for held in self._taps if held is not tap]

    def _is_full(self, segment: OpenSegment) -> bool:
        return segment.size_bytes >= self._rotate_bytes or self._clock() - segment.opened_s >= self._rotate_s

    def _write(self, tap: RequestTap) -> None:
        rows = 0
        while (kept := tap.take()) is not None:
            if self._clock() < self._refused_until_s:
                tap.report.request_log_dropped("disk", kept.rows)
                continue
            try:
                segment = self._segments.get(tap) or self._open(tap)
                segment.append(kept.request())
                rows += kept.rows
                if self._is_full(segment):
                    self._finish(tap, segment)
            except OSError as error:
                tap.report.request_log_dropped("disk", kept.rows)
                self._refuse(tap, str(error.strerror or error))
        self._flush(tap, rows)

    def _flush(self, tap: RequestTap, rows: int) -> None:
        """Hands the rows to the system; only now are they written, or dropped."""
        try:
            if (segment := self._segments.get(tap)) is not None:
                segment.flush()
        except OSError as error:
            tap.report.request_log_dropped("disk", rows)
            self._refuse(tap, str(error.strerror or error))
        else:
            if rows:
                tap.report.request_logged(rows)

    def _open(self, tap: RequestTap) -> OpenSegment:
        if folder_bytes(self._spool) >= self._spool_bytes:
            raise OSError(f"{self._spool} holds {self._spool_bytes} bytes that wait to become Parquet")
        segment = open_segment(self._spool, tap.header, self._clock())
        self._segments[tap] = segment
        return segment

    def _finish(self, tap: RequestTap, segment: OpenSegment) -> None:
        del self._segments[tap]
        try:
            segment.finish()
        except OSError as error:
            segment.abandon()
            self._refuse(tap, str(error.strerror or error))

    def _refuse(self, tap: RequestTap, reason: str) -> None:
        """The disk refused: its segment is left as it is, and nothing is tried for a while."""
        segment = self._segments.pop(tap, None)
        if segment is not None:
            segment.abandon()
        if self._clock() >= self._refused_until_s:
            log.warning("the request log cannot be written; requests are dropped from it", reason=reason)
        self._refused_until_s = self._clock() + RETRY_S
