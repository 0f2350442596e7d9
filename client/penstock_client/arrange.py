"""Lays a caller's rows out as the tensors that the model declares.

Two kinds of models are told apart by their inputs: one input of shape `[N, F]` takes all features as a matrix, and
inputs of shape `[N]` or `[N, 1]` are one raw column each. Anything else is sent by name as it is. Names and shapes are
checked here, values in `casting`. Pure; called by `session`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.tensors import datatype_of
from penstock_client.casting import cast
from penstock_client.errors import InvalidRequestError
from penstock_client.metadata import TensorSpec

MATRIX_NAME: Final = "features"
"""The tensor that stands for all columns of a model whose columns are all numeric."""


@dataclass(frozen=True, slots=True)
class InputTensor:
    """One tensor of a request: elements of the datatype's numpy type, or objects for BYTES."""

    name: str
    datatype: str
    values: NDArray[Any]


def arrange(table: Mapping[str, Any] | NDArray[Any], inputs: tuple[TensorSpec, ...]) -> tuple[InputTensor, ...]:
    """The tensors of a request, in the order declared.

    Args:
        table: columns by name, or one array.
        inputs: what the model declares; none makes no demand on the columns.

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
    return InputTensor(MATRIX_NAME, datatype, cast(array, datatype, "the array"))


def _from_columns(table: Mapping[str, Any], spec: TensorSpec) -> InputTensor:
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


def _undeclared(name: str, values: Any) -> InputTensor:
    array = np.asarray(values)
    try:
        datatype = datatype_of(array.dtype)
    except ValueError as error:
        raise InvalidRequestError(f"column {name!r} cannot be sent: {error}") from error
    return InputTensor(name, datatype, cast(values, datatype, f"column {name!r}"))


def _check_names(table: Mapping[str, Any], inputs: tuple[TensorSpec, ...]) -> None:
    wanted = {spec.name for spec in inputs}
    faults = _listed("missing", wanted - table.keys()) + _listed("unexpected", table.keys() - wanted)
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


def _named(spec: TensorSpec, values: Any, label: str) -> InputTensor:
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
