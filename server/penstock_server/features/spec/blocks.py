"""The blocks of a specification: number columns, a string column, a time column, and blocks side by side.

A block makes a matrix [rows, width] by applying its steps in turn. When it is created, it checks that each step fits
the columns that reach it, and raises a `ValueError` that names its columns and the step. `spec` checks the kinds of the
raw columns.
"""

from collections.abc import Iterator
from functools import cached_property
from typing import Final, Literal, Union, get_args

import msgspec

from penstock_server.features.spec import limits
from penstock_server.features.spec.encoders import Encoder
from penstock_server.features.spec.grams import Grams
from penstock_server.features.spec.steps import Name, Step, tag_of


class BlockBase(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True, dict=True, tag_field="block"
):
    """What all blocks share; `dict` lets the cached properties below store their values."""

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """How many columns reach each step, and last how many the block gives."""
        widths = [self.first_width]
        for at, step in enumerate(self.all_steps):
            try:
                step.check(widths[-1])
                widths.append(step.width(widths[-1]))
                limits.at_most("columns", widths[-1], limits.MAX_WIDTH)
            except ValueError as error:
                columns = limits.listed(list(dict.fromkeys(self.raw_columns)))
                raise ValueError(f"the block of {columns}, step {at} ({tag_of(step)}): {error}") from error
        return tuple(widths)

    @property
    def width(self) -> int:
        """How many columns it gives."""
        return self.widths[-1]

    @property
    def names(self) -> tuple[Name, ...]:
        """The names of the columns that it gives."""
        names = self.first_names
        for step in self.all_steps:
            names = step.names(names)
        return names

    @property
    def all_steps(self) -> tuple[Step, ...]:
        raise NotImplementedError

    @property
    def first_width(self) -> int:
        """How many columns reach its first step."""
        raise NotImplementedError

    @property
    def first_names(self) -> tuple[Name, ...]:
        """The names of the columns that reach its first step."""
        raise NotImplementedError

    @property
    def depth(self) -> int:
        """How many blocks are nested in each other."""
        return 1

    @property
    def raw_columns(self) -> Iterator[str]:
        """The raw columns that it reads, some perhaps more than once."""
        raise NotImplementedError

    def __post_init__(self) -> None:
        limits.at_most("steps", len(self.all_steps), limits.MAX_STEPS)
        limits.at_most("columns", self.first_width, limits.MAX_WIDTH)
        # Computing the widths checks that the steps fit.
        _ = self.widths


class Take(BlockBase, frozen=True, tag="take"):
    """Number columns side by side, by their names."""

    columns: tuple[str, ...]
    steps: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        if not self.columns:
            raise ValueError("columns is empty, expected at least one")
        limits.at_most("columns", len(self.columns), limits.MAX_COLUMNS)
        super().__post_init__()

    @property
    def all_steps(self) -> tuple[Step, ...]:
        return self.steps

    @property
    def first_width(self) -> int:
        return len(self.columns)

    @property
    def first_names(self) -> tuple[Name, ...]:
        return tuple(Name(column) for column in self.columns)

    @property
    def raw_columns(self) -> Iterator[str]:
        return iter(self.columns)


Prepare = Literal["lower", "upper", "casefold", "strip", "lstrip", "rstrip"]
"""What can be done to a text before it is encoded: Python's methods of these names."""

CASES: Final = frozenset({"lower", "upper", "casefold"})
"""Those that change letters; a block has one of them at most."""


class Text(BlockBase, frozen=True, tag="text"):
    """A string column, turned into numbers by `encode`.

    Attributes:
        prepare: what is done to each text before; an encoder of grams has its own ways. An empty text stays what it is, and
            one that becomes empty is not a missing one.
    """

    column: str
    encode: Encoder
    steps: tuple[Step, ...] = ()
    prepare: tuple[Prepare, ...] = ()

    def __post_init__(self) -> None:
        limits.distinct("prepare", self.prepare)
        if self.prepare and isinstance(self.encode, Grams):
            raise ValueError("prepare is given with an encoder of grams, expected none")
        if len(CASES.intersection(self.prepare)) > 1:
            raise ValueError(f"prepare holds {limits.listed(self.prepare)}, expected one of {', '.join(sorted(CASES))}")
        super().__post_init__()

    @property
    def all_steps(self) -> tuple[Step, ...]:
        return self.steps

    @property
    def first_width(self) -> int:
        return self.encode.width

    @property
    def first_names(self) -> tuple[Name, ...]:
        return self.encode.names(self.column)

    @property
    def raw_columns(self) -> Iterator[str]:
        return iter((self.column,))


TimePart = Literal[
    "day", "day_of_year", "days", "days_in_month", "hour", "is_leap_year", "is_month_end", "is_month_start",
    "is_quarter_end", "is_quarter_start", "is_year_end", "is_year_start", "microsecond", "minute", "month", "nanosecond",
    "nanoseconds_of_day", "quarter", "second", "seconds", "week", "weekday", "year",
]  # fmt: skip
TIME_PARTS: Final[tuple[str, ...]] = get_args(TimePart)


class Time(BlockBase, frozen=True, tag="time"):
    """A time column, as the parts of it that are named: one column of numbers each, exact but for `seconds`.

    Most parts are those of pandas' accessor `dt`, in the Gregorian calendar continued before its beginning, in UTC: a weekday
    is 0 on Monday, `week` is the ISO week, and what begins with `is_` gives 1.0 and 0.0. `days` are whole days since
    1970-01-01, `nanoseconds_of_day` what is left of the time; `seconds` are those since 1970-01-01, with their fraction,
    rounded once. A missing time gives NaN, and 0.0 for what begins with `is_`.
    """

    column: str
    parts: tuple[TimePart, ...]
    steps: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("parts is empty, expected at least one")
        limits.at_most("parts", len(self.parts), limits.MAX_COLUMNS)
        for part in self.parts:
            if part not in TIME_PARTS:
                raise ValueError(f"part {part!r} is unknown, expected one of {', '.join(TIME_PARTS)}")
        super().__post_init__()

    @property
    def all_steps(self) -> tuple[Step, ...]:
        return self.steps

    @property
    def first_width(self) -> int:
        return len(self.parts)

    @property
    def first_names(self) -> tuple[Name, ...]:
        return tuple(Name(f"{self.column}_{part}") for part in self.parts)

    @property
    def raw_columns(self) -> Iterator[str]:
        return iter((self.column,))


class Join(BlockBase, frozen=True, tag="join"):
    """Blocks side by side, in their order; a block inside may be a join itself, up to `limits.MAX_DEPTH`."""

    blocks: tuple["Block", ...]
    steps: tuple[Step, ...] = ()

    def __post_init__(self) -> None:
        if not self.blocks:
            raise ValueError("blocks is empty, expected at least one")
        limits.at_most("blocks in each other", self.depth, limits.MAX_DEPTH)
        limits.at_most("blocks", len(self.blocks), limits.MAX_WIDTH)
        super().__post_init__()

    @property
    def all_steps(self) -> tuple[Step, ...]:
        return self.steps

    @property
    def first_width(self) -> int:
        return sum(block.width for block in self.blocks)

    @property
    def first_names(self) -> tuple[Name, ...]:
        return tuple(name for block in self.blocks for name in block.names)

    @cached_property
    def depth(self) -> int:
        return 1 + max(block.depth for block in self.blocks)

    @property
    def raw_columns(self) -> Iterator[str]:
        return (column for block in self.blocks for column in block.raw_columns)


Block = Union[Take, Text, Time, Join]  # noqa: UP007 - its members refer to it by name
