"""AdaBoost: weighted votes of members that each saw the mistakes of those before it."""

from typing import Any, Final

import numpy as np
import spox.opset.ai.onnx.v18 as op
from sklearn.ensemble import AdaBoostClassifier, AdaBoostRegressor
from spox import Var

from penstock_tools.sklearn_compiler.graph import ops
from penstock_tools.sklearn_compiler.graph.answer import Answer
from penstock_tools.sklearn_compiler.graph.context import Context


def ada_boost_classifier(model: Any, x: Var, context: Context) -> Answer:
    """The class with the largest sum of weights; a member takes its share from the classes that it does not choose."""
    classes = len(model.classes_)
    # A fit that ended early has fewer members than weights.
    weights = np.asarray(model.estimator_weights_, np.float64)[: len(model.estimators_)] / np.sum(
        model.estimator_weights_
    )
    votes = []
    for member, weight in zip(model.estimators_, weights, strict=True):
        place = ops.place_of(ops.label(member, x, context), model.classes_)
        # The weight where it is 1, and -weight / (classes - 1) where it is 0.
        scale, offset = weight * classes / (classes - 1), -weight / (classes - 1)
        chosen = ops.one_hot(place, classes, context)
        votes.append(op.add(op.mul(chosen, context.constant(scale)), context.constant(offset)))
    total = op.sum(votes)
    if classes == 2:
        scores = op.sub(ops.column(total, 1), ops.column(total, 0))
        logits = op.mul(op.concat([op.neg(scores), scores], axis=1), context.constant(0.5))
        is_second = op.cast(op.greater(op.reshape(scores, op.const([-1])), context.constant(0.0)), to="int64")
        label = ops.label_at(is_second, model.classes_)
    else:
        scores = total
        logits = op.mul(total, context.constant(1.0 / (classes - 1)))
        label = ops.label_at(ops.largest(total), model.classes_)
    return Answer(label=label, probabilities=op.softmax(logits, axis=1), scores=scores)


def ada_boost_regressor(model: Any, x: Var, context: Context) -> Answer:
    """The weighted median of the members' predictions."""
    members = len(model.estimators_)
    weights = np.asarray(model.estimator_weights_, np.float64)[:members]
    given = ops.side_by_side([ops.prediction(each, x, context) for each in model.estimators_])
    ordered, places = op.top_k(given, op.const([members]), axis=1, largest=0)
    reached = op.cumsum(op.gather(context.constant(weights), places), op.const(1))
    last = ops.column(reached, members - 1)
    is_median = op.cast(op.greater_or_equal(reached, op.mul(context.constant(0.5), last)), to="int64")
    at = op.arg_max(is_median, axis=1, keepdims=1)
    return Answer(prediction=op.gather_elements(ordered, at, axis=1))


RULES: Final = {AdaBoostClassifier: ada_boost_classifier, AdaBoostRegressor: ada_boost_regressor}
