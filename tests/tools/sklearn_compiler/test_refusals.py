"""What cannot be published is refused in one sentence: where it is, which column, and what would work."""

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.experimental import enable_iterative_imputer  # noqa: F401 - makes the next import work
from sklearn.feature_extraction import FeatureHasher
from sklearn.impute import IterativeImputer, SimpleImputer
from sklearn.manifold import Isomap
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    OneHotEncoder,
    PolynomialFeatures,
    SplineTransformer,
    StandardScaler,
)

from penstock_server.errors import InvalidInputError, UnsupportedError
from penstock_tools.sklearn_compiler.compiler import compile_pipeline


class OwnScaler(StandardScaler):
    """A subclass that does something else."""

    def transform(self, rows):
        return super().transform(rows) ** 2


def ranked(values):
    return values.rank()


def of(transformer, columns):
    return Pipeline([("preprocess", ColumnTransformer([("num", transformer, columns)]))])


UNSUPPORTED = {
    "values drawn by chance": (
        of(Pipeline([("fill", IterativeImputer(max_iter=1, sample_posterior=True))]), ["age", "fare"]),
        r"preprocess → num → fill \(IterativeImputer\) cannot be published: .*sample_posterior=False works",
    ),
    "no rule and no converter": (of(Isomap(), ["class", "fare"]), r"num \(Isomap\) cannot be published: .* no rule"),
    "a function of one's own": (
        of(FunctionTransformer(ranked), ["age"]),
        r"in line \d+ of ranked \(return values.rank\(\)\) .rank\(\) depends on the other rows",
    ),
    "a class of one's own": (
        of(OwnScaler(), ["age"]),
        r"OwnScaler.* cannot be published: in line \d+ of transform \(return super",
    ),
    "hashed numbers": (
        of(make_pipeline(FunctionTransformer(np.asarray), FeatureHasher(4, input_type="string")), ["sex", "deck"]),
        "give each text column a FeatureHasher",
    ),
    "two kinds of nothing": (
        of(OneHotEncoder(), ["nothings"]),
        "column 'nothings' has the categories '' and None, which requests cannot tell apart",
    ),
    "numbers filled with text": (
        of(SimpleImputer(strategy="constant", fill_value="x"), ["hollow"]),
        "fills 'x' into numbers",
    ),
    "a crooked spline": (
        of(SplineTransformer(degree=1, extrapolation="linear"), ["class", "fare"]),
        "extrapolation='linear' of degree 0 or 1 compiles for one column",
    ),
}


@pytest.fixture(scope="session")
def wide(frame):
    nothings = frame["city"].where(frame.index % 4 != 0, "").astype(object)
    hollow = pd.Series([None, 1.5] * (len(frame) // 2), dtype=object)
    return frame.assign(nothings=nothings, hollow=hollow, long="x" * 2000)


@pytest.mark.long
@pytest.mark.parametrize(("pipeline", "message"), UNSUPPORTED.values(), ids=UNSUPPORTED)
def test_a_transformer_that_neither_side_can_compute(wide, pipeline, message):
    with pytest.raises(UnsupportedError, match=message):
        compile_pipeline(pipeline.fit(wide), wide)


INVALID = {
    "text that reaches the model": (of("passthrough", ["sex"]), "column 'sex' reaches the model as text; encode it"),
    "no columns": (of("drop", ["sex"]), "no columns reach the model"),
    "a category that is too long": (of(OneHotEncoder(), ["long"]), r"preprocess → num \(OneHotEncoder\) does not fit"),
    "too many columns": (
        of(make_pipeline(PolynomialFeatures(5), PolynomialFeatures(3)), ["fare", "class", "alone", "age"]),
        "PolynomialFeatures does not fit a feature specification: .* expected at most 65536",
    ),
    "a factor too many": (of(PolynomialFeatures(20), ["fare"]), "expected at most 16"),
}


@pytest.mark.long
@pytest.mark.parametrize(("pipeline", "message"), INVALID.values(), ids=INVALID)
def test_what_goes_beyond_a_specification(wide, pipeline, message):
    few = wide.iloc[1:4]
    with pytest.raises(InvalidInputError, match=message):
        compile_pipeline(pipeline.fit(few), few)


def test_a_column_that_is_empty_in_the_sample_alone(frame):
    fitted = OneHotEncoder().fit(frame[["gate"]])
    with pytest.raises(UnsupportedError, match="column 'gate' holds numbers or nothing in the sample"):
        compile_pipeline(fitted, frame[["gate"]][frame["gate"].isna()])
