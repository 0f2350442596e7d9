"""The kernels of steps that bend a column along a fitted curve: cycles, powers and quantiles."""

from math import isnan, pi
from typing import Any, Final

import numpy as np

from penstock_server.features.compiler import layout
from penstock_server.features.kernels.code import count_below
from penstock_server.features.kernels.memory import Program
from penstock_server.features.kernels.value import bring
from penstock_server.kernels.base import c_function, kernel

_sin: Final = c_function("sin")
_cos: Final = c_function("cos")
_exp: Final = c_function("exp")
_expm1: Final = c_function("expm1")
_log: Final = c_function("log")
_log1p: Final = c_function("log1p")

_EPSILON: Final = 2.0**-52
_LARGEST_LOG: Final = 709.78
# scikit-learn treats a value this close to an end as the end, and bounds the normal quantiles.
_NEAR: Final = 1e-7
_LEAST, _GREATEST = -5.199337582605575, 5.19933758270342

# Coefficients from the highest power down: numerator and denominator in the middle, and in the tails.
_MIDDLE: Final = (
    -5.99633501014107895267e1, 9.80010754185999661536e1, -5.66762857469070293439e1, 1.39312609387279679503e1,
    -1.23916583867381258016e0,
)  # fmt: skip
_MIDDLE_UNDER: Final = (
    1.0, 1.95448858338141759834e0, 4.67627912898881538453e0, 8.63602421390890590575e1, -2.25462687854119370527e2,
    2.00260212380060660359e2, -8.20372256168333339912e1, 1.59056225126211695515e1, -1.18331621121330003142e0,
)  # fmt: skip
_TAIL: Final = (
    4.05544892305962419923e0, 3.15251094599893866154e1, 5.71628192246421288162e1, 4.40805073893200834700e1,
    1.46849561928858024014e1, 2.18663306850790267539e0, -1.40256079171354495875e-1, -3.50424626827848203418e-2,
    -8.57456785154685413611e-4,
)  # fmt: skip
_TAIL_UNDER: Final = (
    1.0, 1.57799883256466749731e1, 4.53907635128879210584e1, 4.13172038254672030440e1, 1.50425385692907503408e1,
    2.50464946208309415979e0, -1.42182922854787788574e-1, -3.80806407691578277194e-2, -9.33259480895457427372e-4,
)  # fmt: skip
_TAIL_SHARE: Final = 0.13533528323661269189
"""exp(-2): the tails have smaller shares."""
_ROOT_OF_TWO_PI: Final = 2.50662827463100050242


@kernel
def cyclic(program: Program, registers: Any, at: int, end: int, count: int) -> None:
    """`CYCLIC`: sine and cosine of 2 pi x / period."""
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
    """`YEO_JOHNSON`: the power of each value."""
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
    """`BOX_COX`: the power of each value."""
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
def _polynomial(coefficients: tuple[float, ...], at: float) -> float:
    total = 0.0
    for coefficient in coefficients:
        total = total * at + coefficient
    return total


@kernel
def normal_quantile(share: float) -> float:
    """The x with this share of the standard normal distribution below it, for a share above 0 and below 1.

    S. L. Moshier's rational functions (Cephes, `ndtri`), in the order in which scipy evaluates them: equal bits keep
    neighbours behind it equally near. Further out than scikit-learn's limits it is not exact.
    """
    is_high = share > 1.0 - _TAIL_SHARE
    small = 1.0 - share if is_high else share
    if small > _TAIL_SHARE:
        middle = small - 0.5
        square = middle * middle
        return (
            middle + middle * (square * _polynomial(_MIDDLE, square) / _polynomial(_MIDDLE_UNDER, square))
        ) * _ROOT_OF_TWO_PI
    root = np.sqrt(-2.0 * _log(small))
    inverse = 1.0 / root
    size = (root - _log(root) / root) - inverse * _polynomial(_TAIL, inverse) / _polynomial(_TAIL_UNDER, inverse)
    return float(size if is_high else -size)


@kernel
def share_of(reals: Any, known: int, shares: int, count: int, value: float, is_normal: int) -> float:
    """The share of training values below a value that is not NaN."""
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
    """`QUANTILES`: the share of training values below each value, as it is or as a normal quantile."""
    for entry in range(at, end, layout.ENTRY_WORDS[layout.QUANTILES]):
        bring(program, registers, entry, count)
        values = registers[program.words[entry + 1]]
        size, known = program.words[entry + 2], program.words[entry + 3]
        shares, is_normal = program.words[entry + 4], program.words[entry + 5]
        for row in range(count):
            if not isnan(values[row]):
                values[row] = share_of(program.reals, known, shares, size, values[row], is_normal)
