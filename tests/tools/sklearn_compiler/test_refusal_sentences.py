"""The sentences with which publishing turns a pipeline or a sample away, word by word: each is read by somebody in a hurry.

A sentence names the step or the column, the reason, and what to do next. It is one line, and none is a library's own.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from penstock_server.errors import PenstockError
from penstock_tools.sklearn_compiler.compiler import compile_pipeline
from penstock_tools.sklearn_compiler.load import load_pipeline, read_sample, with_labels

FRAME = pd.DataFrame({"age": np.arange(40.0), "city": ["Oslo", "Rome"] * 20})
ANSWERS = np.arange(40) > 20


def fitted():
    columns = make_column_transformer((StandardScaler(), ["age"]), (OneHotEncoder(), ["city"]))
    return make_pipeline(columns, LogisticRegression()).fit(FRAME, ANSWERS)


def on_arrays():
    return make_pipeline(SimpleImputer(), LogisticRegression()).fit(np.arange(80.0).reshape(40, 2), ANSWERS)


SENTENCES = {
    "not fitted": (
        lambda: compile_pipeline(make_pipeline(SimpleImputer(), LogisticRegression()), np.zeros((3, 2))),
        "the Pipeline is not fitted; call its fit before it is published",
    ),
    "labels left in": (
        lambda: compile_pipeline(on_arrays(), np.zeros((40, 3))),
        (
            "the sample has 3 columns, and the pipeline was fitted on 2; if one of them holds the labels, leave it out: "
            "--labels COLUMN does"
        ),
    ),
    "another name": (
        lambda: compile_pipeline(fitted(), FRAME.rename(columns={"city": "City"})),
        "the sample lacks column 'city'; did you mean 'City'?; the pipeline was fitted on age, city",
    ),
    "no rows": (
        lambda: compile_pipeline(fitted(), FRAME.head(0)),
        "the sample has no rows; expected one at least",
    ),
    "numbers among texts": (
        lambda: compile_pipeline(fitted(), FRAME.assign(city=pd.Series(["Oslo", 1.5] * 20, dtype=object))),
        "column 'city' holds 1.5 of float, expected numbers or text alone",
    ),
    "times out of range": (
        lambda: compile_pipeline(fitted(), FRAME.assign(age=np.full(40, np.datetime64("1500-01-01", "s")))),
        "column 'age' holds times before 1678 or after 2262, which nanoseconds cannot hold",
    ),
    "one axis": (
        lambda: compile_pipeline(on_arrays(), np.zeros(3)),
        "the sample has the shape [3], expected rows and columns",
    ),
    "no such label": (
        lambda: with_labels(FRAME, "truth"),
        "the sample has no column 'truth'; it has age, city",
    ),
    "no such file": (
        lambda: load_pipeline(Path("p.skops"), lambda _: False),
        "there is no file p.skops; expected a pipeline saved with skops or joblib",
    ),
    "another file": (
        lambda: load_pipeline(Path("p.txt"), lambda _: False),
        "p.txt is no pipeline; expected one of .joblib, .pickle, .pkl, .skops",
    ),
    "another sample": (
        lambda: read_sample(Path("rows.xlsx")),
        "rows.xlsx is no sample; expected .csv or .parquet",
    ),
}


@pytest.mark.parametrize(("refused", "sentence"), SENTENCES.values(), ids=SENTENCES)
def test_a_refusal_is_this_sentence(refused, sentence):
    with pytest.raises(PenstockError) as error:
        refused()
    assert str(error.value) == sentence
