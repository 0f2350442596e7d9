"""Traces a function of rows: calls it once with tracers, and says what its columns are, or where and why it could not.

The function is the pipeline owner's, and already loaded. Its warnings are silent, what it prints is kept from the terminal,
and nothing that it is given is kept.
"""

import contextlib
import io
import linecache
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final

import numpy as np
import pandas as pd
from scipy import sparse

from penstock_tools.sklearn_compiler.refusals import NotCompiled
from penstock_tools.sklearn_compiler.tracing import elementwise, patches, scalars
from penstock_tools.sklearn_compiler.tracing.arrays import TracedArray, traced
from penstock_tools.sklearn_compiler.tracing.ended import TraceEnded
from penstock_tools.sklearn_compiler.tracing.frames import TracedFrame, TracedSeries
from penstock_tools.sklearn_compiler.tracing.values import Kind, Number, Requirements, Value

MAX_WIDTH: Final = 4096
"""The most columns that are traced."""

_HERE: Final = str(Path(__file__).parent)


class NotTraced(NotCompiled):
    """A function cannot be traced. Its text is half a sentence: which line did what, and what would work."""


@dataclass(frozen=True, slots=True)
class Traced:
    """What a function makes of its columns.

    Attributes:
        columns: the values of a row.
        names: what they are called; empty for an array.
        required: numbers that must be true in each row, or the function raises.
    """

    columns: tuple[Value, ...]
    names: tuple[str, ...]
    required: tuple[Number, ...]


def trace(function: Callable[[Any], Any], given: Any, columns: Sequence[Value]) -> Traced:
    """Calls the function with tracers.

    Args:
        function: takes rows and gives rows.
        given: rows as they reach it: they say whether it gets a frame, a series, an array or a sparse matrix.
        columns: the columns' values, one for each of `given`.

    Raises:
        NotTraced: it does what its record cannot express.
    """
    if len(columns) > MAX_WIDTH:
        raise NotTraced(f"{len(columns)} columns reach its function, up to {MAX_WIDTH} are followed")
    requirements = Requirements()
    token = scalars._requirements.set(requirements)  # noqa: SLF001 - the same package
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), patches.patched():
            warnings.simplefilter("ignore")
            made = function(_tracer(given, columns))
    except TraceEnded as end:
        raise NotTraced(f"{_where(end.__traceback__)}{end}") from end
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        text = str(error).strip().partition("\n")[0][:200]
        raise NotTraced(
            f"{_where(error.__traceback__)}it does something that Penstock does not follow ({type(error).__name__}: {text})"
        ) from error
    finally:
        scalars._requirements.reset(token)  # noqa: SLF001
    return _result(made, requirements)


def kind_of(dtype: Any) -> Kind:
    """The kind of a column of numbers; what holds None or Decimals becomes a float in a request."""
    kind = getattr(dtype, "kind", "O")
    if kind == "b":
        return "bool"
    if kind in "iu":
        return "int"
    return "single" if kind == "f" and getattr(dtype, "itemsize", 8) < 8 else "float"


def _tracer(given: Any, columns: Sequence[Value]) -> Any:
    if isinstance(given, pd.DataFrame):
        names = list(given.columns)
        if len(set(names)) < len(names):
            raise NotTraced("two of its columns have the same name")
        return TracedFrame(dict(zip(names, columns, strict=True)))
    if isinstance(given, pd.Series):
        return TracedSeries(columns[0], given.name)
    cells = np.empty(len(columns), object)
    cells[:] = list(columns)
    is_flat = not sparse.issparse(given) and np.ndim(given) == 1
    return TracedArray(cells[0] if is_flat else cells)


def _result(made: Any, requirements: Requirements) -> Traced:
    required = tuple(requirements.conditions)
    if type(made) is TracedFrame:
        return Traced(tuple(made.data.values()), tuple(map(str, made.data)), required)
    if type(made) is TracedSeries:
        return Traced((made.value,), () if made.name is None else (str(made.name),), required)
    array = traced(made)
    if array is None or array.rows_last or array.cells.ndim > 1:
        kind = type(made).__name__ if array is None else "an array that is no matrix of rows"
        raise NotTraced(f"its function gives {kind}, expected a frame or an array of as many rows as it got")
    cells = list(array.cells.ravel())
    return Traced(tuple(cell if isinstance(cell, Value) else elementwise.number(cell) for cell in cells), (), required)


def _where(trace_back: TracebackType | None) -> str:
    """The line of the function, for an error; the deepest that is neither ours nor a library's."""
    found = [each for each in traceback.extract_tb(trace_back) if _is_own(each.filename)]
    if not found:
        return ""
    last = found[-1]
    line = (last.line or linecache.getline(last.filename, last.lineno or 0)).strip()
    shown = f" ({line[:120]})" if line else ""
    return f"in line {last.lineno} of {last.name}{shown} "


def _is_own(filename: str) -> bool:
    return (
        not filename.startswith(_HERE)
        and "site-packages" not in filename
        and not filename.startswith("<__array_function__")
    )
