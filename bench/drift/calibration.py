"""`python -m bench.drift.calibration [--quick]`: whether the drift rules err as often as they claim.

Each line is one probability or mean: simulated here, expected, and the Monte Carlo error of the former. The expected
values come from an independent simulation of the method, or from theory. The exit status is 1 if a value is off by more
than four errors and the error of the expected value. `--quick` simulates less.
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
EXPECTED_ERROR: Final = 0.015
"""Of the expected probabilities: they were simulated too, with other shares at the same index."""


@dataclass(frozen=True, slots=True)
class Check:
    """One simulated value, the expected value, and how far apart they may be."""

    name: str
    simulated: float
    expected: float
    error: float
    allowed: float

    @property
    def holds(self) -> bool:
        """Whether they are near enough."""
        return abs(self.simulated - self.expected) <= self.allowed


def checks(runs: int, rng: np.random.Generator) -> Iterator[Check]:
    """Every check; `runs` simulations for each check of a window, fewer for each check of a stream."""
    for (bins, rows), expected in RULE.items():
        yield from _rule(rng, bins, rows, expected, runs)
    for (bins, rows), mean in NULL_MEANS.items():
        simulated, error = simulation.null_mean(rng, bins, rows, runs)
        yield Check(
            f"mean smoothed PSI without drift, B={bins} N={rows}", simulated, mean, error, 4 * error + 0.01 * mean
        )
    for bins, rows in ((10, 500), (20, 1000)):
        simulated = simulation.ordinary_size(rng, bins, rows, runs)
        yield _probability(f"test of no change at 5 % without drift, B={bins} N={rows}", simulated, 0.047, runs)
    yield from _streams(rng, runs)


def _rule(
    rng: np.random.Generator, bins: int, rows: int, expected: tuple[tuple[float, ...], ...], runs: int
) -> Iterator[Check]:
    at_5, at_1, naive = expected
    for at, index in enumerate(INDICES):
        found = simulation.rejections(rng, bins, rows, index, runs)
        where = f"B={bins} N={rows} PSI={index:g}"
        yield _probability(f"rule at 5 %, {where}", found.at_5, at_5[at], runs)
        yield _probability(f"rule at 1 %, {where}", found.at_1, at_1[at], runs)
        if index in INDICES[1:3]:
            yield _probability(f"PSI > 0.1, {where}", found.naive, naive[at - 1], runs)


def _streams(rng: np.random.Generator, runs: int) -> Iterator[Check]:
    streams = max(runs // 100, 40)
    for alpha, (least, most) in RUN_LENGTHS.items():
        if alpha < 0.01 and runs < 5000:
            continue
        simulated, alarms = simulation.run_lengths(rng, alpha, streams, int(8 * most))
        error = simulated / sqrt(max(alarms, 1))
        middle = (least + most) / 2
        yield Check(f"looks to a false alarm at {alpha:g}", simulated, middle, error, 4 * error + (most - least) / 2)
    windows = max(runs // 10, 100)
    for quiet in (0.0, 0.1):
        found = simulation.discoveries(rng, 0.05, quiet, 5, windows)
        what = f"5 of 20 features drift, the others' PSI {quiet:g}"
        share = 0.0 if quiet == 0 else 0.05 * 15 / 20
        yield _probability(f"false share of those called drifted, {what}", found.false_share, share, windows)
        yield Check(f"power, {what}", found.power, 0.98, sqrt(0.02 / windows), 0.04)
    clumps = max(runs // 10, 200)
    plain, known = simulation.clumped_size(rng, 5, clumps)
    yield Check("clumps of 5, test of no change at 5 % taking them for rows", plain, 0.96, sqrt(0.04 / clumps), 0.06)
    yield _probability("the same with the baseline's dispersion", known, 0.05, clumps)


def _probability(name: str, simulated: float, expected: float, runs: int) -> Check:
    error = sqrt(max(simulated * (1 - simulated), expected * (1 - expected), 1 / runs) / runs)
    return Check(name, simulated, expected, error, 4 * error + EXPECTED_ERROR)


def main() -> int:
    """Simulates and prints; returns 1 if a check does not hold."""
    parser = argparse.ArgumentParser(prog="python -m bench.drift.calibration")
    parser.add_argument("--quick", action="store_true")
    runs = 1000 if parser.parse_args().quick else 20_000
    found = []
    print(f"{'':72} {'simulated':>9} {'expected':>9} {'error':>8}")
    for check in checks(runs, np.random.default_rng(0)):
        found.append(check)
        mark = "" if check.holds else "  <- off"
        print(f"{check.name:72} {check.simulated:9.4g} {check.expected:9.4g} {check.error:8.2g}{mark}", flush=True)
    return 0 if all(check.holds for check in found) else 1


if __name__ == "__main__":
    sys.exit(main())
