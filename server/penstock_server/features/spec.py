"""The feature specification: which raw columns a model reads, and the fitted steps from each to its inputs.

It is the file that training writes and serving reads. This module decides its form and what is refused; `steps` holds
the steps, `fit` makes a specification from data, `pipeline` carries it out. A missing number is NaN and a missing string
is the empty string.
"""

import hashlib
from typing import Final, Literal

import msgspec

from penstock_server.features import limits
from penstock_server.features.steps import Bucket, Clip, Fill, Log1p, Standardise, Step

__all__ = [
    "FORMAT",
    "Bucket",
    "Clip",
    "Column",
    "FeatureSpec",
    "Fill",
    "Log1p",
    "NumberColumn",
    "Standardise",
    "Step",
    "StringColumn",
    "decode",
    "digest",
    "encode",
]

FORMAT: Final = 1
"""The format's version that this code writes, and the only one that it reads."""

Datatype = Literal["FP32", "FP64"]
Encoding = Literal["ordinal", "one_hot"]


class NumberColumn(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="number"):
    """A raw column of numbers: one output column, the value after each of `steps` in turn."""

    name: str
    steps: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        limits.name(self.name)
        limits.at_most("steps", len(self.steps), limits.MAX_STEPS)

    @property
    def width(self) -> int:
        """How many output columns it gives."""
        return 1

    @property
    def output_names(self) -> tuple[str, ...]:
        """A name for each output column."""
        return (self.name,)


class StringColumn(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="string"):
    """A raw column of strings, compared byte by byte as UTF-8 with K `categories`.

    `ordinal` gives one output column, the index of the category; `one_hot` gives K + 1 with a one at that index. What is
    no category is *unseen* and has the index K. The empty string is missing; it is unseen too, unless "" is a category.
    """

    name: str
    categories: tuple[str, ...]
    encoding: Encoding = "ordinal"

    def __post_init__(self) -> None:
        limits.name(self.name)
        limits.at_most("categories", len(self.categories), limits.MAX_CATEGORIES)
        for category in self.categories:
            limits.utf8("category", category, limits.MAX_CATEGORY_BYTES)
        limits.distinct("category", self.categories)

    @property
    def width(self) -> int:
        """How many output columns it gives."""
        return 1 if self.encoding == "ordinal" else len(self.categories) + 1

    @property
    def output_names(self) -> tuple[str, ...]:
        """A name for each output column; a one-hot one is `column=category`, the last `column=<unseen>`."""
        if self.encoding == "ordinal":
            return (self.name,)
        return tuple(f"{self.name}={category}" for category in (*self.categories, "<unseen>"))


Column = NumberColumn | StringColumn


class FeatureSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The raw columns in order; their output columns stand side by side in the same order, as `datatype`.

    The steps are always carried out in float64; a value that is too large for FP32 becomes an infinity of its sign.
    Like all its parts it checks itself at birth and raises `ValueError`.
    """

    columns: tuple[Column, ...]
    datatype: Datatype = "FP32"
    format: int = FORMAT

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ValueError(f"format {self.format} is unknown, expected {FORMAT}")
        if not self.columns:
            raise ValueError("there are no columns, expected one at least")
        limits.at_most("columns", len(self.columns), limits.MAX_COLUMNS)
        limits.distinct("column", tuple(column.name for column in self.columns))
        limits.at_most("output columns", self.width, limits.MAX_WIDTH)

    @property
    def width(self) -> int:
        """The number of output columns."""
        return sum(column.width for column in self.columns)

    @property
    def output_names(self) -> tuple[str, ...]:
        """A name for each output column."""
        return tuple(name for column in self.columns for name in column.output_names)


class _Header(msgspec.Struct):
    format: int


def encode(spec: FeatureSpec) -> bytes:
    """The specification as JSON, the same bytes for equal specifications."""
    return msgspec.json.format(msgspec.json.encode(spec), indent=1)


def digest(spec: FeatureSpec) -> str:
    """What names the specification: the SHA-256 of its encoding, as `sha256:` and 64 hexadecimal digits."""
    return f"sha256:{hashlib.sha256(encode(spec)).hexdigest()}"


def decode(data: bytes) -> FeatureSpec:
    """The specification that `data`, JSON from anywhere, holds.

    Raises:
        InvalidInputError: not JSON, another format, or not sound; it names the column and the step.
    """
    try:
        limits.at_most("bytes", len(data), limits.MAX_BYTES)
        read_format(data, FORMAT)
        return msgspec.json.decode(data, type=FeatureSpec)
    except (ValueError, RecursionError) as error:
        raise limits.failure("feature specification", error, data) from error


def read_format(data: bytes, expected: int) -> None:
    """Demands a format's version before the rest is read, so that a later format is named and not picked to pieces."""
    found = msgspec.json.decode(data, type=_Header).format
    if found != expected:
        raise ValueError(f"format {found} is unknown, expected {expected}")
