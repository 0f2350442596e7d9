"""Shares of a request's rows, such as those on which a shadow does not agree, in the cells that they are counted in.

The rows of one request are one draw: they are often alike, and fail together. So tests take a request as the unit, and what is
counted of it is the share of its rows, from 0 to 1, in a cell. A test takes the end of a cell that errs on the safe side
(`rollout.gates`). Requests of one row fall into the first cell and the last, which cost nothing. Pure.
"""

from bisect import bisect_left
from typing import Final

EDGES: Final[tuple[float, ...]] = (
    0.0, *(2 ** (k / 2 - 9) for k in range(17)), 0.625, 0.75, 0.875, 0.9375, 0.999, 1.0,
)  # fmt: skip
"""The upper ends of the cells: none, from 1/512 by factors of the square root of two to a half, nearly all, all."""


def cell_of(share: float) -> int:
    """The cell of a share from 0 to 1."""
    return bisect_left(EDGES, share)


def all_or_none(none: int, every: int) -> tuple[int, ...]:
    """The cells of so many requests of which no row is counted, and of so many of which every row is."""
    return (none, *(0 for _ in EDGES[2:]), every)
