"""The kernels of trees: one row through several trees at a time, and `LANES` rows through one tree at a time.

Neither branches on what is compared, which a processor would foresee wrong half of the time. A small tree's comparisons
are all made, and choices among its leaves follow (`dense`). A tree of up to 64 leaves keeps a bit per leaf that can still be
reached; each comparison clears those on its other side, and the lowest that stays is the leaf. Sums are taken in the order
of the trees, as onnxruntime with one thread takes them.

Sources: Lucchese et al., "QuickScorer", 2015, and Lettich et al., "RapidScorer", 2018, for the bits.
"""

from typing import Any, Final, NamedTuple

import numpy as np

from penstock_server.compiled_models import layout
from penstock_server.compiled_models.kernels.lanes import (
    at_most,
    chosen,
    each,
    load,
    lowest,
    masked,
    not_above,
    plus,
    store,
    taken,
)
from penstock_server.kernels.base import inlined, kernel

_U: Final[Any] = np.uint64
"""Positions are unsigned: numba checks signed ones for being negative."""
_LANES: Final[Any] = np.uint64(layout.LANES)
_EVERY_32: Final[Any] = np.int32(-1)
_EVERY_64: Final[Any] = np.int64(-1)


class Nodes(NamedTuple):
    """The nodes for one row, four numbers of the trees' type each: column, left and right as int32, and last the bound.

    A leaf leads to itself, and its bound is its value where there is one output. Positions count numbers of the trees' type,
    in which an int32 stands at `shift` bits more.
    """

    links: Any
    bounds: Any
    shift: Any
    flags: Any
    leaves: Any


class LaneNodes(NamedTuple):
    """The nodes for lanes: feature positions are in the block of lanes, masks are of the leaves that stay on the right."""

    features: Any
    bounds: Any
    flags: Any
    masks: Any
    half_masks: Any
    values: Any


class Sums(NamedTuple):
    """The sums of each output, and places of leaves."""

    sums: Any
    places: Any
    outputs: Any


@inlined
def step(nodes: Nodes, row: Any, at: Any) -> Any:
    """The node behind a node; NaN goes right."""
    link = at << nodes.shift
    goes_right = not (row[_U(nodes.links[link])] <= nodes.bounds[at + _U(3)])
    return _U(nodes.links[link + _U(1) + _U(goes_right)])


@inlined
def careful_step(nodes: Nodes, row: Any, at: Any) -> Any:
    """The node behind a node; NaN goes where its flag says."""
    link = at << nodes.shift
    value = row[_U(nodes.links[link])]
    is_missing_left = (value != value) & (nodes.flags[at >> _U(2)] != 0)  # noqa: PLR0124 - NaN alone
    goes_right = not ((value <= nodes.bounds[at + _U(3)]) | is_missing_left)
    return _U(nodes.links[link + _U(1) + _U(goes_right)])


def walker(step: Any) -> Any:
    """The kernel of one row with a step of either kind."""

    @kernel
    def walk(walks: Any, count: Any, nodes: Nodes, row: Any, places: Any) -> None:
        """The leaf of each tree; trees of like depth are walked through together."""
        for first in range(_U(0), count * _U(layout.WALK_WORDS), _U(layout.TOGETHER * layout.WALK_WORDS)):
            a, b = _U(walks[first]), _U(walks[first + _U(layout.WALK_WORDS)])
            c, d = _U(walks[first + _U(2 * layout.WALK_WORDS)]), _U(walks[first + _U(3 * layout.WALK_WORDS)])
            e, f = _U(walks[first + _U(4 * layout.WALK_WORDS)]), _U(walks[first + _U(5 * layout.WALK_WORDS)])
            for _ in range(walks[first + _U(layout.WALK_DEPTH)]):
                a, b, c = step(nodes, row, a), step(nodes, row, b), step(nodes, row, c)
                d, e, f = step(nodes, row, d), step(nodes, row, e), step(nodes, row, f)
            places[_U(walks[first + _U(layout.WALK_TREE)])] = a
            places[_U(walks[first + _U(layout.WALK_WORDS + layout.WALK_TREE)])] = b
            places[_U(walks[first + _U(2 * layout.WALK_WORDS + layout.WALK_TREE)])] = c
            places[_U(walks[first + _U(3 * layout.WALK_WORDS + layout.WALK_TREE)])] = d
            places[_U(walks[first + _U(4 * layout.WALK_WORDS + layout.WALK_TREE)])] = e
            places[_U(walks[first + _U(5 * layout.WALK_WORDS + layout.WALK_TREE)])] = f

    return walk


walk: Final = walker(step)
walk_carefully: Final = walker(careful_step)


@inlined
def goes_right(nodes: Any, row: Any, node: Any, careful: bool) -> Any:
    """1 if a row goes right at a node of a dense tree, else 0."""
    value = row[_U(nodes.features[node]) >> _U(layout.LANE_BITS)]
    is_left = value <= nodes.bounds[node]
    if careful:
        is_left = is_left | ((value != value) & (nodes.flags[node] != 0))  # noqa: PLR0124 - NaN alone
    return _U(not is_left)


@kernel
def add_dense(trees: Any, count: Any, nodes: Any, row: Any, sums: Any, careful: bool) -> None:
    """Adds one row's leaves of trees that are all dense, tree by tree: the processor computes several trees at once."""
    for tree in range(count):
        entry = tree * _U(layout.TREE_WORDS)
        node = _U(trees[entry + _U(layout.LANE_NODE)])
        first = goes_right(nodes, row, node, careful)
        node += _U(1) + _U(3) * first
        second = goes_right(nodes, row, node, careful)
        third = goes_right(nodes, row, node + _U(1) + second, careful)
        leaf = _U(trees[entry + _U(layout.FIRST_VALUE)]) + _U(4) * first + _U(2) * second + third
        sums[_U(trees[entry + _U(layout.TREE_OUTPUT)])] += nodes.values[leaf]


@kernel
def add_leaves(trees: Any, count: Any, nodes: Nodes, values: Any, sums: Sums) -> None:
    """Adds the values of one row's leaves, tree by tree."""
    if sums.outputs == 1:
        total = sums.sums[0]
        for tree in range(count):
            total += nodes.bounds[_U(sums.places[tree]) + _U(3)]
        sums.sums[0] = total
        return
    for tree in range(count):
        entry = tree * _U(layout.TREE_WORDS)
        first, leaf = _U(trees[entry + _U(layout.FIRST_VALUE)]), _U(nodes.leaves[_U(sums.places[tree]) >> _U(2)])
        output = trees[entry + _U(layout.TREE_OUTPUT)]
        if output >= 0:
            sums.sums[_U(output)] += values[first + leaf]
        else:
            first += leaf * sums.outputs
            for each_output in range(sums.outputs):
                sums.sums[each_output] += values[first + each_output]


@inlined
def is_left(nodes: LaneNodes, block: Any, node: Any) -> Any:
    """Which lanes go left at a node; NaN goes right."""
    return at_most(load(block, _U(nodes.features[node])), nodes.bounds[node])


@inlined
def is_left_carefully(nodes: LaneNodes, block: Any, node: Any) -> Any:
    """Which lanes go left at a node; NaN goes where its flag says."""
    values = load(block, _U(nodes.features[node]))
    if nodes.flags[node] != 0:
        return not_above(values, nodes.bounds[node])
    return at_most(values, nodes.bounds[node])


def lanes_walker(is_left: Any, careful: bool) -> Any:
    """The kernel of lanes with comparisons of either kind."""

    @inlined
    def among_two(nodes: LaneNodes, block: Any, node: Any, leaf: Any) -> Any:
        return chosen(is_left(nodes, block, node), each(nodes.values[leaf]), each(nodes.values[leaf + _U(1)]))

    @inlined
    def among_four(nodes: LaneNodes, block: Any, node: Any, leaf: Any) -> Any:
        left, right = among_two(nodes, block, node + _U(1), leaf), among_two(nodes, block, node + _U(2), leaf + _U(2))
        return chosen(is_left(nodes, block, node), left, right)

    @inlined
    def among_eight(nodes: LaneNodes, block: Any, node: Any, leaf: Any) -> Any:
        """The leaf of a dense tree; nodes come before those on their left, and these before those on their right."""
        left, right = among_four(nodes, block, node + _U(1), leaf), among_four(nodes, block, node + _U(4), leaf + _U(4))
        return chosen(is_left(nodes, block, node), left, right)

    @inlined
    def leaves_32(nodes: LaneNodes, block: Any, node: Any, count: Any) -> Any:
        """Each lane's leaf in a tree of up to 32."""
        bits = each(_EVERY_32)
        for at in range(node, node + count):
            bits = masked(bits, is_left(nodes, block, at), nodes.half_masks[_U(2) * at])
        return lowest(bits)

    @inlined
    def leaves_64(nodes: LaneNodes, block: Any, node: Any, count: Any) -> Any:
        """Each lane's leaf in a tree of up to 64."""
        bits = each(_EVERY_64)
        for at in range(node, node + count):
            bits = masked(bits, is_left(nodes, block, at), nodes.masks[at])
        return lowest(bits)

    @inlined
    def leaves_walked(own: Nodes, block: Any, start: Any, depth: Any, places: Any, rows: Any) -> Any:
        """The leaf of each of some lanes in a tree of any size."""
        for lane in range(rows):
            places[lane] = start
        for _ in range(depth):
            for lane in range(rows):
                at = _U(places[lane])
                link = at << own.shift
                value = block[_U(own.links[link]) * _LANES + lane]
                goes_left = value <= own.bounds[at + _U(3)]
                if careful:
                    goes_left |= (value != value) & (own.flags[at >> _U(2)] != 0)  # noqa: PLR0124 - NaN alone
                places[lane] = own.links[link + _U(1) + _U(not goes_left)]
        for lane in range(rows):
            places[lane] = own.leaves[_U(places[lane]) >> _U(2)]
        return load(places, _U(0))

    @kernel
    def add_lanes(trees: Any, count: Any, own: Nodes, nodes: LaneNodes, block: Any, sums: Sums, rows: Any) -> None:
        """Adds the values of the lanes' leaves, tree by tree."""
        for tree in range(count):
            entry = tree * _U(layout.TREE_WORDS)
            shape, output = trees[entry + _U(layout.SHAPE)], trees[entry + _U(layout.TREE_OUTPUT)]
            node, leaf = _U(trees[entry + _U(layout.LANE_NODE)]), _U(trees[entry + _U(layout.FIRST_VALUE)])
            at = _U(max(output, 0)) * _LANES
            if shape == layout.DENSE:
                found = among_eight(nodes, block, node, leaf)
                store(sums.sums, at, plus(load(sums.sums, at), found))
                continue
            size = _U(trees[entry + _U(layout.LANE_COUNT)])
            if shape == layout.MASKED_32:
                places = leaves_32(nodes, block, node, size)
            elif shape == layout.MASKED_64:
                places = leaves_64(nodes, block, node, size)
            else:
                places = leaves_walked(own, block, trees[entry + _U(layout.NODE)], size, sums.places, rows)
            if output >= 0:
                store(sums.sums, at, plus(load(sums.sums, at), taken(nodes.values, leaf, places)))
            else:
                store(sums.places, _U(0), places)
                for lane in range(_LANES):
                    first = leaf + _U(sums.places[lane]) * sums.outputs
                    for output_at in range(sums.outputs):
                        sums.sums[output_at * _LANES + lane] += nodes.values[first + output_at]

    return add_lanes


add_lanes: Final = lanes_walker(is_left, careful=False)
add_lanes_carefully: Final = lanes_walker(is_left_carefully, careful=True)
