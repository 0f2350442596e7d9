"""Each transformer with each of its options, compiled, against scikit-learn's own."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction import FeatureHasher
from sklearn.feature_selection import SelectKBest, VarianceThreshold
from sklearn.impute import MissingIndicator, SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    Binarizer,
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    PolynomialFeatures,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    SplineTransformer,
    StandardScaler,
    TargetEncoder,
)

from penstock_server.features.spec.steps_value import FUNCTIONS
from penstock_tools.functions import cyclical

GAPS = ["age", "fare"]
WHOLE = ["fare", "year"]
WIDE = np.array([[-1e300, 0.0], [1e300, -0.0], [5e-324, 1e-12], [2.5, 2010.0], [1e6, 1e9], [-3.7, -40.0]])


def strange(columns, *, with_nan):
    """Rows that training never saw the like of."""
    rows = pd.DataFrame(WIDE, columns=columns)
    return pd.concat([rows, pd.DataFrame([[np.nan, 1.0], [1.0, np.nan]], columns=columns)]) if with_nan else rows


EXACT = {
    "standard": (StandardScaler(), GAPS),
    "standard, mean alone": (StandardScaler(with_std=False), GAPS),
    "standard, scale alone": (StandardScaler(with_mean=False), GAPS),
    "standard, neither": (StandardScaler(with_mean=False, with_std=False), GAPS),
    "min max": (MinMaxScaler(), GAPS),
    "min max, another range, clipped": (MinMaxScaler((-2, 3), clip=True), GAPS),
    "max abs": (MaxAbsScaler(), GAPS),
    "robust": (RobustScaler(), GAPS),
    "robust, unit variance": (RobustScaler(quantile_range=(10, 90), unit_variance=True), GAPS),
    "robust, centre alone": (RobustScaler(with_scaling=False), GAPS),
    "robust, scale alone": (RobustScaler(with_centering=False), GAPS),
    "quantiles, uniform": (QuantileTransformer(n_quantiles=30), GAPS),
    "binarizer": (Binarizer(threshold=2010.0), WHOLE),
    "bins, ordinal": (KBinsDiscretizer(5, encode="ordinal"), WHOLE),
    "bins, one-hot": (KBinsDiscretizer(4, encode="onehot"), WHOLE),
    "bins, one-hot dense": (KBinsDiscretizer([2, 7], encode="onehot-dense", strategy="uniform"), WHOLE),
    "bins, kmeans": (KBinsDiscretizer(3, encode="ordinal", strategy="kmeans"), WHOLE),
    "polynomial": (PolynomialFeatures(2), WHOLE),
    "polynomial, degree 4": (PolynomialFeatures(4, include_bias=False), WHOLE),
    "polynomial, interactions": (PolynomialFeatures(2, interaction_only=True), WHOLE),
    "polynomial, degrees 2 and 3": (PolynomialFeatures((2, 3)), WHOLE),
    "normalizer, max": (Normalizer("max"), WHOLE),
    "mean": (SimpleImputer(), GAPS),
    "median": (SimpleImputer(strategy="median"), GAPS),
    "most frequent": (SimpleImputer(strategy="most_frequent"), GAPS),
    "constant": (SimpleImputer(strategy="constant", fill_value=-1.5), GAPS),
    "mean, with indicator": (SimpleImputer(add_indicator=True), GAPS),
    "indicator": (MissingIndicator(error_on_new=False), GAPS),
    "indicator of all": (MissingIndicator(features="all"), GAPS),
    "a function of none": (FunctionTransformer(), GAPS),
    "numpy.asarray": (FunctionTransformer(np.asarray), GAPS),
    "clip": (FunctionTransformer(np.clip, kw_args={"a_min": 0, "a_max": 10}), GAPS),
    "clip, a side": (FunctionTransformer(partial(np.clip, a_min=None, a_max=[1.0, 2.0])), GAPS),
    "nan to num": (FunctionTransformer(np.nan_to_num), GAPS),
    "nan to a number": (FunctionTransformer(np.nan_to_num, kw_args={"nan": 7.0}), GAPS),
    "variance threshold": (VarianceThreshold(200), WHOLE),
}
"""What is equal to the last bit."""

NEAR = {
    "power, yeo-johnson": (PowerTransformer(), WHOLE, 1 << 12),
    "power, without scaler": (PowerTransformer(standardize=False), GAPS, 16),
    "quantiles, normal": (QuantileTransformer(n_quantiles=30, output_distribution="normal"), GAPS, 16),
    "spline": (SplineTransformer(), WHOLE, 4),
    "spline, quantile knots": (SplineTransformer(n_knots=4, knots="quantile", degree=2), WHOLE, 4),
    "spline, linear": (SplineTransformer(extrapolation="linear"), WHOLE, 4),
    "spline, continued": (SplineTransformer(extrapolation="continue", degree=2), ["fare"], 4),
    "spline, periodic": (SplineTransformer(extrapolation="periodic"), ["year"], 4),
    "spline, no bias": (SplineTransformer(include_bias=False, degree=1), WHOLE, 4),
    "normalizer, l1": (Normalizer("l1"), WHOLE, 4),
    "normalizer, l2": (Normalizer("l2"), WHOLE, 4),
    "cyclical": (FunctionTransformer(cyclical, kw_args={"period": 24}), ["year"], 4),
    "cyclical, two periods": (FunctionTransformer(cyclical, kw_args={"period": [7, 12.5]}), WHOLE, 4),
}
"""What passes through the C library or sums in another order, and how many units in the last place that may cost.

A scaler after a power of years subtracts numbers that are nearly equal, which makes a few units thousands.
"""


@pytest.mark.long
@pytest.mark.parametrize(("transformer", "columns"), EXACT.values(), ids=EXACT)
def test_numbers_are_equal_to_the_last_bit(frame, assert_equal, transformer, columns):
    fitted = transformer.fit(frame[columns].fillna(0) if columns == WHOLE else frame[columns])
    takes_nan = columns == GAPS
    assert_equal(fitted, frame[columns])
    assert_equal(fitted, frame[columns], strange(columns, with_nan=takes_nan))


@pytest.mark.parametrize(("transformer", "columns", "ulps"), NEAR.values(), ids=NEAR)
def test_curves_are_equal_to_some_last_places(frame, assert_equal, transformer, columns, ulps):
    fitted = transformer.fit(frame[columns])
    assert_equal(fitted, frame[columns], ulps=ulps)
    beyond = pd.DataFrame(np.linspace(-50, 2500, 52).reshape(-1, len(columns)), columns=columns)
    assert_equal(fitted, frame[columns], beyond, ulps=ulps)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_numpys_functions(frame, assert_equal, name):
    fitted = FunctionTransformer(getattr(np, name)).fit(frame[GAPS])
    rows = np.array([-np.inf, -2.0, -1.0, -0.5, -0.0, 0.0, 0.3, 1.0, 2.5, 700.0, np.inf, np.nan])
    with np.errstate(all="ignore"):
        assert_equal(fitted, frame[GAPS], pd.DataFrame({"age": rows, "fare": rows[::-1]}), ulps=4)


def test_box_cox_takes_what_is_above_0(frame, assert_equal):
    fitted = PowerTransformer("box-cox").fit(frame[["fare"]])
    assert_equal(fitted, frame[["fare"]], pd.DataFrame({"fare": [1e-9, 0.5, 3.0, 1e6]}), ulps=64)


TEXT = ["sex", "city"]
SEEN = ["class", "alone"]
ENCODERS = {
    "one-hot": (OneHotEncoder(), [*SEEN, "city"]),
    "one-hot, dense": (OneHotEncoder(sparse_output=False, dtype=np.float32), SEEN),
    "one-hot, ignoring": (OneHotEncoder(handle_unknown="ignore"), [*SEEN, *TEXT]),
    "one-hot, of objects": (OneHotEncoder(), ["maybe", "city"]),
    "one-hot, of empty text": (OneHotEncoder(handle_unknown="ignore"), ["deck", "gate"]),
    "one-hot, drop first": (OneHotEncoder(drop="first", handle_unknown="ignore"), [*SEEN, *TEXT]),
    "one-hot, drop if binary": (OneHotEncoder(drop="if_binary", handle_unknown="ignore"), [*SEEN, *TEXT]),
    "one-hot, drop some": (OneHotEncoder(drop=[2, "m"]), ["class", "sex"]),
    "one-hot, drop missing": (OneHotEncoder(drop=["Oslo"], handle_unknown="ignore"), ["city"]),
    "one-hot, infrequent": (OneHotEncoder(min_frequency=30, handle_unknown="infrequent_if_exist"), [*SEEN, *TEXT]),
    "one-hot, at most 2": (OneHotEncoder(max_categories=2, handle_unknown="infrequent_if_exist"), [*SEEN, *TEXT]),
    "one-hot, at most 3 and drop": (OneHotEncoder(max_categories=3, drop="first", handle_unknown="ignore"), TEXT),
    "one-hot, warning": (OneHotEncoder(max_categories=3, handle_unknown="warn"), [*SEEN, *TEXT]),
    "one-hot, given categories": (
        OneHotEncoder(categories=[[1, 2, 3, 5], ["m", "f"]], handle_unknown="ignore"),
        ["class", "sex"],
    ),
    "ordinal": (OrdinalEncoder(), [*SEEN, "age", "city"]),
    "ordinal, unknown": (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1), [*SEEN, *TEXT]),
    "ordinal, unknown NaN": (OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan), [*SEEN, *TEXT]),
    "ordinal, missing": (
        OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1, encoded_missing_value=-2),
        ["age", "gate"],
    ),
    "ordinal, infrequent": (
        OrdinalEncoder(min_frequency=30, handle_unknown="use_encoded_value", unknown_value=99),
        [*SEEN, *TEXT],
    ),
    "ordinal, whole numbers": (OrdinalEncoder(dtype=np.int32), SEEN),
    "target, binary": (TargetEncoder(target_type="binary"), [*SEEN, *TEXT, "deck"]),
    "target, smooth": (TargetEncoder(smooth=3.0), [*SEEN, *TEXT]),
    "target, three": (TargetEncoder(), [*SEEN, *TEXT]),
    "target, number": (TargetEncoder(target_type="continuous"), [*SEEN, *TEXT, "age"]),
}


def answer_for(name, answers):
    return answers["three" if "three" in name else "number" if "number" in name else "binary"]


@pytest.mark.long
@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_are_equal_to_the_last_bit(frame, answers, assert_equal, name):
    transformer, columns = ENCODERS[name]
    fitted = transformer.fit(frame[columns], answer_for(name, answers))
    assert_equal(fitted, frame[columns])
    if getattr(transformer, "handle_unknown", "ignore") != "error":
        unseen = {"class": 9, "sex": "x", "alone": 2, "city": "Paris", "deck": "Z", "gate": "g", "age": 1e9, "maybe": 7}
        values = {column: [unseen[column], frame[column].iloc[1]] for column in columns}
        assert_equal(fitted, frame[columns], pd.DataFrame(values))


REFUSING = {
    "one-hot": (OneHotEncoder(), {"sex": "x"}),
    "one-hot, of numbers": (OneHotEncoder(), {"class": 9}),
    "ordinal": (OrdinalEncoder(), {"city": "Paris"}),
    "one-hot, missing": (OneHotEncoder(), {"sex": None}),
}


@pytest.mark.parametrize(("transformer", "row"), REFUSING.values(), ids=REFUSING)
def test_what_scikit_learn_refuses_is_refused(frame, assert_equal, transformer, row):
    from penstock_server.errors import InvalidInputError
    from penstock_server.features.pipeline import Pipeline
    from penstock_tools.sklearn_compiler.compiler import compile_pipeline

    (column,) = row
    fitted = transformer.fit(frame[[column]])
    with pytest.raises(ValueError, match="unknown categories"):
        fitted.transform(pd.DataFrame([row]))
    value = "" if row[column] is None else row[column]
    with pytest.raises(InvalidInputError, match=column):
        Pipeline(compile_pipeline(fitted, frame[[column]]).features()).transform({column: [value]})


CHAINS = {
    "text filled with the most frequent": (
        make_pipeline(SimpleImputer(strategy="most_frequent", missing_values=None), OneHotEncoder()),
        ["city", "sex"],
    ),
    "text filled with its own category": (
        make_pipeline(
            SimpleImputer(strategy="constant", fill_value="none", missing_values=None), OneHotEncoder(drop="first")
        ),
        ["city"],
    ),
    "text filled with a known category": (
        make_pipeline(SimpleImputer(strategy="constant", fill_value="Rome", missing_values=None), OrdinalEncoder()),
        ["city"],
    ),
    "empty text filled": (
        make_pipeline(SimpleImputer(strategy="constant", fill_value="A", missing_values=""), OneHotEncoder()),
        ["deck"],
    ),
    "a marker filled": (
        make_pipeline(
            SimpleImputer(strategy="most_frequent", missing_values="?"), OneHotEncoder(handle_unknown="ignore")
        ),
        ["sex"],
    ),
    "text with an indicator": (
        make_pipeline(
            SimpleImputer(strategy="most_frequent", missing_values=None, add_indicator=True),
            OneHotEncoder(handle_unknown="ignore"),
        ),
        ["city", "sex"],
    ),
    "numbers and text filled together": (
        make_pipeline(
            SimpleImputer(strategy="most_frequent", missing_values=np.nan), OneHotEncoder(handle_unknown="ignore")
        ),
        ["gate", "year"],
    ),
    "a column without values is left out": (
        make_pipeline(SimpleImputer(strategy="mean"), StandardScaler()),
        ["hole", "age", "fare"],
    ),
    "a column without values is kept": (
        make_pipeline(SimpleImputer(strategy="mean", keep_empty_features=True, add_indicator=True), MaxAbsScaler()),
        ["hole", "age", "fare"],
    ),
    "numbers marked by a number": (
        make_pipeline(SimpleImputer(missing_values=2000, strategy="median"), OneHotEncoder(handle_unknown="ignore")),
        ["year"],
    ),
    "whole numbers filled": (
        make_pipeline(SimpleImputer(missing_values=1, strategy="most_frequent", add_indicator=True)),
        ["class"],
    ),
    "an indicator of text": (MissingIndicator(missing_values=None, features="all"), ["city", "sex"]),
    "hashed": (make_pipeline(FunctionTransformer(np.asarray), FeatureHasher(16, input_type="string")), ["deck"]),
    "hashed without signs": (
        make_pipeline(FunctionTransformer(np.asarray), FeatureHasher(5, input_type="string", alternate_sign=False)),
        ["sex"],
    ),
    "filled, bent, cut": (
        make_pipeline(SimpleImputer(), FunctionTransformer(np.abs), KBinsDiscretizer(4)),
        ["age", "fare"],
    ),
    "filled, chosen": (make_pipeline(SimpleImputer(), SelectKBest(k=1), StandardScaler()), ["age", "fare", "class"]),
}


@pytest.mark.long
@pytest.mark.parametrize(("pipeline", "columns"), CHAINS.values(), ids=CHAINS)
def test_steps_one_after_another(frame, answers, assert_equal, pipeline, columns):
    assert_equal(pipeline.fit(frame[columns], answers["binary"]), frame[columns])


def test_strings_of_pandas_and_categories_are_text(frame, assert_equal):
    rows = pd.DataFrame({"city": frame["city"].astype("str"), "sex": frame["sex"].astype("category")})
    fitted = ColumnTransformer([("a", OneHotEncoder(), ["city"]), ("b", OrdinalEncoder(), ["sex"])]).fit(rows)
    assert_equal(fitted, rows)
