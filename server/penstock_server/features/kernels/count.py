"""The kernels of the drift counts: one call for each raw column and block of rows, before any step has touched it.

`kernels` calls them with what it has at hand anyway: the raw numbers of a block, or the codes that the strings were found
to have. `layout_counts` says where the cells are and what leads to them. Two ways lead to a number's bin: a column of few
bins compares whole blocks with each edge, which no value's neighbours can slow down, and all others look at a guide.
"""

from math import inf, isnan
from sys import float_info
from typing import Any, Final, NamedTuple, cast

import numba
import numpy as np

from penstock_server.features import counting as layout
from penstock_server.features.kernels.base import Function, Program, kernel

# numba's own types describe its plainest use only.
_numba: Any = numba
_ANY_ORDER: Final = {"reassoc", "nsz"}

FEW_EDGES: Final = 10
"""Up to so many, comparing all costs less than it does to wait for the last value's addition to the same bin."""
FEW_ROWS: Final = 16
_LARGEST: Final = float_info.max


def summing_kernel(function: Function) -> Function:
    """A `kernel` that may add in any order, and so many values at a time; nothing but sums may be computed in it."""
    return cast("Function", _numba.njit(nogil=True, error_model="numpy", _nrt=False, fastmath=_ANY_ORDER)(function))


class Counts(NamedTuple):
    """The counts of all columns, [columns, words], seen as integers and as reals."""

    cells: Any
    sums: Any


@kernel
def bins_of(counts: Counts) -> Any:
    """The bins of each row."""
    return (counts.cells.shape[1] - layout.EXTRA_CELLS - layout.TALLIES) // 2


@kernel
def count_numbers(  # noqa: PLR0917 - as the caller has them
    program: Program, data: int, counts: Counts, column: int, values: Any, places: Any, count: int
) -> None:
    """Adds each of the `count` raw values to its cell, and its value to its bin's sum, in row `column`.

    `data` is where the column's words begin; `places` is scratch of the block's size.
    """
    if count < FEW_ROWS:
        add_each(program, data, counts, column, values, count)
    elif program.words[data + layout.EDGES] <= FEW_EDGES:
        compare(program, data, counts, column, values, count)
        count_outside(program, data, counts, column, values, count)
    else:
        find_places(program, data, values, places, count)
        add_block(program, data, counts, column, values, places, count)
        count_outside(program, data, counts, column, values, count)


@summing_kernel
def compare(program: Program, data: int, counts: Counts, column: int, values: Any, count: int) -> None:  # noqa: PLR0917 - as the caller has them
    """Every bin in turn, over all values of the block."""
    bins = bins_of(counts)
    edges, first = program.words[data + layout.EDGES], data + program.words[data + layout.EDGES_AT]
    sums = bins + layout.EXTRA_CELLS + layout.TALLIES
    finite = 0
    low = -_LARGEST
    for at in range(edges + 1):
        high = program.reals[first + at] if at < edges else inf
        inside, total = 0, 0.0
        for row in range(count):
            value = values[row]
            is_inside = (low <= value) & (value < high)
            inside += is_inside
            total += value if is_inside else 0.0
        counts.cells[column, at] += inside
        counts.sums[column, sums + at] += total
        finite += inside
        low = high
    missing = 0
    for row in range(count):
        missing += isnan(values[row])
    counts.cells[column, bins + layout.MISSING] += missing
    counts.cells[column, bins + layout.INFINITE] += count - finite - missing


@kernel
def count_outside(program: Program, data: int, counts: Counts, column: int, values: Any, count: int) -> None:  # noqa: PLR0917 - as the caller has them
    """The finite values beyond the reference's range."""
    smallest, largest = program.reals[data + layout.SMALLEST], program.reals[data + layout.LARGEST]
    below = above = 0
    for row in range(count):
        below += (values[row] < smallest) & (values[row] >= -_LARGEST)
        above += (values[row] > largest) & (values[row] <= _LARGEST)
    bins = bins_of(counts)
    counts.cells[column, bins + layout.BELOW] += below
    counts.cells[column, bins + layout.ABOVE] += above


@kernel
def find_places(program: Program, data: int, values: Any, places: Any, count: int) -> None:
    """Writes each value's place in the guide; `program_counts.place_in_guide` has the same."""
    low, scale = program.reals[data + layout.LOW], program.reals[data + layout.SCALE]
    top = program.reals[data + layout.TOP]
    for at in range(count):
        place = (values[at] - low) * scale
        place = place if place > 0.0 else 0.0  # noqa: FURB136 - max() of NaN is not said to be 0
        places[at] = place if place < top else top  # noqa: FURB136 - min() is no faster and says less


@kernel
def bin_of(program: Program, data: Any, edges: Any, reach: int, value: float, place: float) -> Any:  # noqa: PLR0917 - as the caller has them
    """The bin of a value at a place; unsigned, so that no index is asked whether it counts from the end."""
    at = np.uint64(program.words[data + np.uint64(layout.GUIDE) + np.uint64(np.int64(place))])
    if reach <= 1:
        return at + np.uint64(program.reals[edges + at] <= value)
    if reach == 2:
        next_one = np.uint64(program.reals[edges + at + np.uint64(1)] <= value)
        return at + np.uint64(program.reals[edges + at] <= value) + next_one
    while program.reals[edges + at] <= value:
        at += np.uint64(1)
    return at


@kernel
def add_block(program: Program, data: int, counts: Counts, column: int, values: Any, places: Any, count: int) -> None:  # noqa: PLR0917 - as the caller has them
    """Values whose places are found, each to its bin; the few that are not finite to their cells."""
    edges = np.uint64(data + program.words[data + layout.EDGES_AT])
    bins = bins_of(counts)
    sums = np.uint64(bins + layout.EXTRA_CELLS + layout.TALLIES)
    row, words, reach = np.uint64(column), np.uint64(data), program.words[data + layout.REACH]
    for at in range(count):
        value = values[at]
        if abs(value) < inf:
            cell = bin_of(program, words, edges, reach, value, places[at])
            counts.cells[row, cell] += 1
            counts.sums[row, sums + cell] += value
        else:
            counts.cells[row, np.uint64(bins + (layout.MISSING if isnan(value) else layout.INFINITE))] += 1


@kernel
def add_each(program: Program, data: int, counts: Counts, column: int, values: Any, count: int) -> None:  # noqa: PLR0917 - as the caller has them
    """A few values one after another, in a loop with nothing to prepare for it."""
    edges, words = np.uint64(data + program.words[data + layout.EDGES_AT]), np.uint64(data)
    bins, row = bins_of(counts), np.uint64(column)
    for at in range(count):
        value = values[at]
        if abs(value) < inf:
            place = (value - program.reals[data + layout.LOW]) * program.reals[data + layout.SCALE]
            place = place if place > 0.0 else 0.0  # noqa: FURB136 - as in `find_places`
            place = place if place < program.reals[data + layout.TOP] else program.reals[data + layout.TOP]  # noqa: FURB136
            cell = bin_of(program, words, edges, program.words[data + layout.REACH], value, place)
            counts.cells[row, cell] += 1
            counts.sums[row, np.uint64(bins + layout.EXTRA_CELLS + layout.TALLIES) + cell] += value
            if value < program.reals[data + layout.SMALLEST]:
                counts.cells[row, np.uint64(bins + layout.BELOW)] += 1
            elif value > program.reals[data + layout.LARGEST]:
                counts.cells[row, np.uint64(bins + layout.ABOVE)] += 1
        else:
            counts.cells[row, np.uint64(bins + (layout.MISSING if isnan(value) else layout.INFINITE))] += 1


@kernel
def count_codes(program: Program, data: int, counts: Counts, column: int, codes: Any, count: int) -> None:  # noqa: PLR0917 - as the caller has them
    """Adds each of the `count` codes, whole numbers as float64, to its cell in row `column`.

    `data` is where the column's words begin: the cell of each code, the last for what the look-up did not find. The empty
    string always has a code.
    """
    row, words = np.uint64(column), np.uint64(data)
    for at in range(count):
        cell = program.words[words + np.uint64(np.int64(codes[at]))]
        counts.cells[row, np.uint64(cell)] += 1
