"""The kernel that hashes strings into columns: 32-bit MurmurHash3, as in scikit-learn's FeatureHasher.

Austin Appleby wrote the function and placed it in the public domain.
"""

from typing import Any

import numpy as np

from penstock_server.features.compiler import layout
from penstock_server.features.kernels.memory import BatchMemory, Program, RowBlock
from penstock_server.features.kernels.string import length_at, prepared
from penstock_server.kernels.base import half_word_at, kernel


@kernel
def rotated(word: Any, bits: int) -> Any:
    """A 32-bit word rotated to the left."""
    return (word << np.uint64(bits) | word >> np.uint64(32 - bits)) & np.uint64(0xFFFFFFFF)


@kernel
def scrambled(word: Any) -> Any:
    """A 32-bit word of the input, mixed before it enters the hash."""
    word = word * np.uint64(0xCC9E2D51) & np.uint64(0xFFFFFFFF)
    return rotated(word, 15) * np.uint64(0x1B873593) & np.uint64(0xFFFFFFFF)


@kernel
def finished(mixed: Any) -> Any:
    """The final mix, in which each of the 32 bits affects all others."""
    mixed ^= mixed >> np.uint64(16)
    mixed = mixed * np.uint64(0x85EBCA6B) & np.uint64(0xFFFFFFFF)
    mixed ^= mixed >> np.uint64(13)
    mixed = mixed * np.uint64(0xC2B2AE35) & np.uint64(0xFFFFFFFF)
    return mixed ^ mixed >> np.uint64(16)


@kernel
def byte_of(words: Any, prefix: int, prefix_bytes: int, strings: Any, start: int, at: int) -> Any:
    """A byte of the prefix followed by the string."""
    if at < prefix_bytes:
        return np.uint64(words[prefix + at // 8]) >> np.uint64(8 * (at % 8)) & np.uint64(255)
    return np.uint64(strings[start + at - prefix_bytes])


@kernel
def murmur(words: Any, prefix: int, prefix_bytes: int, strings: Any, start: int, length: int) -> Any:
    """The signed hash of the prefix followed by the string, with seed 0."""
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
def murmur_of(text: Any, start: int, length: int) -> Any:
    """The signed hash of a range of a text that has a word of padding, with seed 0."""
    mixed = np.uint64(0)
    whole = length - length % 4
    for at in range(start, start + whole, 4):
        mixed ^= scrambled(half_word_at(text, at))
        mixed = rotated(mixed, 13) * np.uint64(5) + np.uint64(0xE6546B64) & np.uint64(0xFFFFFFFF)
    rest = np.uint64(8 * (length - whole))
    word = half_word_at(text, start + whole) & (np.uint64(1) << rest) - np.uint64(1)
    mixed = finished(mixed ^ scrambled(word) ^ np.uint64(length & 0xFFFFFFFF))
    value = np.int64(mixed)
    return value - (1 << 32) if value >= 1 << 31 else value


@kernel
def hash_block(program: Program, batch: BatchMemory, block: RowBlock, registers: Any, at: int, end: int) -> None:
    """`HASH`: zeros, and 1 or -1 in the column of each row's hash."""
    words = program.words
    for entry in range(at, end, layout.ENTRY_WORDS[layout.HASH]):
        target, column, width = words[entry], words[entry + 1], words[entry + 2]
        is_signed, leaves_zeros = words[entry + 3] != 0, words[entry + 4] != 0
        prefix, prefix_bytes = words[entry + 5], words[entry + 6]
        mapping, sides = words[entry + 7], words[entry + 8]
        for output in range(target, target + width):
            registers[output, : block.rows] = 0.0
        cursor = batch.cursors[batch.begin + column]
        for row in range(block.rows):
            length = length_at(batch.strings, cursor)
            cursor += layout.LENGTH_BYTES
            if length or not leaves_zeros:
                if mapping:
                    start, stop = prepared(program, batch, mapping, sides, cursor, length)
                    hashed = murmur(words, prefix, prefix_bytes, batch.text.bytes, start, stop - start)
                else:
                    hashed = murmur(words, prefix, prefix_bytes, batch.strings, cursor, length)
                registers[target + abs(hashed) % width, row] = -1.0 if hashed < 0 and is_signed else 1.0
            cursor += length
        batch.cursors[batch.begin + batch.strings_count + column] = cursor
