"""Writes a program's block of memory, and lays its trees out as the kernels `forest` read them."""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from penstock_server.compiled_models import layout
from penstock_server.compiled_models.trees import Forest, ForestTree

_ALIGNMENT: Final = 64


class ProgramTables:
    """The tables behind a program's instructions, as bytes; a table begins at a multiple of a cache line."""

    def __init__(self, start_bytes: int) -> None:
        self._start = -(-start_bytes // _ALIGNMENT) * _ALIGNMENT
        self._parts: list[bytes] = []
        self._size = self._start

    def add(self, values: NDArray[Any]) -> int:
        """Where a table begins, in elements of its type."""
        at = self._size
        raw = np.ascontiguousarray(values).tobytes()
        raw += bytes(-len(raw) % _ALIGNMENT)
        self._parts.append(raw)
        self._size += len(raw)
        return at // values.dtype.itemsize

    def block(self, words: list[int]) -> NDArray[np.int64]:
        """Words, then the tables, in memory that begins at a multiple of a cache line."""
        block = aligned(self._size // 8)
        block[: len(words)] = words
        block[self._start // 8 :] = np.frombuffer(b"".join(self._parts), np.int64)
        return block


def aligned(words: int) -> NDArray[np.int64]:
    """Memory of zeros that begins at a multiple of a cache line."""
    memory = np.zeros(words + _ALIGNMENT // 8, np.int64)
    skip = -memory.ctypes.data % _ALIGNMENT // 8
    return memory[skip : skip + words]


def add_forest(tables: ProgramTables, forest: Forest, dtype: np.dtype[Any]) -> dict[int, int]:
    """The fields of the instruction that sums a forest's trees."""
    made = _Layout(dtype)
    for tree in forest.trees:
        made.add(tree, forest.outputs)
    return made.fields(tables)


class _Layout:
    """The tables of trees while they are made."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._entries: list[NDArray[np.int64]] = []
        self._depths: list[int] = []
        self._node_parts: list[tuple[NDArray[Any], ...]] = []
        self._lane_parts: list[tuple[NDArray[Any], ...]] = []
        self._values: list[NDArray[Any]] = []
        self._nodes = self._lane_nodes = self._value_count = 0

    def add(self, tree: ForestTree, outputs: int) -> None:
        leaves, nodes = len(tree.values), len(tree.feature)
        entry = np.zeros(layout.TREE_WORDS, np.int64)
        lane_parts: tuple[NDArray[Any], ...]
        is_dense = tree.depth <= layout.DENSE_DEPTH and tree.output >= 0
        if is_dense:
            shape = layout.DENSE
            lane_parts, numbers = _dense(tree)
            values = tree.values[numbers]
            first_place = np.zeros(leaves, np.int64)
            first_place[numbers[::-1]] = np.arange(len(numbers))[::-1]
        else:
            shape = layout.MASKED_32 if leaves <= 32 else layout.MASKED_64 if leaves <= 64 else layout.WALKED
            lane_parts = _masked(tree) if leaves <= 64 else ()
            values, first_place = tree.values, np.arange(leaves)
        entry[layout.SHAPE] = shape
        entry[layout.NODE] = self._nodes * layout.NODE_SIZE
        entry[layout.LANE_NODE] = self._lane_nodes
        entry[layout.LANE_COUNT] = tree.depth if shape == layout.WALKED else nodes
        entry[layout.FIRST_VALUE], entry[layout.TREE_OUTPUT] = self._value_count, tree.output
        self._entries.append(entry)
        self._depths.append(tree.depth)
        self._add_nodes(tree, first_place, outputs)
        if lane_parts:
            self._lane_parts.append(lane_parts)
            self._lane_nodes += len(lane_parts[0])
        self._values.append(values.ravel())
        self._value_count += values.size

    def _add_nodes(self, tree: ForestTree, first_place: NDArray[np.int64], outputs: int) -> None:
        """The nodes and then the leaves, which lead to themselves."""
        nodes, leaves = len(tree.feature), len(tree.values)
        start, size = self._nodes, nodes + leaves
        packed = np.zeros((size, layout.NODE_SIZE), self._dtype)
        links = packed.view(np.int32).reshape(size, -1)
        links[:nodes, layout.NODE_FEATURE] = tree.feature
        for place, side in ((layout.NODE_LEFT, tree.left), (layout.NODE_RIGHT, tree.right)):
            links[:nodes, place] = np.where(side >= 0, start + side, start + nodes - 1 - side) * layout.NODE_SIZE
            links[nodes:, place] = (start + nodes + np.arange(leaves)) * layout.NODE_SIZE
        packed[:nodes, layout.NODE_BOUND] = tree.bound
        if outputs == 1:
            packed[nodes:, layout.NODE_BOUND] = tree.values[:, 0]
        flags, numbers = np.zeros(size, np.int32), np.zeros(size, np.int32)
        flags[:nodes], numbers[nodes:] = tree.missing_left, first_place
        self._node_parts.append((packed, flags, numbers))
        self._nodes += size

    def fields(self, tables: ProgramTables) -> dict[int, int]:
        """Writes the tables; where they are."""
        entries = np.array(self._entries)
        packed, flags, leaves = (np.concatenate(parts) for parts in zip(*self._node_parts, strict=True))
        none = (np.zeros(0, np.int64), np.zeros(0, self._dtype), np.zeros(0, np.int64), np.zeros(0, np.int64))
        lanes = [np.concatenate(parts) for parts in zip(none, *self._lane_parts, strict=True)]
        is_dense = bool((entries[:, layout.SHAPE] == layout.DENSE).all())
        walks = self._walks()
        return {
            layout.TREE_COUNT: len(entries),
            layout.TREE_TABLE: tables.add(entries),
            layout.WALK_COUNT: len(walks),
            layout.WALK_TABLE: layout.NONE if is_dense else tables.add(walks),
            layout.HAS_MISSING: int(flags.any()),
            layout.NODES: tables.add(packed),
            layout.NODE_FLAGS: tables.add(flags),
            layout.NODE_LEAVES: tables.add(leaves),
            layout.LANE_FEATURES: tables.add((lanes[0] * layout.LANES).astype(np.int32)),
            layout.LANE_BOUNDS: tables.add(lanes[1].astype(self._dtype)),
            layout.LANE_FLAGS: tables.add(lanes[2].astype(np.int32)),
            layout.LANE_MASKS: tables.add(lanes[3]),
            layout.VALUES: tables.add(np.concatenate(self._values).astype(self._dtype)),
        }

    def _walks(self) -> NDArray[np.int64]:
        """The trees from the shallowest to the deepest, as many as are walked through together; the last one fills up."""
        order = np.argsort(self._depths, kind="stable")
        order = np.concatenate([order, np.repeat(order[-1:], -len(order) % layout.TOGETHER)])
        walks = np.zeros((len(order), layout.WALK_WORDS), np.int64)
        walks[:, layout.WALK_ROOT] = np.array(self._entries)[order, layout.NODE]
        walks[:, layout.WALK_TREE] = order
        depths = np.array(self._depths)[order].reshape(-1, layout.TOGETHER).max(axis=1)
        walks[:, layout.WALK_DEPTH] = np.repeat(depths, layout.TOGETHER)
        return walks


def _dense(tree: ForestTree) -> tuple[tuple[NDArray[Any], ...], NDArray[np.int64]]:
    """All comparisons of a tree of full depth, in the order that the kernels choose in, and the leaf at each of its ends."""
    features: list[int] = []
    bounds: list[Any] = []
    flags: list[int] = []
    ends: list[int] = []

    def grow(at: int, depth: int) -> None:
        if depth == 0:
            ends.append(-1 - at)
            return
        is_leaf = at < 0
        features.append(0 if is_leaf else int(tree.feature[at]))
        bounds.append(np.inf if is_leaf else tree.bound[at])
        flags.append(0 if is_leaf else int(tree.missing_left[at]))
        grow(at if is_leaf else int(tree.left[at]), depth - 1)
        grow(at if is_leaf else int(tree.right[at]), depth - 1)

    grow(0 if len(tree.feature) else -1, layout.DENSE_DEPTH)
    masks = np.zeros(len(features), np.int64)
    return (np.array(features), np.array(bounds), np.array(flags), masks), np.array(ends)


def _masked(tree: ForestTree) -> tuple[NDArray[Any], ...]:
    """Each comparison with the leaves that can still be reached on its right."""
    count = len(tree.feature)
    masks = [0] * count
    first = [0] * count
    end = [0] * count
    for at in reversed(range(count)):
        left, right = int(tree.left[at]), int(tree.right[at])
        first[at] = first[left] if left >= 0 else -1 - left
        middle = end[left] if left >= 0 else -left
        end[at] = end[right] if right >= 0 else -right
        bits = ~(((1 << middle) - 1) ^ ((1 << first[at]) - 1)) & 0xFFFFFFFFFFFFFFFF
        masks[at] = bits - (1 << 64) if bits >> 63 else bits
    return tree.feature, tree.bound, tree.missing_left.astype(np.int64), np.array(masks, np.int64)
