"""What a traced column holds: numbers as expressions, a text column, texts chosen by code, a time.

Expressions are made here alone, so that each has the kind that numpy would give it: bool, int, single (float32) or float.
All are computed in float64; of kind single each result is rounded, which gives the bits of float32 arithmetic.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isinf, isnan
from typing import Any, Final, Literal

import numpy as np
import pandas as pd

from penstock_server.features.spec.steps_compute import ARITY
from penstock_server.features.spec.steps_value import FUNCTIONS
from penstock_tools.sklearn_compiler.tracing.ended import TraceEnded

Kind = Literal["bool", "int", "single", "float"]
_ORDER: Final[tuple[Kind, ...]] = ("bool", "int", "single", "float")
_KEEPING: Final = frozenset({"abs", "sign", "negative", "square", "floor", "ceil", "trunc", "rint"})
_ANSWERS: Final = frozenset({
    "isnan", "isinf", "isfinite", "logical_not", "less", "less_equal", "greater", "greater_equal", "equal", "not_equal",
    "logical_and", "logical_or", "logical_xor",
})  # fmt: skip
_INT64: Final = 2.0**63
DAY_NS: Final = 86_400_000_000_000


@dataclass(frozen=True, slots=True)
class FromNumber:
    """The number column at this place among those that reach the function."""

    at: int


@dataclass(frozen=True, slots=True)
class FromTime:
    """A part of the time column at this place."""

    at: int
    part: str


@dataclass(frozen=True, slots=True)
class FromText:
    """What each text of the text column at this place becomes: a number for each of `texts`, and one for all others.

    Attributes:
        prepare: what is done to a text before it is looked up.
        texts: as they are on the wire and then prepared; "" is missing.
    """

    at: int
    prepare: tuple[str, ...]
    texts: tuple[str, ...]
    numbers: tuple[float, ...]
    other: float


@dataclass(frozen=True, slots=True)
class FromGram:
    """1 where a text of the column at this place contains the gram, else 0.

    Attributes:
        prepare: what is done to the text before: nothing, or "lower".
        gram: without white space; the kernel takes runs of that for one space.
    """

    at: int
    prepare: tuple[str, ...]
    gram: str


Source = FromNumber | FromTime | FromText | FromGram


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Number:
    """A column of numbers: a source, a constant, or a function of others.

    Attributes:
        function: a name of `steps_compute.ARITY`, or "source".
        of: what it takes.
        kind: of its dtype.
        value: a constant's.
        source: where it comes from.
        is_weak: a Python number, whose kind gives way to that of a column.
    """

    function: str
    of: tuple["Number", ...] = ()
    kind: Kind = "float"
    value: float | None = None
    source: Source | None = None
    is_weak: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Text:
    """A text column of those that reach the function.

    Attributes:
        at: its place among them.
        becomes: as `columns.Strings` has it: what texts on the wire stand for; a set stands for missing values.
        prepare: what is done to the text first.
    """

    at: int
    becomes: Mapping[str, Any]
    prepare: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Coded:
    """Texts chosen by code: `texts[k]` where `code` is k, missing where it is none of these."""

    code: Number
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Time:
    """A time or a duration, exact to the nanosecond.

    Attributes:
        days, nanoseconds: together the time since 1970, or the duration; the nanoseconds may be negative in a duration.
        at: the place of the raw column that it is, None for what was computed.
    """

    days: Number
    nanoseconds: Number
    at: int | None = None
    is_duration: bool = False


Value = Number | Text | Coded | Time


def constant(value: Any) -> Number:
    """A Python or numpy number.

    Raises:
        TraceEnded: it is something else.
    """
    if value is None or value is pd.NA:
        return Number("constant", value=float("nan"))
    is_weak = not isinstance(value, np.generic)
    if isinstance(value, bool | np.bool_):
        return Number("constant", kind="bool", value=float(value))
    if isinstance(value, int | np.integer):
        if abs(int(value)) > 2**53:
            raise TraceEnded(f"the number {value} is beyond 2**53, where float64 has gaps")
        return Number("constant", kind="int", value=float(value), is_weak=is_weak)
    if isinstance(value, float | np.floating):
        kind: Kind = "single" if isinstance(value, np.float32) else "float"
        return _real(float(value), kind, is_weak)
    raise TraceEnded(f"it computes with {value!r} of {type(value).__name__}; columns of numbers and constants work")


def _real(value: float, kind: Kind, is_weak: bool) -> Number:
    if not isinf(value):
        return Number("constant", kind=kind, value=value, is_weak=is_weak)
    # A specification has no infinities.
    above = Number("reciprocal", (Number("constant", value=0.0),), kind, is_weak=is_weak)
    return above if value > 0 else Number("negative", (above,), kind, is_weak=is_weak)


def is_constant(number: Number, value: float | None = None) -> bool:
    """Whether it is a constant, of this value if one is given."""
    return number.function == "constant" and (value is None or number.value == value)


def call(function: str, *of: Number) -> Number:
    """The function of numbers, with numpy's kind.

    Raises:
        TraceEnded: numpy has none for these kinds, or a specification has no such function.
    """
    if len(of) != ARITY.get(function, -1):
        raise TraceEnded(f"numpy's {function} is not among the functions that Penstock compiles")
    if function in _ANSWERS:
        return Number(function, of, "bool")
    kind = _promoted(of)
    if kind == "bool" and function in ("add", "multiply", "maximum", "minimum", "fmax", "fmin"):
        return Number("logical_or" if function in ("add", "maximum", "fmax") else "logical_and", of, "bool")
    if kind == "bool" and function in ("subtract", "negative"):
        raise TraceEnded(f"numpy has no {function} of booleans; make numbers of them first: .astype(int)")
    if function in FUNCTIONS and function not in _KEEPING:
        kind = "single" if kind == "single" or function == "single" else "float"
    elif function in ("divide", "arctan2", "hypot", "copysign") and kind in ("bool", "int"):
        kind = "float"
    made = Number(function, of, kind)
    return Number("single", (made,), "single") if kind == "single" and function != "single" else made


def _promoted(of: Sequence[Number]) -> Kind:
    strong = [each.kind for each in of if not each.is_weak]
    weak = [each.kind for each in of if each.is_weak]
    if not strong:
        return max([each.kind for each in of], key=_ORDER.index)
    kind = max(strong, key=_ORDER.index)
    # int64 and float32 together are float64.
    if kind == "single" and "int" in strong:
        kind = "float"
    widest = max([*weak, _ORDER[0]], key=_ORDER.index)
    if kind in ("single", "float"):
        return kind
    return max((kind, widest), key=_ORDER.index)


def where(condition: Number, chosen: Number, other: Number) -> Number:
    """`chosen` where the condition is true, else `other`."""
    return Number("where", (condition, chosen, other), _promoted((chosen, other)))


def as_kind(number: Number, kind: Kind) -> Number:
    """The number as numpy's `astype` makes it.

    Of a float whole numbers are made by cutting it; what int64 cannot hold becomes its smallest number, as on x86-64.
    """
    if kind == number.kind and not number.is_weak:
        return number
    if kind == "bool":
        return call("not_equal", number, Number("constant", kind="int", value=0.0))
    if kind == "single":
        return Number("single", (number,), "single")
    if kind == "int" and number.kind in ("single", "float"):
        fits = call("less", call("abs", number), Number("constant", value=_INT64))
        return where(fits, Number("trunc", (number,), "int"), Number("constant", kind="int", value=-_INT64))
    return replace(number, kind=kind, is_weak=False)


def is_missing(value: Value, is_found: Any) -> Number:
    """1 where the value is missing; `is_found` says of a set of `Missing` whether pandas takes it for missing."""
    if isinstance(value, Number):
        # A column of whole numbers is one of floats in a request where one is missing.
        return call("isnan", value)
    if isinstance(value, Time):
        return call("isnan", value.days)
    if isinstance(value, Coded):
        return call("logical_not", any_of([equal_constant(value.code, at) for at in range(len(value.texts))]))
    found = {text: 1.0 for text, stands_for in value.becomes.items() if is_found(stands_for)}
    return looked_up(value, found, 0.0, "bool")


def looked_up(text: Text, numbers: Mapping[str, float], other: float, kind: Kind) -> Number:
    """The number of each text on the wire, once it is prepared."""
    source = FromText(text.at, text.prepare, tuple(numbers), tuple(numbers.values()), other)
    return Number("source", kind=kind, source=source)


def searched(text: Text, gram: str) -> Number:
    """Whether the text contains the gram, once it is prepared; an empty one does not."""
    return Number("source", kind="bool", source=FromGram(text.at, text.prepare, gram))


def wire_texts(text: Text, meant: Mapping[Any, float], of_missing: float, other: float) -> dict[str, float]:
    """For each text on the wire its number, where `meant` gives the numbers of what they stand for."""
    found = {key: value for key, value in meant.items() if isinstance(key, str) and key and key not in text.becomes}
    for wire, stands_for in text.becomes.items():
        found[wire] = meant.get(stands_for, other) if isinstance(stands_for, str) else of_missing
    return found


def equal_constant(number: Number, value: float) -> Number:
    """Whether it equals a constant."""
    return call("equal", number, Number("constant", kind="int", value=float(value)))


def any_of(conditions: Sequence[Number]) -> Number:
    """Whether any is true."""
    if not conditions:
        return Number("constant", kind="bool", value=0.0)
    found = conditions[0]
    for each in conditions[1:]:
        found = call("logical_or", found, each)
    return found


def chosen_texts(condition: Number, chosen: Any, other: Any) -> Coded:
    """Texts by a condition: each side is a text, a missing value, or chosen texts themselves.

    Raises:
        TraceEnded: a side is something else.
    """
    sides = [_as_coded(chosen), _as_coded(other)]
    texts = tuple(dict.fromkeys(text for side in sides for text in side.texts))
    codes = [_recoded(side, texts) for side in sides]
    return Coded(where(condition, *codes), texts)


def _as_coded(side: Any) -> Coded:
    if isinstance(side, Coded):
        return side
    if isinstance(side, str):
        return Coded(Number("constant", kind="int", value=0.0), (side,))
    if side is None or side is pd.NA or (isinstance(side, float) and isnan(side)):
        return Coded(Number("constant", kind="int", value=-1.0), ())
    raise TraceEnded("it chooses between texts and something else; texts alone, or numbers alone, work")


def _recoded(side: Coded, texts: tuple[str, ...]) -> Number:
    places = [texts.index(text) for text in side.texts]
    if places == list(range(len(places))):
        return side.code
    if is_constant(side.code):
        return Number("constant", kind="int", value=float(places[int(side.code.value or 0)]))
    found = Number("constant", kind="int", value=-1.0)
    for at, place in enumerate(places):
        found = where(equal_constant(side.code, at), Number("constant", kind="int", value=float(place)), found)
    return found


def by_equality(number: Number, pairs: Mapping[Any, Any], other: Any) -> Any:
    """What each number becomes by a dictionary: numbers, or texts; `other` where it has none.

    Raises:
        TraceEnded: it is too large, or mixes texts and numbers.
    """
    if len(pairs) > MAX_PAIRS:
        raise TraceEnded(f"its dictionary has {len(pairs)} numbers; up to {MAX_PAIRS} work")
    is_text = any(isinstance(value, str) for value in pairs.values())
    found: Any = other if is_text else (other if isinstance(other, Number) else constant(other))
    for key, value in reversed(list(pairs.items())):
        if isinstance(key, str):
            continue
        given = constant(key)
        condition = (
            call("isnan", number) if given.value is not None and isnan(given.value) else call("equal", number, given)
        )
        found = chosen_texts(condition, value, found) if is_text else where(condition, constant(value), found)
    return found


MAX_PAIRS: Final = 256


def duration_ns(time: Time) -> Number:
    """All its nanoseconds, rounded once: the days' are exact in float64."""
    return call("add", call("multiply", time.days, Number("constant", value=float(DAY_NS))), time.nanoseconds)


def moment(value: Any, *, is_duration: bool = False) -> Time:
    """A constant time or duration."""
    total = int(pd.Timedelta(value).value if is_duration else _utc(pd.Timestamp(value)).value)
    days, rest = divmod(total, DAY_NS)
    whole, left = (Number("constant", kind="int", value=float(each)) for each in (days, rest))
    return Time(whole, left, is_duration=is_duration)


def _utc(stamp: pd.Timestamp) -> pd.Timestamp:
    return stamp.as_unit("ns")


@dataclass(slots=True)
class Requirements:
    """What a trace found that each row must fulfil, or the function raises."""

    conditions: list[Number] = field(default_factory=list)
