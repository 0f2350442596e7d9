"""A traced pandas frame and its columns, as far as functions of rows use them.

Columns have names and no rows to look at: what asks for rows, or for a number over all rows, ends the trace. A method that
is not here ends it too.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import pandas as pd

from penstock_server.features.spec import limits
from penstock_server.features.spec.blocks import TIME_PARTS
from penstock_tools.sklearn_compiler.forms import Missing
from penstock_tools.sklearn_compiler.tracing import elementwise, numpy_functions, scalars, values
from penstock_tools.sklearn_compiler.tracing.arrays import (
    ROWS,
    Operators,
    TracedArray,
    cast,
    checked,
    dtype_of,
    traced,
)
from penstock_tools.sklearn_compiler.tracing.ended import ALL_ROWS, TraceEnded
from penstock_tools.sklearn_compiler.tracing.values import Coded, Number, Text, Time, Value, call, constant

_FRAME: Final = pd.DataFrame
_SERIES: Final = pd.Series
_FOUND_BY_NA: Final = frozenset({Missing.NONE, Missing.NAN, Missing.NA})
_OVER_ROWS: Final = frozenset({
    "rank", "cumsum", "cumprod", "cummax", "cummin", "shift", "diff", "pct_change", "rolling", "expanding", "ewm", "groupby",
    "value_counts", "unique", "nunique", "sort_values", "drop_duplicates", "dropna", "sample", "head", "tail", "quantile",
    "median", "mode", "interpolate", "ffill", "bfill", "duplicated", "describe", "corr", "cov", "query", "idxmax", "factorize",
    "item", "tolist", "to_list", "iterrows", "itertuples", "items_rows", "resample", "nlargest", "merge", "join", "pivot",
    "pivot_table", "sort_index", "reset_index_rows", "isin_rows", "kurt", "skew", "sem", "qcut",
})  # fmt: skip


def is_pandas(given: Any) -> bool:
    return type(given) in (TracedSeries, TracedFrame)


class RowIndex:
    """The index of all rows: it is handed on, and nothing can be read from it."""

    def __len__(self) -> int:
        return ROWS

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise TraceEnded(f"it reads .{name} of the rows' index, which requests do not have")


INDEX: Final = RowIndex()


def _is_na(stands_for: Any) -> bool:
    return isinstance(stands_for, frozenset) and not stands_for.isdisjoint(_FOUND_BY_NA)


class _Pandas(Operators):
    IS_PANDAS = True

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        if method != "__call__" or any(each is not None for each in options.pop("out", ())):
            raise TraceEnded(
                f"it uses numpy.{ufunc.__name__} of pandas' columns in a way that Penstock does not follow"
            )
        checked(ufunc, options)
        return apply(elementwise.ufunc_of(ufunc), inputs)

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        return numpy_functions.apply(function, args, options)

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TraceEnded("it hands its columns to a function that is neither numpy's nor pandas'")

    @property
    def index(self) -> RowIndex:
        return INDEX

    @property
    def empty(self) -> bool:
        return False

    def __len__(self) -> int:
        return ROWS


def _missing_method(name: str, what: str) -> TraceEnded:
    if name in _OVER_ROWS:
        return TraceEnded(ALL_ROWS.format(what=f".{name}()"))
    return TraceEnded(f"it uses .{name} of a {what}, which Penstock does not follow")


def apply(function: Callable[..., Value], inputs: Sequence[Any]) -> Any:
    """A function of values, applied to frames and series as pandas does it."""
    if any(type(each) is TracedFrame for each in inputs):
        return _apply_frames(function, inputs)
    name = next(each.name for each in inputs if type(each) is TracedSeries)
    if any(type(each) is TracedSeries and each.name != name for each in inputs):
        name = None
    return TracedSeries(function(*(_beside_series(each) for each in inputs)), name)


def _beside_series(given: Any) -> Any:
    if type(given) is TracedSeries:
        return given.value
    array = traced(given)
    if array is not None:
        if array.cells.size != 1 or array.cells.ndim > 0:
            raise TraceEnded("it puts a matrix beside a column")
        return array.cells[()]
    if isinstance(given, np.ndarray | pd.Series | list | tuple | pd.Index):
        found = np.asarray(given)
        if found.ndim == 0 or (len(found) == ROWS and (found == found[0]).all()):
            return found.reshape(-1)[0]
        raise TraceEnded("it puts numbers of other rows beside a column")
    return given


def _apply_frames(function: Callable[..., Value], inputs: Sequence[Any]) -> "TracedFrame":
    first = next(each for each in inputs if type(each) is TracedFrame)
    names = list(first.data)
    made = {}
    for at, name in enumerate(names):
        made[name] = function(*(_beside_frame(each, at, name, len(names)) for each in inputs))
    return TracedFrame(made)


def _beside_frame(given: Any, at: int, name: Any, width: int) -> Any:
    if type(given) is TracedFrame:
        if name not in given.data or len(given.data) != width:
            raise TraceEnded("it puts frames of other columns beside each other")
        return given.data[name]
    if type(given) is TracedSeries:
        raise TraceEnded(
            "it puts a column beside a frame, whose names pandas would look for among the rows; use .to_numpy()[:, None]"
        )
    if isinstance(given, pd.Series):
        if name not in given.index or len(given) != width:
            raise TraceEnded(f"it puts a Series beside a frame, which has no {name!r}")
        return given[name]
    array = traced(given)
    if array is not None:
        cells = np.broadcast_to(array.cells, (width,)) if array.cells.ndim <= 1 else array.cells
        if array.ndim != 2 or array.rows_last:
            raise TraceEnded("it puts an array of other axes beside a frame")
        return cells[at]
    if isinstance(given, np.ndarray | list | tuple):
        found = np.asarray(given)
        if found.shape[-1:] != (width,) or found.size != width:
            raise TraceEnded("it puts numbers of other rows beside a frame")
        return found.reshape(-1)[at]
    return given


class TracedSeries(_Pandas):
    """One column of a traced frame."""

    def __init__(self, value: Value, name: Any = None) -> None:
        self.value = value
        self.name = name

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return _SERIES

    def as_array(self) -> TracedArray:
        return TracedArray(self.value)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or not hasattr(_SERIES, name):
            raise AttributeError(f"'Series' object has no attribute {name!r}")
        raise _missing_method(name, "column")

    def __iter__(self) -> Iterator[Any]:
        raise TraceEnded("it goes through the rows one by one; .map, numpy.where and arithmetic work on columns")

    def _with(self, value: Value) -> "TracedSeries":
        return TracedSeries(value, self.name)

    @property
    def dtype(self) -> Any:
        return dtype_of([self.value])

    @property
    def shape(self) -> tuple[int, ...]:
        return (ROWS,)

    @property
    def ndim(self) -> int:
        return 1

    @property
    def values(self) -> TracedArray:
        return self.as_array()

    array = values

    def to_numpy(self, dtype: Any = None, **_: Any) -> TracedArray:
        return self.as_array() if dtype is None else self.as_array().astype(dtype)

    def to_frame(self, name: Any = None) -> "TracedFrame":
        return TracedFrame({self.name if name is None else name: self.value})

    def copy(self, *_: Any, **__: Any) -> "TracedSeries":
        return self._with(self.value)

    squeeze = infer_objects = convert_dtypes = copy

    def reset_index(self, *, drop: bool = False, **_: Any) -> Any:
        return self.copy() if drop else _raise(TraceEnded("it makes a column of the index"))

    def rename(self, name: Any = None, **_: Any) -> "TracedSeries":
        return TracedSeries(self.value, name)

    def astype(self, dtype: Any, *_: Any, **__: Any) -> "TracedSeries":
        if isinstance(self.value, Number) and _is_whole(dtype):
            scalars.require_whole(self.value, _itemsize(dtype))
        return self._with(cast(self.value, dtype))

    def isna(self) -> "TracedSeries":
        return self._with(values.is_missing(self.value, _is_na))

    def notna(self) -> "TracedSeries":
        return self._with(call("logical_not", values.is_missing(self.value, _is_na)))

    isnull, notnull = isna, notna

    def fillna(self, value: Any = None, inplace: bool = False, **_: Any) -> Any:
        if type(value) is TracedSeries:
            value = value.value
        return self._done(filled(self.value, value), inplace)

    def _done(self, value: Value, inplace: bool) -> Any:
        if not inplace:
            return self._with(value)
        self.value = value
        return None

    def clip(self, lower: Any = None, upper: Any = None, **_: Any) -> "TracedSeries":
        sides = [_beside_series(side) for side in (lower, upper)]
        return self._with(elementwise.clipped(self.value, *sides))

    def round(self, decimals: int = 0, **_: Any) -> "TracedSeries":
        return self._with(elementwise.rounded(self.value, decimals))

    def abs(self) -> "TracedSeries":
        return self._with(call("abs", elementwise.number(self.value)))

    def where(self, cond: Any, other: Any = np.nan, **_: Any) -> "TracedSeries":
        condition = _condition(cond, self)
        return self._with(chosen(condition, self.value, _beside_series(other)))

    def mask(self, cond: Any, other: Any = np.nan, **_: Any) -> "TracedSeries":
        condition = _condition(cond, self)
        return self._with(chosen(call("logical_not", condition), self.value, _beside_series(other)))

    def between(self, left: Any, right: Any, inclusive: str = "both") -> "TracedSeries":
        low, high = self >= left if inclusive in ("both", "left") else self > left, None
        high = self <= right if inclusive in ("both", "right") else self < right
        return low & high  # type: ignore[no-any-return]

    def isin(self, known: Any) -> "TracedSeries":
        return self._with(is_in(self.value, list(known)))

    def map(self, given: Any, na_action: Any = None) -> "TracedSeries":
        del na_action
        if isinstance(given, pd.Series):
            given = given.to_dict()
        if isinstance(given, Mapping):
            return self._with(mapped(self.value, dict(given), float("nan")))
        return self._with(scalars.applied(given, self.value))

    def apply(self, func: Any, args: tuple[Any, ...] = (), **options: Any) -> Any:
        options = {key: value for key, value in options.items() if key not in ("convert_dtype", "by_row")}
        if isinstance(func, np.ufunc):
            return func(self)
        return self._with(scalars.applied(partial(_called, func, args, options), self.value))

    def replace(self, to_replace: Any = None, value: Any = None, inplace: bool = False, **_: Any) -> Any:
        pairs = _pairs(to_replace, value)
        return self._done(replaced(self.value, pairs), inplace)

    def combine_first(self, other: Any) -> "TracedSeries":
        return self.fillna(other)  # type: ignore[no-any-return]

    def pipe(self, func: Any, *args: Any, **options: Any) -> Any:
        return func(self, *args, **options)

    @property
    def str(self) -> "_Str":
        if not isinstance(self.value, Text):
            raise TraceEnded("it uses .str of a column that is no raw text")
        return _Str(self)

    @property
    def dt(self) -> "_Dt":
        if not isinstance(self.value, Time):
            raise TraceEnded(
                f"it uses .dt of the column {self.name!r}, which holds no times in the sample; give the sample as .parquet"
            )
        return _Dt(self)

    @property
    def cat(self) -> Any:
        raise TraceEnded("it uses .cat, whose codes depend on how a frame holds its categories")

    def __getitem__(self, key: Any) -> Any:
        raise TraceEnded("it picks rows of a column")

    def __setitem__(self, key: Any, given: Any) -> None:
        self.value = chosen(_condition(key, self), _beside_series(given), self.value)

    @property
    def loc(self) -> Any:
        return self


def _series_reduction(name: str) -> Any:
    def reduce(*_: Any, **__: Any) -> Any:
        raise TraceEnded(ALL_ROWS.format(what=f".{name}()"))

    return reduce


for _name in ("sum", "mean", "min", "max", "std", "var", "count", "prod"):
    setattr(TracedSeries, _name, _series_reduction(_name))


TracedSeries.any = lambda self, *_, **__: scalars.any_row([self.value])  # type: ignore[attr-defined]
TracedSeries.all = lambda self, *_, **__: scalars.all_rows([self.value])  # type: ignore[attr-defined]


def _raise(error: BaseException) -> Any:
    raise error


def _called(function: Any, args: tuple[Any, ...], options: Mapping[str, Any], value: Any) -> Any:
    return function(value, *args, **options)


def _method(ufunc: Any, *, is_swapped: bool = False) -> Any:
    def compute(self: Any, other: Any, axis: Any = "columns", level: Any = None, fill_value: Any = None) -> Any:
        del level
        if fill_value is not None:
            self = self.fillna(fill_value)
            other = other.fillna(fill_value) if is_pandas(other) else other
        if type(self) is TracedFrame and type(other) is TracedSeries:
            if axis not in (0, "index", "rows"):
                raise TraceEnded("it puts a column beside a frame without axis=0")
            other = TracedFrame(dict.fromkeys(self.data, other.value))
        return ufunc(other, self) if is_swapped else ufunc(self, other)

    return compute


for _name, _ufunc in {
    "add": np.add, "sub": np.subtract, "subtract": np.subtract, "mul": np.multiply, "multiply": np.multiply,
    "div": np.true_divide, "divide": np.true_divide, "truediv": np.true_divide, "floordiv": np.floor_divide,
    "mod": np.remainder, "pow": np.power, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal,
    "eq": np.equal, "ne": np.not_equal,
}.items():  # fmt: skip
    setattr(_Pandas, _name, _method(_ufunc))
for _name, _ufunc in {"radd": np.add, "rsub": np.subtract, "rmul": np.multiply, "rdiv": np.true_divide}.items():
    setattr(_Pandas, _name, _method(_ufunc, is_swapped=True))


def _is_whole(dtype: Any) -> bool:
    try:
        return np.dtype(dtype).kind in "iu"
    except TypeError:
        return str(dtype).startswith(("Int", "UInt"))


def _itemsize(dtype: Any) -> int:
    try:
        return int(np.dtype(dtype).itemsize)
    except TypeError:
        return 8


def _condition(given: Any, series: TracedSeries) -> Number:
    if callable(given) and not is_pandas(given):
        given = given(series)
    return elementwise.number(_beside_series(given))


def chosen(condition: Number, one: Any, other: Any) -> Value:
    """One value where the condition is true, else the other; texts of a column where only missing ones change."""
    if isinstance(one, Text) or isinstance(other, Text):
        raise TraceEnded("it changes texts of a column by a condition; .replace and .fillna work")
    return elementwise.choose(condition, one, other)


def filled(value: Value, given: Any) -> Value:
    """The value with its missing ones replaced."""
    if isinstance(value, Text):
        if not isinstance(given, str):
            raise TraceEnded(f"it fills {given!r} into a column of text")
        becomes = {text: given if _is_na(stands_for) else stands_for for text, stands_for in value.becomes.items()}
        return Text(value.at, becomes, value.prepare)
    if isinstance(value, Coded):
        return values.chosen_texts(values.is_missing(value, _is_na), given, value)
    if isinstance(value, Time):
        raise TraceEnded("it fills missing times")
    if isinstance(given, str):
        raise TraceEnded(f"it fills {given!r} into a column of numbers")
    replacement = elementwise.number(given)
    if value.kind == "bool":
        return value
    return values.where(call("isnan", value), replacement, value)


def mapped(value: Value, pairs: Mapping[Any, Any], other: float) -> Value:
    """What a dictionary makes of each value; missing where it has none."""
    if isinstance(value, Text):
        return _mapped_text(value, pairs, other)
    if isinstance(value, Coded):
        found: Any = other
        for at, text in enumerate(value.texts):
            if text in pairs:
                found = elementwise.choose(values.equal_constant(value.code, at), pairs[text], found)
        return found if isinstance(found, Number | Coded) else constant(found)
    if isinstance(value, Time):
        raise TraceEnded("it looks times up in a dictionary")
    return values.by_equality(value, pairs, other)  # type: ignore[no-any-return]


def _mapped_text(value: Text, pairs: Mapping[Any, Any], other: float) -> Value:
    of_missing = next((given for key, given in pairs.items() if not isinstance(key, str) and pd.isna(key)), other)
    texts = [given for given in pairs.values() if isinstance(given, str)]
    if texts:
        names = tuple(dict.fromkeys(texts))
        codes = {key: float(names.index(given)) if isinstance(given, str) else -1.0 for key, given in pairs.items()}
        of_missing = float(names.index(of_missing)) if isinstance(of_missing, str) else -1.0
        return Coded(values.looked_up(value, values.wire_texts(value, codes, of_missing, -1.0), -1.0, "int"), names)
    numbers = {key: elementwise.number(given) for key, given in pairs.items()}
    plain = {key: float("nan") if given.value is None else given.value for key, given in numbers.items()}
    # pandas makes floats of whole numbers where any text has none, which a request may hold.
    return values.looked_up(value, values.wire_texts(value, plain, float(of_missing), other), other, "float")


def is_in(value: Value, known: Sequence[Any]) -> Value:
    """Whether each value is among these."""
    if isinstance(value, Text):
        of_missing = float(any(not isinstance(each, str) and pd.isna(each) for each in known))
        meant = {each: 1.0 for each in known if isinstance(each, str)}
        return values.looked_up(value, values.wire_texts(value, meant, of_missing, 0.0), 0.0, "bool")
    compare = elementwise.ufunc_of(np.equal)
    return values.any_of([elementwise.number(compare(value, each)) for each in known])


def _pairs(given: Any, value: Any) -> dict[Any, Any]:
    if isinstance(given, Mapping):
        return dict(given)
    if isinstance(given, list | tuple | np.ndarray):
        others = value if isinstance(value, list | tuple) else [value] * len(given)
        return dict(zip(list(given), others, strict=True))
    return {given: value}


def replaced(value: Value, pairs: Mapping[Any, Any]) -> Value:
    """The value with some replaced by others, as pandas' `replace`."""
    if isinstance(value, Text):
        return _replaced_text(value, pairs)
    if isinstance(value, Coded):
        texts = tuple(pairs.get(text, text) for text in value.texts)
        if not all(isinstance(text, str) for text in texts) or len(set(texts)) < len(texts):
            raise TraceEnded("it replaces texts that it chose before")
        return Coded(value.code, texts)
    plain = {key: new for key, new in pairs.items() if not isinstance(key, str)}
    return values.by_equality(elementwise.number(value), plain, elementwise.number(value))  # type: ignore[no-any-return]


def _replaced_text(value: Text, pairs: Mapping[Any, Any]) -> Value:
    if value.prepare:
        raise TraceEnded("it replaces texts after changing them")
    if all(isinstance(new, int | float | np.number) for new in pairs.values()):
        raise TraceEnded("it replaces texts by numbers, and leaves other texts; .map({...}) gives numbers alone")
    becomes = dict(value.becomes)
    of_missing = frozenset({Missing.NAN, Missing.NONE})
    for key, new in pairs.items():
        is_text = isinstance(new, str)
        if not isinstance(key, str) and pd.isna(key):
            becomes = {text: new if _is_na(old) and is_text else old for text, old in becomes.items()}
        elif isinstance(key, str):
            becomes = {text: (new if is_text else of_missing) if old == key else old for text, old in becomes.items()}
            if key and key not in becomes:
                becomes[key] = new if is_text else of_missing
    return Text(value.at, becomes, value.prepare)


_CASES: Final = frozenset({"lower", "upper", "casefold"})
_PREPARE: Final = ("lower", "upper", "casefold", "strip", "lstrip", "rstrip")


class _Str:
    """The accessor `str` of a text column."""

    def __init__(self, series: TracedSeries) -> None:
        self._series = series

    def contains(
        self,
        pat: Any,
        case: bool = True,
        flags: int = 0,
        na: Any = None,
        regex: bool = True,
    ) -> TracedSeries:
        text: Any = self._series.value
        if not case or flags:
            raise TraceEnded("it uses .str.contains without regard to case; .str.lower() before it compiles")
        grams = pat.split("|") if regex and isinstance(pat, str) else [pat]
        if not all(isinstance(gram, str) and _is_plain(gram, is_pattern=regex) for gram in grams):
            raise TraceEnded(
                f"it uses .str.contains({pat!r}); of patterns, texts of up to {limits.MAX_GRAM} characters without white space "
                "compile, also several with | between them"
            )
        if any(key and old != key for key, old in text.becomes.items()):
            raise TraceEnded("it uses .str.contains after replacing texts")
        filled = text.becomes.get("")
        is_na = na is not None and not pd.isna(na) and bool(na)
        of_empty = any(gram in filled for gram in grams) if isinstance(filled, str) else is_na
        found = [values.searched(text, gram) for gram in grams]
        if of_empty:
            found.append(values.looked_up(text, {"": 1.0}, 0.0, "bool"))
        return TracedSeries(values.any_of(found), self._series.name)

    def __getattr__(self, name: str) -> Any:
        if name not in _PREPARE:
            listed = ", ".join(f".str.{one}" for one in (*_PREPARE, "contains"))
            raise TraceEnded(f"it uses .str.{name}; of texts {listed} compile")

        def prepare(to_strip: Any = None) -> TracedSeries:
            text: Any = self._series.value
            if to_strip is not None:
                raise TraceEnded(f"it gives .str.{name} what to strip")
            if name in _CASES and _CASES.intersection(text.prepare) - {name}:
                raise TraceEnded(f"it uses .str.{name} after another case")
            changed = [key for key, old in text.becomes.items() if isinstance(old, str) and key != old]
            if changed:
                raise TraceEnded(f"it uses .str.{name} after filling or replacing texts")
            return TracedSeries(Text(text.at, text.becomes, (*text.prepare, name)), self._series.name)

        return prepare


def _is_plain(gram: str, *, is_pattern: bool) -> bool:
    """Whether it stands for itself alone, and can be looked for."""
    means_more = is_pattern and any(each in r".^$*+?{}[]\()" for each in gram)
    return 0 < len(gram) <= limits.MAX_GRAM and not means_more and not any(map(str.isspace, gram))


_SAME_PARTS: Final = {
    "dayofweek": "weekday", "day_of_week": "weekday", "dayofyear": "day_of_year", "daysinmonth": "days_in_month",
}  # fmt: skip


class _Dt:
    """The accessor `dt` of a time column, or of a duration."""

    def __init__(self, series: TracedSeries) -> None:
        self._series = series
        self._time: Any = series.value

    def __getattr__(self, name: str) -> Any:
        part = _SAME_PARTS.get(name, name)
        if self._time.is_duration:
            return self._of_duration(name)
        if self._time.at is None:
            raise TraceEnded(f"it uses .dt.{name} of a time that it computed")
        if part not in TIME_PARTS or part in ("days", "seconds", "week"):
            raise TraceEnded(f"it uses .dt.{name}, which Penstock does not follow")
        return self._series._with(elementwise.time_part(self._time, part))  # noqa: SLF001 - its own accessor

    def isocalendar(self) -> "TracedFrame":
        weekday = elementwise.time_part(self._time, "weekday")
        return TracedFrame(
            {"week": elementwise.time_part(self._time, "week"), "day": call("add", weekday, constant(1))}
        )

    def normalize(self) -> TracedSeries:
        return self._series._with(Time(self._time.days, constant(0)))  # noqa: SLF001

    def tz_localize(self, tz: Any = None, **_: Any) -> TracedSeries:
        if tz not in (None, "UTC"):
            raise TraceEnded(f"it moves times to the zone {tz}")
        return self._series

    def total_seconds(self) -> TracedSeries:
        if not self._time.is_duration:
            raise TraceEnded("it takes .total_seconds() of a time")
        return self._series._with(call("divide", values.duration_ns(self._time), constant(1e9)))  # noqa: SLF001

    def _of_duration(self, name: str) -> TracedSeries:
        days, rest = self._time.days, self._time.nanoseconds
        whole = call("floor", call("divide", rest, constant(float(values.DAY_NS))))
        of_day = call("subtract", rest, call("multiply", whole, constant(float(values.DAY_NS))))
        seconds = call("floor", call("divide", of_day, constant(1e9)))
        found = {
            "days": call("add", days, whole),
            "seconds": seconds,
            "microseconds": call(
                "floor",
                call("divide", call("subtract", of_day, call("multiply", seconds, constant(1e9))), constant(1e3)),
            ),
        }
        if name not in found:
            raise TraceEnded(f"it uses .dt.{name} of a duration; .dt.days, .dt.seconds and .dt.total_seconds() work")
        return self._series._with(found[name])  # noqa: SLF001


class _Located:
    """`loc` and `iloc`: all rows of some columns, and the assignment by condition."""

    def __init__(self, frame: "TracedFrame", *, by_place: bool) -> None:
        self._frame = frame
        self._by_place = by_place

    def _columns(self, chosen_columns: Any) -> Any:
        names = list(self._frame.data)
        if self._by_place:
            found = np.asarray(pd.Series(range(len(names)), dtype=int).iloc[chosen_columns])
            return names[int(found)] if found.ndim == 0 else [names[at] for at in found]
        if isinstance(chosen_columns, slice) or (
            isinstance(chosen_columns, list | np.ndarray) and _is_mask(chosen_columns)
        ):
            return list(pd.Series(names, index=names).loc[chosen_columns])
        return (
            list(chosen_columns) if isinstance(chosen_columns, list | tuple | pd.Index | np.ndarray) else chosen_columns
        )

    def __getitem__(self, key: Any) -> Any:
        rows, chosen_columns = key if isinstance(key, tuple) else (key, slice(None))
        if not isinstance(rows, slice) or rows != slice(None):
            raise TraceEnded("it picks rows; all rows of a request are answered: use numpy.where or .clip")
        return self._frame[self._columns(chosen_columns)]

    def __setitem__(self, key: Any, given: Any) -> None:
        rows, chosen_columns = key if isinstance(key, tuple) else (key, slice(None))
        names = self._columns(chosen_columns)
        if isinstance(rows, slice) and rows == slice(None):
            self._frame[names] = given
            return
        for name in names if isinstance(names, list) else [names]:
            old = self._frame.data.get(name, constant(float("nan")))
            condition = elementwise.number(_beside_series(rows))
            new = given.data[name] if type(given) is TracedFrame else _beside_series(given)
            self._frame.data[name] = chosen(condition, new, old)


def _is_mask(given: Any) -> bool:
    return np.asarray(given).dtype == bool


class TracedFrame(_Pandas):
    """A frame of traced columns.

    Args:
        data: the columns by name, in order.
    """

    def __init__(self, data: Mapping[Any, Value]) -> None:
        object.__setattr__(self, "data", dict(data))

    data: dict[Any, Value]

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        return _FRAME

    def as_array(self) -> TracedArray:
        made = np.empty(len(self.data), object)
        made[:] = list(self.data.values())
        kinds = {value.kind for value in self.data.values() if isinstance(value, Number)}
        if len(kinds) > 1 and all(isinstance(value, Number) for value in self.data.values()):
            # One dtype for all, as pandas has it.
            return TracedArray(made).astype(dtype_of(list(self.data.values())))
        return TracedArray(made)

    def __getattr__(self, name: str) -> Any:
        data = object.__getattribute__(self, "data")
        if name in data:
            return TracedSeries(data[name], name)
        if name.startswith("__") or not hasattr(_FRAME, name):
            raise AttributeError(f"'DataFrame' object has no attribute {name!r}")
        raise _missing_method(name, "frame")

    def __setattr__(self, name: str, given: Any) -> None:
        if name == "columns":
            names = list(given)
            if len(names) != len(self.data):
                raise TraceEnded(f"it gives {len(names)} names to {len(self.data)} columns")
            object.__setattr__(self, "data", dict(zip(names, self.data.values(), strict=True)))
        elif name in self.data:
            self[name] = given
        elif name not in ("index", "attrs"):
            object.__setattr__(self, name, given)

    def __iter__(self) -> Iterator[Any]:
        return iter(list(self.data))

    def __contains__(self, name: Any) -> bool:
        return name in self.data

    @property
    def columns(self) -> pd.Index:
        return pd.Index(list(self.data))

    def keys(self) -> pd.Index:
        return self.columns

    def items(self) -> Iterator[tuple[Any, TracedSeries]]:
        return ((name, TracedSeries(value, name)) for name, value in list(self.data.items()))

    @property
    def dtypes(self) -> pd.Series:
        return pd.Series({name: dtype_of([value]) for name, value in self.data.items()}, dtype=object)

    @property
    def shape(self) -> tuple[int, int]:
        return ROWS, len(self.data)

    @property
    def ndim(self) -> int:
        return 2

    @property
    def values(self) -> TracedArray:
        return self.as_array()

    def to_numpy(self, dtype: Any = None, **_: Any) -> TracedArray:
        return self.as_array() if dtype is None else self.as_array().astype(dtype)

    @property
    def loc(self) -> _Located:
        return _Located(self, by_place=False)

    @property
    def iloc(self) -> _Located:
        return _Located(self, by_place=True)

    def _skeleton(self) -> pd.DataFrame:
        """A frame without rows, with these columns and dtypes: pandas itself picks among them."""
        return pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in self.dtypes.items()})

    def _picked(self, names: Sequence[Any]) -> "TracedFrame":
        lacking = [name for name in names if name not in self.data]
        if lacking:
            raise TraceEnded(f"it reads the column {lacking[0]!r}, which does not reach it")
        if len(set(names)) < len(names):
            raise TraceEnded("it picks a column twice into one frame")
        return TracedFrame({name: self.data[name] for name in names})

    def __getitem__(self, key: Any) -> Any:
        if is_pandas(key) or type(key) is TracedArray:
            raise TraceEnded("it picks rows; all rows of a request are answered: use numpy.where or .clip")
        if isinstance(key, list | pd.Index | np.ndarray | pd.Series):
            names = list(key)
            return self._picked(
                [n for n, kept in zip(self.data, names, strict=True) if kept] if _is_mask(key) and names else names
            )
        if isinstance(key, slice):
            raise TraceEnded("it picks rows")
        if key not in self.data:
            raise TraceEnded(f"it reads the column {key!r}, which does not reach it")
        return TracedSeries(self.data[key], key)

    def get(self, key: Any, default: Any = None) -> Any:
        return self[key] if key in self.data else default

    def __setitem__(self, key: Any, given: Any) -> None:
        if isinstance(key, list | pd.Index | np.ndarray | tuple):
            names = list(key)
            for at, name in enumerate(names):
                self.data[name] = _column_of(given, at, len(names))
        elif is_pandas(key) or type(key) is TracedArray:
            raise TraceEnded("it assigns to a whole frame by condition; .where and .mask work")
        else:
            self.data[key] = _column_of(given, 0, 1)

    def __delitem__(self, key: Any) -> None:
        del self.data[key]

    def pop(self, key: Any) -> TracedSeries:
        return TracedSeries(self.data.pop(key), key)

    def insert(self, loc: int, column: Any, value: Any, allow_duplicates: bool = False) -> None:
        del allow_duplicates
        items = list(self.data.items())
        items.insert(loc, (column, _column_of(value, 0, 1)))
        object.__setattr__(self, "data", dict(items))

    def copy(self, *_: Any, **__: Any) -> "TracedFrame":
        return TracedFrame(self.data)

    infer_objects = convert_dtypes = copy

    def reset_index(self, *, drop: bool = False, **_: Any) -> Any:
        return self.copy() if drop else _raise(TraceEnded("it makes a column of the index"))

    def assign(self, **columns: Any) -> "TracedFrame":
        made = self.copy()
        for name, given in columns.items():
            made[name] = given(made) if callable(given) and not is_pandas(given) else given
        return made

    def drop(
        self,
        labels: Any = None,
        axis: Any = 0,
        columns: Any = None,
        inplace: bool = False,
        errors: str = "raise",
        **_: Any,
    ) -> Any:
        if columns is None and axis not in (1, "columns"):
            raise TraceEnded("it drops rows; all rows of a request are answered")
        given = labels if columns is None else columns
        names = (
            [given]
            if isinstance(given, str) or not isinstance(given, list | tuple | set | pd.Index | np.ndarray)
            else list(given)
        )
        lacking = [name for name in names if name not in self.data]
        if lacking and errors != "ignore":
            raise TraceEnded(f"it drops the column {lacking[0]!r}, which does not reach it")
        return self._done({name: value for name, value in self.data.items() if name not in names}, inplace)

    def _done(self, data: Mapping[Any, Value], inplace: bool) -> Any:
        if not inplace:
            return TracedFrame(data)
        object.__setattr__(self, "data", dict(data))
        return None

    def rename(self, mapper: Any = None, columns: Any = None, axis: Any = None, inplace: bool = False, **_: Any) -> Any:
        given = mapper if columns is None else columns
        if columns is None and axis not in (1, "columns"):
            raise TraceEnded("it renames rows")
        new = {name: given(name) if callable(given) else given.get(name, name) for name in self.data}
        return self._done({new[name]: value for name, value in self.data.items()}, inplace)

    def add_prefix(self, prefix: str, **_: Any) -> "TracedFrame":
        return TracedFrame({f"{prefix}{name}": value for name, value in self.data.items()})

    def add_suffix(self, suffix: str, **_: Any) -> "TracedFrame":
        return TracedFrame({f"{name}{suffix}": value for name, value in self.data.items()})

    def set_axis(self, labels: Any, axis: Any = 0, **_: Any) -> "TracedFrame":
        if axis not in (1, "columns"):
            raise TraceEnded("it renames rows")
        made = self.copy()
        object.__setattr__(made, "data", dict(zip(labels, self.data.values(), strict=True)))
        return made

    def reindex(
        self, labels: Any = None, columns: Any = None, axis: Any = None, fill_value: Any = np.nan, **_: Any
    ) -> "TracedFrame":
        given = labels if columns is None and axis in (1, "columns") else columns
        if given is None:
            raise TraceEnded("it picks rows by their index")
        return TracedFrame({name: self.data.get(name, constant(fill_value)) for name in given})

    def select_dtypes(self, include: Any = None, exclude: Any = None) -> "TracedFrame":
        return self._picked(list(self._skeleton().select_dtypes(include=include, exclude=exclude).columns))

    def filter(self, items: Any = None, like: Any = None, regex: Any = None, axis: Any = None) -> "TracedFrame":
        return self._picked(list(self._skeleton().filter(items=items, like=like, regex=regex, axis=axis).columns))

    def pipe(self, func: Any, *args: Any, **options: Any) -> Any:
        return func(self, *args, **options)

    def eval(self, *_: Any, **__: Any) -> Any:
        raise TraceEnded("it uses .eval, which reads the frame in its own way; write the same with columns")

    def apply(
        self, func: Any, axis: Any = 0, raw: bool = False, result_type: Any = None, args: Any = (), **options: Any
    ) -> Any:
        if raw or result_type is not None:
            raise TraceEnded("it uses .apply with raw or result_type")
        if axis in (1, "columns"):
            names = list(self.data)
            return TracedSeries(
                scalars.applied_to_rows(func, names, [self.data[name] for name in names], args, options)
            )
        made = {name: func(series, *args, **options) for name, series in self.items()}
        for name, given in made.items():
            if type(given) is TracedArray:
                made[name] = TracedSeries(_column_of(given, 0, 1), name)
            elif type(given) is not TracedSeries:
                raise TraceEnded("it makes one value of each column, which depends on the other rows")
        return TracedFrame({name: given.value for name, given in made.items()})

    transform = apply

    def map(self, func: Any, **_: Any) -> "TracedFrame":
        return TracedFrame({name: scalars.applied(func, value) for name, value in self.data.items()})

    applymap = map  # noqa: A003 - pandas' older name

    def _each(self, name: str, *args: Any, **options: Any) -> "TracedFrame":
        return TracedFrame({key: getattr(series, name)(*args, **options).value for key, series in self.items()})

    def astype(self, dtype: Any, *_: Any, **__: Any) -> "TracedFrame":
        own = dtype if isinstance(dtype, Mapping) else dict.fromkeys(self.data, dtype)
        return TracedFrame({n: s.astype(own[n]).value if n in own else s.value for n, s in self.items()})

    def fillna(self, value: Any = None, inplace: bool = False, **_: Any) -> Any:
        own = value.to_dict() if isinstance(value, pd.Series) else value
        own = own if isinstance(own, Mapping) else None
        if type(value) is TracedFrame:
            own = dict(value.items())
        made = {}
        for name, series in self.items():
            given = value if own is None else own.get(name)
            # pandas leaves a column of text alone that it cannot fill with a number only by raising.
            made[name] = series.value if given is None else series.fillna(given).value
        return self._done(made, inplace)

    def replace(self, to_replace: Any = None, value: Any = None, inplace: bool = False, **_: Any) -> Any:
        nested = isinstance(to_replace, Mapping) and any(isinstance(one, Mapping) for one in to_replace.values())
        if nested:
            data = {n: s.replace(to_replace[n]).value if n in to_replace else s.value for n, s in self.items()}
        else:
            pairs = _pairs(to_replace, value)
            data = {name: _replaced_where_possible(series, pairs) for name, series in self.items()}
        return self._done(data, inplace)

    def where(self, cond: Any, other: Any = np.nan, **_: Any) -> "TracedFrame":
        return _frame_choice(self, cond, self, other)

    def mask(self, cond: Any, other: Any = np.nan, **_: Any) -> "TracedFrame":
        return _frame_choice(self, cond, other, self)

    def equals(self, *_: Any) -> Any:
        raise TraceEnded("it compares all rows at once")


def _frame_choice(frame: TracedFrame, condition: Any, one: Any, other: Any) -> TracedFrame:
    condition = condition(frame) if callable(condition) and not is_pandas(condition) else condition
    sides = [condition, one, other]
    return TracedFrame({
        name: elementwise.choose(*(_beside_frame(side, at, name, len(frame.data)) for side in sides))
        for at, name in enumerate(frame.data)
    })  # fmt: skip


def _replaced_where_possible(series: TracedSeries, pairs: Mapping[Any, Any]) -> Value:
    is_text = isinstance(series.value, Text | Coded)
    own = {
        key: new
        for key, new in pairs.items()
        if isinstance(key, str) == is_text or (not isinstance(key, str) and pd.isna(key))
    }
    made: Value = series.replace(own).value if own else series.value
    return made


def _column_of(given: Any, at: int, width: int) -> Value:  # noqa: PLR0911 - one branch per kind
    """The value of one column of what is assigned to several."""
    if type(given) is TracedFrame:
        if len(given.data) != width:
            raise TraceEnded(f"it assigns {len(given.data)} columns to {width}")
        return list(given.data.values())[at]
    if type(given) is TracedSeries:
        return given.value
    array = traced(given)
    if array is not None:
        if array.rows_last or array.cells.ndim > 1 or (array.cells.ndim == 1 and len(array.cells) != width):
            raise TraceEnded(f"it assigns an array of other axes to {width} columns")
        cell: Any = array.cells[at] if array.cells.ndim else array.cells[()]
        return cell  # type: ignore[no-any-return]
    if isinstance(given, str):
        return Coded(constant(0), (given,))
    if (
        isinstance(given, np.ndarray | pd.Series)
        and len(given) == ROWS
        and (np.asarray(given) == np.asarray(given)[0]).all()
    ):
        return constant(np.asarray(given)[0])
    if isinstance(given, list | tuple) and len(given) == width and width > 1:
        return constant(given[at])
    return constant(given)


def _frame_reduction(name: str, fold: Callable[..., Number]) -> Any:
    def compute(
        self: TracedFrame, axis: Any = 0, skipna: bool = True, numeric_only: bool = False, **options: Any
    ) -> Any:
        if axis not in (1, "columns"):
            if name in ("any", "all"):
                return (scalars.any_row if name == "any" else scalars.all_rows)(list(self.data.values()))
            raise TraceEnded(ALL_ROWS.format(what=f".{name}()"))
        if options.pop("min_count", 0) or not skipna:
            raise TraceEnded(f"it gives .{name} min_count or skipna")
        cells = [value for value in self.data.values() if not numeric_only or isinstance(value, Number)]
        return TracedSeries(fold([elementwise.number(cell) for cell in cells], **options))

    return compute


def _sum(cells: Sequence[Any]) -> Number:
    if all(cell.kind == "bool" for cell in cells):
        return elementwise.summed(cells)
    return numpy_functions.sum_of_present(cells)


def _mean(cells: Sequence[Any]) -> Number:
    if all(cell.kind == "bool" for cell in cells):
        return elementwise.mean(cells)
    return numpy_functions.mean_of_present(cells)


def _spread(cells: Sequence[Any], ddof: int = 1) -> Number:
    """The standard deviation without NaN, in pandas' order of operations."""
    filled_cells, count = numpy_functions._present(cells)  # noqa: SLF001 - the same package
    center = call("divide", elementwise.summed(filled_cells), count)
    squares = [
        values.where(call("isnan", cell), constant(0.0), call("square", call("subtract", center, cell)))
        for cell in cells
    ]
    rest = call("subtract", count, constant(ddof))
    rest = values.where(call("less_equal", rest, constant(0)), constant(float("nan")), rest)
    return call("sqrt", call("divide", elementwise.summed(squares), rest))


def _flags(function: str, cells: Sequence[Any]) -> Number:
    # pandas leaves NaN out.
    present = [
        call("logical_and", values.as_kind(cell, "bool"), call("logical_not", call("isnan", cell))) for cell in cells
    ]
    if function == "logical_and":
        present = [call("logical_or", values.as_kind(cell, "bool"), call("isnan", cell)) for cell in cells]
    return elementwise.reduced(function, present)


def _of_each(name: str) -> Any:
    def compute(self: TracedFrame, *args: Any, **options: Any) -> TracedFrame:
        return self._each(name, *args, **options)

    return compute


_FOLDS: Final[dict[str, Callable[..., Number]]] = {
    "sum": _sum,
    "mean": _mean,
    "max": lambda cells: elementwise.reduced("fmax", cells),
    "min": lambda cells: elementwise.reduced("fmin", cells),
    "prod": lambda cells: elementwise.reduced(
        "multiply", [values.where(call("isnan", cell), constant(1.0), cell) for cell in cells]
    ),
    "any": partial(_flags, "logical_or"),
    "all": partial(_flags, "logical_and"),
    "count": lambda cells: elementwise.summed([call("logical_not", call("isnan", cell)) for cell in cells]),
    "std": _spread,
    "var": lambda cells, ddof=1: call("square", _spread(cells, ddof)),
}
for _name, _fold in _FOLDS.items():
    setattr(TracedFrame, _name, _frame_reduction(_name, _fold))
for _name in ("isna", "notna", "isnull", "notnull", "clip", "round", "abs", "isin"):
    setattr(TracedFrame, _name, _of_each(_name))
