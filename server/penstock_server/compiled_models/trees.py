"""Trees of a graph's operator, checked and put into one form: a value up to a bound goes left, every other one goes right.

Operators may compare otherwise, and lead several branches to the same node. Other comparisons are turned round or moved to
the next number, and nodes that are shared are repeated. Children are followed from the roots, so that whatever the file says,
a tree is finite: there is a most of nodes in all.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.compiled_models.graph import NotCompiledError

MAX_NODES: Final = 200_000
"""Of all trees, once shared ones are repeated."""
MAX_DEPTH: Final = 256
MAX_VALUES: Final = 4_000_000
MAX_OUTPUTS: Final = 1024
_MODES: Final = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ", "LEAF")
_LEQ, _LT, _GTE, _GT, _EQ, _NEQ, _LEAF = range(7)
_SUM, _AVERAGE = "SUM", "AVERAGE"
_V5_MODES: Final = (_LEQ, _LT, _GTE, _GT, _EQ, _NEQ)
_V5_TRANSFORMS: Final = ("NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO", "PROBIT")
"""By onnxruntime's numbers, which differ from those of the standard."""
_V5_AGGREGATES: Final = ("AVERAGE", "SUM", "MIN", "MAX")


@dataclass(frozen=True, slots=True)
class ForestTree:
    """A tree: nodes with each before those on its left, and these before those on its right.

    Attributes:
        feature, bound, missing_left: of each node.
        left, right: a node, or -1 less a leaf's number; leaves are counted from the left.
        values: [leaves, outputs], or [leaves, 1] where all leaves have the one output `output`.
        output: that, or -1.
        depth: the most comparisons of a row.
    """

    feature: NDArray[np.int64]
    bound: NDArray[Any]
    missing_left: NDArray[np.bool_]
    left: NDArray[np.int64]
    right: NDArray[np.int64]
    values: NDArray[Any]
    output: int
    depth: int


@dataclass(frozen=True, slots=True)
class Forest:
    """The trees of an operator.

    Attributes:
        trees: in the order in which they are summed.
        outputs: how many sums there are.
        bases: what is added to each sum; a classifier of two classes may have one or two. Empty for none.
        is_average: sums are divided by the number of trees.
        transform: what becomes of sums, as the operator says it.
        scored: the outputs for which each row has a leaf; `possible`, for which there is one.
        is_positive: no value of a leaf is negative.
        labels: of a classifier, numbers or texts.
    """

    trees: tuple[ForestTree, ...]
    outputs: int
    bases: NDArray[Any]
    is_average: bool
    transform: str
    scored: frozenset[int]
    possible: frozenset[int]
    is_positive: bool
    labels: tuple[int, ...] | tuple[str, ...] = ()

    @property
    def features(self) -> NDArray[np.int64]:
        """The columns that are asked for, in order."""
        return np.unique(np.concatenate([tree.feature for tree in self.trees]))


@dataclass(frozen=True, slots=True)
class _Nodes:
    """The nodes of all trees, as arrays; children are positions in these."""

    mode: NDArray[np.int64]
    feature: NDArray[np.int64]
    value: NDArray[Any]
    true: NDArray[np.int64]
    false: NDArray[np.int64]
    missing_true: NDArray[np.bool_]
    votes: Mapping[int, list[tuple[int, Any]]]


def forest(name: str, attributes: Mapping[str, Any], columns: int, dtype: np.dtype[Any]) -> Forest:
    """The trees of an operator.

    Args:
        name: the operator.
        attributes: its attributes.
        columns: the columns of its matrix.
        dtype: of the matrix, float32 or float64; thresholds and sums have it too.

    Raises:
        NotCompiledError: it has what is not compiled, or is not sound.
    """
    if name == "TreeEnsemble":
        return _of_version_5(attributes, columns, dtype)
    is_classifier = name == "TreeEnsembleClassifier"
    prefix = "class" if is_classifier else "target"
    given = _Attributes(attributes, dtype)
    labels = tuple(given.texts("classlabels_strings")) or tuple(given.integers("classlabels_int64s").tolist())
    outputs = len(labels) if is_classifier else int(attributes.get("n_targets") or 0)
    aggregate = str(attributes.get("aggregate_function") or _SUM)
    trees, ids = given.integers("nodes_treeids"), given.integers("nodes_nodeids")
    modes = given.texts("nodes_modes")
    if any(mode not in _MODES for mode in modes):
        raise NotCompiledError("its trees have comparisons that are not known")
    mode = np.array([_MODES.index(mode) for mode in modes], np.int64)
    count = len(trees)
    missing = given.integers("nodes_missing_value_tracks_true")
    places = {key: at for at, key in enumerate(zip(trees.tolist(), ids.tolist(), strict=False))}
    feature, value = given.integers("nodes_featureids"), given.numbers("nodes_values")
    true_ids, false_ids = given.integers("nodes_truenodeids"), given.integers("nodes_falsenodeids")
    if len(places) != count or {len(each) for each in (ids, mode, feature, value, true_ids, false_ids)} != {count}:
        raise NotCompiledError("the attributes of its trees do not fit each other")
    true, false = (
        np.array([places.get(key, -1) for key in zip(trees.tolist(), side.tolist(), strict=True)], np.int64)
        for side in (true_ids, false_ids)
    )
    vote_trees, vote_nodes = given.integers(f"{prefix}_treeids"), given.integers(f"{prefix}_nodeids")
    vote_ids, weights = given.integers(f"{prefix}_ids"), given.numbers(f"{prefix}_weights")
    if {len(each) for each in (vote_trees, vote_nodes, vote_ids, weights)} != {len(vote_ids)}:
        raise NotCompiledError("the values of its leaves do not fit each other")
    votes: dict[int, list[tuple[int, Any]]] = {}
    for key, output, weight in zip(
        zip(vote_trees.tolist(), vote_nodes.tolist(), strict=True), vote_ids.tolist(), weights, strict=True
    ):
        votes.setdefault(places.get(key, -1), []).append((output, weight))
    starts = np.flatnonzero(np.concatenate([[True], trees[1:] != trees[:-1]])).tolist() if count else []
    if len({int(trees[at]) for at in starts}) != len(starts):
        raise NotCompiledError("the nodes of its trees are mixed")
    missing_true = np.zeros(count, np.bool_)
    missing_true[: len(missing)] = missing[:count] == 1
    nodes = _Nodes(mode, feature, value, true, false, missing_true, votes)
    made = _made(nodes, starts, outputs, columns, dtype)
    bases = given.numbers("base_values")
    if not is_classifier and len(bases) not in {0, outputs}:
        raise NotCompiledError("its bases do not fit its outputs")
    return _checked(made, aggregate, bases, str(attributes.get("post_transform") or "NONE"), labels)


def _of_version_5(attributes: Mapping[str, Any], columns: int, dtype: np.dtype[Any]) -> Forest:
    """The trees of TreeEnsemble, whose leaves are apart from its nodes."""
    given = _Attributes(attributes, dtype)
    outputs, roots = int(attributes.get("n_targets") or 0), given.integers("tree_roots").tolist()
    modes = np.asarray(attributes.get("nodes_modes", ()), np.int64).ravel()
    splits = np.asarray(attributes.get("nodes_splits", ()))
    leaf_ids, weights = given.integers("leaf_targetids"), np.asarray(attributes.get("leaf_weights", ()))
    feature = given.integers("nodes_featureids")
    count, leaves = len(feature), len(leaf_ids)
    sides = []
    for side in ("true", "false"):
        ids, is_leaf = given.integers(f"nodes_{side}nodeids"), given.integers(f"nodes_{side}leafs")
        if len(ids) != count or len(is_leaf) != count:
            raise NotCompiledError("the attributes of its trees do not fit each other")
        sides.append(np.where(is_leaf == 1, np.where((ids >= 0) & (ids < leaves), ids + count, -1), ids))
    if len(modes) != count or len(splits) != count or len(weights) != leaves or not ((modes >= 0) & (modes < 6)).all():
        raise NotCompiledError("its trees have comparisons that are not known, or do not fit each other")
    if splits.dtype != dtype or weights.dtype != dtype or not all(0 <= root < count for root in roots):
        raise NotCompiledError("its trees have other datatypes than its matrix, or roots that are not there")
    none = np.zeros(leaves, np.int64)
    missing = given.integers("nodes_missing_value_tracks_true")
    missing_true = np.zeros(count + leaves, np.bool_)
    missing_true[: len(missing)] = missing[:count] == 1
    nodes = _Nodes(
        np.concatenate([modes, none + _LEAF]),
        np.concatenate([feature, none]),
        np.concatenate([splits, none.astype(dtype)]),
        np.concatenate([sides[0], none]),
        np.concatenate([sides[1], none]),
        missing_true,
        {count + at: [(int(leaf_ids[at]), weights[at])] for at in range(leaves)},
    )
    made = _made(nodes, roots, outputs, columns, dtype)
    aggregate = int(attributes.get("aggregate_function", 1))
    transform = int(attributes.get("post_transform", 0))
    if not (0 <= aggregate < len(_V5_AGGREGATES) and 0 <= transform < len(_V5_TRANSFORMS)):
        raise NotCompiledError("its sums are not known")
    return _checked(made, _V5_AGGREGATES[aggregate], np.empty(0, dtype), _V5_TRANSFORMS[transform], ())


class _Attributes:
    """The attributes of an operator by type; numbers may be given as tensors of the matrix's type."""

    def __init__(self, attributes: Mapping[str, Any], dtype: np.dtype[Any]) -> None:
        self._attributes = attributes
        self._dtype = dtype

    def integers(self, name: str) -> NDArray[np.int64]:
        value = self._attributes.get(name)
        if value is None:
            return np.empty(0, np.int64)
        array = np.atleast_1d(np.asarray(value))
        if array.dtype.kind not in "iu":
            raise NotCompiledError(f"its attribute {name} is not of whole numbers")
        return array.astype(np.int64)

    def numbers(self, name: str) -> NDArray[Any]:
        value, exact = self._attributes.get(name), self._attributes.get(f"{name}_as_tensor")
        if exact is not None:
            if np.asarray(exact).dtype != self._dtype:
                raise NotCompiledError(f"its attribute {name} has another datatype than its matrix")
            return np.asarray(exact).ravel()
        array = np.empty(0, self._dtype) if value is None else np.atleast_1d(np.asarray(value))
        if array.dtype.kind != "f":
            raise NotCompiledError(f"its attribute {name} is not of numbers")
        return array.astype(self._dtype)

    def texts(self, name: str) -> list[str]:
        value = self._attributes.get(name) or []
        if not isinstance(value, list):
            raise NotCompiledError(f"its attribute {name} is not of texts")
        return value


def _checked(
    made: "_Made", aggregate: str, bases: NDArray[Any], transform: str, labels: tuple[int, ...] | tuple[str, ...]
) -> Forest:
    if aggregate not in {_SUM, _AVERAGE}:
        raise NotCompiledError(f"its trees are not summed: {aggregate}")
    if transform not in {"NONE", "LOGISTIC", "SOFTMAX", "SOFTMAX_ZERO"}:
        raise NotCompiledError(f"its sums are transformed by {transform}")
    scored = frozenset[int]().union(*(each for each in made.always))
    return Forest(
        tuple(made.trees),
        made.outputs,
        bases,
        aggregate == _AVERAGE,
        transform,
        scored,
        frozenset(made.possible),
        made.is_positive,
        labels,
    )


@dataclass(slots=True)
class _Made:
    trees: list[ForestTree]
    outputs: int
    always: list[set[int]]
    possible: set[int]
    is_positive: bool


def _made(nodes: _Nodes, roots: list[int], outputs: int, columns: int, dtype: np.dtype[Any]) -> _Made:
    if not roots or not 0 < outputs <= MAX_OUTPUTS:
        raise NotCompiledError(f"it has {len(roots)} trees and {outputs:,} outputs")
    is_split = nodes.mode != _LEAF
    if (nodes.mode == _EQ).any() or (nodes.mode == _NEQ).any():
        raise NotCompiledError("its trees ask whether numbers are equal")
    for side in (nodes.true, nodes.false):
        if ((side[is_split] < 0) | (side[is_split] >= len(nodes.mode))).any():
            raise NotCompiledError("its trees lead to nodes that are not there")
    if ((nodes.feature[is_split] < 0) | (nodes.feature[is_split] >= columns)).any():
        raise NotCompiledError("its trees ask for columns that are not there")
    voted = [vote for votes in nodes.votes.values() for vote in votes]
    if any(not 0 <= output < outputs for output, _ in voted):
        raise NotCompiledError("its leaves have outputs that are not there")
    made = _Made([], outputs, [], {output for output, _ in voted}, all(not value < 0 for _, value in voted))
    forms = _normalised(nodes, dtype)
    left_nodes, left_values = MAX_NODES, MAX_VALUES
    for start in roots:
        tree, used, always = _tree(nodes, forms, start, outputs, most=left_nodes)
        left_nodes -= used
        made.trees.append(tree)
        made.always.append(always)
        left_values -= tree.values.size
        if left_values < 0:
            raise NotCompiledError(f"its leaves have more than {MAX_VALUES:,} values")
    return made


@dataclass(frozen=True, slots=True)
class _Forms:
    """The nodes in the one form: lists, since they are read one by one."""

    bound: list[Any]
    left: list[int]
    right: list[int]
    missing_left: list[bool]
    is_leaf: list[bool]
    feature: list[int]


def _normalised(nodes: _Nodes, dtype: np.dtype[Any]) -> _Forms:
    mode, value = nodes.mode, nodes.value
    is_turned = (mode == _GTE) | (mode == _GT)
    with np.errstate(all="ignore"):
        # Below a number is up to the one before it; below the least there is nothing.
        before = np.where(value == -np.inf, dtype.type(np.nan), np.nextafter(value, dtype.type(-np.inf)))
    bound = np.where((mode == _LT) | (mode == _GTE), before, value)
    bound = np.where(is_turned & np.isnan(value), dtype.type(np.inf), bound).astype(dtype)
    return _Forms(
        list(bound),
        np.where(is_turned, nodes.false, nodes.true).tolist(),
        np.where(is_turned, nodes.true, nodes.false).tolist(),
        (nodes.missing_true != is_turned).tolist(),
        (mode == _LEAF).tolist(),
        nodes.feature.tolist(),
    )


def _tree(nodes: _Nodes, forms: _Forms, start: int, outputs: int, *, most: int) -> tuple[ForestTree, int, set[int]]:
    """The tree from a root on, how many nodes and leaves it has, and the outputs that each of its leaves has."""
    kept: list[int] = []
    children: list[list[int]] = [[], []]
    leaves: list[int] = []
    depth = used = 0
    stack: list[tuple[int, int, int, int]] = [(start, -1, 0, 0)]  # node, where it hangs, on which side, how deep
    while stack:
        at, parent, side, level = stack.pop()
        used += 1
        if used > most:
            raise NotCompiledError(f"its trees have more than {MAX_NODES:,} nodes")
        if level > MAX_DEPTH:
            raise NotCompiledError(f"its trees are deeper than {MAX_DEPTH} levels, or lead back to where they were")
        if forms.is_leaf[at]:
            place = -1 - len(leaves)
            leaves.append(at)
            depth = max(depth, level)
        else:
            place = len(kept)
            kept.append(at)
            children[0].append(0)
            children[1].append(0)
            stack.append((forms.right[at], place, 1, level + 1))
            stack.append((forms.left[at], place, 0, level + 1))
        if parent >= 0:
            children[side][parent] = place
    dtype = nodes.value.dtype
    values, output, always = _values(nodes, leaves, outputs, dtype)
    tree = ForestTree(
        np.array([forms.feature[at] for at in kept], np.int64),
        np.array([forms.bound[at] for at in kept], dtype),
        np.array([forms.missing_left[at] for at in kept], np.bool_),
        np.array(children[0], np.int64),
        np.array(children[1], np.int64),
        values,
        output,
        depth,
    )
    return tree, used, always


def _values(nodes: _Nodes, leaves: list[int], outputs: int, dtype: np.dtype[Any]) -> tuple[NDArray[Any], int, set[int]]:
    """The values of leaves, the output that all of them have or -1, and the outputs that each of them has."""
    votes = [nodes.votes.get(at, []) for at in leaves]
    if outputs == 1:
        # onnxruntime takes a leaf's first value, and without any what a node compares with.
        only = [each[0][1] if each else nodes.value[at] for at, each in zip(leaves, votes, strict=True)]
        return np.array(only, dtype).reshape(-1, 1), 0, {0}
    found = [{output for output, _ in each} for each in votes]
    if any(len(each) != len(names) for each, names in zip(votes, found, strict=True)):
        raise NotCompiledError("a leaf has two values for the same output")
    always = set.intersection(*found)
    every = set.union(*found)
    if len(every) == 1 and always == every:
        return np.array([each[0][1] for each in votes], dtype).reshape(-1, 1), min(every), always
    if len(leaves) * outputs > MAX_VALUES:
        raise NotCompiledError(f"its leaves have more than {MAX_VALUES:,} values")
    values = np.zeros((len(leaves), outputs), dtype)
    for leaf, each in enumerate(votes):
        for output, value in each:
            values[leaf, output] = value
    return values, -1, always


def splits(forest: Forest) -> Iterator[tuple[int, NDArray[Any]]]:
    """The bounds of each column that is asked for."""
    feature = np.concatenate([tree.feature for tree in forest.trees])
    bound = np.concatenate([tree.bound for tree in forest.trees])
    for column in np.unique(feature).tolist():
        yield column, np.unique(bound[feature == column])
