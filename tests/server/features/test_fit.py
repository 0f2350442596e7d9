import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from penstock_server.errors import InvalidInputError
from penstock_server.features.fit import Recipe, fit, number, string
from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec import (
    Bucket,
    Clip,
    FeatureSpec,
    Fill,
    Log1p,
    NumberColumn,
    Standardise,
    StringColumn,
)

NAN, INF = float("nan"), float("inf")


def steps(recipe: Recipe, values: list[float]) -> tuple[object, ...]:
    column = fit([recipe], {"x": values}).columns[0]
    assert isinstance(column, NumberColumn)
    return column.steps


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (number("x"), ()),
        (number("x").fill("median"), (Fill(2),)),
        (number("x").fill("mean"), (Fill(4),)),
        (number("x").fill(-1), (Fill(-1),)),
        (number("x").clip(low=0), (Clip(0, None),)),
        (number("x").clip_quantiles(0, 0.5), (Clip(1, 2),)),
        (number("x").log1p(), (Log1p(),)),
        (number("x").standardise(), (Standardise(4, np.std([1, 2, 9])),)),
        (number("x").bucket(3), (Bucket(tuple(np.quantile([1, 2, 9], [1 / 3, 2 / 3]))),)),
        (number("x").bucket_at([1, 5]), (Bucket((1, 5)),)),
        (
            number("x").clip(high=3).fill("mean").standardise(),
            (Clip(None, 3), Fill(2.25), Standardise(2.25, np.std([1, 2, 3, 3, 2.25]))),
        ),
    ],
)
def test_each_step_is_fitted_to_what_reaches_it(recipe: Recipe, expected: tuple[object, ...]) -> None:
    assert steps(recipe, [1, 2, 9, NAN, INF][:5]) == expected


def test_a_constant_column_is_not_divided_by_its_rounding() -> None:
    (found,) = steps(number("x").standardise(), [0.1] * 1001)
    assert isinstance(found, Standardise)
    assert found.scale == 1


def test_categories_are_the_most_frequent_sorted() -> None:
    table = {"s": ["b", "b", "c", "c", "a", "d", None, None, None]}
    assert fit([string("s")], table).columns == (StringColumn("s", ("a", "b", "c", "d")),)
    assert fit([string("s").one_hot(3)], table).columns == (StringColumn("s", ("a", "b", "c"), "one_hot"),)
    assert fit([string("s").ordinal(2, keep_missing=True)], table).columns == (StringColumn("s", ("", "b")),)
    assert fit([string("s")], {"s": ["", ""]}).columns == (StringColumn("s", ()),)


def test_agrees_with_a_scikit_learn_pipeline() -> None:
    rng = np.random.default_rng(2)
    table = {"x": rng.lognormal(1, 1, 400), "s": rng.choice(["UA", "AA", "DL"], 400)}
    table["x"][::7] = NAN
    numbers = make_pipeline(SimpleImputer(strategy="median"), FunctionTransformer(np.log1p), StandardScaler())
    matrix = np.empty((400, 2), object)
    matrix[:, 0], matrix[:, 1] = table["x"], table["s"]
    expected = ColumnTransformer([("x", numbers, [0]), ("s", OneHotEncoder(sparse_output=False), [1])]).fit_transform(
        matrix
    )
    spec = fit([number("x").fill("median").log1p().standardise(), string("s").one_hot()], table, "FP64")
    found = Pipeline(spec).transform(table)
    np.testing.assert_allclose(found[:, :4], expected.astype(float), rtol=1e-12, atol=1e-12)
    assert not found[:, 4].any()


def test_a_recipe_is_not_changed_by_what_is_made_of_it() -> None:
    first = number("x").fill(0)
    first.log1p()
    assert steps(first, [1]) == (Fill(0),)


def test_the_datatype_is_the_callers() -> None:
    assert fit([number("x")], {"x": [1]}, "FP64") == FeatureSpec((NumberColumn("x"),), "FP64")


@pytest.mark.parametrize(
    ("recipes", "said"),
    [
        ([number("empty").fill("median")], "column 'empty' cannot be fitted: it has no finite value"),
        ([number("empty").standardise()], "column 'empty' cannot be fitted"),
        ([number("words")], "column 'words' holds"),
        ([string("x")], "column 'x' holds"),
        ([number("gone")], "no column 'gone'"),
        ([number("x"), number("x")], "column 'x' is there twice"),
        ([], "no columns"),
        ([number("short"), number("x")], "column 'x' has 3 rows, expected 2"),
        ([number("x").fill(NAN)], "column 'x' cannot be fitted: value is nan"),
    ],
)
def test_what_cannot_be_fitted_is_named(recipes: list[Recipe], said: str) -> None:
    table = {"x": [1, 2, 3], "empty": [NAN, INF, NAN], "words": ["a", "b", "c"], "short": [1, 2]}
    with pytest.raises(InvalidInputError, match=said):
        fit(recipes, table)


def test_a_recipe_that_makes_no_sense_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match=r"quantiles 0.9 and 0.1"):
        number("x").clip_quantiles(0.9, 0.1)
    with pytest.raises(ValueError, match="1 bins"):
        number("x").bucket(1)
    with pytest.raises(ValueError, match="neither low nor high"):
        number("x").clip()
