"""An ensemble of trees as the arrays that attributions are computed from: nodes in levels, parents before children."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.errors import UnsupportedError
from penstock_server.explain.explanation import MAX_NODES, MAX_PATH, MAX_TREES, Meaning, Origins, TreesExplanation
from penstock_server.features.compiler import tree_layout as layout
from penstock_tools.sklearn_compiler.trees import LEAF, Tree, TreeEnsemble

LEAST_SHARE: Final = 1e-12
"""The least share of a node's training rows that a side counts with: weights of 0 would divide by it."""
_LEAST_PRODUCT: Final = 1e-200

Reals = NDArray[np.float64]
Places = NDArray[np.int64]


@dataclass(slots=True, eq=False)
class _Forest:
    """All trees that ask anything, their nodes one after another with children counted over all.

    Attributes:
        tree: of each node.
        parent: of each node, -1 for a root; `is_left` whether it is its left child.
    """

    feature: Places
    threshold: Reals
    left: Places
    right: Places
    missing_left: NDArray[np.bool_]
    cover: Reals
    tree: Places
    parent: Places
    is_left: NDArray[np.bool_]
    categories: dict[int, tuple[int, ...]]


def explanation(ensemble: TreeEnsemble, outputs: list[int], meaning: Meaning, origins: Origins) -> TreesExplanation:
    """The explanation of the sums of an ensemble.

    Args:
        ensemble: as it was read.
        outputs: which of its sums are explained.
        meaning: what these are; its base is computed here.
        origins: the raw columns of each feature.

    Raises:
        UnsupportedError: the trees are too many or too large.
    """
    trees = [tree for tree in ensemble.trees if len(tree.feature) > 1]
    nodes = sum(int((~tree.is_leaf).sum()) for tree in trees)
    if nodes > MAX_NODES or len(trees) > MAX_TREES:
        raise UnsupportedError(f"the trees have {nodes:,} nodes; expected at most {MAX_NODES:,}")
    if not trees:
        raise UnsupportedError("no tree asks anything: the answer is always the same")
    scale = ensemble.link_scale
    base = [scale * (float(ensemble.base[at]) + sum(_mean(tree, at) for tree in ensemble.trees)) for at in outputs]
    forest = _joined(trees)
    inner = np.flatnonzero(forest.feature != LEAF)
    depth = _depths(forest)
    before, shares, paths = _former(forest, inner, depth)
    # By tree, and in it by level: a child comes after its parent. Nodes with two leaves are last, and of these those that
    # ask again for a feature, so that a processor foresees what it has to do.
    has_leaves = (forest.feature[forest.left[inner]] == LEAF) & (forest.feature[forest.right[inner]] == LEAF)
    is_again = has_leaves & (before[inner] >= 0)
    order = inner[np.lexsort((depth[inner], is_again, has_leaves, forest.tree[inner]))]
    counts = np.bincount(forest.tree[inner], minlength=len(trees))
    first = np.cumsum(counts) - counts
    place = np.full(len(forest.feature), -1)
    place[order] = np.arange(len(order)) - first[forest.tree[order]]
    leaves = np.flatnonzero(forest.feature == LEAF)
    leaf_counts = counts + 1
    place[leaves] = -1 - (np.arange(len(leaves)) - (np.cumsum(leaf_counts) - leaf_counts)[forest.tree[leaves]])
    values = [scale * tree.value[tree.is_leaf][:, outputs] for tree in trees]
    used = [_used(each) for each in values]
    tree_paths = np.zeros(len(trees), np.int64)
    np.maximum.at(tree_paths, forest.tree[order], paths[order])
    if tree_paths.max() > MAX_PATH:
        raise UnsupportedError(f"a path of a tree asks for {tree_paths.max()} features; expected at most {MAX_PATH}")
    sides = 2 * place[np.maximum(before, 0) // 2] + np.maximum(before, 0) % 2
    threshold, categories = _thresholds(forest, order)
    flags = forest.missing_left[order] * layout.MISSING_LEFT
    flags += np.isin(order, list(forest.categories)) * layout.IS_CATEGORICAL
    flags += np.isin(forest.feature[order], ensemble.zero_is_missing) * layout.ZERO_IS_MISSING
    return TreesExplanation(
        meaning=Meaning(meaning.of, tuple(base), meaning.labels, meaning.label),
        origins=origins,
        node_counts=_int32(counts),
        leaf_counts=_int32(leaf_counts),
        paths=_int32(tree_paths),
        first_outputs=_int32([low for low, _ in used]),
        output_counts=_int32([high - low for low, high in used]),
        feature=_int32(forest.feature[order]),
        threshold=_float64(threshold),
        left=_int32(place[forest.left[order]]),
        right=_int32(place[forest.right[order]]),
        before=_int32(np.where(before[order] < 0, -1, sides[order])),
        flags=flags.astype(np.uint8).tobytes(),
        share_left=_float64(shares[order, 0]),
        share_right=_float64(shares[order, 1]),
        values=_float64(
            np.concatenate([each[:, low:high].ravel() for each, (low, high) in zip(values, used, strict=True)])
        ),
        categories=np.asarray(categories, "<i8").tobytes(),
        is_strict=ensemble.decision == "<",
        is_single=ensemble.precision == "FP32",
    )


def on_columns(ensemble: TreeEnsemble, columns: NDArray[np.intp]) -> TreeEnsemble:
    """The ensemble on a matrix of which it gets these columns."""
    trees = tuple(
        replace(tree, feature=np.where(tree.is_leaf, LEAF, columns[np.maximum(tree.feature, 0)]).astype(np.int32))
        for tree in ensemble.trees
    )
    return replace(ensemble, trees=trees, zero_is_missing=tuple(int(columns[at]) for at in ensemble.zero_is_missing))


def times(ensemble: TreeEnsemble, matrix: Reals) -> TreeEnsemble:
    """The ensemble whose sums are those of this one times a matrix [outputs, other outputs]."""
    trees = tuple(replace(tree, value=tree.value @ matrix) for tree in ensemble.trees)
    base = ensemble.base @ matrix
    return replace(ensemble, trees=trees, outputs=len(base), base=base, link="identity", link_scale=1.0, averaged=1)


def joined(ensembles: Sequence[TreeEnsemble], base: Reals | None = None) -> TreeEnsemble:
    """The ensemble whose sums are those of all, and of `base`.

    Raises:
        UnsupportedError: they take other values for missing ones.
    """
    first = ensembles[0]
    if any(not np.array_equal(each.missing, first.missing, equal_nan=True) for each in ensembles) or any(
        each.zero_is_missing != first.zero_is_missing for each in ensembles
    ):
        raise UnsupportedError("its trees take other values for missing ones, each library its own")
    is_alike = len({(each.decision, each.precision) for each in ensembles}) == 1
    made = ensembles if is_alike else [_comparing_doubles(each) for each in ensembles]
    trees = tuple(tree for each in made for tree in each.trees)
    total = np.sum([each.base for each in made], axis=0) + (0.0 if base is None else base)
    return replace(made[0], trees=trees, base=total)


def _comparing_doubles(ensemble: TreeEnsemble) -> TreeEnsemble:
    """The same ensemble, where each value is compared in double precision, `value <= threshold`."""
    is_strict, is_single = ensemble.decision == "<", ensemble.precision == "FP32"
    trees = tuple(
        replace(
            tree, threshold=np.where(_has_threshold(tree), _limit(tree.threshold, is_strict, is_single), tree.threshold)
        )
        for tree in ensemble.trees
    )
    return replace(ensemble, trees=trees, decision="<=", precision="FP64")


def _has_threshold(tree: Tree) -> NDArray[np.bool_]:
    by_category = [codes is not None for codes in tree.categories] or [False] * len(tree.feature)
    has_threshold: NDArray[np.bool_] = ~tree.is_leaf & ~np.array(by_category)
    return has_threshold


def _limit(threshold: Reals, is_strict: bool, is_single: bool) -> Reals:
    """The largest double that is below the threshold, or at most it, once it is rounded as the library rounds it."""
    if not is_single:
        return np.nextafter(threshold, -np.inf) if is_strict else threshold
    with np.errstate(over="ignore"):
        single = threshold.astype(np.float32)
        is_beyond = single >= threshold if is_strict else single > threshold
        single = np.where(is_beyond, np.nextafter(single, np.float32(-np.inf)), single)
        # What lies halfway to the next single is rounded to the even one of both.
        middle = single.astype(np.float64) / 2 + np.nextafter(single, np.float32(np.inf)).astype(np.float64) / 2
    is_even = single.view(np.int32) % 2 == 0
    limit: Reals = np.where(is_even, middle, np.nextafter(middle, -np.inf))
    return limit


def _mean(tree: Tree, output: int) -> float:
    """The expected value of a tree over its training rows."""
    if len(tree.feature) == 1:
        return float(tree.value[0, output])
    weight = np.zeros(len(tree.feature))
    weight[0] = 1.0
    shares = _local_shares(tree.cover, tree.left, tree.right, ~tree.is_leaf)
    level = np.array([0])
    while len(level):
        level = level[~tree.is_leaf[level]]
        left, right = tree.left[level], tree.right[level]
        weight[left] = weight[level] * shares[level]
        weight[right] = weight[level] * (1.0 - shares[level])
        level = np.concatenate([left, right])
    return float(weight[tree.is_leaf] @ tree.value[tree.is_leaf, output])


def _local_shares(cover: Reals, left: Any, right: Any, is_inner: NDArray[np.bool_]) -> Reals:
    """The share of a node's training rows that goes left, never all or none."""
    goes_left, goes_right = cover[np.where(is_inner, left, 0)], cover[np.where(is_inner, right, 0)]
    total = goes_left + goes_right
    share = np.divide(goes_left, total, out=np.full(len(total), 0.5), where=total > 0)
    limited: Reals = np.clip(share, LEAST_SHARE, 1.0 - LEAST_SHARE)
    return limited


def _joined(trees: list[Tree]) -> _Forest:
    sizes = np.array([len(tree.feature) for tree in trees])
    starts = np.cumsum(sizes) - sizes
    feature = np.concatenate([tree.feature for tree in trees]).astype(np.int64)
    is_inner = feature != LEAF
    shift = np.repeat(starts, sizes)
    left, right = (
        np.where(is_inner, np.concatenate([getattr(tree, side) for tree in trees]) + shift, LEAF)
        for side in ("left", "right")
    )
    inner = np.flatnonzero(is_inner)
    parent, is_left = np.full(len(feature), -1), np.zeros(len(feature), np.bool_)
    parent[left[inner]] = parent[right[inner]] = inner
    is_left[left[inner]] = True
    categories = {
        int(start) + node: codes
        for start, tree in zip(starts, trees, strict=True)
        for node, codes in enumerate(tree.categories)
        if codes is not None and tree.feature[node] != LEAF
    }
    return _Forest(
        feature=feature,
        threshold=np.concatenate([tree.threshold for tree in trees]),
        left=left,
        right=right,
        missing_left=np.concatenate([tree.missing_left for tree in trees]),
        cover=np.concatenate([tree.cover for tree in trees]),
        tree=np.repeat(np.arange(len(trees)), sizes),
        parent=parent,
        is_left=is_left,
        categories=categories,
    )


def _depths(forest: _Forest) -> Places:
    """How many nodes are above each."""
    depth = np.zeros(len(forest.feature), np.int64)
    level = np.flatnonzero(forest.parent < 0)
    at = 0
    while len(level):
        depth[level] = at
        level = level[forest.feature[level] != LEAF]
        level = np.concatenate([forest.left[level], forest.right[level]])
        at += 1
    return depth


def _former(forest: _Forest, order: Places, depth: Places) -> tuple[Places, Reals, Places]:
    """For each inner node its last node above of the same feature, the shares of both sides, and the features so far.

    Returns:
        int64 [nodes], twice that node plus 1 for its right, or -1; float64 [nodes, 2]; int64 [nodes].
    """
    before = np.full(len(forest.feature), -1)
    open_nodes, child = order, order
    for _ in range(int(depth.max())):
        above = forest.parent[child]
        kept = above >= 0
        open_nodes, child, above = open_nodes[kept], child[kept], above[kept]
        is_same = forest.feature[above] == forest.feature[open_nodes]
        before[open_nodes[is_same]] = 2 * above[is_same] + ~forest.is_left[child[is_same]]
        open_nodes, child = open_nodes[~is_same], above[~is_same]
    is_inner = forest.feature != LEAF
    local = _local_shares(forest.cover, forest.left, forest.right, is_inner)
    shares = np.ones((len(before), 2))
    paths = np.zeros(len(before), np.int64)
    for at in range(int(depth[order].max()) + 1):
        level = order[depth[order] == at]
        former = before[level]
        share = np.where(former < 0, 1.0, shares[np.maximum(former, 0) // 2, np.maximum(former, 0) % 2])
        both = np.stack([share * local[level], share * (1.0 - local[level])], axis=1)
        shares[level] = np.maximum(both, _LEAST_PRODUCT)
        above = forest.parent[level]
        paths[level] = np.where(above < 0, 0, paths[above]) + (former < 0)
    return before, shares, paths


def _used(values: Reals) -> tuple[int, int]:
    """The range of outputs that a tree's leaves have values for."""
    found = np.flatnonzero(values.any(axis=0))
    return (0, 1) if not len(found) else (int(found[0]), int(found[-1]) + 1)


def _thresholds(forest: _Forest, order: Places) -> tuple[Reals, list[int]]:
    """What each node compares with: a threshold, or where the words of its categories begin."""
    threshold = forest.threshold[order].copy()
    words: list[int] = []
    for place, node in enumerate(order.tolist()):
        codes = forest.categories.get(node)
        if codes is not None:
            threshold[place] = len(words)
            bits = sum(1 << code for code in set(codes))
            count = max(codes, default=-1) + 1
            words.append(count)
            words += [_signed(bits >> shift & (1 << 64) - 1) for shift in range(0, count, 64)]
    return threshold, words


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


def _int32(values: Any) -> bytes:
    return np.asarray(values, "<i4").tobytes()


def _float64(values: Any) -> bytes:
    return np.asarray(values, "<f8").tobytes()
