import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder

from penstock_server.errors import InvalidInputError
from penstock_tools.sklearn_compiler.sample import pipeline_sample

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
    "dates": (lambda frame: frame.assign(age=pd.Timestamp("2026-01-01")), "column 'age' holds datetime64"),
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
