"""Reads XGBoost's trees from the JSON that it saves models as.

It compares single precision, `x < threshold`, the other way round with categories: those that a node names go right, all
others left. What an ensemble starts from is measured, since versions keep it before or after the link.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_tools.sklearn_compiler.trees import LEAF, Link, Tree, TreeEnsemble

_LINKS: Final[dict[str, Link]] = {
    **dict.fromkeys(
        ("reg:squarederror", "reg:squaredlogerror", "reg:pseudohubererror", "reg:absoluteerror"), "identity"
    ),
    **dict.fromkeys(("reg:quantileerror", "rank:ndcg", "rank:map", "rank:pairwise"), "identity"),
    **dict.fromkeys(("binary:logistic", "reg:logistic"), "logistic"),
    **dict.fromkeys(("count:poisson", "reg:gamma", "reg:tweedie"), "exp"),
    **dict.fromkeys(("multi:softprob", "multi:softmax"), "softmax"),
}


def xgboost(estimator: Any) -> TreeEnsemble | None:
    """The estimators of XGBoost with trees; None for linear ones and for objectives without a known link."""
    learner = _learner(estimator)
    booster, link = learner["gradient_booster"], _LINKS.get(learner["objective"]["name"])
    model = _model(booster)
    if link is None or model is None:
        return None
    weights = booster.get("weight_drop")
    sizes = learner["learner_model_param"]
    outputs = max(int(sizes["num_class"]), int(sizes.get("num_target", 1)), 1)
    used = _used(estimator, model)
    trees = tuple(
        _tree(model["trees"][at], model["tree_info"][at], outputs, 1.0 if weights is None else weights[at])
        for at in range(used)
    )
    missing = float(np.float32(estimator.missing))
    zero = np.zeros(outputs)
    without_base = TreeEnsemble(trees, outputs, "<", "FP32", zero, link, missing=missing)
    return TreeEnsemble(trees, outputs, "<", "FP32", _base(estimator, without_base), link, missing=missing)


def categories(estimator: Any) -> dict[int, list[Any]]:
    """The categories of a fitted estimator's columns, by place, in the order of their codes; empty where it has none.

    Empty also where a version before 3.1 has fitted it, which keeps no categories.
    """
    booster = estimator.get_booster()
    if "c" not in (booster.feature_types or ()):
        return {}
    model = _model(_learner(estimator)["gradient_booster"]) or {}
    found = {at: _decoded(each) for at, each in enumerate(model.get("cats", {}).get("enc", ()))}
    return {at: values for at, values in found.items() if values}


def _decoded(given: Mapping[str, Any]) -> list[Any]:
    """Numbers as they are; texts lie behind each other in UTF-8."""
    if "offsets" not in given:
        return list(given["values"])
    offsets, data = given["offsets"], bytes(np.array(given["values"], np.int8).view(np.uint8))
    return [data[start:end].decode() for start, end in itertools.pairwise(offsets)]


def _learner(estimator: Any) -> Any:
    return json.loads(estimator.get_booster().save_raw("json"))["learner"]


def _model(booster: Mapping[str, Any]) -> Any:
    """The trees, None where there are none."""
    if booster["name"] == "dart":
        return booster["gbtree"]["model"]
    return booster["model"] if booster["name"] == "gbtree" else None


def _used(estimator: Any, model: Mapping[str, Any]) -> int:
    """How many trees predict: those up to the best round of an early stop."""
    rounds, indptr = _rounds(estimator), model.get("iteration_indptr")
    return len(model["trees"]) if rounds == 0 or not indptr else int(indptr[min(rounds, len(indptr) - 1)])


def _rounds(estimator: Any) -> int:
    """How many rounds predict; 0 for all."""
    try:
        return int(estimator.best_iteration) + 1
    except AttributeError:
        # It was fitted without an early stop.
        return 0


def _base(estimator: Any, ensemble: TreeEnsemble) -> NDArray[np.float64]:
    """What a row of missing values gets, less its leaves."""
    import xgboost as library

    booster = estimator.get_booster()
    row = library.DMatrix(
        np.full((1, booster.num_features()), np.nan, np.float32),
        feature_names=booster.feature_names,
        feature_types=booster.feature_types,
        enable_categorical=True,
    )
    given = booster.predict(row, output_margin=True, iteration_range=(0, _rounds(estimator)))
    leaves = sum((_missing_leaf(tree) for tree in ensemble.trees), start=np.zeros(ensemble.outputs))
    return np.asarray(given, np.float64).reshape(-1) - leaves


def _missing_leaf(tree: Tree) -> NDArray[np.float64]:
    node = 0
    while tree.feature[node] != LEAF:
        node = int(tree.left[node] if tree.missing_left[node] else tree.right[node])
    leaf: NDArray[np.float64] = tree.value[node]
    return leaf


def _tree(given: Mapping[str, Any], output: int, outputs: int, weight: float) -> Tree:
    left = np.array(given["left_children"], np.int32)
    right = np.array(given["right_children"], np.int32)
    is_leaf = left == LEAF
    conditions = np.array(given["split_conditions"], np.float32).astype(np.float64)
    missing_left = np.array(given["default_left"], np.bool_) & ~is_leaf
    value = np.zeros((len(left), outputs))
    if leaf_weights := given.get("leaf_weights"):
        # Leaves of several targets lie in an array of their own; the right child of a leaf is its place there.
        places = np.array(right[is_leaf])
        value[is_leaf] = np.array(leaf_weights, np.float32).reshape(-1, outputs)[places]
    else:
        value[is_leaf, output] = conditions[is_leaf] * weight
    categories = _categories(given)
    is_category = np.zeros(len(left), np.bool_)
    is_category[[*categories]] = True
    # The record sends named categories left.
    left, right = np.where(is_category, right, left), np.where(is_category, left, right)
    return Tree(
        feature=np.where(is_leaf, LEAF, np.array(given["split_indices"], np.int32)).astype(np.int32),
        threshold=np.where(is_leaf | is_category, 0.0, conditions),
        left=left.astype(np.int32),
        right=np.where(is_leaf, LEAF, right).astype(np.int32),
        missing_left=missing_left ^ is_category,
        value=value,
        cover=np.array(given["sum_hessian"], np.float64),
        categories=tuple(categories.get(at) for at in range(len(left))) if categories else (),
    )


def _categories(given: Mapping[str, Any]) -> dict[int, tuple[int, ...]]:
    """The codes that a node names, by node."""
    codes: Sequence[int] = given["categories"]
    return {
        node: tuple(sorted(codes[start : start + size]))
        for node, start, size in zip(
            given["categories_nodes"], given["categories_segments"], given["categories_sizes"], strict=True
        )
    }
