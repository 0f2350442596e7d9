"""Says what drift of a version will be watched, how well, and what is odd about the sample that it is measured against.

A column in which hardly any drift would be seen must not pass for one that does not drift. Whoever publishes can still mend
the sample: take more rows, sort them, or leave a column out.
"""

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.drift.baseline import Baseline, StringBaseline
from penstock_server.drift.power import smallest_detectable
from penstock_server.drift.reference import Reference, reference_of
from penstock_server.drift.statistics import ROWS_PER_CELL, rows_needed
from penstock_server.features.counting import EXTRA_CELLS, UNSEEN
from penstock_server.settings import DriftSettings

LATE: Final = 0.5
"""A column whose drift is seen from this index on only is told of: 0.25 is a large change by custom."""
NAMED: Final = 8
"""The columns that are told of one by one."""
_CLUMPED: Final = 2.0
_WINDOW_ROWS: Final = DriftSettings().window_rows


def sentences(baseline: Baseline, window_rows: int = _WINDOW_ROWS) -> list[str]:
    """What people should know of a baseline, in sentences: how many columns it watches, which of them badly, and of its order.

    Args:
        baseline: of the version that is published.
        window_rows: the rows that a server compares with it.
    """
    reference = reference_of(baseline)
    most_rows = int(reference.cells.sum(axis=1).max(initial=0))
    if most_rows < 4 * ROWS_PER_CELL:
        return [
            f"no drift is ever judged: the sample has {most_rows} rows, and takes some hundreds; give more of the training rows"
        ]
    smallest = smallest_detectable(reference.cells, window_rows, reference.minimum_effect, reference.dispersion)
    late = np.flatnonzero(smallest > LATE)
    names = _called(reference)
    shown = [
        f"{names[at]} {_why(baseline, reference, int(at), float(smallest[at]), window_rows)}" for at in late[:NAMED]
    ]
    more = [f"and of {len(late) - NAMED} more columns"] if len(late) > NAMED else []
    first = [_watched(baseline, window_rows, len(late)), *_holdout_sentences(reference)]
    return [*first, *shown, *more, *order_sentences(baseline)]


def _holdout_sentences(reference: Reference) -> Iterator[str]:
    """What a hold-out gives."""
    if reference.holdout is not None:
        at, holdout = reference.holdout
        rows = int(reference.cells[at, :-EXTRA_CELLS].sum())
        yield (
            f"of the {rows:,} rows of the hold-out {sum(holdout.correct) / rows:.1%} are right; servers tell what share they "
            "expect of later rows, which holds if the relation between features and truth does"
        )


def _watched(baseline: Baseline, window_rows: int, late: int) -> str:
    columns = len(baseline.columns)
    answers = [
        *([] if baseline.predictions is None else ["the predictions"]),
        *(each.name for each in baseline.answers),
    ]
    *first, last = [f"of {each}" for each in (f"{columns} column{'s' * (columns != 1)}", *answers)]
    what = f"drift {', '.join(first)} and {last}" if first else f"drift {last}"
    badly = f"; of {late} of them it is seen late or never" if late else ""
    return f"{what} is watched, in windows of {window_rows:,} rows{badly}"


def _called(reference: Reference) -> list[str]:
    """What the columns are called in a sentence."""
    columns, answers = reference.names[: reference.columns], reference.names[reference.columns :]
    called = [f"the model's output {name!r}" for name in answers]
    if reference.has_predictions:
        called[0] = "the model's output"
    return [*(f"column {name!r}" for name in columns), *called]


def _why(baseline: Baseline, reference: Reference, at: int, smallest: float, window_rows: int) -> str:
    """What is seen of a column, and why no more."""
    if np.isfinite(smallest):
        return f"drifts from a PSI of {smallest:.2g} on: {_why_late(reference, at, window_rows)}"
    cells = reference.cells[at]
    there = int((cells > 0).sum())
    if there == 1 and not cells[:-EXTRA_CELLS].any():
        return f"never drifts: {_nothing(baseline, at, cells)}"
    if there == 1:
        return "drifts only when other values come: the sample has one"
    rows, needed = int(cells.sum()), int(rows_needed(cells, cells))
    if rows < needed:
        return f"is never judged: its {there} cells take {needed:,} rows of the sample, which has {rows:,}"
    return f"is never judged: its {there} cells take windows of {needed:,} rows"


def _why_late(reference: Reference, at: int, window_rows: int) -> str:
    tolerated, dispersion = float(reference.minimum_effect[at]), float(reference.dispersion[at])
    rows = min(int(reference.cells[at].sum()), window_rows)
    if tolerated > LATE / 2:
        return f"{tolerated:g} is tolerated"
    if dispersion < _CLUMPED:
        return f"{rows:,} rows are compared"
    fewer = max(1, round(rows / dispersion))
    return f"it changes so much along the sample that {rows:,} rows say as much as {fewer:,} would of unrelated ones"


def _nothing(baseline: Baseline, at: int, cells: NDArray[np.int64]) -> str:
    column = baseline.columns[at] if at < len(baseline.columns) else None
    if isinstance(column, StringBaseline) and cells[-EXTRA_CELLS:][UNSEEN]:
        return "no text of it comes again in the sample"
    return "it has no value in the sample"


def order_sentences(baseline: Baseline) -> Iterator[str]:
    """What is odd about the order of the sample; none if nothing is."""
    if baseline.order == "shuffled":
        yield (
            "the sample looks shuffled: no column changes along its rows. So a server cannot know how much the traffic changes "
            "from day to day, and may call that drift; sort the rows by time, or name a column of times with --time COLUMN"
        )
    if baseline.order == "sorted":
        by = " and ".join(map(repr, baseline.ordered_by[:3]))
        yield (
            f"the sample is in the order of {by}. If that is not time, a server takes what changes with it for changes in "
            f"time, and misses drift as large; --time COLUMN puts the rows in the order of time, "
            f"and --time {baseline.ordered_by[0]} says that they are"
        )
