"""Estimators of several outputs that hold an estimator for each: side by side, or each fed by those before it."""

from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
import spox.opset.ai.onnx.v18 as op
from sklearn.multioutput import ClassifierChain, MultiOutputClassifier, MultiOutputRegressor, RegressorChain
from spox import Var

from penstock_server.errors import UnsupportedError
from penstock_tools.sklearn_compiler.graph import ops
from penstock_tools.sklearn_compiler.graph.answer import Answer
from penstock_tools.sklearn_compiler.graph.context import Context


def multi_output_classifier(model: Any, x: Var, context: Context) -> Answer:
    """A label of each member, and the probabilities of each apart, since they may have different classes."""
    each = tuple(context.emit(member, x) for member in model.estimators_)
    return Answer(label=labels_side_by_side([one.label for one in each]), each=each)


def labels_side_by_side(labels: Sequence[Var | None]) -> Var:
    """Labels [rows] of several outputs as [rows, outputs]; strings if some are, as numpy makes of them."""
    found = [op.reshape(label, op.const([-1, 1])) for label in labels if label is not None]
    if any(label.unwrap_tensor().dtype.kind == "U" for label in found):
        found = [label if label.unwrap_tensor().dtype.kind == "U" else op.cast(label, to=np.str_) for label in found]
    return ops.side_by_side(found)


def multi_output_regressor(model: Any, x: Var, context: Context) -> Answer:
    """The predictions of each member."""
    return Answer(prediction=ops.side_by_side([ops.prediction(each, x, context) for each in model.estimators_]))


def classifier_chain(model: Any, x: Var, context: Context) -> Answer:
    """Labels and the probabilities of the second class of each output."""
    labels, probabilities, seen = [], [], x
    has_probabilities = all(hasattr(member, "predict_proba") for member in model.estimators_)
    for member in model.estimators_:
        found = context.emit(member, seen)
        if found.label is None or found.label.unwrap_tensor().dtype.kind == "U":
            raise UnsupportedError("ClassifierChain passes labels that are texts on; expected numbers")
        label = op.reshape(found.label, op.const([-1, 1]))
        labels.append(label)
        if has_probabilities:
            probabilities.append(ops.column(ops.probabilities(member, seen, context), 1))
        seen = op.concat([seen, context.cast(_passed_on(model, member, label, seen, context))], axis=1)
    return Answer(
        label=_in_order(labels, model.order_),
        probabilities=_in_order(probabilities, model.order_) if has_probabilities else None,
    )


def _passed_on(model: Any, member: Any, label: Var, seen: Var, context: Context) -> Var:
    """What the next members see of this one."""
    method = model.chain_method_
    if method == "predict_proba":
        return ops.column(ops.probabilities(member, seen, context), 1)
    return ops.scores(member, seen, context) if method == "decision_function" else label


def regressor_chain(model: Any, x: Var, context: Context) -> Answer:
    """The predictions of each output."""
    found, seen = [], x
    for member in model.estimators_:
        found.append(ops.prediction(member, seen, context))
        seen = op.concat([seen, found[-1]], axis=1)
    return Answer(prediction=_in_order(found, model.order_))


def _in_order(given: Sequence[Var], order: Sequence[int]) -> Var:
    """The outputs in their own order; they were made in the chain's."""
    return ops.side_by_side([given[at] for at in np.argsort(order).tolist()])


RULES: Final[dict[type, Callable[[Any, Var, Context], Answer]]] = {
    MultiOutputClassifier: multi_output_classifier,
    MultiOutputRegressor: multi_output_regressor,
    ClassifierChain: classifier_chain,
    RegressorChain: regressor_chain,
}
