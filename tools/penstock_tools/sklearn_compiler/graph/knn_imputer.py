"""The rule of KNNImputer: missing values from the nearest rows that have them, by the distance over what both have.

Of donors at equal distances the first ones count. scikit-learn leaves that to numpy's partition, which chooses by the
machine's instructions; where that matters for the sample, the proof says so.
"""

from typing import Any, Final

import numpy as np
import spox.opset.ai.onnx.v18 as op
from numpy.typing import NDArray
from sklearn.impute import KNNImputer
from spox import Var

from penstock_tools.sklearn_compiler.graph import ops
from penstock_tools.sklearn_compiler.graph.answer import Answer
from penstock_tools.sklearn_compiler.graph.context import Context
from penstock_tools.sklearn_compiler.refusals import NotCompiled


def _imputer(imputer: Any, x: Var, context: Context) -> Answer:
    if imputer.metric != "nan_euclidean" or imputer.weights not in ("uniform", "distance"):
        raise NotCompiled("its distances or weights are functions")
    # Private: what the fit keeps has no public names.
    given, is_valid = np.asarray(imputer._fit_X, np.float64), np.asarray(imputer._valid_mask)  # noqa: SLF001
    is_missing = np.asarray(imputer._mask_fit_X, np.bool_)  # noqa: SLF001
    rows = op.cast(x, to=np.float64)
    if not np.isnan(imputer.missing_values):
        wanted = op.const(float(imputer.missing_values), np.float64)
        rows = op.where(op.equal(rows, wanted), op.const(np.nan, np.float64), rows)
    lacks = op.isnan(rows)
    kept = [int(at) for at in (range(len(is_valid)) if imputer.keep_empty_features else np.flatnonzero(is_valid))]
    has_gap = op.greater(op.reduce_max(op.cast(lacks, to=np.int64), keepdims=0), op.const(0))
    fit = np.where(is_missing, np.nan, given)

    def filled() -> list[Var]:
        distance = _distance(rows, lacks, fit)
        made = [
            _filled(imputer, ops.column(rows, at), ops.column(lacks, at), distance, fit[:, at])
            if is_valid[at]
            else op.mul(op.cast(ops.column(lacks, at), to=np.float64), op.const(0.0, np.float64))
            for at in kept
        ]
        return [op.concat(made, axis=1)]

    def whole() -> list[Var]:
        empty = op.const(np.where(is_valid, 1.0, 0.0)[kept].reshape(1, -1))
        return [op.mul(op.gather(rows, op.const(kept), axis=1), empty)]

    (features,) = op.if_(has_gap, then_branch=filled, else_branch=whole)
    parts = [context.cast(op.reshape(features, op.const([-1, len(kept)])))]
    if imputer.add_indicator:
        told = [int(at) for at in imputer.indicator_.features_]
        parts.append(context.cast(op.gather(lacks, op.const(told), axis=1)))
    return Answer(features=ops.side_by_side(parts))


def _distance(rows: Var, lacks: Var, fit: NDArray[np.float64]) -> Var:
    """To each fitted row, scaled up by the columns that one of both lacks; inf where they have none in common."""
    zero, one = op.const(0.0, np.float64), op.const(1.0, np.float64)
    total = common = op.mul(op.cast(ops.column(lacks, 0), to=np.float64), zero)
    for at in range(fit.shape[1]):
        is_lacking = op.or_(ops.column(lacks, at), op.const(np.isnan(fit[:, at]).reshape(1, -1)))
        difference = op.sub(ops.column(rows, at), op.const(np.nan_to_num(fit[:, at]).reshape(1, -1)))
        each = op.where(is_lacking, zero, op.mul(difference, difference))
        total = op.add(total, each)
        common = op.add(common, op.where(is_lacking, zero, one))
    scaled = op.mul(total, op.div(op.const(float(fit.shape[1]), np.float64), common))
    return op.where(op.equal(common, zero), op.const(np.inf, np.float64), op.sqrt(scaled))


def _filled(imputer: Any, column: Var, lacks: Var, distance: Var, fit: NDArray[np.float64]) -> Var:
    """A column with its gaps filled [rows, 1]."""
    donors = np.flatnonzero(~np.isnan(fit))
    if len(donors) < len(fit):
        distance = op.gather(distance, op.const(donors), axis=1)
    count = min(int(imputer.n_neighbors), len(donors))
    near, places = op.top_k(distance, op.const([count]), largest=0)
    one, zero = op.const(1.0, np.float64), op.const(0.0, np.float64)
    is_far = op.equal(near, op.const(np.inf, np.float64))
    weights = op.where(is_far, zero, one)
    if imputer.weights == "distance":
        is_here = op.cast(op.equal(near, zero), to=np.float64)
        has_here = op.greater(op.reduce_max(is_here, op.const([1]), keepdims=1), zero)
        weights = op.where(has_here, is_here, op.where(is_far, zero, op.reciprocal(near)))
    total = ops.row_sums(weights)
    mean = op.div(ops.row_sums(op.mul(op.gather(op.const(fit[donors]), places), weights)), total)
    given = op.where(op.equal(total, zero), op.const(float(fit[donors].mean()), np.float64), mean)
    return op.where(lacks, given, column)


RULES: Final[dict[type, Any]] = {KNNImputer: _imputer}
