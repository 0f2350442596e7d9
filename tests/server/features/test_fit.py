import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, StandardScaler

from penstock_server.errors import InvalidInputError
from penstock_server.features.fit import Recipe, fit, number, numbers, string
from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec.spec import (
    Block,
    Categories,
    FeatureSpec,
    Hash,
    Join,
    NumberColumn,
    Take,
    Text,
)
from penstock_server.features.spec.steps import (
    Apply,
    Bucket,
    Clip,
    Cyclic,
    Fill,
    Linear,
    OneHot,
    Polynomial,
    Quantiles,
    Standardise,
)

NAN, INF = float("nan"), float("inf")


def block(recipe: Recipe, **table: object) -> Block:
    features = fit([recipe], table).features  # type: ignore[arg-type]
    assert isinstance(features, Join)
    return features.blocks[0]


def steps(recipe: Recipe, values: list[float]) -> tuple[object, ...]:
    return block(recipe, x=values).steps


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        (number("x"), ()),
        (number("x").fill("median"), (Fill((2,)),)),
        (number("x").fill("mean"), (Fill((4,)),)),
        (number("x").fill(-1), (Fill((-1,)),)),
        (number("x").clip(low=0), (Clip((0,), None),)),
        (number("x").clip_quantiles(0, 0.5), (Clip((1,), (2,)),)),
        (number("x").log1p(), (Apply("log1p"),)),
        (number("x").standardise(), (Standardise((4,), (np.std([1, 2, 9]),)),)),
        (number("x").robust(), (Standardise((2,), (4,)),)),
        (number("x").rescale(), (Linear((0.125,), (-0.125,)),)),
        (number("x").rescale(-1, 1), (Linear((0.25,), (-1.25,)),)),
        (number("x").quantiles(3), (Quantiles(((1, 2, 9),), (0, 0.5, 1)),)),
        (number("x").bucket(3), (Bucket((tuple(np.quantile([1, 2, 9], [1 / 3, 2 / 3])),)),)),
        (number("x").bucket_at([1, 5]), (Bucket(((1, 5),)),)),
        (number("x").cyclic(24), (Cyclic((24,)),)),
        (number("x").polynomial(2), (Polynomial(((0,), (0, 0))),)),
        (
            number("x").clip(high=3).fill("mean").standardise(),
            (Clip(None, (3,)), Fill((2.25,)), Standardise((2.25,), (np.std([1, 2, 3, 3, 2.25]),))),
        ),
    ],
)
def test_each_step_is_fitted_to_what_reaches_it(recipe: Recipe, expected: tuple[object, ...]) -> None:
    assert steps(recipe, [1, 2, 9, NAN, INF][:5]) == expected


def test_columns_of_one_recipe_are_fitted_each_to_its_own() -> None:
    found = block(numbers("x", "y").fill("mean").polynomial(2, interactions_only=True), x=[1, 3, NAN], y=[5, NAN, 5])
    assert found == Take(("x", "y"), (Fill((2, 5)), Polynomial(((0,), (1,), (0, 1)))))


def test_a_column_that_several_recipes_read_is_one_raw_column() -> None:
    spec = fit([number("x"), string("s"), number("x").log1p()], {"x": [1.0], "s": ["a"]})
    assert [column.name for column in spec.columns] == ["x", "s"]
    assert Pipeline(spec).transform({"x": [1.0], "s": ["a"]}).tolist() == [[1.0, 0.0, np.float32(np.log1p(1.0))]]


def test_a_constant_is_rescaled_to_the_low_end() -> None:
    spec = fit([number("x").rescale(3, 4)], {"x": [7.0, 7.0]})
    assert Pipeline(spec).transform({"x": [7.0]}).tolist() == [[3.0]]


def test_a_constant_column_is_not_divided_by_its_rounding() -> None:
    (found,) = steps(number("x").standardise(), [0.1] * 1001)
    assert isinstance(found, Standardise)
    assert found.scale == (1,)


def test_categories_are_the_most_frequent_sorted() -> None:
    values = ["b", "b", "c", "c", "a", "d", None, None, None]
    assert block(string("s"), s=values) == Text("s", Categories(("a", "b", "c", "d")))
    one_hot = (OneHot(((0, 1, 2, 3),), (4,)),)
    assert block(string("s").one_hot(3), s=values) == Text("s", Categories(("a", "b", "c")), one_hot)
    assert block(string("s").ordinal(2, keep_missing=True), s=values) == Text("s", Categories(("", "b")))
    assert block(string("s"), s=["", ""]) == Text("s", Categories(()))
    assert block(string("s").hash(8), s=values) == Text("s", Hash(8))


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
    assert steps(first, [1]) == (Fill((0,)),)


def test_the_datatype_is_the_callers() -> None:
    assert fit([number("x")], {"x": [1]}, "FP64") == FeatureSpec((NumberColumn("x"),), Join((Take(("x",)),)), "FP64")


@pytest.mark.parametrize(
    ("recipes", "said"),
    [
        ([number("empty").fill("median")], "column 'empty' cannot be fitted: it has no finite value"),
        ([number("empty").standardise()], "column 'empty' cannot be fitted"),
        ([number("words")], "column 'words' holds"),
        ([string("x")], "column 'x' holds"),
        ([number("gone")], "no column 'gone'"),
        ([number("x"), string("x")], "column 'x' holds"),
        ([numbers("x", "empty").robust()], "column 'x', 'empty' cannot be fitted: it has no finite value"),
        ([], "blocks is empty"),
        ([number("short"), number("x")], "column 'x' has 3 rows, expected 2"),
        ([number("x").fill(NAN)], "column 'x' cannot be fitted: the value to fill in is nan"),
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
    with pytest.raises(InvalidInputError, match="1 quantiles"):
        fit([number("x").quantiles(1)], {"x": [1.0]})
