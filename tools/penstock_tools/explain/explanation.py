"""Makes the explanation of a compiled pipeline: finds the one model behind its features, and proves the attributions.

The proof runs what a server runs: on the sample's rows base and attributions must add up to what the model itself computes.
A pipeline that cannot be explained is published all the same, with the reason.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.base import is_classifier
from sklearn.compose import TransformedTargetRegressor
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV

from penstock_server.errors import InvalidInputError, UnsupportedError, first_line
from penstock_server.explain import explanation as explanation_file
from penstock_server.explain.attributor import attributor_of
from penstock_server.explain.explanation import AnyExplanation, Explanation, Meaning, Origins, Unexplained
from penstock_server.features.pipeline import Pipeline
from penstock_tools.explain import linear, sums, trees
from penstock_tools.explain.front import Front, front_of
from penstock_tools.explain.origins import origins_of
from penstock_tools.sklearn_compiler.compiler import Compiled
from penstock_tools.sklearn_compiler.graph.plan import Plan
from penstock_tools.sklearn_compiler.graph.wrappers import unwrapped
from penstock_tools.sklearn_compiler.trees import TreeEnsemble, read_trees

PROVEN_ROWS: Final = 256
"""Rows of the sample for which attributions are added up."""
BACKGROUND_ROWS: Final = 10_000
BACKGROUND_VALUES: Final = 1 << 24
TOLERANCE: Final = 1e-4
"""How far base and attributions may be from the answer, as a share of the largest: libraries compute in float32."""

Reals = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Model:
    """The one model behind the features.

    Attributes:
        fitted: what predicts.
        plan: what reaches it.
        note: what its answer still goes through; "" for nothing.
    """

    fitted: Any
    plan: Plan
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class _Made:
    """An explanation, and what proves it.

    Attributes:
        expected: what the model itself computes for the first rows [rows, outputs].
        link: makes that of the sums of base and attributions.
    """

    explanation: Explanation
    expected: Reals
    link: Callable[[Reals], Reals]


def explained(compiled: Compiled, pipeline: Pipeline) -> AnyExplanation:
    """The explanation of a compiled pipeline, proven on its sample; `Unexplained` where there is none.

    Args:
        compiled: its two halves.
        pipeline: the specification, ready to run.
    """
    try:
        return _explained(compiled, pipeline)
    except (UnsupportedError, InvalidInputError) as error:
        return Unexplained(str(error)[: explanation_file.MAX_SENTENCE])
    except Exception as error:  # noqa: BLE001 - whatever a model's library raises, the version answers without attributions
        reason = f"{type(error).__name__} while they were made: {first_line(error)}"
        return Unexplained(reason[: explanation_file.MAX_SENTENCE])


def _explained(compiled: Compiled, pipeline: Pipeline) -> Explanation:
    model = _model_of(compiled.plan)
    ensemble = read_trees(model.fitted)
    is_known = ensemble is not None or linear.is_linear(model.fitted) or sums.is_sum(model.fitted)
    if not is_known:
        name = type(model.fitted).__name__
        raise UnsupportedError(f"{name} is neither a linear model nor a sum of trees, whose attributions are exact")
    most = max(PROVEN_ROWS, min(BACKGROUND_ROWS, BACKGROUND_VALUES // pipeline.width))
    matrix = pipeline.transform(compiled.sample.some(most).on_the_wire())
    rows = matrix.astype(np.float64)
    origins = origins_of(pipeline.spec)
    with warnings.catch_warnings():
        # If the model was fitted on named columns, it warns of a bare matrix.
        warnings.simplefilter("ignore")
        if sums.is_sum(model.fitted):
            made = _of_sum(model, rows, origins)
        else:
            front = front_of(model.plan, pipeline.width, rows[:PROVEN_ROWS])
            sums.check_fit(model.fitted, front, rows)
            parts = model, front, rows, origins
            made = _of_linear(*parts) if ensemble is None else _of_trees(ensemble, *parts)
    explanation_file.check(made.explanation, pipeline.spec)
    if len(explanation_file.encode(made.explanation)) > explanation_file.MAX_BYTES:
        raise UnsupportedError(f"they take more than {explanation_file.MAX_BYTES >> 20} MiB; expected a smaller model")
    _prove(made, pipeline, matrix[: len(made.expected)])
    return made.explanation


def _model_of(plan: Plan) -> _Model:
    """The model in a plan, without what only hands its answer on."""
    fitted = unwrapped(plan.estimator)
    if fitted is None:
        raise UnsupportedError("the pipeline gives features, and predicts nothing")
    if type(fitted) is TransformedTargetRegressor:
        inner = _model_of(_member(plan, fitted.regressor_))
        is_changed = getattr(fitted.transformer_, "inverse_func", fitted.transformer_) is not None
        return replace(inner, note=" before the target is transformed back" if is_changed else inner.note)
    if type(fitted) in (FixedThresholdClassifier, TunedThresholdClassifierCV):
        return _model_of(_member(plan, getattr(fitted, "estimator_", None) or fitted.estimator))
    return _Model(fitted, plan)


def _member(plan: Plan, estimator: Any) -> Plan:
    """The plan of what an estimator holds; without one of its own it gets what the holder gets."""
    return plan.members.get(id(estimator)) or replace(plan, estimator=estimator, members={})


def _of_linear(model: _Model, front: Front, rows: Reals, origins: Origins) -> _Made:
    fitted = model.fitted
    coefficients, base = linear.terms(fitted)
    meaning = Meaning(linear.of(fitted) + model.note, (), *_labels(fitted, len(base)))
    terms = linear.on_features(front, coefficients, rows.shape[1], base)
    made = linear.explanation(*terms, rows, meaning, origins)
    return _Made(made, linear.margin(fitted, front.through(rows[:PROVEN_ROWS])), _same)


def _of_sum(model: _Model, rows: Reals, origins: Origins) -> _Made:
    found = sums.sum_of(model.plan, rows.shape[1], rows[:PROVEN_ROWS])
    terms, expected = found.terms, found.values
    # Of two shares, which add up to 1, the second says all.
    outputs = [1] if found.of == "the probability" and expected.shape[1] == 2 else list(range(expected.shape[1]))
    meaning = Meaning(found.of + model.note, (), *_labels(model.fitted, len(outputs)))
    if isinstance(terms, TreeEnsemble):
        made: Explanation = trees.explanation(terms, outputs, meaning, origins)
    else:
        chosen = terms.coefficients[:, outputs], terms.base[outputs]
        made = linear.explanation(*chosen, rows, meaning, origins)
    return _Made(made, expected[:, outputs], _same)


def _of_trees(ensemble: TreeEnsemble, model: _Model, front: Front, rows: Reals, origins: Origins) -> _Made:
    fitted = model.fitted
    if ensemble.link not in _LINKS:
        raise UnsupportedError(f"the answer of {type(fitted).__name__} is no sum of trees, nor a known function of one")
    if front.columns is None:
        raise UnsupportedError("the graph makes other features of the features before the trees get them")
    of, link = _LINKS[ensemble.link]
    is_share = ensemble.link == "identity" and is_classifier(fitted)
    # Of two shares, which add up to 1, the second says all.
    outputs = [1] if is_share and ensemble.outputs == 2 else list(range(ensemble.outputs))
    meaning = Meaning(("the probability" if is_share else of) + model.note, (), *_labels(fitted, len(outputs)))
    made = trees.explanation(trees.on_columns(ensemble, front.columns), outputs, meaning, origins)
    answers = _answers(fitted, front.through(rows[:PROVEN_ROWS]))
    return _Made(made, answers[:, -len(outputs) :], link)


def _same(sums: Reals) -> Reals:
    return sums


def _softmax(sums: Reals) -> Reals:
    shifted = np.exp(sums - sums.max(axis=1, keepdims=True))
    shares: Reals = shifted / shifted.sum(axis=1, keepdims=True)
    return shares


_LINKS: Final[dict[str, tuple[str, Callable[[Reals], Reals]]]] = {
    "identity": ("the prediction", _same),
    "logistic": ("the log-odds", expit),
    "softmax": ("the scores before softmax", _softmax),
    "exp": ("the logarithm of the prediction", np.exp),
}
"""What the sums of an ensemble are called, and how they become answers, by its link."""


def _labels(model: Any, outputs: int) -> tuple[tuple[str, ...], str]:
    """The names of the outputs, and the class that a single one speaks for."""
    classes = _class_names(model) if is_classifier(model) else []
    if outputs == 1:
        return (), classes[1] if len(classes) == 2 else ""
    return (tuple(classes) if len(classes) == outputs else tuple(map(str, range(outputs)))), ""


def _class_names(model: Any) -> list[str]:
    """The classes as replies name them: the graph gives whole numbers for booleans and for floats that are whole."""
    classes = np.asarray(model.classes_)
    if classes.dtype.kind in "bf" and np.array_equal(classes, classes.astype(np.int64)):
        classes = classes.astype(np.int64)
    return [str(label) for label in classes.tolist()]


def _answers(model: Any, rows: Reals) -> Reals:
    """What the model answers: probabilities [rows, classes], or predictions [rows, targets]."""
    values = model.predict_proba(rows) if is_classifier(model) else model.predict(rows)
    return np.asarray(values, np.float64).reshape(len(rows), -1)


def _prove(made: _Made, pipeline: Pipeline, matrix: NDArray[Any]) -> None:
    """Checks that base and attributions add up, on the rows of a matrix, to what the model itself computes."""
    explanation = made.explanation
    found = attributor_of(explanation, pipeline.columns).run(matrix)
    total = found.reshape(len(matrix), len(pipeline.columns), -1).sum(axis=1) + np.asarray(explanation.meaning.base)
    scale = max(1.0, float(np.abs(made.expected).max(initial=0.0)))
    off = float(np.abs(made.link(total) - made.expected).max(initial=0.0)) / scale
    # Written so that NaN fails too.
    if not off <= TOLERANCE:
        raise UnsupportedError(f"they do not add up to the model's answers: they differ by {off:.2g} on the sample")
