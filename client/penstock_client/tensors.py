"""Lays a caller's columns out as the tensors that the model declares; `values` casts each value.

Columns with names go by name, wherever the model's names are known: one tensor per column, so that no order can be wrong.
Columns without names, and arrays, go by position.

A model with one input of shape `[N, F]` takes all features as a matrix; a server that knows the names of its columns
declares them, and takes each as a tensor of its own. A model whose inputs have shape `[N]` or `[N, 1]` takes one raw column
per input. Inputs of other shapes are sent by name, as they are.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from penstock.names import MATRIX_INPUT, closest
from penstock.tensors import datatype_of
from penstock_client.errors import InvalidRequestError
from penstock_client.metadata import TensorSpec
from penstock_client.times import nanoseconds
from penstock_client.values import cast

Extra = Literal["ignore", "refuse"]
"""What becomes of columns that the model does not take."""
_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class InputTensor:
    """One tensor of a request: elements of the datatype's numpy type, or objects for BYTES."""

    name: str
    datatype: str
    values: NDArray[Any]


@dataclass(frozen=True, slots=True)
class Layout:
    """The tensors of a request.

    Attributes:
        tensors: in the order declared.
        ignored: the names of the columns that the model does not take.
        is_guessed: the columns have names, but went by position, since the model declares no names.
    """

    tensors: tuple[InputTensor, ...]
    ignored: tuple[str, ...] = ()
    is_guessed: bool = False


Table = Mapping[str, object] | Sequence[object] | NDArray[Any]
"""Columns by name, columns in order, or one array."""


def arrange(table: Table, inputs: tuple[TensorSpec, ...], *, extra: Extra = "ignore") -> Layout:
    """The tensors of a request.

    Args:
        table: columns by name, a list of columns without names, or one array.
        inputs: what the model declares; without any, all columns are sent as they are.
        extra: whether columns that the model does not take are left out or refused.

    Raises:
        InvalidRequestError: columns missing or, if so asked, unexpected; a shape that does not fit; or a value that
            cannot be cast.

    >>> (tensor,) = arrange({"a": [1, 2], "b": [3, 4]}, (TensorSpec("X", "FP32", (-1, 2)),)).tensors
    >>> tensor.values
    array([[1., 3.],
           [2., 4.]], dtype=float32)
    >>> named = TensorSpec("X", "FP32", (-1, 2), columns=("b", "a"))
    >>> [tensor.name for tensor in arrange({"a": [1, 2], "b": [3, 4]}, (named,)).tensors]
    ['b', 'a']
    """
    if any(spec.is_optional for spec in inputs):
        return _with_optional(table, inputs, extra)
    if isinstance(table, np.ndarray):
        return Layout((_from_array(table, inputs),))
    if not isinstance(table, Mapping):
        return Layout(_in_order(table, inputs))
    if not inputs:
        return Layout(tuple(_undeclared(name, values) for name, values in table.items()))
    wanted = columns_of(table, inputs)
    if _is_matrix(wanted) and wanted[0].name not in table:
        return Layout((_from_columns(table, wanted[0]),), is_guessed=True)
    ignored = _check_names(table, wanted, extra)
    tensors = tuple(_named(spec, table[spec.name], f"column {spec.name!r}") for spec in wanted)
    if all(spec.is_column for spec in wanted):
        _check_lengths({tensor.name: tensor.values for tensor in tensors})
    return Layout(tensors, ignored)


def _with_optional(table: Table, inputs: tuple[TensorSpec, ...], extra: Extra) -> Layout:
    """The tensors for a model with inputs that have defaults: those that the caller names go beside the rows."""
    required = tuple(spec for spec in inputs if not spec.is_optional)
    if not isinstance(table, Mapping):
        return arrange(table, required, extra=extra)
    given = {spec.name: spec for spec in inputs if spec.is_optional and spec.name in table}
    rows = {name: values for name, values in table.items() if name not in given}
    layout = arrange(rows, required, extra=extra)
    tensors = [_named(spec, table[name], f"input {name!r}") for name, spec in given.items()]
    return replace(layout, tensors=(*layout.tensors, *tensors))


def columns_of(table: Mapping[str, object], inputs: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
    """The tensors that carry these columns: those declared, or one for each column of a matrix whose names are known."""
    if len(inputs) != 1 or not inputs[0].columns:
        return inputs
    (spec,) = inputs
    by_column = tuple(TensorSpec(name, spec.datatype, (-1,), missing=spec.missing) for name in spec.columns)
    is_matrix_given = spec.name in table and not table.keys() >= set(spec.columns)
    return inputs if is_matrix_given or spec.columns == (spec.name,) else by_column


def for_any(table: Mapping[str, object], versions: Iterable[tuple[TensorSpec, ...]]) -> tuple[TensorSpec, ...]:
    """What to send when any of several versions may answer: each column that one of them takes and the caller has.

    Empty if one of them takes something else than columns by name.

    >>> one, other = TensorSpec("a", "FP32", (-1,)), TensorSpec("b", "FP32", (-1,))
    >>> [spec.name for spec in for_any({"a": [1], "b": [2], "c": [3]}, [(one,), (one, other)])]
    ['a', 'b']
    """
    found: dict[str, TensorSpec] = {}
    for inputs in versions:
        for spec in columns_of(table, inputs):
            if spec.is_optional and spec.name not in table:
                continue
            if not spec.is_column:
                return ()
            found.setdefault(spec.name, spec)
    return tuple(spec for name, spec in found.items() if name in table)


def _is_matrix(inputs: tuple[TensorSpec, ...]) -> bool:
    return len(inputs) == 1 and len(inputs[0].shape) == 2 and not inputs[0].is_column


def _from_array(array: NDArray[Any], inputs: tuple[TensorSpec, ...]) -> InputTensor:
    if len(inputs) == 1:
        return _named(inputs[0], array, f"input {inputs[0].name!r}")
    names = [spec.name for spec in inputs]
    if not inputs or not all(spec.is_column and spec.is_numeric for spec in inputs):
        raise InvalidRequestError(f"an array has no names, and the model's inputs are {names}; pass a dict of columns")
    if array.ndim != 2 or array.shape[1] != len(inputs):
        raise InvalidRequestError(
            f"expected an array of shape [-1, {len(inputs)}], a column each for {names}, got {list(array.shape)}"
        )
    datatype = "FP32" if array.dtype in (np.float32, np.float16) else "FP64"
    return InputTensor(MATRIX_INPUT, datatype, cast(array, datatype, "the array"))


def _in_order(columns: Sequence[object], inputs: tuple[TensorSpec, ...]) -> tuple[InputTensor, ...]:
    """Columns without names, by their position."""
    if _is_matrix(inputs):
        return (_from_columns({str(at): values for at, values in enumerate(columns)}, inputs[0]),)
    names = [spec.name for spec in inputs]
    if not inputs or not all(spec.is_column for spec in inputs):
        raise InvalidRequestError(f"the columns have no names, and the model's inputs are {names}; name the columns")
    if len(columns) != len(inputs):
        raise InvalidRequestError(f"the model takes {len(inputs)} columns, {shown(names)}, got {len(columns)}")
    return arrange(dict(zip(names, columns, strict=True)), inputs).tensors


def _from_columns(table: Mapping[str, object], spec: TensorSpec) -> InputTensor:
    columns = {
        name: cast(values, spec.datatype, f"column {name!r}", missing=spec.missing) for name, values in table.items()
    }
    if spec.shape[1] not in (-1, len(columns)) or not columns:
        raise InvalidRequestError(
            f"input {spec.name!r} takes {spec.shape[1]} columns, got {len(columns)}: {shown(list(columns))}"
        )
    _check_lengths(columns)
    flat = [
        _fitted(values, TensorSpec(name, spec.datatype, (-1,)), f"column {name!r}") for name, values in columns.items()
    ]
    return InputTensor(spec.name, spec.datatype, _fitted(np.stack(flat, axis=1), spec, f"input {spec.name!r}"))


def _undeclared(name: str, values: object) -> InputTensor:
    array = np.asarray(values)
    try:
        datatype = datatype_of(array.dtype)
    except ValueError as error:
        raise InvalidRequestError(f"column {name!r} cannot be sent: {error}") from error
    return InputTensor(name, datatype, cast(values, datatype, f"column {name!r}"))


def _check_names(table: Mapping[str, object], wanted: tuple[TensorSpec, ...], extra: Extra) -> tuple[str, ...]:
    """The names of the columns that the model does not take, in the caller's order."""
    names = [spec.name for spec in wanted]
    missing, unexpected = [name for name in names if name not in table], [name for name in table if name not in names]
    if not missing and (extra == "ignore" or not unexpected):
        return tuple(unexpected)
    faults = [f"missing {shown(missing, unexpected)}"] * bool(missing)
    faults += [f"unexpected {shown(unexpected, [] if missing else names)}"] * bool(unexpected)
    raise InvalidRequestError(
        f"the columns do not match the model's inputs: {'; '.join(faults)}; the model takes {shown(names)}"
    )


def shown(names: Sequence[str], others: Iterable[str] = ()) -> str:
    """The names, as many as one sentence bears, each with the one of the others that may be meant."""
    near = ((name, closest(name, others)) for name in names[:_SHOWN])
    listed = ", ".join(f"{name!r} (did you mean {other!r}?)" if other else repr(name) for name, other in near)
    return f"{listed} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else listed


def _check_lengths(columns: Mapping[str, NDArray[Any]]) -> None:
    rows = {name: len(values) if values.ndim else 1 for name, values in columns.items()}
    shortest, longest = min(rows, key=rows.__getitem__), max(rows, key=rows.__getitem__)
    if rows[shortest] != rows[longest]:
        raise InvalidRequestError(
            f"columns differ in length: {shortest!r} has {rows[shortest]} rows, {longest!r} has {rows[longest]}"
        )


def _named(spec: TensorSpec, values: object, label: str) -> InputTensor:
    values = values if spec.time is None else nanoseconds(values, label)
    array = cast(values, spec.datatype, label, missing=spec.missing)
    return InputTensor(spec.name, spec.datatype, _fitted(array, spec, label))


def _fitted(array: NDArray[Any], spec: TensorSpec, label: str) -> NDArray[Any]:
    """The array in the shape declared; `[N]` and `[N, 1]` stand for each other."""
    if array.ndim == 1 and spec.shape == (-1,):
        return array
    if spec.is_column and array.ndim in (1, 2) and array.shape[1:] in ((), (1,)):
        array = array.reshape(-1, *spec.shape[1:])
    fits = len(spec.shape) == array.ndim and all(
        declared in (-1, length) for declared, length in zip(spec.shape, array.shape, strict=True)
    )
    if spec.shape and not fits:
        hint = "; pass one row as rows.reshape(1, -1)" if array.ndim == 1 and len(spec.shape) == 2 else ""
        raise InvalidRequestError(f"{label} takes shape {list(spec.shape)}, got {list(array.shape)}{hint}")
    return array
