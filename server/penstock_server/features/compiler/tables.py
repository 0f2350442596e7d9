"""The table in which a kernel finds the code of a string: hashed, open, and never fuller than a quarter.

`program` asks for its words; `kernels.string` searches it by the same hash.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from penstock_server.features.compiler import layout

_MASK_64 = 2**64 - 1


def table_words(values: Sequence[bytes], start: int) -> NDArray[np.int64]:
    """A table of these distinct strings, each with its place as code, for the position `start`: slots, then the text."""
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
    """The slots of a table with so many strings: a power of two, four times as many at least."""
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


def ends(knots: Sequence[float], degree: int) -> list[float]:
    """Values at the low end, slopes there, values at the high end, slopes there: one for each function."""
    last = len(knots) - degree - 1
    low, high = knots[degree], knots[last]
    sides = ((degree, low), (last - 1, high))
    return [number for interval, at in sides for row in _at(knots, degree, interval, at) for number in row]


def _at(knots: Sequence[float], degree: int, interval: int, at: float) -> tuple[list[float], list[float]]:
    functions = len(knots) - degree - 1
    values = _placed(functions, interval - degree, _basis(knots, degree, interval, at))
    if not degree:
        return values, [0.0] * functions
    lower = _placed(functions + 1, interval - degree + 1, _basis(knots, degree - 1, interval, at))
    shares = [
        lower[each] / span if (span := knots[each + degree] - knots[each]) else 0.0 for each in range(functions + 1)
    ]
    return values, [degree * (shares[each] - shares[each + 1]) for each in range(functions)]


def _basis(knots: Sequence[float], degree: int, interval: int, at: float) -> list[float]:
    """The degree + 1 functions that are not zero in an interval, by the recurrence of de Boor and Cox."""
    found = [1.0]
    for order in range(1, degree + 1):
        before, found = found, [0.0] * (order + 1)
        for each in range(1, order + 1):
            right, left = knots[interval + each], knots[interval + each - order]
            weight = before[each - 1] / (right - left)
            found[each - 1] += weight * (right - at)
            found[each] = weight * (at - left)
    return found


def _placed(count: int, first: int, found: list[float]) -> list[float]:
    row = [0.0] * count
    row[first : first + len(found)] = found
    return row
