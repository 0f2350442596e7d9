"""One column's part of a drift baseline: the cells of its bins, the training rows in each, and how they vary in time.

`baseline` puts the columns together, `baseline_fit` makes them from rows. Like a specification's parts they check themselves
at birth and raise `ValueError`.
"""

from math import inf, isnan
from sys import float_info
from typing import Annotated, Final

import msgspec

from penstock_server.features.spec import limits

MAX_BINS: Final = 256
MAX_WATCHED: Final = 4096
"""The values of a string column that are told from unseen ones."""
MINIMUM_EFFECT: Final = 0.1
"""The population stability index that is still called no drift, where nobody says otherwise."""
ROUNDING: Final = 1e-6
"""Wider than float32 rounds, so that a value on an edge falls in the same bin whether it is sent as FP32 or FP64."""

Count = Annotated[int, msgspec.Meta(ge=0, le=limits.MAX_COUNT)]
Dispersion = Annotated[float, msgspec.Meta(ge=1, le=1e9)]
Effect = Annotated[float, msgspec.Meta(ge=0, le=1e9)]


class NumberBaseline(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="number"):
    """A number column: a value's bin is how many edges are <= it.

    Attributes:
        name: the column's.
        edges: finite and increasing; `len(edges) + 1` bins, of which the end ones are open.
        counts: the finite training rows in each bin.
        sums: of their values.
        missing, infinite: the other training rows.
        smallest, largest: of the finite rows; None where there are none.
        deviation: their standard deviation, that of the population.
        dispersion: how much more the counts vary in time than independent rows would.
        minimum_effect: the index that is called no drift.
    """

    name: str
    edges: tuple[float, ...]
    counts: tuple[Count, ...]
    sums: tuple[float, ...]
    missing: Count = 0
    infinite: Count = 0
    smallest: float | None = None
    largest: float | None = None
    deviation: float = 0.0
    dispersion: Dispersion = 1.0
    minimum_effect: Effect = MINIMUM_EFFECT

    def __post_init__(self) -> None:
        limits.name(self.name)
        limits.at_most("bins", len(self.counts), MAX_BINS)
        limits.increasing(self, "edges")
        if not len(self.counts) == len(self.sums) == len(self.edges) + 1:
            raise ValueError(
                f"{len(self.counts)} counts and {len(self.sums)} sums for {len(self.edges)} edges, "
                "expected one more than edges"
            )
        if self.sums:
            limits.finite_each(self, "sums")
        if limits.finite(self, "deviation") < 0:
            raise ValueError(f"deviation is {self.deviation}, expected 0 or more")
        _check_range(self.smallest, self.largest)

    @property
    def bins(self) -> tuple[int, ...]:
        """The rows in each bin."""
        return self.counts

    @property
    def extra(self) -> tuple[int, int, int]:
        """The rows that are missing, infinite and unseen."""
        return self.missing, self.infinite, 0


class StringBaseline(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="string"):
    """A string column: the values that training saw, the most frequent first.

    Attributes:
        name: the column's.
        watched: the values, never the empty string, which is missing.
        counts: the training rows of the first values, which have a bin each; the others share the bin after.
        other: the rows of those others.
        missing: the rows without a value.
        unseen: the rows of values that are not watched, being too many or too long.
        dispersion: how much more the counts vary in time than independent rows would.
        minimum_effect: the index that is called no drift.
    """

    name: str
    watched: tuple[str, ...]
    counts: tuple[Count, ...]
    other: Count = 0
    missing: Count = 0
    unseen: Count = 0
    dispersion: Dispersion = 1.0
    minimum_effect: Effect = MINIMUM_EFFECT

    def __post_init__(self) -> None:
        limits.name(self.name)
        limits.at_most("counts", len(self.counts), MAX_BINS - 1)
        limits.at_most("watched", len(self.watched), MAX_WATCHED)
        if len(self.counts) > len(self.watched):
            raise ValueError(f"{len(self.counts)} counts for {len(self.watched)} watched values, expected no more")
        for value in self.watched:
            limits.utf8("watched", value, limits.MAX_CATEGORY_BYTES)
        limits.distinct("watched", self.watched)
        if "" in self.watched:
            raise ValueError("the empty string is watched, expected it among the missing")

    @property
    def bins(self) -> tuple[int, ...]:
        """The rows of each value with a bin of its own, and of the others together."""
        return (*self.counts, self.other)

    @property
    def extra(self) -> tuple[int, int, int]:
        """The rows that are missing, infinite and unseen."""
        return self.missing, 0, self.unseen


class ClassBaseline(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="class"):
    """The classes that a model predicted for the training rows.

    Attributes:
        name: of the output that holds them.
        classes: as labels are read from the output: the label itself, or its place among the model's class names.
        counts: the rows of each.
        names: what people call them, if the labels are no names themselves.
        dispersion: how much more the counts vary in time than independent rows would.
        minimum_effect: the index that is called no drift.
    """

    name: str
    classes: tuple[int, ...]
    counts: tuple[Count, ...]
    names: tuple[str, ...] = ()
    dispersion: Dispersion = 1.0
    minimum_effect: Effect = MINIMUM_EFFECT

    def __post_init__(self) -> None:
        limits.at_most("classes", len(self.classes), MAX_BINS)
        if len(set(self.classes)) < len(self.classes):
            raise ValueError("a class is there twice")
        if len(self.counts) != len(self.classes) or len(self.names) not in {0, len(self.classes)}:
            raise ValueError(
                f"{len(self.counts)} counts and {len(self.names)} names for {len(self.classes)} classes, "
                "expected as many, or no names"
            )

    @property
    def bins(self) -> tuple[int, ...]:
        """The rows of each class."""
        return self.counts

    @property
    def extra(self) -> tuple[int, int, int]:
        """The rows that are missing, infinite and unseen: none."""
        return 0, 0, 0


ColumnBaseline = NumberBaseline | StringBaseline
PredictionBaseline = NumberBaseline | ClassBaseline
"""Of the model's output where it has no classes, and of its classes."""


def storable(value: float) -> float:
    """The value, or the largest float where it overflowed, NaN being two infinities that met."""
    return float_info.max if isnan(value) else min(max(value, -float_info.max), float_info.max)


def _check_range(smallest: float | None, largest: float | None) -> None:
    if smallest is None and largest is None:
        return
    if smallest is None or largest is None or not -inf < smallest <= largest < inf:
        raise ValueError(f"smallest is {smallest} and largest {largest}, expected a finite range, or neither")
