"""`python -m bench.drift.alarms [--quick]`: how long drift alarms take, what they say of its beginning, and how often they err.

Twenty columns of twenty equal bins, looks after every 100 rows. The delays are medians, at a false alarm per 1,000 looks and at
the server's default, a year of looks. False alarms are counted over looks at rows that do not drift, or by no more than is
tolerated: independent, in clumps of equal rows, with shares that move from day to day, the training rows in the order of
time or shuffled.
"""

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bench.drift.simulation import tilted
from penstock_server.drift.baseline import Baseline, NumberBaseline
from penstock_server.drift.detector import Detector
from penstock_server.drift.fit import dispersion, finer_dispersions
from penstock_server.drift.reference import Reference, reference_of
from penstock_server.drift.report import RUN_LENGTH
from penstock_server.features.counting import EXTRA_CELLS
from penstock_server.prediction.recent import RecentRequests

COLUMNS = 20
BINS = 20
ROWS = 100
TRAINED_ON = 50_000
SIMULATED = 1000.0
"""The looks to a false alarm that can be simulated; those of a year cannot."""
QUIET = 100
"""Looks before a change."""

_Rows = NDArray[np.int64]
_Shares = NDArray[np.float64]
EQUAL: _Shares = np.full(BINS, 1 / BINS)


class Clumps:
    """Rows of one column that come `length` alike at a time."""

    def __init__(self, rng: np.random.Generator, length: int) -> None:
        self._rng = rng
        self._length = length
        self._left: _Rows = np.empty(0, np.int64)

    def take(self, rows: int, shares: _Shares) -> _Rows:
        """The cells of the next rows."""
        while len(self._left) < rows:
            new = self._rng.choice(BINS, size=1 + rows // self._length, p=shares)
            self._left = np.concatenate([self._left, np.repeat(new, self._length)])
        taken, self._left = self._left[:rows], self._left[rows:]
        return taken


@dataclass(frozen=True)
class Traffic:
    """What rows are like.

    Attributes:
        index: how far their shares are from the training rows'.
        clump: so many rows are alike at a time.
        day_rows: the rows of a day; 0 for days that are alike.
        day_index: how far a day's shares are from the others', on average.
        is_shuffled: the training rows were, so nothing is known of their days.
    """

    index: float = 0.0
    clump: int = 1
    day_rows: int = 0
    day_index: float = 0.0
    is_shuffled: bool = False

    def columns(self, rng: np.random.Generator) -> list[Callable[[int], _Rows]]:
        """For each column what gives the cells of its next rows."""
        return [self._column(rng) for _ in range(COLUMNS)]

    def _column(self, rng: np.random.Generator) -> Callable[[int], _Rows]:
        clumps, usual, seen = Clumps(rng, self.clump), tilted(EQUAL, self.index), 0
        shares = self._day(rng, usual)

        def take(rows: int) -> _Rows:
            nonlocal seen, shares
            if self.day_rows and seen // self.day_rows != (seen + rows) // self.day_rows:
                shares = self._day(rng, usual)
            seen += rows
            return clumps.take(rows, shares)

        return take

    def _day(self, rng: np.random.Generator, usual: _Shares) -> _Shares:
        if not self.day_rows:
            return usual
        # Gamma weights of this shape have this index from their mean, on average.
        moved = usual * rng.gamma(1 / self.day_index, self.day_index, BINS)
        return moved / moved.sum()


def reference(rng: np.random.Generator, traffic: Traffic) -> Reference:
    """Training rows of such traffic."""
    columns = []
    for at, take in enumerate(Traffic(0.0, traffic.clump, traffic.day_rows, traffic.day_index).columns(rng)):
        rows = np.concatenate([take(ROWS) for _ in range(TRAINED_ON // ROWS)])
        counts = np.bincount(rows, minlength=BINS)
        if traffic.is_shuffled:
            rng.shuffle(rows)
        edges = tuple(np.arange(1.0, BINS).tolist())
        columns.append(
            NumberBaseline(
                str(at), edges, tuple(counts.tolist()), (0.0,) * BINS, smallest=0.0, largest=float(BINS),
                dispersion=dispersion(rows), finer=finer_dispersions(rows),
            )
        )  # fmt: skip
    return reference_of(Baseline(tuple(columns), "simulated"))


class Watch:
    """Looks at traffic, 100 rows at a time."""

    def __init__(self, rng: np.random.Generator, traffic: Traffic, run_length: float) -> None:
        known = reference(rng, traffic)
        self.detector = Detector(known, known.minimum_effect, run_length)
        self.columns = traffic.columns(rng)
        self.looks = 0

    def look(self) -> None:
        cells = np.zeros((COLUMNS, BINS + EXTRA_CELLS), np.int64)
        for at, take in enumerate(self.columns):
            cells[at, :BINS] = np.bincount(take(ROWS), minlength=BINS)
        self.detector.look(cells, float(self.looks))
        self.looks += 1


@dataclass(frozen=True, slots=True)
class Delay:
    """Medians: rows from a change to its alarm, and how far off the alarm says it began, in rows."""

    rows: float
    since_off: float


def delay(rng: np.random.Generator, index: float, run_length: float, runs: int, most_looks: int = 400) -> Delay:
    """Of one column in twenty that drifts by this index; a run without an alarm counts as the longest."""
    rows, off = [], []
    for _ in range(runs):
        watch = Watch(rng, Traffic(), run_length)
        for _ in range(QUIET):
            watch.look()
        watch.columns[0] = Traffic(index).columns(rng)[0]
        while "0" not in watch.detector.detected.drifted and watch.looks < QUIET + most_looks:
            watch.look()
        rows.append(ROWS * (watch.looks - QUIET))
        alarm = watch.detector.detected.drifted.get("0")
        off.append(ROWS * abs(alarm.since_s - QUIET) if alarm else float("inf"))
    return Delay(float(np.median(rows)), float(np.median(off)))


def false_alarms(rng: np.random.Generator, traffic: Traffic, looks: int) -> int:
    """Alarms that went on in so many looks, with one allowed per 1,000."""
    watch, alarms = Watch(rng, traffic, SIMULATED), 0
    before: set[str] = set()
    for _ in range(looks):
        watch.look()
        now = set(watch.detector.detected.drifted)
        alarms += len(now - before)
        before = now
    return alarms


WEEK_S = 7 * 86_400
RETRIED = 0.1
"""The share of requests that are sent twice."""


def week_of_probes(rng: np.random.Generator, *, skips_repeats: bool) -> int:
    """Alarms in a week of two requests a second, of which some are retried, beside a probe that sends one row each second."""
    watch, recent, alarms = Watch(rng, Traffic(), SIMULATED), RecentRequests(), 0
    probe, before = rng.random(COLUMNS), set[str]()
    waiting = np.zeros((COLUMNS, BINS + EXTRA_CELLS), np.int64)
    for _ in range(WEEK_S):
        fresh = list(rng.random((int(rng.poisson(2)), COLUMNS)))
        rows = [*fresh, *(row for row in fresh if rng.random() < RETRIED), probe]
        for row in rows:
            if not (skips_repeats and recent.has((row.tobytes(),))):
                waiting[np.arange(COLUMNS), (row * BINS).astype(np.int64)] += 1
        if waiting[0].sum() >= ROWS:
            now = set(watch.detector.look(waiting, float(watch.looks)).drifted)
            watch.looks += 1
            waiting[:] = 0
            alarms += len(now - before)
            before = now
    return alarms


DELAYS = {0.25: 5000, 0.5: 800, 1.0: 300}
"""The rows that an alarm may take."""
QUIET_TRAFFIC = {
    "independent rows": Traffic(),
    "independent rows, PSI .1": Traffic(0.1),
    "clumps of 50": Traffic(clump=50),
    "clumps of 50, PSI .1": Traffic(0.1, clump=50),
    "clumps of 200": Traffic(clump=200),
    "clumps of 200, PSI .1": Traffic(0.1, clump=200),
    "days of 2,000 rows that differ by PSI .05": Traffic(day_rows=2000, day_index=0.05),
    "days of 2,000 rows that differ by PSI .2": Traffic(day_rows=2000, day_index=0.2),
    "the same, the training rows shuffled": Traffic(day_rows=2000, day_index=0.2, is_shuffled=True),
}


def lines(rng: np.random.Generator, runs: int, looks: int) -> Iterator[tuple[str, bool]]:
    """What is found, and whether it holds."""
    for run_length in (SIMULATED, RUN_LENGTH):
        for index, most in DELAYS.items():
            found = delay(rng, index, run_length, runs)
            holds = found.rows <= most and found.since_off <= 0.1 * max(found.rows, 10 * ROWS)
            what = f"PSI {index:g}, a false alarm per {run_length:,.0f} looks"
            yield f"{what:72} {found.rows:8,.0f} rows, its beginning off by {found.since_off:,.0f}", holds
    for name, traffic in QUIET_TRAFFIC.items():
        alarms = false_alarms(rng, traffic, looks)
        # Where nothing is known of the days, publishing warns.
        holds = traffic.is_shuffled or alarms <= looks / SIMULATED
        yield f"{name:72} {alarms:8} false alarms in {looks:,} looks, {looks / SIMULATED:.0f} allowed", holds
    counted = week_of_probes(rng, skips_repeats=False)
    alarms = week_of_probes(rng, skips_repeats=True)
    what = "a week of retries, and of a probe each second"
    yield f"{what:72} {alarms:8} false alarms; {counted} if repeats were counted", alarms == 0


def main() -> int:
    """Simulates and prints; returns 1 if something does not hold."""
    parser = argparse.ArgumentParser(prog="python -m bench.drift.alarms")
    parser.add_argument("--quick", action="store_true")
    is_quick = parser.parse_args().quick
    all_hold = True
    for line, holds in lines(np.random.default_rng(0), 5 if is_quick else 21, 1000 if is_quick else 10_000):
        print(line if holds else f"{line}  <- off", flush=True)
        all_hold &= holds
    return 0 if all_hold else 1


if __name__ == "__main__":
    sys.exit(main())
