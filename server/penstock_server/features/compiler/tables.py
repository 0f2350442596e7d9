"""The hash table in which a kernel finds the code of a string: open addressing, at most a quarter full.

`lower` puts it into the program; `kernels.string` searches it by the same hash.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from penstock_server.features.compiler import layout

_MASK_64 = 2**64 - 1


def table_words(values: Sequence[bytes], start: int) -> NDArray[np.int64]:
    """A table of these distinct strings, each with its index as code, for the position `start`: slots, then the text."""
    slots = slot_count(len(values))
    text_at = start + layout.TABLE_WORDS + slots * layout.SLOT_WORDS
    table = np.zeros((slots, layout.SLOT_WORDS), np.int64)
    table[:, layout.SLOT_CODE] = -1
    text: list[int] = []
    for code, value in enumerate(values):
        words = words_of(value)
        mixed = mixed_of(words)
        slot = mixed & (slots - 1)
        while table[slot, layout.SLOT_CODE] >= 0:
            slot = (slot + 1) & (slots - 1)
        table[slot] = code, text_at + len(text), len(value), signed(mixed)
        text += words
    header = [slots - 1, max(map(len, values), default=0), len(values)]
    return np.concatenate([np.array(header, np.int64), table.ravel(), np.array(text, np.uint64).view(np.int64)])


def size_words(values: Sequence[bytes]) -> int:
    """How many words the table takes."""
    text = sum(-(-len(value) // layout.WORD_BYTES) for value in values)
    return layout.TABLE_WORDS + slot_count(len(values)) * layout.SLOT_WORDS + text


def slot_count(values: int) -> int:
    """The slots of a table with this many strings: a power of two, at least four times as many."""
    return max(2, 1 << (4 * values - 1).bit_length()) if values else 2


def mixed_of(text: Sequence[int]) -> int:
    """The hash of a string, given as words; its low bits say where in a table the search for it begins."""
    mixed = layout.HASH_START
    for word in text:
        mixed = (mixed ^ word) * layout.HASH_PRIME & _MASK_64
        mixed ^= mixed >> 32
    return mixed


def signed(word: int) -> int:
    """An unsigned word as the signed one with the same bits."""
    return word - (1 << 64) if word >> 63 else word


def words_of(text: bytes) -> list[int]:
    """The text as little-endian words, the last filled up with zeros."""
    parts = (text[at : at + layout.WORD_BYTES] for at in range(0, len(text), layout.WORD_BYTES))
    return [int.from_bytes(part, "little") for part in parts]
