"""From what a caller has, a frame or an array, to a sample: each raw column with its name and its kind.

Decides what is a number and what is text by what the rows hold, and refuses columns that are neither. The compiler calls it
for pipelines, the commands for specifications.
"""

from collections.abc import Container, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from penstock_server.errors import InvalidInputError
from penstock_server.features.spec.spec import FeatureSpec, StringColumn
from penstock_tools.sklearn_compiler.sample import Missing, RawColumn, Sample, missing_kind

_NUMBERS: Final = (bool, int, float, np.number, np.bool_)


def read(pipeline: Any, given: Any, dispensable: Container[str] = ()) -> Sample:
    """The sample rows of a pipeline.

    Args:
        pipeline: fitted; it says what its columns are called, where it knows.
        given: a pandas or polars frame, which may have further columns, or an array [rows, columns].
        dispensable: columns that the pipeline was fitted on and drops; a frame need not have them.

    Raises:
        InvalidInputError: no rows, a column is not there, or it holds neither numbers nor text alone.
    """
    rows = _frame_or_array(given)
    if not len(rows):
        raise InvalidInputError("the sample has no rows; expected one at least")
    known = _known_names(pipeline)
    if isinstance(rows, pd.DataFrame):
        if known is not None:
            _present([name for name in known if name not in dispensable], rows)
            rows = rows.reindex(columns=known)
        names = [str(name) for name in rows.columns]
        arrays = [np.asarray(rows.iloc[:, at]) for at in range(rows.shape[1])]
        is_declared_text = [isinstance(dtype, pd.StringDtype | pd.CategoricalDtype) for dtype in rows.dtypes]
    else:
        names = known or [f"feature_{at}" for at in range(rows.shape[1])]
        arrays = [rows[:, at] for at in range(rows.shape[1])]
        is_declared_text = [rows.dtype.kind in "UT"] * len(arrays)
    if len(names) != len(arrays):
        raise InvalidInputError(f"the sample has {len(arrays)} columns, expected {len(names)}: {', '.join(names)}")
    _hold_distinct(names)
    columns = tuple(map(_column, names, arrays, is_declared_text))
    return Sample(rows, columns, dict(zip(names, arrays, strict=True)), np.arange(len(rows)))


def of_specification(features: FeatureSpec, frame: pd.DataFrame) -> Sample:
    """The rows of the columns that a specification reads; the frame may have further ones.

    Raises:
        InvalidInputError: a column is not there or not of its kind.
    """
    rows = frame[_present([column.name for column in features.columns], frame)]
    table = {str(name): np.asarray(rows[name]) for name in rows.columns}
    columns = tuple(RawColumn(column.name, isinstance(column, StringColumn)) for column in features.columns)
    return Sample(rows, columns, table, np.arange(len(rows)))


def _frame_or_array(given: Any) -> Any:
    if hasattr(given, "to_pandas"):
        given = given.to_pandas()
    if isinstance(given, pd.DataFrame):
        return given
    if isinstance(given, Mapping):
        return pd.DataFrame(given)
    rows = np.asarray(given)
    if rows.ndim != 2:
        raise InvalidInputError(f"the sample has the shape {list(rows.shape)}, expected rows and columns")
    return rows


def _known_names(pipeline: Any) -> list[str] | None:
    names = getattr(pipeline, "feature_names_in_", None)
    return None if names is None else [str(name) for name in names]


def _present(known: Sequence[str], rows: pd.DataFrame) -> list[str]:
    lacking = [name for name in known if name not in rows.columns]
    if lacking:
        raise InvalidInputError(
            f"the sample lacks column {lacking[0]!r}; the pipeline was fitted on {', '.join(known)}"
        )
    return list(known)


def _hold_distinct(names: Sequence[str]) -> None:
    twice = [name for at, name in enumerate(names) if name in names[:at]]
    if twice:
        raise InvalidInputError(f"the sample has column {twice[0]!r} twice; expected each name once")


def _column(name: str, values: NDArray[Any], is_declared_text: bool) -> RawColumn:
    if values.dtype.kind in "biuf":
        return RawColumn(name, is_text=False, missing=frozenset({Missing.NAN}))
    if values.dtype.kind not in "OUT":
        raise InvalidInputError(
            f"column {name!r} holds {values.dtype}, expected numbers or text; make numbers of it before the pipeline"
        )
    kinds = [missing_kind(value) for value in values]
    there = [value for value, kind in zip(values, kinds, strict=True) if kind is None]
    missing = frozenset(kind for kind in kinds if kind is not None)
    if not there:
        return RawColumn(name, is_declared_text or Missing.EMPTY in missing, missing)
    texts = sum(isinstance(value, str) for value in there)
    if texts in (0, len(there)) and (texts or all(isinstance(value, _NUMBERS) for value in there)):
        return RawColumn(name, texts > 0, missing)
    odd = next(value for value in there if not isinstance(value, str))
    raise InvalidInputError(f"column {name!r} holds {odd!r} of {type(odd).__name__}, expected numbers or text alone")
