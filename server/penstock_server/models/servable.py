"""A loaded version: its feature pipeline, if it has one, and its graph, as one function from rows to outputs.

Blocks are raw bytes, so a batch of requests is their concatenation. A version with features takes one block of float64 rows
for its numbers and one block per string column; a plain model takes one block per input.
"""

import ctypes
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, MutableSequence, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from penstock.names import VersionKey
from penstock.tensors import NUMPY_TYPES
from penstock_server.batching.cost import Cost
from penstock_server.batching.limits import Batching
from penstock_server.compiled_models.choice import Choice
from penstock_server.compiled_models.compiled_model import ModelCall
from penstock_server.errors import ModelFailedError
from penstock_server.features.pipeline import FeatureCall, Pipeline, Refusal
from penstock_server.models.artifact import Artifact
from penstock_server.models.kernels import ModelKernels, none
from penstock_server.models.manifest import Manifest
from penstock_server.models.onnx_file import OnnxFile
from penstock_server.models.onnx_model import OnnxModel
from penstock_server.models.signature import ANY, GivenTensor, Signature, TensorInfo

Blocks = Sequence[bytes]
Shapes = Sequence[tuple[int, ...]]
Given = Sequence[GivenTensor]
"""What one request gives in place of the defaults of inputs; empty for nearly all."""


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


@dataclass(frozen=True, slots=True)
class BatchingVerdict:
    """Whether a version's requests share batches, and why.

    Attributes:
        batching: "rows" where requests are joined, "request" where each runs alone.
        reason: a sentence for the publisher.
        note: the same for operators, "" where there is nothing that they could not expect.
    """

    batching: Batching
    reason: str
    note: str = ""


class KernelCalls(NamedTuple):
    """How kernels run a version themselves.

    Attributes:
        features: how they make the matrix; None where it comes as it is.
        model: how they answer it.
        choice: which batches they serve.
    """

    features: FeatureCall | None
    model: ModelCall
    choice: Choice


class Model(Protocol):
    """What runs the rows of a version.

    Attributes:
        signature: what goes in and out.
        file: the structure of its graph; empty where there is no graph.
    """

    signature: Signature
    file: OnnxFile


class Servable(ABC):
    """A loaded version, whatever runs it.

    Attributes:
        key: the model's name and the version's.
        outputs: what it gives.
        is_elsewhere: another process runs it, so that its thread waits and this process cannot be hung or ended by it.
        most_rows: the largest batch that a device had memory for, where that is less than was asked for; None elsewhere.
        is_batched: whether requests may run together: as far as the graph's shapes allow, until `independence` decides.
        batching: that decision; None before.
        explaining: the same version with attributions, and what its batches cost; None if it cannot give them.
        unexplained: why it cannot.
    """

    is_elsewhere = False
    most_rows: int | None = None
    explaining: "tuple[Servable, Cost] | None" = None
    unexplained = "it was published without an explanation"

    def __init__(self, key: VersionKey, artifact: Artifact, model: Model, pipeline: Pipeline | None) -> None:
        self.key = key
        self.artifact = artifact
        self.model = model
        self.pipeline = pipeline
        self.outputs = _labelled(model.signature.outputs, artifact.manifest)
        self.is_batched = model.signature.is_batched
        self.batching: BatchingVerdict | None = None
        self._tails = [spec.shape[1:] for spec in self.outputs]
        self._can_be_empty = all(spec.shape[:1] == (ANY,) for spec in self.outputs)
        self._running_since_ns: MutableSequence[int] | memoryview = [0]
        self._cells: dict[int, int] = {}
        self._lock = threading.Lock()

    def report_runs(self, running_since_ns: MutableSequence[int] | memoryview) -> None:
        """Shows in these cells when the run on each thread began, and 0 while none runs; before the version serves.

        The supervisor reads them when the worker hangs or dies.
        """
        self._running_since_ns = running_since_ns
        self._cells = {}
        if self.explaining is not None:
            self.explaining[0]._share_runs(self)  # noqa: SLF001 - of its own kind

    def _share_runs(self, other: "Servable") -> None:
        """Shows its runs in the cells of another servable, of which each thread has one."""
        self._running_since_ns, self._cells, self._lock = other._running_since_ns, other._cells, other._lock  # noqa: SLF001

    def decide(self, verdict: BatchingVerdict) -> None:
        """Keeps the decision on batching; before the version serves."""
        self.batching = verdict
        self.is_batched = verdict.batching == "rows"

    def learn_shapes(self, outputs: Outputs) -> None:
        """Keeps how wide a row's outputs are, where the graph does not say; before the version serves."""
        if self._can_be_empty:
            self._tails = [array.shape[1:] for array in outputs.arrays]

    @property
    def tails(self) -> list[tuple[int, ...]]:
        """The shape of a row of each output, as far as it is known."""
        return self._tails

    @property
    def engine(self) -> str:
        """What runs its graph and why, in one sentence; "" where that goes without saying."""
        return ""

    @property
    def is_on_device(self) -> bool:
        """Whether batches wait for a device other than the CPU; so they run on a thread of their own, and may be large."""
        return False

    @property
    def batching_note(self) -> str:
        """What operators need to know about how requests are batched; "" for nothing."""
        device = (
            "" if self.most_rows is None else f"a batch has at most {self.most_rows:,} rows, for want of device memory"
        )
        return "; ".join(filter(None, (device, "" if self.batching is None else self.batching.note)))

    @property
    def note(self) -> str:
        """What operators need to know: of its batches, and of what its configuration says without effect."""
        config = self.artifact.config
        notes = [] if config is None else list(config.notes)
        if config is not None and config.is_for_device and not self.is_on_device:
            notes.append("instance_group.kind KIND_GPU: it runs on the CPU, as the setting execution.providers has it")
        told = f"config.pbtxt has no effect with {'; '.join(notes)}" if notes else ""
        return "; ".join(filter(None, (self.batching_note, told)))

    @property
    def varies(self) -> str:
        """Why the same rows may get other answers each time, in a few words; "" where they do not."""
        operators = sorted(self.model.file.random)
        return f"its graph draws random numbers ({', '.join(operators)})" if operators else ""

    @property
    def kernel_calls(self) -> KernelCalls | None:
        """How kernels run it from its blocks to its outputs, without Python; None if they cannot."""
        return None

    @property
    def counted_columns(self) -> Pipeline | None:
        """The pipeline whose raw columns are counted; None where nothing is."""
        return self.pipeline

    def counted(self, blocks: Blocks, rows: int) -> tuple[Any, Sequence[bytes]]:  # noqa: ARG002 - others need the rows
        """What that pipeline is given: the numbers, float64 [rows, numbers], and the other columns."""
        return blocks[0], blocks[1:]

    def run_cell(self) -> int | None:
        """The address of the cell that shows runs on this thread, for kernels; None if nobody reads it."""
        cells, thread = self._running_since_ns, threading.get_ident()
        if not isinstance(cells, memoryview):
            return None
        cell = self._cells[thread] if thread in self._cells else self._new_cell(thread)
        return ctypes.addressof(ctypes.c_int64.from_buffer(cells, 8 * cell))

    def predict(
        self, blocks: Blocks, rows: int, shapes: Shapes | None, cells: NDArray[np.int64] | None, given: Given = ()
    ) -> Outputs:
        """Runs the rows that the blocks hold, and counts `counted_rows` of them for drift in `cells`.

        `given` holds for all of the rows. No rows are answered with none, without the graph where its requests are batched:
        many graphs fail on them.

        Raises:
            ModelFailedError: the graph raised.
        """
        if rows == 0 and self.is_batched:
            return Outputs(self._no_rows(), 0.0, 0.0)
        running_since_ns, thread = self._running_since_ns, threading.get_ident()
        cell = self._cells[thread] if thread in self._cells else self._new_cell(thread)
        running_since_ns[cell] = time.monotonic_ns()
        try:
            return self._predict(blocks, rows, shapes, cells, given)
        finally:
            running_since_ns[cell] = 0

    def count(self, blocks: Blocks, rows: int, cells: NDArray[np.int64]) -> None:
        """Counts rows for drift as `predict` does, and runs no graph."""
        if self.pipeline is not None and rows:
            unread = np.empty((rows, self.pipeline.width), self.pipeline.dtype)
            self.pipeline.run(blocks[0], blocks[1:], rows, unread, cells, is_thinned=True)

    def counted_rows(self, rows: int) -> int:
        """How many rows of a batch of so many are counted for drift."""
        return rows if self.pipeline is None else self.pipeline.counted_rows(rows)

    def _new_cell(self, thread: int) -> int:
        with self._lock:
            return self._cells.setdefault(thread, len(self._cells) % len(self._running_since_ns))

    @abstractmethod
    def _predict(
        self, blocks: Blocks, rows: int, shapes: Shapes | None, cells: NDArray[np.int64] | None, given: Given
    ) -> Outputs:
        """What `predict` gives, for rows that are to be run."""

    def report_ends(self, ended: Callable[[str], None]) -> None:  # noqa: B027 - most versions run in this process
        """Has the end of a process that runs the version reported, with how it ended; before the version serves."""

    def close(self) -> None:  # noqa: B027 - most versions hold nothing but memory
        """Frees what it holds besides the process's memory; nothing runs any more."""

    def _no_rows(self) -> list[NDArray[Any]]:
        shapes = [(0, *(0 if size == ANY else size for size in tail)) for tail in self._tails]
        return [
            np.empty(shape, NUMPY_TYPES.get(spec.datatype, np.dtype(object)))
            for spec, shape in zip(self.outputs, shapes, strict=True)
        ]


class OnnxServable(Servable):
    """A graph alone, or behind a feature pipeline.

    Attributes:
        kernels: run the graph in place of onnxruntime for batches of some sizes; set before the version serves.
    """

    model: OnnxModel

    def __init__(self, key: VersionKey, artifact: Artifact, model: OnnxModel, pipeline: Pipeline | None) -> None:
        super().__init__(key, artifact, model, pipeline)
        self.kernels: ModelKernels = none("nobody has asked for kernels")
        self._row_shapes = [spec.shape[1:] for spec in model.signature.inputs]
        self._input = model.signature.inputs[0].name

    def _predict(
        self, blocks: Blocks, rows: int, shapes: Shapes | None, cells: NDArray[np.int64] | None, given: Given
    ) -> Outputs:
        started = time.perf_counter()
        refusal = None
        # Kernels were made with the defaults.
        overridden = self.model.given_feeds(given) if given else {}
        if self.pipeline is None:
            transformed = started
            quick = None if given else self.kernels.of_block(blocks[0], rows)
            arrays = self._run(blocks, rows, shapes, overridden) if quick is None else quick
        else:
            matrix = np.empty((rows, self.pipeline.width), self.pipeline.dtype)
            refusal = self.pipeline.run(blocks[0], blocks[1:], rows, matrix, cells, is_thinned=True)
            transformed = time.perf_counter()
            quick = None if given else self.kernels.of_matrix(matrix)
            arrays = self._run_feeds({self._input: matrix, **overridden}, rows) if quick is None else quick
        if self.pipeline is not None:
            arrays = [*arrays, *self._added(matrix)]
        return Outputs(arrays, transformed - started, time.perf_counter() - transformed, refusal)

    @property
    def engine(self) -> str:
        choice = self.kernels.choice
        return self.model.placement.told(choice.reason, is_shared=choice.is_any and not all(choice.by_size))

    @property
    def is_on_device(self) -> bool:
        return bool(self.model.placement.devices) and not all(self.kernels.choice.by_size)

    def close(self) -> None:
        """Frees the session at once: what refers to it may be collected late, and its successor needs the device's memory."""
        self.model.close()

    @property
    def kernel_calls(self) -> KernelCalls | None:
        model = self.kernels.model
        if model is None or type(self) is not OnnxServable:
            return None
        features = None if self.pipeline is None else self.pipeline.kernel_call()
        return KernelCalls(features, model.kernel_call(), self.kernels.choice)

    def _run(
        self, blocks: Blocks, rows: int, shapes: Shapes | None, overridden: dict[str, NDArray[Any]]
    ) -> list[NDArray[Any]]:
        feeds = self.model.feeds(blocks, shapes or [(rows, *shape) for shape in self._row_shapes])
        return self._run_feeds(feeds | overridden, rows)

    def _run_feeds(self, feeds: dict[str, NDArray[Any]], rows: int) -> list[NDArray[Any]]:
        try:
            return self.model.run(feeds)
        except ModelFailedError:
            if rows or not self._can_be_empty:
                raise
            return self._no_rows()

    def _added(self, _matrix: NDArray[Any]) -> list[NDArray[Any]]:
        """Outputs beside the graph's, from what the graph was given."""
        return []


def _labelled(outputs: Sequence[TensorInfo], manifest: Manifest | None) -> tuple[TensorInfo, ...]:
    """The outputs; those with a number for each of the classes that the publisher named have the names as labels."""
    labels = () if manifest is None or manifest.classes is None else tuple(map(str, manifest.classes))
    return tuple(
        replace(spec, labels=labels)
        if labels and spec.datatype in NUMPY_TYPES and spec.shape[1:] == (len(labels),)
        else spec
        for spec in outputs
    )
