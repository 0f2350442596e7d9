"""The kernel of splines: the B-spline basis functions at a value, by the recurrence of de Boor and Cox.

At most degree + 1 of the functions are not zero at a value. The program holds the functions' values and slopes at both ends.
"""

from math import isfinite, isnan
from typing import Any, Final

import numpy as np

from penstock_server.features.compiler import layout
from penstock_server.features.kernels.code import count_below
from penstock_server.features.kernels.memory import Program
from penstock_server.kernels.base import c_function, kernel

_fmod: Final = c_function("fmod", 2)


@kernel
def basis(reals: Any, knots: int, interval: int, degree: int, value: float, out: Any, before: Any) -> None:
    """Writes the degree + 1 functions that are not zero between knot `interval` and the next; `before` is scratch."""
    out[0] = 1.0
    for order in range(1, degree + 1):
        for at in range(order):
            before[at] = out[at]
        out[0] = 0.0
        for at in range(1, order + 1):
            right = reals[knots + interval + at]
            left = reals[knots + interval + at - order]
            if right == left:
                out[at] = 0.0
                continue
            weight = before[at - 1] / (right - left)
            out[at - 1] += weight * (right - value)
            out[at] = weight * (value - left)


@kernel
def around(value: float, low: float, high: float) -> float:
    """The value moved by whole periods into the range from low to high."""
    period = high - low
    rest = _fmod(value - low, period)
    return float(low + (rest + period if rest < 0.0 else rest))


@kernel
def spline_row(program: Program, spline: int, value: float, column: Any, work: Any) -> None:
    """Writes all functions at a value inside an interval, or continues the outer ones."""
    words = program.words
    degree, knots = words[spline + layout.SPLINE_DEGREE], spline + layout.SPLINE_WORDS
    functions = words[spline + layout.SPLINE_KNOTS] - degree - 1
    width = words[spline + layout.SPLINE_WIDTH]
    inner = count_below(program.reals, knots + degree, knots + functions, value) - 1
    interval = degree + max(inner, 0)
    basis(program.reals, knots, interval, degree, value, work[: degree + 1], work[degree + 1 :])
    joined = functions - degree if words[spline + layout.SPLINE_KIND] == layout.PERIODIC else functions
    odd = 0
    for at in range(degree + 1):
        odd += not isfinite(work[at])
    # In a sum of all functions, each times 0 or 1, one that overflowed makes the others NaN: so it is in scipy.
    column[:] = np.nan if odd else 0.0
    for at in range(degree + 1):
        function = interval - degree + at
        function = function - joined if function >= joined else function
        if function < width and odd == 0:
            column[function] += work[at]
        elif function < width and odd == 1 and not isfinite(work[at]):
            column[function] = work[at]


@kernel
def beyond(program: Program, spline: int, value: float, column: Any, is_above: bool) -> None:
    """Writes all functions at a value beyond an end: their values there, continued along their slopes if `SLOPE` says so."""
    words, reals = program.words, program.reals
    knots, degree = spline + layout.SPLINE_WORDS, words[spline + layout.SPLINE_DEGREE]
    functions = words[spline + layout.SPLINE_KNOTS] - degree - 1
    ends = knots + words[spline + layout.SPLINE_KNOTS] + (2 * functions if is_above else 0)
    edge = reals[knots + functions] if is_above else reals[knots + degree]
    for at in range(words[spline + layout.SPLINE_WIDTH]):
        slope = reals[ends + functions + at]
        column[at] = reals[ends + at]
        if words[spline + layout.SPLINE_KIND] == layout.SLOPE and slope != 0.0:
            column[at] += (value - edge) * slope


@kernel
def spline_at(program: Program, spline: int, value: float, column: Any, work: Any) -> None:
    """Writes a row's functions; `work` is scratch of twice the degree and two."""
    words, reals = program.words, program.reals
    kind, knots = words[spline + layout.SPLINE_KIND], spline + layout.SPLINE_WORDS
    low = reals[knots + words[spline + layout.SPLINE_DEGREE]]
    high = reals[knots + words[spline + layout.SPLINE_KNOTS] - words[spline + layout.SPLINE_DEGREE] - 1]
    is_missing = isnan(value)
    if kind == layout.PERIODIC:
        value = around(value, low, high)
    if is_missing and words[spline + layout.SPLINE_ZEROS]:
        column[:] = 0.0
    elif isnan(value):
        column[:] = np.nan
    elif (kind == layout.CONSTANT or kind == layout.SLOPE) and not low <= value <= high:
        beyond(program, spline, value, column, value > high)
    else:
        spline_row(program, spline, value, column, work)


@kernel
def splines(program: Program, registers: Any, at: int, end: int, count: int) -> None:
    """`SPLINE`: the basis functions at each value."""
    work = registers[0]
    for entry in range(at, end, layout.ENTRY_WORDS[layout.SPLINE]):
        source, target, spline = program.words[entry], program.words[entry + 1], program.words[entry + 2]
        width = program.words[spline + layout.SPLINE_WIDTH]
        for row in range(count):
            spline_at(program, spline, registers[source, row], registers[target : target + width, row], work)
