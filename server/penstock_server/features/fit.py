"""From a recipe, which says what to do with a column, to a fitted specification, which says with what numbers.

    fit([number("delay").fill("median").clip_quantiles(0.01, 0.99).log1p().standardise(),
         string("carrier").one_hot(max_categories=50)], table)

Training calls it. Each step is fitted to what the steps before it make of the column, as the pipeline makes it; only
finite values are looked at.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from penstock_server.errors import InvalidInputError
from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec import Column, Datatype, Encoding, FeatureSpec, NumberColumn, StringColumn
from penstock_server.features.steps import Bucket, Clip, Fill, Log1p, Standardise, Step
from penstock_server.features.table import Table, numbers_of, row_count, strings_of

Values = NDArray[np.float64]
Fitter = Callable[[Values], Step]
"""Makes a step from the finite values that reach it; `ValueError` where they do not allow one."""


@dataclass(frozen=True, slots=True)
class NumberRecipe:
    """What to do with a number column: each method gives a recipe with one step more."""

    name: str
    fitters: tuple[Fitter, ...] = ()

    def fill(self, value: float | Literal["median", "mean"]) -> "NumberRecipe":
        """Replaces NaN by a number, or by what the training values have."""
        return self._then(partial(_fill, value))

    def clip(self, low: float | None = None, high: float | None = None) -> "NumberRecipe":
        """Bounds the values; None leaves a side open."""
        return self._then(partial(_given, Clip(low, high)))

    def clip_quantiles(self, low: float, high: float) -> "NumberRecipe":
        """Bounds the values by quantiles of the training values, as shares of them from 0 to 1."""
        if not 0 <= low < high <= 1:
            raise ValueError(f"quantiles {low} and {high}, expected 0 <= low < high <= 1")
        return self._then(partial(_clip_quantiles, low, high))

    def log1p(self) -> "NumberRecipe":
        """Takes ln(1 + x)."""
        return self._then(partial(_given, Log1p()))

    def standardise(self) -> "NumberRecipe":
        """Subtracts the mean and divides by the standard deviation (population's); a constant is divided by 1."""
        return self._then(_standardise)

    def bucket(self, bins: int) -> "NumberRecipe":
        """Replaces a value by its index among `bins` of as many training values each; equal values stay together."""
        if bins < 2:
            raise ValueError(f"{bins} bins, expected 2 at least")
        return self._then(partial(_bucket, bins))

    def bucket_at(self, edges: Sequence[float]) -> "NumberRecipe":
        """Replaces a value by the number of these edges that are not above it."""
        return self._then(partial(_given, Bucket(tuple(edges))))

    def fit(self, table: Table) -> NumberColumn:
        """The column with its steps, fitted one after another."""
        raw = numbers_of(table, self.name)
        column = NumberColumn(self.name)
        for fitter in self.fitters:
            values = _run(column, raw)
            column = NumberColumn(self.name, (*column.steps, fitter(values[np.isfinite(values)])))
        return column

    def _then(self, fitter: Fitter) -> "NumberRecipe":
        return replace(self, fitters=(*self.fitters, fitter))


@dataclass(frozen=True, slots=True)
class StringRecipe:
    """What to do with a string column.

    Attributes:
        name: the column's.
        encoding: how a category becomes numbers.
        max_categories: the most frequent training values are kept, at most so many; None keeps all.
        keep_missing: whether the empty string may be a category, where training rows have it.
    """

    name: str
    encoding: Encoding = "ordinal"
    max_categories: int | None = None
    keep_missing: bool = False

    def ordinal(self, max_categories: int | None = None, *, keep_missing: bool = False) -> "StringRecipe":
        """Gives one output column, the category's index in the order of the text."""
        return StringRecipe(self.name, "ordinal", max_categories, keep_missing)

    def one_hot(self, max_categories: int | None = None, *, keep_missing: bool = False) -> "StringRecipe":
        """Gives an output column for each category, and one for what is none."""
        return StringRecipe(self.name, "one_hot", max_categories, keep_missing)

    def fit(self, table: Table) -> StringColumn:
        """The column with the categories of the training rows, sorted."""
        counts = Counter(strings_of(table, self.name))
        if not self.keep_missing:
            del counts[b""]
        kept = sorted(counts, key=lambda value: (-counts[value], value))[: self.max_categories]
        return StringColumn(self.name, tuple(value.decode() for value in sorted(kept)), self.encoding)


Recipe = NumberRecipe | StringRecipe


def number(name: str) -> NumberRecipe:
    """The recipe of a number column that passes as it is."""
    return NumberRecipe(name)


def string(name: str) -> StringRecipe:
    """The recipe of a string column that becomes the index of its category."""
    return StringRecipe(name)


def fit(recipes: Iterable[Recipe], table: Table, datatype: Datatype = "FP32") -> FeatureSpec:
    """The specification that the recipes and the training rows give, its columns in the recipes' order.

    Raises:
        InvalidInputError: a column is not there, is not of its kind, or has nothing to fit a step to; names it.
    """
    known = tuple(recipes)
    row_count(table, [recipe.name for recipe in known])
    columns = tuple(_fitted(recipe, table) for recipe in known)
    try:
        return FeatureSpec(columns, datatype)
    except ValueError as error:
        raise InvalidInputError(f"the recipes make no specification: {error}") from error


def _fitted(recipe: Recipe, table: Table) -> Column:
    try:
        return recipe.fit(table)
    except ValueError as error:
        raise InvalidInputError(f"column {recipe.name!r} cannot be fitted: {error}") from error


def _run(column: NumberColumn, raw: Values) -> Values:
    """What the column's steps make of the values, by the same code as in serving."""
    return Pipeline(FeatureSpec((column,), "FP64")).transform({column.name: raw})[:, 0]


def _given(step: Step, _values: Values) -> Step:
    return step


def _fill(value: float | Literal["median", "mean"], values: Values) -> Step:
    if value == "median":
        return Fill(float(np.median(_some(values))))
    return Fill(float(np.mean(_some(values))) if value == "mean" else float(value))


def _clip_quantiles(low: float, high: float, values: Values) -> Step:
    return Clip(*np.quantile(_some(values), [low, high]).tolist())


def _standardise(values: Values) -> Step:
    mean, deviation = float(np.mean(_some(values))), float(np.std(values))
    # What rounding alone makes of a constant column; to divide by it would blow the rounding up.
    noise = 10 * np.finfo(np.float64).eps * abs(mean)
    return Standardise(mean, deviation if deviation > noise else 1.0)


def _bucket(bins: int, values: Values) -> Step:
    return Bucket(tuple(np.unique(np.quantile(_some(values), np.linspace(0, 1, bins + 1)[1:-1])).tolist()))


def _some(values: Values) -> Values:
    if not len(values):
        raise ValueError("it has no finite value")
    return values
