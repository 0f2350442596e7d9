"""The kernels of number columns: the steps, the bins, and the drift counts of raw values.

A step works on a block of a column's values at once, in a loop plain enough for the compiler to use wide registers.
"""

from math import isinf, isnan, log1p
from typing import Any

import numpy as np

from penstock_server.features import layout
from penstock_server.features.kernel_base import BLOCK, Batch, Program, kernel


@kernel
def fill(values: Any, count: int, value: float) -> None:
    """`Fill` in place."""
    for at in range(count):
        values[at] = value if isnan(values[at]) else values[at]


@kernel
def clip(values: Any, count: int, low: float, high: float) -> None:
    """`Clip` in place; NaN compares false with both sides, and passes."""
    for at in range(count):
        above = max(values[at], low)
        values[at] = high if above > high else above  # noqa: FURB136 - min() of NaN is not said to be NaN


@kernel
def log1p_each(values: Any, count: int) -> None:
    """`Log1p` in place, with numpy's values where C libraries differ in what else they do."""
    for at in range(count):
        value = values[at]
        if value <= -1.0:
            values[at] = -np.inf if value == -1.0 else np.nan
        else:
            values[at] = log1p(value)


@kernel
def standardise(values: Any, count: int, mean: float, scale: float) -> None:
    """`Standardise` in place."""
    for at in range(count):
        values[at] = (values[at] - mean) / scale


@kernel
def find_bins(values: Any, bins: Any, count: int, edges: Any, first: int, last: int) -> None:  # noqa: PLR0917 - two arrays and a range of each
    """Writes how many of the increasing edges at `first` to `last` are <= each value; 0 for NaN."""
    if last - first <= 64 and count >= 8:
        # Compares all edges, eight values at a time, with no branch to mispredict.
        bins[:count] = 0
        for edge in range(first, last):
            for at in range(count):
                bins[at] += 1.0 if edges[edge] <= values[at] else 0.0
        return
    for at in range(count):
        low, high = first, last
        while low < high:
            middle = (low + high) // 2
            if edges[middle] <= values[at]:
                low = middle + 1
            else:
                high = middle
        bins[at] = low - first


@kernel
def bucket(program: Program, batch: Batch, count: int, first: int, edges: int) -> None:
    """`Bucket` in place."""
    values, bins = batch.values, batch.bins
    find_bins(values, bins, count, program.reals, first, first + edges)
    for at in range(count):
        values[at] = edges + 1 if isnan(values[at]) else bins[at]


@kernel
def run_step(program: Program, batch: Batch, count: int, step: int) -> None:
    """One step, which stands at `step`, on the block."""
    reals, values = program.reals, batch.values
    operation, at = program.words[step], step + layout.STEP_WORDS
    if operation == layout.FILL:
        fill(values, count, reals[at])
    elif operation == layout.CLIP:
        clip(values, count, reals[at], reals[at + 1])
    elif operation == layout.LOG1P:
        log1p_each(values, count)
    elif operation == layout.STANDARDISE:
        standardise(values, count, reals[at], reals[at + 1])
    else:
        bucket(program, batch, count, at, program.words[step + 1])


@kernel
def count_block(program: Program, batch: Batch, count: int, record: int, column: int) -> None:
    """Adds each raw value of the block to its cell."""
    cells, values = batch.cells, batch.values
    first = program.words[record + layout.CELL_DATA]
    find_bins(values, batch.bins, count, program.reals, first, first + program.words[record + layout.CELL_COUNT])
    last = cells.shape[1]
    for at in range(count):
        if isnan(values[at]):
            cells[column, last - layout.MISSING_FROM_END] += 1
        elif isinf(values[at]):
            cells[column, last - layout.INFINITE_FROM_END] += 1
        else:
            cells[column, int(batch.bins[at])] += 1


@kernel
def run_number(program: Program, batch: Batch, record: int, column: int) -> None:
    """One number column, block by block: counts its raw values, and takes them through its steps."""
    words, values = program.words, batch.values
    source, target = words[record + layout.SOURCE], words[record + layout.TARGET]
    for start in range(0, batch.out.shape[0], BLOCK):
        count = min(BLOCK, batch.out.shape[0] - start)
        for at in range(count):
            values[at] = batch.numbers[start + at, source]
        if batch.counting:
            count_block(program, batch, count, record, column)
        step = words[record + layout.DATA]
        for _ in range(words[record + layout.COUNT]):
            run_step(program, batch, count, step)
            step += layout.STEP_WORDS + words[step + 1]
        for at in range(count):
            batch.out[start + at, target] = values[at]
