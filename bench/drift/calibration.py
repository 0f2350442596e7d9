"""Whether the drift rules err as often as they say: simulations beside what is expected of them.

python -m bench.drift.calibration [--quick]

Prints for each figure ours, the expected, and the Monte Carlo error of ours. The expected are probabilities of the method
found by an independent simulation, or what theory says. `--quick` takes fewer runs and seconds; ends with 1 if anything is
further off than four errors and the expected's own.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from math import sqrt
from typing import Final

import numpy as np

from bench.drift import simulation

INDICES: Final = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25)
RULE: Final = {
    # (bins, rows): for each index the expected rejections at 5 % and 1 %, then the rule of thumb's at 0.05 and 0.1.
    (10, 100): ((.001, .008, .043, .131, .265, .426), (.000, .001, .011, .044, .100, .197), (.69, .87)),
    (10, 250): ((.000, .002, .046, .241, .587, .840), (.000, .000, .010, .088, .325, .618), (.30, .78)),
    (10, 500): ((.000, .000, .052, .410, .843, .980), (.000, .000, .011, .186, .628, .915), (.09, .71)),
    (10, 1000): ((.000, .000, .050, .637, .976, .999), (.000, .000, .010, .372, .909, .997), (.02, .68)),
    (10, 5000): ((.000, .000, .046, .967, 1.0, 1.0), (.000, .000, .008, .880, 1.0, 1.0), (.00, .60)),
    (20, 500): ((.000, .001, .042, .376, .804, .973), (.000, .000, .009, .163, .573, .893), (.32, .90)),
}  # fmt: skip
NULL_MEANS: Final = {
    (10, 100): 0.0878, (10, 250): 0.0372, (10, 500): 0.0195, (10, 1000): 0.01075, (10, 5000): 0.00362, (20, 250): 0.0769,
}  # fmt: skip
RUN_LENGTHS: Final = {0.01: (222, 349), 0.001: (1713, 2720)}
THEIR_ERROR: Final = 0.015
"""Of the expected probabilities: they were simulated too, with shares at the index that another path leads to."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure: ours, what is expected of it, and how far off it may be."""

    name: str
    ours: float
    expected: float
    error: float
    allowed: float

    @property
    def holds(self) -> bool:
        """Whether it is near enough."""
        return abs(self.ours - self.expected) <= self.allowed


def figures(runs: int, rng: np.random.Generator) -> Iterator[Figure]:
    """Every figure; `runs` simulations of each where one is a window, fewer where it is a stream."""
    for (bins, rows), expected in RULE.items():
        yield from _rule(rng, bins, rows, expected, runs)
    for (bins, rows), mean in NULL_MEANS.items():
        ours, error = simulation.null_mean(rng, bins, rows, runs)
        yield Figure(f"mean smoothed PSI without drift, B={bins} N={rows}", ours, mean, error, 4 * error + 0.01 * mean)
    for bins, rows in ((10, 500), (20, 1000)):
        ours = simulation.ordinary_size(rng, bins, rows, runs)
        yield _probability(f"test of no change at 5 % without drift, B={bins} N={rows}", ours, 0.047, runs)
    yield from _streams(rng, runs)


def _rule(
    rng: np.random.Generator, bins: int, rows: int, expected: tuple[tuple[float, ...], ...], runs: int
) -> Iterator[Figure]:
    at_5, at_1, naive = expected
    for place, index in enumerate(INDICES):
        found = simulation.rejections(rng, bins, rows, index, runs)
        where = f"B={bins} N={rows} PSI={index:g}"
        yield _probability(f"rule at 5 %, {where}", found.at_5, at_5[place], runs)
        yield _probability(f"rule at 1 %, {where}", found.at_1, at_1[place], runs)
        if index in INDICES[1:3]:
            yield _probability(f"PSI > 0.1, {where}", found.naive, naive[place - 1], runs)


def _streams(rng: np.random.Generator, runs: int) -> Iterator[Figure]:
    streams = max(runs // 100, 40)
    for alpha, (least, most) in RUN_LENGTHS.items():
        if alpha < 0.01 and runs < 5000:
            continue
        ours, alarms = simulation.run_lengths(rng, alpha, streams, int(8 * most))
        error = ours / sqrt(max(alarms, 1))
        middle = (least + most) / 2
        yield Figure(f"looks to a false alarm at {alpha:g}", ours, middle, error, 4 * error + (most - least) / 2)
    windows = max(runs // 10, 100)
    for quiet in (0.0, 0.1):
        found = simulation.discoveries(rng, 0.05, quiet, 5, windows)
        what = f"5 of 20 features drift, the others' PSI {quiet:g}"
        share = 0.0 if quiet == 0 else 0.05 * 15 / 20
        yield _probability(f"false share of those called drifted, {what}", found.false_share, share, windows)
        yield Figure(f"power, {what}", found.power, 0.98, sqrt(0.02 / windows), 0.04)
        # Two windows in a row for the same feature: the square of one window's chance, over fifteen features.
        yield Figure(f"false alarms a window, {what}", found.false_alarms, 0.0, sqrt(0.01 / windows), 0.02)
    clumps = max(runs // 10, 200)
    plain, known = simulation.clumped_size(rng, 5, clumps)
    yield Figure("clumps of 5, test of no change at 5 % taking them for rows", plain, 0.96, sqrt(0.04 / clumps), 0.06)
    yield _probability("the same with the baseline's dispersion", known, 0.05, clumps)


def _probability(name: str, ours: float, expected: float, runs: int) -> Figure:
    error = sqrt(max(ours * (1 - ours), expected * (1 - expected), 1 / runs) / runs)
    return Figure(name, ours, expected, error, 4 * error + THEIR_ERROR)


def main() -> int:
    """Simulates and prints; 1 if a figure does not hold."""
    parser = argparse.ArgumentParser(prog="python -m bench.drift.calibration")
    parser.add_argument("--quick", action="store_true")
    runs = 1000 if parser.parse_args().quick else 20_000
    found = []
    print(f"{'':72} {'ours':>9} {'expected':>9} {'error':>8}")
    for figure in figures(runs, np.random.default_rng(0)):
        found.append(figure)
        mark = "" if figure.holds else "  <- off"
        print(f"{figure.name:72} {figure.ours:9.4g} {figure.expected:9.4g} {figure.error:8.2g}{mark}", flush=True)
    return 0 if all(figure.holds for figure in found) else 1


if __name__ == "__main__":
    sys.exit(main())
