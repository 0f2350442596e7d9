"""The feature specification: a request's raw columns, and the blocks of steps that make the model's input.

It is a file: publishing writes it and serving reads it. This module defines the file and refuses invalid ones.
`blocks`, `encoders` and `steps` define its parts, and `pipeline` runs it. A missing number is NaN, a missing string
is empty, and a missing time is the smallest int64.
"""

import hashlib
from collections.abc import Iterator
from functools import cached_property
from typing import Any, Final, Literal, TypeVar

import msgspec

from penstock_server.features.spec import limits
from penstock_server.features.spec.blocks import Block, Join, Take, Text, Time
from penstock_server.features.spec.defaults import with_own_defaults
from penstock_server.features.spec.encoders import Categories, Encoder, Hash
from penstock_server.features.spec.grams import Grams

__all__ = [
    "FORMAT", "Block", "Categories", "Column", "Encoder", "FeatureSpec", "Grams", "Hash", "Join", "NumberColumn",
    "StringColumn", "Take", "Text", "Time", "TimeColumn", "decode", "decode_file", "decode_yaml", "digest", "encode",
    "encode_yaml",
]  # fmt: skip

FORMAT: Final = 2
"""The format's version that this code writes, and the only one that it reads."""

Datatype = Literal["FP32", "FP64"]

_File = TypeVar("_File")


class NumberColumn(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="kind", tag="number"
):
    """A raw column of numbers; NaN is missing.

    Attributes:
        name: as requests call it.
        missing: whether a row without a value is answered. None leaves it to the training rows: if they all have a value
            and NaN would reach the model, the row's request is refused.
        largest: a row's request is refused if the value's magnitude is above this, infinities included; None takes all.
    """

    name: str
    missing: Literal["accept", "refuse"] | None = None
    largest: float | None = None

    def __post_init__(self) -> None:
        limits.name(self.name)
        if self.largest is not None and limits.finite(self, "largest") <= 0:
            raise ValueError(f"largest is {self.largest}, expected a number above 0")


class StringColumn(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="kind", tag="string"
):
    """A raw column of strings; the empty string is missing.

    Attributes:
        name: as requests call it.
        missing: whether a row without a text is answered, or its request refused. "text" says that the empty string is a
            text like others and none stands for a missing one, which clients cannot send then.
    """

    name: str
    missing: Literal["accept", "refuse", "text"] = "accept"

    def __post_init__(self) -> None:
        limits.name(self.name)


class TimeColumn(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="kind", tag="time"
):
    """A raw column of times: int64 nanoseconds since 1970-01-01 in UTC; the smallest int64 is missing.

    Attributes:
        name: as requests call it.
        missing: as for numbers.
    """

    name: str
    missing: Literal["accept", "refuse"] | None = None

    def __post_init__(self) -> None:
        limits.name(self.name)


Column = NumberColumn | StringColumn | TimeColumn


class FeatureSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, dict=True):
    """The raw columns in a request's order, and the block that gives the model's input, as `datatype`.

    The steps run in float64; a value that is too large for FP32 becomes an infinity of its sign. Several blocks may
    read a raw column. A column that no block reads is only counted for drift. `ignored` are further columns that requests
    may bring, such as those that the fitted pipeline drops. Like all its parts, a specification checks itself when it is
    made and raises `ValueError`.
    """

    columns: tuple[Column, ...]
    features: Block
    datatype: Datatype = "FP32"
    format: int = FORMAT
    # Left out of the encoding where there are none, so that older specifications keep their digest.
    ignored: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET

    def __post_init__(self) -> None:
        if self.format != FORMAT:
            raise ValueError(f"format {self.format} is unknown, expected {FORMAT}")
        if not self.columns:
            raise ValueError("there are no columns, expected at least one")
        limits.at_most("columns", len(self.columns), limits.MAX_COLUMNS)
        limits.distinct("column", tuple(column.name for column in self.columns))
        if self.ignored is not msgspec.UNSET:
            limits.at_most("ignored columns", len(self.ignored), limits.MAX_COLUMNS)
            for name in self.ignored:
                limits.name(name)
            limits.distinct("column", (*(column.name for column in self.columns), *self.ignored))
        if not self.width:
            raise ValueError("the features have no columns, expected at least one")
        self._check_kinds(self.features)

    @property
    def width(self) -> int:
        """The number of output columns."""
        return self.features.width

    @property
    def is_identity(self) -> bool:
        """Whether the output is the raw columns as they are: numbers, in their order."""
        return self.features == Take(tuple(column.name for column in self.columns))

    @cached_property
    def output_names(self) -> tuple[str, ...]:
        """A name for each output column, for people to read."""
        return tuple(name.text for name in self.features.names)

    def _check_kinds(self, block: Block) -> None:
        kinds = {column.name: type(column) for column in self.columns}
        for name, expected in _kinds_read(block):
            if name not in kinds:
                raise ValueError(f"a block reads {name!r}, expected one of the columns {limits.listed(list(kinds))}")
            if kinds[name] is not expected:
                raise ValueError(
                    f"a block reads the column {name!r} as a {_KIND_NAMES[expected]}, expected a {_KIND_NAMES[kinds[name]]}"
                )


_KIND_NAMES: Final[dict[type[Column], str]] = {NumberColumn: "number", StringColumn: "string", TimeColumn: "time"}


def texts(block: Block) -> Iterator[Text]:
    """The blocks of strings in a block, in their order."""
    if isinstance(block, Text):
        yield block
    elif isinstance(block, Join):
        for each in block.blocks:
            yield from texts(each)


def _kinds_read(block: Block) -> Iterator[tuple[str, type[Column]]]:
    match block:
        case Take(columns):
            yield from ((column, NumberColumn) for column in columns)
        case Text(column):
            yield column, StringColumn
        case Time(column):
            yield column, TimeColumn
        case Join(blocks):
            for each in blocks:
                yield from _kinds_read(each)


class _Format(msgspec.Struct):
    format: int


_formats: Final = msgspec.json.Decoder(_Format)
_specs: Final = msgspec.json.Decoder(FeatureSpec)


def encode(spec: FeatureSpec) -> bytes:
    """The specification as JSON; which objects hold equal texts makes no difference."""
    with_own_defaults(spec)
    return msgspec.json.encode(spec)


def digest(spec: FeatureSpec) -> str:
    """The SHA-256 of the specification's encoding, as `sha256:` and 64 hexadecimal digits."""
    return f"sha256:{hashlib.sha256(encode(spec)).hexdigest()}"


def decode(data: bytes) -> FeatureSpec:
    """Decodes a specification from untrusted JSON.

    Raises:
        InvalidInputError: not JSON, of another format, or invalid; it names the column and the step.
    """
    return decode_file(data, _specs, FORMAT, "feature specification")


def decode_file(data: bytes, decoder: msgspec.json.Decoder[_File], expected: int, what: str) -> _File:
    """Decodes a file that belongs to a specification, or is one, from untrusted JSON.

    Args:
        data: its content.
        decoder: of what it holds; made at import, as `strict_json` says.
        expected: the version of its format.
        what: what people call it.

    Raises:
        InvalidInputError: too large, not JSON, of another format, or invalid.
    """
    try:
        limits.at_most("bytes", len(data), limits.MAX_BYTES)
        # First, so that a later format is refused by its number.
        check_format(_formats.decode(data).format, expected)
        return decoder.decode(data)
    except (ValueError, RecursionError) as error:
        raise limits.failure(what, error, data) from error


def decode_yaml(data: bytes) -> FeatureSpec:
    """Decodes a specification from untrusted YAML without aliases, tags or repeated keys.

    Raises:
        InvalidInputError: not YAML, of another format, or invalid; it names the column and the step.
    """
    tree: Any = None
    try:
        from penstock_server.features.spec import yaml_text  # servers read JSON, and do without a parser of YAML

        tree = yaml_text.load(data)
        check_format(msgspec.convert(tree, _Format).format, FORMAT)
        return msgspec.convert(tree, FeatureSpec)
    except (ValueError, RecursionError) as error:
        raise limits.failure("feature specification", error, tree) from error


def encode_yaml(spec: FeatureSpec) -> bytes:
    """The specification as YAML for people to read and change; `decode_yaml` gives an equal one back."""
    from penstock_server.features.spec import yaml_text

    with_own_defaults(spec)
    return yaml_text.dump(msgspec.to_builtins(spec))


def check_format(found: int, expected: int) -> None:
    if found != expected:
        raise ValueError(f"format {found} is unknown, expected {expected}")
