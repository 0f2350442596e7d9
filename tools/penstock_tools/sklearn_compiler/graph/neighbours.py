"""Rules of k nearest neighbours, with scikit-learn's own choice among neighbours at equal distances.

Distances are summed column by column in double precision, as scikit-learn's k-d tree sums them, so equal ones are equal
here. Where the k-th and the next distance are equal, `neighbour_ties` finds which of them scikit-learn keeps; that takes
longer, and only a batch with such a row pays for it.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import spox.opset.ai.onnx.v18 as op
from numpy.typing import NDArray
from scipy import sparse
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from spox import Var

from penstock_tools.sklearn_compiler.graph import neighbour_ties, ops
from penstock_tools.sklearn_compiler.graph.answer import Answer
from penstock_tools.sklearn_compiler.graph.context import Context, width
from penstock_tools.sklearn_compiler.graph.metrics import metric_of
from penstock_tools.sklearn_compiler.refusals import NotCompiled


def _classifier(model: Any, x: Var, context: Context) -> Answer:
    if isinstance(model.classes_, list):
        raise NotCompiled("it answers several targets")
    votes = _one_hot(np.ravel(model._y), len(model.classes_))  # noqa: SLF001 - the answers that it keeps have no public name
    mean = context.cast(_mean(model, votes, op.cast(x, to=np.float64)))
    return Answer(label=ops.label_at(ops.largest(mean), model.classes_), probabilities=mean)


def _regressor(model: Any, x: Var, context: Context) -> Answer:
    answers = np.asarray(model._y, np.float64)  # noqa: SLF001
    return Answer(prediction=context.cast(_mean(model, answers.reshape(len(answers), -1), op.cast(x, to=np.float64))))


def _one_hot(places: NDArray[np.intp], classes: int) -> NDArray[np.float64]:
    return np.eye(classes)[places]


def _mean(model: Any, values: NDArray[np.float64], x: Var) -> Var:
    """The weighted mean of the neighbours' values [rows of x, values]."""
    metric = metric_of(model)
    if sparse.issparse(model._fit_X) or model.weights not in ("uniform", "distance", None):  # noqa: SLF001
        raise NotCompiled("its rows are sparse, or its weights a function")
    rows = np.asarray(model._fit_X, np.float64)  # noqa: SLF001 - the rows that it keeps
    if width(x) != rows.shape[1]:
        raise NotCompiled("its rows have another width")
    reduced = metric.reduced(x, rows)
    found, chosen = neighbour_ties.nearest(reduced, x, model, metric)
    neighbours = op.gather(op.const(values), chosen, axis=0)
    if model.weights != "distance":
        return op.reduce_mean(neighbours, op.const([1]), keepdims=0)
    weights = op.unsqueeze(inverse(metric.distance(found)), op.const([2]))
    total = op.reduce_sum(op.mul(neighbours, weights), op.const([1]), keepdims=0)
    return op.div(total, op.reduce_sum(weights, op.const([1]), keepdims=0))


def inverse(distance: Var) -> Var:
    """1 / distance; a row that has neighbours at the distance 0 counts these alone, each once."""
    zero = op.const(0.0, np.float64)
    is_zero = op.cast(op.equal(distance, zero), to=np.float64)
    has_zero = op.greater(op.reduce_max(is_zero, op.const([1]), keepdims=1), zero)
    return op.where(has_zero, is_zero, op.reciprocal(distance))


RULES: Final[dict[type, Callable[[Any, Var, Context], Answer]]] = {
    KNeighborsClassifier: _classifier,
    KNeighborsRegressor: _regressor,
}
