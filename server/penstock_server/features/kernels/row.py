"""The kernels that look at several columns of a row together: products and norms."""

from typing import Any

import numpy as np

from penstock_server.features.compiler import layout
from penstock_server.features.kernels.memory import Program
from penstock_server.features.kernels.value import bring
from penstock_server.kernels.base import kernel


@kernel
def product(program: Program, registers: Any, at: int, end: int, count: int) -> None:
    """`PRODUCT`: left times right."""
    for entry in range(at, end, layout.ENTRY_WORDS[layout.PRODUCT]):
        left, right = registers[program.words[entry]], registers[program.words[entry + 1]]
        values = registers[program.words[entry + 2]]
        for row in range(count):
            values[row] = left[row] * right[row]


@kernel
def add_norm(kind: int, norm: Any, values: Any, count: int) -> None:
    """Adds a column's values to the norms of the rows; NaN makes a norm NaN."""
    if kind == layout.L1:
        for row in range(count):
            norm[row] += abs(values[row])
    elif kind == layout.L2:
        for row in range(count):
            norm[row] += values[row] * values[row]
    else:
        for row in range(count):
            size = abs(values[row])
            norm[row] = norm[row] if norm[row] >= size or norm[row] != norm[row] else size


@kernel
def normalise(program: Program, registers: Any, at: int, end: int, count: int) -> None:
    """`NORMALISE`: each value divided by its row's norm, unless that is 0."""
    norm = registers[0]
    for row in range(count):
        norm[row] = 0.0
    for entry in range(at, end, layout.ENTRY_WORDS[layout.NORMALISE]):
        add_norm(program.words[entry + 2], norm, registers[program.words[entry]], count)
    if program.words[at + 2] == layout.L2:
        for row in range(count):
            norm[row] = np.sqrt(norm[row])
    for row in range(count):
        norm[row] = 1.0 if norm[row] == 0.0 else norm[row]
    for entry in range(at, end, layout.ENTRY_WORDS[layout.NORMALISE]):
        bring(program, registers, entry, count)
        values = registers[program.words[entry + 1]]
        for row in range(count):
            values[row] /= norm[row]
