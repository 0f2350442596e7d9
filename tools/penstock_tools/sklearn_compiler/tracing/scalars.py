"""Functions of one value or one row, as `.apply(lambda v: ...)` calls them: run once for each way through their conditions.

A condition on a traced value asks which way to go. Each way is run, and the results are joined by the conditions. The ways
are few: a function with more of them than `MAX_PATHS` ends the trace.
"""

import contextvars
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pandas as pd

from penstock_tools.sklearn_compiler.tracing import elementwise, values
from penstock_tools.sklearn_compiler.tracing.arrays import Operators
from penstock_tools.sklearn_compiler.tracing.ended import TraceEnded
from penstock_tools.sklearn_compiler.tracing.values import (
    Coded,
    Number,
    Requirements,
    Text,
    Time,
    Value,
    call,
    constant,
)

MAX_PATHS: Final = 128

_requirements: contextvars.ContextVar[Requirements] = contextvars.ContextVar("requirements")


def require_whole(number: Number, size_bytes: int) -> None:
    """Notes that each row's number must be one that whole numbers of this size can hold, since pandas raises for NaN."""
    found = _requirements.get(None)
    if found is not None and number.kind in ("float", "single"):
        found.conditions.append(call("isfinite", number))
        if size_bytes < 8:
            found.conditions.append(call("less", call("abs", number), constant(float(2 ** (8 * size_bytes - 1)))))


class RowsFlag:
    """Whether a condition holds in any or in all rows of a request.

    Functions ask it to raise: for a missing value, for a negative number. So the record goes the way on which no row is odd,
    and requires that of each row. A row that is odd is refused.
    """

    def __init__(self, condition: Number, *, expected: bool) -> None:
        self._condition = condition
        self._expected = expected

    def __bool__(self) -> bool:
        found = _requirements.get(None)
        if found is None:
            raise TraceEnded("it asks for all rows")
        found.conditions.append(self._condition if self._expected else call("logical_not", self._condition))
        return self._expected

    def any(self, *_: Any, **__: Any) -> "RowsFlag":
        return self

    all = item = any  # noqa: A003 - pandas' names

    def __getattr__(self, name: str) -> Any:
        raise TraceEnded(f"it uses .{name} of what depends on the other rows of a request")


def any_row(cells: Sequence[Any]) -> RowsFlag:
    """Whether any of the conditions holds in any row."""
    conditions = [values.as_kind(elementwise.number(cell), "bool") for cell in cells]
    return RowsFlag(values.any_of(conditions), expected=False)


def all_rows(cells: Sequence[Any]) -> RowsFlag:
    """Whether all of the conditions hold in all rows."""
    conditions = [values.as_kind(elementwise.number(cell), "bool") for cell in cells]
    return RowsFlag(elementwise.reduced("logical_and", conditions), expected=True)


@dataclass(slots=True)
class _Ways:
    """One way through a function: the answers that its conditions get, and those conditions."""

    answers: list[bool]
    asked: list[Number] = field(default_factory=list)

    def answer(self, condition: Number) -> bool:
        at = len(self.asked)
        self.asked.append(condition)
        if at == len(self.answers):
            self.answers.append(True)
        return self.answers[at]


_way: contextvars.ContextVar[_Ways | None] = contextvars.ContextVar("way", default=None)


class TracedScalar(Operators):
    """One value of a column, in a function of one value."""

    def __init__(self, value: Value) -> None:
        self.value = value

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if method != "__call__" or options:
            raise TraceEnded(f"it uses numpy.{ufunc.__name__} of one value in a way that Penstock does not follow")
        return TracedScalar(elementwise.ufunc_of(ufunc)(*map(_plain, inputs)))

    def __bool__(self) -> bool:
        way = _way.get()
        if way is None:
            raise TraceEnded("it asks for one value of a column")
        if isinstance(self.value, Text | Coded | Time):
            raise TraceEnded("it asks whether a text is empty; == and != work")
        condition = self.value
        return way.answer(condition if condition.kind == "bool" else values.as_kind(condition, "bool"))

    def __round__(self, digits: int | None = None) -> "TracedScalar":
        return TracedScalar(elementwise.rounded(self.value, digits or 0))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if isinstance(self.value, Time) and self.value.at is not None:
            return TracedScalar(elementwise.time_part(self.value, name))
        raise TraceEnded(f"it uses .{name} of one value, which Penstock does not follow")

    def __len__(self) -> int:
        raise TraceEnded("it asks for the length of a text")


def _plain(given: Any) -> Any:
    return given.value if type(given) is TracedScalar else given


def applied(function: Any, value: Value) -> Value:
    """The function of each value of a column."""
    if not callable(function):
        raise TraceEnded(f"it applies {function!r}, which is no function")
    # numpy's functions and Python's types need no ways.
    if function in (str, float, int):
        raise TraceEnded(f"it makes {function.__name__} of each value; .astype works on columns of numbers")
    return _joined(lambda: function(TracedScalar(value)))


def applied_to_rows(
    function: Any, names: Sequence[Any], row: Sequence[Value], args: Any, options: Mapping[str, Any]
) -> Value:
    """The function of each row, which it reads by the columns' names."""
    return _joined(lambda: function(_Row(names, row), *args, **options))


class _Row:
    """One row of a frame, in a function of rows."""

    def __init__(self, names: Sequence[Any], row: Sequence[Value]) -> None:
        self._row = dict(zip(names, row, strict=True))

    def __getitem__(self, name: Any) -> TracedScalar:
        if name not in self._row:
            raise TraceEnded(f"it reads the column {name!r}, which does not reach it")
        return TracedScalar(self._row[name])

    def get(self, name: Any, default: Any = None) -> Any:
        return self[name] if name in self._row else default

    def __getattr__(self, name: str) -> TracedScalar:
        if name.startswith("__"):
            raise AttributeError(name)
        return self[name]


def _joined(run: Callable[[], Any]) -> Value:
    """The results of all ways, by their conditions."""
    count = 0

    def explore(answers: list[bool]) -> Any:
        nonlocal count
        count += 1
        if count > MAX_PATHS:
            raise TraceEnded(f"its function of one value has more than {MAX_PATHS} ways through its conditions")
        way = _Ways(list(answers))
        token = _way.set(way)
        try:
            result = _plain(run())
        finally:
            _way.reset(token)
        for at in range(len(way.asked) - 1, len(answers) - 1, -1):
            other = explore([*way.answers[:at], False])
            result = _either(way.asked[at], result, other)
        return result

    return _as_value(explore([]))


def _either(condition: Number, one: Any, other: Any) -> Any:
    sides = (one, other)
    if any(isinstance(side, str | Coded) for side in sides):
        return values.chosen_texts(condition, one, other)
    if any(isinstance(side, Text | Time) for side in sides):
        raise TraceEnded("it chooses between texts or times of columns")
    # Python's results of one column are numbers of one kind in the end.
    return values.where(condition, elementwise.number(_none_is_nan(one)), elementwise.number(_none_is_nan(other)))


def _none_is_nan(given: Any) -> Any:
    return np.nan if given is None or given is pd.NA else given


def _as_value(result: Any) -> Value:
    if isinstance(result, Number | Text | Coded | Time):
        return result
    if isinstance(result, str):
        return Coded(constant(0), (result,))
    return constant(result)
