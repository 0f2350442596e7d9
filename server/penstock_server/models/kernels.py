"""Has a version's graph run as kernels where they are proven equal to onnxruntime, and faster.

All that is left to onnxruntime has a reason, which operators can read in the index and the log.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from time import perf_counter
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.compiled_models import choice, graph, kept, layout, proof
from penstock_server.compiled_models.choice import Choice
from penstock_server.compiled_models.compiled_model import CompiledModel
from penstock_server.compiled_models.graph import NotCompiledError
from penstock_server.compiled_models.kernel_set import KERNELS
from penstock_server.compiled_models.program import Given, ModelProgram, Vectors, compile_graph
from penstock_server.errors import PenstockError
from penstock_server.kernels import compiled
from penstock_server.kernels.processor import this_processor
from penstock_server.models import onnx_file
from penstock_server.models.onnx_model import OnnxModel
from penstock_server.models.signature import ANY

_KINDS: Final = {"FP32": layout.SINGLE, "FP64": layout.DOUBLE}
_TIMED_S: Final = 0.02
"""How long each side of a comparison is timed at least, unless one call takes longer."""
_REPEATS: Final = 3
_exposed: Any = ctypes.c_char.from_buffer


@dataclass(frozen=True, slots=True)
class ModelKernels:
    """The kernels of a version's graph, and which batches they serve.

    Attributes:
        choice: which they serve, and why.
        model: runs them; None where they serve none.
    """

    choice: Choice
    model: CompiledModel | None = None

    def of_block(self, block: bytes, rows: int) -> list[NDArray[Any]] | None:
        """The outputs for the raw contents of a matrix; None if onnxruntime serves such a batch."""
        model = self.model
        # A block of another size is not for memory that is read without asking.
        if (
            model is None
            or not self.choice.serves(rows)
            or type(block) is not bytes
            or len(block) != rows * model.row_bytes
        ):
            return None
        return model.run(block, rows)

    def of_matrix(self, matrix: NDArray[Any]) -> list[NDArray[Any]] | None:
        """The outputs for a matrix that a pipeline has made; None if onnxruntime serves such a batch."""
        rows = len(matrix)
        if self.model is None or not rows or not self.choice.serves(rows):
            return None
        return self.model.run(ctypes.addressof(_exposed(matrix)), rows)


def none(why: str) -> ModelKernels:
    """No kernels."""
    return ModelKernels(choice.none(why))


def kernels_of(
    model: OnnxModel, path: Path, golden: NDArray[Any] | None, *, threads: int, proven: Choice | None = None
) -> ModelKernels:
    """The kernels of a graph, proven and timed.

    Args:
        model: onnxruntime's session of it, on a device or not. Kernels are compared with one on the CPU: a device adds up in
            an order of its own. They are timed against this one.
        path: its file.
        golden: rows of golden requests, as the graph gets them; None where there are none.
        threads: onnxruntime's; with several it adds up trees in an order of its own.
        proven: what another process of this machine has found of the same files, which is taken on trust if its kernels
            are the same.
    """
    try:
        return _kernels(model, path, golden, threads, proven)
    except (NotCompiledError, PenstockError) as error:
        return none(str(error))
    except Exception as error:  # noqa: BLE001 - onnxruntime serves whatever is wrong here
        return none(f"its graph could not be compiled: {type(error).__name__}")


def _kernels(
    model: OnnxModel, path: Path, golden: NDArray[Any] | None, threads: int, proven: Choice | None
) -> ModelKernels:
    if threads != 1:
        return none(f"it runs in {threads} threads")
    given, vectors = _given(model, path), Vectors.of(this_processor().flags)
    library, content = compiled.available(KERNELS), path.read_bytes()
    key = kept.key_of(content, given, vectors)
    # What was found beside a device says nothing of a session that had to go back to the CPU.
    proven_with = "" if library is None else f"{library.key} {' '.join(model.placement.devices)}".rstrip()
    if library is not None and proven is not None and proven.proven_with == proven_with:
        if not proven.is_any:
            return ModelKernels(proven)
        if (program := kept.find(key)) is not None:
            return ModelKernels(proven, CompiledModel(program))
    else:
        proven = None
    program = compile_graph(graph.read(onnx_file.without_maps(path, model.file) or content), given, vectors)
    if library is None:
        return none("the kernels of models are not compiled yet")
    made = CompiledModel(program)
    if proven is None:
        reference = OnnxModel(path, config=model.config) if model.placement.devices else model
        proven = replace(_chosen(program, made, model, reference, golden), proven_with=proven_with)
    if not proven.is_any:
        return ModelKernels(proven)
    kept.keep(key, program)
    return ModelKernels(proven, made)


def _chosen(
    program: ModelProgram, made: CompiledModel, model: OnnxModel, reference: OnnxModel, golden: NDArray[Any] | None
) -> Choice:
    """Which batches kernels serve: by proof, which compares them with `reference`, and by the clock, with `model`."""
    name = program.given.name

    def ours(matrix: NDArray[Any]) -> Sequence[NDArray[Any]]:
        return made.run(matrix.tobytes(), len(matrix))

    def theirs(matrix: NDArray[Any]) -> Sequence[NDArray[Any]]:
        return reference.run({name: matrix})

    if why := proof.difference(program, ours, theirs, golden):
        return choice.none(why)
    random = np.random.default_rng(1)
    dtype = (np.float32, np.float64)[program.given.kind]
    rows = (random.standard_normal((size, program.given.columns)).astype(dtype) for size in choice.SIZES)
    return choice.fastest(program.about, *zip(*(_times_s(made, model, each) for each in rows), strict=True))


def _given(model: OnnxModel, path: Path) -> Given:
    """The matrix that a graph takes."""
    signature, declared = model.signature, model.declared
    if declared.reshaped or not declared.is_whole:
        raise NotCompiledError("config.pbtxt declares other tensors than the graph has")
    if len(signature.inputs) != 1 or not signature.is_batched:
        raise NotCompiledError("it takes more than a matrix, or its rows are not batched")
    spec = signature.inputs[0]
    if spec.datatype not in _KINDS or len(spec.shape) != 2 or spec.shape[1] == ANY:
        raise NotCompiledError("it does not take a matrix of floating-point numbers")
    if path.stat().st_size > graph.MAX_BYTES:
        raise NotCompiledError(f"its file has more than {graph.MAX_BYTES:,} bytes")
    return Given(spec.name, spec.shape[1], _KINDS[spec.datatype])


def _times_s(made: CompiledModel, model: OnnxModel, matrix: NDArray[Any]) -> tuple[float, float]:
    """What both take for a matrix: the least of several times, in turns."""
    rows, block, shapes = len(matrix), matrix.tobytes(), [matrix.shape]
    best = [inf, inf]
    calls: list[Any] = [lambda: made.run(block, rows), lambda: model.run(model.feeds([block], shapes))]
    for _ in range(_REPEATS):
        for at, call in enumerate(calls):
            started = now = perf_counter()
            while now - started < _TIMED_S / _REPEATS:
                call()
                ended = perf_counter()
                best[at] = min(best[at], ended - now)
                now = ended
    return best[0], best[1]
