"""Lays an explanation of trees out as the kernel `features.kernels.shapley` reads it: one block of 64-bit words."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from penstock_server.explain.explanation import Origins, Trees, TreesExplanation, trees_of
from penstock_server.features.compiler import tree_layout as layout

Words = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class TreesProgram:
    """What the kernel reads.

    Attributes:
        words: the block.
        nodes: of all trees.
        scratch_words: the memory that a call needs.
    """

    words: Words
    nodes: int
    scratch_words: int


def program(explanation: TreesExplanation, columns: int) -> TreesProgram:
    """The block of an explanation that was checked, for `columns` raw columns."""
    trees = trees_of(explanation)
    origins = explanation.origins
    width, groups, outputs = len(origins.group_of_each), len(origins.groups), explanation.meaning.outputs
    count = len(trees.node_counts)
    entries = np.zeros((count, layout.TREE_WORDS), np.int64)
    blocks = -(-trees.paths // (2 * layout.LANES))
    points_at = layout.HEADER_WORDS + entries.size
    points, point_starts = _points(blocks, points_at)
    shares_at = points_at + len(points)
    shares = _shares(origins, shares_at)
    categories_at = shares_at + len(shares)
    leaves_at = categories_at + len(trees.categories)
    # Nodes begin at a multiple of their size, so that each is one line of the cache.
    nodes_at = -(-(leaves_at + len(trees.values)) // layout.NODE_WORDS) * layout.NODE_WORDS
    nodes = np.zeros((len(trees.feature), layout.NODE_WORDS), np.int64)
    nodes[:, layout.FEATURE] = trees.feature
    is_categorical = (trees.flags & layout.IS_CATEGORICAL) != 0
    places = np.where(is_categorical, trees.threshold, 0.0).astype(np.int64) + categories_at
    # Less than a number is at most the one before it.
    threshold = np.nextafter(trees.threshold, -np.inf) if explanation.is_strict else trees.threshold
    nodes[:, layout.THRESHOLD] = np.where(is_categorical, places, _bits(threshold))
    values = trees.leaf_counts * trees.output_counts
    first_leaf = np.repeat(leaves_at + np.cumsum(values) - values, trees.node_counts)
    stride = np.repeat(trees.output_counts, trees.node_counts)
    for side, child in ((layout.LEFT, trees.left), (layout.RIGHT, trees.right)):
        nodes[:, side] = np.where(child >= 0, child, -(first_leaf + (-1 - child.astype(np.int64)) * stride))
    nodes[:, layout.BEFORE] = trees.before + 1
    nodes[:, layout.SHARE_LEFT], nodes[:, layout.SHARE_RIGHT] = _bits(trees.share_left), _bits(trees.share_right)
    nodes[:, layout.GROUP] = (origins.group_of_each[trees.feature].astype(np.int64) << layout.FLAG_BITS) + trees.flags
    entries[:, layout.NODES] = nodes_at + (np.cumsum(trees.node_counts) - trees.node_counts) * layout.NODE_WORDS
    entries[:, layout.NODE_COUNT] = trees.node_counts
    entries[:, layout.UPPER_COUNT] = _upper(trees)
    entries[:, layout.FIRST_OUTPUT], entries[:, layout.OUTPUT_COUNT] = trees.first_outputs, trees.output_counts
    entries[:, layout.POINTS], entries[:, layout.BLOCK_COUNT] = point_starts, blocks
    most = int(trees.node_counts.max())
    header = np.zeros(layout.HEADER_WORDS, np.int64)
    size = nodes_at + nodes.size
    header[layout.WORDS], header[layout.TREES], header[layout.WIDTH] = size, count, width
    header[layout.GROUPS], header[layout.OUTPUTS], header[layout.COLUMNS] = groups, outputs, columns
    header[layout.MOST_NODES] = most
    header[layout.IS_SINGLE] = explanation.is_single
    header[layout.ENTRIES], header[layout.SHARES] = layout.HEADER_WORDS, shares_at
    words = _aligned(size)
    for at, part in (
        (0, header),
        (layout.HEADER_WORDS, entries.ravel()),
        (points_at, _bits(points)),
        (shares_at, shares),
        (categories_at, trees.categories),
        (leaves_at, _bits(trees.values)),
        (nodes_at, nodes.ravel()),
    ):
        words[at : at + len(part)] = part
    scratch = (2 * layout.LANES + 2) * most + 1 + groups * outputs * layout.LANES + width
    return TreesProgram(words, len(trees.feature), scratch)


def _upper(trees: Trees) -> Words:
    """For each tree how many nodes come before those at its end that have two leaves."""
    is_upper = (trees.left >= 0) | (trees.right >= 0)
    tree = np.repeat(np.arange(len(trees.node_counts)), trees.node_counts)
    own = np.arange(len(tree)) - (np.cumsum(trees.node_counts) - trees.node_counts)[tree]
    found = np.zeros(len(trees.node_counts), np.int64)
    np.maximum.at(found, tree[is_upper], own[is_upper] + 1)
    return found


def _bits(values: NDArray[np.float64]) -> Words:
    return np.ascontiguousarray(values, np.float64).view(np.int64)


def _aligned(size: int) -> Words:
    line = 8 * layout.NODE_WORDS
    memory = np.zeros(size * 8 + line, np.uint8)
    skip = -memory.ctypes.data % line
    return memory[skip : skip + size * 8].view(np.int64)


def _points(blocks: Words, at: int) -> tuple[NDArray[np.float64], Words]:
    """Gauss and Legendre's points and weights on 0 to 1 for each number of blocks, and where each tree's are."""
    rules: list[NDArray[np.float64]] = []
    starts: dict[int, int] = {}
    for each in np.unique(blocks).tolist():
        starts[each] = at
        points, weights = np.polynomial.legendre.leggauss(each * layout.LANES)
        rule = np.stack([(points + 1) / 2, weights / 2]).reshape(2, each, layout.LANES)
        rules.append(rule.transpose(1, 0, 2).ravel())
        at += rules[-1].size
    return np.concatenate(rules), np.array([starts[each] for each in blocks.tolist()], np.int64)


def _shares(origins: Origins, at: int) -> Words:
    """Where each group's entries begin, and the entries: a raw column and its share."""
    sizes = [len(group) for group in origins.groups]
    first = at + len(sizes) + 1
    starts = first + 2 * np.cumsum([0, *sizes])
    column = np.array([column for group in origins.groups for column in group], np.int64)
    share = np.repeat(1.0 / np.array(sizes), sizes)
    entries = np.stack([column, _bits(share)], axis=1).ravel()
    return np.concatenate([starts, entries])
