"""The cells that rows are counted in: the part of a drift baseline that counting needs.

`drift.baseline` provides them, without the training counts; the compiler and the kernels count by them. The bin of a
number is how many edges are <= x (`numpy.searchsorted(edges, x, side="right")`), for the raw value before any step. A
string's bins are the first watched values, and one for all other watched values.
"""

from dataclasses import dataclass
from math import isnan
from sys import float_info
from typing import Final

ROUNDING: Final = 1e-6
"""Larger than float32's rounding, so that a value on an edge falls in the same bin as FP32 and as FP64."""


@dataclass(frozen=True, slots=True)
class NumberCells:
    """The cells of a number column, or of a model's output.

    Attributes:
        edges: finite and increasing; `len(edges) + 1` bins, of which the end ones are open.
        smallest, largest: of the finite training rows; None where there were none.
        has_missing: training saw missing values.
    """

    edges: tuple[float, ...]
    smallest: float | None = None
    largest: float | None = None
    has_missing: bool = False

    @property
    def range(self) -> tuple[float, float]:
        """The smallest and the largest training value, widened by float32's rounding; both are finite."""
        if self.smallest is None or self.largest is None:
            return -float_info.max, float_info.max
        low, high = self.smallest, self.largest
        return storable(low - ROUNDING * abs(low)), storable(high + ROUNDING * abs(high))


@dataclass(frozen=True, slots=True)
class StringCells:
    """The cells of a string column.

    Attributes:
        watched: the training values, without the empty string, which is missing.
        binned: how many of the first values have a bin each; the others share the next bin.
        has_missing: training saw missing values.
    """

    watched: tuple[str, ...]
    binned: int
    has_missing: bool = False


@dataclass(frozen=True, slots=True)
class ClassCells:
    """The cells of a model's classes, one bin per label."""

    labels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class AnswerCells:
    """What is counted of a model's answers: its class, or a number of each row.

    Attributes:
        cells: to count it in.
        output: the output of which the largest number of each row is counted; None for what `prediction.outputs` calls the
            version's class or its score.
    """

    cells: NumberCells | ClassCells
    output: str | None = None


@dataclass(frozen=True, slots=True)
class Grouping:
    """The groups that the cells of a column, or of the predictions, are joined to.

    Attributes:
        column: its name; "" for the predictions.
        cells: its own cells.
        group_of: for each of its bins, and then for missing, infinite and unseen values, the group, from 0 on; -1 for values
            that are in none.
        size: how many groups there are.
    """

    column: str
    cells: NumberCells | StringCells | ClassCells
    group_of: tuple[int, ...]
    size: int


@dataclass(frozen=True, slots=True)
class JointCells:
    """The tables that rows are counted in by two columns at once.

    Attributes:
        groupings: the columns with their groups.
        tables: for each table which grouping its rows are of, and which its columns are of.
    """

    groupings: tuple[Grouping, ...]
    tables: tuple[tuple[int, int], ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The cells of each table."""
        return tuple(self.groupings[first].size * self.groupings[second].size for first, second in self.tables)

    @property
    def words(self) -> int:
        """The size of all tables together, one after the other and each row by row, after the number of rows."""
        return 1 + sum(self.sizes)


@dataclass(frozen=True, slots=True)
class Cells:
    """The cells of a specification's columns, in its order, and of the model's answers.

    Attributes:
        columns: one per raw column.
        bins: B, the most bins of a column or of an answer; every row of counts has B.
        answers: what is counted of the answers, the predictions first if they are.
    """

    columns: tuple[NumberCells | StringCells, ...]
    bins: int
    answers: tuple[AnswerCells, ...] = ()


def storable(value: float) -> float:
    """The value, or the largest float if it overflowed; NaN comes from two infinities and counts as an overflow."""
    return float_info.max if isnan(value) else min(max(value, -float_info.max), float_info.max)
