"""The kernels of steps that bend a column along a fitted curve: cycles, powers and quantiles."""

from math import isnan, pi
from typing import Any, Final

from penstock_server.features.compiler import layout
from penstock_server.features.kernels.base import Program, c_function, kernel
from penstock_server.features.kernels.code import count_below
from penstock_server.features.kernels.normal import normal_quantile
from penstock_server.features.kernels.value import bring

_sin: Final = c_function("sin")
_cos: Final = c_function("cos")
_exp: Final = c_function("exp")
_expm1: Final = c_function("expm1")
_log: Final = c_function("log")
_log1p: Final = c_function("log1p")

_EPSILON: Final = 2.0**-52
_LARGEST_LOG: Final = 709.78
# scikit-learn treats what lies this near to an end as the end, and bounds what the normal distribution makes of it.
_NEAR: Final = 1e-7
_LEAST, _GREATEST = -5.199337582605575, 5.19933758270342


@kernel
def cyclic(program: Program, registers: Any, at: int, end: int, count: int) -> None:
    """`CYCLIC`."""
    for entry in range(at, end, layout.ENTRY_WORDS[layout.CYCLIC]):
        values, target = registers[program.words[entry]], program.words[entry + 1]
        period = program.reals[entry + 2]
        for row in range(count):
            angle = 2.0 * pi * values[row] / period
            registers[target, row] = _sin(angle)
            registers[target + 1, row] = _cos(angle)


@kernel
def yeo_johnson_of(value: float, power: float) -> float:
    """In scipy's form, which is stable near the powers 0 and 2."""
    if value >= 0.0:
        if abs(power) < _EPSILON:
            return float(_log1p(value))
        return float(_expm1(power * _log1p(value)) / power)
    if abs(power - 2.0) > _EPSILON:
        return float(-_expm1((2.0 - power) * _log1p(-value)) / (2.0 - power))
    return float(-_log1p(-value))


@kernel
def yeo_johnson(program: Program, registers: Any, at: int, end: int, count: int) -> None:
    """`YEO_JOHNSON`."""
    for entry in range(at, end, layout.ENTRY_WORDS[layout.YEO_JOHNSON]):
        bring(program, registers, entry, count)
        values = registers[program.words[entry + 1]]
        for row in range(count):
            values[row] = yeo_johnson_of(values[row], program.reals[entry + 2])


@kernel
def box_cox_of(value: float, power: float) -> float:
    """In scipy's form, which is stable near the power 0 and does not overflow before its result does."""
    logarithm = _log(value)
    if abs(power) < 1e-19:
        return float(logarithm)
    if power * logarithm < _LARGEST_LOG:
        return float(_expm1(power * logarithm) / power)
    large = _exp(power * logarithm - _log(abs(power)))
    return float((large if power > 0.0 else -large) - 1.0 / power)


@kernel
def box_cox(program: Program, registers: Any, at: int, end: int, count: int) -> None:
    """`BOX_COX`."""
    for entry in range(at, end, layout.ENTRY_WORDS[layout.BOX_COX]):
        bring(program, registers, entry, count)
        values = registers[program.words[entry + 1]]
        for row in range(count):
            values[row] = box_cox_of(values[row], program.reals[entry + 2])


@kernel
def between_below(reals: Any, known: int, shares: int, count: int, value: float) -> float:
    """The share that belongs to a value, interpolated from the last of equal quantiles."""
    below = count_below(reals, known, known + count, value) - 1
    if below < 0:
        return float(reals[shares])
    if below == count - 1 or reals[known + below] == value:
        return float(reals[shares + below])
    left, right = reals[known + below], reals[known + below + 1]
    slope = (reals[shares + below + 1] - reals[shares + below]) / (right - left)
    return float(slope * (value - left) + reals[shares + below])


@kernel
def between_above(reals: Any, known: int, shares: int, count: int, value: float) -> float:
    """The negative of the share, interpolated from the first of equal quantiles, as if all were reversed and negative."""
    low, high = 0, count
    while low < high:
        middle = (low + high) // 2
        if reals[known + middle] < value:
            low = middle + 1
        else:
            high = middle
    above = low
    if above == count:
        return float(-reals[shares + count - 1])
    if above == 0 or reals[known + above] == value:
        return float(-reals[shares + above])
    left, right = reals[known + above - 1], reals[known + above]
    slope = (reals[shares + above] - reals[shares + above - 1]) / (right - left)
    return float(slope * (right - value) - reals[shares + above])


@kernel
def share_of(reals: Any, known: int, shares: int, count: int, value: float, is_normal: int) -> float:  # noqa: PLR0917 - the words of an entry
    """Where a value lies among the quantiles; it is no NaN."""
    first, last = reals[known], reals[known + count - 1]
    if is_normal:
        is_low, is_high = value - _NEAR < first, value + _NEAR > last
    else:
        is_low, is_high = value == first, value == last
    if is_low or is_high:
        share = 0.0 if is_low else 1.0
    else:
        below = between_below(reals, known, shares, count, value)
        share = 0.5 * (below - between_above(reals, known, shares, count, value))
    if not is_normal:
        return share
    if share <= 0.0 or share >= 1.0:
        return _LEAST if share <= 0.0 else _GREATEST
    return float(min(max(normal_quantile(share), _LEAST), _GREATEST))


@kernel
def quantiles(program: Program, registers: Any, at: int, end: int, count: int) -> None:
    """`QUANTILES`."""
    for entry in range(at, end, layout.ENTRY_WORDS[layout.QUANTILES]):
        bring(program, registers, entry, count)
        values = registers[program.words[entry + 1]]
        size, known = program.words[entry + 2], program.words[entry + 3]
        shares, is_normal = program.words[entry + 4], program.words[entry + 5]
        for row in range(count):
            if not isnan(values[row]):
                values[row] = share_of(program.reals, known, shares, size, values[row], is_normal)
