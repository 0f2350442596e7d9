"""Computes attributions: an explanation, ready to run on the matrices that a feature pipeline gives.

Trees run in a kernel (`features.kernels.shapley`), linear models in numpy. Several threads may use one at once.
"""

import ctypes
from abc import ABC, abstractmethod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.explain import trees
from penstock_server.explain.explanation import (
    Explanation,
    LinearExplanation,
    Meaning,
    Origins,
    TreesExplanation,
    array,
)
from penstock_server.features.kernel_set import KERNELS
from penstock_server.kernels.compiled import library

Reals = NDArray[np.float64]

_DOUBLE_BYTES: Final = 8
_CHUNK_VALUES: Final = 1 << 20
"""Values that a linear model's rows are treated in at once, since each is in memory several times."""
_BRIEF_NODES: Final = 1 << 13
"""Up to this many nodes, about 50 us of work, the kernel keeps the GIL."""


class Attributor(ABC):
    """Gives the attributions of rows; `meaning` says what they add up to, `method` how they are computed."""

    def __init__(self, meaning: Meaning, method: str, columns: tuple[str, ...]) -> None:
        self.meaning = meaning
        self.method = method
        self.columns = columns

    @property
    def row_shape(self) -> tuple[int, ...]:
        """The shape of a row's attributions: raw columns, and outputs where there are several."""
        columns, outputs = len(self.columns), self.meaning.outputs
        return (columns,) if outputs == 1 else (columns, outputs)

    def run(self, matrix: NDArray[Any]) -> Reals:
        """The attributions of the rows of a matrix, float32 or float64 [rows, features]: float64 [rows, `row_shape`]."""
        out = np.empty((len(matrix), len(self.columns), self.meaning.outputs))
        if len(matrix):
            self._fill(np.ascontiguousarray(matrix), out)
        return out.reshape(len(matrix), *self.row_shape)

    @abstractmethod
    def _fill(self, matrix: NDArray[Any], out: Reals) -> None:
        """Fills float64 [rows, raw columns, outputs]; there is one row at least."""


def attributor_of(explanation: Explanation, columns: tuple[str, ...]) -> Attributor:
    """The attributor of an explanation that was checked.

    Args:
        explanation: as `explanation.check` accepts it.
        columns: the names of the raw columns, in the specification's order.
    """
    if isinstance(explanation, LinearExplanation):
        return LinearAttributor(explanation, columns)
    return TreesAttributor(explanation, columns)


class LinearAttributor(Attributor):
    """Coefficient times distance from the mean, summed over the features of each raw column."""

    def __init__(self, linear: LinearExplanation, columns: tuple[str, ...]) -> None:
        super().__init__(linear.meaning, linear.method, columns)
        feature, column, share = _entries(linear.origins)
        coefficients = array(linear.coefficients, "<f8").reshape(-1, linear.meaning.outputs)
        self._feature = feature
        self._weights = coefficients[feature] * share[:, None]
        self._means = array(linear.means, "<f8")[feature]
        self._column, self._starts = np.unique(column, return_index=True)
        self._rows = max(1, _CHUNK_VALUES // max(1, self._weights.size))

    def _fill(self, matrix: NDArray[Any], out: Reals) -> None:
        out[...] = 0.0
        for first in range(0, len(matrix), self._rows):
            part = slice(first, first + self._rows)
            distance = matrix[part, self._feature].astype(np.float64) - self._means
            worth = distance[:, :, None] * self._weights
            out[part, self._column] = np.add.reduceat(worth, self._starts, axis=1)


class TreesAttributor(Attributor):
    """Path-dependent TreeSHAP, in compiled code."""

    def __init__(self, explanation: TreesExplanation, columns: tuple[str, ...]) -> None:
        super().__init__(explanation.meaning, explanation.method, columns)
        self._program = trees.program(explanation, len(columns))
        self._at = self._program.words.ctypes.data
        is_brief = self._program.nodes <= _BRIEF_NODES
        self._brief_rows = _BRIEF_NODES // self._program.nodes if is_brief else 0
        self._scratch = self._new_scratch()
        self._run_brief = library(KERNELS).brief["explain_trees"]
        self._run_long = library(KERNELS).long["explain_trees"]

    def _fill(self, matrix: NDArray[Any], out: Reals) -> None:
        is_brief = len(matrix) <= self._brief_rows
        # A brief call keeps the GIL, so no other call uses this memory at the same time; long calls have their own.
        scratch = self._scratch if is_brief else self._new_scratch()
        run = self._run_brief if is_brief else self._run_long
        matrix_at = matrix.__array_interface__["data"][0]
        run(self._at, matrix_at, matrix.itemsize == _DOUBLE_BYTES, len(matrix), _address(out), _address(scratch))

    def _new_scratch(self) -> Reals:
        return np.empty(self._program.scratch_words)


def _entries(origins: Origins) -> tuple[NDArray[np.intp], NDArray[np.intp], Reals]:
    """For each feature and raw column that it is made of the two, and its share; by column."""
    found = [
        (feature, column, 1.0 / len(origins.groups[group]))
        for feature, group in enumerate(origins.group_of_each.tolist())
        for column in origins.groups[group]
    ]
    found.sort(key=lambda entry: entry[1])
    feature, column, share = zip(*found, strict=True)
    return np.array(feature, np.intp), np.array(column, np.intp), np.array(share, np.float64)


# The cheapest way to get an array's memory.
_exposed: Any = ctypes.c_char.from_buffer


def _address(memory: Reals) -> int:
    return ctypes.addressof(_exposed(memory))
