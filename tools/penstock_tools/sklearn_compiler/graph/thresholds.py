"""Classifiers of two classes that compare a score with a threshold of their own."""

from typing import Any, Final, NamedTuple

import spox.opset.ai.onnx.v18 as op
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from spox import Var

from penstock_tools.sklearn_compiler.graph import ops
from penstock_tools.sklearn_compiler.graph.answer import Answer
from penstock_tools.sklearn_compiler.graph.context import Context


def fixed_threshold(model: Any, x: Var, context: Context) -> Answer:
    """The second class, or `pos_label`, from the threshold on."""
    inner = getattr(model, "estimator_", model.estimator)
    by_probability = _by_probability(model, inner)
    threshold = (0.5 if by_probability else 0.0) if model.threshold == "auto" else model.threshold
    return _thresholded(_Rule(inner, model, model.pos_label, threshold, by_probability), x, context)


def tuned_threshold(model: Any, x: Var, context: Context) -> Answer:
    """The second class, or the scorer's `pos_label`, from the best threshold on."""
    inner = model.estimator_
    # Only the scorer knows which class it took as positive.
    positive = model._curve_scorer._get_pos_label()  # noqa: SLF001
    return _thresholded(_Rule(inner, model, positive, model.best_threshold_, _by_probability(model, inner)), x, context)


class _Rule(NamedTuple):
    """How an inner estimator's scores become labels."""

    inner: Any
    model: Any
    positive: Any
    threshold: float
    by_probability: bool


def _by_probability(model: Any, inner: Any) -> bool:
    return model.response_method == "predict_proba" or (
        model.response_method == "auto" and hasattr(inner, "predict_proba")
    )


def _thresholded(rule: _Rule, x: Var, context: Context) -> Answer:
    classes = list(rule.model.classes_)
    at = 1 if rule.positive is None else classes.index(rule.positive)
    if rule.by_probability:
        score = ops.column(ops.probabilities(rule.inner, x, context), at)
    else:
        score = ops.scores(rule.inner, x, context)
        score = score if at == 1 else op.neg(score)
    is_positive = op.greater_or_equal(op.reshape(score, op.const([-1])), context.constant(rule.threshold))
    label = ops.label_at(op.cast(is_positive, to="int64"), classes if at == 1 else classes[::-1])
    found = context.emit(rule.inner, x, scores=context.wants_scores)
    return Answer(label=label, probabilities=found.probabilities, scores=found.scores)


RULES: Final = {FixedThresholdClassifier: fixed_threshold, TunedThresholdClassifierCV: tuned_threshold}
