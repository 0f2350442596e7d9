import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder, OrdinalEncoder

from penstock_tools.sklearn_compiler.forms import Missing, form_of, missing_kind

CITIES = ["Oslo", "Rome", "Oslo", "Bern", "Rome", "Oslo", "Bern", "Bern"]
ANSWERS = [0, 1, 0, 1, 1, 0, 0, 1]


def texts(missing, dtype=object):
    """Cities, of which two are missing."""
    return pd.DataFrame({"city": pd.Series([*CITIES, missing, missing], dtype=dtype), "fare": np.arange(10.0)})


def fitted(frame, *steps):
    columns = make_column_transformer((make_pipeline(*steps), ["city"]), (SimpleImputer(), ["fare"]))
    return make_pipeline(columns, LogisticRegression()).fit(frame, [*ANSWERS, 1, 0])


def kinds(column):
    return {kind for kind in map(missing_kind, column) if kind is not None}


ENCODERS = {
    "an imputer looks for NaN": ((SimpleImputer(strategy="most_frequent"), OneHotEncoder()), np.nan, Missing.NAN),
    "a category NaN": ((OneHotEncoder(handle_unknown="ignore"),), np.nan, Missing.NAN),
    "a category None": ((OneHotEncoder(handle_unknown="ignore"),), None, Missing.NONE),
    "a category None that is never unseen": ((OneHotEncoder(),), None, Missing.NONE),
    "a category of the empty text": ((OneHotEncoder(handle_unknown="ignore"),), "", Missing.EMPTY),
}


@pytest.mark.parametrize(("steps", "missing", "meaning"), ENCODERS.values(), ids=ENCODERS)
@pytest.mark.parametrize("as_read", [None, np.nan], ids=["pandas 2 read Parquet", "pandas 3 read it"])
def test_a_missing_text_is_what_the_pipeline_was_fitted_on(steps, missing, meaning, as_read):
    pipeline = fitted(texts(missing), *steps)
    given = texts("" if missing == "" else as_read)
    form = form_of(pipeline, given)
    assert form.missing == {0: meaning}
    assert kinds(form.rows["city"]) == {meaning}
    np.testing.assert_array_equal(pipeline.predict_proba(form.rows), pipeline.predict_proba(texts(missing)))


def test_what_the_pipeline_tells_apart_is_told():
    form = form_of(fitted(texts(np.nan), OneHotEncoder(handle_unknown="ignore")), texts(np.nan))
    (note,) = form.notes
    assert note == (
        "'city': a missing value of a request is NaN; the pipeline answers None and the empty text otherwise"
    )


def test_booleans_with_none_among_them():
    def married(missing):
        return pd.DataFrame({"city": pd.Series([True, False, missing, True] * 2, dtype=object), "fare": np.arange(8.0)})

    pipeline = make_pipeline(
        make_column_transformer((OneHotEncoder(), ["city"]), (SimpleImputer(), ["fare"])), LogisticRegression()
    ).fit(married(np.nan), ANSWERS)
    form = form_of(pipeline, married(None))
    assert form.missing == {0: Missing.NAN}
    np.testing.assert_array_equal(pipeline.predict(form.rows), pipeline.predict(married(np.nan)))


def test_a_vectorizer_takes_a_series():
    series = pd.Series(["a good day", "a bad day", "good good", "bad bad bad"], name="review")
    pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(series, [1, 0, 1, 0])
    form = form_of(pipeline, series.to_frame())
    assert isinstance(form.rows, pd.Series)
    np.testing.assert_array_equal(pipeline.predict_proba(form.rows), pipeline.predict_proba(series))


def test_text_becomes_categories_where_the_pipeline_takes_no_text():
    def codes(frame):
        return frame["city"].cat.codes.to_frame()

    frame = texts("Rome")[["city"]]
    pipeline = make_pipeline(FunctionTransformer(codes), LinearRegression())
    pipeline.fit(frame.astype("category"), np.arange(10))
    assert isinstance(form_of(pipeline, frame).rows["city"].dtype, pd.CategoricalDtype)


def test_text_becomes_times_where_the_pipeline_takes_no_text():
    def hours(frame):
        return frame["at"].dt.hour.to_frame()

    times = pd.DataFrame({"at": pd.date_range("2026-01-01", periods=8, freq="7h")})
    pipeline = make_pipeline(FunctionTransformer(hours), LinearRegression()).fit(times, ANSWERS)
    form = form_of(pipeline, times.astype({"at": str}))
    assert form.rows["at"].dtype.kind == "M"
    np.testing.assert_array_equal(pipeline.predict(form.rows), pipeline.predict(times))


def test_the_rows_stay_as_they_are_where_the_pipeline_takes_no_form_of_them():
    frame = texts("Rome")
    pipeline = fitted(frame, OrdinalEncoder())
    other = frame.assign(city="Paris")
    assert form_of(pipeline, other).rows is other


def test_one_row_and_rows_that_all_lack_something():
    pipeline = fitted(texts(np.nan), SimpleImputer(strategy="most_frequent"), OneHotEncoder())
    rows = pd.DataFrame({"city": pd.Series([None], dtype=object), "fare": [np.nan]})
    form = form_of(pipeline, rows)
    assert kinds(form.rows["city"]) == {Missing.NAN}


def test_dates_that_the_pipeline_reads_from_texts_too_are_dates(frame):
    from feature_engine.datetime import DatetimeFeatures

    times = pd.Series(pd.date_range("2024-01-01", periods=len(frame), freq="7h"))
    rows = pd.DataFrame({"at": times, "fare": frame["fare"].fillna(0.0).to_numpy()})
    read = make_pipeline(DatetimeFeatures("at", features_to_extract=["hour"]), LinearRegression()).fit(
        rows, rows["fare"]
    )
    texts = rows.assign(at=rows["at"].dt.strftime("%Y-%m-%d %H:%M:%S").astype(object))
    assert form_of(read, texts).rows["at"].dtype.kind == "M"
    known = make_pipeline(OneHotEncoder(handle_unknown="ignore"), LinearRegression()).fit(texts[["at"]], texts["fare"])
    assert form_of(known, texts[["at"]]).rows["at"].dtype.kind == "O"


class Lengths:
    """Takes whatever it gets, and counts the calls."""

    calls = 0

    def transform(self, rows):
        self.calls += 1
        return rows.map(lambda value: len(repr(value))).to_numpy()


def test_one_call_asks_about_all_missing_values_where_none_is_refused():
    lengths = Lengths()
    form = form_of(lengths, pd.DataFrame({"city": CITIES, "born in": CITIES}, dtype=object))
    assert form.missing == {0: Missing.NAN, 1: Missing.NAN}
    # The first asks whether this form of the rows is taken.
    assert lengths.calls == 2
