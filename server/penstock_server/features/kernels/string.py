"""The kernels of string columns: reading elements, and finding the code of each in a table.

No string becomes an object: it is hashed and compared where it lies, eight bytes at a time, so that the short strings
that categories are take no loop to mispredict. The table is fixed: no request can make a search longer than the longest
run of slots that they take. Places are unsigned, so that none is asked whether it counts from the end.
"""

from typing import Any

import numpy as np

from penstock_server.features.compiler import layout
from penstock_server.features.kernels.base import BatchMemory, Program, RowBlock, half_word_at, inlined, kernel, word_at


@inlined
def length_at(strings: Any, at: int) -> Any:
    """The little-endian length that stands there."""
    return np.int64(half_word_at(strings, at))


@inlined
def word_of(strings: Any, at: int, length: int) -> Any:
    """The next eight bytes of a string that has `length` more, zeros after its end; what it reads beyond is padding."""
    word = word_at(strings, at)
    if length < layout.WORD_BYTES:
        return word & (np.uint64(1) << np.uint64(8 * length)) - np.uint64(1)
    return word


@inlined
def mixed_of(strings: Any, start: int, length: int) -> Any:
    """The hash of a string; `string_table.mixed_of` has the same."""
    mixed = np.uint64(layout.HASH_START)
    for at in range(0, length, layout.WORD_BYTES):
        mixed = (mixed ^ word_of(strings, start + at, length - at)) * np.uint64(layout.HASH_PRIME)
        mixed ^= mixed >> np.uint64(32)
    return mixed


@inlined
def are_equal(words: Any, expected: Any, strings: Any, start: int, length: int) -> bool:
    """Whether the text at `expected`, filled up with zeros, is the string."""
    for at in range(0, length, layout.WORD_BYTES):
        if np.uint64(words[expected]) != word_of(strings, start + at, length - at):
            return False
        expected += np.uint64(1)
    return True


@inlined
def code_of(words: Any, table: Any, strings: Any, start: int, length: int) -> Any:
    """The code of the string with these bytes, or that of the unseen."""
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
        # A hash that is equal is hardly ever another string's; the text decides.
        if np.uint64(words[at + np.uint64(layout.SLOT_HASH)]) == mixed:
            expected = np.uint64(words[at + np.uint64(layout.SLOT_TEXT)])
            is_as_long = words[at + np.uint64(layout.SLOT_LENGTH_BYTES)] == length
            if is_as_long and are_equal(words, expected, strings, start, length):
                return code
        slot = (slot + np.uint64(1)) & mask


@inlined
def find_block(program: Program, batch: BatchMemory, block: RowBlock, entry: int, codes: Any) -> None:
    """Writes the code of each of a block's elements of a string column."""
    column, table = program.words[entry + 1], np.uint64(program.words[entry + 4])
    cursor = batch.cursors[batch.begin + column]
    for row in range(block.rows):
        length = length_at(batch.strings, cursor)
        cursor += layout.LENGTH_BYTES
        codes[row] = code_of(program.words, table, batch.strings, cursor, length)
        cursor += length
    batch.cursors[batch.begin + batch.strings_count + column] = cursor


@inlined
def are_whole(strings: Any, size: int, rows: int, cursors: Any, begin: int, columns: int) -> bool:  # noqa: PLR0917 - two ranges
    """Whether the bytes are exactly `rows` elements for each column; writes where each column's begin, from `begin` on."""
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
