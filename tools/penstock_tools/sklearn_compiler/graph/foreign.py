"""Rules where skl2onnx's converter answers otherwise than scikit-learn, or onnxruntime lacks its operators in doubles."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np
import spox.opset.ai.onnx.v18 as op
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import SGDClassifier
from sklearn.mixture import BayesianGaussianMixture, GaussianMixture
from sklearn.naive_bayes import CategoricalNB
from sklearn.svm import SVR, NuSVR, OneClassSVM
from spox import Var

from penstock_tools.sklearn_compiler.graph import convert, ops
from penstock_tools.sklearn_compiler.graph.answer import Answer
from penstock_tools.sklearn_compiler.graph.context import Context, width
from penstock_tools.sklearn_compiler.refusals import NotCompiled


def _in_singles(estimator: Any, x: Var, context: Context) -> Answer:
    """In a graph of doubles: computed in single precision, which is all that onnxruntime's operators can."""
    if context.datatype == "FP32":
        raise NotCompiled("skl2onnx converts it")
    narrow = convert.emit(estimator, op.cast(x, to=np.float32), replace(context, datatype="FP32"))

    def wide(var: Var | None) -> Var | None:
        return None if var is None else context.cast(var)

    return Answer(
        prediction=wide(narrow.prediction),
        label=narrow.label,
        probabilities=wide(narrow.probabilities),
        scores=wide(narrow.scores),
    )


def _discriminant(model: Any, x: Var, context: Context) -> Answer:
    """LinearDiscriminantAnalysis, whose probabilities of two classes skl2onnx takes for those of two scores."""
    scores = op.add(op.matmul(x, context.constant(model.coef_.T)), context.constant(model.intercept_.reshape(1, -1)))
    label = ops.label_at(_place(scores, context), model.classes_)
    if width(scores) == 1:
        return Answer(label=label, probabilities=ops.with_complement(op.sigmoid(scores), context), scores=scores)
    return Answer(label=label, probabilities=op.softmax(scores, axis=1), scores=scores)


def _modified_huber(model: Any, x: Var, context: Context) -> Answer:
    """SGDClassifier whose probabilities are cut off at 0 and 1: labels are those of the scores, which skl2onnx overlooks."""
    if model.loss != "modified_huber":
        raise NotCompiled("skl2onnx converts it")
    answer = convert.emit(model, x, replace(context, wants_scores=True))
    assert answer.scores is not None
    return replace(answer, label=ops.label_at(_place(answer.scores, context), model.classes_))


def _place(scores: Var, context: Context) -> Var:
    """The place of the class by decision_function, INT64 [rows]."""
    if width(scores) > 1:
        return ops.largest(scores)
    is_second = op.cast(op.greater(scores, context.constant(0.0)), to=np.int64)
    return op.reshape(is_second, op.const([-1]))


RULES: Final[dict[type, Callable[[Any, Var, Context], Answer]]] = {
    **dict.fromkeys((SVR, NuSVR, OneClassSVM, GaussianMixture, BayesianGaussianMixture, CategoricalNB), _in_singles),
    LinearDiscriminantAnalysis: _discriminant,
    SGDClassifier: _modified_huber,
}
