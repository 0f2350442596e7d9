"""NearestCentroid: the class whose centre is nearest, and probabilities of a discriminant analysis beside it.

scikit-learn takes the plain distances for the label where all classes weigh the same, and those that are divided by the
spread of the columns for probabilities always. So a label need not be that of the largest probability; it is not here either.
"""

from typing import Any, Final

import numpy as np
import spox.opset.ai.onnx.v18 as op
from numpy.typing import NDArray
from sklearn.neighbors import NearestCentroid
from spox import Var

from penstock_tools.sklearn_compiler.graph import ops
from penstock_tools.sklearn_compiler.graph.answer import Answer
from penstock_tools.sklearn_compiler.graph.context import Context
from penstock_tools.sklearn_compiler.graph.metrics import Metric


def _nearest(model: Any, x: Var, context: Context) -> Answer:
    wide, centroids = op.cast(x, to=np.float64), np.asarray(model.centroids_, np.float64)
    metric = Metric(2.0 if model.metric == "euclidean" else 1.0)
    scores = _scores(model, wide, centroids, metric)
    is_even = np.isclose(model.class_prior_, 1 / len(model.classes_)).all()
    nearest = op.neg(metric.reduced(wide, centroids)) if is_even else scores
    label = ops.label_at(ops.largest(nearest), model.classes_)
    if model.metric != "euclidean":
        return Answer(label=label)
    two = len(model.classes_) == 2
    decision = op.sub(ops.column(scores, 1), ops.column(scores, 0)) if two else scores
    return Answer(label=label, probabilities=context.cast(op.softmax(scores, axis=1)), scores=context.cast(decision))


def _scores(model: Any, x: Var, centroids: NDArray[np.float64], metric: Metric) -> Var:
    """Minus the squared distance, each column divided by its spread, and twice the logarithm of the class's share."""
    spread = np.asarray(model.within_class_std_dev_, np.float64)
    spread = np.where(spread == 0, 1.0, spread)
    reduced = metric.reduced(op.div(x, op.const(spread.reshape(1, -1))), centroids / spread)
    square = reduced if metric.power == 2.0 else op.mul(reduced, reduced)
    return op.sub(op.const(2.0 * np.log(model.class_prior_).reshape(1, -1)), square)


RULES: Final = {NearestCentroid: _nearest}
