import numpy as np
import pytest
from lightgbm import LGBMRegressor
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor, StackingRegressor
from sklearn.impute import KNNImputer
from sklearn.linear_model import LinearRegression
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from xgboost import XGBRegressor

from penstock_tools.sklearn_compiler.precision import datatypes

ROWS = np.random.default_rng(0).normal(size=(60, 2))

NARROW = [LinearRegression(), RandomForestRegressor(2), XGBRegressor(n_estimators=1)]
WIDE = [
    HistGradientBoostingRegressor(max_iter=1),
    LGBMRegressor(n_estimators=1, verbose=-1, n_jobs=1),
    KNeighborsRegressor(),
    make_pipeline(KNNImputer(), LinearRegression()),
    StackingRegressor([("a", LinearRegression()), ("b", make_pipeline(HistGradientBoostingRegressor(max_iter=1)))]),
]


@pytest.mark.parametrize("model", NARROW, ids=lambda each: type(each).__name__)
def test_single_precision_is_tried_first(model):
    assert datatypes(model.fit(ROWS, ROWS[:, 0])) == ("FP32", "FP64")


@pytest.mark.parametrize("model", WIDE, ids=lambda each: type(each).__name__)
def test_what_compares_doubles_gets_doubles(model):
    assert datatypes(model.fit(ROWS, ROWS[:, 0])) == ("FP64",)
