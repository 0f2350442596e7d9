"""Each function of an expression, as the graph computes it, against numpy's own, for all pairs of some values."""

from itertools import product

import numpy as np
import pytest
from spox import Tensor, argument, build

from penstock_server.features.spec.steps import Compute, Operation
from penstock_tools.sklearn_compiler.graph import expression
from penstock_tools.sklearn_compiler.graph.context import Context
from penstock_tools.sklearn_compiler.graph.estimators import emit
from penstock_tools.sklearn_compiler.refusals import NotCompiled
from tests.server.compiled_models.graphs import session

VALUES = (-2.5, -1.0, -0.3, -1e-9, 0.0, 1e-9, 0.5, 1.0, 2.0, 7.25, 1e9, np.nan)
PAIRS = np.array(list(product(VALUES, VALUES)))
MEANINGS = {"single": lambda x: x.astype(np.float32).astype(np.float64)}
FUNCTIONS = sorted({**expression._NUMBERS, **expression._ANSWERS})


def computed(*operations, rows=PAIRS):
    """The last value of these operations on two columns."""
    x = argument(Tensor(np.float64, ("rows", 2)))
    step = Compute(operations, (1 + len(operations),))
    model = build({"x": x}, {"made": expression.emit(step, x, Context("FP64", x, emit))})
    return session(model.SerializeToString()).run(["made"], {"x": rows})[0].ravel()


@pytest.mark.long
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_numpys(name):
    meaning = MEANINGS.get(name) or getattr(np, name)
    columns = PAIRS.T[: getattr(meaning, "nin", 1)]
    with np.errstate(all="ignore"):
        expected = np.asarray(meaning(*columns), np.float64)
    got = computed(Operation(name, tuple(range(len(columns)))))
    np.testing.assert_allclose(got, expected, rtol=1e-12, atol=1e-300 if name in {"log1p", "expm1"} else 1e-12)


def test_infinities_are_told_apart():
    rows = np.array([[np.inf, 0.0], [-np.inf, 0.0], [np.nan, 0.0], [1.0, 0.0]])
    for name in ("isinf", "isfinite", "isnan", "arctan"):
        expected = np.asarray(getattr(np, name)(rows[:, 0]), np.float64)
        np.testing.assert_allclose(computed(Operation(name, (0,)), rows=rows), expected, rtol=1e-14)


def test_a_choice_takes_what_is_not_zero_for_true_and_a_constant_is_one_for_each_row():
    chosen = computed(Operation("constant", (), 4.5), Operation("where", (0, 2, 1)))
    np.testing.assert_array_equal(chosen, np.where(PAIRS[:, 0] != 0, 4.5, PAIRS[:, 1]))
    assert np.isnan(computed(Operation("constant", (), None))).all()


def test_what_the_graph_lacks_is_said(monkeypatch):
    monkeypatch.delitem(expression._NUMBERS, "hypot")
    with pytest.raises(NotCompiled, match="the graph cannot compute hypot"):
        computed(Operation("hypot", (0, 1)))
