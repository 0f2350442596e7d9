"""Specifications for plain ONNX models, so that a server counts the columns of what they take for drift.

Servers count raw columns in the pass that makes the model's matrix of them. A model that takes one matrix of floats gets such
a pass too, which changes no value; requests may still bring the whole matrix. Of a model with other inputs the pass counts
beside the graph, which takes its inputs as before.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from penstock.names import did_you_mean
from penstock_server.errors import InvalidInputError, ModelFailedError
from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec.spec import (
    Block,
    Datatype,
    FeatureSpec,
    Hash,
    NumberColumn,
    StringColumn,
    Take,
    Text,
)
from penstock_server.features.table import numbers_of, strings_of
from penstock_server.models.counting_servable import InputColumn, input_columns
from penstock_server.models.loader import check_fit
from penstock_server.models.signature import ANY, Signature
from penstock_tools.publish.onnx_graph import Graph

FLOATS: Final = ("FP32", "FP64")
_ODD: Final = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-310, 2.0**-149, 16777217.0, 3.4028234663852886e38, 1.0 / 3)
"""Values that arithmetic, or a narrower type on the way, might change."""


def straight(graph: Graph, sample: pd.DataFrame, time: str | None) -> tuple[Pipeline, pd.DataFrame]:
    """The pipeline, proven to change no value, and the sample's columns as it takes them.

    Args:
        graph: a model of one matrix.
        sample: its columns are the matrix's, in its order.
        time: the sample's column of times, which the model need not take.

    Raises:
        InvalidInputError: the sample has other columns.
        ModelFailedError: a value was changed.
    """
    spec = graph.signature.inputs[0]
    name, width, datatype = spec.name, spec.shape[1], cast("Datatype", spec.datatype)
    rows = _columns(sample, width, time)
    if len(rows.columns) == 1:
        # A request that brings the matrix calls it by the input's name, and so the one column.
        rows = rows.set_axis([name], axis=1)
    names = [str(column) for column in rows.columns]
    try:
        features = FeatureSpec(tuple(NumberColumn(each, "accept") for each in names), Take(tuple(names)), datatype)
    except ValueError as error:
        raise InvalidInputError(f"the sample's columns cannot be the model's: {error}") from error
    built = Pipeline(features)
    check_fit(graph.runtime, built)
    _check_unchanged(built, {each: numbers_of(rows, each) for each in names})
    return built, rows


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


def is_one_matrix(signature: Signature) -> bool:
    """Whether the model takes one matrix of floats, with any number of rows."""
    spec = signature.inputs[0]
    is_matrix = len(spec.shape) == 2 and spec.shape[0] == ANY and spec.datatype in FLOATS
    return len(signature.inputs) == 1 and is_matrix


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
    first = next(iter(known))
    columns = tuple(StringColumn(name) if name in texts else NumberColumn(name, "accept") for name in known)
    numbers = [name for name in known if name not in texts]
    unread: Block = Take((numbers[0],)) if numbers else Text(first, Hash(1))
    inputs = {}
    for at, spec in enumerate(graph.signature.inputs):
        mine = [table[name] for name, column in known.items() if column.input == at]
        inputs[spec.name] = np.stack(mine, axis=1) if len(spec.shape) == 2 else mine[0]
    return Beside(FeatureSpec(columns, unread, "FP64"), table, inputs)


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


def _columns(sample: pd.DataFrame, width: int, time: str | None) -> pd.DataFrame:
    """The sample's columns that are the model's: all, or all but that of the times."""
    others = sample[[name for name in sample.columns if str(name) != time]]
    for rows in (sample, others):
        if len(rows.columns) == width or (width == ANY and rows is others):
            return rows
    raise InvalidInputError(
        f"the sample has {len(others.columns)} columns ({', '.join(map(str, others.columns[:20]))}), and the model takes a "
        f"matrix of {width}; give these alone, in its order"
    )


def _check_unchanged(pipeline: Pipeline, table: dict[str, NDArray[np.float64]]) -> None:
    odd = np.array(_ODD)
    columns = [np.concatenate([values, np.roll(odd, at)]) for at, values in enumerate(table.values())]
    with np.errstate(over="ignore", under="ignore"):
        expected = np.stack(columns, axis=1).astype(pipeline.dtype)
        found = pipeline.transform(dict(zip(table, columns, strict=True)))
    bits = np.dtype(f"i{expected.itemsize}")
    is_same = (found.view(bits) == expected.view(bits)) | (np.isnan(found) & np.isnan(expected))
    if not is_same.all():
        row, at = map(int, np.argwhere(~is_same)[0])
        raise ModelFailedError(f"column {[*table][at]!r} becomes {found[row, at]} instead of {expected[row, at]}")
