"""Lays a caller's columns out as the tensors that the model declares, and casts each value to the declared datatype.

A model with one input of shape `[N, F]` takes all features as a matrix. A model whose inputs have shape `[N]` or `[N, 1]`
takes one raw column per input. Inputs of other shapes are sent by name, as they are.

A cast never changes a value silently: text is not a number, a fraction is not an integer, and a number that does not fit
is refused. A missing value is NaN in a float column and the empty text in a BYTES column; other datatypes cannot hold one.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.names import MATRIX_INPUT
from penstock.tensors import datatype_of, numpy_type
from penstock_client.errors import InvalidRequestError
from penstock_client.metadata import TensorSpec

NUMBER_KINDS: Final = "biuf"
TEXT_OR_OBJECT_KINDS: Final = "OUST"
EXPECTED: Final = {"b": "booleans", "i": "whole numbers", "u": "whole numbers", "f": "numbers"}


@dataclass(frozen=True, slots=True)
class InputTensor:
    """One tensor of a request: elements of the datatype's numpy type, or objects for BYTES."""

    name: str
    datatype: str
    values: NDArray[Any]


def arrange(table: Mapping[str, object] | NDArray[Any], inputs: tuple[TensorSpec, ...]) -> tuple[InputTensor, ...]:
    """The tensors of a request, in the order declared.

    Args:
        table: columns by name, or one array.
        inputs: what the model declares; without any, all columns are sent as they are.

    Raises:
        InvalidRequestError: columns missing or unexpected, a shape that does not fit, or a value that cannot be cast.

    >>> arrange({"a": [1, 2], "b": [3, 4]}, (TensorSpec("X", "FP32", (-1, 2)),))[0].values
    array([[1., 3.],
           [2., 4.]], dtype=float32)
    """
    if isinstance(table, np.ndarray):
        return (_from_array(table, inputs),)
    if not inputs:
        return tuple(_undeclared(name, values) for name, values in table.items())
    if _is_matrix(inputs) and inputs[0].name not in table:
        return (_from_columns(table, inputs[0]),)
    _check_names(table, inputs)
    tensors = tuple(_named(spec, table[spec.name], f"column {spec.name!r}") for spec in inputs)
    if all(spec.is_column for spec in inputs):
        _check_lengths({tensor.name: tensor.values for tensor in tensors})
    return tensors


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


def _from_columns(table: Mapping[str, object], spec: TensorSpec) -> InputTensor:
    columns = {name: cast(values, spec.datatype, f"column {name!r}") for name, values in table.items()}
    if spec.shape[1] not in (-1, len(columns)) or not columns:
        raise InvalidRequestError(
            f"input {spec.name!r} takes {spec.shape[1]} columns, got {len(columns)}: {list(columns)}"
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


def _check_names(table: Mapping[str, object], inputs: tuple[TensorSpec, ...]) -> None:
    declared = {spec.name for spec in inputs}
    faults = _listed("missing", declared - table.keys()) + _listed("unexpected", table.keys() - declared)
    if faults:
        raise InvalidRequestError(f"the columns do not match the model's inputs: {'; '.join(faults)}")


def _listed(word: str, names: Iterable[str]) -> list[str]:
    listed = ", ".join(map(repr, sorted(names)))
    return [f"{word} {listed}"] if listed else []


def _check_lengths(columns: Mapping[str, NDArray[Any]]) -> None:
    rows = {name: len(values) if values.ndim else 1 for name, values in columns.items()}
    shortest, longest = min(rows, key=rows.__getitem__), max(rows, key=rows.__getitem__)
    if rows[shortest] != rows[longest]:
        raise InvalidRequestError(
            f"columns differ in length: {shortest!r} has {rows[shortest]} rows, {longest!r} has {rows[longest]}"
        )


def _named(spec: TensorSpec, values: object, label: str) -> InputTensor:
    return InputTensor(spec.name, spec.datatype, _fitted(cast(values, spec.datatype, label), spec, label))


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


def cast(values: object, datatype: str, label: str) -> NDArray[Any]:
    """The values as an array of the datatype's numpy type, or of `bytes` objects for BYTES; any shape, which is kept.

    Args:
        values: a list or array.
        datatype: the protocol's name, such as FP32.
        label: what an error calls the values, such as "column 'age'".

    Raises:
        InvalidRequestError: a value that the datatype cannot hold, named with its row.

    >>> cast([1, None, 2.5], "FP32", "column 'fare'")
    array([1. , nan, 2.5], dtype=float32)
    >>> cast(["Oslo", None], "BYTES", "column 'city'")
    array([b'Oslo', b''], dtype=object)
    >>> cast([41, None], "INT64", "column 'age'")
    Traceback (most recent call last):
    penstock_client.errors.InvalidRequestError: column 'age' is INT64 and takes whole numbers, got None at row 1
    """
    if datatype == "BYTES":
        return _as_bytes(_array(values, label, as_objects=not isinstance(values, np.ndarray)), label)
    try:
        dtype = numpy_type(datatype)
    except ValueError as error:
        raise InvalidRequestError(f"{label} is declared with a datatype that cannot be sent: {error}") from error
    if isinstance(values, np.ndarray) and values.dtype == dtype:
        return values
    cause = f"{label} is {datatype} and takes {EXPECTED[dtype.kind]}"
    numbers = _as_numbers(values, dtype, label, cause)
    if np.can_cast(numbers.dtype, dtype):
        return numbers.astype(dtype, copy=False)
    return _CASTS[dtype.kind](numbers, dtype, cause)


def _array(values: object, label: str, *, as_objects: bool = False) -> NDArray[Any]:
    try:
        array = np.asarray(values, dtype=object if as_objects else None)
    except ValueError as error:
        raise InvalidRequestError(f"{label} holds lists of unlike lengths; expected one length") from error
    if array.ndim == 0 and not isinstance(values, np.ndarray):
        raise InvalidRequestError(f"{label} is expected as a list or an array, got {type(values).__name__}")
    return array


def _as_bytes(array: NDArray[Any], label: str) -> NDArray[Any]:
    cause = f"{label} is BYTES and takes text"
    if array.size and array.dtype.kind not in TEXT_OR_OBJECT_KINDS:
        raise _refusal(cause, array, 0)
    elements = np.empty(array.size, dtype=object)
    for at, value in enumerate(array.ravel().tolist()):
        element = _element(value)
        if element is None:
            raise _refusal(cause, array, at)
        elements[at] = element
    return elements.reshape(array.shape)


def _element(value: object) -> bytes | None:
    """The bytes of a text element; None where it is not one."""
    if isinstance(value, bytes):
        return value
    # Pandas writes NaN for a missing text.
    if value is None or (isinstance(value, float) and value != value):  # noqa: PLR0124 - the test for NaN
        return b""
    if not isinstance(value, str):
        return None
    try:
        return value.encode()
    except UnicodeEncodeError:
        return None


def _as_numbers(values: object, dtype: np.dtype[Any], label: str, cause: str) -> NDArray[Any]:
    array = _array(values, label)
    # numpy writes a list as floats where one integer needs all 64 bits and another does not, and rounds them.
    is_rounded = array.dtype.kind == "f" and dtype.kind in "iu" and not isinstance(values, np.ndarray)
    if array.dtype.kind in NUMBER_KINDS and not is_rounded:
        return array
    if array.dtype.kind not in NUMBER_KINDS + TEXT_OR_OBJECT_KINDS:
        raise InvalidRequestError(f"{cause}, got numpy type {array.dtype}")
    # numpy writes a list of numbers and texts as texts; as objects each is still what it was.
    objects = array if isinstance(values, np.ndarray) else np.asarray(values, dtype=object)
    return _objects_as_numbers(objects, dtype, cause)


def _objects_as_numbers(array: NDArray[Any], dtype: np.dtype[Any], cause: str) -> NDArray[Any]:
    values = array.ravel().tolist()
    for at, value in enumerate(values):
        if not _is_number(value) and not (value is None and dtype.kind == "f"):
            raise _refusal(cause, array, at)
    if dtype.kind in "iu":
        return _whole(array, values, cause)
    return _numbers([float("nan") if value is None else value for value in values]).reshape(array.shape)


def _is_number(value: Any) -> bool:
    if value is None or isinstance(value, str | bytes | complex):
        return False
    try:
        float(value)
    except (TypeError, ValueError, OverflowError):
        return False
    return True


def _whole(array: NDArray[Any], values: list[Any], cause: str) -> NDArray[Any]:
    """The values as Python's integers, which have no limit, so that none is rounded before it is checked."""
    for at, value in enumerate(values):
        if not math.isfinite(value) or value != int(value):
            raise _refusal(cause, array, at)
    whole = np.empty(len(values), dtype=object)
    whole[:] = [int(value) for value in values]
    return whole.reshape(array.shape)


def _numbers(values: list[Any]) -> NDArray[Any]:
    array = np.asarray(values)
    # Decimals and integers of more than 64 bits would stay objects.
    return array if array.dtype.kind in NUMBER_KINDS else np.array([float(value) for value in values])


def _as_float(array: NDArray[Any], dtype: np.dtype[Any], cause: str) -> NDArray[Any]:
    with np.errstate(over="ignore"):
        floats = array.astype(dtype)
    if np.isinf(floats).any():
        _refuse_where(np.isinf(floats) & np.isfinite(array), array, cause)
    return floats


def _as_integer(array: NDArray[Any], dtype: np.dtype[Any], cause: str) -> NDArray[Any]:
    if array.dtype.kind == "f":
        _refuse_where(~np.isfinite(array) | (np.trunc(array) != array), array, cause)
    if array.size and array.dtype.kind != "b":
        limits = np.iinfo(dtype)
        # Python's integers compare exactly; a float64 cannot hold the limits of 64 bits.
        for at in (int(array.argmin()), int(array.argmax())):
            if not limits.min <= int(array.flat[at]) <= limits.max:
                raise _refusal(f"{cause} from {limits.min} to {limits.max}", array, at)
    return array.astype(dtype)


def _as_boolean(array: NDArray[Any], dtype: np.dtype[Any], cause: str) -> NDArray[Any]:
    _refuse_where((array != 0) & (array != 1), array, cause)
    return array.astype(dtype)


_CASTS: Final = {"f": _as_float, "i": _as_integer, "u": _as_integer, "b": _as_boolean}


def _refuse_where(bad: NDArray[np.bool_], array: NDArray[Any], cause: str) -> None:
    if bad.any():
        raise _refusal(cause, array, int(bad.argmax()))


def _refusal(cause: str, array: NDArray[Any], at: int) -> InvalidRequestError:
    """The error for the element at a position of the flattened array."""
    value = array.ravel()[at]
    shown = repr(value.item() if isinstance(value, np.generic) else value)
    row = np.unravel_index(at, array.shape)[0] if array.ndim else 0
    return InvalidRequestError(f"{cause}, got {shown if len(shown) <= 40 else shown[:37] + '...'} at row {row}")
