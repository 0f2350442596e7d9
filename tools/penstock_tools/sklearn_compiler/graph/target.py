"""Undoes the transformation of a regressor's target, behind the regressor."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import numpy as np
import spox.opset.ai.onnx.v18 as op
from sklearn.compose import TransformedTargetRegressor
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)
from spox import Var

from penstock_server.errors import UnsupportedError
from penstock_tools.sklearn_compiler import kinds
from penstock_tools.sklearn_compiler.graph import ops
from penstock_tools.sklearn_compiler.graph.answer import Answer
from penstock_tools.sklearn_compiler.graph.context import Context
from penstock_tools.sklearn_compiler.graph.recorded import record
from penstock_tools.sklearn_compiler.refusals import NotCompiled


def transformed_target(estimator: Any, x: Var, context: Context) -> Answer:
    """The regressor's predictions, transformed back.

    Raises:
        UnsupportedError: the transformation is not one that is known.
    """
    found = context.emit(estimator.regressor_, x)
    assert found.prediction is not None  # It is a regressor.
    return replace(found, prediction=_inverse(estimator.transformer_, context.cast(found.prediction), context))


def _inverse(transformer: Any, y: Var, context: Context) -> Var:
    rule = kinds.lookup(_INVERSES, transformer)
    name = type(transformer).__name__
    if rule is None:
        raise UnsupportedError(
            f"the target was transformed by {name}, which the graph cannot undo; expected one of "
            f"{', '.join(sorted(kind.__name__ for kind in _INVERSES))}"
        )
    try:
        return rule(transformer, y, context)
    except NotCompiled as reason:
        function = getattr(transformer, "inverse_func", None)
        by = name if function is None else getattr(function, "__name__", repr(function))
        raise UnsupportedError(
            f"the target was transformed, and {by} undoes it, which the graph cannot: {reason}; numpy's functions "
            "of single values and arithmetic work"
        ) from reason


def _function(transformer: Any, y: Var, context: Context) -> Var:
    if transformer.inverse_func is None:
        return y
    return record(transformer.inverse_func, y, context, transformer.inv_kw_args)


def _standard(scaler: Any, y: Var, context: Context) -> Var:
    scaled = op.mul(y, context.constant(scaler.scale_)) if scaler.with_std else y
    return op.add(scaled, context.constant(scaler.mean_)) if scaler.with_mean else scaled


def _robust(scaler: Any, y: Var, context: Context) -> Var:
    scaled = op.mul(y, context.constant(scaler.scale_)) if scaler.with_scaling else y
    return op.add(scaled, context.constant(scaler.center_)) if scaler.with_centering else scaled


def _max_abs(scaler: Any, y: Var, context: Context) -> Var:
    return op.mul(y, context.constant(scaler.scale_))


def _min_max(scaler: Any, y: Var, context: Context) -> Var:
    return op.div(op.sub(y, context.constant(scaler.min_)), context.constant(scaler.scale_))


def _power(transformer: Any, y: Var, context: Context) -> Var:
    """Box-Cox and Yeo-Johnson undone, one column a power."""
    if transformer.standardize:
        # scikit-learn keeps the scaler behind the powers to itself.
        y = _standard(transformer._scaler, y, context)  # noqa: SLF001
    undo = _BY_POWER[transformer.method]
    powers = [float(power) for power in transformer.lambdas_]
    return ops.side_by_side([undo(ops.column(y, at), power, context) for at, power in enumerate(powers)])


def _box_cox(y: Var, power: float, context: Context) -> Var:
    if power == 0.0:
        return op.exp(y)
    one = context.constant(1.0)
    return op.pow(op.add(op.mul(y, context.constant(power)), one), context.constant(1.0 / power))


def _yeo_johnson(y: Var, power: float, context: Context) -> Var:
    zero, one = context.constant(0.0), context.constant(1.0)
    # Each side is computed for all values; those of the other side are put at 0, where it is finite.
    is_positive = op.greater_or_equal(y, zero)
    positive = op.sub(_box_cox(op.where(is_positive, y, zero), power, context), one)
    flipped = op.neg(op.where(is_positive, zero, y))
    return op.where(is_positive, positive, op.sub(one, _box_cox(flipped, 2.0 - power, context)))


_BY_POWER: Final[dict[str, Callable[[Var, float, Context], Var]]] = {
    "box-cox": _box_cox,
    "yeo-johnson": _yeo_johnson,
}


def _quantile(transformer: Any, y: Var, context: Context) -> Var:
    """The quantile at each value's place, on straight lines between them."""
    if transformer.output_distribution == "normal":
        # The share below y of a normal distribution.
        half, root = context.constant(0.5), context.constant(np.sqrt(0.5))
        y = op.mul(half, op.add(context.constant(1.0), op.erf(op.mul(y, root))))
    places, values = np.asarray(transformer.references_), np.asarray(transformer.quantiles_)
    return ops.side_by_side(
        [ops.interpolated(ops.column(y, at), places, values[:, at], context) for at in range(values.shape[1])]
    )


def _pipeline(pipeline: Any, y: Var, context: Context) -> Var:
    for _, step in reversed(pipeline.steps):
        y = y if step in (None, "passthrough") else _inverse(step, y, context)
    return y


_INVERSES: Final[dict[type, Callable[[Any, Var, Context], Var]]] = {
    FunctionTransformer: _function,
    StandardScaler: _standard,
    RobustScaler: _robust,
    MaxAbsScaler: _max_abs,
    MinMaxScaler: _min_max,
    PowerTransformer: _power,
    QuantileTransformer: _quantile,
    Pipeline: _pipeline,
}

RULES: Final = {TransformedTargetRegressor: transformed_target}
