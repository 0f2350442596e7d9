"""Which features of the flights drift in which months: the picture in the README, from real rows.

    python -m bench.pictures.months .github/images/drift.svg

A baseline is fitted on January to March as training fits it; then the flights of each month go through the pipeline in
the order of time, counted in the pass as a server counts them, and are judged by the server's own rule.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from bench.pictures import heatmap
from penstock.tensors import join_bytes
from penstock_server.drift.evaluate import DriftRules, columns_drift
from penstock_server.drift.fit import fit_baseline
from penstock_server.drift.reference import reference_of
from penstock_server.drift.report import ColumnDrift
from penstock_server.features.counting import Counts, counts_of
from penstock_server.features.pipeline import Pipeline
from penstock_server.features.table import Table, numbers_of, row_count, strings_of
from penstock_tools.demo import flights
from penstock_tools.demo.flights import boosted_trees
from penstock_tools.demo.train import TRAINING_MONTHS
from penstock_tools.sklearn_compiler.compiler import compile_pipeline

if TYPE_CHECKING:
    import pandas as pd

MONTHS: Final = range(1, 13)
BATCH_ROWS: Final = 64
"""Rows of a batch, as a busy server forms them."""


@dataclass(frozen=True, slots=True)
class Month:
    """What is said of a month's flights.

    Attributes:
        number: 1 to 12.
        rows: its flights.
        columns: a record for each column.
    """

    number: int
    rows: int
    columns: tuple[ColumnDrift, ...]


def measure(frame: "pd.DataFrame", months: Sequence[int] = MONTHS) -> list[Month]:
    """Each month's drift from the training months.

    Args:
        frame: flights as `flights.load` gives them.
        months: those to measure.
    """
    training = flights.by_months(frame, TRAINING_MONTHS)
    transformers = boosted_trees().pipeline(training)[:-1].fit(training[list(flights.COLUMNS)])
    spec = compile_pipeline(transformers, training).features()
    baseline = fit_baseline(spec, flights.table(training))
    pipeline, reference = Pipeline(spec, baseline.cells_for(spec)), reference_of(baseline)
    found = []
    for month in months:
        counts = counted(pipeline, flights.table(flights.by_months(frame, [month])))
        columns, _ = columns_drift(reference, counts, DriftRules())
        found.append(Month(month, int(counts.rows[0]), columns))
    return found


def counted(pipeline: Pipeline, table: Table) -> Counts:
    """The counts of a table that goes through a pipeline batch by batch."""
    rows = row_count(table, pipeline.columns)
    numbers = np.empty((rows, len(pipeline.numbers)), np.float64)
    for at, name in enumerate(pipeline.numbers):
        numbers[:, at] = numbers_of(table, name)
    strings = [strings_of(table, name) for name in pipeline.strings]
    words: NDArray[np.int64] = np.zeros(pipeline.cells_shape, np.int64)
    for start in range(0, rows, BATCH_ROWS):
        size = min(BATCH_ROWS, rows - start)
        out = np.empty((size, pipeline.width), pipeline.dtype)
        texts = [join_bytes(column[start : start + size]) for column in strings]
        pipeline.run(numbers[start : start + size].tobytes(), texts, size, out, words)
    return counts_of(words)


def main() -> None:
    """Measures and draws."""
    (file,) = sys.argv[1:]
    months = measure(flights.load())
    Path(file).write_text(heatmap.drawing([(each.number, each.columns) for each in months], TRAINING_MONTHS))
    for each in months:
        drifted = [column.name for column in each.columns if column.drifted]
        sys.stdout.write(f"month {each.number}: {each.rows} flights, {len(drifted)} features drifted: {drifted}\n")


if __name__ == "__main__":
    main()
