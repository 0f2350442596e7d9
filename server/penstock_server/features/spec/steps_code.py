"""The steps between values and codes: 0 to K - 1 for the values that training saw, K for all others.

A code is a whole number. `Bucket` and `Match` turn numbers into codes, as `encoders` turns strings into codes; `OneHot`
and `Lookup` turn codes into columns. A value that is not one of the codes 0 to K, NaN included, counts as K.
"""

from itertools import pairwise
from math import isnan
from typing import Any

import msgspec

from penstock_server.features.spec import limits
from penstock_server.features.spec.limits import Real
from penstock_server.features.spec.step_base import Name, StepBase, Unseen, spread

UNSEEN_NAME = "<unseen>"


class Bucket(StepBase, frozen=True, tag="bucket"):
    """The number of the column's `edges` that are <= x: 0 below the first and for -inf, all of them for inf.

    NaN has the index after the others, `len(edges) + 1`. For other values it is `numpy.digitize`.
    """

    PER_COLUMN = ("edges",)

    edges: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        checked = (limits.increasing_of(f"edges[{at}]", edges) for at, edges in enumerate(limits.some(self, "edges")))
        msgspec.structs.force_setattr(self, "edges", tuple(checked))

    def names(self, names: tuple[Name, ...]) -> tuple[Name, ...]:
        edges = spread(self.edges, len(names))
        return tuple(Name(name.text, _ranges(each)) for name, each in zip(names, edges, strict=True))


class Match(StepBase, frozen=True, tag="match"):
    """The index of the equal value among the column's K `values`, K when there is none.

    NaN, written None, equals NaN; -0.0 equals 0.0.

    Attributes:
        unseen: "refuse" refuses the row's request where no value is equal.
    """

    PER_COLUMN = ("values",)

    values: tuple[tuple[Real, ...], ...]
    unseen: Unseen = "code"

    def __post_init__(self) -> None:
        checked = tuple(_distinct(f"values[{at}]", values) for at, values in enumerate(limits.some(self, "values")))
        msgspec.structs.force_setattr(self, "values", checked)

    def names(self, names: tuple[Name, ...]) -> tuple[Name, ...]:
        values = spread(self.values, len(names))
        return tuple(Name(name.text, tuple(map(_text, each))) for name, each in zip(names, values, strict=True))


class OneHot(StepBase, frozen=True, tag="one_hot"):
    """Each column becomes a block of zeros with at most one 1.

    The map from codes expresses categories that are dropped, infrequent or grouped.

    Attributes:
        columns: for each column and each of its codes 0 to K the position of the 1 in its block, -1 for none.
        widths: how wide each column's block is.
    """

    PER_COLUMN = ("columns", "widths")

    columns: tuple[tuple[int, ...], ...]
    widths: tuple[int, ...]

    def __post_init__(self) -> None:
        limits.some(self, "widths")
        for width in self.widths:
            limits.between("widths", width, 0, limits.MAX_WIDTH)
        if len(self.columns) != len(self.widths):
            raise ValueError(
                f"columns has {len(self.columns)} entries and widths {len(self.widths)}, expected the same number"
            )
        for at, (places, width) in enumerate(zip(self.columns, self.widths, strict=True)):
            _check_codes(f"columns[{at}]", len(places))
            for place in places:
                limits.between(f"a position in columns[{at}]", place, -1, width - 1)

    def width(self, width: int) -> int:
        return sum(spread(self.widths, width))

    def names(self, names: tuple[Name, ...]) -> tuple[Name, ...]:
        blocks = zip(names, spread(self.columns, len(names)), spread(self.widths, len(names)), strict=True)
        return tuple(Name(text) for name, places, width in blocks for text in _one_hot_names(name, places, width))


class Lookup(StepBase, frozen=True, tag="lookup"):
    """Each code becomes m numbers; scikit-learn's OrdinalEncoder and TargetEncoder.

    Attributes:
        values: for each column and each of its codes 0 to K its m numbers, finite or NaN (None).
    """

    PER_COLUMN = ("values",)

    values: tuple[tuple[tuple[Real, ...], ...], ...]

    def __post_init__(self) -> None:
        checked = tuple(_rows(f"values[{at}]", rows) for at, rows in enumerate(limits.some(self, "values")))
        msgspec.structs.force_setattr(self, "values", checked)

    def width(self, width: int) -> int:
        return sum(len(rows[0]) for rows in spread(self.values, width))

    def names(self, names: tuple[Name, ...]) -> tuple[Name, ...]:
        blocks = zip(names, spread(self.values, len(names)), strict=True)
        return tuple(
            Name(name.text if len(rows[0]) == 1 else f"{name.text}_{at}")
            for name, rows in blocks
            for at in range(len(rows[0]))
        )


def _check_codes(what: str, count: int) -> None:
    if not count:
        raise ValueError(f"{what} is empty, expected at least an entry for unseen values")
    limits.at_most(f"codes in {what}", count, limits.MAX_CATEGORIES + 1)


def _distinct(what: str, given: tuple[Real, ...]) -> tuple[Real, ...]:
    limits.at_most(f"numbers in {what}", len(given), limits.MAX_CATEGORIES)
    values = tuple(limits.real_of(what, value) for value in given)
    limits.distinct(f"{what}: the number", tuple(map(_text, values)))
    return values


def _rows(what: str, given: tuple[tuple[Real, ...], ...]) -> tuple[tuple[Real, ...], ...]:
    _check_codes(what, len(given))
    rows = tuple(tuple(limits.real_of(what, value) for value in row) for row in given)
    for row in rows:
        if len(row) != len(rows[0]) or not row:
            raise ValueError(
                f"{what} has rows of {len(rows[0])} and {len(row)} numbers, expected the same number in each, at least one"
            )
    return rows


def _text(value: Real) -> str:
    return "nan" if value is None or isnan(value) else f"{value:.17g}"


def _ranges(edges: tuple[float, ...]) -> tuple[str, ...]:
    sides: tuple[Any, ...] = ("-inf", *(f"{edge:g}" for edge in edges), "inf")
    return (*(f"[{low},{high})" for low, high in pairwise(sides)), "nan")


def _one_hot_names(name: Name, places: tuple[int, ...], width: int) -> list[str]:
    """`column=value` for each position; if several codes share it, the first and how many more."""
    shared: dict[int, list[int]] = {}
    for code, place in enumerate(places):
        shared.setdefault(place, []).append(code)
    return [f"{name.text}={_shared_name(name, shared.get(place, []), len(places) - 1)}" for place in range(width)]


def _shared_name(name: Name, codes: list[int], unseen: int) -> str:
    if not codes:
        return "<none>"
    first = UNSEEN_NAME if codes[0] == unseen else name.codes[codes[0]] if codes[0] < len(name.codes) else str(codes[0])
    return first if len(codes) == 1 else f"<{first} and {len(codes) - 1} more>"
