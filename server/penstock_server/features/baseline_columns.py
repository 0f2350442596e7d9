"""One column's part of a drift baseline: the cells of its bins, and the training rows in each.

`baseline` puts the columns together and fits them. Like a specification's parts they check themselves at birth and raise
`ValueError`.
"""

from typing import Annotated

import msgspec

from penstock_server.features import limits

Count = Annotated[int, msgspec.Meta(ge=0, le=limits.MAX_COUNT)]


class NumberBaseline(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="number"):
    """A number column's edges, finite and increasing, and the training rows in each of the `len(edges) + 1` bins."""

    name: str
    edges: tuple[float, ...]
    counts: tuple[Count, ...]
    missing: Count = 0
    infinite: Count = 0

    def __post_init__(self) -> None:
        limits.increasing(self, "edges")
        if len(self.counts) != len(self.edges) + 1:
            raise ValueError(f"{len(self.counts)} counts for {len(self.edges)} edges, expected one more than edges")

    @property
    def bins(self) -> tuple[int, ...]:
        """The rows in each bin."""
        return self.counts

    @property
    def extra(self) -> tuple[int, int, int]:
        """The rows that are missing, infinite and unseen."""
        return self.missing, self.infinite, 0


class StringBaseline(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="string"):
    """A string column's watched categories by their codes in the specification, and the training rows of each."""

    name: str
    codes: tuple[Count, ...]
    counts: tuple[Count, ...]
    other: Count = 0
    missing: Count = 0
    unseen: Count = 0

    def __post_init__(self) -> None:
        limits.at_most("codes", len(self.codes), limits.MAX_EDGES)
        if len(set(self.codes)) < len(self.codes):
            raise ValueError("a code is there twice")
        if len(self.counts) != len(self.codes):
            raise ValueError(f"{len(self.counts)} counts for {len(self.codes)} codes, expected as many")

    @property
    def bins(self) -> tuple[int, ...]:
        """The rows of each watched category, and of the others together."""
        return (*self.counts, self.other)

    @property
    def extra(self) -> tuple[int, int, int]:
        """The rows that are missing, infinite and unseen."""
        return self.missing, 0, self.unseen

    def cell_of_code(self, categories: int) -> list[int]:
        """The cell that each of the specification's categories counts in."""
        cells = [len(self.codes)] * categories
        for cell, code in enumerate(self.codes):
            cells[code] = cell
        return cells


ColumnBaseline = NumberBaseline | StringBaseline
