"""The opened model's answers to sample rows: golden requests, and the drift baseline.

A server must give the answers of the golden requests again before it serves the version; their form and comparison are
the server's `models.golden`. Where there is a feature pipeline, the rows reach the model through it, as in serving.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from penstock.tensors import NUMPY_TYPES
from penstock_server.drift import fit, joint_fit
from penstock_server.drift.baseline import Baseline
from penstock_server.drift.codes import codes_of
from penstock_server.errors import InvalidInputError
from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec.spec import Column, FeatureSpec, StringColumn, TimeColumn
from penstock_server.features.table import Table, times_of
from penstock_server.models import golden
from penstock_server.models.classes import class_outputs
from penstock_tools.publish.answers import Answers, Held
from penstock_tools.publish.holdout import HeldRows
from penstock_tools.publish.onnx_graph import Graph

GOLDEN_ROWS: Final = 16
"""Golden requests of a version that is published with a sample."""


def golden_requests(graph: Graph, sample: Mapping[str, ArrayLike], pipeline: Pipeline | None) -> golden.Golden:
    """The rows of the sample with the model's answers.

    Args:
        graph: the model.
        sample: rows by raw column (missing: NaN, or "" in text), or by input where there is no pipeline.
        pipeline: the feature pipeline in front of the model; None where there is none.

    Raises:
        InvalidInputError: the sample lacks a column or input, or a value is infinite.
        ModelFailedError: the model fails on these rows.
    """
    rows = _inputs(graph, sample) if pipeline is None else _columns(pipeline, sample)
    outputs = graph.runtime.run(rows) if pipeline is None else _outputs(graph, pipeline, rows)
    names = (spec.name for spec in graph.signature.outputs)
    return golden.make(rows, dict(zip(names, outputs, strict=True)))


def fit_baseline(
    graph: Graph, pipeline: Pipeline, table: Table, *, time: str | None = None, held: HeldRows | None = None
) -> Baseline:
    """The drift baseline of the raw columns and of the model's answers to them.

    Of a classifier the predicted class is watched, else the output that is one number per row, and then more of its outputs
    (`publish.answers`). A model that gives nothing of the kind has a baseline of its columns alone.

    Args:
        graph: the model, which takes what the pipeline gives.
        pipeline: the feature pipeline.
        table: training rows by raw column, in the order of time.
        time: the column that the rows were ordered by; None where that is not known.
        held: rows that the model did not train on, by which its accuracy is expected.

    Raises:
        ModelFailedError: the model fails on these rows.
        InvalidInputError: there is a hold-out, and the model is no classifier, or the labels are not its own.
    """
    judged = None if held is None else Held(_outputs(graph, pipeline, held.table), held.labels)
    return counted(graph, pipeline.spec, table, _outputs(graph, pipeline, table), time=time, held=judged)


def counted(
    graph: Graph,
    spec: FeatureSpec,
    table: Table,
    outputs: Sequence[NDArray[Any]],
    *,
    time: str | None = None,
    held: Held | None = None,
) -> Baseline:
    """The same, of the model's outputs for these rows, and for those of a hold-out."""
    baseline = fit.fit_baseline(spec, table, time=time)
    answers = answers_of(graph)
    return with_joint(answers.added_to(baseline, outputs, held), spec, table, answers, outputs)


def with_joint(
    baseline: Baseline, spec: FeatureSpec, table: Table, answers: Answers, outputs: Sequence[NDArray[Any]]
) -> Baseline:
    """The baseline with its rows counted by two columns at once, and by columns and what was predicted for them."""
    codes = codes_of(spec, baseline, table)
    return joint_fit.with_joint(
        baseline, codes, None if baseline.predictions is None else answers.reader.predicted(outputs)
    )


def answers_of(graph: Graph) -> Answers:
    """How the model's outputs are read."""
    return Answers(graph.signature.outputs, class_outputs(graph.runtime.file), graph.class_output, graph.classes)


def _outputs(graph: Graph, pipeline: Pipeline, table: Table) -> list[NDArray[Any]]:
    return graph.runtime.run({graph.signature.inputs[0].name: pipeline.transform(table)})


def _columns(pipeline: Pipeline, sample: Mapping[str, ArrayLike]) -> dict[str, NDArray[Any]]:
    _check_names(pipeline.columns, sample, "column")
    return {column.name: _values(sample, column) for column in pipeline.spec.columns}


def _values(sample: Mapping[str, ArrayLike], column: Column) -> NDArray[Any]:
    """A raw column as requests hold it."""
    if isinstance(column, TimeColumn):
        return times_of(sample, column.name)
    return np.asarray(sample[column.name], object if isinstance(column, StringColumn) else np.float64)


def _inputs(graph: Graph, sample: Mapping[str, ArrayLike]) -> dict[str, NDArray[Any]]:
    specs = graph.signature.inputs
    _check_names(tuple(spec.name for spec in specs), sample, "input")
    return {
        spec.name: np.asarray(sample[spec.name], NUMPY_TYPES.get(spec.datatype, np.dtype(object))) for spec in specs
    }


def _check_names(expected: tuple[str, ...], sample: Mapping[str, ArrayLike], what: str) -> None:
    missing = [name for name in expected if name not in sample]
    if missing:
        raise InvalidInputError(f"the sample lacks {what} {missing[0]!r}; expected {', '.join(expected)}")
