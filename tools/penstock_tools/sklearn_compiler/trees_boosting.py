"""Reads scikit-learn's boosted trees, isolation forests and boosted stumps.

GradientBoosting compares as its trees do, `float32(x) <= threshold`; HistGradientBoosting compares doubles.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.dummy import DummyClassifier, DummyRegressor

from penstock_tools.sklearn_compiler.trees import LEAF, Link, Tree, TreeEnsemble
from penstock_tools.sklearn_compiler.trees_sklearn import tree


def gradient_boosting(estimator: Any) -> TreeEnsemble | None:
    """GradientBoostingClassifier and -Regressor; None where the boosting starts from an estimator that looks at the rows."""
    if not (isinstance(estimator.init_, str) or type(estimator.init_) in (DummyClassifier, DummyRegressor)):
        return None
    outputs = estimator.estimators_.shape[1]
    trees = tuple(
        tree(stage.tree_, _one_output(estimator.learning_rate * stage.tree_.value[:, 0, 0], at, outputs))
        for stages in estimator.estimators_
        for at, stage in enumerate(stages)
    )
    # Private, because what a constant start becomes in front of each loss is nowhere else; it reads no column.
    base = estimator._raw_predict_init(np.zeros((1, estimator.n_features_in_), np.float32))[0]  # noqa: SLF001
    link, scale = _gradient_boosting_link(estimator)
    return TreeEnsemble(trees, outputs, "<=", "FP32", np.asarray(base, np.float64), link, scale)


def _gradient_boosting_link(estimator: Any) -> tuple[Link, float]:
    if not hasattr(estimator, "classes_"):
        return "identity", 1.0
    if len(estimator.classes_) > 2:
        return "softmax", 1.0
    return "logistic", 2.0 if estimator.loss == "exponential" else 1.0


def hist_gradient_boosting(estimator: Any) -> TreeEnsemble | None:
    """HistGradientBoostingClassifier and -Regressor.

    Categories are codes, as they are behind the estimator's own encoder; its columns come first then.
    """
    outputs = estimator.n_trees_per_iteration_
    # Private: scikit-learn shows neither the trees nor what they start from.
    known = _known_codes(estimator._bin_mapper)  # noqa: SLF001
    trees = tuple(
        _hist_tree(predictor, at, outputs, known)
        for stages in estimator._predictors  # noqa: SLF001
        for at, predictor in enumerate(stages)
    )
    base = np.asarray(estimator._baseline_prediction, np.float64).reshape(-1)  # noqa: SLF001
    link = _hist_link(estimator)
    return None if link is None else TreeEnsemble(trees, outputs, "<=", "FP64", base, link)


def _hist_link(estimator: Any) -> Link | None:
    if hasattr(estimator, "classes_"):
        return "logistic" if len(estimator.classes_) == 2 else "softmax"
    links: dict[str, Link] = {"IdentityLink": "identity", "LogLink": "exp"}
    return links.get(type(estimator._loss.link).__name__)  # noqa: SLF001 - no public name of the fitted loss


def _known_codes(mapper: Any) -> dict[int, frozenset[int]]:
    """The codes that the fit saw, of each column of categories."""
    return {
        int(column): frozenset(int(code) for code in mapper.bin_thresholds_[column])
        for column in np.flatnonzero(mapper.is_categorical_)
    }


def _hist_tree(predictor: Any, output: int, outputs: int, known: dict[int, frozenset[int]]) -> Tree:
    nodes = predictor.nodes
    is_leaf = nodes["is_leaf"].astype(np.bool_)
    left, right = nodes["left"].astype(np.int32), nodes["right"].astype(np.int32)
    missing_left = nodes["missing_go_to_left"].astype(np.bool_)
    is_category = nodes["is_categorical"].astype(np.bool_) & ~is_leaf
    categories: list[tuple[int, ...] | None] = [None] * len(nodes)
    for at in np.flatnonzero(is_category):
        codes = _codes(predictor.raw_left_cat_bitsets[nodes["bitset_idx"][at]])
        if missing_left[at]:
            # Unknown codes go where missing ones do: left. The record sends them right, so the sides change places.
            codes = known[int(nodes["feature_idx"][at])] - codes
            left[at], right[at] = right[at], left[at]
            missing_left[at] = False
        categories[at] = tuple(sorted(codes))
    return Tree(
        feature=np.where(is_leaf, LEAF, nodes["feature_idx"]).astype(np.int32),
        threshold=np.where(is_leaf | is_category, 0.0, nodes["num_threshold"]),
        left=np.where(is_leaf, LEAF, left).astype(np.int32),
        right=np.where(is_leaf, LEAF, right).astype(np.int32),
        missing_left=missing_left & ~is_leaf,
        value=_one_output(np.where(is_leaf, nodes["value"], 0.0), output, outputs),
        cover=nodes["count"].astype(np.float64),
        categories=tuple(categories) if is_category.any() else (),
    )


def _codes(bits: NDArray[np.uint32]) -> frozenset[int]:
    """The members of a bit set in words of 32 bits."""
    return frozenset(np.flatnonzero(np.unpackbits(bits.view(np.uint8), bitorder="little")).tolist())


def isolation_forest(estimator: Any) -> TreeEnsemble:
    """IsolationForest, whose leaves add the share of the expected depth that isolates a row."""
    # Private: what scikit-learn computes once, so that its own score takes no longer.
    depths = estimator._decision_path_lengths  # noqa: SLF001
    below = estimator._average_path_length_per_tree  # noqa: SLF001
    count = len(estimator.estimators_)
    expected = count * _average_path_length(estimator._max_samples)  # noqa: SLF001
    trees = tuple(
        tree(each.tree_, -((depth + average - 1.0) / expected)[:, None], np.asarray(columns))
        for each, depth, average, columns in zip(
            estimator.estimators_, depths, below, estimator.estimators_features_, strict=True
        )
    )
    return TreeEnsemble(trees, 1, "<=", "FP32", np.zeros(1), "isolation", averaged=count)


def _average_path_length(rows: int) -> float:
    """How deep a row lies in a random tree of so many rows, by Liu, Ting and Zhou, "Isolation forest", 2008."""
    if rows <= 2:
        return float(rows - 1)
    return float(2.0 * (np.log(rows - 1.0) + np.euler_gamma) - 2.0 * (rows - 1.0) / rows)


def _one_output(values: NDArray[np.float64], output: int, outputs: int) -> NDArray[np.float64]:
    made = np.zeros((len(values), outputs))
    made[:, output] = values
    return made
