"""Rows as people write them in JSON or CSV, and the `ModelInfer` message that asks for their predictions.

A model's metadata say what its inputs are called and hold; a row is a list in their order, or an object by their names.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any, Final

from penstock import inference_pb2 as pb
from penstock.names import (
    ATTRIBUTIONS,
    PARAMETER_COLUMNS,
    PARAMETER_EXPLAIN,
    PARAMETER_EXTRA_COLUMNS,
    PARAMETER_MISSING,
    PARAMETER_ROUTING_KEY,
    PARAMETER_TIME,
)
from penstock_server.errors import InvalidInputError
from penstock_server.rest.tensors import flattened, raw_of_values, shown

MISSING_TIME: Final = -(1 << 63)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_SHOWN: Final = 8


@dataclass(frozen=True, slots=True)
class Input:
    """One input of a model.

    Attributes:
        shape: of a row.
        missing: the text that stands for a missing value; None if none does.
        is_time: it holds nanoseconds since 1970.
    """

    name: str
    datatype: str
    shape: tuple[int, ...] = ()
    missing: str | None = None
    is_time: bool = False

    @property
    def is_column(self) -> bool:
        """A row of it is one value."""
        return self.shape in {(), (1,)}


@dataclass(frozen=True, slots=True)
class RowSignature:
    """What a model takes.

    Attributes:
        columns: the names of the columns of its one matrix, in their order; empty where they have none.
        explains: it can give attributions.
    """

    model: str
    inputs: tuple[Input, ...]
    columns: tuple[str, ...] = ()
    explains: bool = False

    @property
    def by_column(self) -> tuple[Input, ...]:
        """Its inputs, one per column; empty where an input has rows of more than one value and its columns have no names."""
        if self.columns:
            return tuple(Input(name, self.inputs[0].datatype) for name in self.columns)
        return self.inputs if all(each.is_column for each in self.inputs) else ()


@dataclass(frozen=True, slots=True)
class GivenRows:
    """Rows that are to be predicted.

    Attributes:
        count: how many.
        columns: the values by column.
        lists: the rows as lists in the order of the model's inputs; empty where they came by name.
        is_single: one row came by itself, and is answered by itself.
    """

    count: int
    columns: Mapping[str, Sequence[Any]]
    lists: Sequence[Any] = ()
    is_single: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """How rows are predicted.

    Attributes:
        ignores_extra: columns that the model does not take are passed over.
    """

    version: str = ""
    routing_key: str = ""
    explain: bool = False
    ignores_extra: bool = False


def signature_of(metadata: pb.ModelMetadataResponse) -> RowSignature:
    """What a model takes, from its metadata."""
    inputs = []
    columns: tuple[str, ...] = ()
    for tensor in metadata.inputs:
        parameters = tensor.parameters
        missing = parameters[PARAMETER_MISSING].string_param if PARAMETER_MISSING in parameters else None
        inputs.append(
            Input(tensor.name, tensor.datatype, tuple(tensor.shape[1:]), missing, is_time=PARAMETER_TIME in parameters)
        )
        if PARAMETER_COLUMNS in parameters:
            columns = tuple(json.loads(parameters[PARAMETER_COLUMNS].string_param))
    explains = any(ATTRIBUTIONS in tensor.parameters for tensor in metadata.outputs)
    return RowSignature(metadata.name, tuple(inputs), columns if len(inputs) == 1 else (), explains)


def rows_of(value: Any, signature: RowSignature) -> GivenRows:
    """Rows from JSON: a list of rows, or one row; each a list of values or an object by column.

    Raises:
        InvalidInputError: it is neither.
    """
    if isinstance(value, dict):
        return GivenRows(1, {name: (each,) for name, each in value.items()}, is_single=True)
    if not isinstance(value, list):
        raise InvalidInputError(f"expected a row or a list of rows, got {shown(value)}")
    if not value:
        return GivenRows(0, {}, value)
    if all(type(row) is dict for row in value):
        names = value[0].keys()
        for row in value:
            if row.keys() != names:
                odd = min(map(str, row.keys() ^ names))
                raise InvalidInputError(
                    f"one row has {odd!r} and another has not; expected the same columns in every row"
                )
        return GivenRows(len(value), {name: [row[name] for row in value] for name in names})
    if _depth(value) == _row_depth(signature):
        return GivenRows(1, {}, [value], is_single=True)
    return GivenRows(len(value), {}, value)


def columns_of(value: Any) -> GivenRows:
    """Rows from an object of columns, each a list of values.

    Raises:
        InvalidInputError: they are no lists, or of different lengths.
    """
    lengths = {len(each) for each in value.values() if isinstance(each, list)}
    if any(not isinstance(each, list) for each in value.values()) or len(lengths) != 1:
        raise InvalidInputError("expected an object of columns, each a list of as many values as the others")
    return GivenRows(lengths.pop(), value)


def message_of(signature: RowSignature, rows: GivenRows, options: Options) -> bytes:
    """The message that asks for the predictions of rows.

    Raises:
        InvalidInputError: the rows are not what the model takes; names the column, what was expected and what came.
    """
    message = pb.ModelInferRequest(model_name=signature.model, model_version=options.version)
    if options.routing_key:
        message.parameters[PARAMETER_ROUTING_KEY].string_param = options.routing_key
    if options.ignores_extra:
        message.parameters[PARAMETER_EXTRA_COLUMNS].string_param = "ignore"
    if options.explain:
        message.parameters[PARAMETER_EXPLAIN].bool_param = True
    for each, shape, values in _tensors(signature, rows):
        message.inputs.add(name=each.name, datatype=each.datatype, shape=shape)
        message.raw_input_contents.append(raw_of_values(_prepared(each, values), each.datatype, shape, each.name))
    encoded: bytes = message.SerializeToString()
    return encoded


def _tensors(signature: RowSignature, rows: GivenRows) -> list[tuple[Input, tuple[int, ...], Sequence[Any]]]:
    """Each tensor of a message: its input, its shape and its values."""
    count = rows.count
    if rows.columns:
        return [(each, (count, *each.shape), values) for each, values in _by_name(signature, rows.columns)]
    inputs = signature.inputs
    if len(inputs) == 1 and not inputs[0].is_column:
        (only,) = inputs
        shape = _whole_shape(only, rows.lists, count)
        return [(only, shape, flattened(list(rows.lists), shape, only.name))]
    if not signature.by_column:
        names = ", ".join(repr(each.name) for each in inputs)
        raise InvalidInputError(
            f"the model takes several tensors, {names}; send them to /v2/models/{signature.model}/infer"
        )
    width = len(inputs)
    lists = [row if isinstance(row, list) else [row] for row in rows.lists]
    for row in lists:
        if len(row) != width:
            names = _named([each.name for each in inputs])
            raise InvalidInputError(f"a row has {len(row)} values, expected {width}: {names}")
    return [(each, (count, *each.shape), [row[at] for row in lists]) for at, each in enumerate(inputs)]


def _by_name(signature: RowSignature, columns: Mapping[str, Sequence[Any]]) -> list[tuple[Input, Sequence[Any]]]:
    by_column = signature.by_column
    if not by_column:
        whole = [each for each in signature.inputs if each.name in columns]
        if len(whole) != len(signature.inputs) or len(columns) != len(whole):
            raise InvalidInputError(
                f"the model's columns have no names; expected rows of its inputs {_named([e.name for e in signature.inputs])}"
            )
        return [(each, flattened_rows(each, columns[each.name])) for each in whole]
    # What is missing or not known is refused by the version, which also knows what may be passed over.
    known = {each.name: each for each in by_column}
    return [
        (known[name], values) if name in known else (Input(name, "BYTES"), [str(value) for value in values])
        for name, values in columns.items()
    ]


def flattened_rows(each: Input, values: Sequence[Any]) -> list[Any]:
    """The values of an input whose rows are lists."""
    return flattened(list(values), (len(values), *each.shape), each.name)


def _whole_shape(only: Input, lists: Sequence[Any], count: int) -> tuple[int, ...]:
    """The shape of a tensor of rows; a free dimension is as long as the first row's."""
    shape = [count]
    value: Any = lists[0] if lists else []
    for size in only.shape:
        actual = len(value) if isinstance(value, list) else 1
        shape.append(actual if size < 0 or lists else size)
        value = value[0] if isinstance(value, list) and value else None
    if lists and any(size not in {-1, actual} for size, actual in zip(only.shape, shape[1:], strict=True)):
        raise InvalidInputError(
            f"a row of input {only.name!r} has the shape {shape[1:]}, expected {list(only.shape)}"
            + (" values" if len(only.shape) == 1 else "")
        )
    return tuple(shape)


def _prepared(each: Input, values: Sequence[Any]) -> Sequence[Any]:
    """The values as the datatype takes them: what is missing by the model's own sign, times as nanoseconds."""
    if each.is_time:
        return [_nanoseconds(value, each.name) for value in values]
    if each.missing is not None and None in values:
        return [each.missing if value is None else value for value in values]
    return values


def _nanoseconds(value: Any, name: str) -> int:
    if value is None:
        return MISSING_TIME
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise InvalidInputError(
            f'column {name!r} takes times, such as "2026-01-31T12:00:00", or nanoseconds since 1970, got {shown(value)}'
        ) from None
    if not isinstance(moment, datetime):
        moment = datetime.combine(date.fromisoformat(value), datetime.min.time())
    since = (moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)) - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000_000 + since.microseconds * 1000


def _depth(value: Any) -> int:
    depth = 0
    while isinstance(value, list):
        depth += 1
        value = value[0] if value else None
    return depth


def _row_depth(signature: RowSignature) -> int:
    """How deep a row is nested as a list."""
    inputs = signature.inputs
    return len(inputs[0].shape) if len(inputs) == 1 and not inputs[0].is_column else 1


def _named(names: Sequence[str]) -> str:
    listed = ", ".join(map(repr, names[:_SHOWN]))
    return listed if len(names) <= _SHOWN else f"{listed} and {len(names) - _SHOWN} more"
