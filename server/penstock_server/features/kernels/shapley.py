"""The kernel of Shapley values of trees, path-dependent: the features that are not given go both ways, by the training rows.

For a set S of given features a tree is worth, leaf by leaf, its value times a factor per feature of its path: 1 or 0 for
the features in S, as the row goes there or not, and for the others the share z of training rows that go there. If each
feature is in S with probability q, independently, the expected factor is q + (1 - q) z, or (1 - q) z where the row does not
go. A feature's Shapley value is the integral over q of what it adds to that product (Owen's multilinear extension). The
integrand is a polynomial in q of a lower degree than the path has features, so Gauss and Legendre's rule gives it exactly.

So a tree costs two passes over its nodes for every block of `LANES` points: down for the product of the factors above a
node, and up for the sum of the leaves below it. No step subtracts what it added, as unwinding a path does. Nodes with two
leaves, half of all, come last in a tree: they need no way down, and are treated apart.

Sources: Owen, "Multilinear extensions of games", 1972. Lundberg et al., "From local explanations to global understanding
with explainable AI for trees", 2020, for the game. Yu et al., "Linear TreeShap", 2022, for polynomials in place of subsets.
"""

from typing import Any, Final, NamedTuple

import numpy as np

from penstock_server.features.compiler import tree_layout as layout
from penstock_server.features.kernels.memory import Program
from penstock_server.features.kernels.vector import each, fused, load, minus, over, plus, store, times
from penstock_server.kernels.base import INT64, POINTER, carray, entry_point, inlined, kernel

_U: Final[Any] = np.uint64
"""Positions are unsigned: numba checks signed ones for being negative."""
_LANES: Final[Any] = np.uint64(layout.LANES)
_ZERO: Final = 1.0000000180025095e-35
"""What LightGBM takes as zero: the float32 nearest to 1e-35."""


class Tree(NamedTuple):
    """Where a tree's nodes are, of which the first `upper` have a node below; and which value of a leaf counts."""

    nodes: Any
    upper: Any
    count: Any
    output: Any


class Way(NamedTuple):
    """The row's way at a node: for each child 1 where all of the node's feature so far leads there, else 0."""

    left: Any
    right: Any


class Points(NamedTuple):
    """Four points q of the integral, and what each lacks of 1."""

    points: Any
    others: Any


class Passes(NamedTuple):
    """The memory of a tree's passes: for each node the row's ways, four products above it and four sums below it.

    `ways` begin with a 1, the way of a feature that no node above asks for; then come both ways of each node.
    """

    ways: Any
    above: Any
    below: Any


class Worth(NamedTuple):
    """Where what each group is worth is summed: four parts of each of its outputs."""

    sums: Any
    outputs: Any


@inlined
def is_among(program: Program, at: Any, value: float) -> Any:
    """Whether a value is one of a node's categories, whole numbers from 0 on: their number, then a bit each."""
    count = program.words[at]
    if not 0.0 <= value < count:
        return False
    category = _U(value)
    return (program.words[at + _U(1) + (category >> _U(6))] >> np.int64(category & _U(63))) & 1 != 0


@kernel
def goes_left_oddly(program: Program, node: Any, value: float, flags: int) -> Any:
    """Whether a value goes left at a node of categories, or at one that takes zeros as missing."""
    if value != value or (flags & layout.ZERO_IS_MISSING and abs(value) <= _ZERO):  # noqa: PLR0124 - NaN alone
        return flags & layout.MISSING_LEFT != 0
    if flags & layout.IS_CATEGORICAL:
        return is_among(program, _U(program.words[node + _U(layout.THRESHOLD)]), value)
    return value <= program.reals[node + _U(layout.THRESHOLD)]


@inlined
def follow(program: Program, tree: Tree, row: Any, ways: Any) -> None:
    """The row's ways at all nodes. A pass of its own has no branch that depends on values, which would be foreseen wrong."""
    words = program.words
    for place in range(tree.count):
        node = tree.nodes + place * _U(layout.NODE_WORDS)
        value, flags = row[_U(words[node + _U(layout.FEATURE)])], words[node + _U(layout.GROUP)]
        if flags & (layout.IS_CATEGORICAL | layout.ZERO_IS_MISSING):
            is_left = goes_left_oddly(program, node, value, flags)
        else:
            is_missing_left = (value != value) & (flags & layout.MISSING_LEFT != 0)  # noqa: PLR0124 - NaN alone
            is_left = (value <= program.reals[node + _U(layout.THRESHOLD)]) | is_missing_left
        is_open = ways[_U(words[node + _U(layout.BEFORE)])]
        left = is_open * np.float64(is_left)
        ways[_U(2) * place + _U(1)] = left
        ways[_U(2) * place + _U(2)] = is_open - left


@inlined
def kept(ways: Any, place: Any) -> Way:
    """The row's way at a node."""
    return Way(ways[_U(2) * place + _U(1)], ways[_U(2) * place + _U(2)])


@inlined
def expected(at: Points, goes: float, share: float) -> Any:
    """The expected factor of a feature at each point: `goes` is 1 where the row goes this way, else 0."""
    return fused(at.others, each(share), times(at.points, each(goes)))


@inlined
def former(program: Program, node: Any, at: Points, is_open: float) -> Any:
    """What a node's factors divide: its feature's factor above, where an earlier node asked for the feature too."""
    share = program.reals[node + _U(layout.SHARE_LEFT)] + program.reals[node + _U(layout.SHARE_RIGHT)]
    return over(each(1.0), expected(at, is_open, share))


@inlined
def descend(program: Program, tree: Tree, at: Points, passes: Passes) -> None:
    """The product of the factors above each node, from that of the root on."""
    words, reals = program.words, program.reals
    for place in range(tree.upper):
        node = tree.nodes + place * _U(layout.NODE_WORDS)
        left, right = words[node + _U(layout.LEFT)], words[node + _U(layout.RIGHT)]
        goes = kept(passes.ways, place)
        product = load(passes.above, place * _LANES)
        if words[node + _U(layout.BEFORE)]:
            product = times(product, former(program, node, at, goes.left + goes.right))
        if left >= 0:
            factor = expected(at, goes.left, reals[node + _U(layout.SHARE_LEFT)])
            store(passes.above, _U(left) * _LANES, times(product, factor))
        if right >= 0:
            factor = expected(at, goes.right, reals[node + _U(layout.SHARE_RIGHT)])
            store(passes.above, _U(right) * _LANES, times(product, factor))


@inlined
def settle(
    program: Program,
    place: Any,
    node: Any,
    goes: Way,
    at: Points,
    passes: Passes,
    worth: Worth,
    under: Any,
    change: Any,
) -> None:
    """Keeps what is under a node, and adds what its feature is worth to its group.

    `under` and `change`, the difference that the feature makes below, are still without the factor above that both divide.
    """
    change = times(change, load(passes.above, place * _LANES))
    if program.words[node + _U(layout.BEFORE)]:
        divisor = former(program, node, at, goes.left + goes.right)
        under = times(under, divisor)
        change = times(change, times(divisor, divisor))
    store(passes.below, place * _LANES, under)
    sums = _U(program.words[node + _U(layout.GROUP)] >> layout.FLAG_BITS) * worth.outputs * _LANES
    store(worth.sums, sums, plus(load(worth.sums, sums), change))


@inlined
def leaf(program: Program, tree: Tree, child: int) -> Any:
    """The value of a leaf."""
    return program.reals[_U(-child) + tree.output]


@inlined
def ascend_last(program: Program, tree: Tree, at: Points, passes: Passes, worth: Worth) -> None:
    """The nodes with two leaves: what is under them, and what their features are worth."""
    words, reals = program.words, program.reals
    for place in range(tree.upper, tree.count):
        node = tree.nodes + place * _U(layout.NODE_WORDS)
        left, right = (
            leaf(program, tree, words[node + _U(layout.LEFT)]),
            leaf(program, tree, words[node + _U(layout.RIGHT)]),
        )
        goes = kept(passes.ways, place)
        share_left, share_right = reals[node + _U(layout.SHARE_LEFT)], reals[node + _U(layout.SHARE_RIGHT)]
        under = expected(at, goes.left * left + goes.right * right, share_left * left + share_right * right)
        step = (goes.left * share_right - goes.right * share_left) * (left - right)
        settle(program, place, node, goes, at, passes, worth, under, each(step))


@inlined
def under_of(program: Program, tree: Tree, child: int, below: Any) -> Any:
    """What is under a child: the sum of its leaves, each with the factors between."""
    if child >= 0:
        return load(below, _U(child) * _LANES)
    return each(leaf(program, tree, child))


@inlined
def ascend(program: Program, tree: Tree, at: Points, passes: Passes, worth: Worth) -> None:
    """The other nodes, from the bottom up: what is under them, and what their features are worth."""
    words, reals = program.words, program.reals
    for back in range(tree.upper):
        place = tree.upper - _U(1) - back
        node = tree.nodes + place * _U(layout.NODE_WORDS)
        left = under_of(program, tree, words[node + _U(layout.LEFT)], passes.below)
        right = under_of(program, tree, words[node + _U(layout.RIGHT)], passes.below)
        goes = kept(passes.ways, place)
        share_left, share_right = reals[node + _U(layout.SHARE_LEFT)], reals[node + _U(layout.SHARE_RIGHT)]
        under = times(left, expected(at, goes.left, share_left))
        under = fused(right, expected(at, goes.right, share_right), under)
        change = times(minus(left, right), each(goes.left * share_right - goes.right * share_left))
        settle(program, place, node, goes, at, passes, worth, under, change)


@inlined
def add_tree(program: Program, entry: Any, row: Any, passes: Passes, worth: Worth) -> None:
    """Adds what each group is worth in one tree."""
    words, reals = program.words, program.reals
    nodes, count = _U(words[entry + _U(layout.NODES)]), _U(words[entry + _U(layout.NODE_COUNT)])
    upper, first = _U(words[entry + _U(layout.UPPER_COUNT)]), _U(words[entry + _U(layout.FIRST_OUTPUT)])
    follow(program, Tree(nodes, upper, count, _U(0)), row, passes.ways)
    for block in range(_U(words[entry + _U(layout.BLOCK_COUNT)])):
        rule = _U(words[entry + _U(layout.POINTS)]) + block * _U(2) * _LANES
        points = load(reals, rule)
        at = Points(points, minus(each(1.0), points))
        store(passes.above, _U(0), load(reals, rule + _LANES))
        descend(program, Tree(nodes, upper, count, _U(0)), at, passes)
        for output in range(_U(words[entry + _U(layout.OUTPUT_COUNT)])):
            own = Tree(nodes, upper, count, output)
            sums = Worth(worth.sums[(first + output) * _LANES :], worth.outputs)
            ascend_last(program, own, at, passes, sums)
            ascend(program, own, at, passes, sums)


@kernel
def share_out(program: Program, worth: Any, out: Any) -> None:
    """Shares what each group is worth among its raw columns."""
    words = program.words
    for group in range(words[layout.GROUPS]):
        begin, end = words[words[layout.SHARES] + group], words[words[layout.SHARES] + group + 1]
        for output in range(words[layout.OUTPUTS]):
            at = (group * words[layout.OUTPUTS] + output) * layout.LANES
            total = (worth[at] + worth[at + 1]) + (worth[at + 2] + worth[at + 3])
            for place in range(begin, end, 2):
                out[words[place], output] += total * program.reals[place + 1]


@entry_point(POINTER, POINTER, INT64, INT64, POINTER, POINTER)
def explain_trees(at: Any, matrix: Any, is_double: int, rows: int, out: Any, scratch: Any) -> int:
    """The Shapley values of `rows` rows of the matrix, float64 [rows, raw columns, outputs].

    `scratch` holds the products and sums of a tree's nodes, its ways, what each group is worth, and one row.
    """
    header = carray(at, (layout.HEADER_WORDS,), np.int64)
    size, width, most = header[layout.WORDS], header[layout.WIDTH], header[layout.MOST_NODES]
    groups, outputs, columns = header[layout.GROUPS], header[layout.OUTPUTS], header[layout.COLUMNS]
    program = Program(carray(at, (size,), np.int64), carray(at, (size,), np.float64))
    singles, doubles = carray(matrix, (rows, width), np.float32), carray(matrix, (rows, width), np.float64)
    given = carray(out, (rows, columns, outputs), np.float64)
    worth_at = (2 * layout.LANES + 2) * most + 1
    row_at = worth_at + groups * outputs * layout.LANES
    memory = carray(scratch, (row_at + width,), np.float64)
    below, ways = memory[layout.LANES * most :], memory[2 * layout.LANES * most :]
    worth, row = Worth(memory[worth_at:row_at], _U(outputs)), memory[row_at:]
    passes = Passes(ways, memory, below)
    ways[0] = 1.0
    for at_row in range(rows):
        worth.sums[:] = 0.0
        given[at_row] = 0.0
        for column in range(width):
            value = doubles[at_row, column] if is_double else np.float64(singles[at_row, column])
            row[column] = np.float64(np.float32(value)) if header[layout.IS_SINGLE] else value
        for tree in range(_U(header[layout.TREES])):
            add_tree(program, _U(header[layout.ENTRIES]) + tree * _U(layout.TREE_WORDS), row, passes, worth)
        share_out(program, worth.sums, given[at_row])
    return 0


ENTRY_POINTS: Final = {"explain_trees": explain_trees}
"""The functions that Python calls through C."""
