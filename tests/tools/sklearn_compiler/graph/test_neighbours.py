"""Neighbours, also of rows that lie on a grid, where many are equally near."""

import numpy as np
import pytest
from sklearn.impute import KNNImputer
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import QuantileTransformer

from penstock_tools.publish import onnx_graph
from penstock_tools.publish.pipeline import prepare
from penstock_tools.sklearn_compiler.graph.model import to_onnx

RANDOM = np.random.default_rng(3)
ROWS = RANDOM.normal(size=(500, 4))
ASKED = np.concatenate([ROWS[:20], RANDOM.normal(size=(80, 4))])
CLASSES = RANDOM.integers(0, 3, 500)
ANSWERS = RANDOM.normal(size=500)
GRID = 0.37

ESTIMATORS = {
    "classes": (KNeighborsClassifier(), CLASSES),
    "one": (KNeighborsClassifier(1), CLASSES),
    "by distance": (KNeighborsClassifier(4, weights="distance"), CLASSES),
    "texts": (KNeighborsClassifier(3), np.array(["a", "b", "c"])[CLASSES]),
    "numbers": (KNeighborsRegressor(7), ANSWERS),
    "targets": (KNeighborsRegressor(2), np.stack([ANSWERS, -ANSWERS], axis=1)),
    "city blocks": (KNeighborsRegressor(5, p=1), ANSWERS),
    "cubes": (KNeighborsRegressor(5, p=3, weights="distance"), ANSWERS),
    "the largest": (KNeighborsRegressor(5, metric="chebyshev"), ANSWERS),
    "a tree of one leaf": (KNeighborsRegressor(5, leaf_size=1000), ANSWERS),
    "a deep tree": (KNeighborsRegressor(5, leaf_size=2), ANSWERS),
}


def graph_of(estimator):
    """Gives the answers of the estimator's graph to rows, by their names."""
    made = onnx_graph.read(to_onnx(estimator, estimator.n_features_in_, "FP64")).runtime
    names = [output.name for output in made.signature.outputs]
    return lambda rows: dict(zip(names, made.run({made.signature.inputs[0].name: rows}), strict=True))


@pytest.mark.long
@pytest.mark.parametrize("is_grid", [False, True], ids=["anywhere", "on a grid"])
@pytest.mark.parametrize(("estimator", "answer"), ESTIMATORS.values(), ids=ESTIMATORS)
def test_neighbours_are_scikit_learns_own(estimator, answer, is_grid):
    rows, asked = (np.round(ROWS) * GRID, np.round(ASKED) * GRID) if is_grid else (ROWS, ASKED)
    fitted = estimator.fit(rows, answer)
    got = graph_of(fitted)(asked)
    if "label" in got:
        np.testing.assert_allclose(got["probabilities"], fitted.predict_proba(asked), atol=1e-12)
        np.testing.assert_array_equal(got["label"], fitted.predict(asked))
    else:
        expected = fitted.predict(asked).reshape(got["prediction"].shape)
        np.testing.assert_allclose(got["prediction"], expected, rtol=1e-9, atol=1e-12)


def test_in_the_order_of_the_fit_where_there_is_no_tree():
    fitted = KNeighborsRegressor(4, algorithm="brute").fit(np.round(ROWS[:200]), ANSWERS[:200])
    asked = np.round(ASKED)
    np.testing.assert_allclose(graph_of(fitted)(asked)["prediction"].ravel(), fitted.predict(asked))


def test_all_rows_are_neighbours():
    fitted = KNeighborsRegressor(500, algorithm="kd_tree").fit(ROWS, ANSWERS)
    np.testing.assert_allclose(graph_of(fitted)(ASKED)["prediction"].ravel(), fitted.predict(ASKED))


def test_single_rows_too():
    fitted = KNeighborsClassifier(5).fit(np.round(ROWS), CLASSES)
    graph = graph_of(fitted)
    for row in np.round(ASKED[:20]):
        np.testing.assert_array_equal(graph(row[None])["label"], fitted.predict(row[None]))


def test_equally_near_ones_stay_so_behind_quantiles_of_the_normal_distribution():
    front = QuantileTransformer(n_quantiles=40, output_distribution="normal")
    rows = np.round(ROWS)
    fitted = make_pipeline(front, KNeighborsClassifier(4)).fit(rows, CLASSES)
    prepared = prepare(fitted, rows)
    table = {name: np.round(ASKED)[:, at] for at, name in enumerate(prepared.pipeline.columns)}
    got = prepared.graph.runtime.run({"features": prepared.pipeline.transform(table)})
    np.testing.assert_array_equal(got[0], fitted.predict(np.round(ASKED)))


IMPUTERS = [
    KNNImputer(),
    KNNImputer(n_neighbors=3, weights="distance"),
    KNNImputer(add_indicator=True),
    KNNImputer(n_neighbors=1000),
    KNNImputer(keep_empty_features=True),
    KNNImputer(missing_values=-1.0),
]


@pytest.mark.long
@pytest.mark.parametrize("imputer", IMPUTERS, ids=str)
def test_gaps_are_filled(imputer):
    # None lies on a fitted row: scikit-learn's distance to it would be a rounding error, not 0.
    rows, asked = ROWS.copy(), ASKED[20:].copy()
    rows[RANDOM.random(rows.shape) < 0.1] = imputer.missing_values
    asked[RANDOM.random(asked.shape) < 0.2] = imputer.missing_values
    asked[0] = imputer.missing_values
    if imputer.keep_empty_features:
        rows[:, 2] = np.nan
    fitted = imputer.fit(rows)
    graph = graph_of(fitted)
    np.testing.assert_allclose(graph(asked)["features"], fitted.transform(asked), rtol=1e-9, atol=1e-9)
    whole = np.abs(ASKED[:1])
    np.testing.assert_allclose(graph(whole)["features"], fitted.transform(whole))
