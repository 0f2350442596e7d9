"""The kernels of the drift counts: one call per raw column and block of rows, before any step.

The interpreter passes the raw numbers of a block, or the codes of its strings; of a large batch only some of them are counted.
`features.counting` says which, and where the cells are.
A column of few bins compares the whole block with each edge; others find a value's bin through the column's index.
"""

from math import inf, isnan
from sys import float_info
from typing import Any, Final, NamedTuple

import numpy as np

from penstock_server.features import counting
from penstock_server.features.kernels.memory import BatchMemory, Program, RowBlock
from penstock_server.kernels.base import Kernel, kernel, kernel_with

_ANY_ORDER: Final = {"reassoc", "nsz"}

FEW_EDGES: Final = 10
"""Up to this many edges, comparing all of them costs less than waiting for the previous addition to the same bin."""
FEW_ROWS: Final = 8
"""From so many on, loops over a block take less time than what waits for each value's branches."""
_LARGEST: Final = float_info.max


def summing_kernel(function: Kernel) -> Kernel:
    """A `kernel` that may add in any order, and so vectorises; it must compute nothing but sums."""
    return kernel_with(function, fastmath=_ANY_ORDER)


class CountsMemory(NamedTuple):
    """The counts of all columns, [columns, words], seen as integers and as reals."""

    cells: Any
    sums: Any


@kernel
def bins_of(counts: CountsMemory) -> Any:
    return (counts.cells.shape[1] - counting.EXTRA_CELLS - counting.TALLIES) // 2


@kernel
def find_places(batch: BatchMemory, block: RowBlock) -> None:
    """Writes which of each 2 ** `thinning` rows of the block, a multiple of it but for the last block, are counted."""
    apart, shift = np.uint64(batch.thinning), np.uint64(64 - batch.thinning)
    of_turn, one, two = counting.MULTIPLIERS
    first = np.uint64(batch.turn) * np.uint64(of_turn) + (np.uint64(block.first) >> apart)
    for at in range(block.rows >> batch.thinning):
        group = np.uint64(at)
        mixed = (first + group) * np.uint64(one)
        place = (group << apart) + ((mixed ^ mixed >> np.uint64(32)) * np.uint64(two) >> shift)
        batch.places[group] = np.int64(place)


@kernel
def thinned(batch: BatchMemory, block: RowBlock, values: Any, picked: Any) -> Any:
    """Picks the values of the rows that are counted; how many they are."""
    count = block.rows >> batch.thinning
    for at in range(count):
        picked[at] = values[np.uint64(batch.places[np.uint64(at)])]
    return count


@kernel
def count_number_column(
    program: Program, batch: BatchMemory, block: RowBlock, data: int, column: int, values: Any, scratch: Any
) -> None:
    """Counts the block's raw values, or some of them, in row `column`. `scratch` is of the block's size, and is written to."""
    # The cursors are a view of all scratch as integers; the registers come first in it.
    if batch.thinning:
        # Half of the scratch has room for what is picked, and the other half for what finds its bins.
        half = scratch.shape[0] // 2
        slots, found = scratch[half:], batch.cursors[half:]
        count = thinned(batch, block, values, scratch)
        count_numbers(program, data, batch.counts, column, scratch, slots, found, count)
    else:
        count_numbers(program, data, batch.counts, column, values, scratch, batch.cursors, block.rows)


@kernel
def count_code_column(
    program: Program, batch: BatchMemory, block: RowBlock, data: int, column: int, codes: Any, scratch: Any
) -> None:
    """Counts the block's codes, or some of them, as `count_number_column` does."""
    if batch.thinning:
        count_codes(program, data, batch.counts, column, scratch, thinned(batch, block, codes, scratch))
    else:
        count_codes(program, data, batch.counts, column, codes, block.rows)


@kernel
def count_numbers(
    program: Program, data: int, counts: CountsMemory, column: int, values: Any, slots: Any, found: Any, count: int
) -> None:
    """Adds each of the `count` raw values to its cell, and its value to its bin's sum, in row `column`.

    `data` is where the column's words begin; `slots` is scratch for as many values, and `found` the same seen as integers.
    """
    if count < FEW_ROWS:
        add_each(program, data, counts, column, values, count)
    elif program.words[data + counting.EDGES] <= FEW_EDGES:
        compare(program, data, counts, column, values, count)
        count_outside(program, data, counts, column, values, count)
    else:
        find_slots(program, data, values, slots, count)
        find_bins(program, data, values, slots, found, count)
        add_block(counts, column, values, found, count)
        count_outside(program, data, counts, column, values, count)


@summing_kernel
def compare(program: Program, data: int, counts: CountsMemory, column: int, values: Any, count: int) -> None:
    """Every bin in turn, over all values of the block."""
    bins = bins_of(counts)
    edges, first = program.words[data + counting.EDGES], data + program.words[data + counting.EDGES_AT]
    sums = bins + counting.EXTRA_CELLS + counting.TALLIES
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
    counts.cells[column, bins + counting.MISSING] += missing
    counts.cells[column, bins + counting.INFINITE] += count - finite - missing


@kernel
def count_outside(program: Program, data: int, counts: CountsMemory, column: int, values: Any, count: int) -> None:
    """The finite values beyond the reference's range."""
    smallest, largest = program.reals[data + counting.SMALLEST], program.reals[data + counting.LARGEST]
    below = above = 0
    for row in range(count):
        below += (values[row] < smallest) & (values[row] >= -_LARGEST)
        above += (values[row] > largest) & (values[row] <= _LARGEST)
    bins = bins_of(counts)
    counts.cells[column, bins + counting.BELOW] += below
    counts.cells[column, bins + counting.ABOVE] += above


@kernel
def find_slots(program: Program, data: int, values: Any, slots: Any, count: int) -> None:
    """Writes each value's slot in the index, as `counting.slots_of` has it."""
    low, scale = program.reals[data + counting.LOW], program.reals[data + counting.SCALE]
    top = program.reals[data + counting.TOP]
    for at in range(count):
        slot = (values[at] - low) * scale
        slot = slot if slot > 0.0 else 0.0  # noqa: FURB136 - max() of NaN is not said to be 0
        slots[at] = slot if slot < top else top  # noqa: FURB136 - min() is no faster and says less


@kernel
def bin_of(program: Program, data: Any, edges: Any, reach: int, value: float, slot: float) -> Any:
    """The bin of a value in this slot; unsigned, since numba checks signed indices for negative ones."""
    at = np.uint64(program.words[data + np.uint64(counting.INDEX) + np.uint64(np.int64(slot))])
    if reach <= 1:
        return at + np.uint64(program.reals[edges + at] <= value)
    if reach == 2:
        next_one = np.uint64(program.reals[edges + at + np.uint64(1)] <= value)
        return at + np.uint64(program.reals[edges + at] <= value) + next_one
    while program.reals[edges + at] <= value:
        at += np.uint64(1)
    return at


@kernel
def find_bins(program: Program, data: int, values: Any, slots: Any, found: Any, count: int) -> None:
    """Writes each value's bin where its slot is. In a loop of its own, since it need not wait for any sum."""
    edges, words = np.uint64(data + program.words[data + counting.EDGES_AT]), np.uint64(data)
    reach = program.words[data + counting.REACH]
    for at in range(count):
        found[at] = np.int64(bin_of(program, words, edges, reach, values[at], slots[at]))


@kernel
def add_block(counts: CountsMemory, column: int, values: Any, found: Any, count: int) -> None:
    """Values whose bins are found, each to its bin; the few that are not finite to their cells."""
    bins = bins_of(counts)
    sums = np.uint64(bins + counting.EXTRA_CELLS + counting.TALLIES)
    row = np.uint64(column)
    for at in range(count):
        value = values[at]
        if abs(value) < inf:
            cell = np.uint64(found[at])
            counts.cells[row, cell] += 1
            counts.sums[row, sums + cell] += value
        else:
            counts.cells[row, np.uint64(bins + (counting.MISSING if isnan(value) else counting.INFINITE))] += 1


@kernel
def add_each(program: Program, data: int, counts: CountsMemory, column: int, values: Any, count: int) -> None:
    """A few values one after another, in a loop that needs no preparation."""
    edges, words = np.uint64(data + program.words[data + counting.EDGES_AT]), np.uint64(data)
    bins, row = bins_of(counts), np.uint64(column)
    for at in range(count):
        value = values[at]
        if abs(value) < inf:
            slot = (value - program.reals[data + counting.LOW]) * program.reals[data + counting.SCALE]
            slot = slot if slot > 0.0 else 0.0  # noqa: FURB136 - as in `find_slots`
            slot = slot if slot < program.reals[data + counting.TOP] else program.reals[data + counting.TOP]  # noqa: FURB136
            cell = bin_of(program, words, edges, program.words[data + counting.REACH], value, slot)
            counts.cells[row, cell] += 1
            counts.sums[row, np.uint64(bins + counting.EXTRA_CELLS + counting.TALLIES) + cell] += value
            if value < program.reals[data + counting.SMALLEST]:
                counts.cells[row, np.uint64(bins + counting.BELOW)] += 1
            elif value > program.reals[data + counting.LARGEST]:
                counts.cells[row, np.uint64(bins + counting.ABOVE)] += 1
        else:
            counts.cells[row, np.uint64(bins + (counting.MISSING if isnan(value) else counting.INFINITE))] += 1


@kernel
def count_codes(program: Program, data: int, counts: CountsMemory, column: int, codes: Any, count: int) -> None:
    """Adds each of the `count` codes, whole numbers as float64, to its cell in row `column`.

    `data` is where the column's words begin: the cell of each code, the last for what the look-up did not find. The empty
    string always has a code.
    """
    row, words = np.uint64(column), np.uint64(data)
    for at in range(count):
        cell = program.words[words + np.uint64(np.int64(codes[at]))]
        counts.cells[row, np.uint64(cell)] += 1
