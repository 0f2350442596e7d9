"""Undoes the transformation of a regressor's target, behind the regressor."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np
import spox.opset.ai.onnx.v18 as op
from sklearn.compose import TransformedTargetRegressor
from sklearn.preprocessing import FunctionTransformer, MinMaxScaler, StandardScaler
from spox import Var

from penstock_server.errors import UnsupportedError
from penstock_tools.sklearn_compiler.graph.answer import Answer
from penstock_tools.sklearn_compiler.graph.context import Context

Inverse = Callable[[Var, Context], Var]
"""What undoes a transformation, of predictions [rows, targets]."""


def transformed_target(estimator: Any, x: Var, context: Context) -> Answer:
    """The regressor's predictions, transformed back.

    Raises:
        UnsupportedError: the transformation is not one that is known.
    """
    inverse = _inverse(estimator.transformer_)
    found = context.emit(estimator.regressor_, x)
    assert found.prediction is not None  # It is a regressor.
    return replace(found, prediction=inverse(context.cast(found.prediction), context))


def _inverse(transformer: Any) -> Inverse:
    known = _INVERSES.get(type(transformer))
    inverse = None if known is None else known(transformer)
    if inverse is None:
        function = getattr(transformer, "inverse_func", None)
        by = type(transformer).__name__ if function is None else getattr(function, "__name__", repr(function))
        raise UnsupportedError(
            f"the target was transformed, and {by} undoes it, which the graph cannot; expected the inverse "
            "numpy.exp, numpy.expm1 or numpy.square, or StandardScaler or MinMaxScaler"
        )
    return inverse


def _function(transformer: Any) -> Inverse | None:
    if transformer.inv_kw_args:
        return None
    known: dict[Any, Inverse] = {
        None: lambda y, _: y,
        np.exp: lambda y, _: op.exp(y),
        np.expm1: lambda y, context: op.sub(op.exp(y), context.constant(1.0)),
        np.square: lambda y, _: op.mul(y, y),
    }
    return next((inverse for function, inverse in known.items() if function is transformer.inverse_func), None)


def _standard(scaler: Any) -> Inverse:
    def inverse(y: Var, context: Context) -> Var:
        scaled = op.mul(y, context.constant(scaler.scale_)) if scaler.with_std else y
        return op.add(scaled, context.constant(scaler.mean_)) if scaler.with_mean else scaled

    return inverse


def _min_max(scaler: Any) -> Inverse:
    return lambda y, context: op.div(op.sub(y, context.constant(scaler.min_)), context.constant(scaler.scale_))


_INVERSES: Final[dict[type, Callable[[Any], Inverse | None]]] = {
    FunctionTransformer: _function,
    StandardScaler: _standard,
    MinMaxScaler: _min_max,
}

RULES: Final = {TransformedTargetRegressor: transformed_target}
