"""Attributions of published pipelines against `shap`, the sums over raw columns, and what is refused with a reason."""

import warnings

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.feature_selection import SelectKBest, f_classif
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor, Ridge, RidgeClassifier
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, PolynomialFeatures, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

from penstock_server.explain.attributor import attributor_of
from penstock_server.explain.explanation import Unexplained
from penstock_server.features.pipeline import Pipeline as Features
from penstock_tools.explain.explanation import explained
from penstock_tools.sklearn_compiler.compiler import compile_pipeline

NUMBERS = ["age", "fare", "class"]
TEXTS = ["sex", "city"]
COLUMNS = NUMBERS + TEXTS


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(1)
    size = 300
    return pd.DataFrame(
        {
            "age": random.normal(40, 12, size),
            "fare": random.exponential(30, size).astype(np.float32),
            "class": random.integers(1, 4, size),
            "sex": random.choice(["f", "m"], size),
            "city": random.choice(["Oslo", "Rome", "Lima", "Cairo"], size),
        }
    )


@pytest.fixture(scope="module")
def targets(rows):
    score = (
        0.05 * (rows["age"] - 40)
        + 0.02 * rows["fare"]
        + (rows["city"] == "Oslo")
        + (rows["sex"] == "f") * rows["class"]
    )
    return {
        "number": score.to_numpy(np.float64),
        "two": np.where(score > score.median(), "yes", "no"),
        "three": np.digitize(score, np.quantile(score, [0.3, 0.7])),
    }


def columns(numbers="passthrough"):
    return ColumnTransformer(
        [("num", numbers, NUMBERS), ("text", OneHotEncoder(sparse_output=False), TEXTS)],
        verbose_feature_names_out=False,
    )


def attributions(fitted, rows):
    """The explanation, and the attributions of the rows, as a server computes them."""
    compiled = compile_pipeline(fitted, rows)
    features = Features(compiled.features("FP64"))
    explanation = explained(compiled, features)
    assert not isinstance(explanation, Unexplained), explanation.reason
    attributor = attributor_of(explanation, features.columns)
    found = attributor.run(features.transform(compiled.sample.on_the_wire()))
    return explanation, found


@pytest.fixture(scope="session")
def shap():
    # It takes a second to import: only the process that runs these tests does it, not each that collects them.
    import shap

    return shap


def summed(values, fitted):
    """shap's values per feature, summed per raw column."""
    names = list(fitted[:-1].get_feature_names_out())
    raw = [next(column for column in COLUMNS if name == column or name.startswith(f"{column}_")) for name in names]
    return np.stack(
        [values[:, [at for at, name in enumerate(raw) if name == column]].sum(axis=1) for column in COLUMNS], 1
    )


TREES = {
    "forest": (RandomForestClassifier(12, max_depth=6, random_state=0), "two"),
    "forest, three": (RandomForestClassifier(7, max_depth=7, random_state=0), "three"),
    "deep forest, a number": (RandomForestRegressor(5, random_state=0), "number"),
    "extra trees": (ExtraTreesClassifier(6, max_depth=5, random_state=0), "two"),
    "tree": (DecisionTreeClassifier(max_depth=4), "two"),
    "tree, a number": (DecisionTreeRegressor(), "number"),
    "boosting": (GradientBoostingClassifier(n_estimators=20, max_depth=3), "two"),
    "boosting, a number": (GradientBoostingRegressor(n_estimators=20, max_depth=4), "number"),
    "histograms": (HistGradientBoostingClassifier(max_iter=15), "two"),
    "histograms, three": (HistGradientBoostingClassifier(max_iter=8), "three"),
    "histograms, a number": (HistGradientBoostingRegressor(max_iter=15), "number"),
}


@pytest.mark.long
@pytest.mark.parametrize(("model", "target"), TREES.values(), ids=TREES)
def test_trees_are_explained_as_by_shap(shap, rows, targets, model, target):
    fitted = make_pipeline(columns(), model).fit(rows, targets[target])
    _, found = attributions(fitted, rows)
    matrix = np.asarray(fitted[:-1].transform(rows), np.float64)
    explainer = shap.TreeExplainer(model, feature_perturbation="tree_path_dependent")
    expected = np.asarray(explainer.shap_values(matrix, check_additivity=False))
    if expected.ndim == 3 and found.ndim == 2:
        # Of two classes shap explains both, the second with the other sign of the first.
        expected = expected[:, :, 1]
    np.testing.assert_allclose(found, summed(expected, fitted), rtol=1e-6, atol=1e-6)


@pytest.mark.long
def test_missing_numbers_go_their_way_in_trees(shap, rows, targets):
    holes = rows[NUMBERS].mask(np.random.default_rng(2).random((len(rows), 3)) < 0.2)
    model = HistGradientBoostingRegressor(max_iter=20).fit(holes, targets["number"])
    _, found = attributions(model, holes)
    expected = shap.TreeExplainer(model, feature_perturbation="tree_path_dependent").shap_values(holes)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def _lightgbm():
    from lightgbm import LGBMClassifier, LGBMRegressor

    return {
        "two": LGBMClassifier(n_estimators=15, verbose=-1),
        "three": LGBMClassifier(n_estimators=6, verbose=-1),
        "number": LGBMRegressor(n_estimators=15, verbose=-1),
    }


def _xgboost():
    from xgboost import XGBClassifier, XGBRegressor

    return {
        "two": XGBClassifier(n_estimators=15, max_depth=5),
        "three": XGBClassifier(n_estimators=6, max_depth=4),
        "number": XGBRegressor(n_estimators=15, max_depth=5),
    }


@pytest.mark.long
@pytest.mark.parametrize("target", ["two", "three", "number"])
@pytest.mark.parametrize("library", [_lightgbm, _xgboost], ids=["LightGBM", "XGBoost"])
def test_boosted_trees_of_other_libraries_are_explained_as_by_themselves(shap, rows, targets, library, target):
    """Both libraries compute path-dependent values themselves, which `shap` hands on; XGBoost in float32."""
    model = library()[target]
    holes = rows[NUMBERS].mask(np.random.default_rng(2).random((len(rows), 3)) < 0.1)
    answer = targets[target] == "yes" if target == "two" else targets[target]
    model.fit(holes, answer.astype(int) if target == "two" else answer)
    _, found = attributions(model, holes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = np.asarray(shap.TreeExplainer(model).shap_values(holes))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 if library is _xgboost else 1e-6)


LINEAR = {
    "classes": (LogisticRegression(), "two"),
    "three classes": (LogisticRegression(), "three"),
    "a number": (LinearRegression(), "number"),
    "ridge": (RidgeClassifier(), "two"),
    "vectors": (LinearSVC(), "three"),
}


@pytest.mark.long
@pytest.mark.parametrize(("model", "target"), LINEAR.values(), ids=LINEAR)
def test_linear_models_are_explained_as_by_shap(shap, rows, targets, model, target):
    fitted = make_pipeline(columns(StandardScaler()), model).fit(rows, targets[target])
    explanation, found = attributions(fitted, rows)
    matrix = np.asarray(fitted[:-1].transform(rows), np.float64)
    background = shap.maskers.Independent(matrix, max_samples=len(matrix))
    expected = np.asarray(shap.LinearExplainer(model, background).shap_values(matrix))
    np.testing.assert_allclose(
        found,
        summed(expected.reshape(*matrix.shape, -1).squeeze(-1) if found.ndim == 2 else expected, fitted),
        rtol=1e-6,
        atol=1e-6,
    )
    assert explanation.rows == len(rows)


def test_attributions_add_up_to_the_answer_whatever_is_in_front(rows, targets):
    """Base and attributions of a row are its log-odds, behind products, a projection in the graph and a selection."""
    union = FeatureUnion([("pairs", PolynomialFeatures(2, include_bias=False)), ("main", PCA(2))])
    front = ColumnTransformer(
        [("num", make_pipeline(StandardScaler(), union), NUMBERS), ("text", OneHotEncoder(), TEXTS)]
    )
    fitted = make_pipeline(front, SelectKBest(f_classif, k=9), LogisticRegression()).fit(rows, targets["two"])
    explanation, found = attributions(fitted, rows)
    np.testing.assert_allclose(
        explanation.meaning.base[0] + found.sum(axis=1), fitted.decision_function(rows), rtol=1e-9, atol=1e-9
    )
    assert (explanation.meaning.of, explanation.meaning.label) == ("the log-odds", "yes")


def test_a_product_is_shared_by_its_factors(rows):
    products = PolynomialFeatures(2, include_bias=False, interaction_only=True)
    fitted = make_pipeline(products, LinearRegression()).fit(rows[["age", "fare"]], rows["age"] * rows["fare"])
    _, found = attributions(fitted, rows[["age", "fare"]])
    product = rows["age"] * rows["fare"]
    half = (product - product.mean()).to_numpy() / 2
    np.testing.assert_allclose(found, np.stack([half, half], axis=1), rtol=1e-6, atol=1e-4)


def test_what_is_explained_is_named(rows, targets):
    number = np.exp(targets["number"] / 10)
    found = {
        "the logarithm of the prediction": PoissonRegressor().fit(rows[NUMBERS], number),
        "the prediction before the target is transformed back": TransformedTargetRegressor(
            Ridge(), func=np.log, inverse_func=np.exp
        ).fit(rows[NUMBERS], number),
        "the probability": RandomForestClassifier(3, max_depth=3).fit(rows[NUMBERS], targets["two"]),
    }
    for of, fitted in found.items():
        assert attributions(fitted, rows[NUMBERS])[0].meaning.of == of


NOT_EXPLAINED = {
    "neither": (KNeighborsClassifier(), "KNeighborsClassifier is neither a linear model nor a sum of trees"),
    "trees behind a projection": (
        Pipeline([("pca", PCA(2)), ("trees", RandomForestClassifier(3))]),
        "the graph makes other features of the features before the trees get them",
    ),
}


@pytest.mark.parametrize(("model", "reason"), NOT_EXPLAINED.values(), ids=NOT_EXPLAINED)
def test_a_reason_is_kept_where_there_are_no_attributions(rows, targets, model, reason):
    fitted = make_pipeline(SimpleImputer(), model).fit(rows[NUMBERS], targets["two"])
    compiled = compile_pipeline(fitted, rows[NUMBERS])
    found = explained(compiled, Features(compiled.features("FP64")))
    assert isinstance(found, Unexplained)
    assert reason in found.reason
