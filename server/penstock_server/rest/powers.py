"""The powers of ten by which kernels read and write numbers, as 128 bits of mantissa.

Sources: Lemire, "Number Parsing at a Gigabyte per Second"; Giulietti, "The Schubfach Way to Render Doubles".
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.rest.layout import LEAST_POWER, MOST_POWER

_BITS: Final = 128
_HALF: Final = (1 << 64) - 1
_EXACT_TO: Final = -27
"""Reciprocals from here on are rounded up, lower ones cut off, as the proof for reading numbers has it."""


def powers() -> NDArray[np.int64]:
    """For each power its two mantissas, upper and lower half: for reading numbers, then for writing them."""
    rows = []
    for power in range(LEAST_POWER, MOST_POWER + 1):
        read, written = _for_reading(power), _for_writing(power)
        rows.append([read >> 64, read & _HALF, written >> 64, written & _HALF])
    return np.array(rows, np.uint64).view(np.int64)


def _for_reading(power: int) -> int:
    five: int = 5 ** abs(power)
    size = five.bit_length()
    if power >= 0:
        return five << (_BITS - size) if size <= _BITS else five >> (size - _BITS)
    zeros = (five - 1).bit_length()
    if power >= _EXACT_TO:
        return (1 << (zeros + _BITS - 1)) // five + 1
    quotient = (1 << (2 * zeros + _BITS)) // five + 1
    return quotient >> (quotient.bit_length() - _BITS)


def _for_writing(power: int) -> int:
    """Rounded up to 128 bits."""
    five: int = 5 ** abs(power)
    size = five.bit_length()
    if power >= 0:
        return five << (_BITS - size) if size <= _BITS else -(-five >> (size - _BITS))
    bits = size + _BITS
    while True:
        quotient = -(-(1 << bits) // five)
        if quotient.bit_length() == _BITS:
            return quotient
        bits += _BITS - quotient.bit_length()
