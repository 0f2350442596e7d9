"""What is published from files: a pipeline with its sample, an ONNX model, or a feature specification in front of one.

The suffix of a file decides which of them it is; a model that MLflow keeps says it itself (`logged`), and
one that somebody else keeps is fetched first (`elsewhere`). `penstock publish`
and `penstock features` call this module, and show people what it returns.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from penstock_server.batching.limits import Batching
from penstock_server.errors import InvalidInputError
from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec.spec import Datatype, FeatureSpec
from penstock_server.models.counting_servable import is_one_matrix
from penstock_server.models.loader import check_fit
from penstock_tools.progress import Report
from penstock_tools.publish import elsewhere, golden, logged, onnx, onnx_graph, pipeline
from penstock_tools.publish.answers import Held
from penstock_tools.publish.beside import beside
from penstock_tools.publish.holdout import SAME, HeldRows, HoldOut, holdout_of
from penstock_tools.publish.prepared import Prepared
from penstock_tools.publish.specification import SUFFIXES, read_specification
from penstock_tools.publish.straight import straight
from penstock_tools.publish.time_order import in_order, time_order, without_column
from penstock_tools.sklearn_compiler import load
from penstock_tools.sklearn_compiler.load import Agree
from penstock_tools.sklearn_compiler.sample import specification_sample, spread


@dataclass(frozen=True, slots=True)
class Request:
    """The arguments of `penstock publish`; None for those that were not given."""

    name: str
    file: Path
    sample: Path | None = None
    labels: str | None = None
    features: Path | None = None
    alias: str | None = None
    weight: float | None = None
    registry: str | None = None
    precision: Datatype | None = None
    batching: Batching | None = None
    allow_python: bool = False
    explain: bool = True
    time: str | None = None
    holdout: Path | None = None
    link: str | None = None


def publish(
    request: Request, agree: Agree, report: Report, decided: Callable[[str], None] = lambda _: None
) -> tuple[str, pipeline.Published | None]:
    """Registers the file as the model's next version.

    Args:
        request: what to publish; its file may be the address of a model that MLflow or somebody else keeps, and its sample and
            hold-out may be in a store of objects.
        agree: called with a warning before a file is loaded that can run code.
        report: called with each step's name as it begins, and never before `agree`.
        decided: called with each sentence on how servers will run the version and watch its drift.

    Returns:
        The version, and what a pipeline became; None for an ONNX model.

    Raises:
        InvalidInputError: the options do not belong together, or the file or the sample is not what they say.
        UnsupportedError, ModelFailedError: the pipeline cannot be published, or not proven; nothing was registered.
        NotFoundError: nothing is at an address.
        UnavailableError: the registry, or who keeps the model, does not answer.
    """
    onnx.check_request(request.name, request.alias, request.weight)
    with elsewhere.local(request.sample) as sample, elsewhere.local(request.holdout) as holdout:
        return _publish(replace(request, sample=sample, holdout=holdout), agree, report, decided)


def _publish(
    request: Request, agree: Agree, report: Report, decided: Callable[[str], None]
) -> tuple[str, pipeline.Published | None]:
    record = onnx.Record(link=request.link)
    if elsewhere.is_address(str(request.file)):
        with elsewhere.fetched(str(request.file)) as found:
            record = onnx.Record(params={"published_from": found.address}, link=request.link or found.link)
            if found.folder is not None:
                return _publish_logged(
                    request, logged.described(found.address, found.folder), agree, report, decided, record=record
                )
            return _publish_file(replace(request, file=found.model()), agree, report, decided, record)
    if logged.is_address(str(request.file)):
        # A terminal's spinner would hide the question that may come once the files are there.
        with logged.fetched(str(request.file), request.registry) as model:
            record = replace(record, params={"published_from": model.address})
            return _publish_logged(request, model, agree, report, decided, record=record)
    return _publish_file(request, agree, report, decided, record)


def _publish_file(
    request: Request, agree: Agree, report: Report, decided: Callable[[str], None], record: onnx.Record
) -> tuple[str, pipeline.Published | None]:
    if request.file.suffix == ".onnx":
        return _publish_onnx(request, decided, record), None
    _check_pipeline_options(request)
    fitted = load.load_pipeline(request.file, agree)
    published = _publish_pipeline(request, fitted, agree, report, decided, record=record)
    return published.version, published


def _publish_logged(
    request: Request,
    model: logged.LoggedModel,
    agree: Agree,
    report: Report,
    decided: Callable[[str], None],
    *,
    record: onnx.Record,
) -> tuple[str, pipeline.Published | None]:
    if model.flavour == "onnx":
        return _publish_onnx(replace(request, file=model.onnx_path), decided, record), None
    _check_pipeline_options(request, needs_sample=False)
    example = model.example() if request.sample is None else None
    if request.sample is None and example is None:
        raise InvalidInputError(
            f"{model.address} was logged without an input example; give sample rows with --sample DATA"
        )
    fitted = model.estimator(agree)
    published = _publish_pipeline(request, fitted, agree, report, decided, record=record, example=example)
    return published.version, published


def _publish_onnx(request: Request, decided: Callable[[str], None], record: onnx.Record) -> str:
    if request.labels is not None and request.holdout is None:
        raise InvalidInputError(f"--labels is for pipelines, or for a --holdout; {request.file} is an ONNX model")
    if request.precision is not None:
        raise InvalidInputError(f"--precision is for pipelines; {request.file} is an ONNX model")
    if request.holdout is not None and request.sample is None:
        raise InvalidInputError(
            "--holdout says more of a version that is watched; give training rows with --sample DATA"
        )
    if request.time is not None and request.sample is None:
        raise InvalidInputError("--time is a column of the sample; give it with --sample DATA")
    parts: dict[str, Any] = {}
    graph: onnx_graph.Graph | Path = request.file
    if request.sample is not None:
        graph = onnx_graph.read(request.file)
        sample = load.read_sample(request.sample)
        if request.labels in sample.columns:
            sample = sample.drop(columns=request.labels)
        parts = _watched_parts(request, graph, sample)
    elif request.features is not None:
        parts["features"] = Pipeline(read_specification(request.features))
    return onnx.publish(
        request.name,
        graph,
        registry=request.registry,
        alias=request.alias,
        weight=request.weight,
        batching=request.batching,
        record=record,
        decided=decided,
        **parts,
    )


def _watched_parts(request: Request, graph: onnx_graph.Graph, sample: pd.DataFrame) -> dict[str, Any]:
    """What a sample adds to an ONNX model: the columns that are counted, their baseline, and golden rows."""
    if request.features is None and not is_one_matrix(graph.signature):
        return _parts_beside(request, graph, sample)
    if request.features is None:
        features, frame = straight(graph, sample, request.time)
    else:
        features, frame = Pipeline(read_specification(request.features)), sample
        check_fit(graph.runtime, features)
    order = None if request.time is None else time_order(sample, request.time)
    rows = specification_sample(features.spec, frame)
    table = in_order(rows, order).on_the_wire()
    holdout, held = _holdout(request), None
    if holdout is not None:
        given = holdout.rows if request.features is not None else straight(graph, holdout.rows, request.time)[1]
        known, labels = holdout.sorted(specification_sample(features.spec, given))
        held = HeldRows(known.on_the_wire(), labels)
    return {
        "features": features,
        "baseline": golden.fit_baseline(graph, features, table, time=request.time, held=held),
        "sample": rows.finite().some(golden.GOLDEN_ROWS).on_the_wire(),
    }


def _parts_beside(request: Request, graph: onnx_graph.Graph, sample: pd.DataFrame) -> dict[str, Any]:
    """The same of a model whose columns are counted beside it."""
    order = None if request.time is None else time_order(sample, request.time)
    given = beside(graph, sample if order is None else sample.iloc[order.places])
    outputs = graph.runtime.run(dict(given.inputs))
    holdout, held = _holdout(request), None
    if holdout is not None:
        places = np.arange(len(holdout.rows)) if holdout.order is None else holdout.order.places
        rows = beside(graph, holdout.rows.iloc[places])
        held = Held(graph.runtime.run(dict(rows.inputs)), np.asarray(holdout.labels)[places])
    finite = given.finite_places()
    few = finite[spread(len(finite), golden.GOLDEN_ROWS)]
    return {
        "features": given.features,
        "baseline": golden.counted(graph, given.features, given.table, outputs, time=request.time, held=held),
        "sample": {name: values[few] for name, values in given.inputs.items()} if len(few) else None,
    }


def _holdout(request: Request) -> HoldOut | None:
    if request.holdout is None:
        return None
    if request.labels is None:
        raise InvalidInputError(
            "the true answers of a --holdout are in one of its columns; name it with --labels COLUMN"
        )
    if request.sample is not None and request.sample.resolve() == request.holdout.resolve():
        raise InvalidInputError(SAME)
    rows, labels = load.with_labels(load.read_sample(request.holdout), request.labels, what="hold-out")
    return holdout_of((rows, np.asarray(labels)), request.time)


def _check_pipeline_options(request: Request, *, needs_sample: bool = True) -> None:
    if request.features is not None:
        raise InvalidInputError(f"--features is for ONNX models; the specification of {request.file} is compiled")
    if needs_sample and request.sample is None:
        raise InvalidInputError("a pipeline is published with sample rows; give --sample DATA")


def _publish_pipeline(
    request: Request,
    fitted: Any,
    agree: Agree,
    report: Report,
    decided: Callable[[str], None],
    *,
    record: onnx.Record,
    example: pd.DataFrame | None = None,
) -> pipeline.Published:
    if request.sample is not None:
        report(f"reading {request.sample}")
        example = load.read_sample(request.sample)
    assert example is not None
    holdout = _holdout(request)
    # The sample needs no labels where a hold-out has them.
    named = request.labels if holdout is None or request.labels in example.columns else None
    sample, labels = load.with_labels(example, named)
    order = None if request.time is None else time_order(example, request.time)
    if order is not None:
        sample = without_column(fitted, sample, order.column)
    prepared = pipeline.prepare_any(
        fitted, sample, datatype=request.precision, allow_python=request.allow_python, agree=agree, report=report
    )
    return pipeline.register(
        request.name,
        prepared,
        {} if labels is None else pipeline.scores_of(prepared, labels),
        labels=labels,
        registry=request.registry,
        alias=request.alias,
        weight=request.weight,
        batching=request.batching,
        explain=request.explain,
        order=order,
        holdout=holdout,
        record=record,
        report=report,
        decided=decided,
    )


@dataclass(frozen=True, slots=True)
class FeaturesInFile:
    """A feature specification from a file.

    Attributes:
        features: the specification.
        matrix: what it makes of the sample [rows, width]; None without a sample.
        prepared: what the pipeline became that it was compiled from; None where the file holds a specification.
    """

    features: FeatureSpec
    matrix: NDArray[Any] | None = None
    prepared: Prepared | None = None


def read_features(
    file: Path, sample: Path | None, precision: Datatype | None, agree: Agree, report: Report
) -> FeaturesInFile:
    """The specification in a file, or the one that a pipeline would be published with. Nothing is registered.

    Args:
        file: a specification, or a pipeline.
        sample: rows as .csv or .parquet; a pipeline needs them.
        precision: the datatype of a pipeline's graph; None for what the proof allows.
        agree: as for `publish`.
        report: as for `publish`.

    Raises:
        InvalidInputError: the file or the sample cannot be used; says why.
        UnsupportedError, ModelFailedError: the pipeline cannot be published, or not proven.
    """
    if file.suffix in SUFFIXES:
        if precision is not None:
            raise InvalidInputError(f"--precision is for pipelines; {file} says its datatype itself")
        features = read_specification(file)
        if sample is None:
            return FeaturesInFile(features)
        rows = specification_sample(features, load.read_sample(sample))
        return FeaturesInFile(features, Pipeline(features).transform(rows.on_the_wire()))
    if sample is None:
        raise InvalidInputError("a pipeline is compiled with sample rows; give --sample DATA")
    fitted = load.load_pipeline(file, agree)
    report(f"reading {sample}")
    prepared = pipeline.prepare(fitted, load.read_sample(sample), datatype=precision, report=report)
    matrix = prepared.pipeline.transform(prepared.compiled.sample.on_the_wire())
    return FeaturesInFile(prepared.features, matrix, prepared)
