"""Trees as the attributes of ONNX's TreeEnsembleRegressor: nodes in arrays, thresholds in the graph's precision.

A node that asks for a set of categories becomes a chain of thresholds: along the axis of codes the set is a few runs, and
each end of a run is one comparison whose true branch leads to one of the two sides. So all nodes compare alike, which
onnxruntime walks fastest, and codes that no set names need no care. Only true branches lead to the same node, since
onnxruntime keeps the false branch of a node right behind it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penstock_tools.sklearn_compiler.trees import LEAF, Tree, TreeEnsemble


@dataclass(slots=True)
class TreeArrays:
    """The nodes of all trees, in attributes of the operator."""

    trees: list[int] = field(default_factory=list)
    nodes: list[int] = field(default_factory=list)
    features: list[int] = field(default_factory=list)
    modes: list[str] = field(default_factory=list)
    thresholds: list[float] = field(default_factory=list)
    true_nodes: list[int] = field(default_factory=list)
    false_nodes: list[int] = field(default_factory=list)
    missing_true: list[int] = field(default_factory=list)
    leaf_trees: list[int] = field(default_factory=list)
    leaf_nodes: list[int] = field(default_factory=list)
    leaf_outputs: list[int] = field(default_factory=list)
    leaf_values: list[float] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Node:
    feature: int
    threshold: float
    true: int
    false: int
    is_missing_true: bool


def tree_arrays(ensemble: TreeEnsemble, dtype: np.dtype[Any]) -> TreeArrays:
    """The attributes for a matrix of this dtype; thresholds are rounded so that each value goes where the record says.

    Leaves are those of the record times `averaged`.
    """
    made = TreeArrays()
    mode = "BRANCH_LEQ" if ensemble.decision == "<=" else "BRANCH_LT"
    for at, tree in enumerate(ensemble.trees):
        thresholds = _rounded(tree.threshold, ensemble.decision, dtype)
        for number, node in _nodes(tree, thresholds, ensemble.decision, dtype):
            made.trees.append(at)
            made.nodes.append(number)
            made.features.append(max(node.feature, 0))
            made.modes.append("LEAF" if node.feature == LEAF else mode)
            made.thresholds.append(node.threshold)
            made.true_nodes.append(max(node.true, 0))
            made.false_nodes.append(max(node.false, 0))
            made.missing_true.append(int(node.is_missing_true))
        _add_leaves(made, at, tree, ensemble.averaged)
    return made


def _add_leaves(made: TreeArrays, at: int, tree: Tree, averaged: int) -> None:
    leaves = np.flatnonzero(tree.is_leaf)
    values = tree.value[leaves] * averaged
    is_given = values != 0
    # onnxruntime wants one value of each leaf at least.
    is_given[~is_given.any(axis=1), 0] = True
    rows, outputs = np.nonzero(is_given)
    made.leaf_trees += [at] * len(rows)
    made.leaf_nodes += leaves[rows].tolist()
    made.leaf_outputs += outputs.tolist()
    made.leaf_values += values[rows, outputs].tolist()


def _rounded(thresholds: NDArray[np.float64], decision: str, dtype: np.dtype[Any]) -> NDArray[np.float64]:
    """The nearest thresholds of the dtype that part its values as the given ones do.

    x <= t is x <= the largest value up to t; x < t is x < the smallest from t on.
    """
    with np.errstate(over="ignore"):
        near = thresholds.astype(dtype)
    if decision == "<=":
        near = np.where(near > thresholds, np.nextafter(near, dtype.type(-np.inf)), near)
    else:
        near = np.where(near < thresholds, np.nextafter(near, dtype.type(np.inf)), near)
    return near.astype(np.float64)


def _nodes(
    tree: Tree, thresholds: NDArray[np.float64], decision: str, dtype: np.dtype[Any]
) -> Iterator[tuple[int, _Node]]:
    """Each node with its number; those of chains are numbered behind the tree's own."""
    fresh = len(tree.feature)
    for at in range(len(tree.feature)):
        codes = tree.categories[at] if tree.categories else None
        feature, left, right = int(tree.feature[at]), int(tree.left[at]), int(tree.right[at])
        is_missing_left = bool(tree.missing_left[at])
        if codes is None:
            yield at, _Node(feature, float(thresholds[at]), left, right, is_missing_left)
            continue
        links = list(_chain(codes, left, right)) or [(0.0, right)]
        is_missing_placed = False
        for place, (bound, true) in enumerate(links):
            is_last = place == len(links) - 1
            number = at if place == 0 else fresh
            fresh += place > 0
            false = right if is_last else fresh
            threshold = bound if decision == "<" else float(np.nextafter(dtype.type(bound), dtype.type(-np.inf)))
            # The false branches end on the right; a missing value leaves at the first branch to the left.
            leaves_here = is_missing_left and true == left and not is_missing_placed
            is_missing_placed |= leaves_here
            yield number, _Node(feature, threshold, true, false, leaves_here)


def _chain(codes: tuple[int, ...], left: int, right: int) -> Iterator[tuple[float, int]]:
    """Ascending bounds with the side of the values below each; what is above the last one goes right."""
    above: int | None = None
    for code in codes:
        if code != above:
            if above is not None:
                yield float(above), left
            yield float(code), right
        above = code + 1
    if above is not None:
        yield float(above), left
