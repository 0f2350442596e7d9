"""Reads the trees and forests of scikit-learn.

Its trees compare `float32(x) <= threshold`, the threshold in double precision.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock_tools.sklearn_compiler.trees import LEAF, Tree, TreeEnsemble


def regressor_tree(estimator: Any) -> TreeEnsemble:
    return _forest([estimator.tree_], _targets)


def regressor_forest(estimator: Any) -> TreeEnsemble:
    return _forest([tree.tree_ for tree in estimator.estimators_], _targets)


def classifier_tree(estimator: Any) -> TreeEnsemble | None:
    return _forest([estimator.tree_], _shares) if estimator.n_outputs_ == 1 else None


def classifier_forest(estimator: Any) -> TreeEnsemble | None:
    if estimator.n_outputs_ != 1:
        return None
    return _forest([tree.tree_ for tree in estimator.estimators_], _shares)


def tree(fitted: Any, value: NDArray[np.float64], columns: NDArray[np.intp] | None = None) -> Tree:
    """The record of a `sklearn.tree._tree.Tree`.

    Args:
        fitted: the tree.
        value: float64 [nodes, outputs]; those of inner nodes are dropped.
        columns: for a tree that was fitted on some columns alone, which these are.
    """
    is_leaf = fitted.children_left == LEAF
    feature = fitted.feature if columns is None else columns[np.maximum(fitted.feature, 0)]
    return Tree(
        feature=np.where(is_leaf, LEAF, feature).astype(np.int32),
        threshold=np.where(is_leaf, 0.0, fitted.threshold),
        left=fitted.children_left.astype(np.int32),
        right=fitted.children_right.astype(np.int32),
        missing_left=np.asarray(fitted.missing_go_to_left, np.bool_) & ~is_leaf,
        value=np.where(is_leaf[:, None], value, 0.0),
        cover=np.asarray(fitted.weighted_n_node_samples, np.float64),
    )


def _targets(fitted: Any) -> NDArray[np.float64]:
    values: NDArray[np.float64] = fitted.value[:, :, 0]
    return values


def _shares(fitted: Any) -> NDArray[np.float64]:
    """The shares of the classes in each node, as predict_proba takes them."""
    values: NDArray[np.float64] = fitted.value[:, 0, :]
    return values


def _forest(fitted: Sequence[Any], value_of: Any) -> TreeEnsemble:
    count = len(fitted)
    trees = tuple(tree(each, value_of(each) / count) for each in fitted)
    outputs = trees[0].value.shape[1]
    return TreeEnsemble(trees, outputs, "<=", "FP32", np.zeros(outputs), averaged=count)
