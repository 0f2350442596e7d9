"""Which of several neighbours at the same distance scikit-learn keeps.

It visits its rows in an order: leaf by leaf of its k-d tree, the nearer child of a node first, or as they were fitted. The
k nearest so far are a heap with the furthest on top, which the next row takes the place of if it is nearer. So the order
of the visits and the shape of the heap decide. Both are done again here, if any row of a batch needs it.
"""

from typing import Any, Final

import numpy as np
import onnx
import spox.opset.ai.onnx.v18 as op
from onnx import helper, numpy_helper
from spox import Tensor, Var, argument, build, inline

from penstock_tools.sklearn_compiler.graph import ops
from penstock_tools.sklearn_compiler.graph.metrics import Metric
from penstock_tools.sklearn_compiler.refusals import NotCompiled

_FIRST_VISITS: Final = 48
"""So many rows are always pushed; of the later ones those that are nearer than the k-th of these."""


def nearest(reduced: Var, x: Var, model: Any, metric: Metric) -> tuple[Var, Var]:
    """The k nearest of the model's rows.

    Args:
        reduced: FP64 [rows of x, rows], distances or what orders as they do.
        x: FP64 [rows, columns].
        model: a fitted estimator of neighbours.
        metric: its metric.

    Returns:
        Reduced distances FP64 [rows of x, k], and places INT64 [rows of x, k], in no certain order.

    Raises:
        NotCompiled: it looks for neighbours in a way that is not known here.
    """
    k, rows = int(model.n_neighbors), int(model.n_samples_fit_)
    if k >= rows:
        return op.top_k(reduced, op.const([rows]), largest=0)
    method = model._fit_method  # noqa: SLF001 - how it visits its rows has no public name
    if method not in ("kd_tree", "brute"):
        raise NotCompiled(f"it looks for neighbours by {method}")
    values, places = op.top_k(reduced, op.const([k + 1]), largest=0)
    last = op.gather(values, op.const([k - 1]), axis=1)
    has_tie = op.greater(
        op.reduce_max(op.cast(op.equal(last, op.gather(values, op.const([k]), axis=1)), to=np.int64), keepdims=0),
        op.const(0),
    )

    def untied() -> tuple[Var, Var]:
        first = op.const([0]), op.const([k]), op.const([1])
        return op.slice(values, *first), op.slice(places, *first)

    def tied() -> tuple[Var, Var]:
        visited = _visits(x, model, metric) if method == "kd_tree" else None
        return _kept(reduced, visited, k, rows)

    found, chosen = op.if_(has_tie, then_branch=tied, else_branch=untied)
    return found, chosen


def _visits(x: Var, model: Any, metric: Metric) -> Var:
    """When each row is visited, as a number FP64 [rows of x, rows]; smaller ones are earlier."""
    _, places, nodes, bounds = model._tree.get_arrays()  # noqa: SLF001 - the k-d tree that it keeps
    inner = np.flatnonzero(~nodes["is_leaf"].astype(np.bool_))
    leaves = np.flatnonzero(nodes["is_leaf"])
    size = int((nodes["idx_end"] - nodes["idx_start"])[leaves].max())
    leaf_of, place_in = np.zeros(len(places), np.int64), np.zeros(len(places))
    for at, leaf in enumerate(leaves):
        held = places[nodes["idx_start"][leaf] : nodes["idx_end"][leaf]]
        leaf_of[held], place_in[held] = at, np.arange(len(held))
    if not len(inner):
        return op.add(op.mul(ops.column(x, 0), op.const(0.0, np.float64)), op.const(place_in.reshape(1, -1)))
    # All leaves have the same depth; the choice at a node weighs as much as all those below it.
    weight, start = np.zeros((len(inner), len(leaves))), np.zeros(len(leaves))
    for at, leaf in enumerate(leaves):
        node, value = int(leaf), 1.0
        while node:
            parent = (node - 1) // 2
            is_first = node == 2 * parent + 1
            # The first child waits if it is not the nearer one, the second if the first is.
            weight[np.searchsorted(inner, parent), at] = -value if is_first else value
            start[at] += value if is_first else 0.0
            node, value = parent, value * 2
    lower, upper = bounds[0], bounds[1]
    first, second = 2 * inner + 1, 2 * inner + 2
    is_nearer = op.less_or_equal(
        _outside(x, lower[first], upper[first], metric), _outside(x, lower[second], upper[second], metric)
    )
    rank = op.add(op.matmul(op.cast(is_nearer, to=np.float64), op.const(weight)), op.const(start.reshape(1, -1)))
    by_row = op.gather(op.mul(rank, op.const(float(size), np.float64)), op.const(leaf_of), axis=1)
    return op.add(by_row, op.const(place_in.reshape(1, -1)))


def _outside(x: Var, lower: Any, upper: Any, metric: Metric) -> Var:
    """How far x is from boxes, reduced, FP64 [rows of x, boxes]."""
    zero = op.const(0.0, np.float64)
    total: Var | None = None
    for at in range(lower.shape[1]):
        column = ops.column(x, at)
        below = op.sub(op.const(lower[:, at].reshape(1, -1)), column)
        above = op.sub(column, op.const(upper[:, at].reshape(1, -1)))
        each = metric.term(op.max([below, above, zero]))
        total = each if total is None else metric.sum(total, each)
    assert total is not None
    return total


def _kept(reduced: Var, visited: Var | None, k: int, rows: int) -> tuple[Var, Var]:
    """What the heap holds after all visits."""
    every = op.const([rows])
    if visited is None:
        # The zero makes the places as many as the rows of x.
        counted = op.const(np.arange(rows).reshape(1, -1))
        order = op.add(op.mul(op.cast(op.greater(reduced, reduced), to=np.int64), op.const(0)), counted)
    else:
        _, order = op.top_k(visited, every, largest=0)
    distance = op.gather_elements(reduced, order, axis=1)
    count = min(rows, max(_FIRST_VISITS, 4 * k))
    first = op.const([0]), op.const([count]), op.const([1])
    later = op.const([count]), every, op.const([1])
    values, places = op.slice(distance, *first), op.slice(order, *first)
    if count < rows:
        bound = op.reduce_max(op.top_k(values, op.const([k]), largest=0)[0], op.const([1]), keepdims=1)
        rest, rest_places = op.slice(distance, *later), op.slice(order, *later)
        is_nearer = op.less(rest, bound)
        most = op.reduce_max(op.reduce_sum(op.cast(is_nearer, to=np.int64), op.const([1]), keepdims=0), keepdims=1)
        # Those that are nearer, in their order; further ones fill up shorter rows and change nothing.
        in_order = op.where(is_nearer, op.const(np.arange(rows - count).reshape(1, -1)), op.const(rows))
        _, chosen = op.top_k(in_order, most, largest=0)
        values = op.concat([values, op.gather_elements(rest, chosen, axis=1)], axis=1)
        places = op.concat([places, op.gather_elements(rest_places, chosen, axis=1)], axis=1)
    return _heap(values, places, k)


def _heap(values: Var, places: Var, k: int) -> tuple[Var, Var]:
    """Pushes column after column onto a heap of each row."""
    heap_values, heap_places = inline(_heap_model(k))(values, places).values()
    return heap_values, heap_places


def _heap_model(k: int) -> onnx.ModelProto:
    """The model of `_heap`: a Scan, put together by hand, because spox 0.18 gives the types of its body one axis too few."""
    number, whole = Tensor(np.float64, ("rows",)), Tensor(np.int64, ("rows",))
    held, at = [argument(number) for _ in range(k)], [argument(whole) for _ in range(k)]
    value, place = argument(number), argument(whole)
    before = {**_named("value", held), **_named("place", at), "next_value": value, "next_place": place}
    after = _pushed(held, at, value, place)
    body = build(before, {**_named("value_then", after[:k]), **_named("place_then", after[k:])})
    values, places = argument(Tensor(np.float64, ("rows", "visits"))), argument(Tensor(np.int64, ("rows", "visits")))
    rows = op.slice(op.shape(values), op.const([0]), op.const([1]))
    start = {
        "empty": op.expand(op.const(np.inf, np.float64), rows),
        "nowhere": op.expand(op.const(0), rows),
        "values_in": op.identity(values),
        "places_in": op.identity(places),
    }
    model = build({"values": values, "places": places}, start)
    del model.graph.output[:]
    outputs = [*_named("heap_value", after[:k]), *_named("heap_place", after[k:])]
    scan = helper.make_node(
        "Scan",
        ["empty"] * k + ["nowhere"] * k + ["values_in", "places_in"],
        outputs,
        body=body.graph,
        num_scan_inputs=2,
        scan_input_axes=[1, 1],
    )
    axis = numpy_helper.from_array(np.array([1]), "upright_axis")
    model.graph.initializer.append(axis)
    model.graph.node.append(scan)
    for name, kind, elements in (("value", "heap_values", 11), ("place", "heap_places", 7)):
        upright = [f"{kind}_{at_node}" for at_node in range(k)]
        for at_node in range(k):
            node = helper.make_node("Unsqueeze", [f"heap_{name}_{at_node}", "upright_axis"], [upright[at_node]])
            model.graph.node.append(node)
        model.graph.node.append(helper.make_node("Concat", upright, [kind], axis=1))
        model.graph.output.append(helper.make_tensor_value_info(kind, elements, ["rows", k]))
    return model


def _named(name: str, variables: list[Var]) -> dict[str, Var]:
    return {f"{name}_{at}": each for at, each in enumerate(variables)}


def _pushed(held: list[Var], at: list[Var], value: Var, place: Var) -> list[Var]:
    """The heap after one push: it goes down from the top, along the larger children, as long as they are larger."""
    k = len(held)
    here: list[Var | None] = [op.less(value, held[0])] + [None] * (k - 1)
    values, places = list(held), list(at)
    for node in range(k):
        is_here, left, right = here[node], 2 * node + 1, 2 * node + 2
        assert is_here is not None
        values[node] = op.where(is_here, value, held[node])
        places[node] = op.where(is_here, place, at[node])
        if left >= k:
            continue
        goes_left = op.and_(is_here, op.less(value, held[left]))
        if right < k:
            is_left = op.greater_or_equal(held[left], held[right])
            goes_right = op.and_(op.and_(is_here, op.not_(is_left)), op.less(value, held[right]))
            goes_left = op.and_(goes_left, is_left)
            here[right] = goes_right
            values[node] = op.where(goes_right, held[right], values[node])
            places[node] = op.where(goes_right, at[right], places[node])
        here[left] = goes_left
        values[node] = op.where(goes_left, held[left], values[node])
        places[node] = op.where(goes_left, at[left], places[node])
    return values + places
