"""The drift baseline: how the training data lay in the cells that serving counts rows in.

Fitted beside a specification and published with it. This module holds the file's form and what is refused, and
`baseline_fit` counts the rows of a column; the kernels count in the same cells, and `observe.drift` compares counts.

A number's bin is how many edges are <= x (`numpy.searchsorted(edges, x, side="right")`), of the raw value before any
step. A string's bins are the most frequent values of training, and one for the other values that training saw.
"""

from typing import Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from penstock_server.drift.fit import fit_number, fit_string
from penstock_server.errors import InvalidInputError
from penstock_server.features import layout_counts
from penstock_server.features.baseline_columns import (
    MAX_BINS,
    MINIMUM_EFFECT,
    ColumnBaseline,
    NumberBaseline,
    PredictionBaseline,
    StringBaseline,
)
from penstock_server.features.spec import limits
from penstock_server.features.spec.spec import (
    Column,
    FeatureSpec,
    NumberColumn,
    StringColumn,
    digest,
    read_format,
)
from penstock_server.features.table import Table, numbers_of, row_count, strings_of

FORMAT: Final = 2
MAX_WORDS: Final = 1 << 19
"""The 64-bit words of one set of counts, 4 MiB; every worker holds eleven of them in shared memory."""


class Baseline(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The baselines of a specification's columns, in its order.

    Attributes:
        columns: one for each column of the specification.
        spec_digest: of the specification.
        predictions: of what the model answered to the training rows; None where nobody asked it.
        format: the format's version.
    """

    columns: tuple[ColumnBaseline, ...]
    spec_digest: str
    predictions: PredictionBaseline | None = None
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ValueError(f"format {self.format} is unknown, expected {FORMAT}")
        limits.at_most("columns", len(self.columns), limits.MAX_COLUMNS)
        limits.at_most("words of counts", (len(self.columns) + 1) * self.cells_shape[1], MAX_WORDS)

    @property
    def bins(self) -> int:
        """B: the bins of the column, or of the predictions, with most of them."""
        watched = (*self.columns, *(() if self.predictions is None else (self.predictions,)))
        return max((len(column.bins) for column in watched), default=0)

    @property
    def cells_shape(self) -> tuple[int, int]:
        """The shape of its columns' counts, int64: columns, and words as `layout_counts` lays them out."""
        return len(self.columns), layout_counts.words(self.bins)

    @property
    def reference(self) -> NDArray[np.int64]:
        """The training rows in each cell of each column, int64 [columns, B + 3]."""
        cells = np.zeros((len(self.columns), self.bins + layout_counts.EXTRA_CELLS), np.int64)
        for row, column in zip(cells, self.columns, strict=True):
            row[: len(column.bins)] = column.bins
            row[-layout_counts.EXTRA_CELLS :] = column.extra
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
    """Demands that the baseline is of this specification: its digest, and its columns.

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


_KINDS: Final[dict[type[Column], type[ColumnBaseline]]] = {NumberColumn: NumberBaseline, StringColumn: StringBaseline}


def fit_baseline(
    spec: FeatureSpec, table: Table, bins: int = 20, *, minimum_effect: float = MINIMUM_EFFECT
) -> Baseline:
    """The baseline of the training rows in `table`.

    Args:
        spec: the specification that serves them.
        table: a column for each of the specification's, raw; its rows in the order of time, as they would be served: how
            much rows that follow each other are alike decides how large a difference is no drift.
        bins: how many bins a number's quantiles make at most.
        minimum_effect: the population stability index that is called no drift, for every column.

    Raises:
        InvalidInputError: a column is not there or not of its kind, or `bins` is not 1 to 254.
    """
    if not 1 <= bins <= MAX_BINS - 2:
        raise InvalidInputError(f"bins is {bins}, expected 1 to {MAX_BINS - 2}")
    if not minimum_effect >= 0:
        raise InvalidInputError(f"minimum_effect is {minimum_effect}, expected 0 or more")
    row_count(table, [column.name for column in spec.columns])
    fitted = (
        fit_number(column.name, numbers_of(table, column.name), bins, minimum_effect)
        if isinstance(column, NumberColumn)
        else fit_string(column.name, strings_of(table, column.name), minimum_effect)
        for column in spec.columns
    )
    return Baseline(tuple(fitted), digest(spec))


def with_predictions(baseline: Baseline, predictions: PredictionBaseline) -> Baseline:
    """The baseline, with what the model answered to its rows."""
    return msgspec.structs.replace(baseline, predictions=predictions)
