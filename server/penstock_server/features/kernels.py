"""The loops over rows, compiled by numba: steps, category look-up, and drift counts in one pass over a batch.

They read a program (`layout`) and raw memory, allocate nothing and raise nothing, so that the compiled object needs no
numba to run. Only `build` imports this module; `compiled` loads what it wrote. Sizes are the caller's promise, except
those inside the strings, which come from a request and are checked before the first row.
"""

from typing import Any, Final

import numpy as np

from penstock_server.features import layout
from penstock_server.features.kernel_base import (
    BLOCK,
    INT64,
    POINTER,
    Batch,
    Program,
    carray,
    entry,
    kernel,
    stack_block,
)
from penstock_server.features.kernels_number import run_number
from penstock_server.features.kernels_string import count_strings, run_string


@kernel
def run_columns(program: Program, batch: Batch) -> None:
    """Every column in turn, over all rows."""
    cursor = 0
    for row in range(batch.out.shape[0]):
        for target in range(batch.out.shape[1]):
            batch.out[row, target] = 0
    for column in range(program.words[layout.COLUMNS]):
        record = layout.HEADER_WORDS + column * layout.COLUMN_WORDS
        if program.words[record + layout.KIND] == layout.NUMBER:
            run_number(program, batch, record, column)
        else:
            cursor = run_string(program, batch, record, column, cursor)


@entry(POINTER, INT64)
def count_elements(strings: Any, size: int) -> int:
    """`count_strings` of `size` bytes."""
    return count_strings(carray(strings, (size,), np.uint8), size)


def runner(dtype: type[np.floating[Any]]) -> Any:
    """The entry point for outputs of this type: one batch; refuses torn strings before anything is written."""

    @entry(POINTER, POINTER, POINTER, INT64, INT64, POINTER, POINTER, INT64)
    def run(  # noqa: PLR0917 - the arguments of a C function
        words: Any, numbers: Any, strings: Any, strings_size: int, rows: int, out: Any, cells: Any, counting: int
    ) -> int:
        header = carray(words, (layout.HEADER_WORDS,), np.int64)
        size = header[layout.WORDS]
        raw = carray(strings, (strings_size,), np.uint8)
        if count_strings(raw, strings_size) != rows * header[layout.STRINGS]:
            return layout.TORN
        matrix = carray(out, (rows, header[layout.WIDTH]), dtype)
        table = carray(numbers, (rows, header[layout.NUMBERS]), np.float64)
        counts = carray(cells, (header[layout.COLUMNS], header[layout.CELLS]), np.int64)
        values = carray(stack_block(), (BLOCK,), np.float64)
        bins = carray(stack_block(), (BLOCK,), np.float64)
        run_columns(
            Program(carray(words, (size,), np.int64), carray(words, (size,), np.float64)),
            Batch(table, raw, matrix, counts, counting, values, bins),
        )
        return layout.DONE

    return run


ENTRIES: Final = {
    "run_FP32": runner(np.float32),
    "run_FP64": runner(np.float64),
    "count_elements": count_elements,
}
"""What C may call, by the names that `compiled` looks for."""
