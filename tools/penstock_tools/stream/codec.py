"""What a codec does: makes rows of messages, and messages of answers.

There is one per format (`json_rows`, `avro_rows`, `arrow_rows`), made for one version, since versions may take other
columns. A message is read whole or not at all. What cannot be read is set aside with the reason, and touches no other
message.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, Protocol

import numpy as np
import pyarrow as pa

from penstock_server.errors import InvalidInputError

Format = Literal["json", "avro", "arrow"]
FORMATS: Final[tuple[Format, ...]] = ("json", "avro", "arrow")

MODEL: Final = "model_name"
VERSION: Final = "model_version"
"""The two columns that each answer has beside the model's own."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What goes in and out of a version's codec.

    Attributes:
        columns: those that the version takes, with the types that their values become.
        answers: those that it gives.
        keep: fields of a message that go into its answer as they are.
        model, version: which it is.
    """

    columns: pa.Schema
    answers: pa.Schema
    keep: tuple[str, ...]
    model: str
    version: str


@dataclass(frozen=True, slots=True)
class Rows:
    """Messages that were read.

    Attributes:
        batch: their rows, in the order of the messages.
        places: which of the given messages they are.
        counts: the rows of each; None where each has one.
        unreadable: why the others could not be read, by place.
        kept: the fields that go into the answers, as the codec needs them.
    """

    batch: pa.RecordBatch
    places: Sequence[int]
    counts: Sequence[int] | None
    unreadable: Mapping[int, str]
    kept: Any = None

    def message_of(self, row: int) -> int:
        """The place in `places` of the message that a row belongs to."""
        if self.counts is None:
            return row
        return int(np.searchsorted(np.cumsum(self.counts), row, side="right"))


class Codec(Protocol):
    """Reads and writes the messages of one version."""

    def read(self, values: Sequence[bytes]) -> Rows:
        """The rows of messages."""
        ...

    def write(self, rows: Rows, answered: Sequence[int], answers: pa.RecordBatch) -> list[bytes]:
        """The answers to messages, one each.

        Args:
            rows: what was read.
            answered: the places in `rows.places` of the messages that are answered, in order.
            answers: the rows of these messages alone.
        """
        ...


MakeCodec = Callable[[Shape], Codec]


def values_of(column: pa.Array) -> list[Any]:
    """A column as Python values, by way of numpy where that is faster."""
    kind = column.type
    if column.null_count == 0:
        if pa.types.is_integer(kind) or pa.types.is_floating(kind):
            return list(column.to_numpy().tolist())
        if pa.types.is_fixed_size_list(kind) and pa.types.is_primitive(kind.value_type):
            return list(column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1).tolist())
    return list(column.to_pylist())


def batch_of(columns: Sequence[Sequence[Any]], schema: pa.Schema) -> tuple[pa.RecordBatch, dict[int, str]]:
    """Rows of columns of Python values, and why rows are not among them: their value is none of their column.

    Args:
        columns: the values of each, None where one is missing.
        schema: their names and types.
    """
    arrays: list[pa.Array] = []
    faults: dict[int, str] = {}
    for values, field in zip(columns, schema, strict=True):
        array, found = _array(values, field)
        arrays.append(array)
        faults |= {row: reason for row, reason in found.items() if row not in faults}
    batch = pa.RecordBatch.from_arrays(arrays, schema=schema)
    if faults:
        batch = batch.filter(pa.array([row not in faults for row in range(batch.num_rows)]))
    return batch, faults


def _array(values: Sequence[Any], field: pa.Field) -> tuple[pa.Array, dict[int, str]]:
    try:
        return pa.array(values, field.type), {}
    except _CONVERSION:
        pass
    # A number's column takes true and false as 1 and 0, as the client does; Arrow does not.
    is_number = pa.types.is_floating(field.type) or pa.types.is_integer(field.type)
    plain = [int(value) if is_number and isinstance(value, bool) else value for value in values]
    faults: dict[int, str] = {}
    try:
        return pa.array(plain, field.type), faults
    except _CONVERSION:
        pass
    for row, value in enumerate(plain):
        try:
            pa.scalar(value, field.type)
        except _CONVERSION:
            faults[row] = f"column {field.name!r} is {str(value)[:100]}, expected {field.type}"
            plain[row] = None
    return pa.array(plain, field.type), faults


_CONVERSION: Final = (pa.ArrowException, OverflowError, TypeError, ValueError)


def without(rows: Sequence[Any], faults: Mapping[int, str]) -> list[Any]:
    """The rows that have no fault."""
    return [row for at, row in enumerate(rows) if at not in faults]


def checked_names(shape: Shape) -> list[str]:
    """The names of an answer's fields: what is kept, which version answered, and its answers.

    Raises:
        InvalidInputError: two fields would have the same name.
    """
    names = [*shape.keep, MODEL, VERSION, *shape.answers.names]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise InvalidInputError(f"an answer would have the field {repeated!r} twice; do not keep it")
    return names
