"""The functions that `Apply` knows, over a block of values.

Functions that are exact in IEEE 754 are written out here; the others come from the C library. The function is chosen
per value: the processor predicts the choice, since it is always the same, and one loop is compiled instead of thirty.
"""

from math import isfinite, isinf, isnan
from typing import Any, Final

import numpy as np

from penstock_server.features.compiler import layout
from penstock_server.features.kernels.memory import Program
from penstock_server.features.kernels.value import bring
from penstock_server.kernels.base import c_function, kernel

_arccos: Final = c_function("acos")
_arccosh: Final = c_function("acosh")
_arcsin: Final = c_function("asin")
_arcsinh: Final = c_function("asinh")
_arctan: Final = c_function("atan")
_arctanh: Final = c_function("atanh")
_cbrt: Final = c_function("cbrt")
_cos: Final = c_function("cos")
_cosh: Final = c_function("cosh")
_exp: Final = c_function("exp")
_exp2: Final = c_function("exp2")
_expm1: Final = c_function("expm1")
_log: Final = c_function("log")
_log10: Final = c_function("log10")
_log1p: Final = c_function("log1p")
_log2: Final = c_function("log2")
_sin: Final = c_function("sin")
_sinh: Final = c_function("sinh")
_tan: Final = c_function("tan")
_tanh: Final = c_function("tanh")


@kernel
def of_library(function: int, value: float) -> Any:
    """A function of the C library, by its code."""
    if function == layout.ARCCOS:
        return _arccos(value)
    if function == layout.ARCCOSH:
        return _arccosh(value)
    if function == layout.ARCSIN:
        return _arcsin(value)
    if function == layout.ARCSINH:
        return _arcsinh(value)
    if function == layout.ARCTAN:
        return _arctan(value)
    if function == layout.ARCTANH:
        return _arctanh(value)
    if function == layout.CBRT:
        return _cbrt(value)
    if function == layout.COS:
        return _cos(value)
    if function == layout.COSH:
        return _cosh(value)
    if function == layout.EXP:
        return _exp(value)
    if function == layout.EXP2:
        return _exp2(value)
    if function == layout.EXPM1:
        return _expm1(value)
    if function == layout.LOG:
        return _log(value)
    if function == layout.LOG10:
        return _log10(value)
    if function == layout.LOG1P:
        return _log1p(value)
    if function == layout.LOG2:
        return _log2(value)
    if function == layout.SIN:
        return _sin(value)
    if function == layout.SINH:
        return _sinh(value)
    if function == layout.TAN:
        return _tan(value)
    return _tanh(value)


@kernel
def sign_of(value: float) -> float:
    """1, 0 or -1, and NaN for NaN."""
    return value if isnan(value) else (1.0 if value > 0.0 else 0.0) - (1.0 if value < 0.0 else 0.0)


@kernel
def exactly(function: int, value: float) -> Any:
    """A function that is exact, by its code."""
    if function == layout.ABS:
        return abs(value)
    if function == layout.CEIL:
        return np.ceil(value)
    if function == layout.FLOOR:
        return np.floor(value)
    if function == layout.ISFINITE:
        return 1.0 if isfinite(value) else 0.0
    if function == layout.ISINF:
        return 1.0 if isinf(value) else 0.0
    if function == layout.ISNAN:
        return 1.0 if isnan(value) else 0.0
    if function == layout.NEGATIVE:
        return -value
    if function == layout.RECIPROCAL:
        return 1.0 / value
    if function == layout.RINT:
        return np.rint(value)
    if function == layout.SIGN:
        return sign_of(value)
    if function == layout.SQRT:
        return np.sqrt(value)
    if function == layout.SQUARE:
        return value * value
    if function == layout.LOGICAL_NOT:
        return 1.0 if value == 0.0 else 0.0
    if function == layout.SINGLE:
        return np.float64(np.float32(value))
    return np.trunc(value)


@kernel
def apply(program: Program, registers: Any, at: int, end: int, count: int) -> None:
    """`APPLY`: the function of each value."""
    for entry in range(at, end, layout.ENTRY_WORDS[layout.APPLY]):
        bring(program, registers, entry, count)
        values = registers[program.words[entry + 1]]
        function = program.words[entry + 2]
        if function < layout.FIRST_EXACT:
            for row in range(count):
                values[row] = of_library(function, values[row])
        else:
            for row in range(count):
                values[row] = exactly(function, values[row])
