"""Publishes a fitted scikit-learn pipeline unchanged: compiled, proven, and registered with its drift baseline.

    publish_pipeline("fraud", pipeline, sample, labels=answers, alias="canary", weight=5)

Everything is proven before the first byte is registered. `prepare` stops before that, to show what would be published.
The graph is opened once and the specification compiled once: `Prepared` holds both for the proof, the baseline, the
golden requests and `publish.onnx`, which writes the files, loads them as a server does, and calls the registry.
"""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from penstock_server.batching.limits import Batching
from penstock_server.drift.importance import Importance
from penstock_server.errors import ModelFailedError, PenstockError, UnsupportedError, first_line
from penstock_server.explain.explanation import AnyExplanation
from penstock_server.features.kernel_set import KERNELS
from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec.spec import Datatype
from penstock_server.kernels.compiled import ensure_compiled, find
from penstock_tools import progress
from penstock_tools.explain.explanation import explained
from penstock_tools.explain.importance import importance
from penstock_tools.progress import Report
from penstock_tools.publish import golden, onnx, onnx_graph, summary
from penstock_tools.publish.holdout import HeldRows, HoldOut, holdout_of
from penstock_tools.publish.onnx_graph import Graph
from penstock_tools.publish.prepared import Prepared
from penstock_tools.publish.python import version
from penstock_tools.publish.python.version import PreparedPython
from penstock_tools.publish.time_order import TimeOrder, in_order, time_order, without_column
from penstock_tools.sklearn_compiler import edges, precision, proof, scoring
from penstock_tools.sklearn_compiler.compiler import Compiled, compile_pipeline
from penstock_tools.sklearn_compiler.graph import model


@dataclass(frozen=True, slots=True)
class Published:
    """What `publish_pipeline` registered. A notebook shows it as tables.

    Attributes:
        name: the registered model.
        version: such as "3".
        alias: the role that it was given; None for none.
        prepared: what it is made of.
        scores: on the sample, by name; empty without labels.
        decisions: sentences on how servers will run it.
        explanation: what attributions are computed from, or why there are none; None where it was not wanted.
        importance: how much each raw column matters; None where it was not wanted, or cannot be told.
    """

    name: str
    version: str
    alias: str | None
    prepared: Prepared | PreparedPython
    scores: Mapping[str, float]
    decisions: tuple[str, ...] = ()
    explanation: AnyExplanation | None = None
    importance: Importance | None = None

    def __repr__(self) -> str:
        return f"<{self.name} version {self.version}{'' if self.alias is None else f', {self.alias}'}>"

    def _repr_html_(self) -> str:
        role = "" if self.alias is None else f" and is now {self.alias}"
        title = f"{self.name} version {self.version} is registered{role}"
        more = summary.explained(self.explanation, self.importance)
        return summary.html(title, self.prepared, self.scores, self.decisions, more)


def prepare(
    pipeline: Any, sample: Any, *, datatype: Datatype | None = None, report: Report = lambda _: None
) -> Prepared:
    """Compiles a fitted pipeline, converts its model, and proves both on the sample.

    Args:
        pipeline: a fitted `Pipeline`, or an estimator alone; of a search, the best one that it found.
        sample: rows as the pipeline takes them: a frame, which may have further columns, or an array [rows, columns].
        datatype: what the graph computes in. None tries FP32, and FP64 if the answers of FP32 differ too much; FP64 alone
            where the model compares doubles.
        report: called with each step's name as it begins.

    Raises:
        UnsupportedError: something in the pipeline can neither be compiled nor converted; names its place.
        ModelFailedError: what was made answers differently; names the step and the column where it is one of these.
        InvalidInputError: the sample is not the pipeline's, or a limit of specifications is exceeded.
    """
    if find(KERNELS) is None:
        report("compiling the feature kernels, once for this machine")
        ensure_compiled(KERNELS)
    report("compiling the pipeline")
    compiled = compile_pipeline(pipeline, sample)
    report(f"comparing {len(compiled.stages)} transformers with scikit-learn's")
    step_difference = proof.check_transformers(compiled)
    refusal: Exception | None = None
    for each in precision.datatypes(compiled.pipeline) if datatype is None else (datatype,):
        report(f"converting the model to ONNX in {each} and comparing its answers")
        try:
            built = Pipeline(compiled.features(each))
            graph = _with_classes(onnx_graph.read(model.planned(compiled.plan, built.width, each)), compiled)
            difference = proof.check_answers(compiled, built, graph.runtime)
            report("asking the pipeline about missing, unseen and huge values")
            found = edges.settled(compiled.pipeline, compiled.sample, built, graph.runtime)
        except (ModelFailedError, UnsupportedError) as error:
            # The reason is the error of the narrow datatype; that the wide one fails too adds nothing.
            refusal = refusal or error
            continue
        return Prepared(
            compiled,
            found.pipeline,
            graph,
            step_difference,
            difference,
            None if refusal is None else str(refusal),
            (*compiled.sample.notes, *found.notes),
        )
    raise refusal or UnsupportedError("no datatype was tried")


_KEPT_WHOLE: Final = "; --allow-python keeps the whole pipeline, which answers in milliseconds instead of microseconds"


def prepare_any(
    pipeline: Any,
    sample: Any,
    *,
    datatype: Datatype | None = None,
    allow_python: bool = False,
    agree: version.Agree = lambda _: True,
    report: Report = lambda _: None,
) -> Prepared | PreparedPython:
    """As `prepare`; with `allow_python`, what cannot be compiled or proven is kept whole, for servers that run Python.

    Args:
        pipeline: as `prepare` takes it.
        sample: as `prepare` takes it.
        datatype: as `prepare` takes it.
        allow_python: keeps what cannot be compiled.
        agree: as `python.version.prepare` takes it.
        report: as `prepare` takes it.

    Raises:
        UnsupportedError, ModelFailedError, InvalidInputError: as `prepare`, or `python.version.prepare` where that is allowed.
    """
    try:
        return prepare(pipeline, sample, datatype=datatype, report=report)
    except Exception as error:
        if not allow_python:
            if isinstance(error, UnsupportedError):
                raise UnsupportedError(f"{error}{_KEPT_WHOLE}") from error
            raise
        is_ours = isinstance(error, PenstockError)
        reason = str(error) if is_ours else f"compiling it failed with {type(error).__name__}: {first_line(error)}"
        return version.prepare(pipeline, sample, reason, agree=agree, report=report)


def _with_classes(graph: Graph, compiled: Compiled) -> Graph:
    """The graph with the classifier's labels: the operators of its graph need not say that it is one."""
    from sklearn.base import is_classifier

    known = getattr(compiled.pipeline, "classes_", ())
    # Several outputs have a list of arrays.
    labels = np.asarray(() if isinstance(known, list) else known)
    is_one = is_classifier(compiled.pipeline) and labels.ndim == 1 and labels.dtype.kind in "biufOUT"
    names = [spec.name for spec in graph.signature.outputs]
    if graph.class_output is not None or not is_one or not len(labels) or "label" not in names:
        return graph
    classes = tuple(str(label) if isinstance(label, str) else int(label) for label in labels)
    return replace(graph, class_output="label", classes=classes)


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
    batching: Batching | None = None,
    allow_python: bool = False,
    explain: bool = True,
    time: str | ArrayLike | None = None,
    holdout: tuple[Any, ArrayLike] | None = None,
    record: onnx.Record | None = None,
    report: Report | None = None,
    decided: Callable[[str], None] = lambda _: None,
) -> Published:
    """Registers a fitted pipeline as a model's next version, with a drift baseline and golden requests from the sample.

    Args:
        name: the registered model, which is created if there is none.
        pipeline: as `prepare` takes it.
        sample: rows as `prepare` takes them, in the order of time if `time` is None, such as the training data or a part of it.
        labels: the true answers for the rows of the sample [rows]; with them, scores are logged with the run.
        registry: the registry's address; None for `MLFLOW_TRACKING_URI`, else a local file.
        alias: the role to give it: "champion", "canary" or "shadow"; None for none.
        weight: a canary's share of the traffic in percent.
        datatype: as `prepare` takes it.
        batching: as `onnx.publish` takes it.
        allow_python: what cannot be compiled is kept whole, perhaps as a pickle, for servers that run Python.
        explain: keeps what attributions are computed from, where the model allows it, and how much each column matters.
        time: a column of the sample that need not be the pipeline's, or the time of each row [rows], by which the rows are
            put in order: dates or times, ISO 8601 texts of them, or numbers. None takes them as they are.
        holdout: rows that the classifier did not train on, and the truth [rows]. Servers tell by it what accuracy they expect
            of the rows served, without labels: if the relation between features and truth held. The rows are in the order
            of time, or have the column `time`.
        record: what the run records; scores are added.
        report: called with each step's name as it begins; None shows the steps in a terminal or a notebook.
        decided: as `onnx.publish` calls it.

    Returns:
        What was registered; a notebook shows it as tables.

    Raises:
        UnsupportedError, ModelFailedError, InvalidInputError: as `prepare`; nothing was registered.
        UnavailableError: the registry does not answer.
    """
    with progress.watched() if report is None else nullcontext(report) as told:
        held = holdout_of(holdout, time, sample)
        order = None if time is None else time_order(sample, time)
        if order is not None:
            sample = without_column(pipeline, sample, order.column)
        prepared = prepare_any(pipeline, sample, datatype=datatype, allow_python=allow_python, report=told)
        scores = {} if labels is None else scores_of(prepared, labels)
        return register(
            name,
            prepared,
            scores,
            labels=labels,
            registry=registry,
            alias=alias,
            weight=weight,
            batching=batching,
            explain=explain,
            order=order,
            holdout=held,
            record=record,
            report=told,
            decided=decided,
        )


def scores_of(prepared: Prepared | PreparedPython, labels: ArrayLike) -> Mapping[str, float]:
    """The scores of what was prepared on its sample; `InvalidInputError` where the labels are not those of the sample."""
    return scoring.scores(prepared if isinstance(prepared, PreparedPython) else prepared.compiled, labels)


def register(
    name: str,
    prepared: Prepared | PreparedPython,
    scores: Mapping[str, float],
    *,
    labels: ArrayLike | None = None,
    registry: str | None = None,
    alias: str | None = None,
    weight: float | None = None,
    batching: Batching | None = None,
    explain: bool = True,
    order: TimeOrder | None = None,
    holdout: HoldOut | None = None,
    record: onnx.Record | None = None,
    report: Report = lambda _: None,
    decided: Callable[[str], None] = lambda _: None,
) -> Published:
    """Registers what `prepare` or `prepare_any` made, of a sample in this order; the others are those of `publish_pipeline`."""
    explanation, found = None, None
    if explain and isinstance(prepared, Prepared):
        report("proving attributions, and shuffling columns for their importance")
        explanation = explained(prepared.compiled, prepared.pipeline)
        graph, sample = prepared.graph, prepared.compiled.sample
        found = importance(prepared.pipeline, graph.runtime, sample, classes=graph.classes, labels=labels)
    decisions: list[str] = []
    compiled = partial(_register, explanation=explanation, importance=found)
    publish: Callable[..., str] = version.register if isinstance(prepared, PreparedPython) else compiled
    registered = publish(
        name,
        prepared,
        scores,
        registry=registry,
        alias=alias,
        weight=weight,
        batching=batching,
        order=order,
        holdout=holdout,
        record=record or onnx.Record(),
        report=report,
        decided=decisions.append,
    )
    for decision in decisions:
        decided(decision)
    return Published(name, registered, alias, prepared, scores, tuple(decisions), explanation, found)


def _register(
    name: str,
    prepared: Prepared,
    scores: Mapping[str, float],
    *,
    order: TimeOrder | None,
    holdout: HoldOut | None,
    record: onnx.Record,
    report: Report,
    **how: Any,
) -> str:
    sample = prepared.compiled.sample
    report(f"fitting the drift baseline on {sample.rows:,} rows")
    table = in_order(sample, order).on_the_wire()
    time = None if order is None else order.column
    held = None
    if holdout is not None:
        rows, labels = holdout.of(prepared.compiled.pipeline, prepared.compiled.unused)
        held = HeldRows(rows.on_the_wire(), labels)
    baseline = golden.fit_baseline(prepared.graph, prepared.pipeline, table, time=time, held=held)
    report(f"registering {name}")
    return onnx.publish(
        name,
        prepared.graph,
        features=prepared.pipeline,
        baseline=baseline,
        sample=sample.finite().some(golden.GOLDEN_ROWS).on_the_wire(),
        record=replace(
            record,
            params={**_params(prepared), **record.params},
            metrics={**scores, "onnx_difference": prepared.difference, **record.metrics},
        ),
        **how,
    )


def _params(prepared: Prepared) -> dict[str, Any]:
    compiled = prepared.compiled
    return {
        "estimator": compiled.estimator_name,
        "raw_columns": len(prepared.features.columns),
        "features": prepared.features.width,
        "datatype": prepared.features.datatype,
        "sample_rows": compiled.sample.rows,
    }
