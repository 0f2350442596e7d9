"""Classifiers of many classes made of binary ones: one against the rest, one against one, output codes."""

from typing import Any, Final

import numpy as np
import spox.opset.ai.onnx.v18 as op
from sklearn.base import is_classifier
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier, OutputCodeClassifier, _ConstantPredictor
from spox import Var

from penstock_tools.sklearn_compiler.graph import ops
from penstock_tools.sklearn_compiler.graph.answer import Answer
from penstock_tools.sklearn_compiler.graph.context import Context, columns


def one_vs_rest(model: Any, x: Var, context: Context) -> Answer:
    """The class whose member is surest; of several labels at once, each member decides for its own."""
    given = ops.side_by_side([ops.binary(each, x, context) for each in model.estimators_])
    probabilities = _probabilities(model, x, context) if hasattr(model, "predict_proba") else None
    scores = given if hasattr(model, "decision_function") else None
    if model.label_binarizer_.y_type_ == "multiclass":
        return Answer(
            label=ops.label_at(ops.largest(given), model.classes_), probabilities=probabilities, scores=scores
        )
    is_over = op.cast(op.greater(given, context.constant(_threshold(model.estimators_[0]))), to="int64")
    label = is_over if model.multilabel_ else ops.label_at(op.reshape(is_over, op.const([-1])), model.classes_)
    return Answer(label=label, probabilities=probabilities, scores=scores)


def _probabilities(model: Any, x: Var, context: Context) -> Var:
    found = ops.side_by_side([ops.column(ops.probabilities(each, x, context), 1) for each in model.estimators_])
    if len(model.estimators_) == 1:
        return ops.with_complement(found, context)
    if model.multilabel_:
        return found
    total = ops.row_sums(found)
    return op.div(found, op.where(op.equal(total, context.constant(0.0)), context.constant(1.0), total))


def _threshold(member: Any) -> float:
    return 0.0 if hasattr(member, "decision_function") and is_classifier(member) else 0.5


def constant_predictor(model: Any, x: Var, context: Context) -> Answer:
    """A class that all or none of the rows had: 1 or 0 for every row."""
    first = ops.column(x, 0)
    # NaN times 0 would be NaN.
    nothing = context.cast(op.and_(op.equal(first, first), op.const(np.array(False))))
    second = op.add(nothing, context.constant(float(model.y_[0])))
    label = op.cast(op.reshape(second, op.const([-1])), to="int64")
    return Answer(label=label, probabilities=ops.with_complement(second, context), scores=second)


def one_vs_one(model: Any, x: Var, context: Context) -> Answer:
    """The class with the most wins; how sure the members are decides between equal ones."""
    classes = len(model.classes_)
    chosen = model.pairwise_indices_ or [None] * len(model.estimators_)
    rows = [x if places is None else columns(x, places) for places in chosen]
    members = list(zip(model.estimators_, rows, strict=True))
    sure = ops.side_by_side([ops.binary(each, own, context) for each, own in members])
    second = ops.side_by_side(
        [context.cast(op.reshape(ops.label(each, own, context), op.const([-1, 1]))) for each, own in members]
    )
    gains, wins, losses = (np.zeros((len(members), classes)) for _ in range(3))
    pairs = [(i, j) for i in range(classes) for j in range(i + 1, classes)]
    for at, (i, j) in enumerate(pairs):
        gains[at, i], gains[at, j] = -1.0, 1.0
        wins[at, j], losses[at, i] = 1.0, 1.0
    total = op.matmul(sure, context.constant(gains))
    scale = op.mul(context.constant(3.0), op.add(op.abs(total), context.constant(1.0)))
    votes = op.add(
        op.matmul(second, context.constant(wins)),
        op.matmul(op.sub(context.constant(1.0), second), context.constant(losses)),
    )
    scores = op.add(votes, op.div(total, scale))
    if classes == 2:
        scores = ops.column(scores, 1)
        is_over = op.greater(scores, context.constant(_threshold(model.estimators_[0])))
        place = op.cast(op.reshape(is_over, op.const([-1])), to="int64")
        return Answer(label=ops.label_at(place, model.classes_), scores=scores)
    return Answer(label=ops.label_at(ops.largest(scores), model.classes_), scores=scores)


def output_code(model: Any, x: Var, context: Context) -> Answer:
    """The class whose code is nearest to the members' answers."""
    given = ops.side_by_side([ops.binary(each, x, context) for each in model.estimators_])
    codes = np.asarray(model.code_book_, np.float64)
    # The answers' own squares are the same for all classes.
    distance = op.sub(
        context.constant((codes**2).sum(axis=1).reshape(1, -1)),
        op.mul(context.constant(2.0), op.matmul(given, context.constant(codes.T))),
    )
    return Answer(label=ops.label_at(op.arg_min(distance, axis=1, keepdims=0), model.classes_))


RULES: Final = {
    OneVsRestClassifier: one_vs_rest,
    OneVsOneClassifier: one_vs_one,
    OutputCodeClassifier: output_code,
    _ConstantPredictor: constant_predictor,
}
