"""Publishing a fitted scikit-learn pipeline unchanged: compiled, proven, and registered with its drift baseline.

Decides what is made and in which order: everything is proven before the first byte is registered. `prepare` stops before
that, for a look at what would be published; `penstock_tools.publish.onnx` writes the files and talks to the registry.

    publish_pipeline("fraud", pipeline, sample, labels=answers, alias="canary", weight=5)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from numpy.typing import ArrayLike

from penstock_server.drift.fit import fit_baseline
from penstock_server.errors import InvalidInputError, ModelFailedError, UnsupportedError
from penstock_server.features.spec.spec import Datatype, FeatureSpec
from penstock_tools.publish import onnx as publish
from penstock_tools.publish import onnx_graph as graph
from penstock_tools.publish import prediction_baseline as answers_baseline
from penstock_tools.publish import to_onnx as convert
from penstock_tools.sklearn_compiler import proof, scoring
from penstock_tools.sklearn_compiler.compiler import Compiled, compile_pipeline

GOLDEN_ROWS: Final = 16

Report = Callable[[str], None]
"""Told what is being done, a line a step."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A pipeline that is proven and not registered.

    Attributes:
        compiled: its two halves.
        features: the specification, with the graph's datatype.
        model: the `onnx.ModelProto`.
        step_difference: the largest between a compiled transformer and scikit-learn's, as a share of the column's largest.
        difference: the largest between the answers, as `proof.hold_answers` measures it.
        refused: why a graph of the narrower datatype was not chosen; None where it was, or was not tried.
    """

    compiled: Compiled
    features: FeatureSpec
    model: Any
    step_difference: float
    difference: float
    refused: str | None


@dataclass(frozen=True, slots=True)
class Published:
    """What `publish_pipeline` registered.

    Attributes:
        version: such as "3".
        prepared: what it is made of.
        scores: on the sample, by name; empty without labels.
    """

    version: str
    prepared: Prepared
    scores: Mapping[str, float]


def prepare(
    pipeline: Any, sample: Any, *, datatype: Datatype | None = None, report: Report = lambda _: None
) -> Prepared:
    """Compiles a fitted pipeline, converts its model, and proves both on the sample.

    Args:
        pipeline: a fitted `Pipeline`, or an estimator alone; of a search, the best one that it found.
        sample: rows as the pipeline takes them: a frame, which may have further columns, or an array [rows, columns].
        datatype: what the graph computes in. None tries FP32, and FP64 where FP32 answers too differently.
        report: told what is being done.

    Raises:
        UnsupportedError: something in the pipeline can neither be compiled nor converted; names its place.
        ModelFailedError: what was made answers differently; names the step and the column where it is one of these.
        InvalidInputError: the sample is not the pipeline's, or a limit of specifications is passed.
    """
    report("compiling the pipeline")
    compiled = compile_pipeline(pipeline, sample)
    if compiled.estimator is None:
        raise InvalidInputError("the pipeline ends in no estimator; expected something that predicts as its last step")
    report(f"comparing {len(compiled.stages)} transformers with scikit-learn's")
    step_difference = proof.hold_transformers(compiled)
    refusal: Exception | None = None
    for each in ("FP32", "FP64") if datatype is None else (datatype,):
        report(f"converting the model to ONNX in {each} and comparing its answers")
        try:
            features, model, difference = _proven(compiled, each)
        except (ModelFailedError, UnsupportedError) as error:
            # What the narrow one says is the reason; that the wide one fails too adds nothing.
            refusal = refusal or error
            continue
        return Prepared(
            compiled, features, model, step_difference, difference, None if refusal is None else str(refusal)
        )
    raise refusal or UnsupportedError("no datatype was tried")


def publish_pipeline(
    name: str,
    pipeline: Any,
    sample: Any,
    labels: ArrayLike | None = None,
    *,
    registry: str | None = None,
    alias: str | None = None,
    weight: float | None = None,
    datatype: Datatype | None = None,
    record: publish.Record | None = None,
    report: Report = lambda _: None,
) -> Published:
    """Registers a fitted pipeline as a model's next version, with a drift baseline and golden requests from the sample.

    Args:
        name: the registered model, made when it is not there.
        pipeline: as `prepare` takes it.
        sample: rows as `prepare` takes them, in the order of time, such as the training data or a part of it.
        labels: the truth for the rows of the sample [rows]; with them the scores are logged with the run.
        registry: the registry's address; None for `MLFLOW_TRACKING_URI`, else the embedded one.
        alias: the role to give it: "champion", "canary" or "shadow"; None for none.
        weight: a canary's share of the traffic in percent.
        datatype: as `prepare` takes it.
        record: what the run is to tell; scores are added.
        report: told what is being done.

    Raises:
        UnsupportedError, ModelFailedError, InvalidInputError: as `prepare`; nothing was registered.
        UnavailableError: the registry does not answer.
    """
    prepared = prepare(pipeline, sample, datatype=datatype, report=report)
    scores = {} if labels is None else scoring.scores(prepared.compiled, labels)
    return register(name, prepared, scores, registry=registry, alias=alias, weight=weight, record=record, report=report)


def register(
    name: str,
    prepared: Prepared,
    scores: Mapping[str, float],
    *,
    registry: str | None = None,
    alias: str | None = None,
    weight: float | None = None,
    record: publish.Record | None = None,
    report: Report = lambda _: None,
) -> Published:
    """Registers what `prepare` made; the arguments are those of `publish_pipeline`."""
    sample = prepared.compiled.sample
    report(f"fitting the drift baseline on {sample.rows:,} rows")
    table = sample.on_the_wire()
    columns = fit_baseline(prepared.features, table)
    baseline = answers_baseline.with_answers(columns, graph.read(prepared.model), prepared.features, table)
    told = record or publish.Record()
    report(f"registering {name}")
    version = publish.publish(
        name,
        prepared.model,
        registry=registry,
        alias=alias,
        weight=weight,
        features=prepared.features,
        baseline=baseline,
        sample=sample.finite().some(GOLDEN_ROWS).on_the_wire(),
        record=replace(
            told,
            params={**_params(prepared), **told.params},
            metrics={**scores, "onnx_difference": prepared.difference, **told.metrics},
        ),
    )
    return Published(version, prepared, scores)


def _proven(compiled: Compiled, datatype: Datatype) -> tuple[FeatureSpec, Any, float]:
    features = compiled.features(datatype)
    model = convert.to_onnx(compiled.estimator, features.width, datatype)
    difference = proof.hold_answers(compiled, features, graph.read(model).runtime)
    return features, model, difference


def _params(prepared: Prepared) -> dict[str, Any]:
    compiled = prepared.compiled
    last = compiled.estimator.steps[-1][1] if hasattr(compiled.estimator, "steps") else compiled.estimator
    return {
        "estimator": type(last).__name__,
        "raw_columns": len(prepared.features.columns),
        "features": prepared.features.width,
        "datatype": prepared.features.datatype,
        "sample_rows": compiled.sample.rows,
    }
