"""Graphs of trees answer as their libraries do, on thresholds and next to them."""

import numpy as np
import pandas as pd
import pytest
from sklearn import ensemble

from penstock_tools.publish import onnx_graph
from penstock_tools.sklearn_compiler.graph.model import to_onnx
from penstock_tools.sklearn_compiler.graph.tree_arrays import tree_arrays
from penstock_tools.sklearn_compiler.precision import datatypes
from penstock_tools.sklearn_compiler.trees import LEAF, Tree, TreeEnsemble, read_trees
from tests.tools.sklearn_compiler import test_trees_boosting, test_trees_sklearn
from tests.tools.sklearn_compiler.test_trees_boosting import CLASSES, CODED, TWO, expected_of, rows_for
from tests.tools.sklearn_compiler.tree_rows import ROWS

ESTIMATORS = {
    **{f"scikit-learn's {name}": (each, ROWS, to) for name, (each, to) in test_trees_sklearn.ESTIMATORS.items()},
    **test_trees_boosting.ESTIMATORS,
}


def runtime(model):
    return onnx_graph.read(model).runtime


def answers(estimator, rows, datatype):
    made = runtime(to_onnx(estimator, rows.shape[1], datatype))
    given = rows.astype(np.float32 if datatype == "FP32" else np.float64)
    names = [output.name for output in made.signature.outputs]
    return dict(zip(names, made.run({next(iter(made.signature.inputs)).name: given}), strict=True))


@pytest.mark.long
@pytest.mark.parametrize(("estimator", "given", "answer"), ESTIMATORS.values(), ids=ESTIMATORS)
def test_no_row_goes_another_way(estimator, given, answer):
    fitted = estimator.fit(given, answer)
    rows = rows_for(read_trees(fitted), given, fitted)
    got = answers(fitted, rows, datatypes(fitted)[0])
    values = got.get("probabilities", got.get("prediction"))
    expected = expected_of(fitted, rows).reshape(values.shape)
    np.testing.assert_allclose(values, expected, rtol=1e-6, atol=2e-6 * np.abs(expected).max())
    if "label" in got:
        # Labels may differ only where a sum is as good as zero, or two are equal.
        labels = np.asarray(fitted.predict(rows)).ravel().astype(got["label"].dtype)
        ordered = np.sort(expected, axis=1)
        assert (got["label"] == labels)[ordered[:, -1] - ordered[:, -2] > 1e-6].all()


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
def test_votes_of_grown_trees_are_counted_exactly(datatype):
    fitted = ensemble.RandomForestClassifier(10, random_state=0).fit(np.round(ROWS), CLASSES)
    rows = np.round(ROWS)
    got = answers(fitted, rows, datatype)
    np.testing.assert_array_equal(got["label"], fitted.predict(rows))


def test_an_isolation_forest_tells_outliers():
    fitted = ensemble.IsolationForest(n_estimators=20, random_state=0, contamination=0.1).fit(ROWS)
    got = answers(fitted, ROWS, "FP32")
    np.testing.assert_allclose(got["scores"].ravel(), fitted.decision_function(ROWS), atol=1e-6)
    np.testing.assert_array_equal(got["label"], fitted.predict(ROWS))


def test_labels_are_the_classes():
    fitted = ensemble.GradientBoostingClassifier(n_estimators=3).fit(ROWS, np.where(TWO, "yes", "no"))
    np.testing.assert_array_equal(answers(fitted, ROWS, "FP32")["label"], fitted.predict(ROWS))


def test_codes_of_a_frame_of_categories_reach_the_same_leaves():
    frame = pd.DataFrame(CODED, columns=list("abcd")).assign(d=pd.Categorical(CODED[:, 3]))
    fitted = ensemble.HistGradientBoostingRegressor(max_iter=5, categorical_features="from_dtype")
    fitted.fit(frame, CODED[:, 3] % 3)
    codes = np.column_stack([CODED[:, 3], CODED[:, :3]])
    got = answers(fitted, codes, "FP64")
    np.testing.assert_allclose(got["prediction"].ravel(), fitted.predict(frame), rtol=1e-6)


def stump(categories, missing_left):
    return Tree(
        feature=np.array([0, LEAF, LEAF], np.int32),
        threshold=np.zeros(3),
        left=np.array([1, LEAF, LEAF], np.int32),
        right=np.array([2, LEAF, LEAF], np.int32),
        missing_left=np.array([missing_left, False, False]),
        value=np.array([[0.0], [1.0], [2.0]]),
        cover=np.ones(3),
        categories=(categories, None, None),
    )


@pytest.mark.parametrize("missing_left", [False, True])
@pytest.mark.parametrize("decision", ["<=", "<"])
@pytest.mark.parametrize("codes", [(), (0,), (3,), (0, 1, 2), (1, 3, 5), (0, 2, 3, 7, 8), (40,)])
def test_a_set_of_codes_becomes_a_chain_of_bounds(codes, decision, missing_left):
    # No library sends missing values to the side of no category.
    missing_left &= bool(codes)
    made = tree_arrays(
        TreeEnsemble((stump(codes, missing_left),), 1, decision, "FP32", np.zeros(1)), np.dtype(np.float32)
    )
    nodes = {number: at for at, number in enumerate(made.nodes)}
    values = dict(zip(made.leaf_nodes, made.leaf_values, strict=True))
    for value in [*range(-2, 50), 2.5, np.nan, np.inf, -np.inf]:
        node = 0
        while made.modes[nodes[node]] != "LEAF":
            at = nodes[node]
            bound = np.float32(made.thresholds[at])
            is_true = value <= bound if decision == "<=" else value < bound
            is_true = bool(made.missing_true[at]) if np.isnan(value) else is_true
            node = made.true_nodes[at] if is_true else made.false_nodes[at]
        is_left = missing_left if np.isnan(value) else np.floor(value) in codes
        assert values[node] == (1.0 if is_left else 2.0), value
