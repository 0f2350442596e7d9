"""Publishes an ONNX model: it becomes a registered version that the server can load, with all that belongs to it.

The order is fixed. Everything that can be checked is checked before anything is written; the files are made in a temporary
folder, logged as the artifacts of a run, and registered last; then the version gets its role. The server's
`models.artifact` decides what the files hold, `promote` what a role means.
"""

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from penstock.tensors import NUMPY_TYPES
from penstock_server.batching.limits import Batching
from penstock_server.drift.baseline import Baseline
from penstock_server.drift.importance import Importance
from penstock_server.errors import InvalidInputError
from penstock_server.explain.explanation import AnyExplanation
from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec.spec import FeatureSpec
from penstock_server.models import artifact, onnx_model
from penstock_server.models.counting_servable import counts_apart
from penstock_server.models.golden import Golden
from penstock_server.models.loader import check_fit, load
from penstock_server.models.manifest import ClassLabel, GraphOptimization
from penstock_server.models.signature import TensorInfo
from penstock_server.python.settings import PythonSettings
from penstock_tools.publish import onnx_graph, promote, watched
from penstock_tools.publish.golden import golden_requests
from penstock_tools.publish.registry import experiment_id, opened

ARTIFACTS: Final = "model"
"""The version's folder among the run's artifacts."""
LINK_TAG: Final = "penstock.link"
"""The tag of a version that leads to the run that trained it."""


@dataclass(frozen=True, slots=True)
class Record:
    """What the run records about how the model was made.

    Attributes:
        title: the run's name.
        params: settings by name.
        metrics: scores by name.
        figures: `matplotlib` figures by file name, such as `evaluation.png`.
        link: the page of the run that trained the model, wherever it was tracked; the version keeps it as its tag `LINK_TAG`.
    """

    title: str | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    figures: Mapping[str, Any] = field(default_factory=dict)
    link: str | None = None


def publish(
    name: str,
    model: Any,
    *,
    registry: str | None = None,
    alias: str | None = None,
    weight: float | None = None,
    features: FeatureSpec | Pipeline | None = None,
    baseline: Baseline | None = None,
    golden: Golden | None = None,
    explanation: AnyExplanation | None = None,
    importance: Importance | None = None,
    sample: Mapping[str, ArrayLike] | None = None,
    classes: Sequence[ClassLabel] | None = None,
    class_output: str | None = None,
    batching: Batching | None = None,
    threads: int | None = None,
    graph_optimization: GraphOptimization | None = None,
    record: Record | None = None,
    decided: Callable[[str], None] = lambda _: None,
) -> str:
    """Registers a model's next version, once it loads as a server loads it.

    Args:
        name: the registered model, which is created if there is none.
        model: a path to an ONNX file, an `onnx.ModelProto`, or the `Graph` that `onnx_graph.read` opened.
        registry: the registry's address; None for `MLFLOW_TRACKING_URI`, else a local file.
        alias: the role to give it, as for `promote`: "champion", "canary" or "shadow"; None for none.
        weight: a canary's share of the traffic in percent.
        features: the fitted feature specification, or the pipeline compiled from it, whose width the model's one input has;
            or one whose columns are the model's inputs, which only counts them.
        baseline: the reference that drift is measured against; needs `features`.
        golden: requests with the answers that a server must give before it serves the version.
        explanation: what attributions are computed from, or why there are none; needs `features`.
        importance: how much each raw column matters; needs `features`.
        sample: a few rows by raw column, or by input where no features make the model's matrix. If `golden` is None, these
            rows with the model's answers become the golden requests.
        classes: the labels in the order of the scores; None to read them from the graph.
        class_output: the output with the predicted label; None to read it from the graph.
        batching: "rows" if servers may batch requests together, "request" if each must run alone; None leaves it to the
            server's probe.
        threads: onnxruntime's threads within one operator; None leaves them to the settings.
        graph_optimization: how much onnxruntime rewrites the graph, "none", "basic", "extended" or "all"; None for all.
        record: what the run records.
        decided: called with each sentence on how servers will watch drift, and with that on how they will batch requests;
            where `batching` is "rows", and rows are found to depend on each other, it says so.

    Returns:
        The version's name, such as "3".

    Raises:
        InvalidInputError: the model, its parts or the role do not fit; nothing was registered.
        UnavailableError: the registry does not answer.
    """
    check_request(name, alias, weight)
    if baseline is not None and features is None:
        raise InvalidInputError("a drift baseline counts raw columns; give the feature specification too")
    graph = onnx_graph.read(model)
    pipeline = Pipeline(features) if isinstance(features, FeatureSpec) else features
    is_fed = pipeline is not None and not counts_apart(graph.signature, pipeline.spec)
    if pipeline is not None and is_fed:
        check_fit(graph.runtime, pipeline)
    _check_class_output(graph, class_output)
    if golden is None and sample is not None:
        golden = golden_requests(graph, sample, pipeline if is_fed else None)
    with tempfile.TemporaryDirectory(prefix="penstock-") as scratch:
        folder = Path(scratch) / ARTIFACTS
        _save_mlflow(graph, folder)
        artifact.write(
            folder,
            features=None if pipeline is None else pipeline.spec,
            baseline=baseline,
            golden=golden,
            explanation=explanation,
            importance=importance,
            class_output=class_output or graph.class_output,
            classes=classes or graph.classes,
            batching=batching,
            threads=threads,
            graph_optimization=graph_optimization,
        )
        batched = _loaded(name, folder)
        for sentence in (*(() if baseline is None else watched.sentences(baseline)), batched):
            decided(sentence)
        return register(name, folder, registry=registry, alias=alias, weight=weight, record=record or Record())


def register(
    name: str,
    folder: Path,
    *,
    registry: str | None,
    alias: str | None,
    weight: float | None,
    record: Record,
) -> str:
    """Registers a version's folder, as `models.artifact` describes it, that loads as a server loads it.

    The other arguments are those of `publish`, whose errors it raises.
    """
    version = _register(name, folder, registry, record)
    if alias is not None:
        promote.promote(name, version, alias, weight, registry)
    return version


def _loaded(name: str, folder: Path) -> str:
    """Loads the version as a server does; says how servers will batch its requests.

    Raises:
        InvalidInputError: a server would refuse it.
    """
    servable, _ = load((name, ""), folder, threads=None, max_rows=1, python=PythonSettings(allow=True))
    servable.close()
    return "" if servable.batching is None else servable.batching.reason


def check_request(name: str, alias: str | None, weight: float | None) -> None:
    """Checks that a version may be registered under this name and given this role.

    Raises:
        InvalidInputError: the name is no name, there is no such role, or the weight does not go with it.
    """
    if not name or not name.isprintable() or "/" in name or ":" in name:
        raise InvalidInputError(f"the model's name is {name!r}; expected printable characters without '/' and ':'")
    if alias is not None:
        promote.check_role(alias, weight)
    elif weight is not None:
        raise InvalidInputError("a weight without a role says nothing; give the alias canary too")


def _check_class_output(graph: onnx_graph.Graph, class_output: str | None) -> None:
    names = [spec.name for spec in graph.signature.outputs]
    if class_output is not None and class_output not in names:
        raise InvalidInputError(f"the model has no output {class_output!r}; it has {', '.join(names)}")


def _register(name: str, folder: Path, registry: str | None, record: Record) -> str:
    with opened(registry) as client:
        with _run(client, record.title or name) as run:
            _log(client, run.info.run_id, record)
            client.log_artifacts(run.info.run_id, str(folder), ARTIFACTS)
        _ensure_model(client, name)
        source = f"{run.info.artifact_uri}/{ARTIFACTS}"
        tags = {LINK_TAG: record.link} if record.link else None
        return str(client.create_model_version(name, source, run.info.run_id, tags=tags).version)


@contextmanager
def _run(client: Any, title: str) -> Iterator[Any]:
    run = client.create_run(experiment_id(client), run_name=title)
    try:
        yield run
    except BaseException:
        client.set_terminated(run.info.run_id, "FAILED")
        raise
    client.set_terminated(run.info.run_id)


def _log(client: Any, run_id: str, record: Record) -> None:
    for key, value in record.params.items():
        client.log_param(run_id, key, value)
    for key, number in record.metrics.items():
        client.log_metric(run_id, key, float(number))
    for file_name, figure in record.figures.items():
        client.log_figure(run_id, figure, file_name)


def _ensure_model(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


_INLINE_BYTES: Final = 2**30
"""Weights of larger models go into external data: a model near protobuf's limit of 2 GiB may not grow by a byte."""


def _save_mlflow(graph: onnx_graph.Graph, folder: Path) -> None:
    """Writes the model as MLflow's ONNX flavour does, so that any MLflow tool reads what Penstock publishes.

    Args:
        graph: the model.
        folder: not there yet.
    """
    import mlflow.onnx
    from mlflow.models import ModelSignature
    from mlflow.types import Schema

    inputs, outputs = (
        Schema([schema_spec(spec) for spec in specs]) for specs in (graph.signature.inputs, graph.signature.outputs)
    )
    mlflow.onnx.save_model(
        graph.model,
        str(folder),
        signature=ModelSignature(inputs=inputs, outputs=outputs),
        # Given, because MLflow would find them by loading the model in a process of its own, which takes seconds.
        pip_requirements=_requirements(),
        save_as_external_data=graph.model.ByteSize() > _INLINE_BYTES,
    )


def _requirements() -> list[str]:
    """What a graph runs with; by the modules, since onnxruntime is in packages of other names for devices."""
    import onnx

    return [f"onnx=={onnx.__version__}", f"onnxruntime=={onnx_model.version()}", f"numpy=={np.__version__}"]


def schema_spec(spec: TensorInfo) -> Any:
    """A tensor as MLflow's signatures describe it."""
    from mlflow.types import TensorSpec as MlflowTensorSpec

    dtype = np.dtype(str) if spec.datatype == "BYTES" else NUMPY_TYPES[spec.datatype]
    return MlflowTensorSpec(dtype, spec.shape, spec.name)
