import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression

from penstock_server.errors import ModelFailedError
from penstock_tools import convert, graph

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
