"""Fits a drift baseline: counts the training rows, in the order of time, as serving will count requests.

The tools call it when they publish, for raw columns and for the model's predictions; serving never calls it.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from penstock_server.drift.baseline import (
    DISPERSION_BLOCKS,
    FINER,
    MAX_BINS,
    MAX_WATCHED,
    MOST_SCALES,
    Baseline,
    ClassBaseline,
    ColumnBaseline,
    NumberBaseline,
    PredictionBaseline,
    StringBaseline,
)
from penstock_server.drift.order import Change, RowOrder, row_order
from penstock_server.drift.repeats import RawColumn, repeated_share
from penstock_server.drift.significance import MINIMUM_EFFECT
from penstock_server.drift.statistics import ROWS_PER_CELL
from penstock_server.errors import InvalidInputError
from penstock_server.features.cells import ROUNDING, storable
from penstock_server.features.spec import limits
from penstock_server.features.spec.spec import Column, FeatureSpec, NumberColumn, StringColumn, TimeColumn, digest
from penstock_server.features.table import Table, numbers_of, row_count, seconds_of, strings_of, times_of

BINS: Final = 20
"""The bins of a number column, where there are rows enough."""
FEWEST_BINS: Final = 4
"""Where there are fewer rows, a column is not judged: fewer bins would show little."""
OWN_BINS: Final = 50
"""The most values of a string column that have a bin each."""
FREE_TEXTS: Final = 100
"""A column with fewer texts that are there once may be of categories."""
LEAST_ROWS: Final = 10
"""A block of fewer rows says nothing about time."""
LEAST_STRETCH: Final = 50
"""The rows of the shortest blocks; alarms look at slices of a hundred."""


def fit_baseline(
    spec: FeatureSpec,
    table: Table,
    bins: int | None = None,
    *,
    minimum_effect: float = MINIMUM_EFFECT,
    time: str | None = None,
) -> Baseline:
    """The baseline of the training rows in `table`.

    Args:
        spec: the specification that serves them.
        table: a column for each of the specification's, raw, with its rows in the order of time: how alike successive
            rows are decides how large a difference is no drift.
        bins: the most bins per number column, cut at its quantiles; None for 20, and for fewer where there are so few rows
            that a column of 20 would never be judged.
        minimum_effect: the population stability index that is still no drift, for every column.
        time: the column that the rows were ordered by, which the specification need not have; None where that is not known.

    Raises:
        InvalidInputError: a column is missing or not of its kind, or `bins` is not 1 to 254.
    """
    if bins is not None and not 1 <= bins <= MAX_BINS - 2:
        raise InvalidInputError(f"bins is {bins}, expected 1 to {MAX_BINS - 2}")
    if not minimum_effect >= 0:
        raise InvalidInputError(f"minimum_effect is {minimum_effect}, expected 0 or more")
    rows = row_count(table, [column.name for column in spec.columns])
    raw = {column.name: _raw(table, column) for column in spec.columns}
    times = [column.name for column in spec.columns if isinstance(column, TimeColumn)]
    fitted = tuple(_fitted(name, values, bins, minimum_effect) for name, values in raw.items())
    order = RowOrder("time", (time,)) if time else row_order(raw, times, [_change(column, rows) for column in fitted])
    return Baseline(
        fitted, digest(spec), repeats=repeated_share([*raw.values()]), order=order.order, ordered_by=order.columns
    )


def _raw(table: Table, column: Column) -> RawColumn:
    match column:
        case NumberColumn():
            return numbers_of(table, column.name)
        case TimeColumn():
            return times_of(table, column.name)
        case StringColumn():
            return strings_of(table, column.name)


def _fitted(name: str, values: RawColumn, bins: int | None, minimum_effect: float) -> ColumnBaseline:
    if isinstance(values, list):
        return fit_string(name, values, minimum_effect)
    # Of a time its seconds are counted.
    numbers = seconds_of(np.asarray(values, np.int64)) if values.dtype.kind == "i" else np.asarray(values, np.float64)
    return fit_number(name, numbers, bins, minimum_effect)


def _change(column: ColumnBaseline, rows: int) -> Change:
    kinds = sum(count > 0 for count in (*column.bins, *column.extra))
    return Change(column.dispersion, max(_blocks(rows) - 1, 0) * max(kinds - 1, 0))


def with_predictions(baseline: Baseline, predictions: PredictionBaseline) -> Baseline:
    """The baseline, with that of the model's predictions for the same rows."""
    return msgspec.structs.replace(baseline, predictions=predictions)


def fit_classes(
    name: str, labels: ArrayLike, names: Sequence[str] = (), *, minimum_effect: float = MINIMUM_EFFECT
) -> ClassBaseline:
    """The baseline of predicted classes.

    Args:
        name: the output that holds them.
        labels: integers [rows], the rows in the order of time.
        names: each label's name, if labels are indices; a label beyond them is named by its number.
        minimum_effect: the population stability index that is still no drift.
    """
    values = np.asarray(labels, np.int64).reshape(-1)
    classes, codes, counts = np.unique(values, return_inverse=True, return_counts=True)
    kept = np.sort(np.argsort(-counts, kind="stable")[:MAX_BINS])
    shown = [names[at] if 0 <= at < len(names) else str(at) for at in classes[kept].tolist()]
    return ClassBaseline(
        name,
        tuple(classes[kept].tolist()),
        tuple(counts[kept].tolist()),
        tuple(shown),
        dispersion(codes.astype(np.int64)),
        minimum_effect,
        finer_dispersions(codes.astype(np.int64)),
    )


def fit_number(
    name: str, values: NDArray[np.float64], bins: int | None = None, minimum_effect: float = MINIMUM_EFFECT
) -> NumberBaseline:
    """The baseline of numbers, float64 [rows] in the order of time: a raw column, or a model's output."""
    is_finite = np.isfinite(values)
    finite = values[is_finite]
    edges = _edges(finite, _number_bins(values) if bins is None else bins)
    cells = np.searchsorted(edges, values, side="right")
    cells[~is_finite] = len(edges) + 1 + np.isinf(values[~is_finite])
    counts = np.bincount(cells, minlength=len(edges) + 3).tolist()
    with np.errstate(over="ignore", invalid="ignore"):
        sums = np.bincount(cells[is_finite], finite, minlength=len(edges) + 1).tolist()
        deviation = float(finite.std()) if len(finite) else 0.0
    return NumberBaseline(
        name,
        tuple(edges.tolist()),
        tuple(counts[: len(edges) + 1]),
        tuple(map(storable, sums)),
        missing=counts[-2],
        infinite=counts[-1],
        smallest=float(finite.min()) if len(finite) else None,
        largest=float(finite.max()) if len(finite) else None,
        deviation=storable(deviation),
        dispersion=dispersion(cells),
        minimum_effect=minimum_effect,
        finer=finer_dispersions(cells),
    )


def _number_bins(values: NDArray[np.float64]) -> int:
    """20 bins, or as many as there are rows to judge, beside the missing, the infinite, and a cell not known yet."""
    beside = 1 + bool(np.isnan(values).any()) + bool(np.isinf(values).any())
    return min(BINS, max(FEWEST_BINS, len(values) // ROWS_PER_CELL - beside))


def _edges(finite: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """Edges just below the quantiles, and just above a value that several quantiles fall on: it has a bin of its own."""
    if not len(finite):
        return np.empty(0)
    shares = np.linspace(0, 1, bins + 1)[1:-1]
    quantiles, times = np.unique(np.quantile(finite, shares, method="inverted_cdf"), return_counts=True)
    margin = ROUNDING * np.abs(quantiles)
    with np.errstate(over="ignore"):
        above = np.nextafter((quantiles + margin)[times > 1], np.inf)
        edges: NDArray[np.float64] = np.unique(np.concatenate([quantiles - margin, above]))
    return edges[np.isfinite(edges)]


def fit_string(name: str, values: list[bytes], minimum_effect: float = MINIMUM_EFFECT) -> StringBaseline:
    """The baseline of strings as UTF-8, in the order of time; the empty one is missing.

    Of free text only what is there more than once is watched.
    """
    counted = Counter(values)
    missing = counted.pop(b"", 0)
    own_bins = _own_bins(len(values), len(counted), has_missing=missing > 0)
    least = 2 if _is_free_text(counted) else 1
    known = (value for value, count in counted.items() if count >= least and _is_watchable(value))
    frequent = sorted(known, key=lambda value: (-counted[value], value))
    watched = frequent[:MAX_WATCHED]
    counts = [counted[value] for value in watched]
    places = {value: min(cell, own_bins) for cell, value in enumerate(watched)} | {b"": own_bins + 1}
    cells = np.array([places.get(value, own_bins + 2) for value in values], np.int64)
    return StringBaseline(
        name,
        tuple(value.decode() for value in watched),
        tuple(counts[:own_bins]),
        other=sum(counts[own_bins:]),
        missing=missing,
        unseen=counted.total() - sum(counts),
        dispersion=dispersion(cells),
        minimum_effect=minimum_effect,
        finer=finer_dispersions(cells),
    )


def _own_bins(rows: int, values: int, *, has_missing: bool) -> int:
    """50 bins, or as many as there are rows to judge, beside the missing, the other values, and a cell not known yet."""
    beside = 1 + has_missing
    enough = rows // ROWS_PER_CELL - beside
    return OWN_BINS if values <= enough else min(OWN_BINS, max(FEWEST_BINS, enough) - 1)


def _is_free_text(counted: Counter[bytes]) -> bool:
    """Whether most rows hold a text that no other has.

    Serving will see new ones all the time, which is no drift. So such texts count as unseen from the beginning.
    """
    alone = sum(count == 1 for count in counted.values())
    return alone >= FREE_TEXTS and 2 * alone > counted.total()


def _is_watchable(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return len(value) <= limits.MAX_CATEGORY_BYTES


def dispersion(cells: NDArray[np.int64], blocks: int | None = None) -> float:
    """The factor by which the counts' variance exceeds a multinomial's, at least 1: how much more they vary in time.

    Traffic comes in bursts: successive rows are alike, and a window of N rows says less than N independent ones. The rows
    are cut into equal blocks in the order of time. For independent rows, Pearson's statistic of the blocks' counts against
    their common shares is its degrees of freedom on average; this is the ratio of the two. Changes from block to block
    within the training rows, such as a season, therefore count as no drift. Shuffled rows have 1.

    Args:
        cells: int64 [rows], the cell that each row falls in, in the order of time.
        blocks: how many; None for 20, and for fewer where there are few rows.
    """
    blocks = _blocks(len(cells)) if blocks is None else blocks
    if blocks < 2:
        return 1.0
    _, codes = np.unique(cells, return_inverse=True)
    kinds = int(codes.max()) + 1
    if kinds < 2:
        return 1.0
    block = np.arange(len(cells)) * blocks // len(cells)
    counts = np.bincount(block * kinds + codes, minlength=blocks * kinds).reshape(blocks, kinds)
    expected = counts.sum(axis=1, keepdims=True) * counts.sum(axis=0) / len(cells)
    statistic = float(((counts - expected) ** 2 / expected).sum())
    return max(1.0, statistic / ((blocks - 1) * (kinds - 1)))


def finer_dispersions(cells: NDArray[np.int64]) -> tuple[float, ...]:
    """The `dispersion` over blocks a quarter as long, a sixteenth, and so on, down to those of 50 rows.

    Short stretches vary more, in proportion to their length, than long ones: a storm is over before a block is.
    """
    found: list[float] = []
    blocks = DISPERSION_BLOCKS * FINER
    while len(cells) >= LEAST_STRETCH * blocks and len(found) < MOST_SCALES:
        found.append(dispersion(cells, blocks))
        blocks *= FINER
    return tuple(found)


def _blocks(rows: int) -> int:
    return min(DISPERSION_BLOCKS, rows // LEAST_ROWS)
