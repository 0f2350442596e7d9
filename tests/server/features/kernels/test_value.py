import pytest
from sklearn import preprocessing as pre
from sklearn.impute import MissingIndicator, SimpleImputer

from penstock_server.features.spec import steps
from tests.server.features.transformers import GAPS, X, Z, assert_same


def test_standard_scaler() -> None:
    fitted = pre.StandardScaler().fit(X)
    assert_same(fitted, steps.Standardise(tuple(fitted.mean_), tuple(fitted.scale_)), Z)


def test_robust_scaler() -> None:
    fitted = pre.RobustScaler().fit(GAPS)
    assert_same(fitted, steps.Standardise(tuple(fitted.center_), tuple(fitted.scale_)), GAPS)


def test_max_abs_scaler() -> None:
    fitted = pre.MaxAbsScaler().fit(X)
    assert_same(fitted, steps.Standardise(None, tuple(fitted.scale_)), Z)


def test_min_max_scaler() -> None:
    fitted = pre.MinMaxScaler((-1, 3)).fit(X)
    assert_same(fitted, steps.Linear(tuple(fitted.scale_), tuple(fitted.min_)), Z)


def test_simple_imputer() -> None:
    fitted = SimpleImputer(strategy="median").fit(GAPS)
    assert_same(fitted, steps.Fill(tuple(fitted.statistics_)), GAPS)


def test_simple_imputer_of_zeros() -> None:
    fitted = SimpleImputer(missing_values=0, strategy="mean").fit(X)
    assert_same(fitted, steps.Fill(tuple(fitted.statistics_), 0), X)


def test_missing_indicator() -> None:
    assert_same(MissingIndicator(features="all").fit(GAPS), steps.IsMissing(), GAPS)


@pytest.mark.parametrize("threshold", [-1.0, 0.0, 0.5])
def test_binarizer(threshold: float) -> None:
    assert_same(pre.Binarizer(threshold=threshold), steps.Binarise((threshold,)), Z)
