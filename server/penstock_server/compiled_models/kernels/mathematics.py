"""Functions of numbers as onnxruntime computes them, to the last bit: its logistic functions, softmaxes and norms.

The operators of trees and linear models use the C library's exponential, in float32. Softmax and Sigmoid use polynomials of
their own, of onnxruntime's library MLAS, with multiplications and additions that are rounded once. How softmax adds up
depends on the processor's vectors: 16 lanes with AVX-512, 8 with AVX2.

Sources of the polynomials' coefficients: MLAS (`compute.cpp`, `logistic.cpp`), MIT licence; Cephes (`exp.c`) for doubles.
"""

from typing import Any, Final

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils
from numba.extending import intrinsic

from penstock_server.kernels.base import external, inlined, kernel

_types: Any = numba.types
_cgutils: Any = cgutils
_U: Final[Any] = np.uint64
_F: Final[Any] = np.float32
exp_single: Final[Any] = external("expf", _types.float32, _types.float32)


def _fused(_context: Any, _a: Any, _b: Any, _c: Any) -> Any:
    """A * b + c in float32, rounded once."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        kind = ir.FunctionType(ir.FloatType(), [ir.FloatType()] * 3)
        return builder.call(_cgutils.get_or_insert_function(builder.module, kind, "llvm.fma.f32"), arguments)

    single = _types.float32
    return single(single, single, single), generate


fused: Final[Any] = intrinsic(_fused)

_LOWEST: Final = _F(np.finfo(np.float32).min)
_LEAST_NORMAL: Final = _F(-126.0)
_ONE: Final = _F(1.0)
_ZERO: Final = _F(0.0)
_HALF: Final = _F(0.5)
_ROUNDING: Final = _F(12582912.0)  # 1.5 * 2**23: adding it rounds to a whole number
_LOG2_E: Final = _F(1.44269504088896341)
_LN2_HIGH: Final = _F(-6.93145752e-1)
_LN2_LOW: Final = _F(-1.42860677e-6)
_EXP: Final = tuple(
    _F(float.fromhex(each))
    for each in ("0x1.694000p-10", "0x1.125edcp-7", "0x1.555b5ap-5", "0x1.555450p-3", "0x1.fffff6p-2", "0x1.0p+0")
)
_E0, _E1, _E2, _E3, _E4, _E5 = _EXP
_DOUBLE_END: Final = -745.13321910194110842
_DOUBLE_LOG2_E: Final = 1.4426950408889634073599
_DOUBLE_LN2_HIGH: Final = 0.693145751953125
_DOUBLE_LN2_LOW: Final = 1.42860682030941723212e-6
_P0, _P1, _P2 = 1.26177193074810590878e-4, 3.02994407707441961300e-2, 9.99999999999999999910e-1
_Q0, _Q1, _Q2, _Q3 = 3.00198505138664455042e-6, 2.52448340349684104192e-3, 2.27265548208155028766e-1, 2.0
_LOGISTIC_END: Final = _F(18.0)
_A9, _A7, _A5, _A3, _A1 = map(
    _F, (4.37031012579801e-11, 1.15627324459942e-07, 6.08574864600143e-05, 8.51377133304701e-03, 2.48287947061529e-01)
)
_B10, _B8, _B6, _B4, _B2, _B0 = map(
    _F,
    (
        6.10247389755681e-13,
        5.76102136993427e-09,
        6.29106785017040e-06,
        1.70198817374094e-03,
        1.16817656904453e-01,
        9.93151921023180e-01,
    ),
)


def _two_to(_context: Any, _power: Any) -> Any:
    """2 to the power of a whole number from -1022 to 1023."""

    def generate(_context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        word = ir.IntType(64)
        exponent = builder.shl(builder.add(arguments[0], word(1023)), word(52))
        return builder.bitcast(exponent, ir.DoubleType())

    return _types.float64(_types.int64), generate


two_to: Final[Any] = intrinsic(_two_to)


@inlined
def logistic_of_score(score: Any) -> Any:
    """The logistic function of trees and linear models."""
    value = _ONE / (_ONE + exp_single(-abs(score)))
    return _ONE - value if score < _ZERO else value


@kernel
def softmax_of_scores(scores: Any, count: Any, stride: Any) -> None:
    """The softmax of trees and linear models, in place, of numbers `stride` apart; in float32 whatever their type."""
    most = _LOWEST
    for at in range(count):
        most = max_of(_F(scores[at * stride]), most)
    total = _ZERO
    for at in range(count):
        value = exp_single(_F(scores[at * stride]) - most)
        scores[at * stride] = value
        total += value
    for at in range(count):
        scores[at * stride] = _F(scores[at * stride]) / total


@kernel
def softmax_but_zeros(scores: Any, count: Any, stride: Any) -> None:
    """The same, but zeros stay zeros."""
    most = _LOWEST
    for at in range(count):
        most = max_of(_F(scores[at * stride]), most)
    scale, total = exp_single(-most), _ZERO
    for at in range(count):
        value = _F(scores[at * stride])
        if value > _F(0.0000001) or value < _F(-0.0000001):
            value = exp_single(value - most)
            total += value
        else:
            value = value * scale
        scores[at * stride] = value
    for at in range(count):
        scores[at * stride] = _F(scores[at * stride]) / total


@inlined
def max_of(value: Any, most: Any) -> Any:
    """The larger one, and the second where one is NaN."""
    return max(most, value)


@inlined
def exponential(value: Any, lowest: Any, least: Any) -> Any:
    """The exponential of a number up to 0, of Softmax; 0 where it takes a lower power of two than `least`."""
    value = max(value, lowest)
    steps = fused(value, _LOG2_E, _ROUNDING) - _ROUNDING
    value = fused(steps, _LN2_HIGH, value)
    value = fused(steps, _LN2_LOW, value)
    p = fused(_E0, value, _E1)
    p = fused(p, value, _E2)
    p = fused(p, value, _E3)
    p = fused(p, value, _E4)
    p = fused(p, value, _E5)
    p = fused(p, value, _E5)
    if steps < least:
        return _ZERO
    # Exact as a double, so that a result below the smallest normal number is rounded once.
    return _F(np.float64(p) * two_to(np.int64(steps))) if steps == steps else p  # noqa: PLR0124 - NaN alone


@kernel
def softmax(values: Any, count: Any, stride: Any, lanes: Any, lowest: Any, partial: Any) -> None:
    """The Softmax of numbers `stride` apart, in place, added up as vectors of 8 or 16 lanes do, in `partial`."""
    most = _LOWEST
    # With AVX2 a power of two is put together from its bits, of which those of subnormal numbers are 0.
    least = _LEAST_NORMAL if lanes == 8 else _LOWEST
    for at in range(count):
        most = max_of(values[at * stride], most)
    for lane in range(lanes):
        partial[lane] = _ZERO
    for at in range(count):
        value = exponential(values[at * stride] - most, lowest, least)
        values[at * stride] = value
        partial[at % lanes] += value
    if lanes == 16:
        for lane in range(_U(8)):
            partial[lane] = partial[lane + _U(8)] + partial[lane]
    low = (partial[_U(0)] + partial[_U(1)]) + (partial[_U(2)] + partial[_U(3)])
    high = (partial[_U(4)] + partial[_U(5)]) + (partial[_U(6)] + partial[_U(7)])
    scale = _ONE / (low + high)
    for at in range(count):
        values[at * stride] = values[at * stride] * scale


@inlined
def exponential_of_double(value: Any) -> Any:
    """The exponential of a number up to 0, of Softmax of doubles: Eigen's, for vectors of two, which are never fused."""
    if value < _DOUBLE_END:
        return 0.0
    steps = np.floor(_DOUBLE_LOG2_E * value + 0.5)
    rest = value - steps * _DOUBLE_LN2_HIGH - steps * _DOUBLE_LN2_LOW
    square = rest * rest
    p = ((_P0 * square + _P1) * square + _P2) * rest
    q = ((_Q0 * square + _Q1) * square + _Q2) * square + _Q3
    found = 2.0 * (p / (q - p)) + 1.0
    # A result below the smallest normal number takes two steps, the second of which is exact but for it.
    half = np.int64(steps) // 2
    return found * two_to(half) * two_to(np.int64(steps) - half) if value == value else value  # noqa: PLR0124 - NaN alone


@kernel
def softmax_of_two(values: Any, lanes: Any) -> None:
    """The Softmax of two columns of doubles, in place."""
    for lane in range(lanes):
        first, second = values[lane], values[lanes + lane]
        most = max(first, second)
        first, second = exponential_of_double(first - most), exponential_of_double(second - most)
        total = first + second
        values[lane], values[lanes + lane] = first / total, second / total


@inlined
def logistic(value: Any) -> Any:
    """The logistic function of Sigmoid."""
    value = max(value, -_LOGISTIC_END)
    value = min(value, _LOGISTIC_END)
    square = value * value
    p = fused(square, _A9, _A7)
    p = fused(p, square, _A5)
    p = fused(p, square, _A3)
    p = fused(p, square, _A1)
    p = p * value
    q = fused(square, _B10, _B8)
    q = fused(q, square, _B6)
    q = fused(q, square, _B4)
    q = fused(q, square, _B2)
    q = fused(q, square, _B0)
    # Not kept below 1, which onnxruntime does not either.
    found = p / q + _HALF
    return max(found, _ZERO)
