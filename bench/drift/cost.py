"""`python -m bench.drift.cost [--repeats N]`: what drift detection costs.

It measures the counting in the pipeline by batch size, and one evaluation and one scrape of a wide model. The pipeline has
ten number columns (filled, standardised) and five string columns (one-hot of twenty). The cost of counting is the
difference between a batch with cells to count in and one without, measured in turns.
"""

import argparse
import time
from collections.abc import Callable
from statistics import median
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, generate_latest

from penstock.tensors import join_bytes
from penstock_server.drift.baseline import Baseline
from penstock_server.drift.codes import codes_of
from penstock_server.drift.dependence import JointReference, joint_drift, joint_reference_of
from penstock_server.drift.evaluate import DriftRules, version_drift
from penstock_server.drift.fit import fit_baseline, fit_number, with_predictions
from penstock_server.drift.gauges import DriftCollector
from penstock_server.drift.joint_fit import with_joint
from penstock_server.drift.joint_window import PARTS
from penstock_server.drift.reference import Reference, reference_of
from penstock_server.drift.report import VersionDrift
from penstock_server.features.counting import Counts
from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec.spec import (
    Categories,
    FeatureSpec,
    Join,
    NumberColumn,
    StringColumn,
    Take,
    Text,
)
from penstock_server.features.spec.steps import Fill, OneHot, Standardise

NUMBERS: Final = tuple(f"n{at}" for at in range(10))
STRINGS: Final = tuple(f"s{at}" for at in range(5))
CATEGORIES: Final = tuple(f"category {at}" for at in range(20))
ROWS: Final = (1, 8, 64, 1024)
FEATURES: Final = 200
WINDOW_ROWS: Final = 10_000
SERIES: Final = 50
JOINED: Final = 40
"""The columns that pairs and segments are of: 40 pairs, and 32 columns with segments, are the most."""


def specification() -> FeatureSpec:
    """The measured columns and steps."""
    codes = (*range(len(CATEGORIES)), -1)
    one_hot = OneHot((codes,), (len(CATEGORIES),))
    return FeatureSpec(
        (*map(NumberColumn, NUMBERS), *map(StringColumn, STRINGS)),
        Join(
            (
                Take(NUMBERS, (Fill((0.0,)), Standardise((0.1,), (1.3,)))),
                *(Text(name, Categories(CATEGORIES), (one_hot,)) for name in STRINGS),
            )
        ),
    )


def table(rows: int, seed: int) -> dict[str, Any]:
    """Raw columns: normal numbers of which 1 % are missing, and equally frequent categories."""
    rng = np.random.default_rng(seed)
    numbers = rng.normal(size=(rows, len(NUMBERS)))
    numbers[rng.random(numbers.shape) < 0.01] = np.nan
    texts = rng.choice(CATEGORIES, (rows, len(STRINGS)))
    return {name: numbers[:, at] for at, name in enumerate(NUMBERS)} | {
        name: texts[:, at].tolist() for at, name in enumerate(STRINGS)
    }


def batch(rows: int) -> tuple[Pipeline, bytes, list[bytes]]:
    """The pipeline, with cells to count in, and a batch's numbers and strings as it takes them."""
    spec = specification()
    pipeline = Pipeline(spec, fit_baseline(spec, table(20_000, 0)).cells)
    columns = table(rows, 1)
    numbers = np.column_stack([columns[name] for name in NUMBERS]).tobytes()
    strings = [join_bytes([value.encode() for value in columns[name]]) for name in STRINGS]
    return pipeline, numbers, strings


def counting(rows: int, repeats: int) -> tuple[float, float]:
    """Microseconds per batch without counting and counting as servers do, the medians of `repeats` turns."""
    pipeline, numbers, strings = batch(rows)
    out = np.empty((rows, pipeline.width), pipeline.dtype)
    cells = np.zeros(pipeline.cells_shape, np.int64)
    calls = max(3, 2000 // (rows + 3))
    plain, counted = [], []
    for _ in range(repeats):
        plain.append(_took_us(lambda: pipeline.run(numbers, strings, rows, out, None), calls))
        counted.append(_took_us(lambda: pipeline.run(numbers, strings, rows, out, cells, is_thinned=True), calls))
    return median(plain), median(counted)


def wide() -> tuple[Reference, Counts]:
    """The reference of many number columns, and a window in which every tenth column drifted."""
    rng = np.random.default_rng(2)
    columns = tuple(fit_number(f"feature {at}", rng.normal(size=20_000)) for at in range(FEATURES))
    reference = reference_of(Baseline(columns, "digest"))
    cells, sums = np.zeros_like(reference.cells), np.zeros_like(reference.sums)
    for at, column in enumerate(columns):
        values = rng.normal(0.6 if at % 10 == 0 else rng.uniform(0, 0.35), 1, WINDOW_ROWS)
        bins = np.searchsorted(column.edges, values, side="right")
        cells[at, : len(column.counts)] = np.bincount(bins, minlength=len(column.counts))
        sums[at] = np.bincount(bins, values, minlength=reference.sums.shape[1])
    return reference, Counts(cells, np.zeros((FEATURES, 2), np.int64), sums)


def together() -> tuple[JointReference, NDArray[np.int64]]:
    """The tables of as many pairs and segments as a wide version has, and a window of sampled rows like the training rows."""
    rng = np.random.default_rng(3)
    names = [f"feature {at}" for at in range(JOINED)]
    spec = FeatureSpec(tuple(map(NumberColumn, names)), Take(tuple(names)))
    rows: dict[str, Any] = dict(zip(names, rng.normal(size=(JOINED, 20_000)), strict=True))
    score = rng.normal(size=20_000)
    baseline = with_predictions(fit_baseline(spec, rows), fit_number("score", score))
    baseline = with_joint(baseline, codes_of(spec, baseline, rows), score)
    reference = joint_reference_of(baseline)
    assert baseline.joint is not None
    assert reference is not None
    known = [20_000, *(count for one in baseline.joint.tables for count in one.counts)]
    return reference, np.array([rng.poisson(np.array(known) / 20) for _ in range(PARTS)])


def evaluate(reference: Reference, window: Counts) -> VersionDrift:
    """One evaluation of a version, as at a scrape."""
    return version_drift(
        "m",
        "1",
        ("champion",),
        reference=reference,
        window=window,
        rows=WINDOW_ROWS,
        window_rows=WINDOW_ROWS,
        rules=DriftRules(),
    )


def gauges_of(drift: VersionDrift) -> CollectorRegistry:
    """A registry of the drift gauges of one version."""
    registry = CollectorRegistry()
    registry.register(DriftCollector(lambda: [drift], SERIES))
    return registry


def scraping(repeats: int) -> dict[str, float]:
    """Milliseconds of the parts of a scrape of a wide version."""
    reference, window = wide()
    registry = gauges_of(evaluate(reference, window))
    joint, parts = together()
    return {
        "evaluate the pairs and segments of": median(
            _took_us(lambda: joint_drift(joint, parts, DriftRules()), 1) for _ in range(repeats)
        )
        / 1000,
        "evaluate": median(_took_us(lambda: evaluate(reference, window), 1) for _ in range(repeats)) / 1000,
        "render": median(_took_us(lambda: generate_latest(registry), 1) for _ in range(repeats)) / 1000,
    }


def _took_us(action: Callable[[], object], calls: int) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        action()
    return (time.perf_counter() - started) / calls * 1e6


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m bench.drift.cost")
    parser.add_argument("--repeats", type=int, default=60)
    repeats: int = parser.parse_args().repeats
    print("batch rows   pipeline us   with counting us   added")
    for rows in ROWS:
        plain, counted = counting(rows, repeats)
        print(f"{rows:10} {plain:13.2f} {counted:18.2f} {counted / plain - 1:7.1%}", flush=True)
    for what, took_ms in scraping(max(5, repeats // 4)).items():
        print(f"{what} {FEATURES} features: {took_ms:.2f} ms", flush=True)


if __name__ == "__main__":
    main()
