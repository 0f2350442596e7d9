"""The recipe of a string column: which categories it has, and how they become numbers."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import Literal

from penstock_server.features.spec.encoders import Categories, Hash
from penstock_server.features.spec.spec import Block, Text
from penstock_server.features.spec.steps import OneHot
from penstock_server.features.table import Table, strings_of

Encoding = Literal["ordinal", "one_hot", "hash"]


@dataclass(frozen=True, slots=True)
class StringRecipe:
    """What to do with a string column.

    Attributes:
        name: the column's.
        encoding: how a string becomes numbers.
        max_categories: the most frequent training values are kept, at most so many; None keeps all.
        keep_missing: whether the empty string may be a category, where training rows have it.
        width: how many columns a hash has.
    """

    name: str
    encoding: Encoding = "ordinal"
    max_categories: int | None = None
    keep_missing: bool = False
    width: int = 0

    @property
    def columns(self) -> tuple[str, ...]:
        """The raw columns that it reads."""
        return (self.name,)

    def ordinal(self, max_categories: int | None = None, *, keep_missing: bool = False) -> "StringRecipe":
        """Gives one output column, the category's index in the order of the text."""
        return StringRecipe(self.name, "ordinal", max_categories, keep_missing)

    def one_hot(self, max_categories: int | None = None, *, keep_missing: bool = False) -> "StringRecipe":
        """Gives an output column for each category, and one for what is none."""
        return StringRecipe(self.name, "one_hot", max_categories, keep_missing)

    def hash(self, width: int) -> "StringRecipe":
        """Gives `width` output columns, of which a hash of the string says which is 1 or -1; nothing is fitted."""
        return replace(self, encoding="hash", width=width)

    def fit(self, table: Table) -> Block:
        """The block with the categories of the training rows, sorted."""
        if self.encoding == "hash":
            return Text(self.name, Hash(self.width))
        counts = Counter(strings_of(table, self.name))
        if not self.keep_missing:
            del counts[b""]
        kept = sorted(counts, key=lambda value: (-counts[value], value))[: self.max_categories]
        encode = Categories(tuple(value.decode() for value in sorted(kept)))
        if self.encoding == "ordinal":
            return Text(self.name, encode)
        width = len(kept) + 1
        return Text(self.name, encode, (OneHot((tuple(range(width)),), (width,)),))


def string(name: str) -> StringRecipe:
    """The recipe of a string column that becomes the index of its category."""
    return StringRecipe(name)
