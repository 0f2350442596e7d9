"""The kernels of steps that bend a column along a fitted curve: cycles, powers and quantiles."""

from math import isnan, pi
from typing import Any, Final

import numpy as np

from penstock_server.features.compiler import layout
from penstock_server.features.kernels.base import Program, c_function, kernel
from penstock_server.features.kernels.code import count_below
from penstock_server.features.kernels.value import bring

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

# Coefficients from the highest power down: numerator and denominator near the middle, in the tails, and far out.
_MIDDLE: Final = (
    2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4, 4.5921953931549871457e4,
    1.3731693765509461125e4, 1.9715909503065514427e3, 1.3314166789178437745e2, 3.3871328727963666080e0,
)  # fmt: skip
_MIDDLE_UNDER: Final = (
    5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4, 2.1213794301586595867e4,
    5.3941960214247511077e3, 6.8718700749205790830e2, 4.2313330701600911252e1, 1.0,
)  # fmt: skip
_TAIL: Final = (
    7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1, 1.27045825245236838258e0,
    3.64784832476320460504e0, 5.76949722146069140550e0, 4.63033784615654529590e0, 1.42343711074968357734e0,
)  # fmt: skip
_TAIL_UNDER: Final = (
    1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2, 1.48103976427480074590e-1,
    6.89767334985100004550e-1, 1.67638483018380384940e0, 2.05319162663775882187e0, 1.0,
)  # fmt: skip
_FAR: Final = (
    2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3, 2.65321895265761230930e-2,
    2.96560571828504891230e-1, 1.78482653991729133580e0, 5.46378491116411436990e0, 6.65790464350110377720e0,
)  # fmt: skip
_FAR_UNDER: Final = (
    2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5, 7.86869131145613259100e-4,
    1.48753612908506148525e-2, 1.36929880922735805310e-1, 5.99832206555887937690e-1, 1.0,
)  # fmt: skip


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

    M. J. Wichura, "Algorithm AS 241: The Percentage Points of the Normal Distribution", Applied Statistics 37 (1988),
    477-484: three rational functions, with a relative error of about 1e-16.
    """
    middle = share - 0.5
    if abs(middle) <= 0.425:
        at = 0.180625 - middle * middle
        return middle * _polynomial(_MIDDLE, at) / _polynomial(_MIDDLE_UNDER, at)
    at = np.sqrt(-_log(share if middle < 0.0 else 1.0 - share))
    if at <= 5.0:
        size = _polynomial(_TAIL, at - 1.6) / _polynomial(_TAIL_UNDER, at - 1.6)
    else:
        size = _polynomial(_FAR, at - 5.0) / _polynomial(_FAR_UNDER, at - 5.0)
    return -size if middle < 0.0 else size


@kernel
def share_of(reals: Any, known: int, shares: int, count: int, value: float, is_normal: int) -> float:  # noqa: PLR0917 - the words of an entry
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
