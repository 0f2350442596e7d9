"""Permutation importance: which column matters, by which measure, and what bounds it."""

import itertools

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from penstock_server.drift import importance as importance_file
from penstock_tools.explain.importance import importance
from penstock_tools.publish.pipeline import prepare

COLUMNS = ["needed", "half", "idle"]


@pytest.fixture(scope="module")
def rows():
    random = np.random.default_rng(3)
    texts = random.choice(["x", "y", "z"], 400)
    return pd.DataFrame({"needed": random.normal(size=400), "half": texts, "idle": random.normal(size=400)})


@pytest.fixture(scope="module")
def targets(rows):
    number = 3 * rows["needed"] + (rows["half"] == "x")
    return {"number": number.to_numpy(), "two": (number > 0.5).to_numpy(), "three": np.digitize(number, [-1, 1])}


def prepared(model, rows, target):
    front = ColumnTransformer([("text", OneHotEncoder(), ["half"])], remainder="passthrough")
    return prepare(make_pipeline(front, model).fit(rows, target), rows)


def measured(made, labels=None, **options):
    graph = made.graph
    return importance(
        made.pipeline, graph.runtime, made.compiled.sample, classes=graph.classes, labels=labels, **options
    )


MODELS = {
    "two classes": (LogisticRegression(), "two", True, "AUC lost"),
    "three classes": (LogisticRegression(), "three", True, "accuracy lost"),
    "a number": (LinearRegression(), "number", True, "R² lost"),
    "classes without labels": (LogisticRegression(), "three", False, "the probability that moves"),
    "a number without labels": (LinearRegression(), "number", False, "deviations that the prediction moves"),
}


@pytest.mark.long
@pytest.mark.parametrize(("model", "target", "is_labelled", "measure"), MODELS.values(), ids=MODELS)
def test_columns_matter_as_they_do_to_the_model(rows, targets, model, target, is_labelled, measure):
    found = measured(prepared(model, rows, targets[target]), targets[target] if is_labelled else None)
    assert found is not None
    assert found.measure == measure
    assert max(found.values, key=found.values.__getitem__) == "needed"
    assert found.values["needed"] > 0.1
    assert abs(found.values["idle"]) < 0.05
    assert importance_file.decode(importance_file.encode(found)) == found


def test_the_same_rows_give_the_same_importance(rows, targets):
    made = prepared(LinearRegression(), rows, targets["number"])
    assert measured(made) == measured(made)


def test_little_time_means_fewer_shuffles(rows, targets):
    made = prepared(LinearRegression(), rows, targets["number"])
    slow = itertools.count(0, 6)
    found = measured(made, clock=lambda: next(slow))
    assert found is not None
    assert found.repeats == 1


def test_few_rows_say_nothing(rows, targets):
    made = prepared(LinearRegression(), rows, targets["number"])
    sample = made.compiled.sample.some(5)
    assert importance(made.pipeline, made.graph.runtime, sample, classes=None) is None


def test_labels_alone_are_compared(rows):
    made = prepare(KMeans(2, n_init=1, random_state=0).fit(rows[["needed", "idle"]] * [5, 1]), rows[["needed", "idle"]])
    found = measured(made)
    assert found is not None
    assert found.measure in ("the share of labels that change", "deviations that the prediction moves")
