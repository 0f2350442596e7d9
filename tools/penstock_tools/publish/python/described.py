"""Says of a pipeline what its rows look like and what it answers with, by asking it about sample rows.

Outputs have the names and shapes that a compiled version would give them, so that versions of both kinds follow each other.
"""

from decimal import Decimal
from typing import Any, Final

import msgspec
import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.base import is_classifier, is_regressor

from penstock.tensors import DATATYPES, join_bytes
from penstock_server.errors import UnsupportedError, first_line
from penstock_server.features.spec.blocks import Block, Take, Text, Time
from penstock_server.features.spec.encoders import Hash
from penstock_server.features.spec.spec import Column as SpecColumn
from penstock_server.features.spec.spec import FeatureSpec, NumberColumn, StringColumn, TimeColumn
from penstock_server.models.manifest import MAX_CLASSES, ClassLabel
from penstock_server.python.answers import values_of
from penstock_server.python.description import Column, Container, Output
from penstock_tools.sklearn_compiler.forms import Missing
from penstock_tools.sklearn_compiler.sample import RawColumn, Sample

_NUMBERS_IN_OBJECTS: Final = ((bool | np.bool_, "bool"), (int | np.integer, "int"), (Decimal, "Decimal"))
_MISSING: Final = {Missing.NAN: "NaN", Missing.NONE: "None", Missing.NA: "NA", Missing.EMPTY: "empty"}


def container_of(sample: Sample) -> Container:
    """What the pipeline takes."""
    if isinstance(sample.given, pd.DataFrame):
        return "frame"
    return "series" if isinstance(sample.given, pd.Series) else "array"


def columns_of(sample: Sample) -> tuple[Column, ...]:
    """The columns of the rows that the pipeline takes.

    Raises:
        UnsupportedError: a column holds categories that are neither numbers nor text.
    """
    given = sample.given
    if isinstance(given, pd.Series):
        return (_column(sample.columns[0], given),)
    if isinstance(given, pd.DataFrame):
        return tuple(_column(raw, given.iloc[:, at]) for at, raw in enumerate(sample.columns))
    return tuple(_column(raw, pd.Series(given[:, at])) for at, raw in enumerate(sample.columns))


def _column(raw: RawColumn, values: Any) -> Column:
    dtype = "object" if values.dtype.kind in "UT" and isinstance(values.dtype, np.dtype) else str(values.dtype)
    categories = None
    is_ordered = False
    if isinstance(values.dtype, pd.CategoricalDtype):
        categories = tuple(np.asarray(values.dtype.categories).tolist())
        is_ordered = bool(values.dtype.ordered)
        if not all(isinstance(each, str | int | float) for each in categories):
            raise UnsupportedError(f"column {raw.name!r} has categories that are neither numbers nor text")
    return Column(
        raw.name,
        raw.kind,
        dtype,
        missing=_missing(raw),
        values=_in_objects(values) if raw.kind == "number" and dtype in {"object", "category"} else "float",
        categories=categories,
        is_ordered=is_ordered,
    )


def _missing(raw: RawColumn) -> Any:
    order = (Missing.NAN, Missing.NONE, Missing.NA, Missing.EMPTY)
    return _MISSING[next((kind for kind in order if kind in raw.missing), Missing.NAN)]


def _in_objects(values: Any) -> Any:
    first = next(iter(values.dropna()), None)
    return next((name for kind, name in _NUMBERS_IN_OBJECTS if isinstance(first, kind)), "float")


def outputs_of(pipeline: Any, sample: Sample) -> tuple[Output, ...]:
    """What the pipeline answers with.

    Raises:
        UnsupportedError: it neither predicts nor transforms, or its answers are no numbers and no text.
    """
    given, rows = sample.given, sample.rows
    if not hasattr(pipeline, "predict"):
        if not hasattr(pipeline, "transform"):
            raise UnsupportedError(f"a {type(pipeline).__name__} neither predicts nor transforms")
        values = _asked(pipeline, "transform", given)
        return (Output("features", _datatype(values), "transform", _width(values, rows)),)
    predicted = _asked(pipeline, "predict", given)
    if is_regressor(pipeline) or (predicted.dtype.kind == "f" and not _classifies(pipeline)):
        return (Output("prediction", _datatype(predicted), "predict", _width(predicted, rows)),)
    width = None if predicted.ndim == 1 else _width(predicted, rows)
    found = [Output("label", _label_datatype(predicted), "predict", width)]
    for method, name in (("predict_proba", "probabilities"), ("decision_function", "scores")):
        if hasattr(pipeline, method) and len(found) == 1:
            found += _scores(pipeline, method, name, given, rows)
    return tuple(found)


def classes_of(pipeline: Any, outputs: tuple[Output, ...]) -> tuple[str | None, tuple[ClassLabel, ...] | None]:
    """The output that holds the predicted class, and the classes; None where it is no classifier of one target."""
    label = outputs[0]
    if label.name != "label" or label.width is not None or not _classifies(pipeline):
        return None, None
    known = getattr(pipeline, "classes_", None)
    if not isinstance(known, np.ndarray) or known.ndim != 1 or not 1 <= len(known) <= MAX_CLASSES:
        return "label", None
    make: Any = int if label.datatype == "INT64" else str
    return "label", tuple(make(each) for each in known.tolist())


def _scores(pipeline: Any, method: Any, name: str, given: Any, rows: int) -> list[Output]:
    found = getattr(pipeline, method)(given)
    if isinstance(found, list):
        members = [values_of(found, at) for at in range(len(found))]
        return [
            Output(f"{name}_{at}", _datatype(values), method, _width(values, rows), at)
            for at, values in enumerate(members)
        ]
    values = values_of(found, None)
    return [Output(name, _datatype(values), method, _width(values, rows))]


def _asked(pipeline: Any, method: str, given: Any) -> NDArray[Any]:
    try:
        values = values_of(getattr(pipeline, method)(given), None)
    except Exception as error:
        raise UnsupportedError(
            f"the pipeline refuses the sample: {type(error).__name__}: {first_line(error)}"
        ) from error
    if not len(values) == len(given):
        raise UnsupportedError(f"{method} gives {len(values)} answers for {len(given)} rows; expected one for each")
    return values


def _width(values: NDArray[Any], rows: int) -> int:
    return max(1, values.size // rows)


def _datatype(values: NDArray[Any]) -> Any:
    if values.dtype.kind in "iu":
        return "INT64"
    if values.dtype.kind in "fb":
        return DATATYPES.get(values.dtype, "FP64")
    if values.dtype.kind in "OUT":
        is_number = all(isinstance(value, int | float | np.number) for value in values.ravel()[:1000].tolist())
        return "FP64" if is_number else "BYTES"
    raise UnsupportedError(f"the pipeline answers with {values.dtype}; expected numbers or text")


def _label_datatype(values: NDArray[Any]) -> Any:
    """Whole numbers, also for booleans and floats that are whole, as a compiled version gives; else text or floats."""
    plain = values.ravel().tolist()
    if all(isinstance(value, int | float | np.number) and float(value).is_integer() for value in plain):
        return "INT64"
    return _datatype(values)


def _classifies(pipeline: Any) -> bool:
    try:
        return bool(is_classifier(pipeline))
    except Exception:  # noqa: BLE001 - a class of the user's may have no tags
        return hasattr(pipeline, "classes_")


def counting(columns: tuple[Column, ...], ignored: tuple[str, ...] = ()) -> FeatureSpec:
    """A specification that only counts these columns for drift; nothing reads the one feature that it gives.

    Args:
        columns: those of the pipeline.
        ignored: others that requests may bring.
    """
    return FeatureSpec(
        tuple(map(_counted, columns)), _some_feature(columns[0]), "FP64", ignored=ignored or msgspec.UNSET
    )


def ignored_in(given: Any, columns: tuple[Column, ...]) -> tuple[str, ...]:
    """The columns of a sample's frame that are not the pipeline's; requests are such frames too."""
    known = {column.name for column in columns}
    names = [str(name) for name in getattr(given, "columns", ())]
    return tuple(dict.fromkeys(name for name in names if name not in known))


def _counted(column: Column) -> SpecColumn:
    # Whether a missing value is refused is for the pipeline to say.
    match column.kind:
        case "number":
            return NumberColumn(column.name, "accept")
        case "time":
            return TimeColumn(column.name, "accept")
        case "text":
            return StringColumn(column.name)


def _some_feature(column: Column) -> Block:
    match column.kind:
        case "number":
            return Take((column.name,))
        case "time":
            return Time(column.name, ("year",))
        case "text":
            return Text(column.name, Hash(1))


def blocks_of(columns: tuple[Column, ...], table: Any, rows: int) -> list[bytes]:
    """Rows as a server has them: all numbers side by side, then each column of times, then each of text."""
    numbers = [np.asarray(table[column.name], np.float64) for column in columns if column.kind == "number"]
    matrix = np.stack(numbers, axis=1) if numbers else np.empty((rows, 0))
    times = [np.asarray(table[column.name], np.int64).tobytes() for column in columns if column.kind == "time"]
    texts = [join_bytes(list(table[column.name])) for column in columns if column.kind == "text"]
    return [matrix.tobytes(), *times, *texts]
