"""Estimators that answer the same whatever the row is; they look at no column, not even for what is missing."""

from typing import Any, Final

import numpy as np
import spox.opset.ai.onnx.v18 as op
from numpy.typing import ArrayLike
from sklearn.dummy import DummyClassifier, DummyRegressor
from spox import Var

from penstock_server.errors import UnsupportedError
from penstock_tools.sklearn_compiler.graph import ops
from penstock_tools.sklearn_compiler.graph.answer import Answer
from penstock_tools.sklearn_compiler.graph.context import Context


def _classifier(model: Any, x: Var, context: Context) -> Answer:
    if model.strategy in ("stratified", "uniform"):
        raise UnsupportedError(
            f"DummyClassifier with the strategy {model.strategy!r} answers at random, each time anew"
        )
    if isinstance(model.n_classes_, list):
        raise UnsupportedError("DummyClassifier answers several outputs; one works")
    prior = np.asarray(model.class_prior_, np.float64)
    is_constant = model.strategy == "constant"
    place = int(np.flatnonzero(model.classes_ == model.constant)[0]) if is_constant else int(prior.argmax())
    shares = prior if model.strategy == "prior" else np.eye(len(prior))[place]
    probabilities = _repeated(shares, x, context)
    places = op.expand(op.const([place]), op.slice(op.shape(x), op.const([0]), op.const([1])))
    return Answer(label=ops.label_at(places, model.classes_), probabilities=probabilities)


def _regressor(model: Any, x: Var, context: Context) -> Answer:
    return Answer(prediction=_repeated(np.ravel(model.constant_), x, context))


def _repeated(values: ArrayLike, x: Var, context: Context) -> Var:
    """The values for each row of x [rows, values]."""
    one = context.constant(np.reshape(values, (1, -1)))
    rows = op.slice(op.shape(x), op.const([0]), op.const([1]))
    return op.expand(one, op.concat([rows, op.const([1])], axis=0))


RULES: Final = {DummyClassifier: _classifier, DummyRegressor: _regressor}
