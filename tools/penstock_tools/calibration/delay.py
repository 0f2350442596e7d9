"""How many rows pass from a shift to its alarm: shifts of a known size are put into rows that are as they should be.

Pure but for the random numbers. Rows are drawn again from the usual ones, in blocks as long as rows hang together, first all
alike and then by weights that move a column's cells by an exponential tilt. Columns are judged one by one, so each is drawn and
shifted on its own, and one run measures all.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.drift import statistics
from penstock_server.drift.codes import Codes
from penstock_server.drift.detector import Detector
from penstock_server.drift.monitor import SLICE_ROWS
from penstock_server.drift.reference import Reference
from penstock_server.drift.report import RUN_LENGTH
from penstock_tools.progress import Advance, unwatched

INDEXES: Final = (0.25, 0.5, 1.0)
"""The population stability indices of the shifts; 0.25 is a large change by custom."""
RUNS: Final = 3
QUIET_LOOKS: Final = 100
MOST_LOOKS: Final = 400
MOST_ROWS: Final = 100_000
"""Of more usual rows an even part is drawn from."""
LONGEST: Final = SLICE_ROWS
"""The rows of a block, at most."""
_CLUMPED: Final = 1.5
LEAST_BLOCKS: Final = 30
"""Where a shift is made of fewer different blocks, they are shorter."""
_STEEPEST: Final = 200.0
_HALVINGS: Final = 50

Reals = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Delay:
    """Medians over the runs.

    Attributes:
        rows: from the shift to the alarm; None if there is none within `most_rows`, or the column cannot shift so far.
        since_off: how far off the alarm says that it began, in rows; None without an alarm.
        can_shift: whether the column's rows can be drawn so that they shift so far.
        is_quiet: whether there was no alarm before the shift.
    """

    rows: int | None = None
    since_off: int | None = None
    can_shift: bool = True
    is_quiet: bool = True


def delays(
    reference: Reference,
    usual: Codes,
    *,
    slice_rows: int = SLICE_ROWS,
    run_length: float = RUN_LENGTH,
    indexes: Sequence[float] = INDEXES,
    runs: int = RUNS,
    seed: int = 0,
    advance: Advance = unwatched,
) -> list[tuple[Delay, ...]]:
    """For each column a delay for each index.

    Args:
        reference: the training rows.
        usual: the cells of rows that do not drift.
        slice_rows: how many rows a look takes.
        run_length: looks to a false alarm of any column, on average, at least.
        indexes: of the shifts.
        runs: how often each is measured.
        seed: of the random numbers.
        advance: called with the looks that are done, of `most_looks` for these numbers of indexes and runs.
    """
    rng = np.random.default_rng(seed)
    drawn = [_Drawn(column, reference.cells.shape[1], indexes) for column in _some(usual).T]
    found = []
    for _ in range(runs):
        run = _Run(drawn, reference.names, slice_rows, rng, advance)
        quiet = run.quiet(Detector(reference, reference.minimum_effect, run_length))
        found.append([run.shifted(deepcopy(quiet), index) for index in range(len(indexes))])
    return [
        tuple(
            _median([run[at][column] for run in found], can_shift=each.moved[at] is not None)
            for at in range(len(indexes))
        )
        for column, each in enumerate(drawn)
    ]


def most_looks(indexes: int = len(INDEXES), runs: int = RUNS) -> int:
    """The looks that `delays` takes at most."""
    return runs * (QUIET_LOOKS + indexes * MOST_LOOKS)


def _some(usual: Codes) -> Codes:
    """The rows, or stretches of them that are spread evenly."""
    if len(usual) <= MOST_ROWS:
        return np.asarray(usual)
    stretch = 10 * LONGEST
    begins = np.linspace(0, len(usual) - stretch, MOST_ROWS // stretch).astype(np.int64)
    return np.asarray(usual[(begins[:, None] + np.arange(stretch)).reshape(-1)])


_Found = tuple[int | None, int | None, bool]
"""The delay, how far off its beginning, and whether it was quiet before."""


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """One measurement of all columns' delays; `names` are theirs, in the order of `drawn`."""

    drawn: Sequence["_Drawn"]
    names: Sequence[str]
    slice_rows: int
    rng: np.random.Generator
    advance: Advance

    def quiet(self, detector: Detector) -> Detector:
        """The detector after the looks before the shift."""
        for look in range(QUIET_LOOKS):
            detector.look(self._counts(None), float(look * self.slice_rows))
            self.advance(1)
        return detector

    def shifted(self, detector: Detector, index: int) -> list[_Found]:
        """What is found of each column, all of them shifted by one of the indices."""
        change, looks = QUIET_LOOKS * self.slice_rows, 0
        before = detector.detected.drifted
        found: dict[int, _Found] = {at: (None, None, False) for at, name in enumerate(self.names) if name in before}
        waiting = {at for at, each in enumerate(self.drawn) if each.moved[index] is not None} - found.keys()
        while waiting and looks < MOST_LOOKS:
            alarms = detector.look(self._counts(index), float(change + looks * self.slice_rows)).drifted
            looks += 1
            for at in [at for at in waiting if self.names[at] in alarms]:
                waiting.remove(at)
                found[at] = looks * self.slice_rows, abs(int(alarms[self.names[at]].since_s) - change), True
            self.advance(1)
        self.advance(MOST_LOOKS - looks)
        return [found.get(at, (None, None, True)) for at in range(len(self.drawn))]

    def _counts(self, index: int | None) -> Integers:
        return np.array([each.take(self.rng, self.slice_rows, index) for each in self.drawn])


def _median(found: Sequence[_Found], *, can_shift: bool) -> Delay:
    is_quiet = sum(quiet for *_, quiet in found) > len(found) / 2
    # A run without an alarm counts as the longest.
    rows = sorted((delay if delay is not None else np.inf, off or 0) for delay, off, _ in found)
    delay, _ = rows[len(rows) // 2]
    if not (can_shift and is_quiet) or np.isinf(delay):
        return Delay(None, None, can_shift, is_quiet)
    offs = sorted(off for _, off, _ in found if off is not None)
    return Delay(int(delay), offs[len(offs) // 2])


class _Drawn:
    """The rows of one column, to be drawn in blocks as they are, or shifted by one of some indices."""

    def __init__(self, codes: Codes, cells: int, indexes: Sequence[float]) -> None:
        self._codes = codes.astype(np.int64)
        self._cells = cells
        self._length = clump_rows(codes)
        self.moved: list[Reals | None] = []
        while True:
            tilts = [tilt(self._codes, self._length, index) for index in indexes]
            if self._length == 1 or all(weights is None or _different(weights) for weights in tilts):
                break
            self._length //= 2
        self.moved = [None if weights is None else np.cumsum(weights) for weights in tilts]

    def take(self, rng: np.random.Generator, rows: int, index: int | None = None) -> Integers:
        """The counts of the next rows, as they are or shifted; those that cannot be shifted are as they are."""
        needed = -(-rows // self._length)
        cumulated = None if index is None else self.moved[index]
        blocks = len(self._codes) // self._length
        if cumulated is None:
            chosen = rng.integers(0, blocks, needed)
        else:
            chosen = np.minimum(np.searchsorted(cumulated, rng.random(needed)), blocks - 1)
        at = (chosen[:, None] * self._length + np.arange(self._length)).reshape(-1)[:rows]
        found: Integers = np.bincount(self._codes[at], minlength=self._cells)
        return found


def _different(weights: Reals) -> bool:
    return bool(1 / (weights**2).sum() >= LEAST_BLOCKS)


def clump_rows(codes: Codes) -> int:
    """About how many successive rows are alike, 1 or more: by how much more neighbouring slices differ than others would."""
    parts = len(codes) // SLICE_ROWS
    _, kinds = np.unique(codes, return_inverse=True)
    size = int(kinds.max(initial=0)) + 1
    if parts < 2 or size < 2:
        return 1
    slice_of = np.repeat(np.arange(parts), SLICE_ROWS) * size
    counts = np.bincount(slice_of + kinds[: parts * SLICE_ROWS], minlength=parts * size).reshape(parts, size)
    differences, freedom = statistics.neighbours(counts)
    times = float(differences.sum() / max(freedom.sum(), 1))
    return min(LONGEST, round(times)) if times >= _CLUMPED else 1


def tilt(codes: Integers, length: int, index: float) -> Reals | None:
    """Weights of the blocks of so many rows that move the shares of the cells by this index; None where none do.

    The weights are the exponential of a multiple of a block's mean score, and the score rises evenly from the first cell with
    rows to the last.
    """
    blocks = len(codes) // length
    used = codes[: blocks * length]
    _, kinds = np.unique(used, return_inverse=True)
    size = int(kinds.max(initial=0)) + 1
    if size < 2:
        return None
    scores = np.linspace(-1, 1, size)[kinds].reshape(blocks, length).mean(axis=1)
    usual = np.bincount(kinds, minlength=size) / len(kinds)
    low, high = 0.0, _STEEPEST
    if _index_of(kinds, size, length, usual, _weights(scores, high)) < index:
        return None
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        is_far = _index_of(kinds, size, length, usual, _weights(scores, middle)) >= index
        low, high = (low, middle) if is_far else (middle, high)
    return _weights(scores, high)


def _weights(scores: Reals, steepness: float) -> Reals:
    weights = np.exp(steepness * (scores - scores.max()))
    found: Reals = weights / weights.sum()
    return found


def _index_of(kinds: Integers, size: int, length: int, usual: Reals, weights: Reals) -> float:
    moved = np.bincount(kinds, np.repeat(weights / length, length), minlength=size)
    moved = np.maximum(moved, 1e-12)
    return float(((moved - usual) * np.log(moved / usual)).sum())
