"""The proof that specification and graph answer as the pipeline does, on the rows of the sample.

First each compiled transformer alone, so that an error names the step and the column; then the whole against `predict`,
`predict_proba` and `decision_function`. `publish.pipeline` calls it before anything is registered.
"""

import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.base import is_classifier
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import FeatureUnion

from penstock_server.errors import InvalidInputError, ModelFailedError, first_line
from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec import limits
from penstock_server.models.onnx_model import OnnxModel
from penstock_tools.sklearn_compiler import kinds
from penstock_tools.sklearn_compiler.columns import Numbers, Part, Words, numbers
from penstock_tools.sklearn_compiler.compiler import Compiled
from penstock_tools.sklearn_compiler.graph.wrappers import unwrapped
from penstock_tools.sklearn_compiler.refusals import StepPath, place
from penstock_tools.sklearn_compiler.sample import Sample, spread
from penstock_tools.sklearn_compiler.steps import fitted_branches, held, is_pipeline, predicting_steps
from penstock_tools.sklearn_compiler.walk import Stage

TOLERANCE: Final = 1e-5
"""How far an answer may be off: float32 sums over some hundred terms leave an error of 1e-6."""

STEP_TOLERANCE: Final = 1e-9
"""How far a transformer's output may be off, as a share of its column's largest value; all but a few are equal."""

MAX_ROWS: Final = 2000
"""Rows of the sample that are compared, spread over it."""

MAX_VALUES: Final = 1 << 22
"""Values of one matrix that are compared. Of wide matrices fewer rows are, since each value is in memory several times."""


def check_transformers(compiled: Compiled) -> float:
    """Checks that each compiled transformer gives what scikit-learn's gives.

    Returns:
        The largest difference, as a share of the column's largest value.

    Raises:
        ModelFailedError: one does not; names the step, the column and the row.
        InvalidInputError: scikit-learn itself refuses the sample.
    """
    rows = compiled.sample.some(MAX_ROWS)
    given = _model_outputs(compiled.pipeline, rows.as_float64(), iter(compiled.stages))
    worst = 0.0
    for stage, values in given:
        if stage.parts and all(_can_be_made(part) for part in stage.parts):
            worst = max(worst, _check_stage(compiled, stage, rows, values))
    return worst


def check_answers(compiled: Compiled, pipeline: Pipeline, model: OnnxModel) -> float:
    """Checks that the graph behind the specification answers as the pipeline does.

    Args:
        compiled: the two halves.
        pipeline: the specification, ready to run.
        model: the opened graph.

    Returns:
        The largest difference: of a probability or score, or of a prediction as a share of the largest one.

    Raises:
        ModelFailedError: an answer differs by more than `TOLERANCE`, or a label where two scores are not as good as equal.
    """
    rows = compiled.sample.some(min(MAX_ROWS, _rows_of(pipeline.width)))
    matrix = pipeline.transform(rows.on_the_wire())
    names = (spec.name for spec in model.signature.outputs)
    answers = dict(zip(names, model.run({model.signature.inputs[0].name: matrix}), strict=True))
    with warnings.catch_warnings():
        # Of unknown categories, or of columns without names.
        warnings.simplefilter("ignore")
        return _check_model(compiled.pipeline, rows, answers)


def _check_model(pipeline: Any, rows: Sample, answers: Mapping[str, NDArray[Any]]) -> float:
    if is_classifier(pipeline):
        return _check_classes(pipeline, rows, answers)
    if "features" in answers:
        expected = pipeline.transform(rows.given)
        dense = _dense(expected, np.arange(rows.rows))
        return _check_values("a feature", _columns(answers["features"]), dense, rows)
    if "prediction" in answers:
        predicted = np.asarray(pipeline.predict(rows.given))
        return _check_values("a prediction", _columns(answers["prediction"]), _columns(predicted), rows)
    return _check_others(pipeline, rows, answers)


def _check_others(pipeline: Any, rows: Sample, answers: Mapping[str, NDArray[Any]]) -> float:
    """What labels rows and is no classifier: clusters, mixtures, outliers."""
    worst, margin = 0.0, np.zeros(rows.rows)
    for name, methods in (("scores", ("decision_function", "transform")), ("probabilities", ("predict_proba",))):
        method = next((method for method in methods if hasattr(pipeline, method)), None)
        if name not in answers or method is None:
            continue
        expected = _columns(np.asarray(getattr(pipeline, method)(rows.given), np.float64))
        worst = max(worst, _check_values(f"what {method} gives", _columns(answers[name]), expected, rows))
        margin = _margin(expected) / np.maximum(np.abs(expected).max(axis=1), np.finfo(np.float64).tiny)
    _check_labels(answers["label"], pipeline.predict(rows.given), margin, rows)
    return worst


def _can_be_made(part: Part) -> bool:
    """Whether a part is columns of the specification, and not too many to be made."""
    return isinstance(part, Numbers) or (isinstance(part, Words) and part.encode.columns.width <= limits.MAX_WIDTH)


def _check_stage(compiled: Compiled, stage: Stage, all_rows: Sample, values: Any) -> float:
    block = numbers(stage.parts)
    at_rows = spread(all_rows.rows, _rows_of(block.width))
    rows, expected = all_rows.chosen(at_rows), _dense(values, at_rows)
    got = Pipeline(compiled.features_of(block)).transform(rows.on_the_wire())
    found = difference(got, expected)
    # A vectorizer of float32 rounds where Penstock does not.
    dtype = values.dtype if hasattr(values, "dtype") else np.asarray(values).dtype
    tolerance = TOLERANCE if dtype == np.float32 else STEP_TOLERANCE
    if found.share <= tolerance:
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


def _check_classes(pipeline: Any, rows: Sample, answers: Mapping[str, NDArray[Any]]) -> float:
    """Scores first: a label may only differ where two scores are as good as equal."""
    predicted = np.asarray(pipeline.predict(rows.given))
    if predicted.ndim > 1:
        return _check_outputs(pipeline, rows, answers, predicted)
    worst, margin = 0.0, np.zeros(rows.rows)
    score_name = next((name for name in ("probabilities", "scores") if name in answers), None)
    if score_name is not None:
        expected = _scores(pipeline, rows.given)
        got = _like(answers[score_name], expected)
        what = "a probability" if score_name == "probabilities" else "a score"
        worst = _check_values(what, got, expected, rows, is_share=score_name == "scores")
        margin = _margin(expected)
    _check_labels(answers["label"], predicted, margin, rows)
    return worst


def _check_outputs(pipeline: Any, rows: Sample, answers: Mapping[str, NDArray[Any]], predicted: NDArray[Any]) -> float:
    """Several labels for a row, each with probabilities of its own, or one matrix of the second classes'."""
    found = pipeline.predict_proba(rows.given) if hasattr(pipeline, "predict_proba") else []
    each = [np.asarray(one, np.float64) for one in found] if isinstance(found, list) else []
    worst, margin = 0.0, np.zeros(predicted.shape)
    for at, expected in enumerate(each):
        got = answers.get(f"probabilities_{at}")
        if got is not None:
            worst = max(worst, _check_values("a probability", _columns(got), expected, rows, is_share=False))
            margin[:, at] = _margin(expected)
    if not isinstance(found, list) and "probabilities" in answers:
        worst = _check_values("a probability", _columns(answers["probabilities"]), found, rows, is_share=False)
        margin = 2 * np.abs(np.asarray(found) - 0.5)
    if answers["label"].shape != predicted.shape:
        raise ModelFailedError(
            f"the ONNX graph gives labels of the shape {list(answers['label'].shape)} instead of {list(predicted.shape)}"
        )
    for at in range(predicted.shape[1]):
        _check_labels(answers["label"][:, at], predicted[:, at], margin[:, at], rows)
    return worst


def _check_labels(got: NDArray[Any], expected: Any, margin: NDArray[np.float64], rows: Sample) -> None:
    wrong = np.flatnonzero(_labels(got) != _labels(expected))
    for row in wrong.tolist():
        if margin[row] > 2 * TOLERANCE:
            raise ModelFailedError(f"the ONNX graph gives another label than the pipeline in row {rows.places[row]}")


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


def _check_values(
    what: str, got: NDArray[np.float64], expected: NDArray[np.float64], rows: Sample, *, is_share: bool = True
) -> float:
    if got.shape != expected.shape:
        raise ModelFailedError(
            f"the ONNX graph gives {list(got.shape)} for {what}, rows and columns, instead of {list(expected.shape)}"
        )
    found = difference(got, expected, is_share=is_share)
    # Written so that NaN fails too.
    if not found.share <= TOLERANCE:
        at = found.row, found.column
        raise ModelFailedError(
            f"the ONNX graph differs from the pipeline by {found.share:.2g} in {what}, expected at most {TOLERANCE:g}; "
            f"row {rows.places[found.row]}: {got[at]:.9g} instead of {expected[at]:.9g}"
        )
    return found.share


def _dense(values: Any, at_rows: NDArray[np.intp]) -> NDArray[np.float64]:
    if sparse.issparse(values):
        return np.asarray(values.tocsr()[at_rows].toarray(), np.float64)
    return np.asarray(values, np.float64)[at_rows]


def _columns(values: NDArray[Any]) -> NDArray[np.float64]:
    return np.asarray(values, np.float64).reshape(len(values), -1)


@dataclass(frozen=True, slots=True)
class Difference:
    """The largest difference between two arrays of the same shape [rows, columns], as a share of the column's largest.

    Attributes:
        share: 0 where all are equal; inf where one is a number and the other is not.
        row, column: where.
    """

    share: float
    row: int
    column: int


def difference(got: NDArray[Any], expected: NDArray[Any], *, is_share: bool = True) -> Difference:
    """The largest difference between two matrices; not `is_share` takes it as it is."""
    if got.shape != expected.shape:
        return Difference(np.inf, 0, min(got.shape[1], expected.shape[1]))
    if not got.size:
        return Difference(0.0, 0, 0)
    finite = np.where(np.isfinite(expected), np.abs(expected), 0.0)
    scale = np.maximum(finite.max(axis=0, initial=0.0), np.finfo(np.float64).tiny) if is_share else 1.0
    with np.errstate(invalid="ignore", over="ignore"):
        share = np.abs(got - expected) / scale
    is_same = (got == expected) | (np.isnan(got) & np.isnan(expected))
    share = np.where(is_same, 0.0, np.where(np.isnan(share), np.inf, share))
    row, column = np.unravel_index(int(np.argmax(share)), share.shape)
    return Difference(float(share[row, column]), int(row), int(column))


def _model_outputs(fitted: Any, rows: Any, stages: Iterator[Stage]) -> Iterator[tuple[Stage, Any]]:
    """What scikit-learn's transformers give for the rows, in the order of `Walk.model`, with the stages that it recorded.

    Raises:
        InvalidInputError: scikit-learn refuses the rows; says where and why.
    """
    fitted = unwrapped(fitted)
    found = held(fitted)
    if not hasattr(fitted, "predict"):
        yield from _transformer_outputs(fitted, rows, stages)
    elif is_pipeline(fitted):
        *before, (_, last) = predicting_steps(fitted)
        for _, step in before:
            yield from _transformer_outputs(step, rows, stages)
            rows = _transformed(step, rows)
        yield from _model_outputs(last, rows, stages)
    elif found is not None:
        for member in found.members:
            own = rows if member.columns is None else _chosen(rows, member.columns)
            yield from _model_outputs(member.estimator, own, stages)


def _transformer_outputs(transformer: Any, rows: Any, stages: Iterator[Stage]) -> Iterator[tuple[Stage, Any]]:
    if transformer is None or isinstance(transformer, str):
        return
    if is_pipeline(transformer):
        for _, step in predicting_steps(transformer):
            yield from _transformer_outputs(step, rows, stages)
            rows = _transformed(step, rows)
    elif kinds.lookup({ColumnTransformer: True}, transformer):
        # A column that is chosen by its name or place, not by a list of one, comes as a series.
        as_series = {name for name, _, chosen in transformer.transformers_ if isinstance(chosen, str | int)}
        for name, inner, chosen in fitted_branches(transformer):
            picked = _chosen(rows, chosen[0] if name in as_series else chosen)
            yield from _transformer_outputs(inner, picked, stages)
    elif kinds.lookup({FeatureUnion: True}, transformer):
        for _, inner in transformer.transformer_list:
            yield from _transformer_outputs(inner, rows, stages)
    else:
        stage = next(stages)
        yield stage, _transformed(transformer, rows, stage.path)


def _transformed(transformer: Any, rows: Any, path: StepPath = ()) -> Any:
    """What scikit-learn gives.

    Raises:
        InvalidInputError: it refuses the rows.
    """
    if transformer is None or isinstance(transformer, str):
        return rows
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # A copy, because some transformers work in place.
            return transformer.transform(rows.copy())
    except (ValueError, TypeError) as error:
        reason = first_line(error).rstrip(".")
        raise InvalidInputError(
            f"{place(path) or type(transformer).__name__} itself refuses the sample: {reason}; give rows that it takes"
        ) from error


def _chosen(rows: Any, chosen: Sequence[int] | int) -> Any:
    places = chosen if isinstance(chosen, int) else list(chosen)
    return rows.iloc[:, places] if hasattr(rows, "iloc") else rows[:, places]
