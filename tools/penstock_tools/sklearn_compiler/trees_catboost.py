"""Reads CatBoost's trees from the JSON that it saves models as.

It compares single precision: a value above a border goes right. Missing values go where the fit put them: left, or right of
all borders.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from penstock_server.errors import UnsupportedError
from penstock_tools.sklearn_compiler.trees import LEAF, Link, Tree, TreeEnsemble

_LINKS: Final[dict[str, Link]] = {
    **dict.fromkeys(
        ("RMSE", "MAE", "Quantile", "MAPE", "Huber", "Expectile", "LogCosh", "Lq", "MultiRMSE"), "identity"
    ),
    **dict.fromkeys(("YetiRank", "YetiRankPairwise", "PairLogit", "PairLogitPairwise", "QueryRMSE"), "identity"),
    **dict.fromkeys(("Logloss", "CrossEntropy"), "logistic"),
    **dict.fromkeys(("Poisson", "Tweedie"), "exp"),
    "MultiClass": "softmax",
}


def catboost(estimator: Any) -> TreeEnsemble | None:
    """CatBoostClassifier, -Regressor and -Ranker; None for losses whose answer is no known link of the sum.

    Raises:
        UnsupportedError: it splits by categories, texts or embeddings.
    """
    loss = str(estimator.get_all_params()["loss_function"]).partition(":")[0]
    if loss not in _LINKS:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        estimator.save_model(str(path), format="json")
        model = json.loads(path.read_text())
    others = [
        kind
        for kind in ("categorical_features", "text_features", "embedding_features")
        if model["features_info"].get(kind)
    ]
    if others:
        raise UnsupportedError(
            f"the model has {others[0].replace('_', ' ')} of CatBoost's own; expected numbers, which an OrdinalEncoder or "
            "OneHotEncoder before it makes of categories"
        )
    scale, base = model["scale_and_bias"]
    columns = {each["feature_index"]: each["flat_feature_index"] for each in model["features_info"]["float_features"]}
    highest = {
        each["flat_feature_index"]
        for each in model["features_info"]["float_features"]
        if each.get("nan_value_treatment") == "AsTrue"
    }
    read = _Reader(columns, highest, float(scale), len(base))
    if "oblivious_trees" in model:
        trees = tuple(read.oblivious(each) for each in model["oblivious_trees"])
    else:
        trees = tuple(read.nested(each) for each in model["trees"])
    return TreeEnsemble(trees, len(base), "<=", "FP32", np.array(base, np.float64), _LINKS[loss])


class _Reader:
    """Reads trees into records.

    Args:
        columns: columns of the matrix by the number among the columns of numbers.
        highest: columns whose missing values lie above all borders.
        scale: of leaves.
        outputs: how many values a leaf has.
    """

    def __init__(self, columns: Mapping[int, int], highest: set[int], scale: float, outputs: int) -> None:
        self._columns = columns
        self._highest = highest
        self._scale = scale
        self._outputs = outputs

    def oblivious(self, given: Mapping[str, Any]) -> Tree:
        """A tree whose nodes of one depth compare alike; the last split is the first bit of a leaf's place."""
        splits = list(reversed(given["splits"] or []))
        inner = 2 ** len(splits) - 1
        nodes: list[tuple[int, float, int, int]] = []
        for depth, split in enumerate(splits):
            column, border = self._split(split)
            for at in range(2**depth):
                place = 2**depth - 1 + at
                nodes.append((column, border, 2 * place + 1, 2 * place + 2))
        leaves = np.array(given["leaf_values"], np.float64).reshape(-1, self._outputs)
        weights = np.array(given.get("leaf_weights") or np.zeros(len(leaves)), np.float64)
        cover = np.append(np.zeros(inner), weights)
        for place in range(inner - 1, -1, -1):
            cover[place] = cover[2 * place + 1] + cover[2 * place + 2]
        return self._tree(nodes + [(LEAF, 0.0, LEAF, LEAF)] * len(leaves), list(leaves), cover.tolist())

    def nested(self, given: Mapping[str, Any]) -> Tree:
        """A tree in which each node holds its children."""
        nodes: list[tuple[int, float, int, int]] = []
        leaves: list[Any] = []
        cover: list[float] = []

        def add(node: Mapping[str, Any]) -> int:
            place = len(nodes)
            nodes.append((LEAF, 0.0, LEAF, LEAF))
            cover.append(float(node.get("weight", 0.0)))
            if "split" not in node:
                leaves.append((place, node["value"]))
                return place
            column, border = self._split(node["split"])
            left, right = add(node["left"]), add(node["right"])
            nodes[place] = (column, border, left, right)
            cover[place] = cover[left] + cover[right]
            return place

        add(given)
        return self._tree(nodes, [value for _, value in leaves], cover)

    def _split(self, split: Mapping[str, Any]) -> tuple[int, float]:
        return self._columns[split["float_feature_index"]], float(np.float32(split["border"]))

    def _tree(
        self, nodes: Sequence[tuple[int, float, int, int]], leaves: Sequence[Any], cover: Sequence[float]
    ) -> Tree:
        feature, threshold, left, right = (np.array(each) for each in zip(*nodes, strict=True))
        is_leaf = feature == LEAF
        value = np.zeros((len(nodes), self._outputs))
        value[is_leaf] = np.array(leaves, np.float64).reshape(-1, self._outputs) * self._scale
        return Tree(
            feature=feature.astype(np.int32),
            threshold=threshold.astype(np.float64),
            left=left.astype(np.int32),
            right=right.astype(np.int32),
            missing_left=~is_leaf & ~np.isin(feature, [*self._highest]),
            value=value,
            cover=np.array(cover, np.float64),
        )
