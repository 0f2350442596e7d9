"""Prepares and registers a pipeline that servers run in Python, proven and measured in a process as theirs.

It is what `publish.pipeline` does with a pipeline that cannot be compiled, where that is allowed.
"""

import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.batching.limits import Batching
from penstock_server.drift import fit
from penstock_server.drift.baseline import Baseline
from penstock_server.errors import InvalidInputError, ModelFailedError, PenstockError, UnsupportedError
from penstock_server.features.spec.spec import FeatureSpec
from penstock_server.models import artifact
from penstock_server.models import golden as golden_file
from penstock_server.models.classes import ClassOutputs
from penstock_server.models.loader import load
from penstock_server.models.manifest import ClassLabel
from penstock_server.models.servable import BatchingVerdict, Servable
from penstock_server.models.signature import ANY, TensorInfo
from penstock_server.python.answers import answers
from penstock_server.python.description import PICKLE, Description
from penstock_server.python.requirements import PYTHON
from penstock_server.python.settings import PythonSettings
from penstock_tools.progress import Report
from penstock_tools.publish import golden, onnx, watched
from penstock_tools.publish.answers import Answers, Held
from penstock_tools.publish.holdout import HoldOut
from penstock_tools.publish.python import described
from penstock_tools.publish.python.kept import Kept, kept
from penstock_tools.publish.time_order import TimeOrder, in_order
from penstock_tools.sklearn_compiler.sample import Sample, pipeline_sample

MAX_ROWS: Final = 2000
"""Rows of the sample that are asked again in the process."""
BATCH_ROWS: Final = 64
_TOLERANCE: Final = 1e-7
"""How far an answer of the process may be off: there numeric libraries have one thread, and add in another order."""
_REPEATS: Final = 7
_SETTINGS: Final = PythonSettings(allow=True, memory_mib=8192)


@dataclass(frozen=True, slots=True)
class PreparedPython:
    """A pipeline that is kept whole, proven and not registered.

    Attributes:
        pipeline: fitted.
        sample: rows as it takes them.
        kept: its file.
        description: what servers need to know of it.
        features: counts its columns.
        class_output, classes: of a classifier.
        row_s, batch_s: the time that a process takes for one row and for `BATCH_ROWS`.
        batching: whether servers will batch requests.
    """

    pipeline: Any
    sample: Sample
    kept: Kept
    description: Description
    features: FeatureSpec
    class_output: str | None
    classes: tuple[ClassLabel, ...] | None
    row_s: float = 0.0
    batch_s: float = 0.0
    batching: BatchingVerdict | None = None

    @property
    def reason(self) -> str:
        """Why it is not compiled."""
        return self.description.reason


Agree = Callable[[str], bool]
"""Called with a warning before a pipeline is kept as a pickle; returns whether the person agrees."""


def prepare(
    pipeline: Any, sample: Any, reason: str, *, agree: Agree, report: Report = lambda _: None
) -> PreparedPython:
    """Keeps a pipeline whole, and proves on the sample that a process of its own answers as this one does.

    Args:
        pipeline: fitted.
        sample: as `publish.pipeline.prepare` takes it.
        reason: why it is not compiled.
        agree: called with a warning before it is kept as a pickle.
        report: called with each step's name as it begins.

    Raises:
        UnsupportedError: it cannot be kept, or its answers are no tensors.
        InvalidInputError: the sample is not the pipeline's, or a pickle was not agreed to.
        ModelFailedError: its process answers differently, or not.
    """
    report("keeping the whole pipeline, since it cannot be compiled")
    rows = pipeline_sample(pipeline, sample)
    compared = rows.some(MAX_ROWS)
    columns = described.columns_of(rows)
    outputs = described.outputs_of(pipeline, compared)
    file = kept(pipeline)
    if file.file == PICKLE and not agree(_warning(file)):
        raise InvalidInputError(f"the pipeline was not published: {file.why_pickle}; --trust agrees to a pickle")
    description = Description(
        file.file, described.container_of(rows), columns, outputs, reason, file.requirements, file.trusted
    )
    class_output, classes = described.classes_of(pipeline, outputs)
    features = described.counting(columns, described.ignored_in(sample, columns))
    prepared = PreparedPython(pipeline, rows, file, description, features, class_output, classes)
    report("comparing its answers in a process of its own")
    try:
        return _tried(prepared, compared)
    except ModelFailedError as error:
        raise ModelFailedError(f"kept whole, the pipeline does not answer as it does here: {error}") from error
    except InvalidInputError as error:
        raise UnsupportedError(f"kept whole, {error}") from error


def _tried(prepared: PreparedPython, compared: Sample) -> PreparedPython:
    """What is known once a server's own code has loaded it, in a process as a server's."""
    with tempfile.TemporaryDirectory(prefix="penstock-") as folder:
        _write(prepared, Path(folder))
        servable, _ = load(("pipeline", ""), Path(folder), threads=1, max_rows=1, python=_SETTINGS)
        try:
            _check(prepared, compared, servable)
            row_s, batch_s = (_took_s(prepared, compared.some(count), count, servable) for count in (1, BATCH_ROWS))
        finally:
            servable.close()
    return replace(prepared, row_s=row_s, batch_s=batch_s, batching=servable.batching)


def _write(
    prepared: PreparedPython, folder: Path, baseline: Baseline | None = None, batching: Batching | None = None
) -> None:
    (folder / prepared.kept.file).write_bytes(prepared.kept.content)
    artifact.write(
        folder,
        python=prepared.description,
        features=prepared.features,
        baseline=baseline,
        golden=_golden(prepared),
        class_output=prepared.class_output,
        classes=prepared.classes,
        batching=batching,
    )


def register(
    name: str,
    prepared: PreparedPython,
    scores: Mapping[str, float],
    *,
    registry: str | None = None,
    alias: str | None = None,
    weight: float | None = None,
    batching: Batching | None = None,
    order: TimeOrder | None = None,
    holdout: HoldOut | None = None,
    record: onnx.Record | None = None,
    report: Report = lambda _: None,
    decided: Callable[[str], None] = lambda _: None,
) -> str:
    """Registers what `prepare` made, and returns the version; the arguments are those of `publish.pipeline.register`."""
    onnx.check_request(name, alias, weight)
    record = record or onnx.Record()
    report(f"fitting the drift baseline on {prepared.sample.rows:,} rows, and registering {name}")
    with tempfile.TemporaryDirectory(prefix="penstock-") as scratch:
        folder = Path(scratch) / onnx.ARTIFACTS
        folder.mkdir()
        _save_mlflow(prepared, folder)
        baseline = _baseline(prepared, order, holdout)
        _write(prepared, folder, baseline, batching)
        for sentence in watched.sentences(baseline):
            decided(sentence)
        decided(_decision(prepared.batching, batching))
        params = {
            "estimator": type(prepared.pipeline).__name__,
            "runs_in": "python",
            "sample_rows": prepared.sample.rows,
        }
        metrics = {**scores, "python_ms": prepared.row_s * 1e3, **record.metrics}
        return onnx.register(
            name,
            folder,
            registry=registry,
            alias=alias,
            weight=weight,
            record=replace(record, params={**params, **record.params}, metrics=metrics),
        )


def _decision(found: BatchingVerdict | None, asked: Batching | None) -> str:
    """How servers will batch requests, in a sentence as `models.independence` says it."""
    reason = "" if found is None else found.reason
    if asked == "request":
        return "each request runs alone, as its publisher says"
    if asked == "rows" and found is not None and found.batching == "request":
        return f"requests are batched by rows, as its publisher says, but {reason.partition(': ')[2]}"
    return reason


def _warning(file: Kept) -> str:
    return (
        f"The pipeline is kept as a pickle: {file.why_pickle}. A server that serves it runs whatever code the version holds, "
        "in a sandboxed process. Publish it so?"
    )


def _asked(pipeline: Any, description: Description, sample: Sample) -> list[NDArray[Any]]:
    return answers(pipeline, description.outputs, sample.given, sample.rows)


def _check(prepared: PreparedPython, sample: Sample, servable: Servable) -> None:
    description = prepared.description
    expected = _asked(prepared.pipeline, description, sample)
    blocks = described.blocks_of(description.columns, sample.on_the_wire(), sample.rows)
    got = servable.predict(blocks, sample.rows, None, None).arrays
    for output, mine, theirs in zip(description.outputs, expected, got, strict=True):
        differs = ~_agree(mine, theirs)
        if differs.any():
            at = tuple(int(each) for each in np.argwhere(differs)[0])
            raise ModelFailedError(
                f"{output.name!r} of row {sample.places[at[0]]} is {theirs[at]} instead of {mine[at]}"
            )


def _agree(mine: NDArray[Any], theirs: NDArray[Any]) -> NDArray[np.bool_]:
    if mine.dtype.kind != "f":
        return np.asarray(mine == theirs, np.bool_)
    finite = np.abs(mine[np.isfinite(mine)])
    largest = float(finite.max()) if finite.size else 1.0
    return np.asarray(np.isclose(mine, theirs, rtol=_TOLERANCE, atol=_TOLERANCE * largest, equal_nan=True), np.bool_)


def _took_s(prepared: PreparedPython, sample: Sample, count: int, servable: Servable) -> float:
    """The usual time for so many rows; of a smaller sample some twice."""
    table = {name: np.resize(values, count) for name, values in sample.on_the_wire().items()}
    blocks = described.blocks_of(prepared.description.columns, table, count)
    times = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        servable.predict(blocks, count, None, None)
        times.append(time.perf_counter() - started)
    return float(np.median(times))


def _specs(description: Description) -> tuple[TensorInfo, ...]:
    return tuple(
        TensorInfo(output.name, output.datatype, (ANY,) if output.width is None else (ANY, output.width))
        for output in description.outputs
    )


def _baseline(prepared: PreparedPython, order: TimeOrder | None, holdout: HoldOut | None) -> Baseline:
    sample, time = in_order(prepared.sample, order), None if order is None else order.column
    table = sample.on_the_wire()
    baseline = fit.fit_baseline(prepared.features, table, time=time)
    outputs = _asked(prepared.pipeline, prepared.description, sample)
    read = Answers(_specs(prepared.description), ClassOutputs(), prepared.class_output, prepared.classes)
    held = None
    if holdout is not None:
        rows, labels = holdout.of(prepared.pipeline)
        held = Held(_asked(prepared.pipeline, prepared.description, rows), labels)
    return golden.with_joint(read.added_to(baseline, outputs, held), prepared.features, table, read, outputs)


def _golden(prepared: PreparedPython) -> golden_file.Golden | None:
    """The golden requests; none where an answer is infinite, which their file cannot hold."""
    rows = prepared.sample.finite().some(golden.GOLDEN_ROWS)
    table = rows.on_the_wire()
    inputs = {column.name: np.asarray(table[column.name]) for column in prepared.description.columns}
    outputs = _asked(prepared.pipeline, prepared.description, rows)
    names = [output.name for output in prepared.description.outputs]
    try:
        return golden_file.make(inputs, dict(zip(names, outputs, strict=True)))
    except PenstockError:
        return None


def _save_mlflow(prepared: PreparedPython, folder: Path) -> None:
    """Writes the pipeline's file with MLflow's description, by which other tools know what it is."""
    import mlflow
    import sklearn
    from mlflow.models import Model, ModelSignature
    from mlflow.types import Schema

    specs = _specs(prepared.description)
    inputs = [TensorInfo(column.name, _DATATYPES[column.kind], (ANY, 1)) for column in prepared.description.columns]
    signature = ModelSignature(
        inputs=Schema([onnx.schema_spec(spec) for spec in inputs]),
        outputs=Schema([onnx.schema_spec(spec) for spec in specs]),
    )
    model = Model(signature=signature, mlflow_version=mlflow.__version__)
    model.add_flavor("penstock", file=prepared.kept.file, reason=prepared.reason[:500])
    model.add_flavor(
        "sklearn",
        pickled_model=prepared.kept.file,
        sklearn_version=sklearn.__version__,
        serialization_format="cloudpickle" if prepared.kept.file == PICKLE else "skops",
        code=None,
    )
    model.save(str(folder / artifact.MLMODEL))
    lines = [f"{name}=={release}" for name, release in prepared.kept.requirements.items() if name != PYTHON]
    (folder / "requirements.txt").write_text("\n".join(lines) + "\n")


_DATATYPES: Final = {"number": "FP64", "time": "INT64", "text": "BYTES"}
