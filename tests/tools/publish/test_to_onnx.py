import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.svm import LinearSVC

from penstock_server.errors import ModelFailedError, UnsupportedError
from penstock_tools.publish import onnx_graph as graph
from penstock_tools.publish import to_onnx as convert

ROWS = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
ANSWERS = (ROWS[:, 0] + ROWS[:, 1] > 0).astype(np.int64)


@pytest.fixture(params=[LogisticRegression(), HistGradientBoostingClassifier(max_iter=20)], ids=["linear", "trees"])
def fitted(request):
    return request.param.fit(ROWS, ANSWERS)


def test_the_graph_takes_a_matrix_and_gives_labels_and_probabilities(fitted):
    signature = graph.read(convert.to_onnx(fitted, 4)).signature
    assert [(spec.name, spec.datatype, spec.shape) for spec in signature.inputs] == [("features", "FP32", (-1, 4))]
    outputs = [("label", "INT64", (-1,)), ("probabilities", "FP32", (-1, 2))]
    assert [(spec.name, spec.datatype, spec.shape) for spec in signature.outputs] == outputs
    assert signature.is_batched


def test_both_answer_alike(fitted):
    assert convert.hold_parity(fitted, convert.to_onnx(fitted, 4), ROWS) < 1e-6


def test_another_model_does_not_pass(fitted):
    other = LogisticRegression().fit(ROWS, 1 - ANSWERS)
    with pytest.raises(ModelFailedError, match="differs from scikit-learn's by"):
        convert.hold_parity(fitted, convert.to_onnx(other, 4), ROWS)


def test_an_answer_that_is_no_number_does_not_pass(fitted, monkeypatch):
    monkeypatch.setattr(fitted, "predict_proba", lambda rows: np.full((len(rows), 2), np.nan))
    with pytest.raises(ModelFailedError, match="nan"):
        convert.hold_parity(fitted, convert.to_onnx(fitted, 4), ROWS)


OUTPUTS = {
    "a regressor": (LinearRegression(), "FP32", [("prediction", "FP32")]),
    "a regressor in doubles": (LinearRegression(), "FP64", [("prediction", "FP64")]),
    "scores of a converter with an option": (LinearSVC(), "FP32", [("label", "INT64"), ("scores", "FP32")]),
    "scores of one without": (RidgeClassifier(), "FP32", [("label", "INT64"), ("scores", "FP32")]),
    "trees, which answer in floats": (
        RandomForestClassifier(2),
        "FP64",
        [("label", "INT64"), ("probabilities", "FP32")],
    ),
    "boosted trees, too": (
        HistGradientBoostingClassifier(max_iter=2),
        "FP64",
        [("label", "INT64"), ("probabilities", "FP32")],
    ),
}


@pytest.mark.parametrize(("estimator", "datatype", "outputs"), OUTPUTS.values(), ids=OUTPUTS)
def test_what_each_kind_of_estimator_gives(estimator, datatype, outputs):
    found = graph.read(convert.to_onnx(estimator.fit(ROWS, ANSWERS), 4, datatype))
    assert [spec.datatype for spec in found.signature.inputs] == [datatype]
    assert [(spec.name, spec.datatype) for spec in found.signature.outputs] == outputs
    rows = ROWS.astype(np.float32 if datatype == "FP32" else np.float64)
    got = np.ravel(found.runtime.run({"features": rows})[0])
    expected = estimator.predict(ROWS)
    if expected.dtype.kind == "f":
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
    else:
        np.testing.assert_array_equal(got, expected)


def test_what_has_no_converter_is_named():
    with pytest.raises(UnsupportedError, match="IsotonicRegression does not become FP32 ONNX"):
        convert.to_onnx(IsotonicRegression().fit(ROWS[:, :1], ANSWERS), 1)
