"""A loaded version: its feature pipeline, if it has one, and its graph, as one function from rows to outputs.

Blocks are raw bytes, so a batch of requests is their concatenation. A version with features takes one block of float64 rows
for its numbers and one block per string column; a plain model takes one block per input.
"""

import time
from collections.abc import MutableSequence, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock.names import VersionKey
from penstock_server.features.pipeline import Pipeline, Refusal
from penstock_server.models.artifact import Artifact
from penstock_server.models.onnx_model import OnnxModel

Blocks = Sequence[bytes]
Shapes = Sequence[tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class Outputs:
    """The outputs of a run.

    Attributes:
        arrays: one per output, in the signature's order; the first axis of a batched version is its rows.
        features_s, infer_s: the time of the pipeline and of the graph.
        refusal: the rows that the feature specification refuses; their outputs mean nothing.
    """

    arrays: list[NDArray[Any]]
    features_s: float
    infer_s: float
    refusal: Refusal | None = None


class OnnxServable:
    """A graph alone, or behind a feature pipeline.

    Attributes:
        key: the model's name and the version's.
        outputs: what it gives.
        is_batched: whether requests may run together.
        running_since_ns: one cell, which holds when the present run began; 0 while none runs. The supervisor reads it
            when the worker hangs or dies.
    """

    def __init__(self, key: VersionKey, artifact: Artifact, model: OnnxModel, pipeline: Pipeline | None) -> None:
        self.key = key
        self.artifact = artifact
        self.model = model
        self.pipeline = pipeline
        self.outputs = model.signature.outputs
        self.is_batched = model.signature.is_batched
        self._row_shapes = [spec.shape[1:] for spec in model.signature.inputs]
        self._input = model.signature.inputs[0].name
        self.running_since_ns: MutableSequence[int] | memoryview = [0]

    def predict(self, blocks: Blocks, rows: int, shapes: Shapes | None, cells: NDArray[np.int64] | None) -> Outputs:
        """Runs the rows that the blocks hold, and counts them for drift in `cells`.

        Raises:
            ModelFailedError: the graph raised.
        """
        self.running_since_ns[0] = time.monotonic_ns()
        try:
            return self._predict(blocks, rows, shapes, cells)
        finally:
            self.running_since_ns[0] = 0

    def _predict(self, blocks: Blocks, rows: int, shapes: Shapes | None, cells: NDArray[np.int64] | None) -> Outputs:
        started = time.perf_counter()
        refusal = None
        if self.pipeline is None:
            feeds = self.model.feeds(blocks, shapes or [(rows, *shape) for shape in self._row_shapes])
            transformed = started
        else:
            matrix = np.empty((rows, self.pipeline.width), self.pipeline.dtype)
            refusal = self.pipeline.run(blocks[0], blocks[1:], rows, matrix, cells)
            feeds = {self._input: matrix}
            transformed = time.perf_counter()
        arrays = self.model.run(feeds)
        return Outputs(arrays, transformed - started, time.perf_counter() - transformed, refusal)
