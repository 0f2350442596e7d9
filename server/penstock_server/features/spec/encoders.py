"""How the strings of a column become numbers: codes of known categories, a hash into columns, or the grams in them (`grams`).

Strings are compared byte by byte as UTF-8. On the wire a missing string is the empty one.
"""

from typing import Literal

from penstock_server.features.spec import limits
from penstock_server.features.spec.encoder_base import EncoderBase
from penstock_server.features.spec.grams import Grams
from penstock_server.features.spec.step_base import Name, Unseen


class Categories(EncoderBase, frozen=True, tag="categories"):
    """One column: the index of the string among the K `values`, K when it is none of them.

    The empty string is missing. Its code is that of the category "" if there is one, else `missing`, else K.

    Attributes:
        values: the categories, distinct.
        missing: the code of what is missing.
        unseen: "refuse" refuses the row's request where the string has no code.
    """

    values: tuple[str, ...]
    missing: int | None = None
    unseen: Unseen = "code"

    def __post_init__(self) -> None:
        limits.at_most("values", len(self.values), limits.MAX_CATEGORIES)
        for value in self.values:
            limits.utf8("value", value, limits.MAX_CATEGORY_BYTES)
        limits.distinct("value", self.values)
        if self.missing is not None:
            limits.between("missing", self.missing, 0, len(self.values))
            if "" in self.values:
                raise ValueError('missing is given, and "" is a category; expected one of the two')

    @property
    def width(self) -> int:
        return 1

    def names(self, column: str) -> tuple[Name, ...]:
        return (Name(column, self.values),)


class Hash(EncoderBase, frozen=True, tag="hash"):
    """`width` columns, of which one has 1 or -1: scikit-learn's FeatureHasher with one string per row.

    With h the signed 32-bit MurmurHash3 of prefix + string, seed 0, the column is |h| mod width.

    Attributes:
        width: how many columns.
        signed: whether a negative h gives -1; otherwise it gives 1.
        prefix: comes before the string; FeatureHasher puts `name=` before the values of a dict.
        missing: whether the empty string gives zeros, or the hash of the prefix alone.
    """

    width: int
    signed: bool = True
    prefix: str = ""
    missing: Literal["hash", "zeros"] = "hash"

    def __post_init__(self) -> None:
        limits.between("width", self.width, 1, limits.MAX_WIDTH)
        limits.utf8("prefix", self.prefix, limits.MAX_CATEGORY_BYTES)

    def names(self, column: str) -> tuple[Name, ...]:
        return tuple(Name(f"{column}_{at}") for at in range(self.width))


Encoder = Categories | Hash | Grams
