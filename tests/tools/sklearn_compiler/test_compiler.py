"""Pipelines as people build them: how columns are named, what is nested in what, and where the model begins."""

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.frozen import FrozenEstimator
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline
from sklearn.preprocessing import (
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    PolynomialFeatures,
    StandardScaler,
)

from penstock_server.errors import InvalidInputError
from penstock_server.features.spec.spec import Join, NumberColumn, StringColumn, Take
from penstock_server.features.spec.steps import Linear, Select, Standardise
from penstock_tools.sklearn_compiler import proof
from penstock_tools.sklearn_compiler.compiler import compile_pipeline
from penstock_tools.sklearn_compiler.graph.wrappers import unwrapped

GAPS = ["age", "fare"]


def filled(*more):
    return make_pipeline(SimpleImputer(), *more)


SELECTIONS = {
    "names": ["age", "fare"],
    "places": [0, 1],
    "a slice": slice(0, 2),
    "a slice of names": slice("age", "fare"),
    "a mask": [True, True, False, False, False, False, False, False, False, False, False],
    "a callable": make_column_selector("^(age|fare)$"),
    "backwards": ["fare", "age"],
}


@pytest.mark.long
@pytest.mark.parametrize("columns", SELECTIONS.values(), ids=SELECTIONS)
def test_columns_are_chosen_as_scikit_learn_chooses_them(frame, assert_equal, columns):
    fitted = ColumnTransformer([("n", filled(StandardScaler()), columns)]).fit(frame)
    compiled = compile_pipeline(fitted, frame)
    assert {column.name for column in compiled.features().columns} == {"age", "fare"}
    assert_equal(fitted, frame)


REMAINDERS = {
    "dropped": ColumnTransformer([("s", OneHotEncoder(), ["sex"])], remainder="drop"),
    "passed": ColumnTransformer([("s", OneHotEncoder(), ["sex"])], remainder="passthrough"),
    "scaled": ColumnTransformer([("s", OneHotEncoder(), ["sex"])], remainder=filled(MinMaxScaler())),
    "passed and dropped by name": ColumnTransformer(
        [("s", "drop", ["sex"]), ("p", "passthrough", ["fare"]), ("n", SimpleImputer(), ["age"])]
    ),
    "an empty choice": ColumnTransformer([("e", StandardScaler(), []), ("n", filled(), GAPS)]),
    "the same column twice": ColumnTransformer(
        [("a", filled(), ["age"]), ("b", filled(StandardScaler()), ["fare", "age"])]
    ),
    "weights": ColumnTransformer(
        [("a", filled(), ["age"]), ("b", StandardScaler(), ["fare"])], transformer_weights={"b": 0.25}
    ),
}


@pytest.mark.parametrize("transformer", REMAINDERS.values(), ids=REMAINDERS)
def test_what_becomes_of_the_other_columns(frame, assert_equal, transformer):
    rows = frame[["age", "sex", "fare", "class", "alone"]]
    assert_equal(transformer.fit(rows), rows)


NESTED = {
    "a union": filled(FeatureUnion([("a", StandardScaler()), ("b", PolynomialFeatures(2)), ("c", "passthrough")])),
    "a union with weights": filled(
        FeatureUnion([("a", StandardScaler()), ("d", "drop"), ("b", MaxAbsScaler())], transformer_weights={"a": 3.0})
    ),
    "column transformers in each other": filled(
        ColumnTransformer(
            [("in", ColumnTransformer([("s", StandardScaler(), [1])], remainder="passthrough"), [1, 0])],
            remainder="passthrough",
        )
    ),
    "a pipeline in a pipeline": Pipeline(
        [("a", filled()), ("skip", "passthrough"), ("b", Pipeline([("c", StandardScaler())]))]
    ),
    "columns of the inner of a union": make_pipeline(
        SimpleImputer(add_indicator=True),
        FeatureUnion([("x", StandardScaler()), ("y", KBinsDiscretizer(2, encode="onehot-dense"))]),
        ColumnTransformer([("z", MaxAbsScaler(), [3, 0])], remainder="passthrough"),
    ),
    "frames between the steps": make_pipeline(
        ColumnTransformer([("n", SimpleImputer(), GAPS)], remainder="passthrough", verbose_feature_names_out=False),
        ColumnTransformer([("s", StandardScaler(), ["fare"])], remainder="passthrough"),
    ).set_output(transform="pandas"),
}


@pytest.mark.parametrize("transformer", NESTED.values(), ids=NESTED)
def test_transformers_in_each_other(frame, assert_equal, transformer):
    rows = frame[[*GAPS, "class"]]
    assert_equal(transformer.fit(rows), rows)


def test_raw_columns_are_taken_and_not_selected(frame):
    fitted = ColumnTransformer([("n", filled(StandardScaler()), ["fare", "age"])]).fit(frame)
    block = compile_pipeline(fitted, frame).block
    assert isinstance(block, Take)
    assert block.columns == ("fare", "age")
    assert isinstance(block.steps[-1], Standardise)
    assert not any(isinstance(step, Select) for step in block.steps)


def test_a_weight_is_one_product(frame):
    fitted = FeatureUnion([("a", "passthrough")], transformer_weights={"a": 2.0}).fit(frame[["fare"]])
    assert compile_pipeline(fitted, frame[["fare"]]).block == Take(("fare",), (Linear((2.0,)),))


def test_what_a_frame_has_and_nothing_reads_is_not_asked_for(frame):
    fitted = ColumnTransformer([("n", SimpleImputer(), ["age"]), ("s", OneHotEncoder(), ["sex"])]).fit(frame)
    compiled = compile_pipeline(fitted, frame)
    assert compiled.features().columns == (NumberColumn("age"), StringColumn("sex"))
    assert set(compiled.unused) == set(frame.columns) - {"age", "sex"}


def test_what_is_dropped_need_not_be_in_the_sample(frame):
    fitted = ColumnTransformer([("n", SimpleImputer(), ["age"]), ("d", "drop", ["sex"])]).fit(frame)
    compiled = compile_pipeline(fitted, frame[["age"]])
    assert compiled.features().columns == (NumberColumn("age"),)
    with pytest.raises(InvalidInputError, match="lacks column 'age'"):
        compile_pipeline(fitted, frame[["sex"]])


def test_an_array_is_asked_for_whole(answers):
    rows = np.random.default_rng(0).normal(size=(240, 3))
    fitted = make_pipeline(ColumnTransformer([("n", StandardScaler(), [2, 0])]), LogisticRegression())
    compiled = compile_pipeline(fitted.fit(rows, answers["binary"]), rows)
    assert [column.name for column in compiled.features().columns] == ["feature_0", "feature_1", "feature_2"]
    assert compiled.block.columns == ("feature_2", "feature_0")


def test_an_array_of_numbers_and_text(frame, answers, assert_equal):
    rows = frame[["fare", "sex", "class"]].to_numpy(object)
    fitted = ColumnTransformer([("n", StandardScaler(), [0, 2]), ("s", OneHotEncoder(), [1])]).fit(rows)
    assert [type(column) for column in compile_pipeline(fitted, rows).features().columns] == [
        NumberColumn,
        StringColumn,
        NumberColumn,
    ]
    assert_equal(fitted, rows)


def test_columns_of_the_sample_may_be_in_another_order_and_more(frame, answers):
    fitted = make_pipeline(SimpleImputer(), LogisticRegression()).fit(frame[["fare", "age"]], answers["binary"])
    compiled = compile_pipeline(fitted, frame)
    assert [column.name for column in compiled.features().columns] == ["fare", "age"]


MODELS = {
    "alone": (RandomForestClassifier(3), 0, RandomForestClassifier),
    "behind a scaler": (make_pipeline(StandardScaler(), LogisticRegression()), 1, LogisticRegression),
    "a pipeline at the end": (
        Pipeline([("a", StandardScaler()), ("b", filled(LogisticRegression()))]),
        2,
        LogisticRegression,
    ),
    "frozen": (FrozenEstimator(make_pipeline(StandardScaler(), LogisticRegression())), 1, LogisticRegression),
}


@pytest.mark.parametrize(("pipeline", "transformers", "kind"), MODELS.values(), ids=MODELS)
def test_where_the_model_begins(frame, answers, pipeline, transformers, kind):
    rows = frame[["fare", "class"]]
    if isinstance(pipeline, FrozenEstimator):
        pipeline.estimator.fit(rows, answers["binary"])
    else:
        pipeline.fit(rows, answers["binary"])
    compiled = compile_pipeline(pipeline, rows)
    assert isinstance(compiled.estimator, kind)
    assert len(compiled.stages) == transformers


def test_of_a_search_the_best_is_compiled(frame, answers):
    search = GridSearchCV(
        make_pipeline(StandardScaler(), LogisticRegression()), {"logisticregression__C": [0.1, 1]}, cv=2
    )
    search.fit(frame[["fare", "class"]], answers["binary"])
    assert unwrapped(search) is search.best_estimator_
    assert compile_pipeline(search, frame).estimator is search.best_estimator_.steps[-1][1]


def test_each_stage_says_where_it_is(frame, answers):
    pipeline = Pipeline(
        [
            (
                "preprocess",
                ColumnTransformer([("num", Pipeline([("impute", SimpleImputer()), ("pca", PCA(1))]), GAPS)]),
            ),
            ("model", LogisticRegression()),
        ]
    ).fit(frame, answers["binary"])
    compiled = compile_pipeline(pipeline, frame)
    assert [stage.path for stage in compiled.stages] == [
        ("preprocess", "num", "impute (SimpleImputer)"),
        ("preprocess", "num", "PCA"),
    ]
    assert compiled.in_graph == ("preprocess → num → PCA",)


def test_a_chosen_part_of_a_join_is_left_out_of_it(frame):
    inner = FeatureUnion([("a", StandardScaler()), ("b", MaxAbsScaler())])
    fitted = make_pipeline(inner, ColumnTransformer([("z", "passthrough", [1, 2])])).fit(frame[["fare", "class"]])
    block = compile_pipeline(fitted, frame[["fare", "class"]]).block
    assert isinstance(block, Join)
    assert [one.steps[-1] for one in block.blocks] == [Select((1,)), Select((0,))]


def test_nothing_fitted_is_changed(frame, answers):
    pipeline = make_pipeline(
        ColumnTransformer([("n", filled(PCA(1)), GAPS), ("s", OneHotEncoder(), ["sex"])]), LogisticRegression()
    ).fit(frame, answers["binary"])
    before = pipeline.predict_proba(frame)
    compile_pipeline(pipeline, frame)
    np.testing.assert_array_equal(pipeline.predict_proba(frame), before)
    assert list(pipeline[0].transformers_[1][1].categories_[0]) == ["f", "m"]


def test_integers_for_names(answers):
    rows = pd.DataFrame(np.random.default_rng(0).normal(size=(240, 2)))
    compiled = compile_pipeline(
        make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, answers["binary"]), rows
    )
    assert [column.name for column in compiled.features().columns] == ["0", "1"]


def test_a_polars_frame_is_a_frame(frame, answers):
    import polars as pl

    rows = pl.from_pandas(frame[["fare", "class", "sex"]])
    fitted = make_pipeline(
        ColumnTransformer([("n", StandardScaler(), ["fare", "class"]), ("s", OneHotEncoder(), ["sex"])]),
        LogisticRegression(),
    ).fit(rows, answers["binary"])
    compiled = compile_pipeline(fitted, rows)
    assert [column.name for column in compiled.features().columns] == ["fare", "class", "sex"]
    assert proof.check_transformers(compiled) == 0.0


def test_columns_that_pandas_itself_lets_be_missing(frame, answers):
    rows = pd.DataFrame(
        {
            "whole": frame["class"].astype("Int64").mask(frame.index % 5 == 0),
            "float": frame["age"].astype("Float64"),
            "yes": frame["alone"].astype("boolean"),
            "text": frame["city"].astype("string"),
        }
    )
    columns = ColumnTransformer(
        [
            ("n", SimpleImputer(), ["whole", "float"]),
            ("b", OneHotEncoder(), ["yes"]),
            ("t", SimpleImputer(strategy="constant", fill_value="?", missing_values=pd.NA), ["text"]),
        ]
    )
    encoded = make_pipeline(columns, ColumnTransformer([("e", OneHotEncoder(), [4])], remainder="passthrough"))
    compiled = compile_pipeline(encoded.fit(rows), rows)
    assert [type(column) for column in compiled.features().columns] == [NumberColumn] * 3 + [StringColumn]
    assert proof.check_transformers(compiled) == 0.0


def test_narrow_floats_are_computed_in_wide_ones(frame, answers):
    rows = frame[["fare", "year"]].astype(np.float32)
    fitted = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, answers["binary"])
    assert proof.check_transformers(compile_pipeline(fitted, rows)) == 0.0
