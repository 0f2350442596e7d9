"""The kernels of string columns: reading elements, finding their category, and counting them.

No string becomes an object: it is hashed and compared where it lies, eight bytes at a time, so that the short strings
that categories are take no loop to mispredict. The table of categories is fixed: no request can make a search longer
than the longest run of slots that they take.
"""

from typing import Any

import numpy as np

from penstock_server.features import layout
from penstock_server.features.kernel_base import Batch, Program, kernel


@kernel
def word_at(strings: Any, at: int) -> Any:
    """The eight bytes that stand there, little-endian; the compiler makes one load of them."""
    low = np.uint64(strings[at]) | np.uint64(strings[at + 1]) << np.uint64(8)
    low |= np.uint64(strings[at + 2]) << np.uint64(16) | np.uint64(strings[at + 3]) << np.uint64(24)
    high = np.uint64(strings[at + 4]) | np.uint64(strings[at + 5]) << np.uint64(8)
    high |= np.uint64(strings[at + 6]) << np.uint64(16) | np.uint64(strings[at + 7]) << np.uint64(24)
    return low | high << np.uint64(32)


@kernel
def word_of(strings: Any, at: int, length: int) -> Any:
    """The next eight bytes of a string that has `length` more, zeros after its end."""
    if at + layout.WORD_BYTES > strings.shape[0]:
        word = np.uint64(0)
        for byte in range(min(length, layout.WORD_BYTES)):
            word |= np.uint64(strings[at + byte]) << np.uint64(8 * byte)
        return word
    word = word_at(strings, at)
    if length < layout.WORD_BYTES:
        return word & (np.uint64(1) << np.uint64(8 * length)) - np.uint64(1)
    return word


@kernel
def length_at(strings: Any, at: int) -> Any:
    """The little-endian length that stands there."""
    low = np.int64(strings[at]) | np.int64(strings[at + 1]) << 8
    high = np.int64(strings[at + 2]) | np.int64(strings[at + 3]) << 8
    return low | high << 16


@kernel
def first_slot(strings: Any, start: int, length: int, mask: int) -> Any:
    """Where in a table the search for this string begins; `program.first_slot` has the same."""
    mixed = np.uint64(layout.HASH_START)
    for at in range(0, length, layout.WORD_BYTES):
        mixed = (mixed ^ word_of(strings, start + at, length - at)) * np.uint64(layout.HASH_PRIME)
        mixed ^= mixed >> np.uint64(32)
    return np.int64(mixed) & mask


@kernel
def are_equal(words: Any, expected: int, strings: Any, start: int, length: int) -> bool:
    """Whether the text at `expected`, filled up with zeros, is the string."""
    for at in range(0, length, layout.WORD_BYTES):
        if np.uint64(words[expected + at // layout.WORD_BYTES]) != word_of(strings, start + at, length - at):
            return False
    return True


@kernel
def code_of(words: Any, table: int, strings: Any, start: int, length: int) -> Any:
    """The code of the category with these bytes, or -1."""
    if length > words[table + layout.TABLE_LONGEST]:
        return -1
    mask = words[table + layout.TABLE_MASK]
    slot = first_slot(strings, start, length, mask)
    while True:
        at = table + layout.TABLE_WORDS + slot * layout.SLOT_WORDS
        code = words[at + layout.SLOT_CODE]
        if code < 0:
            return -1
        expected = words[at + layout.SLOT_TEXT]
        if words[at + layout.SLOT_LENGTH_BYTES] == length and are_equal(words, expected, strings, start, length):
            return code
        slot = (slot + 1) & mask


@kernel
def cell_of(program: Program, batch: Batch, record: int, code: int, length: int) -> Any:
    """The cell that a string counts in; the empty one is missing, even where it is a category."""
    last = batch.cells.shape[1]
    if length == 0:
        return last - layout.MISSING_FROM_END
    if code < 0:
        return last - layout.UNSEEN_FROM_END
    return program.words[program.words[record + layout.CELL_DATA] + code]


@kernel
def run_string(program: Program, batch: Batch, record: int, column: int, cursor: int) -> int:
    """One string column, whose elements begin at `cursor`; `out` holds zeros. Returns where the next column's begin."""
    words = program.words
    target, count = words[record + layout.TARGET], words[record + layout.COUNT]
    for row in range(batch.out.shape[0]):
        length = length_at(batch.strings, cursor)
        cursor += layout.LENGTH_BYTES
        code = code_of(words, words[record + layout.DATA], batch.strings, cursor, length)
        cursor += length
        if batch.counting:
            batch.cells[column, cell_of(program, batch, record, code, length)] += 1
        index = count if code < 0 else code
        if words[record + layout.KIND] == layout.ONE_HOT:
            batch.out[row, target + index] = 1
        else:
            batch.out[row, target] = index
    return cursor


@kernel
def count_strings(strings: Any, size: int) -> int:
    """How many elements fill the bytes exactly, or -1."""
    count = 0
    cursor = 0
    while cursor + layout.LENGTH_BYTES <= size:
        cursor += layout.LENGTH_BYTES + length_at(strings, cursor)
        count += 1
    return count if cursor == size else -1
