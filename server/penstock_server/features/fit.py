"""From a recipe, which says what to do with columns, to a fitted specification, which says with what numbers.

    fit([numbers("delay", "distance").fill("median").clip_quantiles(0.01, 0.99).apply("log1p").standardise(),
         string("carrier").one_hot(max_categories=50)], table)

Training calls it. `fit_number` and `fit_string` hold the recipes; here they become one specification.
"""

from collections.abc import Iterable

from penstock_server.errors import InvalidInputError
from penstock_server.features.fit_number import NumberRecipe, number, numbers
from penstock_server.features.fit_string import StringRecipe, string
from penstock_server.features.spec.spec import (
    Block,
    Column,
    Datatype,
    FeatureSpec,
    Join,
    NumberColumn,
    StringColumn,
    Take,
)
from penstock_server.features.table import Table, row_count

__all__ = ["NumberRecipe", "Recipe", "StringRecipe", "fit", "number", "numbers", "string"]

Recipe = NumberRecipe | StringRecipe


def fit(recipes: Iterable[Recipe], table: Table, datatype: Datatype = "FP32") -> FeatureSpec:
    """The specification that the recipes and the training rows give, its outputs in the recipes' order.

    A column that several recipes read is one raw column, in the place of the first.

    Raises:
        InvalidInputError: a column is not there, is not of its kind, or has nothing to fit a step to; names it.
    """
    known = tuple(recipes)
    row_count(table, [name for recipe in known for name in recipe.columns])
    blocks = tuple(_fitted(recipe, table) for recipe in known)
    try:
        return FeatureSpec(_columns(blocks), Join(blocks), datatype)
    except ValueError as error:
        raise InvalidInputError(f"the recipes make no specification: {error}") from error


def _fitted(recipe: Recipe, table: Table) -> Block:
    try:
        return recipe.fit(table)
    except ValueError as error:
        about = ", ".join(map(repr, recipe.columns))
        raise InvalidInputError(f"column {about} cannot be fitted: {error}") from error


def _columns(blocks: tuple[Block, ...]) -> tuple[Column, ...]:
    kinds = {
        name: NumberColumn if isinstance(block, Take) else StringColumn
        for block in blocks
        for name in block.raw_columns
    }
    return tuple(kind(name) for name, kind in kinds.items())
