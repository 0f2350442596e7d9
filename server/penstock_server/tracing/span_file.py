"""The file of traced requests (`layout`): the supervisor makes it, each worker writes its region, the exporter takes from all.

A record counts as written once the number of records says so, which is changed last; the other side changes nothing but the
number of those that it took. So neither waits for the other, and a worker that dies leaves what it has written.
"""

import mmap
import os
import struct
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.tracing import layout

FILE: Final = "spans"
"""Its name, beside the counters."""
_RECORD: Final = struct.Struct("<2q4Q8q")
_LENGTH: Final = struct.Struct("<H")


def create(path: Path, workers: int, share: float) -> None:
    """Makes the file; `share` is the ratio of requests to trace of those whose caller has decided nothing.

    Raises:
        OSError: there is no room for it.
    """
    with path.open("xb") as file:
        # Not only truncated: in a full file system the first write to the mapping would end the process (SIGBUS).
        os.posix_fallocate(file.fileno(), 0, layout.PAGE_BYTES + workers * layout.REGION_BYTES)
    SpanFile(path).set_sampling(is_on=True, share=share)


class SpanFile:
    """The page that all share, mapped.

    Args:
        path: what `create` made.

    Raises:
        OSError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        with path.open("r+b") as file:
            self.memory = mmap.mmap(file.fileno(), 0)
        self.words: NDArray[np.int64] = np.frombuffer(self.memory, np.int64)
        self._all = self.words[: layout.PAGE_BYTES // 8].data

    @property
    def workers(self) -> int:
        """How many regions there are."""
        return (len(self.memory) - layout.PAGE_BYTES) // layout.REGION_BYTES

    @property
    def is_on(self) -> bool:
        """Whether anything is traced now."""
        return bool(self._all[layout.ALL_IS_ON // 8])

    @property
    def share(self) -> int:
        """Of `layout.PLACES`, those below which a request is traced whose caller has decided nothing."""
        return self._all[layout.ALL_SHARE // 8]

    def set_sampling(self, *, is_on: bool, share: float) -> None:
        """Says what all workers trace from now on; a ratio from 0 to 1."""
        self._all[layout.ALL_SHARE // 8] = round(share * layout.PLACES)
        self._all[layout.ALL_IS_ON // 8] = is_on

    def count(self, *, sent: int, failed: int) -> None:
        """Counts spans that were sent, and those that nobody took; only the exporter does."""
        self._all[layout.ALL_SENT // 8] += sent
        self._all[layout.ALL_FAILED // 8] += failed

    def counts(self) -> tuple[int, int, int]:
        """The spans that were sent, those that nobody took, and the requests for which there was no room, since the start."""
        lost = sum(int(self._region(slot)[layout.REGION_LOST // 8]) for slot in range(self.workers))
        return self._all[layout.ALL_SENT // 8], self._all[layout.ALL_FAILED // 8], lost

    def take(self, slot: int) -> NDArray[np.int64]:
        """What a worker has written since the last time, [records, `RECORD_WORDS`]; only the exporter takes."""
        region = self._region(slot)
        written, taken = int(region[layout.REGION_WRITTEN // 8]), int(region[layout.REGION_TAKEN // 8])
        ring = region[layout.RECORDS_AT // 8 : layout.NAMES_AT // 8].reshape(layout.RECORDS, layout.RECORD_WORDS)
        found = ring[np.arange(taken, written) % layout.RECORDS]
        region[layout.REGION_TAKEN // 8] = written
        return found

    def name(self, slot: int, number: int) -> tuple[str, ...]:
        """What the records of a worker with this number are about: model, version and role; nothing if it has no name."""
        if not 0 < number < layout.NAMES:
            return ()
        at = region_at(slot) + layout.NAMES_AT + number * layout.NAME_BYTES
        (size,) = _LENGTH.unpack_from(self.memory, at)
        text = bytes(self.memory[at + _LENGTH.size : at + _LENGTH.size + min(size, layout.NAME_BYTES - _LENGTH.size)])
        return tuple(text.decode("utf-8", "replace").split("\0"))

    def _region(self, slot: int) -> NDArray[np.int64]:
        at = region_at(slot) // 8
        return self.words[at : at + layout.REGION_BYTES // 8]


def region_at(slot: int) -> int:
    """Where the region of a worker begins."""
    return layout.PAGE_BYTES + slot * layout.REGION_BYTES


class SpanWriter:
    """A worker's region, to write into; on the reactor's thread, where kernels write too.

    Args:
        file: mapped.
        slot: the worker's.

    Attributes:
        file: the same.
        page, region: the addresses of what all share and of the region.
    """

    def __init__(self, file: SpanFile, slot: int) -> None:
        self.file = file
        self._memory = file.memory
        at = region_at(slot)
        self._words = file.words[at // 8 : (at + layout.RECORDS_AT) // 8].data
        self._at = at
        self.page: int = file.words.ctypes.data
        self.region: int = self.page + at
        # What the worker before this one in its slot has written may still be about the names that it gave last.
        named = self._words[layout.REGION_NAMED // 8]
        self._free = deque(1 + (named + place) % (layout.NAMES - 1) for place in range(layout.NAMES - 1))

    def write(
        self,
        *,
        kind: int,
        code: int,
        trace_id: int,
        parent_id: int,
        span_id: int,
        subject: int,
        arrived_ns: int,
        ended_ns: int,
        began_ns: int = 0,
        features_ns: int = 0,
        infer_ns: int = 0,
        rows: int = 0,
        batch_rows: int = 0,
    ) -> None:
        """Writes a record, or counts that there is no room."""
        words = self._words
        written = words[layout.REGION_WRITTEN // 8]
        if written - words[layout.REGION_TAKEN // 8] >= layout.RECORDS:
            words[layout.REGION_LOST // 8] += 1
            return
        at = self._at + layout.RECORDS_AT + written % layout.RECORDS * layout.RECORD_BYTES
        _RECORD.pack_into(
            self._memory, at, kind, code, trace_id >> 64, trace_id & (1 << 64) - 1, parent_id, span_id, subject, arrived_ns,
            began_ns, features_ns, infer_ns, ended_ns, rows, batch_rows,
        )  # fmt: skip
        words[layout.REGION_WRITTEN // 8] = written + 1

    def name(self, parts: Sequence[str]) -> int:
        """A number for what records are about; 0 if there is none left."""
        if not self._free:
            return 0
        number = self._free.popleft()
        text = "\0".join(parts).encode()[: layout.NAME_BYTES - _LENGTH.size]
        at = self._at + layout.NAMES_AT + number * layout.NAME_BYTES
        self._memory[at : at + _LENGTH.size + len(text)] = _LENGTH.pack(len(text)) + text
        self._words[layout.REGION_NAMED // 8] = number
        return number

    def release(self, number: int) -> None:
        """Gives a number back. It is given again last of all, when what was written of it was taken long ago."""
        if number:
            self._free.append(number)
