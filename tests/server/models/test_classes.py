"""What is a classifier, by its operators; fitted models of scikit-learn, LightGBM and XGBoost say which they are."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock_server.models import onnx_file
from penstock_server.models.classes import ClassOutputs, class_outputs, known_strings
from penstock_server.models.onnx_file import Node, OnnxFile

ML = "ai.onnx.ml"
NOTHING: frozenset[str] = frozenset()


def node(operator: str, takes: str, gives: str, domain: str = "", **attributes: Any) -> Node:
    return Node(operator, domain, tuple(takes.split()), tuple(gives.split()), attributes)


TREES = node("TreeEnsembleClassifier", "x", "l p", ML)
CASES: dict[str, tuple[list[Node], str, str]] = {
    "trees": ([TREES], "l", "p"),
    "trees with normal scores": ([node("LinearClassifier", "x", "l q", ML), node("Normalizer", "q", "p", ML)], "l", "p q"),
    "renamed": ([TREES, node("Identity", "l", "a"), node("Cast", "p", "b", to=1)], "l a", "p b"),
    "a map": ([TREES, node("ZipMap", "p", "z", ML)], "l", "p z"),
    "largest score": ([node("ArgMax", "x", "l", axis=1)], "l", ""),
    "largest score of a label": (
        [node("ArgMax", "x", "at", axis=-1), node("ArrayFeatureExtractor", "k at", "l", ML), node("Cast", "l", "a")],
        "at l a", "",
    ),
    "softmax": ([node("Softmax", "x", "p")], "", "p"),
    "softmax of columns": ([node("LogSoftmax", "x", "p", axis=1), node("Flatten", "p", "q")], "", "p q"),
    "threshold": ([node("Greater", "x k", "is"), node("Cast", "is", "l", to=7)], "is l", ""),
    "inlier or not": ([node("Less", "x k", "is"), node("Where", "is k c", "l"), node("Constant", "", "c")], "is l", ""),
    "minus one or one": (
        [node("Less", "x k", "is"), node("Cast", "is", "n"), node("Mul", "n k", "m"), node("Add", "m k", "l")],
        "is n m l", "",
    ),
    "encoded": ([TREES, node("LabelEncoder", "l", "t", ML)], "l t", "p"),
    # Neither classes nor their scores.
    "best row": ([node("ArgMax", "x", "l"), node("ArgMax", "x", "m", axis=0)], "", ""),
    "softmax of rows": ([node("Softmax", "x", "p", axis=0)], "", ""),
    "regression": ([node("TreeEnsembleRegressor", "x", "y", ML), node("Cast", "y", "n", to=7)], "", ""),
    "matrix": ([node("Gemm", "x k k", "y")], "", ""),
    "chosen column": ([node("ArrayFeatureExtractor", "x k", "y", ML)], "", ""),
    "one of two inputs": ([node("Greater", "x k", "is"), node("Where", "is x k", "y")], "is", ""),
    "classifier of somebody else": ([node("OwnClassifier", "x", "l p", "own")], "", ""),
    "input": ([], "", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_operators_say_what_an_output_is(name: str) -> None:
    nodes, labels, scores = CASES[name]
    outputs = ("x", *(output for each in nodes for output in each.outputs))
    found = class_outputs(OnnxFile(tuple(nodes), frozenset({"k"}), outputs))
    assert found == ClassOutputs(frozenset(labels.split()), frozenset(scores.split()))


def test_a_loop_of_nodes_ends() -> None:
    nodes = (node("Identity", "a", "b"), node("Identity", "b", "a"))
    assert class_outputs(OnnxFile(nodes, outputs=("a",))) == ClassOutputs()


def test_encoders_tell_their_strings_to_what_reaches_them() -> None:
    nodes = (
        node("Identity", "town", "t"),
        node("OneHotEncoder", "t", "o", ML, cats_strings=("Oslo", "Rome")),
        node("LabelEncoder", "size", "s", ML, keys_strings=("S", "L")),
        node("Scaler", "age", "a", ML),
    )
    known = known_strings(OnnxFile(nodes))
    assert {name: known.get(name) for name in ("town", "size", "age")} == {
        "town": ("Oslo", "Rome"), "size": ("S", "L"), "age": None,
    }  # fmt: skip


def models() -> dict[str, tuple[Callable[[], Any], bool]]:
    from sklearn.ensemble import (
        GradientBoostingClassifier,
        GradientBoostingRegressor,
        IsolationForest,
        RandomForestClassifier,
        RandomForestRegressor,
        VotingClassifier,
    )
    from sklearn.linear_model import LinearRegression, LogisticRegression, PoissonRegressor, SGDClassifier
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.naive_bayes import GaussianNB
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.svm import SVC, SVR
    from sklearn.tree import DecisionTreeClassifier, DecisionTreeRegressor

    logistic = LogisticRegression()
    classifiers = {
        "logistic": logistic, "forest": RandomForestClassifier(3), "boosting": GradientBoostingClassifier(n_estimators=3),
        "tree": DecisionTreeClassifier(), "bayes": GaussianNB(), "neighbours": KNeighborsClassifier(), "svc": SVC(),
        "network": MLPClassifier(max_iter=5), "sgd": SGDClassifier(), "one against rest": OneVsRestClassifier(logistic),
        "vote": VotingClassifier([("a", logistic), ("b", GaussianNB())], flatten_transform=False),
        "outliers": IsolationForest(n_estimators=3),
    }  # fmt: skip
    regressors = {
        "linear": LinearRegression(), "two targets": LinearRegression(), "five targets": RandomForestRegressor(3),
        "boosted": GradientBoostingRegressor(n_estimators=3), "tree r": DecisionTreeRegressor(), "svr": SVR(),
        "neighbours r": KNeighborsRegressor(), "network r": MLPRegressor(max_iter=5), "poisson": PoissonRegressor(),
    }  # fmt: skip
    made = {name: (lambda model=model: model, True) for name, model in classifiers.items()}
    return made | {name: (lambda model=model: model, False) for name, model in regressors.items()}


@pytest.mark.parametrize("name", models())
def test_fitted_models_are_what_they_are(tmp_path: Path, name: str) -> None:
    from skl2onnx import to_onnx

    make, is_classifier = models()[name]
    rows = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    targets = {"two targets": 2, "five targets": 5}.get(name, 0)
    y: Any = (
        np.arange(60) % 3 if is_classifier else np.abs(rows @ np.ones((3, targets)) if targets else rows.sum(axis=1))
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = make().fit(rows, y)
        has_map = hasattr(fitted, "predict_proba")
        options: Any = {id(fitted): {"zipmap": False}} if has_map else None
        onnx = to_onnx(fitted, rows[:1], options=options, target_opset={"": 18, ML: 3})
    path = tmp_path / "model.onnx"
    path.write_bytes(onnx.SerializeToString())
    file = onnx_file.read(path)
    found = class_outputs(file)
    assert bool(found.labels) is is_classifier
    assert bool(found.labels | found.scores) is is_classifier
    if is_classifier:
        assert file.outputs[0] in found.labels
