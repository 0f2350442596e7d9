"""Loads a version, warms it up and checks its golden requests before it serves any request.

The order is fixed: digests, session and pipeline, whether the two fit each other, kernels in place of the session, warm-up,
golden requests, whether its rows are independent, and what its attributions cost. A failure ends the load with one sentence,
and the version that served before continues to serve.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock.names import VersionKey
from penstock.tensors import NUMPY_TYPES, join_bytes
from penstock_server.batching.cost import Cost
from penstock_server.batching.limits import Batching
from penstock_server.compiled_models.choice import Choice
from penstock_server.errors import InvalidInputError, ModelFailedError, is_out_of_memory
from penstock_server.explain.attributor import attributor_of
from penstock_server.explain.explanation import Unexplained
from penstock_server.features.pipeline import Pipeline
from penstock_server.models import golden as golden_requests
from penstock_server.models import independence, kernels, sized_batches, triton_config, warm_up_samples, watched_answers
from penstock_server.models.artifact import FEATURES, Artifact, read, read_explanation
from penstock_server.models.classes import known_strings
from penstock_server.models.counting_servable import CountingServable, counts_apart
from penstock_server.models.execution import CPU, ExecutionSettings
from penstock_server.models.explaining import ExplainingServable
from penstock_server.models.golden import Golden
from penstock_server.models.onnx_model import OnnxModel
from penstock_server.models.python_servable import python_servable
from penstock_server.models.rows import Row, blocks_of, cut, joined
from penstock_server.models.servable import OnnxServable, Servable, Shapes
from penstock_server.models.signature import ANY
from penstock_server.python.settings import PythonSettings

_REPEATS: Final = 3
_WARM_S: Final = 0.25


def load(
    key: VersionKey,
    folder: Path,
    *,
    threads: int | None,
    max_rows: int,
    batching: Batching | None = None,
    python: PythonSettings = PythonSettings(),  # noqa: B008 - frozen
    compiled_models: bool = True,
    execution: ExecutionSettings = ExecutionSettings(),  # noqa: B008 - frozen
    proven: Choice | None = None,
) -> tuple[Servable, Cost]:
    """The version in `folder`, warmed up and checked, and what its batches cost.

    Args:
        key: the model's name and the version's.
        folder: as `models.artifact` describes it.
        threads: onnxruntime's threads within one operator; None takes what the version says.
        max_rows: the largest batch; it is warmed up too unless that would take long.
        batching: whether requests share batches, where that is decided already; None lets `independence` decide.
        python: whether and how a pipeline is run that is no graph.
        compiled_models: whether kernels may run a graph in place of onnxruntime, which they must equal.
        execution: what runs the graphs that onnxruntime runs. Kernels run on the CPU: they are considered only if it may.
        proven: what is known of that already, as `models.kernels.kernels_of` takes it.

    Raises:
        InvalidInputError: the files are damaged, do not fit each other, the golden requests get other answers, or the
            version runs Python and this server does not.
    """
    artifact = read(folder)
    threads = threads or artifact.threads
    if artifact.config is not None:
        max_rows = min(max_rows, artifact.config.limits.max_rows or max_rows)
    servable = (
        _onnx_servable(key, artifact, threads, execution)
        if artifact.python is None
        else python_servable(key, artifact, python)
    )
    try:
        if artifact.baseline is not None:
            watched_answers.check(artifact.baseline, servable.outputs)
        if isinstance(servable, OnnxServable):
            refusal = _refusal_of_kernels(execution, are_wanted=compiled_models)
            _take_kernels(servable, threads, proven, refusal)
        cost = _warm_up(servable, max_rows, _warming(servable))
        if artifact.config is not None:
            warm_up_samples.warm_up(servable, artifact.config)
            _check_tails(servable)
        golden_rows = () if artifact.golden is None else _check_golden(servable, artifact.golden)
        servable.decide(independence.decide(servable, batching, golden_rows, known_strings(servable.model.file)))
        if isinstance(servable, OnnxServable):
            if _take_sizes(servable, max_rows):
                cost = _warm_up(servable, max_rows, _warming(servable))
            _explain(servable, max_rows)
        else:
            servable.unexplained = "it runs as Python, and only compiled models are explained"
    except BaseException:
        servable.close()
        raise
    return servable, cost


def _check_tails(servable: Servable) -> None:
    """Checks that the outputs have the dims that a configuration declares, where the graph does not tell its own."""
    for spec, tail in zip(servable.outputs, servable.tails, strict=True):
        told = spec.shape[1:]
        fits = len(told) == len(tail) and all(
            ANY in pair or pair[0] == pair[1] for pair in zip(told, tail, strict=True)
        )
        if spec.shape and not fits:
            raise InvalidInputError(
                f"{triton_config.NAME} and the graph disagree: output {spec.name!r} has dims {list(told)}, "
                f"and a row of it {list(tail)}"
            )


def _onnx_servable(key: VersionKey, artifact: Artifact, threads: int, execution: ExecutionSettings) -> OnnxServable:
    config = artifact.config
    if config is not None and artifact.features is not None and (config.message.input or config.message.output):
        raise InvalidInputError(
            f"{triton_config.NAME} declares inputs or outputs of a version whose columns {FEATURES} declares; "
            "expected them in one of the two"
        )
    if config is not None and config.is_for_cpu and execution.allows_cpu:
        execution = replace(execution, providers=(CPU,))
    model = OnnxModel(
        artifact.model_path,
        threads=threads,
        settings=execution,
        config=config,
        graph_optimization=artifact.graph_optimization,
    )
    pipeline = (
        None
        if artifact.features is None
        else Pipeline(artifact.features, None if artifact.baseline is None else artifact.baseline.cells)
    )
    if pipeline is not None and counts_apart(model.signature, pipeline.spec):
        return CountingServable(key, artifact, model, pipeline)
    if pipeline is not None:
        check_fit(model, pipeline)
    return OnnxServable(key, artifact, model, pipeline)


def _refusal_of_kernels(execution: ExecutionSettings, *, are_wanted: bool) -> str:
    if not are_wanted:
        return "the settings say serving.compiled_models = false"
    return "" if execution.allows_cpu else "the settings do not list cpu in execution.providers"


def _take_kernels(servable: OnnxServable, threads: int, proven: Choice | None, refusal: str) -> None:
    """Has kernels run the version where they are proven and faster; before anything is measured of it."""
    if refusal:
        servable.kernels = kernels.none(refusal)
        return
    path = servable.artifact.model_path
    golden = _golden_matrix(servable)
    servable.kernels = kernels.kernels_of(servable.model, path, golden, threads=threads, proven=proven)


def _take_sizes(servable: OnnxServable, max_rows: int) -> bool:
    """Has a device run batches in a few sizes, where it is slow at each change of size and rows are independent."""
    if not (servable.is_on_device and servable.is_batched) or max_rows < 2:
        return False
    model = servable.model
    try:
        is_slow = sized_batches.is_slow_at_changes(lambda rows: model.run(_feeds(servable, rows)))
    except ModelFailedError:
        return False  # on blank rows, which may be outside its domain
    return is_slow and bool(model.run_in_sizes(partial(_feeds, servable), servable.most_rows or max_rows))


def _feeds(servable: OnnxServable, rows: int) -> dict[str, NDArray[Any]]:
    """Blank rows as the graph gets them."""
    if servable.pipeline is not None:
        matrix = np.zeros((rows, servable.pipeline.width), servable.pipeline.dtype)
        return {servable.model.signature.inputs[0].name: matrix}
    blocks, shapes = _blank(servable, rows)
    inputs = servable.model.signature.inputs
    return servable.model.feeds(blocks, shapes or [(rows, *(max(1, n) for n in spec.shape[1:])) for spec in inputs])


def _golden_matrix(servable: OnnxServable) -> NDArray[Any] | None:
    """The rows of golden requests as the graph gets them; None where there are none, or where they are refused."""
    golden = servable.artifact.golden
    if golden is None:
        return None
    try:
        blocks, shapes = _golden_blocks(servable, golden.input_arrays(), golden.rows)
    except InvalidInputError:
        return None  # said when they are checked
    if servable.pipeline is None:
        return next(iter(servable.model.feeds(blocks, shapes or ()).values()))
    matrix = np.empty((golden.rows, servable.pipeline.width), servable.pipeline.dtype)
    servable.pipeline.run(blocks[0], blocks[1:], golden.rows, matrix, None)
    return matrix


def _explain(servable: OnnxServable, max_rows: int) -> None:
    """Gives the version its explaining twin, warmed up, or the reason why it has none."""
    explanation = read_explanation(servable.artifact)
    if servable.pipeline is None:
        servable.unexplained = "it was published as a graph alone, without the features in front of it"
    elif isinstance(explanation, Unexplained):
        servable.unexplained = explanation.reason
    elif explanation is not None:
        twin = ExplainingServable(servable, attributor_of(explanation, servable.pipeline.columns))
        servable.explaining = twin, _warm_up(twin, max_rows, _warming(twin))


def check_fit(model: OnnxModel, pipeline: Pipeline) -> None:
    """Checks that the model takes what the pipeline gives: one matrix of its width and datatype, with any number of rows.

    Raises:
        InvalidInputError: the model takes something else.
    """
    inputs = model.signature.inputs
    expected = f"one input of shape [rows, {pipeline.width}] and type {np.dtype(pipeline.dtype).name}"
    if len(inputs) != 1:
        raise InvalidInputError(f"the features give {expected}, but the model has {len(inputs)} inputs")
    (spec,) = inputs
    fits = spec.fits((1, pipeline.width)) and spec.shape[0] == ANY
    if not fits or NUMPY_TYPES.get(spec.datatype) != pipeline.dtype:
        raise InvalidInputError(
            f"the features give {expected}, but the model's input {spec.name!r} is {spec.datatype} of shape {list(spec.shape)}"
        )


Rows = Callable[[int], tuple[Sequence[bytes], Shapes | None]]
"""Blocks of so many rows to warm up with, and their shapes."""


def _warming(servable: Servable) -> Rows:
    """Blank rows; of a pipeline, which often refuses these, its golden ones over and over."""
    golden = servable.artifact.golden
    if not servable.is_elsewhere or golden is None:
        return partial(_blank, servable)
    blocks, shapes = _golden_blocks(servable, golden.input_arrays(), golden.rows)
    single = cut(servable, blocks, golden.rows, shapes)
    return lambda rows: (joined([single[at % len(single)] for at in range(rows)]), None)


def _warm_up(servable: Servable, max_rows: int, rows_of: Rows) -> Cost:
    """Runs one row, and a large batch, until both are warm, and fits a line through their times.

    The batch is smaller if, judged by one row, it would take longer than `_WARM_S`: otherwise a model of 20 ms per row
    would take long to load and need memory for hundreds of rows.
    """
    first_s = _best_s(servable, rows_of, 1)
    if first_s is None:
        return Cost(0.0, 0.0)
    rows = min(max_rows, max(2, int(_WARM_S / max(first_s, 1e-9))))
    if not servable.is_batched or max_rows < 2:
        return Cost(first_s, 0.0)
    if servable.is_on_device:
        return _warm_up_device(servable, rows_of, first_s, rows, max_rows)
    last_s = _best_s(servable, rows_of, rows)
    return Cost(first_s, 0.0) if last_s is None else _line(first_s, last_s, rows)


def _line(first_s: float, last_s: float, rows: int) -> Cost:
    row_s = max(0.0, (last_s - first_s) / (rows - 1))
    return Cost(max(0.0, first_s - row_s), row_s)


def _warm_up_device(servable: Servable, rows_of: Rows, first_s: float, rows: int, max_rows: int) -> Cost:
    """The same on a device, where a row in a large batch may cost a hundredth of a row alone, and memory is short.

    By the time of one row the batch would be far from the largest, so it grows by what it took. While the device has no
    memory for it, it is halved, and then none that serves is larger than the largest that ran.
    """
    cost, ran = Cost(first_s, 0.0), 1
    while True:
        try:
            last_s = _best_s(servable, rows_of, rows)
        except InvalidInputError:
            max_rows = rows // 2
            if max_rows <= ran:
                if ran == 1:
                    raise
                servable.most_rows = ran
                return cost
            servable.most_rows = rows = max_rows
            continue
        if last_s is None:
            return cost
        cost, ran = _line(first_s, last_s, rows), rows
        rows = cost.rows_within(_WARM_S, max_rows)
        # A batch a little larger tells nothing new, unless it is the largest.
        if rows <= ran or (rows < 2 * ran and rows < max_rows):
            return cost


def _best_s(servable: Servable, rows_of: Rows, rows: int) -> float | None:
    """The shortest time that this many rows take; None when the model fails on them.

    A model may fail on blank rows, which can be outside its domain. Golden requests show whether it is right.
    """
    blocks, shapes = rows_of(rows)
    best_s = inf
    for _ in range(_REPEATS):
        started = time.perf_counter()
        try:
            outputs = servable.predict(blocks, rows, shapes, None)
        except ModelFailedError as error:
            if is_out_of_memory(error):
                raise InvalidInputError("the model needs more memory for its warm-up than there is") from error
            return None
        servable.learn_shapes(outputs)
        best_s = min(best_s, time.perf_counter() - started)
    return best_s


def _blank(servable: Servable, rows: int) -> tuple[list[bytes], Shapes | None]:
    """Blocks of zeros and empty strings."""
    if servable.pipeline is not None:
        pipeline = servable.pipeline
        times = (bytes(8 * rows) for _ in pipeline.times)
        strings = (join_bytes([""] * rows) for _ in pipeline.strings)
        return [bytes(8 * rows * len(pipeline.numbers)), *times, *strings], None
    shapes = []
    for spec in servable.model.signature.inputs:
        free = [1 if size == ANY else size for size in spec.shape]
        shapes.append((rows, *free[1:]) if servable.is_batched else tuple(free))
    blocks = []
    for spec, shape in zip(servable.model.signature.inputs, shapes, strict=True):
        elements = int(np.prod(shape))
        blocks.append(
            join_bytes([""] * elements)
            if spec.datatype == "BYTES"
            else bytes(elements * NUMPY_TYPES[spec.datatype].itemsize)
        )
    return blocks, None if servable.is_batched else shapes


def _check_golden(servable: Servable, golden: Golden) -> Sequence[Row]:
    """The golden requests' rows, once they got the same answers again; `InvalidInputError` says which did not."""
    blocks, shapes = _golden_blocks(servable, golden.input_arrays(), golden.rows)
    try:
        outputs = servable.predict(blocks, golden.rows, shapes, None)
    except ModelFailedError as error:
        raise InvalidInputError("the model fails on its golden requests") from error
    servable.learn_shapes(outputs)
    got = {spec.name: array for spec, array in zip(servable.outputs, outputs.arrays, strict=True)}
    difference = golden_requests.compare(golden, got)
    if difference is not None:
        raise InvalidInputError(f"a golden request gets another answer than when it was published: {difference}")
    return cut(servable, blocks, golden.rows, shapes) if servable.model.signature.is_batched else ()


def _golden_blocks(
    servable: Servable, arrays: dict[str, NDArray[Any]], rows: int
) -> tuple[Sequence[bytes], Shapes | None]:
    try:
        return blocks_of(servable, arrays, rows)
    except KeyError as error:
        raise InvalidInputError(f"the golden requests have no input {error}") from error
    except ValueError as error:
        raise InvalidInputError(f"the golden requests do not fit what the version takes: {error}") from error
