import sys

import numpy as np
import pytest
from lightgbm import LGBMRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, VotingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.semi_supervised import LabelSpreading
from sklearn.svm import LinearSVC
from xgboost import XGBRegressor

from penstock_server.errors import UnsupportedError
from penstock_tools.publish import onnx_graph
from penstock_tools.sklearn_compiler.graph import convert
from penstock_tools.sklearn_compiler.graph.model import to_onnx

ROWS = np.random.default_rng(0).normal(size=(500, 4)).astype(np.float32)
ANSWERS = (ROWS[:, 0] + ROWS[:, 1] > 0).astype(np.int64)


@pytest.fixture(params=[LogisticRegression(), HistGradientBoostingClassifier(max_iter=20)], ids=["linear", "trees"])
def fitted(request):
    return request.param.fit(ROWS, ANSWERS)


def test_the_graph_takes_a_matrix_and_gives_labels_and_probabilities(fitted):
    signature = onnx_graph.read(to_onnx(fitted, 4)).signature
    assert [(spec.name, spec.datatype, spec.shape) for spec in signature.inputs] == [("features", "FP32", (-1, 4))]
    outputs = [("label", "INT64", (-1,)), ("probabilities", "FP32", (-1, 2))]
    assert [(spec.name, spec.datatype, spec.shape) for spec in signature.outputs] == outputs
    assert signature.is_batched


OUTPUTS = {
    "a regressor": (LinearRegression(), "FP32", [("prediction", "FP32")]),
    "a regressor in doubles": (LinearRegression(), "FP64", [("prediction", "FP64")]),
    "scores of a converter with an option": (LinearSVC(), "FP32", [("label", "INT64"), ("scores", "FP32")]),
    "scores of one without": (RidgeClassifier(), "FP32", [("label", "INT64"), ("scores", "FP32")]),
    "trees": (RandomForestClassifier(2), "FP64", [("label", "INT64"), ("probabilities", "FP64")]),
    "boosted trees": (
        HistGradientBoostingClassifier(max_iter=2),
        "FP64",
        [("label", "INT64"), ("probabilities", "FP64")],
    ),
}


@pytest.mark.parametrize(("estimator", "datatype", "outputs"), OUTPUTS.values(), ids=OUTPUTS)
def test_what_each_kind_of_estimator_gives(estimator, datatype, outputs):
    found = onnx_graph.read(to_onnx(estimator.fit(ROWS, ANSWERS), 4, datatype))
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
    with pytest.raises(UnsupportedError, match="LabelSpreading does not become ONNX: skl2onnx has no converter"):
        to_onnx(LabelSpreading().fit(ROWS[:, :1], ANSWERS), 1)


def test_estimators_within_others_are_found():
    model = VotingRegressor([("a", LinearRegression()), ("b", XGBRegressor(n_estimators=3))]).fit(ROWS, ROWS[:, 0])
    found = onnx_graph.read(to_onnx(model, 4))
    got = found.runtime.run({"features": ROWS})[0]
    np.testing.assert_allclose(np.ravel(got), model.predict(ROWS), atol=1e-4)


def test_without_onnxmltools_it_says_what_to_install(monkeypatch):
    convert._register_package.cache_clear()
    for name in [name for name in sys.modules if name.startswith("onnxmltools")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnxmltools", None)
    model = LGBMRegressor(n_estimators=1, verbose=-1, reg_sqrt=True).fit(ROWS, ROWS[:, 0])
    with pytest.raises(UnsupportedError, match=r"estimators of lightgbm need onnxmltools, .* pip install onnxmltools"):
        to_onnx(model, 4)
