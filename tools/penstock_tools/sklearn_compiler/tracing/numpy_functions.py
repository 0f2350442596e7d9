"""numpy's functions of whole arrays that are no ufuncs, on traced arrays."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np

from penstock_tools.sklearn_compiler.tracing import elementwise, scalars, values
from penstock_tools.sklearn_compiler.tracing.arrays import (
    ARRAY_FUNCTIONS,
    ROWS,
    TracedArray,
    along_columns,
    boxed,
    cells_beside,
    each,
    elements,
    traced,
)
from penstock_tools.sklearn_compiler.tracing.ended import TraceEnded
from penstock_tools.sklearn_compiler.tracing.values import Number, call, constant


def apply(function: Any, args: Sequence[Any], options: dict[str, Any]) -> Any:
    """The function of traced arrays.

    Raises:
        TraceEnded: it is not one that Penstock follows.
    """
    known = _FUNCTIONS.get(function)
    if known is None:
        raise TraceEnded(f"numpy.{function.__name__} is not among the functions that Penstock compiles")
    try:
        return known(*args, **options)
    except TypeError as error:
        raise TraceEnded(
            f"it gives numpy.{function.__name__} arguments that Penstock does not follow: {error}"
        ) from error


def as_array(given: Any, dtype: Any = None) -> Any:
    """`numpy.asarray` of something traced, or of a list with traced members."""
    if isinstance(given, list | tuple):
        found = stacked([as_array(one) if not isinstance(one, np.ndarray) else one for one in given])
    else:
        found = given.as_array() if hasattr(type(given), "as_array") else given
    if type(found) is TracedArray and dtype is not None:
        return found.astype(dtype)
    return found.copy() if type(found) is TracedArray else found


def stacked(members: Sequence[Any]) -> TracedArray:
    """Arrays of rows one upon another: the new axis is the first, the rows are the last."""
    arrays = [traced(one) for one in members]
    widest = next((one for one in arrays if one is not None), None)
    if widest is None or any(one is not None and one.cells.ndim != 0 and not one.rows_last for one in arrays):
        raise TraceEnded("it puts matrices of rows one upon another")
    cells = [boxed(cells_beside(one, widest)) for one in members]
    return TracedArray(np.stack(np.broadcast_arrays(*cells)), rows_last=True)


def where(condition: Any, *sides: Any) -> TracedArray:
    if len(sides) != 2:
        raise TraceEnded("it asks numpy.where for the places of rows; with three arguments it works")
    arrays = [one for one in map(traced, (condition, *sides)) if one is not None]
    widest = max(arrays, key=lambda array: array.ndim)
    cells = [cells_beside(one, widest) for one in (condition, *sides)]
    return TracedArray(each(elementwise.choose, *cells), rows_last=widest.rows_last)


def _select(conditions: Sequence[Any], choices: Sequence[Any], default: Any = 0) -> Any:
    found = default
    for condition, choice in reversed(list(zip(conditions, choices, strict=True))):
        found = np.where(condition, choice, found)
    return found


def clip(array: Any, a_min: Any = None, a_max: Any = None, *, min: Any = None, max: Any = None, out: Any = None) -> Any:  # noqa: A002 - numpy's names
    low, high = a_min if min is None else min, a_max if max is None else max
    given = traced(array)
    if given is None or out is not None:
        raise TraceEnded("it clips constants by columns")
    low_cells = boxed(None) if low is None else cells_beside(low, given)
    high_cells = boxed(None) if high is None else cells_beside(high, given)
    return TracedArray(each(elementwise.clipped, given.cells, low_cells, high_cells), rows_last=given.rows_last)


def _nan_to_num(x: Any, copy: bool = True, nan: Any = 0.0, posinf: Any = None, neginf: Any = None) -> Any:
    del copy
    return _mapped(x, lambda cell: elementwise.without_nan(cell, nan, posinf, neginf))


def _mapped(array: Any, function: Callable[[Any], Any]) -> Any:
    given = traced(array)
    assert given is not None
    return TracedArray(each(function, given.cells), rows_last=given.rows_last)


def _digitize(x: Any, bins: Any, right: bool = False) -> Any:
    return _mapped(x, lambda cell: elementwise.binned(cell, np.asarray(bins).tolist(), right=right))


def _searchsorted(a: Any, v: Any, side: str = "left", sorter: Any = None) -> Any:
    del sorter
    return _mapped(v, lambda cell: elementwise.binned(cell, np.asarray(a).tolist(), right=side == "left"))


def _round(a: Any, decimals: int = 0, out: Any = None) -> Any:
    del out
    return _mapped(a, lambda cell: elementwise.rounded(cell, decimals))


def _columns_of(members: Sequence[Any]) -> list[Any]:
    """The columns of arrays side by side, constants too."""
    found: list[Any] = []
    for member in members:
        array = traced(member)
        if array is not None and not array.rows_last and array.cells.ndim <= 1:
            found += elements(array.cells)
        elif array is None and isinstance(member, np.ndarray) and len(member) == ROWS and member.ndim <= 2:
            flat = member.reshape(ROWS, -1)
            if not (flat == flat[:1]).all():
                raise TraceEnded("it puts another number in each row")
            found += [constant(value) for value in flat[0]]
        else:
            raise TraceEnded("it puts something beside its columns that has not their rows")
    return found


def side_by_side(members: Sequence[Any]) -> TracedArray:
    """`numpy.column_stack`."""
    cells = _columns_of(members)
    made = np.empty(len(cells), object)
    made[:] = cells
    return TracedArray(made)


def concatenate(arrays: Sequence[Any], axis: int = 0, **_: Any) -> TracedArray:
    first = next(one for one in map(traced, arrays) if one is not None)
    if first.rows_last:
        parts = [one for one in map(traced, arrays) if one is not None]
        if axis != 0 or len(parts) != len(arrays):
            raise TraceEnded("it puts rows behind rows")
        return TracedArray(np.concatenate([part.cells for part in parts]), rows_last=True)
    if axis not in (1, -1) or first.ndim < 2:
        raise TraceEnded("it puts rows behind rows; with axis=1 columns stand side by side")
    return side_by_side(arrays)


def _hstack(tup: Sequence[Any], **_: Any) -> TracedArray:
    if any(one is not None and one.ndim < 2 for one in map(traced, tup)):
        raise TraceEnded("it puts rows behind rows; numpy.column_stack puts columns side by side")
    return concatenate(tup, axis=1)


def _stack(arrays: Sequence[Any], axis: int = 0, **_: Any) -> TracedArray:
    if axis == 0:
        return stacked(arrays)
    found = [one for one in map(traced, arrays) if one is not None]
    if len(found) != len(arrays) or any(one.rows_last for one in found):
        raise TraceEnded("it stacks what are no columns")
    place = axis % (found[0].ndim + 1) - 1
    return TracedArray(np.stack([one.cells for one in found], axis=place))


def _vstack(tup: Sequence[Any], **_: Any) -> TracedArray:
    found = [traced(one) for one in tup]
    if any(one is None for one in found):
        raise TraceEnded("it puts constants upon columns")
    rows = [one.cells[None] if not one.cells.ndim else one.cells for one in found if one is not None]
    if any(one is not None and one.cells.ndim and not one.rows_last for one in found):
        raise TraceEnded("it puts rows behind rows")
    return TracedArray(np.concatenate(rows), rows_last=True)


def _folded(name: str, fold: Callable[..., Number]) -> Callable[..., Any]:
    def compute(
        a: Any, axis: Any = None, dtype: Any = None, out: Any = None, keepdims: Any = False, **options: Any
    ) -> Any:
        del dtype, out
        array = traced(a)
        assert array is not None
        if options.keys() - {"ddof", "mean", "where", "initial"} or any(
            options.get(key) is not None and options[key] is not np._NoValue  # noqa: SLF001 - numpy's word for nothing
            for key in ("where", "initial", "mean")
        ):
            raise TraceEnded(f"it gives numpy.{name} {', '.join(options)}")
        if axis is None and name in ("any", "all"):
            return (scalars.any_row if name == "any" else scalars.all_rows)(elements(array.cells))
        cells, place = along_columns(array, axis, f"numpy.{name} over all rows")
        extra = {"ddof": options["ddof"]} if "ddof" in options else {}
        made = np.empty(cells.shape[:-1], object)
        for at in np.ndindex(made.shape):
            made[at] = fold(list(cells[at]), **extra)
        if keepdims is True:
            made = np.expand_dims(made, place)
        return TracedArray(made, rows_last=array.rows_last and made.ndim > 0)

    return compute


def _fold_with(function: str) -> Callable[[Sequence[Any]], Number]:
    return lambda cells: elementwise.reduced(function, cells)


def _logical(function: str) -> Callable[[Sequence[Any]], Number]:
    return lambda cells: elementwise.reduced(
        function, [values.as_kind(elementwise.number(cell), "bool") for cell in cells]
    )


def _present(cells: Sequence[Any]) -> tuple[list[Number], Number]:
    """The numbers with 0 for NaN, and how many are not NaN."""
    given = [elementwise.number(cell) for cell in cells]
    filled = [values.where(call("isnan", each), constant(0.0), each) for each in given]
    return filled, elementwise.summed([call("logical_not", call("isnan", each)) for each in given])


def sum_of_present(cells: Sequence[Any]) -> Number:
    """The sum without NaN."""
    return elementwise.summed(_present(cells)[0])


def mean_of_present(cells: Sequence[Any]) -> Number:
    """The mean without NaN; NaN where all are."""
    filled, count = _present(cells)
    return call("divide", elementwise.summed(filled), count)


def _std(cells: Sequence[Any], ddof: int = 0) -> Number:
    return call("sqrt", elementwise.variance(cells, ddof))


def _norm(x: Any, ord: Any = None, axis: Any = None, keepdims: bool = False) -> Any:  # noqa: A002 - numpy's name
    if ord not in (None, 2):
        raise TraceEnded(f"it takes a norm of order {ord}")
    return np.sqrt(np.sum(np.square(x), axis=axis, keepdims=keepdims))


def _interp(x: Any, xp: Any, fp: Any, left: Any = None, right: Any = None, period: Any = None) -> Any:  # noqa: PLR0917 - numpy's
    points, heights = np.asarray(xp, np.float64), np.asarray(fp, np.float64)
    if period is not None or len(points) > values.MAX_PAIRS:
        raise TraceEnded("it interpolates with a period or with very many points")

    def interpolate(cell: Any) -> Number:
        at = elementwise.number(cell)
        found = constant(float(heights[-1] if right is None else right))
        found = values.where(call("equal", at, constant(float(points[-1]))), constant(float(heights[-1])), found)
        for place in range(len(points) - 2, -1, -1):
            slope = (heights[place + 1] - heights[place]) / (points[place + 1] - points[place])
            moved = call("multiply", constant(float(slope)), call("subtract", at, constant(float(points[place]))))
            line = call("add", moved, constant(float(heights[place])))
            found = values.where(call("less", at, constant(float(points[place + 1]))), line, found)
        found = values.where(
            call("less", at, constant(float(points[0]))), constant(float(heights[0] if left is None else left)), found
        )
        return values.where(call("isnan", at), at, found)

    return _mapped(x, interpolate)


def _isin(element: Any, test_elements: Any, *, invert: bool = False, **_: Any) -> Any:
    known = list(np.asarray(test_elements).ravel())

    def is_in(cell: Any) -> Any:
        compare = elementwise.ufunc_of(np.equal)
        found = values.any_of([elementwise.number(compare(cell, value)) for value in known])
        return call("logical_not", found) if invert else found

    return _mapped(element, is_in)


def _full_like(array: Any, fill_value: Any, **_: Any) -> Any:
    return _mapped(array, lambda _: constant(fill_value))


def _diff(a: Any, n: int = 1, axis: int = -1, **_: Any) -> Any:
    array = traced(a)
    assert array is not None
    cells, place = along_columns(array, axis, "numpy.diff over rows")
    for _step in range(n):
        cells = each(elementwise.ufunc_of(np.subtract), cells[..., 1:], cells[..., :-1])
    return TracedArray(np.moveaxis(cells, -1, place), rows_last=array.rows_last)


def _cumsum(a: Any, axis: Any = None, **_: Any) -> Any:
    array = traced(a)
    assert array is not None
    cells, place = along_columns(array, axis, "numpy.cumsum over rows")
    made = np.empty(cells.shape, object)
    for at in np.ndindex(cells.shape):
        made[at] = elementwise.summed(list(cells[at[:-1]][: at[-1] + 1]))
    return TracedArray(np.moveaxis(made, -1, place), rows_last=array.rows_last)


def _insert_axis(a: Any, axis: int) -> Any:
    array = traced(a)
    assert array is not None
    place = axis % (array.ndim + 1)
    if array.rows_last or place == 0:
        raise TraceEnded("it adds an axis before the rows")
    return TracedArray(np.expand_dims(array.cells, place - 1))


def _largest_place(*_: Any, **__: Any) -> Any:
    raise TraceEnded("it asks which column is largest; numpy.where and comparisons work")


def _atleast_2d(*arrays: Any) -> Any:
    found = [one if traced(one).ndim > 1 else stacked([one]) for one in arrays]  # type: ignore[union-attr]
    return found[0] if len(found) == 1 else found


_FUNCTIONS: Final[dict[Any, Callable[..., Any]]] = {
    np.where: where,
    np.select: _select,
    np.clip: clip,
    np.nan_to_num: _nan_to_num,
    np.digitize: _digitize,
    np.searchsorted: _searchsorted,
    np.round: _round,
    np.around: _round,
    np.fix: lambda x, **_: np.trunc(x),
    np.column_stack: side_by_side,
    np.concatenate: concatenate,
    np.hstack: _hstack,
    np.vstack: _vstack,
    np.stack: _stack,
    np.dstack: lambda tup: _stack(tup, axis=2),
    np.sum: _folded("sum", elementwise.summed),
    np.mean: _folded("mean", elementwise.mean),
    np.average: lambda a, axis=None, weights=None: np.mean(a, axis=axis) if weights is None else _weighted(a, axis, weights),
    np.std: _folded("std", _std),
    np.var: _folded("var", elementwise.variance),
    np.max: _folded("max", _fold_with("maximum")),
    np.min: _folded("min", _fold_with("minimum")),
    np.amax: _folded("max", _fold_with("maximum")),
    np.amin: _folded("min", _fold_with("minimum")),
    np.prod: _folded("prod", _fold_with("multiply")),
    np.any: _folded("any", _logical("logical_or")),
    np.all: _folded("all", _logical("logical_and")),
    np.nansum: _folded("nansum", sum_of_present),
    np.nanmean: _folded("nanmean", mean_of_present),
    np.nanmax: _folded("nanmax", _fold_with("fmax")),
    np.nanmin: _folded("nanmin", _fold_with("fmin")),
    np.count_nonzero: _folded("count_nonzero", lambda cells: elementwise.summed([
        values.as_kind(elementwise.number(cell), "bool") for cell in cells
    ])),
    np.linalg.norm: _norm,
    np.interp: _interp,
    np.isin: _isin,
    np.diff: _diff,
    np.cumsum: _cumsum,
    np.dot: lambda a, b, **_: a @ b,
    np.reshape: lambda a, *shape, **_: traced(a).reshape(*shape),  # type: ignore[union-attr]
    np.ravel: lambda a, *_, **__: traced(a).ravel(),  # type: ignore[union-attr]
    np.squeeze: lambda a, axis=None: traced(a).squeeze(axis),  # type: ignore[union-attr]
    np.expand_dims: _insert_axis,
    np.transpose: lambda a, **_: traced(a).T,  # type: ignore[union-attr]
    np.copy: lambda a, *_, **__: traced(a).copy(),  # type: ignore[union-attr]
    np.zeros_like: lambda a, **_: _full_like(a, 0.0),
    np.ones_like: lambda a, **_: _full_like(a, 1.0),
    np.full_like: _full_like,
    np.shape: lambda a: a.shape,
    np.ndim: lambda a: a.ndim,
    np.atleast_2d: _atleast_2d,
    np.isreal: lambda x: _mapped(x, lambda _: constant(True)),
    np.argmax: _largest_place,
    np.argmin: _largest_place,
}  # fmt: skip


def _weighted(a: Any, axis: Any, weights: Any) -> Any:
    scale = np.asarray(weights, np.float64)
    return np.sum(a * scale, axis=axis) / scale.sum()


# Arrays are made by these functions, and ask them: one of the two modules must not know the other.
ARRAY_FUNCTIONS.append(apply)
