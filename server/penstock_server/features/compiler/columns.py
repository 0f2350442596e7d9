"""The columns of a matrix while its program is written: values in registers, or maps from a value's codes.

A map stays a map until a step needs the numbers. So a map of a map becomes one map, and a map that is last writes its
outputs without a register. `lower` and `lower_steps` make them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from penstock_server.features.compiler import layout
from penstock_server.features.compiler.instructions import Draft, Entry, Value


@dataclass(eq=False, slots=True)
class OneHotColumns:
    """Columns of zeros and at most one 1 per row: for each code 0 to K of `source` the column of the 1, -1 for none."""

    source: Value
    places: NDArray[np.int64]
    width: int
    made: tuple[Value, ...] | None = field(default=None, repr=False)

    def make(self, draft: Draft) -> tuple[Value, ...]:
        """Its columns as values; the instruction that makes them is appended once."""
        if self.made is None:
            self.made = draft.new(self.width)
            words = (self.width, len(self.places) - 1, draft.put(self.places))
            draft.append(layout.ONE_HOT, [Entry((self.source,), self.made, words)])
        return self.made

    def write(self, draft: Draft, columns: Sequence[int], output: int) -> None:
        """Writes some of its columns, each once, to outputs side by side from `output` on."""
        where = np.full(self.width + 1, -1)
        where[np.asarray(columns)] = np.arange(len(columns))
        words = (output, len(self.places) - 1, draft.put(where[self.places]))
        draft.append(layout.ONE_HOT_OUT, [Entry((self.source,), (), words)])


@dataclass(eq=False, slots=True)
class LookupColumns:
    """Columns of numbers: `numbers` [K + 1, m] has those of each code 0 to K of `source`."""

    source: Value
    numbers: NDArray[np.float64]
    made: tuple[Value, ...] | None = field(default=None, repr=False)

    def make(self, draft: Draft) -> tuple[Value, ...]:
        """Its columns as values; the instruction that makes them is appended once."""
        if self.made is None:
            count, width = self.numbers.shape
            self.made = draft.new(width)
            words = (width, count - 1, draft.put_reals(self.numbers))
            draft.append(layout.LOOKUP, [Entry((self.source,), self.made, words)])
        return self.made

    def write(self, draft: Draft, columns: Sequence[int], output: int) -> None:
        """Writes some of its columns to outputs side by side from `output` on."""
        words = (output, len(columns), len(self.numbers) - 1, draft.put_reals(self.numbers[:, columns]))
        draft.append(layout.LOOKUP_OUT, [Entry((self.source,), (), words)])


class ColumnGroup(Protocol):
    """Columns that need no registers where they are outputs."""

    def make(self, draft: Draft) -> tuple[Value, ...]:
        """Its columns as values; the instruction that makes them is appended once."""

    def write(self, draft: Draft, columns: Sequence[int], output: int) -> None:
        """Writes some of its columns, each once, to outputs side by side from `output` on."""


@dataclass(frozen=True, slots=True)
class CodedColumn:
    """One column of a group: its values follow from codes, or from the grams of a text."""

    group: ColumnGroup
    at: int


MatrixColumn = Value | CodedColumn


def values_of(draft: Draft, columns: Sequence[MatrixColumn]) -> list[Value]:
    return [column.group.make(draft)[column.at] if isinstance(column, CodedColumn) else column for column in columns]


def write_outputs(draft: Draft, columns: Sequence[MatrixColumn], first: int) -> None:
    """Writes the columns to the outputs from `first` on."""
    stores = []
    at = 0
    while at < len(columns):
        column = columns[at]
        if isinstance(column, CodedColumn):
            run = _run(columns, at)
            column.group.write(draft, run, first + at)
            at += len(run)
        else:
            stores.append(Entry((column,), (), (first + at,)))
            at += 1
    draft.append(layout.STORE, stores)


def _run(columns: Sequence[MatrixColumn], first: int) -> list[int]:
    """The columns of one group that are side by side from `first` on, up to the first repeated one."""
    start = columns[first]
    run: dict[int, None] = {}
    for column in columns[first:]:
        if not (isinstance(column, CodedColumn) and isinstance(start, CodedColumn) and column.group is start.group):
            break
        if column.at in run:
            break
        run[column.at] = None
    return list(run)


def codes_of(values: NDArray[np.float64], unseen: int) -> NDArray[np.int64]:
    """Numbers as the codes 0 to `unseen` that the kernels take them for."""
    is_code = (values >= 0) & (values <= unseen) & (values == np.floor(values))
    return np.where(is_code, values, unseen).astype(np.int64)
