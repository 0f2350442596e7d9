"""A loaded graph whose rows are counted for drift beside it, from its own inputs.

Its feature specification changes nothing that the graph gets: it names the columns that are counted. A graph of several inputs,
of texts or of whole numbers is published so; of one matrix of floats, the features themselves hand it on, which kernels do.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.names import VersionKey
from penstock.tensors import NUMPY_TYPES
from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec.spec import FeatureSpec, NumberColumn, StringColumn
from penstock_server.models.artifact import Artifact
from penstock_server.models.onnx_model import OnnxModel
from penstock_server.models.servable import Blocks, Given, OnnxServable, Outputs, Shapes
from penstock_server.models.signature import ANY, Signature


@dataclass(frozen=True, slots=True)
class InputColumn:
    """A column of a graph's input.

    Attributes:
        input: the input's place.
        width: its columns.
        place: which of them it is.
        dtype: its numbers' type; None where it holds texts.
    """

    input: int
    width: int
    place: int
    dtype: np.dtype[Any] | None


def input_columns(signature: Signature) -> dict[str, InputColumn]:
    """The columns of a graph's inputs that can be counted: by the input's name, with its place behind if there are several.

    Of texts only inputs of one column are counted.
    """
    found: dict[str, InputColumn] = {}
    for at, spec in enumerate(signature.inputs):
        dtype = NUMPY_TYPES.get(spec.datatype)
        width = 1 if len(spec.shape) == 1 else spec.shape[1] if len(spec.shape) == 2 else ANY
        if spec.shape[:1] != (ANY,) or width == ANY or (dtype is None and (spec.datatype != "BYTES" or width != 1)):
            continue
        for place in range(width):
            name = spec.name if width == 1 else f"{spec.name}_{place}"
            found.setdefault(name, InputColumn(at, width, place, dtype))
    return found


def is_one_matrix(signature: Signature) -> bool:
    """Whether a graph takes one matrix of floats, with any number of rows, which features may make."""
    spec = signature.inputs[0]
    is_matrix = len(spec.shape) == 2 and spec.shape[0] == ANY and spec.datatype in {"FP32", "FP64"}
    return len(signature.inputs) == 1 and is_matrix


def counts_apart(signature: Signature, features: FeatureSpec) -> bool:
    """Whether the features only count: each of their columns is one of the inputs, and these are not one matrix of floats."""
    known = input_columns(signature)
    return not is_one_matrix(signature) and all(_is_of(known, column) for column in features.columns)


def _is_of(known: Mapping[str, InputColumn], column: Any) -> bool:
    found = known.get(column.name)
    return found is not None and isinstance(column, StringColumn if found.dtype is None else NumberColumn)


class CountingServable(OnnxServable):
    """A graph alone, and a pipeline that counts what it is given."""

    def __init__(self, key: VersionKey, artifact: Artifact, model: OnnxModel, counting: Pipeline) -> None:
        super().__init__(key, artifact, model, None)
        self._counting = counting
        known = input_columns(model.signature)
        self._numbers = [known[name] for name in counting.numbers]
        self._texts = [known[name].input for name in counting.strings]

    def count(self, blocks: Blocks, rows: int, cells: NDArray[np.int64]) -> None:
        if rows:
            unread = np.empty((rows, self._counting.width), self._counting.dtype)
            self._counting.run(*self.counted(blocks, rows), rows, unread, cells, is_thinned=True)

    def counted_rows(self, rows: int) -> int:
        return self._counting.counted_rows(rows)

    def _predict(
        self, blocks: Blocks, rows: int, shapes: Shapes | None, cells: NDArray[np.int64] | None, given: Given
    ) -> Outputs:
        started = time.perf_counter()
        if cells is not None:
            self.count(blocks, rows, cells)
        counted_s = time.perf_counter() - started
        return replace(super()._predict(blocks, rows, shapes, None, given), features_s=counted_s)

    @property
    def counted_columns(self) -> Pipeline:
        return self._counting

    def counted(self, blocks: Blocks, rows: int) -> tuple[Any, Sequence[bytes]]:
        return self._matrix(blocks, rows), [blocks[at] for at in self._texts]

    def _matrix(self, blocks: Blocks, rows: int) -> bytes:
        """The numbers side by side, as they are counted."""
        matrix = np.empty((rows, len(self._numbers)))
        for at, column in enumerate(self._numbers):
            values = np.frombuffer(blocks[column.input], column.dtype).reshape(rows, column.width)
            matrix[:, at] = values[:, column.place]
        return matrix.tobytes()
