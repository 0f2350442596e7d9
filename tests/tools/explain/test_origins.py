"""Which raw columns features are made of, for every kind of block."""

import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import (
    KBinsDiscretizer,
    Normalizer,
    OneHotEncoder,
    PolynomialFeatures,
    SplineTransformer,
    StandardScaler,
)

from penstock_tools.explain.origins import origins_of
from penstock_tools.sklearn_compiler.compiler import compile_pipeline

ROWS = pd.DataFrame({"a": [1.0, 2, 3, 4], "b": [4.0, 3, 3, 5], "c": ["x", "y", "x", "z"]})

FRONTS = {
    "passed on": ("passthrough", ["a", "b"], [{0}, {1}]),
    "one-hot": (OneHotEncoder(), ["c"], [{0}] * 3),
    "one-hot of numbers": (OneHotEncoder(), ["a", "b"], [{0}] * 4 + [{1}] * 3),
    "bins": (
        KBinsDiscretizer(2, encode="onehot-dense", quantile_method="averaged_inverted_cdf"),
        ["a", "b"],
        [{0}] * 2 + [{1}] * 2,
    ),
    "splines": (SplineTransformer(3, degree=1), ["a", "b"], [{0}] * 3 + [{1}] * 3),
    "products": (PolynomialFeatures(2, include_bias=False), ["a", "b"], [{0}, {1}, {0}, {0, 1}, {1}]),
    "a norm": (Normalizer(), ["a", "b"], [{0}, {1}]),
    "twice": (
        FeatureUnion([("one", StandardScaler()), ("two", PolynomialFeatures(1, include_bias=False))]),
        ["a", "b"],
        [{0}, {1}] * 2,
    ),
    "products of bins": (
        make_pipeline(
            KBinsDiscretizer(2, encode="onehot-dense", quantile_method="averaged_inverted_cdf"),
            PolynomialFeatures(2, include_bias=False, interaction_only=True),
        ),
        ["a", "b"],
        [{0}] * 2 + [{1}] * 2 + [{0}, {0, 1}, {0, 1}, {0, 1}, {0, 1}, {1}],
    ),
}


@pytest.mark.parametrize(("front", "columns", "expected"), FRONTS.values(), ids=FRONTS)
def test_features_come_from_their_columns(front, columns, expected):
    fitted = ColumnTransformer([("front", front, columns)]).fit(ROWS)
    compiled = compile_pipeline(fitted, ROWS)
    spec = compiled.features()
    origins = origins_of(spec)
    names = [column.name for column in spec.columns]
    found = [{columns.index(names[at]) for at in origins.groups[group]} for group in origins.group_of_each]
    assert found == expected


def test_a_constant_is_made_of_all_columns_of_its_block():
    fitted = PolynomialFeatures(1).fit(ROWS[["a", "b"]])
    origins = origins_of(compile_pipeline(fitted, ROWS[["a", "b"]]).features())
    assert [origins.groups[group] for group in origins.group_of_each] == [(0, 1), (0,), (1,)]
