"""`python -m bench.drift.dependence [--quick]`: how often pairs of columns are called drifted, and from which change on.

Two normal columns with a correlation of 0.8 in 20,000 training rows, in four groups each. They are served with this correlation
or another, and one may move by half a deviation, which is no drift of the pair. Pairs are called at 5 %, each by itself.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock_server.drift import significance
from penstock_server.drift.dependence import MINIMUM_DEPENDENCE, dependence_index

TRAINED_ON = 20_000
KNOWN = 0.8
RATE = 0.05
_QUARTERS = np.array([-0.67449, 0.0, 0.67449])


@dataclass(frozen=True, slots=True)
class Served:
    """What is served, and how often it may be called drifted, or has to be.

    Attributes:
        rows: of the window.
        correlation: of the two columns.
        moved: how far one of them has moved, in deviations.
        most, least: of the share of windows that are called.
    """

    rows: int
    correlation: float
    moved: float = 0.0
    most: float = 1.0
    least: float = 0.0


SERVED = (
    Served(1_000, 0.8, most=RATE),
    Served(10_000, 0.8, most=RATE),
    Served(1_000, 0.8, moved=0.5, most=RATE),
    Served(10_000, 0.8, moved=0.5, most=RATE),
    Served(1_000, 0.7),
    Served(1_000, 0.6, least=0.9),
    Served(1_000, 0.5, least=0.99),
    Served(10_000, 0.7, least=0.9),
    Served(10_000, 0.7, moved=0.5),
    Served(10_000, 0.6, moved=0.5, least=0.99),
)


def tables(rng: np.random.Generator, rows: int, correlation: float, moved: float, runs: int) -> NDArray[np.int64]:
    """Rows by the groups of two columns, [runs, 4, 4]."""
    first = rng.normal(size=(runs, rows))
    second = correlation * first + np.sqrt(1 - correlation**2) * rng.normal(size=(runs, rows))
    cells = np.searchsorted(_QUARTERS, first + moved) * 4 + np.searchsorted(_QUARTERS, second)
    return np.array([np.bincount(row, minlength=16) for row in cells]).reshape(runs, 4, 4)


def called(rng: np.random.Generator, served: Served, runs: int) -> float:
    """The share of windows that are called drifted."""
    known = tables(rng, TRAINED_ON, KNOWN, 0.0, runs)
    now = tables(rng, served.rows, served.correlation, served.moved, runs)
    index, freedom = dependence_index(known, now, np.ones(now.shape, np.bool_))
    noise = 1 / TRAINED_ON + 1 / served.rows
    found = significance.noncentral_tail(index / noise, freedom, MINIMUM_DEPENDENCE / noise)
    return float(np.mean(found < RATE))


def lines(rng: np.random.Generator, runs: int) -> Iterator[tuple[str, bool]]:
    """What is found, and whether it is as it should be."""
    for served in SERVED:
        share = called(rng, served, runs)
        what = f"{served.rows:,} rows, correlation {KNOWN:g} -> {served.correlation:g}, moved by {served.moved:g}"
        yield f"{what:56} called in {share:4.0%} of windows", served.least <= share <= served.most


def main() -> int:
    """Simulates and prints; returns 1 if something is not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m bench.drift.dependence")
    parser.add_argument("--quick", action="store_true")
    all_hold = True
    for line, holds in lines(np.random.default_rng(0), 50 if parser.parse_args().quick else 400):
        print(line if holds else f"{line}  <- off", flush=True)
        all_hold &= holds
    return 0 if all_hold else 1


if __name__ == "__main__":
    sys.exit(main())
