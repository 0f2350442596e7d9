import pickle
from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from catboost import CatBoostClassifier
from sklearn.compose import ColumnTransformer
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OrdinalEncoder

from penstock_server.errors import InvalidInputError
from penstock_tools.sklearn_compiler.sample import NOT_A_TIME, pipeline_sample

SAMPLES = {
    "no rows": (lambda frame: frame.head(0), "has no rows"),
    "a column lacks": (
        lambda frame: frame.drop(columns="age"),
        "lacks column 'age'; the pipeline was fitted on age, sex",
    ),
    "numbers and text in one": (
        lambda frame: frame.assign(sex=pd.Series(["f", 1.5] * (len(frame) // 2), dtype=object)),
        "column 'sex' holds 1.5 of float",
    ),
    "times out of range": (
        lambda frame: frame.assign(age=np.full(len(frame), np.datetime64("1500-01-01", "s"))),
        "column 'age' holds times before 1678 or after 2262",
    ),
    "other things": (lambda frame: frame.assign(sex=[(1, 2)] * len(frame)), r"column 'sex' holds \(1, 2\) of tuple"),
    "one axis": (lambda frame: np.zeros(3), r"the shape \[3\], expected rows and columns"),
    "another width": (lambda frame: np.zeros((3, 5)), "has 5 columns, expected 2: age, sex"),
}


@pytest.mark.parametrize(("change", "message"), SAMPLES.values(), ids=SAMPLES)
def test_a_sample_that_is_not_the_pipelines(frame, answers, change, message):
    rows = frame[["age", "sex"]]
    pipeline = make_pipeline(
        ColumnTransformer([("n", SimpleImputer(), ["age"]), ("s", OrdinalEncoder(), ["sex"])]), LogisticRegression()
    ).fit(rows, answers["binary"])
    with pytest.raises(InvalidInputError, match=message):
        pipeline_sample(pipeline, change(rows))


TEXTS = ["a good day", "a bad day", "good good", "bad bad bad"]


@pytest.mark.parametrize(
    "given",
    [
        TEXTS,
        pd.Series(TEXTS, name="text"),
        pd.DataFrame({"text": TEXTS}),
        np.array(TEXTS),
        [{"text": t} for t in TEXTS],
    ],
    ids=["a list", "a series", "a frame", "an array", "dicts"],
)
def test_texts_for_a_vectorizer(given):
    pipeline = make_pipeline(CountVectorizer(), LogisticRegression()).fit(TEXTS, [1, 0, 1, 0])
    sample = pipeline_sample(pipeline, given)
    assert [(column.name, column.kind) for column in sample.columns] == [("text", "text")]
    assert isinstance(sample.given, pd.Series)
    assert sample.on_the_wire()["text"].tolist() == TEXTS
    assert sample.chosen(np.array([2])).given.tolist() == ["good good"]
    np.testing.assert_array_equal(pipeline.predict(sample.as_float64()), pipeline.predict(TEXTS))


TIMES = pd.to_datetime(["2026-03-01 12:30:15.123456789", None])


@pytest.mark.parametrize(
    "column",
    [
        TIMES,
        TIMES.tz_localize("UTC").tz_convert("Asia/Kolkata"),
        TIMES.to_numpy(),
    ],
    ids=["times", "of a time zone", "numpy"],
)
def test_times_are_nanoseconds_on_the_wire(column):
    sample = pipeline_sample(FunctionTransformer(), pd.DataFrame({"at": column, "n": [1.0, 2.0]}))
    assert [column.kind for column in sample.columns] == ["time", "number"]
    assert sample.on_the_wire()["at"].tolist() == [1772368215123456789, NOT_A_TIME]


def test_decimals_and_nullable_numbers_are_numbers():
    frame = pd.DataFrame({"price": [Decimal("1.5"), None], "count": pd.array([1, None], dtype="Int64")})
    frame["flag"] = pd.array([True, None], dtype="boolean")
    sample = pipeline_sample(FunctionTransformer(), frame)
    assert [column.kind for column in sample.columns] == ["number"] * 3
    wire = sample.on_the_wire()
    np.testing.assert_array_equal(
        [wire["price"], wire["count"], wire["flag"]], [[1.5, np.nan], [1, np.nan], [1, np.nan]]
    )


def test_a_column_of_nearly_the_name(frame, answers):
    pipeline = LogisticRegression().fit(frame[["age"]].fillna(0), answers["binary"])
    with pytest.raises(InvalidInputError, match=r"lacks column 'age'; did you mean 'Age'\?"):
        pipeline_sample(pipeline, frame.rename(columns={"age": "Age"}))


@pytest.mark.parametrize(
    "pipeline",
    [LogisticRegression(), make_pipeline(SimpleImputer(), LogisticRegression())],
    ids=["alone", "a pipeline"],
)
def test_a_pipeline_that_is_not_fitted(pipeline):
    with pytest.raises(InvalidInputError, match=r"is not fitted; call its fit before it is published"):
        pipeline_sample(pipeline, np.zeros((3, 2)))


@pytest.mark.parametrize(
    ("width", "said"),
    [
        (3, "has 3 columns, and the pipeline was fitted on 2; if one of them holds the labels, leave it out: --labels"),
        (5, "has 5 columns, and the pipeline was fitted on 2; give these alone"),
    ],
)
def test_an_array_with_columns_too_many(width, said):
    pipeline = LogisticRegression().fit([[0.0, 1], [1, 0]], [0, 1])
    with pytest.raises(InvalidInputError, match=said):
        pipeline_sample(pipeline, np.zeros((40, width)))


def test_a_catboost_that_was_saved_is_asked_for_its_columns_by_their_names():
    rows = np.random.default_rng(0).normal(size=(40, 3))
    fitted = CatBoostClassifier(iterations=2, verbose=False, allow_writing_files=False).fit(rows, rows[:, 0] > 0)
    saved = pickle.loads(pickle.dumps(fitted))
    assert saved.n_features_in_ == 0  # what it forgets
    assert len(pipeline_sample(saved, rows).columns) == 3
    with pytest.raises(InvalidInputError, match="has 2 columns, and the pipeline was fitted on 3"):
        pipeline_sample(saved, rows[:, :2])


@pytest.mark.parametrize(("rows", "is_told"), [(1, True), (29, True), (30, False)])
def test_few_rows_are_told_of(rows, is_told):
    pipeline = LogisticRegression().fit([[0.0, 1], [1, 0]], [0, 1])
    notes = pipeline_sample(pipeline, np.zeros((rows, 2))).notes
    assert [note.startswith(f"the sample has {rows} row") for note in notes] == [True] * is_told
