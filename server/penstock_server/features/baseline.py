"""The drift baseline: how the training data lay in the cells that serving counts rows in.

Fitted beside a specification and published with it. This module decides the cells; the kernels count in them, and
`observe.drift` compares counts. Cells are int64 [columns, C], a row for each column in the specification's order: first
its bins, then zeros up to the last three, which count the missing, the infinite and the unseen.

A number's bin is how many edges are <= x (`numpy.searchsorted(edges, x, side="right")`), of the raw value before any
step. A string's bins are the most frequent categories in `codes`, and one for the other categories.
"""

from collections import Counter
from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from penstock_server.errors import InvalidInputError
from penstock_server.features import layout, limits
from penstock_server.features.baseline_columns import ColumnBaseline, NumberBaseline, StringBaseline
from penstock_server.features.spec import Column, FeatureSpec, NumberColumn, StringColumn, digest, read_format
from penstock_server.features.table import Table, numbers_of, row_count, strings_of

FORMAT: Final = 1
MAX_CODES: Final = 50
"""The categories that are watched one by one."""

# Wider than float32 rounds, so that a value on an edge falls in the same bin whether it is sent as FP32 or FP64.
_ROUNDING = 1e-6


class Baseline(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The baselines of a specification's columns, in its order.

    Attributes:
        columns: one for each column of the specification.
        spec_digest: of the specification that the codes belong to.
        format: the format's version.
    """

    columns: tuple[ColumnBaseline, ...]
    spec_digest: str
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ValueError(f"format {self.format} is unknown, expected {FORMAT}")
        limits.at_most("columns", len(self.columns), limits.MAX_COLUMNS)

    @property
    def cells_shape(self) -> tuple[int, int]:
        """The shape of its counts: columns, and the cells of the one with most."""
        return len(self.columns), max((len(c.bins) for c in self.columns), default=0) + layout.EXTRA_CELLS

    @property
    def reference(self) -> NDArray[np.int64]:
        """The training rows in each cell, int64 [columns, C]."""
        cells = np.zeros(self.cells_shape, np.int64)
        for row, column in zip(cells, self.columns, strict=True):
            row[: len(column.bins)] = column.bins
            row[-layout.EXTRA_CELLS :] = column.extra
        return cells


def encode(baseline: Baseline) -> bytes:
    """The baseline as JSON."""
    return msgspec.json.encode(baseline)


def decode(data: bytes) -> Baseline:
    """The baseline that `data`, JSON from anywhere, holds; `check` whether it fits its specification.

    Raises:
        InvalidInputError: not JSON, another format, or not sound; it names the column.
    """
    try:
        limits.at_most("bytes", len(data), limits.MAX_BYTES)
        read_format(data, FORMAT)
        return msgspec.json.decode(data, type=Baseline)
    except (ValueError, RecursionError) as error:
        raise limits.failure("drift baseline", error, data) from error


def check(baseline: Baseline, spec: FeatureSpec) -> None:
    """Demands that the baseline is of this specification: its digest, its columns, its codes.

    Raises:
        InvalidInputError: it is another's, and the sentence names what differs.
    """
    if baseline.spec_digest != digest(spec):
        raise InvalidInputError(
            f"the drift baseline is of the feature specification {baseline.spec_digest}, expected {digest(spec)}"
        )
    expected = [(column.name, _KINDS[type(column)]) for column in spec.columns]
    found = [(column.name, type(column)) for column in baseline.columns]
    if found != expected:
        names = ", ".join(column.name for column in spec.columns)
        raise InvalidInputError(f"the drift baseline has other columns than the specification, expected {names}")
    for column, known in zip(baseline.columns, spec.columns, strict=True):
        if isinstance(column, StringBaseline) and isinstance(known, StringColumn):
            _check_codes(column, len(known.categories))


def _check_codes(column: StringBaseline, categories: int) -> None:
    wrong = [code for code in column.codes if code >= categories]
    if wrong:
        raise InvalidInputError(
            f"the drift baseline's column {column.name!r} has the code {wrong[0]}, expected below {categories}"
        )


_KINDS: Final[dict[type[Column], type[ColumnBaseline]]] = {NumberColumn: NumberBaseline, StringColumn: StringBaseline}


def fit_baseline(spec: FeatureSpec, table: Table, bins: int = 20) -> Baseline:
    """The baseline of the training rows in `table`.

    Args:
        spec: the specification that serves them.
        table: a column for each of the specification's, raw.
        bins: how many bins a number's quantiles make at most.

    Raises:
        InvalidInputError: a column is not there or not of its kind.
    """
    row_count(table, [column.name for column in spec.columns])
    fitted = (
        _fit_number(column.name, numbers_of(table, column.name), bins)
        if isinstance(column, NumberColumn)
        else _fit_string(column, strings_of(table, column.name))
        for column in spec.columns
    )
    return Baseline(tuple(fitted), digest(spec))


def _fit_number(name: str, values: NDArray[np.float64], bins: int) -> NumberBaseline:
    finite = values[np.isfinite(values)]
    edges = _edges(finite, bins)
    counts = np.bincount(np.searchsorted(edges, finite, side="right"), minlength=len(edges) + 1)
    missing = int(np.isnan(values).sum())
    return NumberBaseline(name, tuple(edges), tuple(counts.tolist()), missing, len(values) - len(finite) - missing)


def _edges(finite: NDArray[np.float64], bins: int) -> NDArray[np.float64]:
    """Edges just below the quantiles, and just above a value that several quantiles fall on: it has a bin of its own."""
    if not len(finite):
        return np.empty(0)
    shares = np.linspace(0, 1, bins + 1)[1:-1]
    quantiles, times = np.unique(np.quantile(finite, shares, method="inverted_cdf"), return_counts=True)
    margin = _ROUNDING * np.abs(quantiles)
    with np.errstate(over="ignore"):
        above = np.nextafter((quantiles + margin)[times > 1], np.inf)
        edges: NDArray[np.float64] = np.unique(np.concatenate([quantiles - margin, above]))
    return edges[np.isfinite(edges)]


def _fit_string(column: StringColumn, values: list[bytes]) -> StringBaseline:
    codes = {category.encode(): code for code, category in enumerate(column.categories)}
    counted = Counter(values)
    missing = counted.pop(b"", 0)
    seen = Counter({codes[value]: count for value, count in counted.items() if value in codes})
    kept = sorted(seen, key=lambda code: (-seen[code], code))[:MAX_CODES]
    counts = tuple(seen[code] for code in kept)
    other = seen.total() - sum(counts)
    return StringBaseline(column.name, tuple(kept), counts, other, missing, counted.total() - seen.total())
