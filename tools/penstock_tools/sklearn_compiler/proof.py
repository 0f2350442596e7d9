"""The proof that specification and graph answer as the pipeline does, on the rows of the sample.

First every compiled transformer alone, so that a difference is told with the step and the column that it is in; then what
the whole gives against `predict`, `predict_proba` and `decision_function`. `publishing` calls it before anything is
registered.
"""

import warnings
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import is_classifier
from sklearn.pipeline import Pipeline as Steps

from penstock_server.errors import ModelFailedError
from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec.spec import FeatureSpec
from penstock_server.models.onnx_model import OnnxModel
from penstock_tools.publish.to_onnx import INPUT, TOLERANCE
from penstock_tools.sklearn_compiler import trace
from penstock_tools.sklearn_compiler.columns import Numbers, numbers
from penstock_tools.sklearn_compiler.compiler import Compiled, halves
from penstock_tools.sklearn_compiler.difference import difference
from penstock_tools.sklearn_compiler.refusals import place
from penstock_tools.sklearn_compiler.sample import Sample, spread
from penstock_tools.sklearn_compiler.walk import Stage

STEP_TOLERANCE: Final = 1e-9
"""How far a transformer's output may be off, as a share of its column's largest value; all but a few are equal."""

MAX_ROWS: Final = 2000
"""Rows of the sample that are compared, spread over it."""

MAX_VALUES: Final = 1 << 22
"""Values of one matrix that are compared: of very wide ones fewer rows, since each is there several times at once."""


def hold_transformers(compiled: Compiled) -> float:
    """Holds that each compiled transformer gives what scikit-learn's gives.

    Returns:
        The largest difference, as a share of the column's largest value.

    Raises:
        ModelFailedError: one does not; names the step, the column and the row.
        InvalidInputError: scikit-learn itself refuses the sample.
    """
    rows = compiled.sample.some(MAX_ROWS)
    transformers, _ = halves(compiled.pipeline)
    if not transformers:
        return 0.0
    given = trace.outputs(Steps(transformers), rows.as_float64())
    worst = 0.0
    for stage, (_, values) in zip(compiled.stages, given, strict=True):
        if stage.parts and all(isinstance(part, Numbers) for part in stage.parts):
            worst = max(worst, _hold_stage(compiled, stage, rows, values))
    return worst


def hold_answers(compiled: Compiled, features: FeatureSpec, model: OnnxModel) -> float:
    """Holds that the graph behind the specification answers as the pipeline does.

    Returns:
        The largest difference: of a probability or score, or of a prediction as a share of the largest one.

    Raises:
        ModelFailedError: an answer differs by more than `TOLERANCE`, or a label where it does not hang by a hair.
    """
    rows = compiled.sample.some(min(MAX_ROWS, _rows_of(features.width)))
    matrix = Pipeline(features).transform(rows.on_the_wire())
    names = (spec.name for spec in model.signature.outputs)
    answers = dict(zip(names, model.run({INPUT: matrix}), strict=True))
    with warnings.catch_warnings():
        # Of unknown categories, or of columns without names: the pipeline's own business.
        warnings.simplefilter("ignore")
        return _hold_answers(compiled.pipeline, rows, answers)


def _hold_answers(pipeline: Any, rows: Sample, answers: Mapping[str, NDArray[Any]]) -> float:
    if is_classifier(pipeline):
        return _hold_classes(pipeline, rows, answers)
    got = np.asarray(next(iter(answers.values())))
    expected = np.asarray(pipeline.predict(rows.given))
    return _hold("a prediction", _columns(got), _columns(expected), rows)


def _hold_stage(compiled: Compiled, stage: Stage, all_rows: Sample, values: Any) -> float:
    block = numbers(stage.parts)
    at_rows = spread(all_rows.rows, _rows_of(block.width))
    rows, expected = all_rows.chosen(at_rows), _dense(values, at_rows)
    got = Pipeline(compiled.features_of(block)).transform(rows.on_the_wire())
    found = difference(got, expected)
    if found.share <= STEP_TOLERANCE:
        return found.share
    if got.shape != expected.shape:
        raise ModelFailedError(
            f"{place(stage.path)} gives {got.shape[1]} columns, and scikit-learn's {expected.shape[1]}"
        )
    name = block.names[found.column].text
    at = found.row, found.column
    raise ModelFailedError(
        f"{place(stage.path)} differs from scikit-learn's in {name!r}, row {rows.places[found.row]}: "
        f"{got[at]:.17g} instead of {expected[at]:.17g}"
    )


def _rows_of(width: int) -> int:
    return max(1, MAX_VALUES // width)


def _hold_classes(pipeline: Any, rows: Sample, answers: Mapping[str, NDArray[Any]]) -> float:
    """Scores first: a label may only differ where two scores are as good as equal."""
    worst, margin = 0.0, np.zeros(rows.rows)
    score_name = next((name for name in ("probabilities", "scores") if name in answers), None)
    if score_name is not None:
        expected = _scores(pipeline, rows.given)
        got = _like(answers[score_name], expected)
        what = "a probability" if score_name == "probabilities" else "a score"
        worst = _hold(what, got, expected, rows, is_share=score_name == "scores")
        margin = _margin(expected)
    wrong = np.flatnonzero(_labels(answers["label"]) != _labels(pipeline.predict(rows.given)))
    for row in wrong.tolist():
        if margin[row] > 2 * TOLERANCE:
            raise ModelFailedError(f"the ONNX graph gives another label than the pipeline in row {rows.places[row]}")
    return worst


def _labels(given: Any) -> NDArray[Any]:
    """Labels as text: the graph gives whole numbers for booleans and for floats that are whole."""
    labels = np.asarray(given).reshape(-1)
    if labels.dtype.kind in "bf" and np.array_equal(labels, labels.astype(np.int64)):
        labels = labels.astype(np.int64)
    return labels.astype(str)


def _scores(pipeline: Any, given: Any) -> NDArray[np.float64]:
    scores = pipeline.predict_proba(given) if hasattr(pipeline, "predict_proba") else pipeline.decision_function(given)
    return _columns(np.asarray(scores, np.float64))


def _like(got: NDArray[Any], expected: NDArray[np.float64]) -> NDArray[np.float64]:
    """skl2onnx gives two scores, -s and s, of two classes, where scikit-learn gives s."""
    matrix = _columns(np.asarray(got, np.float64))
    return matrix[:, -1:] if expected.shape[1] == 1 and matrix.shape[1] == 2 else matrix


def _margin(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    if scores.shape[1] == 1:
        single: NDArray[np.float64] = np.abs(scores[:, 0])
        return single
    ordered = np.sort(scores, axis=1)
    gap: NDArray[np.float64] = ordered[:, -1] - ordered[:, -2]
    return gap


def _hold(
    what: str, got: NDArray[np.float64], expected: NDArray[np.float64], rows: Sample, *, is_share: bool = True
) -> float:
    found = difference(got, expected, is_share=is_share)
    # Written so that NaN fails too.
    if not found.share <= TOLERANCE:
        at = found.row, found.column
        values = f"{got[at]:.9g} instead of {expected[at]:.9g}" if got.shape == expected.shape else "of another shape"
        raise ModelFailedError(
            f"the ONNX graph differs from the pipeline by {found.share:.2g} in {what}, at most {TOLERANCE:g} is due; "
            f"row {rows.places[found.row]}: {values}"
        )
    return found.share


def _dense(values: Any, at_rows: NDArray[np.intp]) -> NDArray[np.float64]:
    if sparse.issparse(values):
        return np.asarray(values.tocsr()[at_rows].toarray(), np.float64)
    return np.asarray(values, np.float64)[at_rows]


def _columns(values: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(values, np.float64).reshape(len(values), -1)
