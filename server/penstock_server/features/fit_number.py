"""The recipe of number columns that go through the same steps: each method adds one, `fit` finds its numbers.

Each step is fitted to what the steps before it make of the columns, as the pipeline makes it; only finite values are
looked at, and columns are looked at one by one.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations, combinations_with_replacement
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec import steps
from penstock_server.features.spec.spec import FeatureSpec, NumberColumn, Take
from penstock_server.features.spec.steps import Step
from penstock_server.features.spec.steps_value import Function
from penstock_server.features.table import Table, numbers_of

Values = NDArray[np.float64]
Fitter = Callable[[list[Values]], Step]
"""Makes a step from each column's finite values that reach it; `ValueError` where they do not allow one."""


@dataclass(frozen=True, slots=True)
class NumberRecipe:
    """What to do with number columns: each method gives a recipe with one step more."""

    columns: tuple[str, ...]
    fitters: tuple[Fitter, ...] = ()

    def fill(self, value: float | Literal["median", "mean"]) -> "NumberRecipe":
        """Replaces NaN by a number, or by what the training values have."""
        return self._then(partial(_fill, value))

    def clip(self, low: float | None = None, high: float | None = None) -> "NumberRecipe":
        """Bounds the values; None leaves a side open."""
        return self.step(steps.Clip(None if low is None else (low,), None if high is None else (high,)))

    def clip_quantiles(self, low: float, high: float) -> "NumberRecipe":
        """Bounds the values by quantiles of the training values, as shares of them from 0 to 1."""
        if not 0 <= low < high <= 1:
            raise ValueError(f"quantiles {low} and {high}, expected 0 <= low < high <= 1")
        return self._then(partial(_clip_quantiles, low, high))

    def apply(self, function: Function) -> "NumberRecipe":
        """Takes a function of each value, by its name in numpy."""
        return self.step(steps.Apply(function))

    def log1p(self) -> "NumberRecipe":
        """Takes ln(1 + x)."""
        return self.apply("log1p")

    def standardise(self) -> "NumberRecipe":
        """Subtracts the mean and divides by the standard deviation (population's); a constant is divided by 1."""
        return self._then(_standardise)

    def robust(self) -> "NumberRecipe":
        """Subtracts the median and divides by the distance of the quartiles; where that is 0, by 1."""
        return self._then(_robust)

    def rescale(self, low: float = 0.0, high: float = 1.0) -> "NumberRecipe":
        """Maps the training values' least to `low` and their greatest to `high`; a constant becomes `low`."""
        return self._then(partial(_rescale, low, high))

    def quantiles(self, count: int = 100, distribution: Literal["uniform", "normal"] = "uniform") -> "NumberRecipe":
        """Replaces a value by its place among `count` quantiles of the training values."""
        return self._then(partial(_quantiles, count, distribution))

    def bucket(self, bins: int) -> "NumberRecipe":
        """Replaces a value by its index among `bins` of as many training values each; equal values stay together."""
        if bins < 2:
            raise ValueError(f"{bins} bins, expected 2 at least")
        return self._then(partial(_bucket, bins))

    def bucket_at(self, edges: Sequence[float]) -> "NumberRecipe":
        """Replaces a value by the number of these edges that are not above it."""
        return self.step(steps.Bucket((tuple(edges),)))

    def cyclic(self, period: float) -> "NumberRecipe":
        """Makes two columns of each, the sine and the cosine of where a value is in its period."""
        return self.step(steps.Cyclic((period,)))

    def polynomial(self, degree: int, *, interactions_only: bool = False) -> "NumberRecipe":
        """Makes a column for each product of up to `degree` columns, themselves first; no constant."""
        return self._then(partial(_polynomial, degree, interactions_only))

    def step(self, step: Step) -> "NumberRecipe":
        """Adds a step that needs no fitting."""
        return self._then(partial(_given, step))

    def fit(self, table: Table) -> Take:
        """The columns with their steps, fitted one after another."""
        block = Take(self.columns)
        raw = {column: numbers_of(table, column) for column in self.columns}
        for fitter in self.fitters:
            values = [column[np.isfinite(column)] for column in _run(block, raw).T]
            block = Take(self.columns, (*block.steps, fitter(values)))
        return block

    def _then(self, fitter: Fitter) -> "NumberRecipe":
        return replace(self, fitters=(*self.fitters, fitter))


def numbers(*names: str) -> NumberRecipe:
    """The recipe of number columns that pass as they are."""
    return NumberRecipe(names)


def number(name: str) -> NumberRecipe:
    """The recipe of a number column that passes as it is."""
    return NumberRecipe((name,))


def _run(block: Take, raw: dict[str, Values]) -> Values:
    """What the steps so far make of the values, by the same code as in serving."""
    if not block.steps:
        return np.stack([raw[column] for column in block.columns], axis=1)
    spec = FeatureSpec(tuple(NumberColumn(column) for column in dict.fromkeys(block.columns)), block, "FP64")
    return Pipeline(spec).transform(raw)


def _given(step: Step, _columns: list[Values]) -> Step:
    return step


def _fill(value: float | Literal["median", "mean"], columns: list[Values]) -> Step:
    if value == "median":
        return steps.Fill(tuple(float(np.median(_some(values))) for values in columns))
    if value == "mean":
        return steps.Fill(tuple(float(np.mean(_some(values))) for values in columns))
    if not np.isfinite(value):
        raise ValueError(f"the value to fill in is {value}, expected a finite number")
    return steps.Fill((float(value),))


def _clip_quantiles(low: float, high: float, columns: list[Values]) -> Step:
    sides = [np.quantile(_some(values), [low, high]).tolist() for values in columns]
    return steps.Clip(tuple(side[0] for side in sides), tuple(side[1] for side in sides))


def _standardise(columns: list[Values]) -> Step:
    scales = tuple(_deviation(_some(values)) for values in columns)
    return steps.Standardise(tuple(float(np.mean(values)) for values in columns), scales)


def _deviation(values: Values) -> float:
    deviation = float(np.std(values))
    # What rounding alone makes of a constant column; to divide by it would blow the rounding up.
    noise = 10 * np.finfo(np.float64).eps * abs(float(np.mean(values)))
    return deviation if deviation > noise else 1.0


def _robust(columns: list[Values]) -> Step:
    quartiles = [np.quantile(_some(values), [0.25, 0.5, 0.75]).tolist() for values in columns]
    return steps.Standardise(
        tuple(median for _, median, _ in quartiles), tuple((high - low) or 1.0 for low, _, high in quartiles)
    )


def _rescale(low: float, high: float, columns: list[Values]) -> Step:
    ends = [(float(np.min(_some(values))), float(np.max(values))) for values in columns]
    scales = tuple((high - low) / ((last - first) or 1.0) for first, last in ends)
    return steps.Linear(scales, tuple(low - first * scale for (first, _), scale in zip(ends, scales, strict=True)))


def _quantiles(count: int, distribution: Literal["uniform", "normal"], columns: list[Values]) -> Step:
    if count < 2:
        raise ValueError(f"{count} quantiles, expected 2 at least")
    shares = np.linspace(0, 1, count)
    found = tuple(tuple(np.quantile(_some(values), shares).tolist()) for values in columns)
    return steps.Quantiles(found, tuple(shares.tolist()), distribution)


def _bucket(bins: int, columns: list[Values]) -> Step:
    shares = np.linspace(0, 1, bins + 1)[1:-1]
    return steps.Bucket(tuple(tuple(np.unique(np.quantile(_some(values), shares)).tolist()) for values in columns))


def _polynomial(degree: int, interactions_only: bool, columns: list[Values]) -> Step:
    chosen = combinations if interactions_only else combinations_with_replacement
    sizes = range(1, degree + 1)
    return steps.Polynomial(tuple(term for size in sizes for term in chosen(range(len(columns)), size)))


def _some(values: Values) -> Values:
    if not len(values):
        raise ValueError("it has no finite value")
    return values
