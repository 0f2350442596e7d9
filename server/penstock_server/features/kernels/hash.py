"""The kernel that hashes strings into columns: MurmurHash3 of 32 bits, as scikit-learn's FeatureHasher uses it.

Austin Appleby's function, in the public domain.
"""

from typing import Any

import numpy as np

from penstock_server.features.compiler import layout
from penstock_server.features.kernels.base import BatchMemory, Program, RowBlock, kernel
from penstock_server.features.kernels.string import length_at


@kernel
def rotated(word: Any, bits: int) -> Any:
    """A 32-bit word rotated to the left."""
    return (word << np.uint64(bits) | word >> np.uint64(32 - bits)) & np.uint64(0xFFFFFFFF)


@kernel
def scrambled(word: Any) -> Any:
    """A 32-bit word of the input as it goes into the hash."""
    word = word * np.uint64(0xCC9E2D51) & np.uint64(0xFFFFFFFF)
    return rotated(word, 15) * np.uint64(0x1B873593) & np.uint64(0xFFFFFFFF)


@kernel
def finished(mixed: Any) -> Any:
    """Spreads every bit of the 32 over all of them."""
    mixed ^= mixed >> np.uint64(16)
    mixed = mixed * np.uint64(0x85EBCA6B) & np.uint64(0xFFFFFFFF)
    mixed ^= mixed >> np.uint64(13)
    mixed = mixed * np.uint64(0xC2B2AE35) & np.uint64(0xFFFFFFFF)
    return mixed ^ mixed >> np.uint64(16)


@kernel
def byte_of(words: Any, prefix: int, prefix_bytes: int, strings: Any, start: int, at: int) -> Any:  # noqa: PLR0917 - two texts, one after the other
    """A byte of the prefix and the string behind it."""
    if at < prefix_bytes:
        return np.uint64(words[prefix + at // 8]) >> np.uint64(8 * (at % 8)) & np.uint64(255)
    return np.uint64(strings[start + at - prefix_bytes])


@kernel
def murmur(words: Any, prefix: int, prefix_bytes: int, strings: Any, start: int, length: int) -> Any:  # noqa: PLR0917 - two texts, one after the other
    """The signed hash of the prefix and the string behind it, seed 0."""
    total = prefix_bytes + length
    mixed = np.uint64(0)
    word = np.uint64(0)
    for at in range(total):
        place = np.uint64(8 * (at % 4))
        word |= byte_of(words, prefix, prefix_bytes, strings, start, at) << place
        if at % 4 == 3:
            mixed = rotated(mixed ^ scrambled(word), 13) * np.uint64(5) + np.uint64(0xE6546B64) & np.uint64(0xFFFFFFFF)
            word = np.uint64(0)
    mixed = finished(mixed ^ scrambled(word) ^ np.uint64(total))
    value = np.int64(mixed)
    return value - (1 << 32) if value >= 1 << 31 else value


@kernel
def hash_block(program: Program, batch: BatchMemory, block: RowBlock, registers: Any, at: int, end: int) -> None:  # noqa: PLR0917 - the memory and a range
    """`HASH`."""
    words = program.words
    for entry in range(at, end, layout.ENTRY_WORDS[layout.HASH]):
        target, column, width = words[entry], words[entry + 1], words[entry + 2]
        is_signed, leaves_zeros = words[entry + 3], words[entry + 4]
        prefix, prefix_bytes = words[entry + 5], words[entry + 6]
        for output in range(target, target + width):
            registers[output, : block.rows] = 0.0
        cursor = batch.cursors[batch.begin + column]
        for row in range(block.rows):
            length = length_at(batch.strings, cursor)
            cursor += layout.LENGTH_BYTES
            if length or not leaves_zeros:
                hashed = murmur(words, prefix, prefix_bytes, batch.strings, cursor, length)
                registers[target + abs(hashed) % width, row] = -1.0 if hashed < 0 and is_signed else 1.0
            cursor += length
        batch.cursors[batch.begin + batch.strings_count + column] = cursor
