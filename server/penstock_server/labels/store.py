"""The answers that wait for labels: segments in the order of time, bounded in bytes and in age.

What has been taken in is what the joiner's last state says (`state`). What a process that was killed has written after that is
taken back when the store is opened: rows beyond the state's count, and labels of later steps.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from penstock_server.labels.segment import INDEX, ROW, ROW_BYTES, ROWS, Rows, Segment

ANSWERS: Final = "answers"
"""The folder of a store in that of all labels."""
PARTS: Final = 16
"""The store has about so many segments: the more, the longer a search; the fewer, the more is deleted at once."""
MOST_ROWS: Final = 1 << 22
"""Of a segment: sorting its index holds the joiner up for some hundred milliseconds."""
_PLACE_BITS: Final = 32


class SegmentState(NamedTuple):
    """What was taken in of a segment."""

    number: int
    capacity: int
    rows: int


class Place(NamedTuple):
    """A row's place in the store: places are ordered as rows came."""

    number: int
    row: int


class FoundRows(NamedTuple):
    """Rows that were found, M of them.

    Attributes:
        which: of the keys that were asked for, [M].
        places: [M], the segment's number above the row's place in it.
        rows: copies, [M] of `ROW`.
    """

    which: NDArray[np.intp]
    places: NDArray[np.int64]
    rows: Rows


class LabelStore:
    """The segments of a folder.

    Attributes:
        capacity: rows of a new segment.
        segments: oldest first.

    Args:
        folder: made if there is none.
        keep_bytes: the most that they may take.
        state: what the last state says of them, oldest first.
        unsure: the segments that may have labels of later steps.
        step: the last one that came to its end.

    Raises:
        OSError: a segment's file is missing, or cannot be opened.
    """

    def __init__(
        self,
        folder: Path,
        keep_bytes: int,
        state: Sequence[SegmentState] = (),
        *,
        unsure: Sequence[int] = (),
        step: int = 0,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._keep_bytes = keep_bytes
        self.capacity = max(1, min(MOST_ROWS, keep_bytes // PARTS // ROW_BYTES))
        self._doomed: list[Segment] = []
        state = [segment for segment in state if segment.rows]
        known = {segment.number for segment in state}
        for path in folder.iterdir():
            if path.suffix in (ROWS, INDEX) and not (path.stem.isdecimal() and int(path.stem) in known):
                path.unlink()
        self.segments = [Segment(folder, *segment) for segment in state]
        self._next = max(known, default=0) + 1
        for segment in self.segments:
            if segment.number in unsure:
                segment.forget_after(step)

    @property
    def state(self) -> list[SegmentState]:
        """What to keep of it."""
        return [SegmentState(each.number, each.capacity, each.count) for each in self.segments]

    @property
    def rows(self) -> int:
        """How many answers are kept."""
        return sum(segment.count for segment in self.segments)

    @property
    def size_bytes(self) -> int:
        """What the files take."""
        return sum(segment.size_bytes for segment in self.segments)

    @property
    def oldest_ns(self) -> int | None:
        """When the oldest kept answer was given; None if there is none."""
        return int(self.segments[0].rows["time_ns"][0]) if self.segments else None

    @property
    def end(self) -> Place:
        """Where the next row goes, or after it."""
        return Place(self.segments[-1].number, self.segments[-1].count) if self.segments else Place(0, 0)

    def append(self, rows: Rows) -> None:
        """Keeps rows; raises `OSError` when the disk is full."""
        while len(rows):
            if not self.segments or self.segments[-1].is_full:
                self.segments.append(Segment(self._folder, self._next, self.capacity))
                self._next += 1
            rows = rows[self.segments[-1].append(rows) :]

    def find(self, keys: NDArray[np.uint64]) -> FoundRows:
        """All rows of these keys, in no order."""
        order = np.argsort(keys, kind="stable")
        asked = keys[order]
        parts = []
        for segment in self.segments:
            which, places = segment.find(asked)
            parts.append(FoundRows(order[which], places | segment.number << _PLACE_BITS, segment.rows[places]))
        if not parts:
            return FoundRows(np.zeros(0, np.intp), np.zeros(0, np.int64), np.zeros(0, ROW))
        return FoundRows(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    def write(self, places: NDArray[np.int64], name: str, values: NDArray[np.generic] | int) -> None:
        """Writes a column of some rows."""
        by_number = {segment.number: segment for segment in self.segments}
        numbers = places >> _PLACE_BITS
        for number in np.unique(numbers).tolist():
            mine = numbers == number
            at = places[mine] & (1 << _PLACE_BITS) - 1
            by_number[number].rows[name][at] = values if isinstance(values, int) else values[mine]

    def between(self, start: Place, most: int) -> list[tuple[int, Rows]]:
        """The rows from a place on, at most so many: slices, each with the number of its segment."""
        found = []
        for segment in self.segments:
            if segment.number < start.number or most <= 0:
                continue
            first = start.row if segment.number == start.number else 0
            rows = segment.rows[first : min(segment.count, first + most)]
            most -= len(rows)
            found.append((segment.number, rows))
        return found

    def shed(self, before_ns: int) -> int:
        """Lets go of segments that are older than this or for which there is no room; how many rows they had.

        Their files stay until `sweep`, since the last state still has them.
        """
        rows = 0
        while self.segments and (self._is_too_large or self._is_before(self.segments[0], before_ns)):
            segment = self.segments.pop(0)
            self._doomed.append(segment)
            rows += segment.count
        return rows

    def sweep(self) -> None:
        """Deletes the files of what was let go."""
        while self._doomed:
            self._doomed.pop().delete()

    def close(self) -> None:
        """Closes all files."""
        for segment in (*self.segments, *self._doomed):
            segment.close()

    @property
    def _is_too_large(self) -> bool:
        # With room for one more, which comes when the last is full.
        return len(self.segments) > 1 and self.size_bytes + self.capacity * ROW_BYTES > self._keep_bytes

    def _is_before(self, segment: Segment, before_ns: int) -> bool:
        return bool(segment.rows["time_ns"][segment.count - 1] < before_ns)


def numbers_of(places: NDArray[np.int64]) -> list[int]:
    """The numbers of the segments that places are in."""
    numbers: list[int] = np.unique(places >> _PLACE_BITS).tolist()
    return numbers
