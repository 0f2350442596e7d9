"""A specification that hands columns of numbers straight to a plain ONNX model, so that a server counts them for drift.

Servers count raw columns in the pass that makes the model's matrix of them. A model that takes one matrix of floats gets such
a pass too, which changes no value. Requests may still bring the whole matrix.
"""

from typing import Final, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from penstock_server.errors import InvalidInputError, ModelFailedError
from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec.spec import Datatype, FeatureSpec, NumberColumn, Take
from penstock_server.features.table import numbers_of
from penstock_server.models.loader import check_fit
from penstock_server.models.signature import ANY
from penstock_tools.publish.onnx_graph import Graph

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
