"""Boosted trees, read and asked: rows on thresholds and beside them, missing and infinite values, categories."""

import numpy as np
import pandas as pd
import pytest
from catboost import CatBoostClassifier, CatBoostRegressor
from lightgbm import LGBMClassifier, LGBMRegressor
from sklearn import ensemble
from xgboost import XGBClassifier, XGBRegressor, XGBRFRegressor

from penstock_server.errors import UnsupportedError
from penstock_tools.sklearn_compiler.trees import read_trees
from tests.tools.sklearn_compiler import tree_meaning
from tests.tools.sklearn_compiler.tree_rows import ANSWERS, CLASSES, RANDOM, ROWS, around_thresholds

SOME = ROWS.copy()
SOME[RANDOM.random(ROWS.shape) < 0.1] = np.nan
ZEROS = np.where(RANDOM.random(ROWS.shape) < 0.3, 0.0, ROWS)
CODED = ROWS.copy()
CODED[:, 3] = RANDOM.integers(0, 12, len(ROWS))
BY_CODE = ANSWERS + np.where(CODED[:, 3] % 3 == 1, 2.0, 0.0)
TWO = CLASSES > 0
POSITIVE = np.abs(ANSWERS) + 0.1
BOTH = np.stack([ANSWERS, -ANSWERS], axis=1)


def hist(classifier=False, **how):
    kind = ensemble.HistGradientBoostingClassifier if classifier else ensemble.HistGradientBoostingRegressor
    return kind(max_iter=5, min_samples_leaf=5, **how)


def lgbm(kind, **how):
    return kind(n_estimators=5, verbose=-1, min_child_samples=5, n_jobs=1, **how)


def xgb(kind, **how):
    return kind(n_estimators=5, max_depth=4, n_jobs=1, **how)


def cat(kind, **how):
    return kind(iterations=5, depth=4, verbose=0, allow_writing_files=False, thread_count=1, **how)


ESTIMATORS = {
    "gradient boosting": (ensemble.GradientBoostingRegressor(n_estimators=5), ROWS, ANSWERS),
    "of quantiles": (ensemble.GradientBoostingRegressor(n_estimators=5, loss="quantile"), ROWS, ANSWERS),
    "from zero": (ensemble.GradientBoostingRegressor(n_estimators=5, init="zero"), ROWS, ANSWERS),
    "of two classes": (ensemble.GradientBoostingClassifier(n_estimators=5), ROWS, TWO),
    "exponential": (ensemble.GradientBoostingClassifier(n_estimators=5, loss="exponential"), ROWS, TWO),
    "of classes": (ensemble.GradientBoostingClassifier(n_estimators=5), ROWS, CLASSES),
    "hist": (hist(), ROWS, ANSWERS),
    "hist, missing": (hist(), SOME, ANSWERS),
    "hist, poisson": (hist(loss="poisson"), ROWS, POSITIVE),
    "hist, gamma": (hist(loss="gamma"), ROWS, POSITIVE),
    "hist, quantile": (hist(loss="quantile", quantile=0.3), ROWS, ANSWERS),
    "hist of two classes": (hist(True), SOME, TWO),
    "hist of classes": (hist(True), SOME, CLASSES),
    "lightgbm": (lgbm(LGBMRegressor), ROWS, ANSWERS),
    "lightgbm, missing": (lgbm(LGBMRegressor), SOME, ANSWERS),
    "lightgbm, zeros": (lgbm(LGBMRegressor, zero_as_missing=True), ZEROS, ANSWERS),
    "lightgbm, poisson": (lgbm(LGBMRegressor, objective="poisson"), ROWS, POSITIVE),
    "lightgbm, quantile": (lgbm(LGBMRegressor, objective="quantile"), ROWS, POSITIVE),
    "lightgbm, categories": (lgbm(LGBMRegressor, categorical_feature=[3]), CODED, BY_CODE),
    "lightgbm of two classes": (lgbm(LGBMClassifier), ROWS, TWO),
    "lightgbm of classes": (lgbm(LGBMClassifier), SOME, CLASSES),
    "lightgbm, one against all": (lgbm(LGBMClassifier, objective="multiclassova", sigmoid=2.0), SOME, CLASSES),
    "lightgbm, dart": (lgbm(LGBMRegressor, boosting_type="dart"), ROWS, ANSWERS),
    "lightgbm, forest": (
        lgbm(LGBMRegressor, boosting_type="rf", bagging_fraction=0.5, bagging_freq=1),
        ROWS,
        ANSWERS,
    ),
    "lightgbm, forest of classes": (
        lgbm(LGBMClassifier, boosting_type="rf", bagging_fraction=0.5, bagging_freq=1),
        ROWS,
        TWO,
    ),
    "xgboost": (xgb(XGBRegressor), ROWS, ANSWERS),
    "xgboost, missing": (xgb(XGBRegressor), SOME, ANSWERS),
    "xgboost, zeros": (xgb(XGBRegressor, missing=0.0), ZEROS, ANSWERS),
    "xgboost, poisson": (xgb(XGBRegressor, objective="count:poisson"), ROWS, POSITIVE),
    "xgboost, tweedie": (xgb(XGBRegressor, objective="reg:tweedie", base_score=0.7), ROWS, POSITIVE),
    "xgboost, dart": (xgb(XGBRegressor, booster="dart", rate_drop=0.5), ROWS, ANSWERS),
    "xgboost, categories": (
        xgb(XGBRegressor, feature_types=["q", "q", "q", "c"], enable_categorical=True, max_cat_to_onehot=2),
        CODED,
        BY_CODE,
    ),
    "xgboost, single categories": (
        xgb(XGBRegressor, feature_types=["q", "q", "q", "c"], enable_categorical=True, max_cat_to_onehot=99),
        CODED,
        BY_CODE,
    ),
    "xgboost, targets": (xgb(XGBRegressor), ROWS, BOTH),
    "xgboost, targets in one tree": (xgb(XGBRegressor, multi_strategy="multi_output_tree"), ROWS, BOTH),
    "xgboost, forest": (XGBRFRegressor(n_estimators=5), ROWS, ANSWERS),
    "xgboost of two classes": (xgb(XGBClassifier), SOME, TWO),
    "xgboost of classes": (xgb(XGBClassifier), SOME, CLASSES),
    "catboost": (cat(CatBoostRegressor), ROWS, ANSWERS),
    "catboost, missing": (cat(CatBoostRegressor), SOME, ANSWERS),
    "catboost, missing high": (cat(CatBoostRegressor, nan_mode="Max"), SOME, ANSWERS),
    "catboost, poisson": (cat(CatBoostRegressor, loss_function="Poisson"), ROWS, POSITIVE),
    "catboost, leaf by leaf": (cat(CatBoostRegressor, grow_policy="Lossguide"), SOME, ANSWERS),
    "catboost of two classes": (cat(CatBoostClassifier), SOME, TWO.astype(int)),
    "catboost of classes": (cat(CatBoostClassifier), SOME, CLASSES),
    "catboost, targets": (cat(CatBoostRegressor, loss_function="MultiRMSE"), ROWS, BOTH),
}


def expected_of(fitted, rows):
    return np.asarray(fitted.predict_proba(rows) if hasattr(fitted, "predict_proba") else fitted.predict(rows))


def rows_for(read, given, fitted):
    module = type(fitted).__module__
    allows_missing = not module.startswith("sklearn") or "_hist_" in module
    rows = around_thresholds(read, given, missing=allows_missing)
    if given is CODED:
        rows[:, 3] = RANDOM.choice([*range(-1, 20), np.nan], len(rows))
    return rows


@pytest.mark.long
@pytest.mark.parametrize(("estimator", "given", "answers"), ESTIMATORS.values(), ids=ESTIMATORS)
def test_trees_answer_as_their_library_does(estimator, given, answers):
    fitted = estimator.fit(given, answers)
    read = read_trees(fitted)
    rows = rows_for(read, given, fitted)
    got = tree_meaning.answers(read, rows)
    expected = expected_of(fitted, rows)
    if got.shape[1] == 1 and expected.ndim == 2 and expected.shape[1] == 2:
        expected = expected[:, 1]
    np.testing.assert_allclose(got, expected.reshape(got.shape), rtol=2e-6, atol=2e-6)


def test_categories_of_a_frame_are_codes_behind_the_encoder():
    frame = pd.DataFrame(ROWS, columns=list("abcd")).assign(
        d=pd.Categorical.from_codes(CODED[:, 3].astype(int), [f"v{at:02}" for at in range(12)])
    )
    fitted = hist(categorical_features="from_dtype").fit(frame, BY_CODE)
    read = read_trees(fitted)
    assert any(tree.categories for tree in read.trees)
    codes = np.column_stack([CODED[:, 3], ROWS[:, :3]])
    codes[:20, 0] = np.nan
    frame.loc[:19, "d"] = None
    np.testing.assert_allclose(tree_meaning.answers(read, codes).ravel(), fitted.predict(frame), rtol=1e-12)


def test_an_isolation_forest_gives_its_score():
    fitted = ensemble.IsolationForest(n_estimators=8, max_features=0.5, random_state=0).fit(ROWS)
    read = read_trees(fitted)
    rows = around_thresholds(read, ROWS)
    np.testing.assert_allclose(tree_meaning.answers(read, rows).ravel(), fitted.score_samples(rows), rtol=1e-12)


def test_an_early_stop_counts():
    how = {"n_estimators": 200, "n_jobs": 1, "learning_rate": 1.0}
    half = ROWS[::2], ANSWERS[::2]
    other = [(ROWS[1::2], ANSWERS[1::2])]
    stopped = XGBRegressor(early_stopping_rounds=3, **how).fit(*half, eval_set=other, verbose=False)
    assert len(read_trees(stopped).trees) == stopped.best_iteration + 1 < 200
    np.testing.assert_allclose(
        tree_meaning.answers(read_trees(stopped), ROWS).ravel(), stopped.predict(ROWS), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize(
    "estimator",
    [
        ensemble.GradientBoostingRegressor(n_estimators=2, init=ensemble.RandomForestRegressor(2)),
        LGBMRegressor(n_estimators=2, verbose=-1, n_jobs=1, reg_sqrt=True),
        XGBRegressor(n_estimators=2, booster="gblinear"),
        XGBClassifier(n_estimators=2, objective="binary:hinge"),
    ],
    ids=["a start that looks at rows", "a root", "a linear booster", "a hinge"],
)
def test_what_no_record_says_is_left_to_others(estimator):
    answers = CLASSES > 0 if isinstance(estimator, XGBClassifier) else POSITIVE
    assert read_trees(estimator.fit(ROWS, answers)) is None


def test_linear_leaves_are_refused():
    fitted = LGBMRegressor(n_estimators=2, verbose=-1, n_jobs=1, linear_tree=True).fit(ROWS, ANSWERS)
    with pytest.raises(UnsupportedError, match="linear models"):
        read_trees(fitted)


def test_catboosts_own_categories_are_refused():
    frame = pd.DataFrame(ROWS, columns=list("abcd")).assign(d=CODED[:, 3].astype(int).astype(str))
    fitted = cat(CatBoostRegressor, cat_features=["d"]).fit(frame, BY_CODE)
    with pytest.raises(UnsupportedError, match=r"categorical features of CatBoost's own; expected numbers"):
        read_trees(fitted)
