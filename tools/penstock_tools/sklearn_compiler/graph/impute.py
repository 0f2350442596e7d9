"""IterativeImputer: the initial fill, then the fitted estimators in their order, each of which fills one column.

A linear estimator reads the whole matrix, with weights of 0 for the columns that it has nothing to do with, so that each
round is a product, a sum and a choice; other estimators get their own columns. scikit-learn stops at the initial fill when
every value of a whole call is missing; here such a row is filled like any other, as it is beside other rows.
"""

from typing import Any, Final

import numpy as np
import spox.opset.ai.onnx.v18 as op
from numpy.typing import NDArray

# The public name is there only where somebody has allowed scikit-learn's experiments.
from sklearn.impute._iterative import IterativeImputer
from sklearn.linear_model import ARDRegression, BayesianRidge
from sklearn.linear_model._base import LinearModel
from spox import Var

from penstock_server.errors import UnsupportedError
from penstock_tools.sklearn_compiler.graph.answer import Answer
from penstock_tools.sklearn_compiler.graph.context import Context, width


def iterative(imputer: Any, x: Var, context: Context) -> Answer:
    """The filled matrix [rows, kept columns], and behind it the indicators, if it adds them.

    Raises:
        UnsupportedError: it draws its values.
    """
    if imputer.sample_posterior:
        raise UnsupportedError("IterativeImputer draws its values by chance; sample_posterior=False works")
    missing = _missing(imputer, x, context)
    kept = _kept(imputer)
    statistics = np.asarray(imputer.initial_imputer_.statistics_, np.float64)
    start = op.where(missing, context.constant(statistics.reshape(1, -1)), x)
    filled = _rounds(imputer, _columns(start, kept), _columns(missing, kept), context)
    if not imputer.add_indicator:
        return Answer(features=filled)
    indicated = _columns(missing, np.asarray(imputer.indicator_.features_))
    return Answer(features=op.concat([filled, context.cast(indicated)], axis=1))


def _missing(imputer: Any, x: Var, context: Context) -> Var:
    marker = imputer.missing_values
    return op.isnan(x) if np.isnan(marker) else op.equal(x, context.constant(float(marker)))


def _kept(imputer: Any) -> NDArray[np.intp]:
    """The columns that had values when it was fitted, or all where it keeps empty ones."""
    is_empty = np.asarray(imputer._is_empty_feature)  # noqa: SLF001 - no public name
    return np.arange(len(is_empty)) if imputer.keep_empty_features else np.flatnonzero(~is_empty)


def _columns(x: Var, chosen: NDArray[np.intp]) -> Var:
    return x if len(chosen) == width(x) else op.gather(x, op.const(chosen.tolist()), axis=1)


def _rounds(imputer: Any, filled: Var, missing: Var, context: Context) -> Var:
    """The matrix after all estimators. A column that was always empty keeps its initial fill."""
    if imputer.n_iter_ == 0:
        return filled
    is_filled = ~np.asarray(imputer._is_empty_feature)[_kept(imputer)]  # noqa: SLF001 - as above
    low, high = imputer._min_value, imputer._max_value  # noqa: SLF001 - the limits that were given, one for each column
    where: dict[int, Var] = {}
    for at, neighbours, estimator in imputer.imputation_sequence_:
        if not is_filled[at]:
            continue
        if at not in where:
            where[at] = op.and_(missing, op.const(np.arange(len(is_filled)).reshape(1, -1) == at))
        value = _prediction(estimator, filled, np.asarray(neighbours, np.intp), context)
        filled = op.where(where[at], _clipped(value, low[at], high[at], context), filled)
    return filled


def _prediction(estimator: Any, filled: Var, neighbours: NDArray[np.intp], context: Context) -> Var:
    """What the estimator predicts for its column [rows, 1]."""
    if _is_linear(estimator):
        weights = np.zeros((width(filled), 1))
        weights[neighbours, 0] = np.ravel(estimator.coef_)
        product = op.matmul(filled, context.constant(weights))
        return op.add(product, context.constant(np.reshape(estimator.intercept_, (1, 1))))
    found = context.emit(estimator, op.gather(filled, op.const(neighbours.tolist()), axis=1)).prediction
    if found is None:
        raise UnsupportedError(f"{type(estimator).__name__} in IterativeImputer is no regressor; expected one")
    return op.reshape(context.cast(found), op.const([-1, 1]))


def _is_linear(estimator: Any) -> bool:
    """Whether it predicts x @ coef_ + intercept_. These two have a `predict` of their own, for the deviation."""
    kind = type(estimator)
    is_plain = isinstance(estimator, LinearModel) and kind.predict is LinearModel.predict
    return (is_plain or kind in (BayesianRidge, ARDRegression)) and hasattr(estimator, "coef_")


def _clipped(value: Var, low: float, high: float, context: Context) -> Var:
    if np.isfinite(low):
        value = op.max([value, context.constant(low)])
    return op.min([value, context.constant(high)]) if np.isfinite(high) else value


RULES: Final = {IterativeImputer: iterative}
