"""Writes a specification, and the cells to count in if there are any, as the program that the kernels read.

It decides nothing about features: `lower` says what is done, `passes` where, and `layout` how that lies in memory.
`pipeline` calls it once a version.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from penstock_server.errors import InvalidInputError
from penstock_server.features import counting
from penstock_server.features.cells import Cells
from penstock_server.features.compiler import layout, passes
from penstock_server.features.compiler.instructions import Entry, Instruction
from penstock_server.features.compiler.lower import lower
from penstock_server.features.compiler.passes import merged
from penstock_server.features.spec.spec import FeatureSpec, NumberColumn

# A block's registers stay in the second-level cache; more rows than the most win nothing, fewer than the least lose.
_SCRATCH_BYTES = 128 << 10
_MOST_ROWS, _LEAST_ROWS = 256, 16


@dataclass(frozen=True, slots=True)
class CompiledProgram:
    """A program, to be kept as long as a kernel may read it.

    Attributes:
        words: int64, as `layout` has it.
        scratch_words: how many words of memory of its own each call needs.
        refusals: for each refusal that it can answer with, the raw columns that it is about.
    """

    words: NDArray[np.int64]
    scratch_words: int
    refusals: tuple[str, ...]


def compile_program(spec: FeatureSpec, cells: Cells | None) -> CompiledProgram:
    """The program of a specification.

    Raises:
        InvalidInputError: it would take more memory than a specification may.
    """
    try:
        draft = lower(spec, cells)
    except ValueError as error:
        raise InvalidInputError(f"the feature specification is too large: {error}") from error
    instructions = merged(draft.instructions, draft.values)
    places, height = passes.assign(instructions, draft.values)
    rows = block_rows(height)
    code = _code(instructions, draft.size, places)
    strings = sum(not isinstance(column, NumberColumn) for column in spec.columns)
    header = [
        draft.size + len(code),
        len(spec.columns) - strings,
        strings,
        spec.width,
        len(spec.columns),
        counting.words(cells.bins) if cells else 0,
        height,
        rows,
        draft.size,
        int(spec.datatype == "FP64"),
        int(any(each.operation == layout.ONE_HOT_OUT for each in draft.instructions)),
    ]
    words = np.concatenate([np.array(header, np.int64), *draft.data, code])
    return CompiledProgram(words, 2 * strings + height * rows, tuple(draft.refusals))


def block_rows(height: int) -> int:
    """How many rows go through the program together: a power of two."""
    rows = _MOST_ROWS
    while rows > _LEAST_ROWS and rows * height * 8 > _SCRATCH_BYTES:
        rows //= 2
    return rows


def _code(instructions: Sequence[Instruction], start: int, places: list[int]) -> NDArray[np.int64]:
    """The instructions as words, for the position `start`."""
    code: list[int] = []
    for instruction in instructions:
        size = layout.ENTRIES + len(instruction.entries) * layout.ENTRY_WORDS[instruction.operation]
        code += [instruction.operation, start + len(code) + size]
        code += chain.from_iterable(_words(entry, places) for entry in instruction.entries)
    return np.array([*code, layout.END, 0], np.int64)


def _words(entry: Entry, places: list[int]) -> list[int]:
    return [*(places[value] for value in entry.reads), *(places[value] for value in entry.writes[:1]), *entry.words]
