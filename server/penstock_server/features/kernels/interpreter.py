"""Runs a program: each instruction over a block of rows, block after block; Python calls `run`.

The kernels read a program (`layout`) and raw memory. They allocate nothing and raise nothing, so the compiled object needs
no numba to run. Only `build` imports this module; `compiled` loads what `build` wrote. Callers guarantee the sizes, except
those inside the strings: these come from a request and are checked before the first row.
"""

from typing import Any, Final

import numpy as np

from penstock_server.features.compiler import layout
from penstock_server.features.kernels.arithmetic import binary, choose
from penstock_server.features.kernels.code import (
    bucket,
    lookup,
    lookup_out,
    match,
    one_hot,
    one_hot_out,
    refuse_code,
    refuse_outside,
)
from penstock_server.features.kernels.count import CountsMemory, count_code_column, count_number_column, find_places
from penstock_server.features.kernels.curve import box_cox, cyclic, quantiles, yeo_johnson
from penstock_server.features.kernels.function import apply
from penstock_server.features.kernels.grams import grams_block, grams_out
from penstock_server.features.kernels.hash import hash_block
from penstock_server.features.kernels.memory import BatchMemory, Program, RowBlock, TextMemory
from penstock_server.features.kernels.row import normalise, product
from penstock_server.features.kernels.spline import splines
from penstock_server.features.kernels.string import are_whole, count_strings, find_block, find_prepared
from penstock_server.features.kernels.time import calendar, load_time
from penstock_server.features.kernels.value import (
    binarise,
    clip,
    constant,
    fill,
    fill_equal,
    is_equal,
    is_nan,
    linear,
    load,
    standardise,
    store,
)
from penstock_server.kernels.base import INT64, POINTER, carray, entry_point, inlined, kernel, spliced

MOST_BYTES: Final = 1 << 62
"""The size of scratch seen as bytes: its end is the caller's concern, and no kernel asks for it."""


@inlined
def run_loads(program: Program, batch: BatchMemory, block: RowBlock, registers: Any, at: int, end: int) -> None:
    """`LOAD`: loads raw numbers, and counts them."""
    words = program.words
    for place in range(at, end, layout.ENTRY_WORDS[layout.LOAD]):
        values = registers[words[place]]
        load(batch, block, words[place + 1], values)
        if batch.is_counting:
            count_number_column(program, batch, block, words[place + 3], words[place + 2], values, registers[0])


@inlined
def run_load_times(program: Program, batch: BatchMemory, block: RowBlock, registers: Any, at: int, end: int) -> None:
    """`LOAD_TIME`: loads raw times, and counts their seconds."""
    words = program.words
    for place in range(at, end, layout.ENTRY_WORDS[layout.LOAD_TIME]):
        load_time(program, batch, block, registers, place)
        if batch.is_counting:
            seconds = registers[words[place] + 2]
            count_number_column(program, batch, block, words[place + 3], words[place + 2], seconds, registers[0])


@inlined
def run_finds(program: Program, batch: BatchMemory, block: RowBlock, registers: Any, at: int, end: int) -> None:
    """`FIND`: finds the codes of strings, and counts them."""
    words = program.words
    for place in range(at, end, layout.ENTRY_WORDS[layout.FIND]):
        codes = registers[words[place]]
        find_block(program, batch, block, place, codes)
        if batch.is_counting:
            count_code_column(program, batch, block, words[place + 3], words[place + 2], codes, registers[0])


@kernel
def run_value(operation: int, program: Program, registers: Any, at: int, end: int, count: int) -> None:
    """Runs an instruction on every value alike."""
    if operation == layout.FILL:
        fill(program, registers, at, end, count)
    elif operation == layout.FILL_EQUAL:
        fill_equal(program, registers, at, end, count)
    elif operation == layout.IS_NAN:
        is_nan(program, registers, at, end, count)
    elif operation == layout.IS_EQUAL:
        is_equal(program, registers, at, end, count)
    elif operation == layout.CLIP:
        clip(program, registers, at, end, count)
    elif operation == layout.STANDARDISE:
        standardise(program, registers, at, end, count)
    elif operation == layout.LINEAR:
        linear(program, registers, at, end, count)
    elif operation == layout.BINARISE:
        binarise(program, registers, at, end, count)
    elif operation == layout.APPLY:
        apply(program, registers, at, end, count)
    elif operation == layout.VALUE:
        constant(program, registers, at, end, count)


@kernel
def run_column(operation: int, program: Program, registers: Any, at: int, end: int, count: int) -> None:
    """Runs an instruction that makes other columns of columns."""
    if operation == layout.CYCLIC:
        cyclic(program, registers, at, end, count)
    elif operation == layout.YEO_JOHNSON:
        yeo_johnson(program, registers, at, end, count)
    elif operation == layout.BOX_COX:
        box_cox(program, registers, at, end, count)
    elif operation == layout.QUANTILES:
        quantiles(program, registers, at, end, count)
    elif operation == layout.SPLINE:
        splines(program, registers, at, end, count)
    elif operation == layout.BUCKET:
        bucket(program, registers, at, end, count)
    elif operation == layout.MATCH:
        match(program, registers, at, end, count)
    elif operation == layout.ONE_HOT:
        one_hot(program, registers, at, end, count)
    elif operation == layout.LOOKUP:
        lookup(program, registers, at, end, count)
    elif operation == layout.PRODUCT:
        product(program, registers, at, end, count)
    elif operation == layout.NORMALISE:
        normalise(program, registers, at, end, count)
    elif operation == layout.BINARY:
        binary(program, registers, at, end, count)
    elif operation == layout.CHOOSE:
        choose(program, registers, at, end, count)
    elif operation == layout.CALENDAR:
        calendar(program, registers, at, end, count)


@spliced
def run_edge(
    operation: int, program: Program, batch: BatchMemory, block: RowBlock, registers: Any, at: int, end: int
) -> int:
    """Runs an instruction that touches the batch; returns how many rows it refuses."""
    if operation == layout.LOAD:
        run_loads(program, batch, block, registers, at, end)
    elif operation == layout.FIND:
        run_finds(program, batch, block, registers, at, end)
    elif operation == layout.LOAD_TIME:
        run_load_times(program, batch, block, registers, at, end)
    elif operation == layout.HASH:
        hash_block(program, batch, block, registers, at, end)
    elif operation == layout.STORE:
        store(program, batch, block, registers, at, end)
    elif operation == layout.ONE_HOT_OUT:
        one_hot_out(program, batch, block, registers, at, end)
    elif operation == layout.LOOKUP_OUT:
        lookup_out(program, batch, block, registers, at, end)
    elif operation == layout.REFUSE_CODE:
        return refuse_code(program, batch, block, registers, at, end)
    elif operation == layout.REFUSE_OUTSIDE:
        return refuse_outside(program, batch, block, registers, at, end)
    elif operation == layout.FIND_PREPARED:
        find_prepared(program, batch, block, registers, at, end)
    elif operation == layout.GRAMS:
        grams_block(program, batch, block, registers, at, end)
    elif operation == layout.GRAMS_OUT:
        grams_out(program, batch, block, at, end)
    return 0


@spliced
def run_block(program: Program, batch: BatchMemory, block: RowBlock, registers: Any) -> int:
    """Runs all instructions over a block; returns how many times a row is refused."""
    refused = 0
    at = program.words[layout.CODE]
    operation = program.words[at]
    while operation != layout.END:
        first, end = at + layout.ENTRIES, program.words[at + layout.NEXT]
        if operation >= layout.FIRST_EDGE:
            refused += run_edge(operation, program, batch, block, registers, first, end)
        elif operation >= layout.FIRST_COLUMN:
            run_column(operation, program, registers, first, end, block.rows)
        else:
            run_value(operation, program, registers, first, end, block.rows)
        at = end
        operation = program.words[at]
    return refused


@inlined
def clear(batch: BatchMemory, block: RowBlock) -> None:
    """Sets a block's outputs to zero."""
    last = block.first + block.rows
    if batch.is_double:
        batch.doubles[block.first : last] = 0.0
    else:
        batch.singles[block.first : last] = np.float32(0.0)


@spliced
def run_rows(program: Program, batch: BatchMemory, registers: Any, rows: int) -> int:
    """Runs all blocks of the batch; returns how many times a row is refused."""
    refused = 0
    for first in range(0, rows, registers.shape[1]):
        block = RowBlock(first, min(registers.shape[1], rows - first))
        if batch.thinning:
            find_places(batch, block)
        if program.words[layout.ZEROED]:
            clear(batch, block)
        refused += run_block(program, batch, block, registers)
        for cursor in range(batch.begin, batch.begin + batch.strings_count):
            batch.cursors[cursor] = batch.cursors[cursor + batch.strings_count]
    return refused


@entry_point(POINTER, INT64)
def count_elements(strings: Any, size: int) -> int:
    return count_strings(carray(strings, (size,), np.uint8), size)


@entry_point(POINTER, POINTER, POINTER, INT64, INT64, POINTER, POINTER, POINTER, POINTER, INT64)
def run(
    at: Any,
    numbers: Any,
    strings: Any,
    strings_size: int,
    rows: int,
    out: Any,
    cells: Any,
    scratch: Any,
    refused: Any,
    flags: int,
) -> int:
    """Runs one batch; refuses torn strings before anything is written. A word of padding follows the strings.

    `scratch` holds the registers, then the strings' cursors, then what texts need, whose state must be zero, and is left so.
    With the flag `RECORDING`, `refused` holds -1 for each row; without it, `refused` is not touched.
    """
    header = carray(at, (layout.HEADER_WORDS,), np.int64)
    size, width, columns = header[layout.WORDS], header[layout.WIDTH], header[layout.STRINGS]
    height, block_rows = header[layout.REGISTERS], header[layout.BLOCK_ROWS]
    texts_at, state = height * block_rows + 2 * columns, header[layout.STATE]
    cursors = carray(scratch, (texts_at + state,), np.int64)
    text = carray(strings, (strings_size,), np.uint8)
    if not are_whole(text, strings_size, rows, cursors, height * block_rows, columns):
        return layout.TORN
    program = Program(carray(at, (size,), np.int64), carray(at, (size,), np.float64))
    batch = BatchMemory(
        rows,
        carray(numbers, (rows, header[layout.NUMBERS]), np.float64),
        carray(numbers, (rows * (header[layout.NUMBERS] + header[layout.TIMES]),), np.int64),
        rows * header[layout.NUMBERS],
        text,
        cursors,
        height * block_rows,
        columns,
        TextMemory(
            cursors,
            carray(scratch, (texts_at + state,), np.float64),
            carray(scratch, (MOST_BYTES,), np.uint8),
            texts_at,
            state,
            header[layout.COUNTED],
        ),
        carray(out, (rows, width), np.float32),
        carray(out, (rows, width), np.float64),
        CountsMemory(
            carray(cells, (header[layout.COLUMNS], header[layout.CELLS]), np.int64),
            carray(cells, (header[layout.COLUMNS], header[layout.CELLS]), np.float64),
        ),
        carray(refused, (rows,), np.int64),
        header[layout.IS_DOUBLE] != 0,
        flags & layout.COUNTING != 0,
        flags & layout.RECORDING != 0,
        flags >> layout.THINNING_AT & (1 << layout.TURN_AT - layout.THINNING_AT) - 1,
        flags >> layout.TURN_AT,
        cursors[(height - 1) * block_rows : height * block_rows],
    )
    registers = carray(scratch, (height, block_rows), np.float64)
    return layout.DONE if run_rows(program, batch, registers, rows) == 0 else layout.REFUSED


ENTRY_POINTS: Final = {"run": run, "count_elements": count_elements}
"""The functions that Python calls through C, by the names that `compiled` looks for."""
