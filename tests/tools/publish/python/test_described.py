import numpy as np
import pandas as pd
import pytest
from sklearn.base import BaseEstimator
from sklearn.cluster import KMeans
from sklearn.ensemble import IsolationForest
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from penstock_server.errors import UnsupportedError
from penstock_server.python.answers import answers
from penstock_server.python.description import Column
from penstock_server.python.frame import rows_of
from penstock_tools.publish.python.described import (
    blocks_of,
    classes_of,
    columns_of,
    container_of,
    counting,
    outputs_of,
)
from penstock_tools.sklearn_compiler.sample import pipeline_sample
from tests.server.python.conftest import described

X = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 3)), columns=["a", "b", "c"])
SIGN = (X["a"] > 0).to_numpy()
THREE = np.array(["low", "mid", "high"])[np.digitize(X["a"], [-0.5, 0.5])]
BOTH = np.stack([SIGN, X["b"] > 0], axis=1).astype(int)

PIPELINES = {
    "a number": (LinearRegression().fit(X, X["a"]), [("prediction", "FP64", 1)], None),
    "numbers": (LinearRegression().fit(X, X[["a", "b"]]), [("prediction", "FP64", 2)], None),
    "text classes": (
        LogisticRegression().fit(X, THREE), [("label", "BYTES", None), ("probabilities", "FP64", 3)], ("high", "low", "mid"),
    ),
    "boolean classes": (
        LogisticRegression().fit(X, SIGN), [("label", "INT64", None), ("probabilities", "FP64", 2)], (0, 1),
    ),
    "whole floats": (
        LogisticRegression().fit(X, SIGN * 2.0), [("label", "INT64", None), ("probabilities", "FP64", 2)], (0, 2),
    ),
    "scores": (RidgeClassifier().fit(X, SIGN), [("label", "INT64", None), ("scores", "FP64", 1)], (0, 1)),
    "two targets": (
        MultiOutputClassifier(LogisticRegression()).fit(X, BOTH),
        [("label", "INT64", 2), ("probabilities_0", "FP64", 2), ("probabilities_1", "FP64", 2)],
        None,
    ),
    "clusters": (KMeans(2, n_init=1, random_state=0).fit(X), [("label", "INT64", None)], None),
    "outliers": (
        IsolationForest(n_estimators=5, random_state=0).fit(X), [("label", "INT64", None), ("scores", "FP64", 1)], None,
    ),
    "features": (StandardScaler().fit(X), [("features", "FP64", 3)], None),
    "sparse features": (OneHotEncoder().fit(X[["a"]].round()), [("features", "FP64", None)], None),
}  # fmt: skip


@pytest.mark.parametrize(("pipeline", "expected", "classes"), PIPELINES.values(), ids=PIPELINES)
def test_outputs_have_the_names_and_shapes_of_compiled_versions(pipeline, expected, classes):
    sample = pipeline_sample(pipeline, X.round())
    outputs = outputs_of(pipeline, sample)
    if expected[0][2] is None and expected[0][0] == "features":
        assert outputs[0].width == pipeline.transform(sample.given).shape[1]
    else:
        assert [(output.name, output.datatype, output.width) for output in outputs] == expected
    assert classes_of(pipeline, outputs) == (("label", classes) if classes else (None, None))
    assert all(len(array) == len(X) for array in answers(pipeline, outputs, sample.given, len(X)))


class Blind(BaseEstimator):
    """Takes anything, and gives zeros."""

    def predict(self, rows):
        return np.zeros(len(rows))


FRAMES = {
    "numbers": (pd.DataFrame({"x": [1.5, np.nan]}), Column("x")),
    "whole": (pd.DataFrame({"x": [1, 2]}), Column("x", dtype="int64")),
    "nullable": (pd.DataFrame({"x": pd.array([1, None], "Int64")}), Column("x", dtype="Int64", missing="NaN")),
    "booleans in objects": (
        pd.DataFrame({"x": pd.Series([True, None], dtype=object)}), Column("x", dtype="object", values="bool"),
    ),
    "categories": (
        pd.DataFrame({"x": pd.Categorical(["b", None], categories=["b", "a"])}),
        Column("x", "text", "category", categories=("b", "a")),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("frame", "expected"), FRAMES.values(), ids=FRAMES)
def test_columns_are_made_again_as_they_were(frame, expected):
    sample = pipeline_sample(Blind(), frame)
    (column,) = columns_of(sample)
    assert (column.kind, column.dtype, column.values, column.categories) == (
        expected.kind, expected.dtype, expected.values, expected.categories,
    )  # fmt: skip
    blocks = blocks_of((column,), sample.on_the_wire(), sample.rows)
    found = rows_of(described(columns=(column,), container=container_of(sample)), blocks, sample.rows)
    pd.testing.assert_frame_equal(found, sample.given.reset_index(drop=True))


@pytest.mark.parametrize(
    "columns", [(Column("a", "text"),), (Column("a"), Column("b", "text")), (Column("a", "time"),)]
)
def test_columns_are_only_counted(columns):
    spec = counting(columns)
    assert [column.name for column in spec.columns] == [column.name for column in columns]
    assert spec.width == 1


def test_what_is_no_pipeline_is_refused():
    sample = pipeline_sample(Blind(), X)

    class Odd(BaseEstimator):
        def predict(self, rows):
            return np.zeros(3)

    with pytest.raises(UnsupportedError, match="predict gives 3 answers for 60 rows"):
        outputs_of(Odd(), sample)
    with pytest.raises(UnsupportedError, match="neither predicts nor transforms"):
        outputs_of(BaseEstimator(), sample)
