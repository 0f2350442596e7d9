"""Estimators that encode the categories of a frame themselves, compiled and proven."""

import numpy as np
import pandas as pd
import pytest
from lightgbm import LGBMRegressor
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from xgboost import XGBClassifier, XGBRegressor

from penstock_server.errors import InvalidInputError
from penstock_tools.publish.pipeline import prepare
from penstock_tools.sklearn_compiler.native import native_columns

RANDOM = np.random.default_rng(0)
NAMES = [f"v{at:02}" for at in range(9)]
CODES = RANDOM.integers(0, 9, 300)
FRAME = pd.DataFrame(
    {
        "size": RANDOM.normal(size=300),
        "kind": pd.Categorical.from_codes(CODES, NAMES),
        "far": RANDOM.normal(size=300),
    }
)
ANSWERS = FRAME["size"] + np.where(CODES % 3 == 1, 3.0, 0.0)

ESTIMATORS = {
    "scikit-learn": HistGradientBoostingRegressor(max_iter=10, categorical_features="from_dtype"),
    "lightgbm": LGBMRegressor(n_estimators=10, verbose=-1, n_jobs=1),
}


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
def test_categories_have_the_codes_of_the_fit(estimator):
    columns = native_columns(estimator.fit(FRAME, ANSWERS))
    (coded,) = [column for column in columns if column.encoder is not None]
    assert coded.place == 1
    codes = coded.encoder.transform(np.array([["v03"], ["other"], [None]], object)).ravel()
    np.testing.assert_array_equal(codes, [3, np.nan, np.nan])


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
def test_a_frame_of_categories_is_the_request(estimator):
    prepared = prepare(estimator.fit(FRAME, ANSWERS), FRAME)
    assert prepared.difference < 1e-5
    assert [column.name for column in prepared.features.columns] == ["size", "kind", "far"]


def answer(prepared, rows):
    """What the compiled version answers, in double precision as far as it goes."""
    table = {
        name: rows[name].astype(object).where(rows[name].notna(), "" if name == "kind" else np.nan) for name in rows
    }
    matrix = prepared.pipeline.transform({name: values.to_numpy() for name, values in table.items()})
    return np.ravel(prepared.graph.runtime.run({"features": matrix})[-1])


XGBOOST = {
    "alone": (XGBRegressor(n_estimators=10, enable_categorical=True), "predict"),
    "one-hot splits": (XGBRegressor(n_estimators=10, enable_categorical=True, max_cat_to_onehot=100), "predict"),
    "dart": (XGBRegressor(n_estimators=10, enable_categorical=True, booster="dart", rate_drop=0.3), "predict"),
    "classes": (XGBClassifier(n_estimators=10, enable_categorical=True), "predict_proba"),
    "behind a column transformer": (
        make_pipeline(
            make_column_transformer(
                (StandardScaler(), ["size"]), remainder="passthrough", verbose_feature_names_out=False
            ).set_output(transform="pandas"),
            XGBRegressor(n_estimators=10, enable_categorical=True),
        ),
        "predict",
    ),
}


@pytest.mark.long
@pytest.mark.parametrize(("estimator", "method"), XGBOOST.values(), ids=XGBOOST)
def test_xgboost_encodes_categories_and_refuses_those_it_never_saw(estimator, method):
    frame = FRAME.assign(kind=FRAME["kind"].where(np.arange(300) % 7 > 0), number=pd.Categorical(CODES % 4 * 5))
    fitted = estimator.fit(frame, ANSWERS > 1 if method == "predict_proba" else ANSWERS)
    prepared = prepare(fitted, frame)
    asked = frame.head(40).copy()
    # Named in another order, and fewer of them.
    asked["kind"] = asked["kind"].astype(object).astype("category").cat.reorder_categories(NAMES[::-1], ordered=False)
    np.testing.assert_allclose(answer(prepared, asked), np.ravel(getattr(fitted, method)(asked)), rtol=1e-5, atol=1e-6)
    unseen = frame.head(1).assign(kind=pd.Categorical(["zebra"]))
    with pytest.raises(Exception, match="category not in the training set"):
        getattr(fitted, method)(unseen)
    # A text that comes before others in the alphabet XGBoost 3.2 answers all the same.
    for text in ("zebra", "never"):
        with pytest.raises(InvalidInputError, match="kind"):
            answer(prepared, frame.head(1).assign(kind=text))


def test_others_encode_nothing():
    assert native_columns(LinearRegression()) is None
    plain = LGBMRegressor(n_estimators=2, verbose=-1, n_jobs=1).fit(FRAME[["size"]], ANSWERS)
    assert native_columns(plain) is None
