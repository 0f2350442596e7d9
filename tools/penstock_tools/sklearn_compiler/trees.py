"""Tree ensembles of every library in one record: what a row is compared with, where it goes, and what its leaves add up to.

`read_trees` reads a fitted estimator. The record says exactly what the library compares, so that neither the graph
(`graph.trees` writes it) nor attributions send a row another way than the library does. One file per library reads:
`trees_sklearn`, `trees_boosting` (scikit-learn's), `trees_lightgbm`, `trees_xgboost`, `trees_catboost`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from penstock_tools.sklearn_compiler import kinds

Decision = Literal["<=", "<"]
Precision = Literal["FP32", "FP64"]
Link = Literal["identity", "logistic", "softmax", "exp", "normalise", "isolation"]
"""What makes an answer of the sums: `logistic` each alone, 1 / (1 + exp(-s)); `normalise` divides by the row's sum;
`isolation` is an isolation forest's score, -(2 ** s)."""

LEAF: Final = -1


@dataclass(frozen=True, slots=True, eq=False)
class Tree:
    """A binary tree; node 0 is the root, and arrays are indexed by node.

    A value goes left if `value <decision> threshold` is true, or if floor(value) is a code in the node's set; a missing one
    goes left where `missing_left` says so.

    Attributes:
        feature: int32 [nodes], the compared column; LEAF in a leaf.
        threshold: float64 [nodes]; 0 in a leaf and where categories decide.
        left, right: int32 [nodes], the next node; LEAF in a leaf.
        missing_left: bool [nodes], where NaN goes.
        value: float64 [nodes, outputs], what a leaf adds to the sums; 0 elsewhere.
        cover: float64 [nodes], the weight of the training rows that reached the node.
        categories: for each node the codes that go left, ascending, or None where the threshold decides; all other codes,
            unknown ones too, go right. Empty where no node has categories.
    """

    feature: NDArray[np.int32]
    threshold: NDArray[np.float64]
    left: NDArray[np.int32]
    right: NDArray[np.int32]
    missing_left: NDArray[np.bool_]
    value: NDArray[np.float64]
    cover: NDArray[np.float64]
    categories: tuple[tuple[int, ...] | None, ...] = ()

    @property
    def is_leaf(self) -> NDArray[np.bool_]:
        """For each node whether it is a leaf."""
        leaf: NDArray[np.bool_] = self.feature == LEAF
        return leaf


@dataclass(frozen=True, slots=True, eq=False)
class TreeEnsemble:
    """Trees whose leaves are summed.

    With s = base + the sums of the leaves [outputs], an answer is link(link_scale * s).

    Attributes:
        trees: in the library's order.
        outputs: how many sums there are: 1 for a regressor and most classifiers of two classes, else one per class or target.
        decision: the comparison of a value with a threshold.
        precision: what a value is before it is compared; thresholds are exact in double precision.
        base: float64 [outputs].
        link, link_scale: what makes an answer of the sums.
        averaged: how many the leaves were divided by: the number of trees in a forest, else 1. Whoever sums in single
            precision sums leaf * averaged, which are whole numbers in forests of fully grown trees, and divides afterwards.
        missing: a value that stands for a missing one in every column, beside NaN; NaN where there is none.
        zero_is_missing: columns where a value of at most 1.0000000180025095e-35 in size is taken as missing.
    """

    trees: tuple[Tree, ...]
    outputs: int
    decision: Decision
    precision: Precision
    base: NDArray[np.float64]
    link: Link = "identity"
    link_scale: float = 1.0
    averaged: int = 1
    missing: float = float("nan")
    zero_is_missing: tuple[int, ...] = ()


_READERS: Final[dict[tuple[str, str], str]] = {
    ("sklearn", "DecisionTreeClassifier"): "trees_sklearn:classifier_tree",
    ("sklearn", "DecisionTreeRegressor"): "trees_sklearn:regressor_tree",
    ("sklearn", "ExtraTreeClassifier"): "trees_sklearn:classifier_tree",
    ("sklearn", "ExtraTreeRegressor"): "trees_sklearn:regressor_tree",
    ("sklearn", "RandomForestClassifier"): "trees_sklearn:classifier_forest",
    ("sklearn", "RandomForestRegressor"): "trees_sklearn:regressor_forest",
    ("sklearn", "ExtraTreesClassifier"): "trees_sklearn:classifier_forest",
    ("sklearn", "ExtraTreesRegressor"): "trees_sklearn:regressor_forest",
    ("sklearn", "GradientBoostingClassifier"): "trees_boosting:gradient_boosting",
    ("sklearn", "GradientBoostingRegressor"): "trees_boosting:gradient_boosting",
    ("sklearn", "HistGradientBoostingClassifier"): "trees_boosting:hist_gradient_boosting",
    ("sklearn", "HistGradientBoostingRegressor"): "trees_boosting:hist_gradient_boosting",
    ("sklearn", "IsolationForest"): "trees_boosting:isolation_forest",
    ("lightgbm", "LGBMClassifier"): "trees_lightgbm:lightgbm",
    ("lightgbm", "LGBMRegressor"): "trees_lightgbm:lightgbm",
    ("lightgbm", "LGBMRanker"): "trees_lightgbm:lightgbm",
    ("xgboost", "XGBClassifier"): "trees_xgboost:xgboost",
    ("xgboost", "XGBRegressor"): "trees_xgboost:xgboost",
    ("xgboost", "XGBRanker"): "trees_xgboost:xgboost",
    ("xgboost", "XGBRFClassifier"): "trees_xgboost:xgboost",
    ("xgboost", "XGBRFRegressor"): "trees_xgboost:xgboost",
    ("catboost", "CatBoostClassifier"): "trees_catboost:catboost",
    ("catboost", "CatBoostRegressor"): "trees_catboost:catboost",
    ("catboost", "CatBoostRanker"): "trees_catboost:catboost",
}
"""By package and class: the module beside this one that reads it, and its function. Libraries stay unimported until one
of their objects comes."""


def is_ensemble(estimator: Any) -> bool:
    """Whether it is of a class that `read_trees` knows."""
    return _reader(estimator) is not None


def read_trees(estimator: Any) -> TreeEnsemble | None:
    """The trees of a fitted estimator; None where it is not made of trees that sum up, or is one that is not read.

    Raises:
        UnsupportedError: it is made of trees with something that no record can say; names it.
    """
    found = _reader(estimator)
    if found is None:
        return None
    module, _, function = found.partition(":")
    read: Callable[[Any], TreeEnsemble | None] = getattr(import_module(f"{__package__}.{module}"), function)
    return read(estimator)


def _reader(estimator: Any) -> str | None:
    known = ((kind.__module__.partition(".")[0], kind.__name__) for kind in kinds.kinds(estimator))
    return next((_READERS[kind] for kind in known if kind in _READERS), None)
