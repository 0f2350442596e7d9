"""Neighbours within a radius, at distances that are summed as those of `neighbours` are."""

from typing import Any, Final

import numpy as np
import spox.opset.ai.onnx.v18 as op
from numpy.typing import NDArray
from scipy import sparse
from sklearn.neighbors import RadiusNeighborsClassifier, RadiusNeighborsRegressor
from spox import Var

from penstock_server.errors import UnsupportedError
from penstock_tools.sklearn_compiler.graph import ops
from penstock_tools.sklearn_compiler.graph.answer import Answer
from penstock_tools.sklearn_compiler.graph.context import Context
from penstock_tools.sklearn_compiler.graph.metrics import metric_of
from penstock_tools.sklearn_compiler.graph.neighbours import inverse
from penstock_tools.sklearn_compiler.refusals import NotCompiled


def _classifier(model: Any, x: Var, context: Context) -> Answer:
    if isinstance(model.classes_, list):
        raise UnsupportedError("RadiusNeighborsClassifier answers several outputs; one works")
    if model.outlier_label_ is None:
        raise UnsupportedError(
            "RadiusNeighborsClassifier refuses rows without neighbours, which no graph can; an outlier_label answers them"
        )
    classes = len(model.classes_)
    # The votes of each row have their sum beside them.
    votes = np.eye(classes)[np.ravel(model._y)]  # noqa: SLF001 - the answers that it keeps have no public name
    total, weight = _sums(model, votes, x)
    (outlier,) = model.outlier_label_
    is_outlier = op.equal(weight, op.const(0.0, np.float64))
    known = np.flatnonzero(model.classes_ == outlier)
    of_outliers = np.eye(classes)[known[0]] if len(known) else np.zeros(classes)
    share = op.where(is_outlier, op.const(of_outliers.reshape(1, -1)), op.div(total, weight))
    label = ops.label_at(ops.largest(share), model.classes_)
    if not len(known):
        others = op.constant(value=ops.label_values([outlier]))
        label = op.where(op.squeeze(is_outlier, op.const([1])), others, label)
    return Answer(label=label, probabilities=context.cast(share))


def _regressor(model: Any, x: Var, context: Context) -> Answer:
    answers = np.asarray(model._y, np.float64)  # noqa: SLF001
    total, weight = _sums(model, answers.reshape(len(answers), -1), x)
    # Without neighbours 0 / 0, which is NaN as in scikit-learn.
    return Answer(prediction=context.cast(op.div(total, weight)))


def _sums(model: Any, values: NDArray[np.float64], x: Var) -> tuple[Var, Var]:
    """The weighted sum of the neighbours' values [rows, values], and of their weights [rows, 1].

    Raises:
        UnsupportedError: it finds neighbours, or weighs them, in a way that is not known here.
    """
    name = type(model).__name__
    if sparse.issparse(model._fit_X) or model.weights not in ("uniform", "distance", None):  # noqa: SLF001
        raise UnsupportedError(f"{name} has sparse rows, or a function as its weights")
    try:
        metric = metric_of(model)
    except NotCompiled as reason:
        raise UnsupportedError(f"{name}: {reason}") from reason
    rows = np.asarray(model._fit_X, np.float64)  # noqa: SLF001 - the rows that it keeps
    reduced = metric.reduced(op.cast(x, to=np.float64), rows)
    radius = float(model.radius) if metric.power in (1.0, np.inf) else float(model.radius) ** metric.power
    is_near = op.cast(op.less_or_equal(reduced, op.const(radius, np.float64)), to=np.float64)
    # One over a distance of 0 counts nowhere: its row is a neighbour, and the others are none then.
    weights = op.mul(is_near, inverse(metric.distance(reduced))) if model.weights == "distance" else is_near
    return op.matmul(weights, op.const(values)), ops.row_sums(weights)


RULES: Final = {RadiusNeighborsClassifier: _classifier, RadiusNeighborsRegressor: _regressor}
