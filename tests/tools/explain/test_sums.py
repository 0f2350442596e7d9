"""Sums of models against the sums of `shap`'s values for their members, and what is no sum."""

import warnings

import numpy as np
import pytest
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
    StackingClassifier,
    StackingRegressor,
    VotingClassifier,
    VotingRegressor,
)
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeRegressor
from xgboost import XGBRegressor

from penstock_server.errors import UnsupportedError
from penstock_server.explain.attributor import attributor_of
from penstock_server.explain.explanation import Unexplained
from penstock_server.features.pipeline import Pipeline
from penstock_tools.explain.explanation import explained
from penstock_tools.explain.trees import joined
from penstock_tools.sklearn_compiler.compiler import compile_pipeline
from penstock_tools.sklearn_compiler.trees import Tree, TreeEnsemble

RANDOM = np.random.default_rng(4)
ROWS = RANDOM.normal(size=(120, 4))
NUMBER = ROWS[:, 0] - 2 * ROWS[:, 1] * (ROWS[:, 2] > 0)
TWO = NUMBER > 0
THREE = np.digitize(NUMBER, [-1, 1])


def explanation_of(fitted):
    compiled = compile_pipeline(fitted, ROWS)
    features = Pipeline(compiled.features("FP64"))
    return explained(compiled, features), features


def attributions(fitted):
    """What the sums are, their base, and the attributions of the rows, as a server computes them."""
    explanation, features = explanation_of(fitted)
    assert not isinstance(explanation, Unexplained), explanation.reason
    table = {name: ROWS[:, at] for at, name in enumerate(features.columns)}
    found = attributor_of(explanation, features.columns).run(features.transform(table))
    return explanation.meaning, found


def by_shap(member, output=None):
    """shap's values for a member alone [rows, columns], or [rows, columns, outputs]."""
    import shap  # with numba and matplotlib, two seconds

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if hasattr(member, "coef_"):
            background = shap.maskers.Independent(ROWS, max_samples=len(ROWS))
            values = shap.LinearExplainer(member, background).shap_values(ROWS)
        else:
            explainer = shap.TreeExplainer(member, feature_perturbation="tree_path_dependent")
            values = explainer.shap_values(ROWS, check_additivity=False)
    return np.asarray(values) if output is None else np.asarray(values)[:, :, output]


def forest(kind=RandomForestClassifier, **how):
    return kind(5, max_depth=4, random_state=0, **how)


VOTES = {
    "trees": [
        ("a", forest(RandomForestRegressor)),
        ("b", GradientBoostingRegressor(n_estimators=8)),
        ("c", DecisionTreeRegressor(max_depth=3)),
    ],
    "trees of other precision and comparison": [
        ("a", forest(RandomForestRegressor)),
        ("b", HistGradientBoostingRegressor(max_iter=8)),
        ("c", XGBRegressor(n_estimators=8, max_depth=3)),
    ],
    "linear models": [("a", LinearRegression()), ("b", Ridge()), ("c", Ridge(100.0))],
}


@pytest.mark.parametrize("members", VOTES.values(), ids=VOTES)
def test_a_vote_is_the_mean_of_its_members(members):
    fitted = VotingRegressor(members, weights=[1, 2, 5]).fit(ROWS, NUMBER)
    meaning, found = attributions(fitted)
    each = [by_shap(member) for member in fitted.estimators_]
    np.testing.assert_allclose(found, np.average(each, axis=0, weights=[1, 2, 5]), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(meaning.base[0] + found.sum(axis=1), fitted.predict(ROWS), rtol=1e-5, atol=1e-5)
    assert meaning.of == "the prediction"


def test_a_soft_vote_of_forests_is_the_mean_of_their_probabilities():
    fitted = VotingClassifier([("a", forest()), ("b", forest(ExtraTreesClassifier))], voting="soft").fit(ROWS, TWO)
    meaning, found = attributions(fitted)
    each = [by_shap(member, 1) for member in fitted.estimators_]
    np.testing.assert_allclose(found, np.mean(each, axis=0), rtol=1e-6, atol=1e-6)
    assert (meaning.of, meaning.label) == ("the probability", "1")


def test_a_stack_with_a_linear_model_on_top_is_a_sum_too():
    members = [("a", forest(RandomForestRegressor)), ("b", GradientBoostingRegressor(n_estimators=8))]
    fitted = StackingRegressor(members, Ridge(), cv=3).fit(ROWS, NUMBER)
    _, found = attributions(fitted)
    each = [by_shap(member) for member in fitted.estimators_]
    np.testing.assert_allclose(found, np.tensordot(fitted.final_estimator_.coef_, each, 1), rtol=1e-6, atol=1e-6)


def test_a_stack_may_pass_the_rows_on_and_scale_them_for_its_members():
    members = [("a", make_pipeline(StandardScaler(), LinearRegression())), ("b", Ridge(50.0))]
    fitted = StackingRegressor(members, LinearRegression(), cv=3, passthrough=True).fit(ROWS, NUMBER)
    meaning, found = attributions(fitted)
    np.testing.assert_allclose(meaning.base[0] + found.sum(axis=1), fitted.predict(ROWS), rtol=1e-9, atol=1e-9)
    assert np.ptp(found, axis=0).all()


@pytest.mark.parametrize("answers", [TWO, THREE], ids=["two classes", "three classes"])
def test_a_stack_of_forests_below_a_logistic_regression(answers):
    members = [("a", forest()), ("b", forest(ExtraTreesClassifier))]
    fitted = StackingClassifier(members, LogisticRegression(), cv=3).fit(ROWS, answers)
    meaning, found = attributions(fitted)
    expected = fitted.decision_function(ROWS).reshape(len(ROWS), -1)
    total = found.reshape(len(ROWS), 4, -1).sum(axis=1) + np.array(meaning.base)
    np.testing.assert_allclose(total, expected, rtol=1e-6, atol=1e-6)
    outputs = [1] if len(fitted.classes_) == 2 else [0, 1, 2]
    each = np.concatenate([by_shap(member)[:, :, outputs] for member in fitted.estimators_], axis=2)
    expected = each @ fitted.final_estimator_.coef_.T
    np.testing.assert_allclose(found.reshape(expected.shape), expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("base", [forest(), LinearSVC(), HistGradientBoostingClassifier(max_iter=6)])
def test_one_calibrated_classifier_has_log_odds_that_are_a_sum(base):
    fitted = CalibratedClassifierCV(base, ensemble=False, cv=3).fit(ROWS, TWO)
    meaning, found = attributions(fitted)
    shares = fitted.predict_proba(ROWS)[:, 1]
    expected = np.log(shares) - np.log1p(-shares)
    np.testing.assert_allclose(meaning.base[0] + found.sum(axis=1), expected, rtol=1e-6, atol=1e-6)
    assert (meaning.of, meaning.label) == ("the log-odds", "1")


SOFT = [("a", forest()), ("b", LogisticRegression())]
NO_SUM = {
    "a count of labels": (VotingClassifier(SOFT), "counts the labels"),
    "probabilities behind a logistic function": (
        VotingClassifier(SOFT, voting="soft"),
        "what predict_proba of LogisticRegression gives, which is no sum: the log-odds are",
    ),
    "trees and linear models": (
        StackingClassifier([("a", forest()), ("b", LinearSVC())], LogisticRegression(), cv=3),
        "linear models and trees, whose attributions are of two kinds",
    ),
    "a forest on top": (
        StackingClassifier(SOFT, forest(), cv=3),
        "the final estimator of StackingClassifier is a Random",
    ),
    "a mean of folds": (CalibratedClassifierCV(forest(), cv=3), "the mean of 3 calibrated probabilities"),
    "steps": (CalibratedClassifierCV(forest(), method="isotonic", ensemble=False, cv=3), "'isotonic', which is no sum"),
}


@pytest.mark.parametrize(("model", "reason"), NO_SUM.values(), ids=NO_SUM)
def test_what_is_no_sum_says_why(model, reason):
    found, _ = explanation_of(model.fit(ROWS, TWO))
    assert isinstance(found, Unexplained)
    assert reason in found.reason


@pytest.mark.parametrize("decision", ["<", "<="])
def test_trees_that_compare_singles_send_every_double_the_same_way_among_others(decision):
    thresholds = np.array([0.1, 1.0, np.nextafter(np.float32(1), np.float32(2)), -3.3, 0.0, 1e-40], np.float64)
    singles = thresholds.astype(np.float32)
    near = np.concatenate(
        [singles.astype(np.float64), np.nextafter(singles, np.float32(9)), np.nextafter(singles, np.float32(-9))]
    )
    middles = (near[: len(singles)] + near[len(singles) : 2 * len(singles)]) / 2
    values = np.concatenate([near, middles, np.nextafter(middles, 9), np.nextafter(middles, -9), thresholds])
    for threshold in thresholds:
        trees = [stump(threshold, decision, "FP32"), stump(threshold, "<=", "FP64")]
        limit = joined(trees).trees[0].threshold[0]
        rounded = values.astype(np.float32).astype(np.float64)
        expected = rounded < threshold if decision == "<" else rounded <= threshold
        np.testing.assert_array_equal(values <= limit, expected)


def test_trees_that_take_other_values_for_missing_ones_are_not_joined():
    with pytest.raises(UnsupportedError, match="other values for missing ones"):
        joined([stump(0.0, "<", "FP32"), stump(0.0, "<", "FP32", missing=-1.0)])


def stump(threshold, decision, precision, **how):
    places = np.array([-1, -1, -1], np.int32)
    tree = Tree(
        feature=np.array([0, -1, -1], np.int32),
        threshold=np.array([threshold, 0.0, 0.0]),
        left=np.where([True, False, False], 1, places),
        right=np.where([True, False, False], 2, places),
        missing_left=np.zeros(3, np.bool_),
        value=np.array([[0.0], [1.0], [2.0]]),
        cover=np.array([2.0, 1.0, 1.0]),
    )
    return TreeEnsemble((tree,), 1, decision, precision, np.zeros(1), **how)
