"""A traced numpy array: rows by any further axes, each cell a traced value.

It answers numpy's functions through numpy's own protocols. What looks at other rows ends the trace.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_tools.sklearn_compiler.tracing import elementwise, values
from penstock_tools.sklearn_compiler.tracing.ended import ALL_ROWS, ONE_VALUE, TraceEnded
from penstock_tools.sklearn_compiler.tracing.values import Coded, Number, Text, Time, Value, call, constant

ROWS: Final = 4099
"""How many rows a tracer says that it has. A function that computes with it is found out, since its proof has other rows."""

Cells = NDArray[Any]

ARRAY_FUNCTIONS: Final[list[Callable[..., Any]]] = []
"""What applies numpy's functions that are no ufuncs; `numpy_functions` puts itself here."""


def boxed(cells: Any) -> Cells:
    """One value, or an array of them, as an array of values."""
    if isinstance(cells, np.ndarray) and cells.dtype == object:
        return cells
    made = np.empty((), object)
    made[()] = cells
    return made


def elements(cells: Cells) -> list[Any]:
    return list(cells.ravel())


def each(function: Callable[..., Any], *of: Any) -> Cells:
    """The function of each value of arrays of values, which are spread over each other as numpy does it."""
    try:
        spread = np.broadcast_arrays(*map(boxed, of))
    except ValueError as error:
        raise TraceEnded(f"it puts together arrays of other shapes: {error}") from error
    made = np.empty(spread[0].shape, object)
    for at in np.ndindex(made.shape):
        made[at] = function(*(one[at] for one in spread))
    return made


class Operators:
    """Python's operators, by numpy's functions; subclasses say how a function is applied."""

    __hash__ = object.__hash__

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        raise NotImplementedError

    def __bool__(self) -> bool:
        raise TraceEnded(ONE_VALUE)

    def __float__(self) -> float:
        raise TraceEnded("it makes one Python number of a whole column; numpy's functions work on columns")

    __int__ = __index__ = __complex__ = __float__


def _operator(ufunc: Any, *, is_swapped: bool = False) -> Any:
    def operate(self: Any, *others: Any) -> Any:
        if any(isinstance(other, str) for other in others) and ufunc not in (np.equal, np.not_equal):
            raise TraceEnded("it joins texts; columns of text can be compared, mapped and encoded")
        inputs = (*others, self) if is_swapped else (self, *others)
        return self.__array_ufunc__(ufunc, "__call__", *inputs)

    return operate


_BINARY: Final[dict[str, Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide, "floordiv": np.floor_divide,
    "mod": np.remainder, "pow": np.power, "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor,
}  # fmt: skip
for _name, _ufunc in _BINARY.items():
    setattr(Operators, f"__{_name}__", _operator(_ufunc))
    setattr(Operators, f"__r{_name}__", _operator(_ufunc, is_swapped=True))
_OTHERS: Final[dict[str, Any]] = {
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal, "ne": np.not_equal,
    "neg": np.negative, "pos": np.positive, "abs": np.absolute, "invert": np.invert,
}  # fmt: skip
for _name, _ufunc in _OTHERS.items():
    setattr(Operators, f"__{_name}__", _operator(_ufunc))


class TracedArray(Operators):
    """An array of rows.

    Args:
        cells: the values of a row, an array of any shape.
        rows_last: the rows are the last axis instead of the first, as in `X.T`.
    """

    def __init__(self, cells: Any, *, rows_last: bool = False) -> None:
        self.cells = boxed(cells)
        self.rows_last = rows_last

    @property  # type: ignore[misc]
    def __class__(self) -> Any:
        # So that `isinstance(X, numpy.ndarray)` says what it would say.
        return np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.cells.shape, ROWS) if self.rows_last else (ROWS, *self.cells.shape)

    @property
    def ndim(self) -> int:
        return self.cells.ndim + 1

    @property
    def size(self) -> int:
        return self.cells.size * ROWS

    @property
    def dtype(self) -> np.dtype[Any]:
        return dtype_of(elements(self.cells))

    @property
    def T(self) -> "TracedArray":  # noqa: N802 - numpy's name
        if self.cells.ndim > 1:
            raise TraceEnded("it transposes an array of more than two axes")
        return self if not self.cells.ndim else TracedArray(self.cells, rows_last=not self.rows_last)

    @property
    def values(self) -> Any:
        raise AttributeError("'numpy.ndarray' object has no attribute 'values'")

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[Any]:
        if not self.rows_last or not self.cells.ndim:
            raise TraceEnded("it goes through the rows one by one; numpy's functions of whole columns work")
        return (TracedArray(self.cells[at], rows_last=self.cells.ndim > 1) for at in range(len(self.cells)))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or not hasattr(np.ndarray, name):
            raise AttributeError(f"'numpy.ndarray' object has no attribute {name!r}")
        raise TraceEnded(f"it uses .{name} of an array, which Penstock does not follow")

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TraceEnded("it hands its columns to a function that is neither numpy's nor pandas'")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        return apply_ufunc(ufunc, method, inputs, options)

    def __array_function__(self, function: Any, types: Any, args: Any, options: Any) -> Any:
        (apply,) = ARRAY_FUNCTIONS
        return apply(function, args, options)

    def __matmul__(self, other: Any) -> "TracedArray":
        weights = np.asarray(other, np.float64)
        if self.rows_last or self.cells.ndim != 1 or weights.ndim not in (1, 2) or len(weights) != len(self.cells):
            raise TraceEnded("it multiplies matrices; rows by a matrix of constants work")
        columns = weights.T if weights.ndim == 2 else weights[None]
        made = np.empty(len(columns), object)
        for at, column in enumerate(columns):
            terms = [
                call("multiply", elementwise.number(cell), constant(float(w)))
                for cell, w in zip(self.cells, column, strict=True)
            ]
            made[at] = elementwise.summed(terms)
        return TracedArray(made if weights.ndim == 2 else made[0])

    dot = __matmul__

    def __getitem__(self, index: Any) -> Any:
        index = index if isinstance(index, tuple) else (index,)
        if self.rows_last:
            if len(index) > self.cells.ndim and not _is_everything(index[-1]):
                raise TraceEnded("it picks rows")
            index = index[: self.cells.ndim] if len(index) > self.cells.ndim else index
            return TracedArray(self.cells[index], rows_last=np.ndim(boxed(self.cells[index])) > 0)
        first, rest = index[0], index[1:]
        if first is None:
            raise TraceEnded("it adds an axis before the rows; [:, None] works")
        if not _is_everything(first):
            raise TraceEnded("it picks rows; all rows of a request are answered: use numpy.where or .clip")
        if first is Ellipsis:
            rest = (Ellipsis, *rest)
        try:
            return TracedArray(self.cells[rest]) if rest else TracedArray(self.cells)
        except IndexError as error:
            raise TraceEnded(f"it picks a column that is not there: {error}") from error

    def __setitem__(self, index: Any, given: Any) -> None:
        index = index if isinstance(index, tuple) else (index,)
        self.cells = self.cells.copy()
        first, rest = index[0], index[1:]
        if self.rows_last:
            raise TraceEnded("it assigns to rows of a transposed array")
        new = cells_beside(given, TracedArray(self.cells[rest] if rest else self.cells))
        if _is_everything(first):
            chosen = np.broadcast_to(new, np.shape(self.cells[rest])) if np.shape(self.cells[rest]) else new
            self.cells[rest] = (
                chosen if np.ndim(self.cells[rest]) else chosen[()] if isinstance(chosen, np.ndarray) else chosen
            )
            return
        condition = traced(first)
        if condition is None:
            raise TraceEnded("it assigns to some rows by their places; numpy.where works by condition")
        old = boxed(self.cells[rest])
        flags = condition.cells
        if flags.ndim and flags.shape != old.shape:
            raise TraceEnded("its condition has another shape than the array")
        made = each(elementwise.choose, flags, new, old)
        if rest and not made.ndim:
            self.cells[rest] = made[()]
        elif rest:
            self.cells[rest] = made
        else:
            self.cells = made

    def reshape(self, *shape: Any, **_: Any) -> "TracedArray":
        wanted = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape
        if self.rows_last or not wanted or wanted[0] not in (-1, ROWS):
            if tuple(wanted) == (-1,) and self.cells.size == 1:
                return TracedArray(self.cells.reshape(()))
            raise TraceEnded(f"it reshapes the rows to {list(wanted)}; the first axis must stay the rows")
        rest = tuple(wanted[1:])
        if wanted[0] == -1 and -1 not in rest and int(np.prod(rest)) != self.cells.size:
            raise TraceEnded(f"it reshapes {list(self.shape[1:])} to {list(rest)}, which mixes rows")
        return TracedArray(self.cells.reshape(rest))

    def ravel(self, *_: Any, **__: Any) -> "TracedArray":
        if self.cells.size != 1:
            raise TraceEnded("it makes one axis of rows and columns")
        return TracedArray(self.cells.reshape(()))

    flatten = ravel

    def squeeze(self, axis: Any = None) -> "TracedArray":
        del axis
        return TracedArray(np.squeeze(self.cells), rows_last=self.rows_last)

    def astype(self, dtype: Any, *_: Any, **__: Any) -> "TracedArray":
        return TracedArray(each(lambda cell: cast(cell, dtype), self.cells), rows_last=self.rows_last)

    def copy(self, *_: Any, **__: Any) -> "TracedArray":
        return TracedArray(self.cells.copy(), rows_last=self.rows_last)

    toarray = todense = view = copy

    @property
    def A(self) -> "TracedArray":  # noqa: N802 - scipy's name
        return self

    def round(self, decimals: int = 0, **_: Any) -> "TracedArray":
        return TracedArray(each(lambda cell: elementwise.rounded(cell, decimals), self.cells), rows_last=self.rows_last)

    def clip(self, min: Any = None, max: Any = None, **_: Any) -> "TracedArray":  # noqa: A002 - numpy's names
        made: Any = np.clip(self, min, max)
        return made  # type: ignore[no-any-return]


def _reduction(name: str) -> Any:
    def compute(self: TracedArray, axis: Any = None, *args: Any, **options: Any) -> Any:
        return getattr(np, name)(self, axis, *args, **options)

    return compute


for _name in ("sum", "mean", "min", "max", "prod", "any", "all", "std", "var", "cumsum", "argmax", "argmin"):
    setattr(TracedArray, _name, _reduction(_name))


def _is_everything(index: Any) -> bool:
    return index is Ellipsis or (isinstance(index, slice) and index == slice(None))


def traced(given: Any) -> TracedArray | None:
    """A traced array, of a traced series too; None for anything else."""
    kind = type(given)
    if kind is TracedArray:
        return given  # type: ignore[no-any-return]
    array = getattr(kind, "as_array", None)
    return array(given) if array is not None else None


def cells_beside(given: Any, array: TracedArray) -> Cells:  # noqa: C901 - one branch per shape
    """What stands beside an array, as values of a row.

    Raises:
        TraceEnded: it has a value for each row that is not the same in all, or does not fit.
    """
    found = traced(given)
    if found is not None:
        if found.rows_last != array.rows_last and found.cells.ndim and array.cells.ndim:
            raise TraceEnded("it puts an array beside a transposed one")
        if found.cells.ndim != array.cells.ndim and not array.rows_last and not found.rows_last and array.cells.ndim:
            if found.cells.ndim == 0 and array.cells.shape == ():
                return found.cells
            raise TraceEnded(
                f"it puts an array of {found.ndim} axes beside one of {array.ndim}; .reshape(-1, 1) makes a column"
            )
        return found.cells
    constants = np.asarray(given, object if isinstance(given, list | tuple) else None)
    if constants.ndim and constants.shape[-1 if array.rows_last else 0] == ROWS and constants.ndim >= array.ndim:
        flat = np.moveaxis(constants, -1, 0) if array.rows_last else constants
        if not (flat == flat[:1]).all():
            raise TraceEnded("it puts another number in each row")
        constants = flat[0]
    elif array.rows_last and constants.ndim == array.ndim and constants.shape[-1] == 1:
        constants = constants[..., 0]
    elif not array.rows_last and constants.ndim == array.ndim and constants.shape[0] == 1:
        constants = constants[0]
    elif constants.ndim and constants.ndim > array.cells.ndim:
        raise TraceEnded(f"it puts {constants.shape[0]} numbers beside the rows; one number, or one per column, works")
    made = np.empty(constants.shape, object)
    for at in np.ndindex(made.shape):
        made[at] = constants[at]
    if not constants.ndim:
        return boxed(given if not isinstance(given, np.ndarray) else given[()])
    return made


def apply_ufunc(ufunc: Any, method: str, inputs: Sequence[Any], options: dict[str, Any]) -> Any:
    """A ufunc of traced arrays."""
    if any(getattr(type(each), "IS_PANDAS", False) for each in inputs):
        return NotImplemented
    if method == "reduce":
        return _reduce(ufunc, inputs[0], options)
    if method != "__call__":
        raise TraceEnded(f"it uses numpy.{ufunc.__name__}.{method}")
    out = [each for each in options.pop("out", ()) if each is not None]
    checked(ufunc, options)
    if out:
        if len(out) > 1 or type(out[0]) is not TracedArray:
            raise TraceEnded(f"it gives numpy.{ufunc.__name__} out")
        out[0].cells = apply_ufunc(ufunc, method, inputs, {}).cells
        return out[0]
    if ufunc is np.matmul:
        return inputs[0] @ inputs[1]
    function = elementwise.ufunc_of(ufunc)
    arrays = [each for each in inputs if type(each) is TracedArray]
    widest = max(arrays, key=lambda array: array.ndim)
    given = [cells_beside(each, widest) for each in inputs]
    if ufunc in (np.floor_divide, np.remainder):
        function = _whole_division(function)
    return TracedArray(each(function, *given), rows_last=widest.rows_last and widest.cells.ndim > 0)


def checked(ufunc: Any, options: Mapping[str, Any]) -> None:
    """Raises `TraceEnded` for options of a ufunc that change its result, such as `where`."""
    others = [name for name in options if name not in ("casting", "order", "subok", "dtype")]
    if others:
        raise TraceEnded(f"it gives numpy.{ufunc.__name__} {', '.join(others)}")


def _whole_division(function: Callable[..., Value]) -> Callable[..., Value]:
    """Numpy gives 0 where whole numbers are divided by 0."""

    def divide(left: Any, right: Any) -> Value:
        one, other = elementwise.number(left), elementwise.number(right)
        found = function(one, other)
        if (
            one.kind in ("bool", "int")
            and other.kind in ("bool", "int")
            and not (values.is_constant(other) and other.value)
        ):
            return values.where(values.equal_constant(other, 0), constant(0), elementwise.number(found))
        return found

    return divide


def _reduce(ufunc: Any, array: Any, options: dict[str, Any]) -> Any:
    name = {
        "add": "sum",
        "multiply": "prod",
        "maximum": "max",
        "minimum": "min",
        "logical_or": "any",
        "logical_and": "all",
    }
    if ufunc.__name__ not in name:
        raise TraceEnded(f"it uses numpy.{ufunc.__name__}.reduce")
    return getattr(np, name[ufunc.__name__])(
        array, axis=options.get("axis", 0), keepdims=options.get("keepdims", False)
    )


def along_columns(array: TracedArray, axis: Any, what: str) -> tuple[Cells, int]:
    """The cells with the axis that is taken together as the last, and where that axis was among the cells'.

    Raises:
        TraceEnded: it is the rows' axis.
    """
    if axis is None or isinstance(axis, tuple):
        raise TraceEnded(ALL_ROWS.format(what=what))
    place = axis % array.ndim
    place = place if array.rows_last else place - 1
    if (array.rows_last and place == array.ndim - 1) or (not array.rows_last and place < 0):
        raise TraceEnded(ALL_ROWS.format(what=what))
    return np.moveaxis(array.cells, place, -1), place


def cast(value: Any, dtype: Any) -> Value:
    """The value as another dtype.

    Raises:
        TraceEnded: a text of a number, or a number of a text.
    """
    if dtype in ("category", "object", object):
        return value  # type: ignore[no-any-return]
    if isinstance(value, Text | Coded):
        if dtype in (str, "str", "string", "U") or str(dtype).startswith("string"):
            return value
        raise TraceEnded("it makes numbers of a column of text; .map({...}) works")
    if isinstance(value, Time):
        return _cast_time(value, dtype)
    try:
        kind = np.dtype(_PLAIN.get(str(dtype), dtype))
    except TypeError as error:
        raise TraceEnded(f"it makes {dtype} of numbers") from error
    if kind.kind in "UO" or (kind.itemsize < 4 and kind.kind == "f"):
        raise TraceEnded(
            f"it makes {kind} of numbers, whose text depends on how the frame holds them; encode the numbers"
        )
    if kind.kind == "f":
        return values.as_kind(elementwise.number(value), "float" if kind.itemsize == 8 else "single")
    if kind.kind in "iu":
        return values.as_kind(elementwise.number(value), "int")
    if kind.kind == "b":
        return values.as_kind(elementwise.number(value), "bool")
    raise TraceEnded(f"it makes {kind} of numbers")


_PLAIN: Final = {
    "Int64": "int64", "Int32": "int32", "Int16": "int16", "Int8": "int8", "Float64": "float64", "Float32": "float32",
    "boolean": "bool",
}  # fmt: skip


def _cast_time(value: Time, dtype: Any) -> Value:
    if str(dtype).startswith(("datetime64", "<M8", "M8")):
        return value
    raise TraceEnded(f"it makes {dtype} of times; .dt.total_seconds() and the parts of .dt work")


def dtype_of(cells: Sequence[Any]) -> np.dtype[Any]:
    """Numpy's dtype of values side by side."""
    if not all(isinstance(cell, Number) for cell in cells):
        is_time = all(isinstance(cell, Time) for cell in cells)
        return np.dtype("M8[ns]" if is_time and not cells[0].is_duration else object)
    names = {"bool": np.bool_, "int": np.int64, "single": np.float32, "float": np.float64}
    return np.result_type(*(np.dtype(names[cell.kind]) for cell in cells)) if cells else np.dtype(np.float64)
