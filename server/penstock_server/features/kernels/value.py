"""The kernels of steps that treat every value alike, and those that load and store values.

A step works in place on a block of one column's values, in a loop plain enough for LLVM to vectorise. `layout` lists the words
of each operation's entries.
"""

from math import isnan
from typing import Any

import numpy as np

from penstock_server.features.compiler import layout
from penstock_server.features.kernels.memory import BatchMemory, Program, RowBlock
from penstock_server.kernels.base import inlined, kernel


@inlined
def bring(program: Program, registers: Any, entry: int, count: int) -> None:
    """Copies an entry's source to the register that it writes, unless they are the same."""
    source, target = program.words[entry], program.words[entry + 1]
    if source != target:
        given, values = registers[source], registers[target]
        for row in range(count):
            values[row] = given[row]


@inlined
def load(batch: BatchMemory, block: RowBlock, column: int, values: Any) -> None:
    """Copies a raw number column's values to a register."""
    first, place = np.uint64(block.first), np.uint64(column)
    for row in range(block.rows):
        values[row] = batch.numbers[first + np.uint64(row), place]


@inlined
def store(program: Program, batch: BatchMemory, block: RowBlock, registers: Any, at: int, end: int) -> None:
    """`STORE`: a value that is too large for float32 becomes an infinity."""
    first = np.uint64(block.first)
    for entry in range(at, end, layout.ENTRY_WORDS[layout.STORE]):
        values, output = registers[program.words[entry]], np.uint64(program.words[entry + 1])
        if batch.is_double:
            for row in range(block.rows):
                batch.doubles[first + np.uint64(row), output] = values[row]
        else:
            for row in range(block.rows):
                batch.singles[first + np.uint64(row), output] = np.float32(values[row])


@kernel
def constant(program: Program, registers: Any, at: int, end: int, count: int) -> None:
    """`VALUE`: every value is the same."""
    for entry in range(at, end, layout.ENTRY_WORDS[layout.VALUE]):
        values = registers[program.words[entry]]
        value = program.reals[entry + 1]
        for row in range(count):
            values[row] = value


@kernel
def fill(program: Program, registers: Any, at: int, end: int, count: int) -> None:
    """`FILL`: NaN becomes the value."""
    for entry in range(at, end, layout.ENTRY_WORDS[layout.FILL]):
        bring(program, registers, entry, count)
        values = registers[program.words[entry + 1]]
        value = program.reals[entry + 2]
        for row in range(count):
            values[row] = value if isnan(values[row]) else values[row]


@kernel
def fill_equal(program: Program, registers: Any, at: int, end: int, count: int) -> None:
    """`FILL_EQUAL`: what equals `missing` becomes the value."""
    for entry in range(at, end, layout.ENTRY_WORDS[layout.FILL_EQUAL]):
        bring(program, registers, entry, count)
        values = registers[program.words[entry + 1]]
        value, missing = program.reals[entry + 2], program.reals[entry + 3]
        for row in range(count):
            values[row] = value if values[row] == missing else values[row]


@kernel
def is_nan(program: Program, registers: Any, at: int, end: int, count: int) -> None:
    """`IS_NAN`: 1 for NaN, else 0."""
    for entry in range(at, end, layout.ENTRY_WORDS[layout.IS_NAN]):
        bring(program, registers, entry, count)
        values = registers[program.words[entry + 1]]
        for row in range(count):
            values[row] = 1.0 if isnan(values[row]) else 0.0


@kernel
def is_equal(program: Program, registers: Any, at: int, end: int, count: int) -> None:
    """`IS_EQUAL`: 1 for what equals `missing`, else 0."""
    for entry in range(at, end, layout.ENTRY_WORDS[layout.IS_EQUAL]):
        bring(program, registers, entry, count)
        values = registers[program.words[entry + 1]]
        missing = program.reals[entry + 2]
        for row in range(count):
            values[row] = 1.0 if values[row] == missing else 0.0


@kernel
def clip(program: Program, registers: Any, at: int, end: int, count: int) -> None:
    """`CLIP`: NaN compares false with both sides, so it passes."""
    for entry in range(at, end, layout.ENTRY_WORDS[layout.CLIP]):
        bring(program, registers, entry, count)
        values = registers[program.words[entry + 1]]
        low, high = program.reals[entry + 2], program.reals[entry + 3]
        for row in range(count):
            above = max(values[row], low)
            values[row] = high if above > high else above  # noqa: FURB136 - min() of NaN is not said to be NaN


@kernel
def standardise(program: Program, registers: Any, at: int, end: int, count: int) -> None:
    """`STANDARDISE`: less the mean, then divided by the scale."""
    for entry in range(at, end, layout.ENTRY_WORDS[layout.STANDARDISE]):
        bring(program, registers, entry, count)
        values = registers[program.words[entry + 1]]
        mean, scale = program.reals[entry + 2], program.reals[entry + 3]
        for row in range(count):
            values[row] = (values[row] - mean) / scale


@kernel
def linear(program: Program, registers: Any, at: int, end: int, count: int) -> None:
    """`LINEAR`: times the scale, then plus the offset; LLVM must not fuse the two."""
    for entry in range(at, end, layout.ENTRY_WORDS[layout.LINEAR]):
        bring(program, registers, entry, count)
        values = registers[program.words[entry + 1]]
        scale, offset = program.reals[entry + 2], program.reals[entry + 3]
        for row in range(count):
            values[row] = values[row] * scale + offset


@kernel
def binarise(program: Program, registers: Any, at: int, end: int, count: int) -> None:
    """`BINARISE`: 1 above the threshold, else 0."""
    for entry in range(at, end, layout.ENTRY_WORDS[layout.BINARISE]):
        bring(program, registers, entry, count)
        values = registers[program.words[entry + 1]]
        threshold = program.reals[entry + 2]
        for row in range(count):
            values[row] = 1.0 if values[row] > threshold else 0.0
