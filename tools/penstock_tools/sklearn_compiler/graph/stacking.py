"""Stacking: a final estimator on the answers of others, and on the rows themselves where they pass through."""

from typing import Any, Final

import spox.opset.ai.onnx.v18 as op
from sklearn.base import is_classifier
from sklearn.ensemble import StackingClassifier, StackingRegressor
from spox import Var

from penstock_tools.sklearn_compiler.graph import ops
from penstock_tools.sklearn_compiler.graph.answer import Answer
from penstock_tools.sklearn_compiler.graph.context import Context, columns, width


def stacking_classifier(stack: Any, x: Var, context: Context) -> Answer:
    """What the final estimator gives, which was fitted on the places of the classes."""
    found = context.emit(stack.final_estimator_, _answers(stack, x, context), scores=context.wants_scores)
    if found.label is None:
        # A regressor as the final estimator is refused by scikit-learn.
        return found
    label = ops.label_at(ops.place_of(found.label, stack.final_estimator_.classes_), stack.classes_)
    return Answer(label=label, probabilities=found.probabilities, scores=found.scores)


def stacking_regressor(stack: Any, x: Var, context: Context) -> Answer:
    """What the final estimator gives."""
    return Answer(prediction=ops.prediction(stack.final_estimator_, _answers(stack, x, context), context))


def _answers(stack: Any, x: Var, context: Context) -> Var:
    members = zip(stack.estimators_, stack.stack_method_, strict=True)
    answers = [part for each, method in members for part in _answer(stack, each, method, x, context)]
    return ops.side_by_side([*answers, x] if stack.passthrough else answers)


def _answer(stack: Any, member: Any, method: str, x: Var, context: Context) -> list[Var]:
    """A member's columns: of two classes the second's probability alone."""
    if method == "predict_proba":
        found = context.emit(member, x)
        if found.each:
            given = [context.cast(each.probabilities) for each in found.each if each.probabilities is not None]
            return [columns(each, range(1, width(each))) for each in given]
        probabilities = ops.probabilities(member, x, context)
        return [ops.column(probabilities, 1) if len(stack.classes_) == 2 else probabilities]
    if method == "decision_function":
        return [ops.scores(member, x, context)]
    if is_classifier(member):
        return [context.cast(op.unsqueeze(ops.label(member, x, context), op.const([1])))]
    return [ops.prediction(member, x, context)]


RULES: Final = {StackingClassifier: stacking_classifier, StackingRegressor: stacking_regressor}
