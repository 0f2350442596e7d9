"""The cells that rows are counted in: what counting needs to know of a drift baseline, and nothing of training's counts.

`drift.baseline` gives them, the compiler and the kernels count by them. A number's bin is how many edges are <= x
(`numpy.searchsorted(edges, x, side="right")`), of the raw value before any step. A string's bins are the first watched
values, and one for the other watched ones.
"""

from dataclasses import dataclass
from math import isnan
from sys import float_info
from typing import Final

ROUNDING: Final = 1e-6
"""Wider than float32 rounds, so that a value on an edge falls in the same bin whether it is sent as FP32 or FP64."""


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
        """The smallest and the largest value of training, as much further apart as float32 rounds; both are finite."""
        if self.smallest is None or self.largest is None:
            return -float_info.max, float_info.max
        low, high = self.smallest, self.largest
        return storable(low - ROUNDING * abs(low)), storable(high + ROUNDING * abs(high))


@dataclass(frozen=True, slots=True)
class StringCells:
    """The cells of a string column.

    Attributes:
        watched: the values that training saw, never the empty string, which is missing.
        binned: how many of them have a bin of their own, the first; the others share the bin after.
        has_missing: training saw missing values.
    """

    watched: tuple[str, ...]
    binned: int
    has_missing: bool = False


@dataclass(frozen=True, slots=True)
class ClassCells:
    """The cells of a model's classes, a bin for each label."""

    labels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Cells:
    """The cells of a specification's columns, in its order, and of the model's answers.

    Attributes:
        columns: one for each raw column.
        bins: B, the bins of the column, or of the answers, with most of them: all rows of counts are that long.
        predictions: of the answers; None where they are not counted.
    """

    columns: tuple[NumberCells | StringCells, ...]
    bins: int
    predictions: NumberCells | ClassCells | None = None


def storable(value: float) -> float:
    """The value, or the largest float where it overflowed, NaN being two infinities that met."""
    return float_info.max if isnan(value) else min(max(value, -float_info.max), float_info.max)
