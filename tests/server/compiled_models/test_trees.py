"""Trees as they are read: one form for all comparisons, and an end for all that is not sound."""

from typing import Any

import numpy as np
import pytest

from penstock_server.compiled_models import trees
from penstock_server.compiled_models.graph import NotCompiledError
from penstock_server.compiled_models.trees import forest
from tests.server.compiled_models.graphs import TREES_OF_TWO

SINGLE = np.dtype(np.float32)
NEXT = np.nextafter(np.float32(0.5), np.float32(1))
BEFORE = np.nextafter(np.float32(0.5), np.float32(0))


def read(columns: int = 2, name: str = "TreeEnsembleRegressor", **changed: Any) -> trees.Forest:
    given = {**TREES_OF_TWO, **changed}
    attributes = {
        key: value if isinstance(value, int | str) or not value or isinstance(value[0], str) else np.array(value)
        for key, value in given.items()
    }
    return forest(name, {key: value for key, value in attributes.items() if value is not None}, columns, SINGLE)


def changed(name: str, at: int, value: Any) -> dict[str, Any]:
    """One number of an attribute otherwise."""
    values = list(TREES_OF_TWO[name])
    values[at] = value
    return {name: values}


def test_nodes_come_before_those_below_them_and_leaves_from_the_left() -> None:
    first, second = read().trees
    assert first.feature.tolist() == [0, 1]
    assert first.bound.tolist() == [0.5, -1.0]
    assert (first.left.tolist(), first.right.tolist()) == ([1, -1], [-3, -2])
    assert first.values.ravel().tolist() == pytest.approx([0.1, -0.3, 1.0])
    assert (first.depth, second.depth) == (2, 1)


STUMP: dict[str, Any] = {
    "nodes_treeids": [0, 0, 0], "nodes_nodeids": [0, 1, 2], "nodes_featureids": [0, 0, 0], "nodes_values": [0.5, 0.0, 0.0],
    "nodes_truenodeids": [1, 0, 0], "nodes_falsenodeids": [2, 0, 0], "target_treeids": [0, 0], "target_nodeids": [1, 2],
    "target_ids": [0, 0], "target_weights": [1.0, 2.0],
}  # fmt: skip


@pytest.mark.parametrize("missing_true", [0, 1])
@pytest.mark.parametrize("bound", [0.5, 0.0, -0.0, np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("mode", ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT"])
def test_comparisons_of_all_kinds_become_one(mode: str, bound: float, missing_true: int) -> None:
    values = {**STUMP, "nodes_values": [bound, 0.0, 0.0], "nodes_missing_value_tracks_true": [missing_true, 0, 0]}
    (tree,) = read(nodes_modes=[mode, "LEAF", "LEAF"], **values).trees
    bound = np.float32(bound)
    for value in np.array([0.5, NEXT, BEFORE, 0.0, -0.0, 1e-45, -1e-45, np.inf, -np.inf, np.nan, 3.4e38], np.float32):
        compare = {
            "BRANCH_LEQ": np.less_equal,
            "BRANCH_LT": np.less,
            "BRANCH_GTE": np.greater_equal,
            "BRANCH_GT": np.greater,
        }
        is_true = compare[mode](value, bound) or (missing_true and np.isnan(value))
        goes_left = value <= tree.bound[0] or (np.isnan(value) and tree.missing_left[0])
        leaf = -1 - int((tree.left if goes_left else tree.right)[0])
        assert tree.values[leaf, 0] == (1.0 if is_true else 2.0), value


def test_shared_nodes_are_repeated() -> None:
    (tree,) = read(
        nodes_treeids=[0] * 4, nodes_nodeids=[0, 1, 2, 3], nodes_featureids=[0, 1, 0, 0], nodes_values=[0.5, 1.5, 0.0, 0.0],
        nodes_modes=["BRANCH_LEQ", "BRANCH_LEQ", "LEAF", "LEAF"], nodes_truenodeids=[2, 2, 0, 0],
        nodes_falsenodeids=[1, 3, 0, 0], target_treeids=[0, 0], target_nodeids=[2, 3], target_ids=[0, 0],
        target_weights=[1.0, 2.0],
    ).trees  # fmt: skip
    assert tree.values.ravel().tolist() == [1.0, 1.0, 2.0]


def test_a_leaf_without_a_value_has_what_onnxruntime_takes() -> None:
    (tree, _) = read(**changed("target_nodeids", 0, 0), **changed("nodes_values", 2, 7.0)).trees
    assert tree.values.ravel().tolist() == pytest.approx([0.1, -0.3, 7.0])


def test_outputs_of_one_tree_or_of_all() -> None:
    several = read(n_targets=3, target_ids=[1, 1, 1, 0, 2])
    assert [tree.output for tree in several.trees] == [1, -1]
    np.testing.assert_array_equal(several.trees[1].values, np.array([[0.7, 0, 0], [0, 0, 5]], np.float32))
    assert (several.scored, several.possible) == ({1}, {0, 1, 2})


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (changed("nodes_truenodeids", 0, 0), "lead back to where they were"),
        (changed("nodes_falsenodeids", 1, 0), "lead back to where they were"),
        (changed("nodes_truenodeids", 0, 9), "nodes that are not there"),
        (changed("nodes_truenodeids", 0, -1), "nodes that are not there"),
        (changed("nodes_featureids", 1, 2), "columns that are not there"),
        (changed("nodes_featureids", 1, -1), "columns that are not there"),
        (changed("nodes_modes", 0, "BRANCH_EQ"), "whether numbers are equal"),
        (changed("nodes_modes", 0, "BRANCH_WHAT"), "comparisons that are not known"),
        (changed("nodes_nodeids", 1, 0), "do not fit each other"),
        (changed("nodes_treeids", 1, 1), "do not fit each other|are mixed"),
        (changed("target_ids", 0, 1), "outputs that are not there"),
        (changed("target_ids", 0, -1), "outputs that are not there"),
        ({"nodes_values": TREES_OF_TWO["nodes_values"][:-1]}, "do not fit each other"),
        ({"target_weights": [1.0]}, "do not fit each other"),
        ({"nodes_featureids": [0.5] * 8}, "not of whole numbers"),
        ({"nodes_values": [1] * 8}, "not of numbers"),
        ({"n_targets": 0}, "0 outputs"),
        ({"n_targets": 1 << 40}, "1,099,511,627,776 outputs"),
        ({"aggregate_function": "MAX"}, "are not summed: MAX"),
        ({"post_transform": "PROBIT"}, "transformed by PROBIT"),
        ({"base_values": [1.0, 2.0]}, "bases do not fit"),
        ({"n_targets": 2, "target_nodeids": [2, 2, 4, 1, 2]}, "two values for the same output"),
        (dict.fromkeys(TREES_OF_TWO), "0 trees"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(NotCompiledError, match=reason):
        read(**changes)


def test_shared_nodes_cannot_make_a_tree_endless() -> None:
    """A chain of nodes whose two branches lead to the next has twice as many leaves with each node."""
    count = 40
    chain: dict[str, Any] = {
        "nodes_treeids": [0] * (count + 1),
        "nodes_nodeids": list(range(count + 1)),
        "nodes_featureids": [0] * (count + 1),
        "nodes_modes": ["BRANCH_LEQ"] * count + ["LEAF"],
        "nodes_values": [0.5] * (count + 1),
        "nodes_truenodeids": [*range(1, count + 1), 0],
        "nodes_falsenodeids": [*range(1, count + 1), 0],
        "target_treeids": [0], "target_nodeids": [count], "target_ids": [0], "target_weights": [1.0],
    }  # fmt: skip
    with pytest.raises(NotCompiledError, match=f"more than {trees.MAX_NODES:,} nodes"):
        read(**chain)
