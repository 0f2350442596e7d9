"""The kernels of string columns: reading elements, and finding the code of each in a hash table.

No string becomes an object: it is hashed and compared in the request's bytes, eight at a time, so that a short category takes
no loop. The table is fixed, so no request can make a search longer than its longest run of used slots. Positions are unsigned,
since numba checks signed indices for negative ones.
"""

from typing import Any

import numpy as np

from penstock_server.features.compiler import layout
from penstock_server.features.kernels.memory import BatchMemory, Program, RowBlock
from penstock_server.features.kernels.text import stripped, write_mapped
from penstock_server.kernels.base import half_word_at, inlined, kernel, word_at


@inlined
def length_at(strings: Any, at: int) -> Any:
    """The little-endian length at a position."""
    return np.int64(half_word_at(strings, at))


@inlined
def word_of(strings: Any, at: int, length: int) -> Any:
    """The next eight bytes of a string with `length` left, zeros after its end; it may read padding beyond."""
    word = word_at(strings, at)
    if length < layout.WORD_BYTES:
        return word & (np.uint64(1) << np.uint64(8 * length)) - np.uint64(1)
    return word


@inlined
def mixed_of(strings: Any, start: int, length: int) -> Any:
    """The hash of a string, as `compiler.tables.mixed_of` has it."""
    mixed = np.uint64(layout.HASH_START)
    for at in range(0, length, layout.WORD_BYTES):
        mixed = (mixed ^ word_of(strings, start + at, length - at)) * np.uint64(layout.HASH_PRIME)
        mixed ^= mixed >> np.uint64(32)
    return mixed


@inlined
def are_equal(words: Any, expected: Any, strings: Any, start: int, length: int) -> bool:
    """Whether the string equals the text at `expected`, which is padded with zeros."""
    for at in range(0, length, layout.WORD_BYTES):
        if np.uint64(words[expected]) != word_of(strings, start + at, length - at):
            return False
        expected += np.uint64(1)
    return True


@inlined
def find_code(words: Any, table: Any, strings: Any, start: int, length: int) -> Any:
    """The code of a string, or the code of the unseen."""
    unseen = words[table + np.uint64(layout.TABLE_COUNT)]
    if length > words[table + np.uint64(layout.TABLE_LONGEST)]:
        return unseen
    mask = np.uint64(words[table + np.uint64(layout.TABLE_MASK)])
    mixed = mixed_of(strings, start, length)
    slot = mixed & mask
    while True:
        at = table + np.uint64(layout.TABLE_WORDS) + slot * np.uint64(layout.SLOT_WORDS)
        code = words[at + np.uint64(layout.SLOT_CODE)]
        if code < 0:
            return unseen
        # Another string has the same hash only rarely; the text decides.
        if np.uint64(words[at + np.uint64(layout.SLOT_HASH)]) == mixed:
            expected = np.uint64(words[at + np.uint64(layout.SLOT_TEXT)])
            is_as_long = words[at + np.uint64(layout.SLOT_LENGTH_BYTES)] == length
            if is_as_long and are_equal(words, expected, strings, start, length):
                return code
        slot = (slot + np.uint64(1)) & mask


@inlined
def find_block(program: Program, batch: BatchMemory, block: RowBlock, entry: int, codes: Any) -> None:
    """Writes the code of each element of a string column in a block of rows."""
    column, table = program.words[entry + 1], np.uint64(program.words[entry + 4])
    cursor = batch.cursors[batch.begin + column]
    for row in range(block.rows):
        length = length_at(batch.strings, cursor)
        cursor += layout.LENGTH_BYTES
        codes[row] = find_code(program.words, table, batch.strings, cursor, length)
        cursor += length
    batch.cursors[batch.begin + batch.strings_count + column] = cursor


@kernel
def prepared(program: Program, batch: BatchMemory, mapping: int, sides: int, start: int, length: int) -> Any:
    """Prepares a text of the request in scratch, and returns the range that it takes there."""
    memory = batch.text
    first = 8 * (memory.begin + memory.state) + layout.PAD_BYTES
    end = write_mapped(program, mapping, batch.strings, start, start + length, memory.bytes, first)
    return stripped(program.words, mapping, memory.bytes, first, end, sides)


@kernel
def find_prepared(program: Program, batch: BatchMemory, block: RowBlock, registers: Any, at: int, end: int) -> None:
    """`FIND_PREPARED`: the code of each text, prepared; a text that becomes empty has a code of its own."""
    words = program.words
    for entry in range(at, end, layout.ENTRY_WORDS[layout.FIND_PREPARED]):
        codes, column = registers[words[entry]], words[entry + 1]
        table, mapping, sides = words[entry + 2], words[entry + 3], words[entry + 4]
        cursor = batch.cursors[batch.begin + column]
        for row in range(block.rows):
            length = length_at(batch.strings, cursor)
            cursor += layout.LENGTH_BYTES
            first, stop = prepared(program, batch, mapping, sides, cursor, length)
            is_emptied = length > 0 and first == stop
            code = find_code(words, np.uint64(table), batch.text.bytes, first, stop - first)
            codes[row] = words[entry + 5] if is_emptied else code
            cursor += length
        batch.cursors[batch.begin + batch.strings_count + column] = cursor


@inlined
def are_whole(strings: Any, size: int, rows: int, cursors: Any, begin: int, columns: int) -> bool:
    """Whether the bytes are exactly `rows` elements per column; writes each column's start to `cursors`, from `begin` on."""
    cursor = 0
    for column in range(columns):
        cursors[begin + column] = cursor
        for _ in range(rows):
            if cursor + layout.LENGTH_BYTES > size:
                return False
            cursor += layout.LENGTH_BYTES + length_at(strings, cursor)
    return cursor == size


@kernel
def count_strings(strings: Any, size: int) -> int:
    """How many elements fill the bytes exactly, or -1."""
    count = 0
    cursor = 0
    while cursor + layout.LENGTH_BYTES <= size:
        cursor += layout.LENGTH_BYTES + length_at(strings, cursor)
        count += 1
    return count if cursor == size else -1
