"""The kernels between values and codes, and those that refuse rows.

Any value that is not a code counts as the unseen one, so that no input can address memory outside its table.
"""

from math import isnan
from typing import Any

import numpy as np

from penstock_server.features.compiler import layout
from penstock_server.features.kernels.memory import BatchMemory, Program, RowBlock
from penstock_server.features.kernels.value import bring
from penstock_server.kernels.base import inlined, kernel


@inlined
def code_of(value: float, unseen: int) -> Any:
    """The value as one of the codes 0 to `unseen`; unsigned, since numba checks signed indices for negative ones."""
    code = np.int64(value if 0.0 <= value <= unseen else unseen)
    return np.uint64(code if code == value else unseen)


@inlined
def count_below(reals: Any, first: int, last: int, value: float) -> int:
    """How many of the increasing numbers from `first` to `last` are <= the value."""
    low, high = first, last
    while low < high:
        middle = (low + high) // 2
        if reals[middle] <= value:
            low = middle + 1
        else:
            high = middle
    return low - first


@kernel
def bucket(program: Program, registers: Any, at: int, end: int, count: int) -> None:
    """`BUCKET`: a few edges are all compared with the whole block, without a branch to mispredict."""
    reals = program.reals
    for entry in range(at, end, layout.ENTRY_WORDS[layout.BUCKET]):
        bring(program, registers, entry, count)
        values = registers[program.words[entry + 1]]
        edges, first = program.words[entry + 2], program.words[entry + 3]
        if edges > 64 or count < 8:
            for row in range(count):
                value = values[row]
                values[row] = edges + 1 if isnan(value) else count_below(reals, first, first + edges, value)
            continue
        found = registers[0]
        for row in range(count):
            found[row] = edges + 1.0 if isnan(values[row]) else 0.0
        for edge in range(first, first + edges):
            for row in range(count):
                found[row] += 1.0 if reals[edge] <= values[row] else 0.0
        for row in range(count):
            values[row] = found[row]


@kernel
def match(program: Program, registers: Any, at: int, end: int, count: int) -> None:
    """`MATCH`: a binary search; the largest known value that is not above the value is equal to it, or none is."""
    reals = program.reals
    for entry in range(at, end, layout.ENTRY_WORDS[layout.MATCH]):
        bring(program, registers, entry, count)
        values = registers[program.words[entry + 1]]
        known, first, codes = program.words[entry + 2], program.words[entry + 3], program.words[entry + 4]
        unseen, missing = reals[codes + known], reals[entry + 5]
        for row in range(count):
            value = values[row]
            below = count_below(reals, first, first + known, value) - 1
            if isnan(value):
                values[row] = missing
            elif below >= 0 and reals[first + below] == value:
                values[row] = reals[codes + below]
            else:
                values[row] = unseen


@kernel
def one_hot(program: Program, registers: Any, at: int, end: int, count: int) -> None:
    """`ONE_HOT`: zeros, and a 1 in the column of each row's code."""
    words = program.words
    for entry in range(at, end, layout.ENTRY_WORDS[layout.ONE_HOT]):
        codes, target, width = registers[words[entry]], words[entry + 1], words[entry + 2]
        unseen, places = words[entry + 3], np.uint64(words[entry + 4])
        for column in range(target, target + width):
            values = registers[column]
            for row in range(count):
                values[row] = 0.0
        for row in range(count):
            place = words[places + code_of(codes[row], unseen)]
            if place >= 0:
                registers[target + place, row] = 1.0


@inlined
def one_hot_out(program: Program, batch: BatchMemory, block: RowBlock, registers: Any, at: int, end: int) -> None:
    """`ONE_HOT_OUT`: a 1 in the output of each row's code; the outputs are zero before."""
    words, first = program.words, np.uint64(block.first)
    for entry in range(at, end, layout.ENTRY_WORDS[layout.ONE_HOT_OUT]):
        codes, target = registers[words[entry]], words[entry + 1]
        unseen, places = words[entry + 2], np.uint64(words[entry + 3])
        for row in range(block.rows):
            place = words[places + code_of(codes[row], unseen)]
            if place >= 0:
                if batch.is_double:
                    batch.doubles[first + np.uint64(row), np.uint64(target + place)] = 1.0
                else:
                    batch.singles[first + np.uint64(row), np.uint64(target + place)] = np.float32(1.0)


@kernel
def lookup(program: Program, registers: Any, at: int, end: int, count: int) -> None:
    """`LOOKUP`: the numbers of each row's code; the source may be the first register that is written."""
    words, reals = program.words, program.reals
    for entry in range(at, end, layout.ENTRY_WORDS[layout.LOOKUP]):
        codes, target, width = registers[words[entry]], words[entry + 1], words[entry + 2]
        unseen, numbers = words[entry + 3], np.uint64(words[entry + 4])
        for row in range(count):
            place = numbers + code_of(codes[row], unseen) * np.uint64(width)
            for column in range(np.uint64(width)):
                registers[np.uint64(target) + column, row] = reals[place + column]


@inlined
def lookup_out(program: Program, batch: BatchMemory, block: RowBlock, registers: Any, at: int, end: int) -> None:
    """`LOOKUP_OUT`: the numbers of each row's code, to outputs."""
    words, reals, first = program.words, program.reals, np.uint64(block.first)
    for entry in range(at, end, layout.ENTRY_WORDS[layout.LOOKUP_OUT]):
        codes, target, width = registers[words[entry]], words[entry + 1], words[entry + 2]
        unseen, numbers = words[entry + 3], np.uint64(words[entry + 4])
        for row in range(block.rows):
            place = numbers + code_of(codes[row], unseen) * np.uint64(width)
            for column in range(np.uint64(width)):
                if batch.is_double:
                    batch.doubles[first + np.uint64(row), np.uint64(target) + column] = reals[place + column]
                else:
                    batch.singles[first + np.uint64(row), np.uint64(target) + column] = np.float32(
                        reals[place + column]
                    )


@kernel
def refuse_row(batch: BatchMemory, row: int, refusal: int) -> None:
    """Records the row's first refusal, in the order of the blocks, if refusals are recorded."""
    if batch.is_recording and (batch.refused[row] < 0 or refusal < batch.refused[row]):
        batch.refused[row] = refusal


@inlined
def refuse_code(program: Program, batch: BatchMemory, block: RowBlock, registers: Any, at: int, end: int) -> int:
    """`REFUSE_CODE`: how many rows hold a code that is none of 0 to K - 1."""
    refused = 0
    for entry in range(at, end, layout.ENTRY_WORDS[layout.REFUSE_CODE]):
        codes, unseen = registers[program.words[entry]], program.words[entry + 1]
        for row in range(block.rows):
            if not codes[row] < unseen:
                refused += 1
                refuse_row(batch, block.first + row, program.words[entry + 2])
    return refused


@kernel
def refuse_outside(program: Program, batch: BatchMemory, block: RowBlock, registers: Any, at: int, end: int) -> int:
    """`REFUSE_OUTSIDE`: how many rows hold a number below `low` or above `high`; NaN passes."""
    refused = 0
    for entry in range(at, end, layout.ENTRY_WORDS[layout.REFUSE_OUTSIDE]):
        values = registers[program.words[entry]]
        low, high = program.reals[entry + 1], program.reals[entry + 2]
        for row in range(block.rows):
            if values[row] < low or values[row] > high:
                refused += 1
                refuse_row(batch, block.first + row, program.words[entry + 3])
    return refused
