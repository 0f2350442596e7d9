"""`python -m bench.pictures.months OUT.svg`: which features of the flights drift in which months, for the README.

The baseline is fitted on January to March, as the demo fits it. Then the flights of each month go through a pipeline in
the order of time, counted in the pass as a server counts them, and are judged by the server's own rule.
"""

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from bench.pictures import heatmap
from penstock.tensors import join_bytes
from penstock_server.drift.evaluate import columns_drift
from penstock_server.drift.fit import fit_baseline
from penstock_server.drift.reference import reference_of
from penstock_server.drift.report import ColumnDrift, DriftRules
from penstock_server.features.counting import Counts, counts_of
from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec.encoders import Hash
from penstock_server.features.spec.spec import Column, FeatureSpec, Join, NumberColumn, StringColumn, Take, Text
from penstock_server.features.table import Table, numbers_of, row_count, strings_of
from penstock_tools.demo import flights
from penstock_tools.demo.train import TRAINING_MONTHS

if TYPE_CHECKING:
    import pandas as pd

MONTHS: Final = range(1, 13)
BATCH_ROWS: Final = 64
"""Rows per batch, as on a busy server."""


@dataclass(frozen=True, slots=True)
class MonthDrift:
    """The drift of one month's flights.

    Attributes:
        number: of the month, 1 to 12.
        rows: how many flights it had.
        columns: one record per column.
    """

    number: int
    rows: int
    columns: tuple[ColumnDrift, ...]


def specification() -> FeatureSpec:
    """The flights' raw columns; drift is counted on these, not on a model's features."""
    columns: tuple[Column, ...] = (*map(StringColumn, flights.STRINGS), *map(NumberColumn, flights.NUMBERS))
    return FeatureSpec(columns, Join((*(Text(name, Hash(8)) for name in flights.STRINGS), Take(flights.NUMBERS))))


def measure(frame: "pd.DataFrame", months: Sequence[int] = MONTHS) -> list[MonthDrift]:
    """Each month's drift from the training months.

    Args:
        frame: flights, from `flights.load`.
        months: those to measure.
    """
    spec = specification()
    baseline = fit_baseline(spec, flights.table(flights.by_months(frame, TRAINING_MONTHS)))
    pipeline, reference = Pipeline(spec, baseline.cells_for(spec)), reference_of(baseline)
    found = []
    for month in months:
        counts = counted(pipeline, flights.table(flights.by_months(frame, [month])))
        columns, _ = columns_drift(reference, counts, DriftRules())
        found.append(MonthDrift(month, int(counts.rows[0]), columns))
    return found


def counted(pipeline: Pipeline, table: Table) -> Counts:
    """The counts of a table that goes through a pipeline batch by batch."""
    rows = row_count(table, pipeline.columns)
    numbers = np.empty((rows, len(pipeline.numbers)), np.float64)
    for at, name in enumerate(pipeline.numbers):
        numbers[:, at] = numbers_of(table, name)
    strings = [strings_of(table, name) for name in pipeline.strings]
    cells: NDArray[np.int64] = np.zeros(pipeline.cells_shape, np.int64)
    for start in range(0, rows, BATCH_ROWS):
        size = min(BATCH_ROWS, rows - start)
        out = np.empty((size, pipeline.width), pipeline.dtype)
        texts = [join_bytes(column[start : start + size]) for column in strings]
        pipeline.run(numbers[start : start + size].tobytes(), texts, size, out, cells)
    return counts_of(cells)


def main(arguments: Iterable[str] | None = None) -> None:
    """Measures and draws."""
    parser = argparse.ArgumentParser(prog="python -m bench.pictures.months")
    parser.add_argument("out", type=Path, metavar="OUT.svg")
    options = parser.parse_args(None if arguments is None else list(arguments))
    months = measure(flights.load())
    options.out.write_text(heatmap.drawing([(each.number, each.columns) for each in months], TRAINING_MONTHS))
    for each in months:
        drifted = [column.name for column in each.columns if column.drifted]
        print(f"month {each.number}: {each.rows} flights, {len(drifted)} features drifted: {drifted}")


if __name__ == "__main__":
    main()
