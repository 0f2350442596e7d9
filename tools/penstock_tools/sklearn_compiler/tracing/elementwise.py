"""numpy's functions of each value alone, on traced columns: by ufunc, and those that numpy writes in Python.

Each takes values as they come (traced, Python's or numpy's) and gives a traced value. `arrays` and `frames` apply them to
the cells of arrays and the columns of frames.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import reduce
from itertools import pairwise
from math import isnan, pi
from typing import Any, Final

import numpy as np

from penstock_server.features.spec.steps_compute import ARITY
from penstock_tools.sklearn_compiler.tracing import values
from penstock_tools.sklearn_compiler.tracing.ended import TraceEnded
from penstock_tools.sklearn_compiler.tracing.values import Coded, Number, Text, Time, Value, call, constant


def ufunc_of(ufunc: Any) -> Callable[..., Value]:
    """The function of values that a ufunc is.

    Raises:
        TraceEnded: there is none.
    """
    name = ufunc.__name__
    if name in _COMPOSED:
        return _COMPOSED[name]
    if name in _COMPARED:
        return _COMPARED[name]
    name = _SAME.get(name, name)
    if name not in ARITY or isinstance(ufunc, str):
        raise TraceEnded(f"{ufunc.__name__} is not among the functions that Penstock compiles")
    return lambda *of: call(name, *map(number, of))


def number(value: Any) -> Number:
    """The value as a number.

    Raises:
        TraceEnded: it is a text or a time.
    """
    if isinstance(value, Number):
        return value
    if isinstance(value, Text | Coded):
        raise TraceEnded("it computes with a column of text; make numbers of it first, such as by .map({...})")
    if isinstance(value, Time):
        raise TraceEnded(
            "it computes with a time as with a number; its parts work: .dt.hour, .dt.year, .dt.total_seconds()"
        )
    return constant(value)


def _composed(build: Callable[..., Number]) -> Callable[..., Value]:
    return lambda *of: build(*map(number, of))


def _scaled(factor: float) -> Callable[..., Value]:
    return _composed(lambda x: call("multiply", x, constant(factor)))


def power(base: Number, exponent: Number) -> Number:
    """Numpy's `**`: some exponents have a function of their own."""
    if exponent.is_weak and exponent.value is not None:
        if exponent.value == 2:
            return call("square", base)
        if exponent.value == 0.5 and base.kind not in ("bool", "int"):
            return call("sqrt", base)
        if exponent.value == 1 and exponent.kind == "int":
            return base
        if exponent.value == -1 and base.kind not in ("bool", "int"):
            return call("reciprocal", base)
    return call("power", base, exponent)


def _one_minus(x: Number) -> Number:
    return call("subtract", constant(1.0), x)


def _expit(x: Number) -> Number:
    return call("divide", constant(1.0), call("add", constant(1.0), call("exp", call("negative", x))))


def _lambda_of(power: Number) -> float:
    if power.value is None or power.function != "constant":
        raise TraceEnded("its power is no constant")
    return power.value


def _inverse_box_cox(y: Number, power: Number) -> Number:
    given = _lambda_of(power)
    return call("exp", y if not given else call("divide", call("log1p", call("multiply", y, power)), power))


def _box_cox(x: Number, power: Number) -> Number:
    given = _lambda_of(power)
    logarithm = call("log", x)
    return logarithm if not given else call("divide", call("expm1", call("multiply", power, logarithm)), power)


def _added(left: Any, right: Any) -> Value:
    if isinstance(left, Time) or isinstance(right, Time):
        return _time_sum(_time(left), _time(right), "add")
    return call("add", number(left), number(right))


def _subtracted(left: Any, right: Any) -> Value:
    if isinstance(left, Time) or isinstance(right, Time):
        return _time_sum(_time(left), _time(right), "subtract")
    return call("subtract", number(left), number(right))


def _divided(left: Any, right: Any) -> Value:
    if isinstance(left, Time) and left.is_duration:
        return call("divide", values.duration_ns(left), values.duration_ns(_time(right, is_duration=True)))
    return call("divide", number(left), number(right))


def _time(value: Any, *, is_duration: bool | None = None) -> Time:
    if isinstance(value, Time):
        return value
    if is_duration is None:
        is_duration = isinstance(value, timedelta | np.timedelta64)
    try:
        return values.moment(value, is_duration=is_duration)
    except Exception as error:
        raise TraceEnded(f"it computes with a time and {value!r}") from error


def _time_sum(left: Time, right: Time, function: str) -> Time:
    is_duration = (left.is_duration and right.is_duration) or (
        function == "subtract" and left.is_duration == right.is_duration
    )
    if not is_duration and (function == "subtract") and right.is_duration is False:
        raise TraceEnded("it subtracts a time from a duration")
    if not left.is_duration and not right.is_duration and function == "add":
        raise TraceEnded("it adds two times")
    return Time(
        call(function, left.days, right.days), call(function, left.nanoseconds, right.nanoseconds), None, is_duration
    )


def _compared(function: str) -> Callable[..., Value]:
    def compare(left: Any, right: Any) -> Value:
        if isinstance(left, Time) or isinstance(right, Time):
            return _times_compared(function, left, right)
        if isinstance(left, Text | Coded) or isinstance(right, Text | Coded):
            return _texts_compared(function, left, right)
        if isinstance(left, str) or isinstance(right, str):
            return constant(function == "not_equal")
        return call(function, number(left), number(right))

    return compare


def _times_compared(function: str, left: Any, right: Any) -> Number:
    given = left if isinstance(left, Time) else right
    one, other = (_time(each, is_duration=given.is_duration) for each in (left, right))
    difference = _time_sum(one, other, "subtract")
    return call(function, values.duration_ns(difference), constant(0))


def _texts_compared(function: str, left: Any, right: Any) -> Number:
    if function not in ("equal", "not_equal"):
        raise TraceEnded("it compares texts by their order; == and != work")
    column, given = (left, right) if isinstance(left, Text | Coded) else (right, left)
    if isinstance(given, Text | Coded):
        raise TraceEnded("it compares two columns of text")
    is_equal = function == "equal"
    if isinstance(column, Coded):
        found = values.any_of(
            [values.equal_constant(column.code, at) for at, text in enumerate(column.texts) if text == given]
        )
        return found if is_equal else call("logical_not", found)
    meant = {given: float(is_equal)} if isinstance(given, str) else {}
    texts = values.wire_texts(column, meant, float(not is_equal), float(not is_equal))
    return values.looked_up(column, texts, float(not is_equal), "bool")


_SAME: Final = {
    "absolute": "abs", "fabs": "abs", "true_divide": "divide", "float_power": "power", "mod": "remainder",
    "bitwise_and": "logical_and", "bitwise_or": "logical_or", "bitwise_xor": "logical_xor", "invert": "logical_not",
    "bitwise_not": "logical_not", "conj": "positive",
}  # fmt: skip
_BITS: Final = ("bitwise_and", "bitwise_or", "bitwise_xor", "invert", "bitwise_not")


def _of_bits(name: str) -> Callable[..., Value]:
    def compute(*of: Any) -> Value:
        numbers = [number(each) for each in of]
        if any(each.kind != "bool" for each in numbers):
            raise TraceEnded("it computes with the bits of whole numbers; &, | and ~ work on conditions")
        return call(_SAME[name], *numbers)

    return compute


_COMPOSED: Final[dict[str, Callable[..., Value]]] = {
    **{name: _of_bits(name) for name in _BITS},
    "add": _added,
    "subtract": _subtracted,
    "divide": _divided,
    "true_divide": _divided,
    "radians": _scaled(pi / 180.0),
    "deg2rad": _scaled(pi / 180.0),
    "degrees": _scaled(180.0 / pi),
    "rad2deg": _scaled(180.0 / pi),
    "positive": _composed(lambda x: x),
    "conjugate": _composed(lambda x: x),
    "power": _composed(power),
    "pow": _composed(power),
    "float_power": _composed(lambda x, y: call("power", values.as_kind(x, "float"), y)),
    "expit": _composed(_expit),
    "logit": _composed(lambda x: call("log", call("divide", x, _one_minus(x)))),
    "logaddexp": _composed(
        lambda x, y: call(
            "add",
            call("maximum", x, y),
            call("log1p", call("exp", call("negative", call("abs", call("subtract", x, y))))),
        )
    ),
    "boxcox": _composed(_box_cox),
    "inv_boxcox": _composed(_inverse_box_cox),
    "boxcox1p": _composed(lambda x, p: _box_cox(call("add", x, constant(1.0)), p)),
    "inv_boxcox1p": _composed(lambda y, p: call("subtract", _inverse_box_cox(y, p), constant(1.0))),
    "signbit": _composed(lambda x: call("less", call("copysign", constant(1.0), x), constant(0.0))),
    "heaviside": _composed(
        lambda x, h: values.where(
            call("equal", x, constant(0.0)),
            h,
            values.where(call("isnan", x), x, values.as_kind(call("greater", x, constant(0.0)), "float")),
        )
    ),
}
_COMPARED: Final = {
    name: _compared(name) for name in ("equal", "not_equal", "less", "less_equal", "greater", "greater_equal")
}


def choose(condition: Any, chosen: Any, other: Any) -> Value:
    """Numpy's `where` of one value."""
    flag = number(condition)
    if isinstance(chosen, str | Coded) or isinstance(other, str | Coded):
        return values.chosen_texts(flag, chosen, other)
    if isinstance(chosen, Text) or isinstance(other, Text):
        raise TraceEnded("it chooses between texts of columns")
    return values.where(flag, number(chosen), number(other))


def clipped(x: Any, low: Any, high: Any) -> Value:
    """Numpy's `clip`; a side that is None is open."""
    found = number(x)
    if low is not None:
        found = call("maximum", found, number(low))
    return found if high is None else call("minimum", found, number(high))


def rounded(x: Any, decimals: int = 0) -> Value:
    """Numpy's `round`: scaled, rounded to even, and scaled back."""
    found = number(x)
    if not decimals:
        return call("rint", found)
    scale = constant(float(10 ** abs(int(decimals))))
    first, last = ("multiply", "divide") if decimals > 0 else ("divide", "multiply")
    return call(last, call("rint", call(first, found, scale)), scale)


def without_nan(x: Any, nan: Any = 0.0, posinf: Any = None, neginf: Any = None) -> Value:
    """Numpy's `nan_to_num`."""
    found = number(x)
    largest = float(np.finfo(np.float32 if found.kind == "single" else np.float64).max)
    if found.kind in ("bool", "int"):
        return found
    filled = values.where(call("isnan", found), constant(nan), found)
    for infinity, given, own in ((np.inf, posinf, largest), (-np.inf, neginf, -largest)):
        filled = values.where(
            call("equal", found, constant(infinity)), constant(own if given is None else given), filled
        )
    return filled


def binned(x: Any, edges: Sequence[float], *, right: bool = False) -> Value:
    """Numpy's `digitize` for edges that increase."""
    found, bounds = number(x), [float(edge) for edge in edges]
    if not bounds or any(a >= b for a, b in pairwise(bounds)) or any(map(isnan, bounds)):
        raise TraceEnded("its bins do not increase")
    function = "less_equal" if right else "less"
    above = [values.as_kind(call("logical_not", call(function, found, constant(edge))), "int") for edge in bounds]
    return reduce(lambda total, each: call("add", total, each), above)


def summed(cells: Sequence[Any]) -> Number:
    """The sum of values of a row, from the first to the last."""
    numbers = [number(cell) for cell in cells]
    numbers = [values.as_kind(each, "int") if each.kind == "bool" else each for each in numbers]
    return reduce(lambda total, each: call("add", total, each), numbers) if numbers else constant(0.0)


def reduced(function: str, cells: Sequence[Any]) -> Number:
    """The function from one value of a row to the next, such as the largest."""
    if not cells:
        raise TraceEnded(f"it takes the {function} of no columns")
    return reduce(lambda total, each: call(function, total, each), map(number, cells))


def mean(cells: Sequence[Any]) -> Number:
    """The mean of values of a row."""
    return call("divide", summed(cells), constant(len(cells)))


def variance(cells: Sequence[Any], ddof: int = 0) -> Number:
    """The variance of values of a row, as numpy computes it: the mean first."""
    center = mean(cells)
    total = summed([call("square", call("subtract", number(cell), center)) for cell in cells])
    return call("divide", total, constant(float(len(cells) - ddof)))


def time_part(time: Time, part: str) -> Number:
    """A part of a raw time column."""
    if time.at is None:
        raise TraceEnded(f"it uses .dt.{part} of a time that it computed")
    kind: values.Kind = "bool" if part.startswith("is_") else "int"
    return Number("source", kind=kind, source=values.FromTime(time.at, part))


def raw_time(at: int) -> Time:
    """The raw time column at this place."""
    days, rest = (
        Number("source", kind="int", source=values.FromTime(at, part)) for part in ("days", "nanoseconds_of_day")
    )
    return Time(days, rest, at)
