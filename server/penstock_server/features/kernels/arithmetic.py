"""The kernels of expressions: functions of two values, and the choice between two.

The function is chosen per value, as in `function`. Arithmetic gives numpy's result to the last bit; `power`, `hypot` and
`arctan2` come from the C library.
"""

from math import copysign, isnan
from typing import Any, Final

import numpy as np

from penstock_server.features.compiler import layout
from penstock_server.features.kernels.memory import Program
from penstock_server.kernels.base import c_function, kernel

_arctan2: Final = c_function("atan2", 2)
_fmod: Final = c_function("fmod", 2)
_hypot: Final = c_function("hypot", 2)
_power: Final = c_function("pow", 2)


@kernel
def of_library_of_two(function: int, left: float, right: float) -> Any:
    """A function of the C library, by its code."""
    if function == layout.ARCTAN2:
        return _arctan2(left, right)
    if function == layout.HYPOT:
        return _hypot(left, right)
    return _power(left, right)


@kernel
def remainder_of(left: float, right: float) -> Any:
    """The remainder with the sign of the divisor, as numpy and Python have it."""
    rest = _fmod(left, right)
    if right == 0.0:
        return rest
    if rest == 0.0:
        return copysign(0.0, right)
    return rest + right if (right < 0.0) != (rest < 0.0) else rest


@kernel
def floor_divided(left: float, right: float) -> Any:
    """The quotient rounded down, by way of the remainder, as numpy has it: 1 // 0.1 is 9."""
    if right == 0.0:
        return left / right
    rest = _fmod(left, right)
    quotient = (left - rest) / right
    if rest != 0.0 and (right < 0.0) != (rest < 0.0):
        quotient -= 1.0
    if quotient == 0.0:
        return copysign(0.0, left / right)
    below = np.floor(quotient)
    return below + 1.0 if quotient - below > 0.5 else below


@kernel
def exactly_of_two(function: int, left: float, right: float) -> Any:
    """A function that is exact, by its code."""
    if function == layout.ADD:
        return left + right
    if function == layout.SUBTRACT:
        return left - right
    if function == layout.MULTIPLY:
        return left * right
    if function == layout.DIVIDE:
        return left / right
    if function == layout.FLOOR_DIVIDE:
        return floor_divided(left, right)
    if function == layout.REMAINDER:
        return remainder_of(left, right)
    if function == layout.FMOD:
        return _fmod(left, right)
    if function == layout.MAXIMUM:
        return left if left >= right or isnan(left) else right
    if function == layout.MINIMUM:
        return left if left <= right or isnan(left) else right
    if function == layout.FMAX:
        return left if left >= right or isnan(right) else right
    if function == layout.FMIN:
        return left if left <= right or isnan(right) else right
    if function == layout.COPYSIGN:
        return copysign(left, right)
    return 1.0 if is_true(function, left, right) else 0.0


@kernel
def is_true(function: int, left: float, right: float) -> Any:
    """A comparison or a logical function, by its code; NaN counts as true."""
    if function == layout.LESS:
        return left < right
    if function == layout.LESS_EQUAL:
        return left <= right
    if function == layout.GREATER:
        return left > right
    if function == layout.GREATER_EQUAL:
        return left >= right
    if function == layout.EQUAL:
        return left == right
    if function == layout.NOT_EQUAL:
        return left != right
    if function == layout.LOGICAL_AND:
        return left != 0.0 and right != 0.0
    if function == layout.LOGICAL_OR:
        return left != 0.0 or right != 0.0
    return (left != 0.0) != (right != 0.0)


@kernel
def binary(program: Program, registers: Any, at: int, end: int, count: int) -> None:
    """`BINARY`: the function of each pair of values; it may write where it reads."""
    words = program.words
    for entry in range(at, end, layout.ENTRY_WORDS[layout.BINARY]):
        left, right, values = registers[words[entry]], registers[words[entry + 1]], registers[words[entry + 2]]
        function = words[entry + 3]
        if function < layout.FIRST_EXACT_OF_TWO:
            for row in range(count):
                values[row] = of_library_of_two(function, left[row], right[row])
        else:
            for row in range(count):
                values[row] = exactly_of_two(function, left[row], right[row])


@kernel
def choose(program: Program, registers: Any, at: int, end: int, count: int) -> None:
    """`CHOOSE`: one value where the condition is not 0, the other where it is; it may write where it reads."""
    words = program.words
    for entry in range(at, end, layout.ENTRY_WORDS[layout.CHOOSE]):
        condition, values = registers[words[entry]], registers[words[entry + 3]]
        chosen, other = registers[words[entry + 1]], registers[words[entry + 2]]
        for row in range(count):
            values[row] = chosen[row] if condition[row] != 0.0 else other[row]
