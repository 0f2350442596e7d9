"""Asks a fitted pipeline what it makes of rows, row by row: its answer, or the reason why it refuses.

scikit-learn refuses whole calls, so a call that fails is asked again in halves until each row that is to blame stands alone.
`forms` and `edges` call it; nothing here knows the compiled version.
"""

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from penstock_server.errors import first_line

TOLERANCE: Final = 1e-9
"""Answers this close, as a share of the largest, are the same: sums differ in their last digits from call to call."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a pipeline makes of one row.

    Attributes:
        answer: all numbers or labels of its answer [values]; None where it refuses.
        reason: why it refuses, in one line; empty where it answers.
        least_scale: differences are shares of the largest value, but of this at least: of probabilities 1.
    """

    answer: NDArray[Any] | None
    reason: str = ""
    least_scale: float = 1e-300

    @property
    def is_refusal(self) -> bool:
        """Whether it refuses the row."""
        return self.answer is None

    def is_like(self, other: "Outcome", tolerance: float = TOLERANCE) -> bool:
        """Whether both are the same answer, within a share of the largest value, or both refusals."""
        if self.answer is None or other.answer is None:
            return self.answer is other.answer
        if self.answer.dtype.kind not in "fiub" or other.answer.dtype.kind not in "fiub":
            return bool(np.array_equal(self.answer.astype(str), other.answer.astype(str)))
        if self.answer.shape != other.answer.shape:
            return False
        finite = np.where(np.isfinite(other.answer), np.abs(other.answer), 0.0)
        scale = max(float(finite.max(initial=0.0)), self.least_scale, other.least_scale)
        return np.allclose(self.answer, other.answer, rtol=0.0, atol=tolerance * scale, equal_nan=True)


def answers(pipeline: Any, rows: Any) -> NDArray[Any]:
    """Scores where the pipeline has them, else predictions, else what it transforms to [rows, values].

    Raises:
        Exception: whatever the pipeline raises.
    """
    name = next(
        (name for name in ("predict_proba", "decision_function", "predict", "transform") if hasattr(pipeline, name)),
        "predict",
    )
    with warnings.catch_warnings():
        # Of unknown categories, of columns without names, of divisions by zero.
        warnings.simplefilter("ignore")
        with np.errstate(all="ignore"):
            given = getattr(pipeline, name)(rows)
    if isinstance(given, list):
        # A multi-output classifier gives the probabilities of each output.
        return np.hstack([_matrix(each) for each in given])
    return _matrix(given)


@contextmanager
def one_thread() -> Iterator[None]:
    """OpenMP and BLAS compute with one thread inside, and as before after it.

    Questions have few rows. Threads that meet after each of a hundred trees wait longer than they compute: many times as
    long where other processes use the cores, since they spin.
    """
    with _thread_pools(len(sys.modules)).limit(limits=1):
        yield


@lru_cache(maxsize=1)
def _thread_pools(_modules: int) -> ThreadpoolController:
    """The pools of the libraries that are loaded.

    Looking for them reads the map of the whole process: again only when modules have been imported, with which libraries come.
    """
    return ThreadpoolController()


def outcomes(pipeline: Any, rows: Any) -> list[Outcome]:
    """The outcome of each row of a frame, series or array."""
    count = len(rows)
    try:
        return _answered(pipeline, rows)
    except Exception as error:  # noqa: BLE001 - a pipeline holds anybody's code, and any error of it is its refusal
        if count == 1:
            return [Outcome(None, first_line(error) or type(error).__name__)]
        half = count // 2
        return outcomes(pipeline, taken(rows, range(half))) + outcomes(pipeline, taken(rows, range(half, count)))


def outcomes_at_once(pipeline: Any, rows: Any) -> list[Outcome] | None:
    """The outcome of each row, None where the pipeline refuses the call."""
    try:
        return _answered(pipeline, rows)
    except Exception:  # noqa: BLE001 - as above
        return None


def _answered(pipeline: Any, rows: Any) -> list[Outcome]:
    given, count = answers(pipeline, rows), len(rows)
    if len(given) != count:
        return [Outcome(None, f"it gives {len(given)} answers for {count} rows")] * count
    # Several labels of a row may all be as good as impossible.
    least_scale = 1.0 if hasattr(pipeline, "predict_proba") else 1e-300
    return [Outcome(row, least_scale=least_scale) for row in given]


def taken(rows: Any, at: Sequence[int] | NDArray[np.intp]) -> Any:
    """These rows of a frame, series or array."""
    return rows.iloc[list(at)] if isinstance(rows, pd.DataFrame | pd.Series) else rows[list(at)]


def _matrix(given: Any) -> NDArray[Any]:
    dense = given.toarray() if hasattr(given, "toarray") else given
    matrix = np.asarray(dense)
    return matrix.reshape(len(matrix), -1)
