"""The training rows counted by two columns at once: the part of a baseline that `dependence` compares the traffic with.

Cells of a column are joined to a few groups, so that some thousands of rows fill a table. Like the rest of the baseline's file
the parts check themselves when they are made, and raise `ValueError`.
"""

from collections.abc import Mapping
from typing import Annotated, Final

import msgspec

from penstock_server.features.cells import ClassCells, Grouping, JointCells, NumberCells, StringCells
from penstock_server.features.counting import EXTRA_CELLS
from penstock_server.features.spec import limits

MOST_GROUPS: Final = 8
MOST_TABLES: Final = 64
"""Of pairs, and as many of segments."""

_Count = Annotated[int, msgspec.Meta(ge=0, le=limits.MAX_COUNT)]
_Dispersion = Annotated[float, msgspec.Meta(ge=1, le=1e9)]
_Place = Annotated[int, msgspec.Meta(ge=0)]


class GroupedColumn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A column whose cells are joined to groups.

    Attributes:
        column: its name; "" for the predictions.
        group_of: for each of its bins, and then for missing, infinite and unseen values, the group, from 0 on; -1 for values
            that are in none.
        labels: what each group holds, for people.
    """

    column: str
    group_of: tuple[int, ...]
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        if not 1 <= len(self.labels) <= MOST_GROUPS:
            raise ValueError(f"{self.column[:40]!r} has {len(self.labels)} groups, expected 1 to {MOST_GROUPS}")
        for label in self.labels:
            limits.utf8("labels", label, 4 * limits.MAX_CATEGORY_BYTES)
        for group in self.group_of:
            if not -1 <= group < len(self.labels):
                raise ValueError(f"{self.column[:40]!r} has the group {group}, expected -1 to {len(self.labels) - 1}")


class JointTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The training rows by the groups of two columns.

    Attributes:
        first, second: which of the grouped columns its rows and its columns are of.
        counts: of the rows, table row by table row.
        dispersion: how much more the counts vary in time than those of independent rows: of a pair one number, of a segment one
            for each of its groups.
    """

    first: _Place
    second: _Place
    counts: tuple[_Count, ...]
    dispersion: tuple[_Dispersion, ...]


class JointBaseline(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The tables of a baseline.

    Attributes:
        columns: the grouped columns; one may be there twice, in other groups.
        pairs: of two raw columns each.
        segments: of a raw column and the predictions.
    """

    columns: tuple[GroupedColumn, ...]
    pairs: tuple[JointTable, ...] = ()
    segments: tuple[JointTable, ...] = ()

    def __post_init__(self) -> None:
        limits.at_most("grouped columns", len(self.columns), 4 * MOST_TABLES)
        limits.at_most("pairs", len(self.pairs), MOST_TABLES)
        limits.at_most("segments", len(self.segments), MOST_TABLES)
        for table in self.tables:
            if max(table.first, table.second) >= len(self.columns):
                raise ValueError(
                    f"a table is of column {max(table.first, table.second)}, and there are {len(self.columns)}"
                )
        for table in self.pairs:
            self._check(table, cells=self.shape(table), dispersions=1)
            if "" in self.names(table):
                raise ValueError("a pair is of the predictions, expected raw columns")
        for table in self.segments:
            self._check(table, cells=self.shape(table), dispersions=self.shape(table)[0])
            if [not name for name in self.names(table)] != [False, True]:
                raise ValueError(f"a segment is of {self.names(table)}, expected a raw column and the predictions")

    def _check(self, table: JointTable, *, cells: tuple[int, int], dispersions: int) -> None:
        if len(table.counts) != cells[0] * cells[1] or len(table.dispersion) != dispersions:
            raise ValueError(
                f"the table of {self.names(table)} has {len(table.counts)} counts and {len(table.dispersion)} dispersions, "
                f"expected {cells[0]} x {cells[1]} and {dispersions}"
            )

    def shape(self, table: JointTable) -> tuple[int, int]:
        """How many groups its rows and its columns have."""
        return len(self.columns[table.first].labels), len(self.columns[table.second].labels)

    @property
    def tables(self) -> tuple[JointTable, ...]:
        """The pairs, then the segments: the order in which rows are counted."""
        return (*self.pairs, *self.segments)

    def names(self, table: JointTable) -> tuple[str, str]:
        """The columns of a table; "" for the predictions."""
        return self.columns[table.first].column, self.columns[table.second].column

    def check(self, bins: Mapping[str, int]) -> None:
        """Checks that it is about these columns, given by name with the number of their bins; "" for the predictions."""
        for each in self.columns:
            if each.column not in bins:
                raise ValueError(f"the tables name the column {each.column[:40]!r}, which the baseline does not have")
            expected = bins[each.column] + EXTRA_CELLS
            if len(each.group_of) != expected:
                raise ValueError(f"{each.column[:40]!r} has groups for {len(each.group_of)} cells, expected {expected}")

    def cells(self, known: Mapping[str, NumberCells | StringCells | ClassCells]) -> JointCells:
        """What to count by, given the cells of the columns by name; "" for the predictions."""
        groupings = (
            Grouping(each.column, known[each.column], each.group_of, len(each.labels)) for each in self.columns
        )
        return JointCells(tuple(groupings), tuple((table.first, table.second) for table in self.tables))
