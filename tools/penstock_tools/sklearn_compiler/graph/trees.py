"""Rules of estimators that are made of trees: the library's own comparisons, sums and links, from `sklearn_compiler.trees`.

The sums are one TreeEnsembleRegressor. Its matrix is of the precision in which the library compares.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import spox.opset.ai.onnx.ml.v3 as ml
import spox.opset.ai.onnx.v18 as op
from spox import Var

from penstock_tools.sklearn_compiler.graph import ops
from penstock_tools.sklearn_compiler.graph.answer import Answer
from penstock_tools.sklearn_compiler.graph.context import Context, width
from penstock_tools.sklearn_compiler.graph.tree_arrays import tree_arrays
from penstock_tools.sklearn_compiler.refusals import NotCompiled
from penstock_tools.sklearn_compiler.trees import TreeEnsemble, read_trees

_TINY: Final = float(np.float32(1e-35))
"""What LightGBM takes for zero."""


def emit(estimator: Any, x: Var, context: Context) -> Answer:
    """What an estimator made of trees gives.

    Raises:
        NotCompiled: its trees are not read.
        UnsupportedError: its trees have something that the graph cannot do; names it.
    """
    ensemble = read_trees(estimator)
    if ensemble is None:
        raise NotCompiled(f"the trees of {type(estimator).__name__} are not read")
    raw = sums(ensemble, x, context)
    if ensemble.link == "isolation":
        return _outliers(estimator, ensemble, raw, context)
    # CatBoost's regressors have no classes in theirs.
    if len(getattr(estimator, "classes_", ())) > 0:
        return _classes(estimator, ensemble, raw, context)
    return Answer(prediction=_LINKS[ensemble.link](_scaled(ensemble, raw, context), context))


def sums(ensemble: TreeEnsemble, x: Var, context: Context) -> Var:
    """The base and the sums of the leaves, of the graph's datatype [rows, outputs]."""
    dtype = np.dtype(np.float64) if ensemble.precision == context.datatype == "FP64" else np.dtype(np.float32)
    compared = x if x.unwrap_tensor().dtype == dtype else op.cast(x, to=dtype)
    compared = _with_missing(compared, ensemble, dtype)
    made = tree_arrays(ensemble, dtype)
    base = ensemble.base * ensemble.averaged
    values: dict[str, Any]
    if dtype == np.float32:
        values = {"nodes_values": made.thresholds, "target_weights": made.leaf_values, "base_values": base.tolist()}
    else:
        values = {
            "nodes_values_as_tensor": np.array(made.thresholds, np.float64),
            "target_weights_as_tensor": np.array(made.leaf_values, np.float64),
            "base_values_as_tensor": base,
        }
    if not base.any():
        values = {name: value for name, value in values.items() if not name.startswith("base")}
    total = ml.tree_ensemble_regressor(
        compared,
        n_targets=ensemble.outputs,
        nodes_treeids=made.trees,
        nodes_nodeids=made.nodes,
        nodes_featureids=made.features,
        nodes_modes=made.modes,
        nodes_truenodeids=made.true_nodes,
        nodes_falsenodeids=made.false_nodes,
        nodes_missing_value_tracks_true=made.missing_true,
        target_treeids=made.leaf_trees,
        target_nodeids=made.leaf_nodes,
        target_ids=made.leaf_outputs,
        **values,
    )
    total = context.cast(total)
    return total if ensemble.averaged == 1 else op.div(total, context.constant(float(ensemble.averaged)))


def _with_missing(x: Var, ensemble: TreeEnsemble, dtype: np.dtype[Any]) -> Var:
    """The matrix with NaN where the library takes a number for a missing one."""
    nan = op.const(np.nan, dtype)
    if not np.isnan(ensemble.missing):
        x = op.where(op.equal(x, op.const(ensemble.missing, dtype)), nan, x)
    if not ensemble.zero_is_missing:
        return x
    is_column = np.zeros((1, width(x)), np.bool_)
    is_column[0, list(ensemble.zero_is_missing)] = True
    is_zero = op.and_(op.less_or_equal(op.abs(x), op.const(_TINY, dtype)), op.const(is_column))
    return op.where(is_zero, nan, x)


def _scaled(ensemble: TreeEnsemble, raw: Var, context: Context) -> Var:
    return raw if ensemble.link_scale == 1.0 else op.mul(raw, context.constant(ensemble.link_scale))


def _classes(estimator: Any, ensemble: TreeEnsemble, raw: Var, context: Context) -> Answer:
    if ensemble.outputs == 1:
        # The softmax of 0 and s is the logistic of s and its complement, in two operators instead of six.
        both = op.mul(raw, context.constant([[0.0, ensemble.link_scale]]))
        place = op.arg_max(both, axis=1, keepdims=0, select_last_index=int(_takes_ties(estimator)))
        return Answer(label=_label(place, estimator), probabilities=op.softmax(both, axis=1), scores=raw)
    answer = _LINKS[ensemble.link](_scaled(ensemble, raw, context), context)
    scores = None if ensemble.link == "identity" else raw
    return Answer(label=_label(ops.largest(raw), estimator), probabilities=answer, scores=scores)


def _label(place: Var, estimator: Any) -> Var:
    is_place = np.array_equal(estimator.classes_, np.arange(len(estimator.classes_)))
    return place if is_place else ops.label_at(place, estimator.classes_)


def _takes_ties(estimator: Any) -> bool:
    """Whether a sum of 0 is the second class; to most libraries it is the first."""
    from sklearn.ensemble import GradientBoostingClassifier

    return isinstance(estimator, GradientBoostingClassifier)


def _outliers(estimator: Any, ensemble: TreeEnsemble, raw: Var, context: Context) -> Answer:
    score = _LINKS[ensemble.link](raw, context)
    decision = op.sub(score, context.constant(float(estimator.offset_)))
    is_outlier = op.less(decision, context.constant(0.0))
    label = op.where(is_outlier, op.const([-1], np.int64), op.const([1], np.int64))
    return Answer(label=op.reshape(label, op.const([-1])), scores=decision)


_LINKS: Final[dict[str, Callable[[Var, Context], Var]]] = {
    "identity": lambda s, _: s,
    "logistic": lambda s, _: op.sigmoid(s),
    "softmax": lambda s, _: op.softmax(s, axis=1),
    "exp": lambda s, _: op.exp(s),
    "normalise": lambda s, _: op.div(s, ops.row_sums(s)),
    "isolation": lambda s, context: op.neg(op.pow(context.constant(2.0), s)),
}
