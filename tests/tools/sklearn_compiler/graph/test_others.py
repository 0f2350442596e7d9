"""Estimators that are a few lines of a graph each: other rows than those of the fit, one row, and the edges of each."""

import numpy as np
import pytest
from sklearn.cross_decomposition import CCA, PLSCanonical, PLSRegression
from sklearn.dummy import DummyClassifier, DummyRegressor
from sklearn.isotonic import IsotonicRegression
from sklearn.kernel_ridge import KernelRidge
from sklearn.neighbors import NearestCentroid, RadiusNeighborsClassifier, RadiusNeighborsRegressor

from penstock_server.errors import UnsupportedError
from penstock_tools.publish import onnx_graph
from penstock_tools.publish.pipeline import prepare
from penstock_tools.sklearn_compiler.graph.model import to_onnx

RANDOM = np.random.default_rng(6)
ROWS = RANDOM.normal(size=(90, 3))
# Rows of the fit, others, far ones, and the origin.
ASKED = np.concatenate([ROWS[:10], RANDOM.normal(size=(30, 3)), 9.0 + ROWS[:3], np.zeros((1, 3))])
NUMBER = ROWS[:, 0] - 2 * ROWS[:, 1] * ROWS[:, 2]
TARGETS = np.stack([NUMBER, ROWS[:, 1]], axis=1)
THREE = np.digitize(NUMBER, [-1, 1])
TEXTS = np.array(["a", "b", "c"])[THREE]


def answers(fitted, rows):
    made = onnx_graph.read(to_onnx(fitted, rows.shape[1], "FP64")).runtime
    given = {made.signature.inputs[0].name: rows}
    return dict(zip([output.name for output in made.signature.outputs], made.run(given), strict=True))


def check(fitted, asked):
    """All that the graph gives for all rows, and for one alone, is what scikit-learn gives."""
    for rows in (asked, asked[:1]):
        got = answers(fitted, rows)
        methods = {"prediction": "predict", "label": "predict", "probabilities": "predict_proba"}
        for name, values in got.items():
            expected = np.asarray(getattr(fitted, methods[name])(rows)).reshape(values.shape)
            if values.dtype.kind == "f":
                np.testing.assert_allclose(values, expected, rtol=1e-9, atol=1e-12)
            else:
                np.testing.assert_array_equal(values, expected)


CLASSIFIERS = {
    "centroids": NearestCentroid(),
    "centroids of city blocks": NearestCentroid(metric="manhattan"),
    "centroids that shrink": NearestCentroid(shrink_threshold=0.3),
    "centroids of shares": NearestCentroid(priors="empirical"),
    "a radius": RadiusNeighborsClassifier(1.0, outlier_label="b"),
    "a radius by distance": RadiusNeighborsClassifier(0.7, weights="distance", outlier_label="most_frequent"),
    "outliers of a label of their own": RadiusNeighborsClassifier(0.5, p=1, outlier_label="z"),
    "the commonest": DummyClassifier(strategy="most_frequent"),
    "shares": DummyClassifier(),
    "a constant": DummyClassifier(strategy="constant", constant="b"),
}


@pytest.mark.long
@pytest.mark.parametrize("estimator", CLASSIFIERS.values(), ids=CLASSIFIERS)
def test_classifiers(estimator):
    check(estimator.fit(ROWS, TEXTS), ASKED)
    if isinstance(estimator, NearestCentroid):
        check(estimator.fit(ROWS, THREE > 1), ASKED)


REGRESSORS = {
    "a radius": RadiusNeighborsRegressor(1.0),
    "a radius by distance": RadiusNeighborsRegressor(0.7, weights="distance"),
    "a radius of city blocks": RadiusNeighborsRegressor(0.5, p=1, algorithm="ball_tree"),
    "a median": DummyRegressor(strategy="median"),
    "a line by its kernel": KernelRidge(),
    "a kernel": KernelRidge(kernel="rbf", alpha=0.1),
    "a polynomial": KernelRidge(kernel="poly", degree=2, gamma=0.5, coef0=2),
    "least squares": PLSRegression(2),
}


@pytest.mark.parametrize("estimator", REGRESSORS.values(), ids=REGRESSORS)
@pytest.mark.parametrize("target", [NUMBER, TARGETS], ids=["a number", "two"])
def test_regressors(estimator, target):
    check(estimator.fit(ROWS, target), ASKED)


@pytest.mark.parametrize("estimator", [PLSCanonical(2), CCA(2)], ids=str)
def test_canonical_squares_take_two_targets(estimator):
    check(estimator.fit(ROWS, TARGETS), ASKED)


@pytest.mark.parametrize("beyond", ["nan", "clip"])
def test_isotonic_lines_and_what_is_beyond_them(beyond):
    # Equal values make steps, and single places.
    column = np.round(ROWS[:, :1], 1)
    fitted = IsotonicRegression(out_of_bounds=beyond).fit(column, NUMBER)
    ends = np.array([[fitted.X_min_], [fitted.X_max_], [np.nextafter(fitted.X_max_, 9)], [-50.0]])
    check(fitted, np.concatenate([ends, column, ASKED[:, :1]]))


def test_a_dummy_looks_at_no_value():
    fitted = DummyRegressor().fit(ROWS, NUMBER)
    assert answers(fitted, np.full((2, 3), np.nan))["prediction"].tolist() == [[NUMBER.mean()]] * 2


def test_neighbours_within_a_radius_are_found_in_doubles():
    # A row at the very distance of the radius is a neighbour, and would be none once it is rounded.
    rows = np.array([[0.0], [0.1], [0.30000000000000004]])
    fitted = RadiusNeighborsRegressor(0.1, algorithm="kd_tree").fit(rows, [1.0, 2.0, 4.0])
    prepared = prepare(fitted, rows)
    assert prepared.features.datatype == "FP64"
    assert prepared.difference == 0.0


REFUSED = {
    "by chance": (DummyClassifier(strategy="uniform"), "answers at random"),
    "outliers": (RadiusNeighborsClassifier(0.1), "refuses rows without neighbours"),
    "own weights": (RadiusNeighborsRegressor(1.0, weights=np.sign), "a function as its weights"),
    "own metric": (RadiusNeighborsRegressor(1.0, metric="canberra"), "its metric canberra is not Minkowski's"),
    "own kernel": (KernelRidge(kernel="additive_chi2"), "the kernel additive_chi2 is not one"),
}


@pytest.mark.parametrize(("estimator", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_no_graph_can_do_says_why(estimator, reason):
    with pytest.raises(UnsupportedError, match=reason):
        to_onnx(estimator.fit(np.abs(ROWS), THREE), 3, "FP64")


def test_lines_that_refuse_what_is_beyond_them_say_what_works():
    fitted = IsotonicRegression(out_of_bounds="raise").fit(ROWS[:, 0], NUMBER)
    with pytest.raises(UnsupportedError, match="out_of_bounds='clip' and 'nan' answer them"):
        to_onnx(fitted, 1)
