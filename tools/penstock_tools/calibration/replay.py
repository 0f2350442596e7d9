"""Replays rows through the drift detector as a server would look at them, and says when which alarm went on and off.

Pure: rows are cells in the order of time. A server looks once a second at most, and when there are a hundred rows at least.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.drift.codes import Codes
from penstock_server.drift.detector import Detector
from penstock_server.drift.monitor import SLICE_ROWS
from penstock_server.drift.reference import Reference
from penstock_server.drift.report import RUN_LENGTH, AlarmKind
from penstock_tools.progress import Advance, unwatched

LOOK_S: Final = 1.0
Reals = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Episode:
    """An alarm, from its beginning to its end; places are rows.

    Attributes:
        column, kind: what it is about.
        since: where the drift began, as the alarm said when it went on.
        noticed: how many rows had come when it went on.
        ended: and when it went off; None if it was still on at the end.
    """

    column: str
    kind: AlarmKind
    since: int
    noticed: int
    ended: int | None


@dataclass(frozen=True, slots=True)
class Replay:
    """What alarms said.

    Attributes:
        rows: that were looked at.
        looks: how often.
        slice_rows: how many rows a look takes, as the median.
        episodes: in the order in which they went on.
    """

    rows: int
    looks: int
    slice_rows: int
    episodes: tuple[Episode, ...]


def replay(
    reference: Reference,
    codes: Codes,
    seconds: Reals | None = None,
    run_length: float = RUN_LENGTH,
    advance: Advance = unwatched,
) -> Replay:
    """Looks at all rows.

    Args:
        reference: the training rows.
        codes: the cells of the rows, in the order of time.
        seconds: when they came; None takes a look for every hundred rows.
        run_length: looks to a false alarm of any column, on average, at least.
        advance: called with the rows of each look.
    """
    detector = Detector(reference, reference.minimum_effect, run_length)
    counting = Counting(reference)
    open_ones: dict[tuple[str, AlarmKind], Episode] = {}
    closed: list[Episode] = []
    sizes: list[int] = []
    for begin, end in slices(len(codes), seconds):
        # The detector's moments are places here.
        alarms = detector.look(counting.count(codes[begin:end]), float(begin)).each()
        over = open_ones.keys() - alarms.keys()
        closed += [replace(open_ones.pop(key), ended=end) for key in over]
        for (column, kind), alarm in alarms.items():
            if (column, kind) not in open_ones:
                open_ones[column, kind] = Episode(column, kind, int(alarm.since_s), end, None)
        sizes.append(end - begin)
        advance(end - begin)
    episodes = sorted([*closed, *open_ones.values()], key=lambda one: (one.noticed, one.column, one.kind))
    return Replay(sum(sizes), len(sizes), int(np.median(sizes)) if sizes else SLICE_ROWS, tuple(episodes))


def slices(rows: int, seconds: Reals | None) -> Iterator[tuple[int, int]]:
    """The first row of each look, and the one after its last. Too few rows at the end are no look."""
    begin = 0
    while begin + SLICE_ROWS <= rows:
        end = begin + SLICE_ROWS
        if seconds is not None:
            end = max(end, int(np.searchsorted(seconds, seconds[begin] + LOOK_S, side="left")))
        yield begin, end
        begin = end


class Counting:
    """Counts cells as a server does, [columns, cells]."""

    def __init__(self, reference: Reference) -> None:
        self._shape = reference.cells.shape
        self._offsets = np.arange(self._shape[0]) * self._shape[1]

    def count(self, codes: Codes) -> NDArray[np.int64]:
        """The counts of some rows."""
        size = self._shape[0] * self._shape[1]
        found: NDArray[np.int64] = np.bincount((codes + self._offsets).reshape(-1), minlength=size)
        return found.reshape(self._shape)
