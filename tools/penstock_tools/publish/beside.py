"""What is counted for drift beside a plain ONNX model, whose inputs are not one matrix of floats.

A server counts what the graph is given, and changes none of it; `models.counting_servable` says which columns its inputs have.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from penstock.names import did_you_mean
from penstock_server.errors import InvalidInputError
from penstock_server.features.spec.spec import Block, FeatureSpec, Hash, NumberColumn, StringColumn, Take, Text
from penstock_server.features.table import numbers_of, strings_of
from penstock_server.models.counting_servable import InputColumn, input_columns
from penstock_server.models.signature import Signature
from penstock_tools.publish.onnx_graph import Graph


@dataclass(frozen=True, slots=True)
class Beside:
    """What is counted beside a graph.

    Attributes:
        features: the columns, of which the specification changes none.
        table: the sample's rows by column, as they are counted.
        inputs: the same rows by input.
    """

    features: FeatureSpec
    table: Mapping[str, NDArray[Any]]
    inputs: Mapping[str, NDArray[Any]]

    def finite_places(self) -> NDArray[np.intp]:
        """The rows without infinities, which golden requests cannot hold."""
        is_infinite = [np.isinf(values) for values in self.table.values() if values.dtype.kind == "f"]
        rows = len(next(iter(self.table.values())))
        return np.flatnonzero(~np.any(is_infinite, axis=0)) if is_infinite else np.arange(rows)


def beside(graph: Graph, sample: pd.DataFrame) -> Beside:
    """What is counted beside a model of other inputs than one matrix, by the sample's columns of their names.

    Raises:
        InvalidInputError: an input has no columns that can be counted, or the sample lacks one of them, or holds other
            values than it takes.
    """
    known = input_columns(graph.signature)
    _check_inputs(graph.signature, known)
    lacking = [name for name in known if name not in sample.columns]
    if lacking:
        raise InvalidInputError(
            f"the sample lacks column {lacking[0]!r}; the model takes {', '.join(known)}"
            f"{did_you_mean(lacking[0], map(str, sample.columns))}"
        )
    rows = {name: np.asarray(sample[name]) for name in known}
    texts = {name: [text.decode() for text in strings_of(rows, name)] for name, at in known.items() if at.dtype is None}
    table = {
        name: np.array(texts[name], object) if name in texts else _as_taken(numbers_of(rows, name), name, at.dtype)
        for name, at in known.items()
    }
    return Beside(_counting(known), table, _inputs(graph.signature, known, table))


def _counting(known: Mapping[str, InputColumn]) -> FeatureSpec:
    """A specification that only counts these columns; nothing reads the one feature that it gives."""
    columns = tuple(
        StringColumn(name) if at.dtype is None else NumberColumn(name, "accept") for name, at in known.items()
    )
    numbers = [name for name, at in known.items() if at.dtype is not None]
    unread: Block = Take((numbers[0],)) if numbers else Text(next(iter(known)), Hash(1))
    try:
        return FeatureSpec(columns, unread, "FP64")
    except ValueError as error:
        raise InvalidInputError(f"the model's inputs cannot be counted: {error}") from error


def _inputs(
    signature: Signature, known: Mapping[str, InputColumn], table: Mapping[str, NDArray[Any]]
) -> dict[str, NDArray[Any]]:
    """The columns as the graph takes them."""
    found = {}
    for at, spec in enumerate(signature.inputs):
        mine = [table[name] for name, column in known.items() if column.input == at]
        found[spec.name] = np.stack(mine, axis=1) if len(spec.shape) == 2 else mine[0]
    return found


def _check_inputs(signature: Signature, known: Mapping[str, InputColumn]) -> None:
    counted = {column.input for column in known.values()}
    for at, spec in enumerate(signature.inputs):
        if at not in counted:
            raise InvalidInputError(
                f"the model's input {spec.name!r}, {spec.datatype} {list(spec.shape)}, is no number of columns that can be "
                "counted; put a specification in front of it with --features, or leave out --sample"
            )


def _as_taken(values: NDArray[np.float64], name: str, dtype: Any) -> NDArray[Any]:
    """The numbers in the input's type."""
    if dtype.kind != "f":
        with np.errstate(invalid="ignore"):
            whole = values.astype(dtype)
        odd = values[whole != values]
        if len(odd):
            raise InvalidInputError(f"column {name!r} holds {odd[0]}, which the model's input of type {dtype} cannot")
        return whole
    with np.errstate(over="ignore"):
        found: NDArray[Any] = values.astype(dtype)
    return found
