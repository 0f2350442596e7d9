"""Compiles a specification, and the cells to count in, into the program that the kernels read.

`lower` makes the instructions, `passes` merges them and assigns registers, and this module encodes them as `layout` says.
`pipeline` calls it once per version.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.errors import InvalidInputError
from penstock_server.features import counting
from penstock_server.features.cells import Cells
from penstock_server.features.compiler import layout
from penstock_server.features.compiler.instructions import Entry, Instruction
from penstock_server.features.compiler.lower import lower
from penstock_server.features.compiler.passes import assign_registers, merge_instructions
from penstock_server.features.spec.spec import FeatureSpec, StringColumn, TimeColumn

# Measured: a block's registers should stay in the second-level cache; more than 256 rows gain nothing, fewer than 16 lose.
_SCRATCH_BYTES = 128 << 10
_MOST_ROWS, _LEAST_ROWS = 256, 16

_ON_ZEROS: Final = frozenset({layout.ONE_HOT_OUT, layout.GRAMS_OUT})
"""Operations that write only what is not zero to outputs."""

TEXT_PAD_BYTES: Final = 2 * layout.PAD_BYTES


@dataclass(frozen=True, slots=True)
class CompiledProgram:
    """A program; keep it alive as long as a kernel may read it.

    Attributes:
        words: int64, as `layout` has it.
        scratch_words: how many words of scratch memory each call needs, zero at first, without room for a text.
        text_growth: how much room: for each byte of the longest text as many, and `TEXT_PAD_BYTES`; 0 where none is needed.
        refusals: for each refusal that it can answer with, what the row does that it refuses.
    """

    words: NDArray[np.int64]
    scratch_words: int
    text_growth: int
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
    instructions = merge_instructions(draft.instructions, draft.values)
    registers, height = assign_registers(instructions, draft.values)
    # The last one holds which rows of a block are counted.
    height += cells is not None
    rows = block_rows(height)
    code = _code(instructions, draft.size, registers)
    strings = sum(isinstance(column, StringColumn) for column in spec.columns)
    times = sum(isinstance(column, TimeColumn) for column in spec.columns)
    header = [
        draft.size + len(code),
        len(spec.columns) - strings - times,
        strings,
        spec.width,
        len(spec.columns),
        counting.row_words(cells.bins) if cells else 0,
        height,
        rows,
        draft.size,
        int(spec.datatype == "FP64"),
        int(any(each.operation in _ON_ZEROS for each in draft.instructions)),
        times,
        draft.state_words,
        draft.counted,
    ]
    words = np.concatenate([np.array(header, np.int64), *draft.data, code])
    scratch = height * rows + 2 * strings + draft.state_words
    return CompiledProgram(words, scratch, draft.text_growth, tuple(draft.refusals))


def block_rows(height: int) -> int:
    """How many rows go through the program together: a power of two."""
    rows = _MOST_ROWS
    while rows > _LEAST_ROWS and rows * height * 8 > _SCRATCH_BYTES:
        rows //= 2
    return rows


def _code(instructions: Sequence[Instruction], start: int, registers: list[int]) -> NDArray[np.int64]:
    """The instructions as words, for the position `start`."""
    code: list[int] = []
    for instruction in instructions:
        size = layout.ENTRIES + len(instruction.entries) * layout.ENTRY_WORDS[instruction.operation]
        code += [instruction.operation, start + len(code) + size]
        code += chain.from_iterable(_words(entry, registers) for entry in instruction.entries)
    return np.array([*code, layout.END, 0], np.int64)


def _words(entry: Entry, registers: list[int]) -> list[int]:
    return [
        *(registers[value] for value in entry.reads),
        *(registers[value] for value in entry.writes[:1]),
        *entry.words,
    ]
