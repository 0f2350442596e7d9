"""What numpy and pandas call by name rather than by protocol, while a function is traced: `numpy.asarray`, `pandas.concat`.

Their own functions answer for everything that is not traced, so that other threads notice nothing. They are put back when
the trace ends, whatever happens.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import numpy as np
import pandas as pd

from penstock_tools.sklearn_compiler.tracing import elementwise, numpy_functions, scalars, values
from penstock_tools.sklearn_compiler.tracing.arrays import TracedArray, each, traced
from penstock_tools.sklearn_compiler.tracing.ended import TraceEnded
from penstock_tools.sklearn_compiler.tracing.frames import RowIndex, TracedFrame, TracedSeries
from penstock_tools.sklearn_compiler.tracing.values import Coded, call, constant

_FRAME: Final = pd.DataFrame
_TRACED: Final = (TracedArray, TracedFrame, TracedSeries, scalars.TracedScalar)


def _holds_tracers(given: Any, depth: int = 3) -> bool:
    if type(given) in _TRACED:
        return True
    if depth and type(given) in (list, tuple):
        return any(_holds_tracers(one, depth - 1) for one in given)
    return depth > 0 and type(given) is dict and any(_holds_tracers(one, depth - 1) for one in given.values())


@contextmanager
def patched() -> Iterator[None]:
    """Numpy and pandas with functions that take tracers too."""
    kept = [(module, name, getattr(module, name)) for module, name in _PATCHES]
    try:
        for module, name, own in kept:
            setattr(module, name, _PATCHES[module, name](own))
        yield
    finally:
        for module, name, own in kept:
            setattr(module, name, own)


def _either(replacement: Callable[..., Any]) -> Callable[[Any], Any]:
    """A function that takes tracers, and hands everything else to its own."""

    def make(own: Any) -> Any:
        def call_either(*args: Any, **options: Any) -> Any:
            if any(map(_holds_tracers, args)) or any(map(_holds_tracers, options.values())):
                return replacement(*args, **options)
            return own(*args, **options)

        return call_either

    return make


def _as_array(a: Any = None, dtype: Any = None, *_: Any, object: Any = None, **__: Any) -> Any:  # noqa: A002 - numpy's name
    return numpy_functions.as_array(a if object is None else object, dtype)


class _Columns:
    """`numpy.c_`."""

    def __init__(self, own: Any) -> None:
        self._own = own

    def __getitem__(self, members: Any) -> Any:
        given = members if isinstance(members, tuple) else (members,)
        return numpy_functions.side_by_side(given) if _holds_tracers(list(given)) else self._own[members]


class _PandasClass(type):
    """A class of pandas that makes a traced one of tracers; `isinstance` says yes to both."""

    own: Any
    make: Any

    def __call__(cls, *args: Any, **options: Any) -> Any:
        if any(map(_holds_tracers, args)) or any(map(_holds_tracers, options.values())):
            return cls.make(*args, **options)
        # A frame without data is filled with columns later.
        if _is_index(options.get("index")) or (cls.own is _FRAME and not args and not options):
            return cls.make(*args, **options)
        return cls.own(*args, **options)

    def __instancecheck__(cls, given: Any) -> bool:
        return isinstance(given, cls.own)

    def __subclasscheck__(cls, given: Any) -> bool:
        return issubclass(given, cls.own)

    def __getattr__(cls, name: str) -> Any:
        return getattr(cls.own, name)


def _is_index(given: Any) -> bool:
    return type(given) is RowIndex


def _class(make: Callable[..., Any]) -> Callable[[Any], Any]:
    return lambda own: _PandasClass(own.__name__, (), {"own": own, "make": staticmethod(make)})


def _frame(data: Any = None, index: Any = None, columns: Any = None, dtype: Any = None, copy: Any = None) -> Any:
    del index, copy
    if data is None:
        return TracedFrame({})
    if isinstance(data, Mapping):
        made = TracedFrame({})
        for name, given in data.items():
            made[name] = given
        return made[list(columns)] if columns is not None else made
    if type(data) is TracedFrame:
        return data[list(columns)] if columns is not None else data.copy()
    if type(data) is TracedSeries:
        return data.to_frame(None if columns is None else next(iter(columns)))
    array = numpy_functions.as_array(data)
    if array.rows_last or array.cells.ndim > 1:
        raise TraceEnded("it makes a frame of a transposed array")
    cells = list(array.cells.ravel())
    names = list(range(len(cells))) if columns is None else list(columns)
    if len(names) != len(cells):
        raise TraceEnded(f"it gives {len(names)} names to {len(cells)} columns")
    made = TracedFrame(dict(zip(names, cells, strict=True)))
    return made if dtype is None else made.astype(dtype)


def _series(
    data: Any = None, index: Any = None, dtype: Any = None, name: Any = None, copy: Any = None, **_: Any
) -> Any:
    del index, copy
    if type(data) is TracedSeries:
        made = TracedSeries(data.value, data.name if name is None else name)
    else:
        array = numpy_functions.as_array(data)
        if array.cells.ndim:
            raise TraceEnded("it makes a column of a matrix")
        made = TracedSeries(array.cells[()], name)
    return made if dtype is None else made.astype(dtype)


def _concat(objs: Any, axis: Any = 0, keys: Any = None, **_: Any) -> Any:
    if axis not in (1, "columns"):
        raise TraceEnded("it puts rows behind rows; with axis=1 columns stand side by side")
    given = list(objs.values()) if isinstance(objs, Mapping) else list(objs)
    found: list[tuple[Any, Any]] = []
    for at, member in enumerate(given):
        if type(member) is TracedFrame:
            found += member.data.items()
        elif type(member) is TracedSeries:
            found.append((at if member.name is None else member.name, member.value))
        else:
            raise TraceEnded("it puts a frame of constants beside its columns")
    names = [name for name, _ in found] if keys is None else list(keys)
    if len(set(names)) < len(names) or len(names) != len(found):
        raise TraceEnded("it puts columns of the same name side by side")
    return TracedFrame(dict(zip(names, (value for _, value in found), strict=True)))


def _isna(obj: Any) -> Any:
    if type(obj) is TracedArray:
        return TracedArray(each(lambda cell: TracedSeries(cell).isna().value, obj.cells))
    if type(obj) is scalars.TracedScalar:
        return scalars.TracedScalar(TracedSeries(obj.value).isna().value)
    return obj.isna()


def _notna(obj: Any) -> Any:
    return ~_isna(obj)


def _to_numeric(arg: Any, errors: str = "raise", **_: Any) -> Any:
    del errors
    elementwise.number(arg.value if type(arg) is TracedSeries else constant(0))
    return arg


def _to_datetime(arg: Any, **_: Any) -> Any:
    if type(arg) is TracedSeries and isinstance(arg.value, values.Time):
        return arg
    raise TraceEnded("it reads times from texts or numbers; give the pipeline a datetime column")


def _cut(x: Any, bins: Any, right: bool = True, labels: Any = None, include_lowest: bool = False, **_: Any) -> Any:
    if isinstance(bins, int) or labels is None:
        raise TraceEnded(
            "it cuts into bins that depend on the other rows, or names them by intervals; give edges and labels"
        )
    edges = [float(edge) for edge in bins]
    value = x.value if type(x) is TracedSeries else traced(x).cells[()]  # type: ignore[union-attr]
    number = elementwise.number(value)
    inside = [edge for edge in edges if np.isfinite(edge)]
    offset = 0 if np.isfinite(edges[0]) else 1
    code = call("subtract", elementwise.number(elementwise.binned(number, inside, right=right)), constant(1 - offset))
    is_low = call("less" if include_lowest or not right else "less_equal", number, constant(edges[0]))
    is_high = call("greater" if right else "greater_equal", number, constant(edges[-1]))
    if include_lowest and right:
        code = values.where(call("equal", number, constant(edges[0])), constant(0), code)
    is_out = call("logical_or", call("logical_or", is_low, is_high), call("isnan", number))
    if labels is False:
        found: Any = values.where(is_out, constant(np.nan), code)
    elif all(isinstance(label, str) for label in labels):
        found = Coded(values.where(is_out, constant(-1), code), tuple(labels))
    else:
        found = constant(np.nan)
        for at, label in enumerate(labels):
            found = values.where(values.equal_constant(code, at), constant(label), found)
        found = values.where(is_out, constant(np.nan), found)
    return TracedSeries(found, getattr(x, "name", None)) if type(x) is TracedSeries else TracedArray(found)


def _over_rows(name: str, instead: str) -> Callable[..., Any]:
    def end(*_: Any, **__: Any) -> Any:
        raise TraceEnded(f"pandas.{name} depends on the other rows of a request; {instead}")

    return end


def _vectorized(pyfunc: Any = None, *_: Any, **__: Any) -> Any:
    def apply(*columns: Any) -> Any:
        if len(columns) != 1 or traced(columns[0]) is None:
            raise TraceEnded("it uses numpy.vectorize of several columns; numpy's functions of whole columns work")
        array = traced(columns[0])
        assert array is not None
        return TracedArray(each(lambda cell: scalars.applied(pyfunc, cell), array.cells))

    return apply


def _vectorize(own: Any) -> Any:
    class Vectorize:
        """`numpy.vectorize`, which takes tracers when it is called."""

        def __init__(self, *args: Any, **options: Any) -> None:
            self._own, self._traced = own(*args, **options), _vectorized(*args, **options)

        def __call__(self, *columns: Any, **options: Any) -> Any:
            return self._traced(*columns) if any(map(_holds_tracers, columns)) else self._own(*columns, **options)

    return Vectorize


_PATCHES: Final[dict[tuple[Any, str], Callable[[Any], Any]]] = {
    **{(np, name): _either(_as_array) for name in ("asarray", "array", "asanyarray", "ascontiguousarray")},
    (np, "c_"): _Columns,
    (np, "vectorize"): _vectorize,
    (np, "isscalar"): _either(lambda element: type(element) is scalars.TracedScalar),
    (pd, "DataFrame"): _class(_frame),
    (pd, "Series"): _class(_series),
    (pd, "concat"): _either(_concat),
    **{(pd, name): _either(_isna) for name in ("isna", "isnull")},
    **{(pd, name): _either(_notna) for name in ("notna", "notnull")},
    (pd, "to_numeric"): _either(_to_numeric),
    (pd, "to_datetime"): _either(_to_datetime),
    (pd, "cut"): _either(_cut),
    (pd, "qcut"): _either(_over_rows("qcut", "KBinsDiscretizer keeps the bins of training")),
    (pd, "get_dummies"): _either(_over_rows("get_dummies", "OneHotEncoder keeps the categories of training")),
    (pd, "factorize"): _either(_over_rows("factorize", "OrdinalEncoder keeps the categories of training")),
}
