"""Permutation importance: what a model loses when one raw column is shuffled among the rows of the sample.

With the true answers it is the loss of the model's score; without them how far the answers move. The published graph is
asked, behind the compiled features, as a server asks it.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray
from sklearn import metrics

from penstock_server.drift.importance import Importance
from penstock_server.errors import InvalidInputError, ModelFailedError
from penstock_server.features.pipeline import Pipeline
from penstock_server.models.onnx_model import OnnxModel
from penstock_tools.sklearn_compiler.sample import Sample, spread

MOST_ROWS: Final = 2000
MOST_VALUES: Final = 1 << 22
"""Values of a matrix of features, so that wide ones take fewer rows."""
REPEATS: Final = 3
MOST_S: Final = 20.0
"""About the longest that all columns together may take."""
LEAST_ROWS: Final = 20
_SEED: Final = 0

Table = Mapping[str, NDArray[Any]]
Answers = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class _Measure:
    """What is measured on answers.

    Attributes:
        name: for people.
        loss: how much worse or other the answers are than those to the rows as they are.
    """

    name: str
    loss: Callable[[Answers], float]


def importance(
    pipeline: Pipeline,
    model: OnnxModel,
    sample: Sample,
    *,
    classes: Sequence[Any] | None,
    labels: ArrayLike | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> Importance | None:
    """How much each raw column matters.

    Args:
        pipeline: the compiled features.
        model: the opened graph.
        sample: rows; at most `MOST_ROWS` of them, spread over all, are shuffled.
        classes: the labels in the order of the graph's scores; None where it is no classifier.
        labels: the true answers [rows]; None if they are not known.
        clock: seconds, which bound how often each column is shuffled.

    Returns:
        None where there are too few rows, or the answers cannot be compared.
    """
    rows = min(sample.rows, MOST_ROWS, max(LEAST_ROWS, MOST_VALUES // pipeline.width))
    if rows < LEAST_ROWS:
        return None
    at = spread(sample.rows, rows)
    table = sample.chosen(at).on_the_wire()
    try:
        return _shuffled(pipeline, model, table, classes, None if labels is None else np.asarray(labels)[at], clock)
    except (ModelFailedError, InvalidInputError, ValueError):
        # A score that is not defined, or rows that the model refuses: the version is published without it.
        return None


def _shuffled(  # noqa: PLR0917 - what `importance` has
    pipeline: Pipeline,
    model: OnnxModel,
    table: Table,
    classes: Sequence[Any] | None,
    labels: NDArray[Any] | None,
    clock: Callable[[], float],
) -> Importance | None:
    started_s = clock()
    usual = _answers(pipeline, model, table)
    took_s = clock() - started_s
    measure = _measure(usual, classes, labels)
    if measure is None:
        return None
    rows = len(next(iter(usual.values())))
    repeats = max(1, min(REPEATS, int(MOST_S / max(took_s * len(pipeline.columns), 1e-9))))
    random = np.random.default_rng(_SEED)
    values: dict[str, float] = {}
    for name in pipeline.columns:
        orders = [random.permutation(rows) for _ in range(repeats)]
        losses = [_answers(pipeline, model, {**table, name: table[name][order]}) for order in orders]
        values[name] = float(np.mean([measure.loss(answers) for answers in losses]))
        if clock() - started_s > 2 * MOST_S:
            break
    finite = {name: value for name, value in values.items() if np.isfinite(value)}
    return Importance(measure.name, finite, rows, repeats) if finite else None


def _answers(pipeline: Pipeline, model: OnnxModel, table: Table) -> Answers:
    matrix = pipeline.transform(table)
    names = (spec.name for spec in model.signature.outputs)
    return dict(zip(names, model.run({model.signature.inputs[0].name: matrix}), strict=True))


def _measure(usual: Answers, classes: Sequence[Any] | None, labels: NDArray[Any] | None) -> _Measure | None:
    if "label" in usual and usual["label"].ndim == 1:
        scores = next((usual[name] for name in ("probabilities", "scores") if name in usual), None)
        if labels is not None:
            return _of_known_classes(usual, _texts(np.asarray(classes or ())).tolist(), _texts(labels))
        if scores is not None and "probabilities" in usual:
            return _Measure("the probability that moves", lambda got: _moved(got["probabilities"], scores))
        return _Measure("the share of labels that change", lambda got: float(np.mean(got["label"] != usual["label"])))
    if "prediction" in usual:
        return _of_numbers(usual["prediction"], labels)
    return None


def _of_known_classes(usual: Answers, classes: Sequence[str], truth: NDArray[Any]) -> _Measure:
    score = next((name for name in ("probabilities", "scores") if name in usual), None)
    if score is not None and len(classes) == 2 and len(np.unique(truth)) == 2:
        is_second = truth == classes[1]

        def auc(answers: Answers) -> float:
            values = answers[score].reshape(len(truth), -1)[:, -1]
            return float(metrics.roc_auc_score(is_second, values))

        known = auc(usual)
        return _Measure("AUC lost", lambda got: known - auc(got))

    def accuracy(answers: Answers) -> float:
        return float(np.mean(_texts(answers["label"]) == truth))

    known_accuracy = accuracy(usual)
    return _Measure("accuracy lost", lambda got: known_accuracy - accuracy(got))


def _of_numbers(usual: NDArray[Any], labels: NDArray[Any] | None) -> _Measure | None:
    before = usual.astype(np.float64).reshape(len(usual), -1)
    if labels is not None and labels.size == before.size:
        truth = labels.astype(np.float64).reshape(before.shape)
        known = float(metrics.r2_score(truth, before))

        def lost(answers: Answers) -> float:
            return known - float(metrics.r2_score(truth, answers["prediction"].reshape(before.shape)))

        return _Measure("R² lost", lost)
    deviation = before.std(axis=0)
    if not (np.isfinite(deviation) & (deviation > 0)).all():
        return None

    def moved(answers: Answers) -> float:
        return float(np.mean(np.abs(answers["prediction"].reshape(before.shape) - before) / deviation))

    return _Measure("deviations that the prediction moves", moved)


def _moved(got: NDArray[Any], usual: NDArray[Any]) -> float:
    """The probability that goes from some classes to others, a row's mean."""
    return float(np.mean(np.abs(got.astype(np.float64) - usual).sum(axis=1) / 2))


def _texts(labels: NDArray[Any]) -> NDArray[Any]:
    """Labels as text: the graph gives whole numbers for booleans and for floats that are whole."""
    if labels.dtype.kind in "bf" and np.array_equal(labels, labels.astype(np.int64)):
        labels = labels.astype(np.int64)
    return np.array([label.decode() if isinstance(label, bytes) else str(label) for label in labels.tolist()])
