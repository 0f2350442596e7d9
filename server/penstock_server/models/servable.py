"""A loaded version: its feature pipeline, if it has one, and its graph, as one function from rows to outputs.

Blocks are raw bytes, so a batch of requests is their concatenation. A version with features takes one block of float64 rows
for its numbers and one block per string column; a plain model takes one block per input.
"""

import threading
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
        self._running_since_ns: MutableSequence[int] | memoryview = [0]
        self._cells: dict[int, int] = {}
        self._lock = threading.Lock()

    def report_runs(self, running_since_ns: MutableSequence[int] | memoryview) -> None:
        """Shows in these cells when the run on each thread began, and 0 while none runs; before the version serves.

        The supervisor reads them when the worker hangs or dies.
        """
        self._running_since_ns = running_since_ns
        self._cells = {}

    def predict(self, blocks: Blocks, rows: int, shapes: Shapes | None, cells: NDArray[np.int64] | None) -> Outputs:
        """Runs the rows that the blocks hold, and counts them for drift in `cells`.

        Raises:
            ModelFailedError: the graph raised.
        """
        running_since_ns, thread = self._running_since_ns, threading.get_ident()
        cell = self._cells[thread] if thread in self._cells else self._new_cell(thread)
        running_since_ns[cell] = time.monotonic_ns()
        try:
            return self._predict(blocks, rows, shapes, cells)
        finally:
            running_since_ns[cell] = 0

    def _new_cell(self, thread: int) -> int:
        with self._lock:
            return self._cells.setdefault(thread, len(self._cells) % len(self._running_since_ns))

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
