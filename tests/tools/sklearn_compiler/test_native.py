"""Estimators that encode the categories of a frame themselves, compiled and proven."""

import numpy as np
import pandas as pd
import pytest
from lightgbm import LGBMRegressor
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression

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


def test_others_encode_nothing():
    assert native_columns(LinearRegression()) is None
    plain = LGBMRegressor(n_estimators=2, verbose=-1, n_jobs=1).fit(FRAME[["size"]], ANSWERS)
    assert native_columns(plain) is None
