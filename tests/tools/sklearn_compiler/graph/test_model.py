import sys

import numpy as np
import pytest
from lightgbm import LGBMClassifier
from sklearn.compose import TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier, VotingRegressor
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LinearRegression, LogisticRegression, RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, QuantileTransformer, StandardScaler
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
    with pytest.raises(UnsupportedError, match="IsotonicRegression does not become FP32 ONNX"):
        to_onnx(IsotonicRegression().fit(ROWS[:, :1], ANSWERS), 1)


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
    model = LGBMClassifier(n_estimators=1, verbose=-1).fit(ROWS, ROWS[:, 0] > 0)
    with pytest.raises(UnsupportedError, match=r"estimators of lightgbm need onnxmltools, .* pip install onnxmltools"):
        to_onnx(model, 4)


WIDE = ROWS.astype(np.float64)
TARGET = np.exp(WIDE @ [0.5, -0.2, 0.1, 0.0]) + 1.0


def transformed(**how):
    return TransformedTargetRegressor(LinearRegression(), **how)


TRANSFORMED = {
    "expm1": transformed(func=np.log1p, inverse_func=np.expm1),
    "exp": transformed(func=np.log, inverse_func=np.exp),
    "square": transformed(func=np.sqrt, inverse_func=np.square),
    "none": transformed(),
    "standard": transformed(transformer=StandardScaler()),
    "standard, scale alone": transformed(transformer=StandardScaler(with_mean=False)),
    "standard, neither": transformed(transformer=StandardScaler(with_mean=False, with_std=False)),
    "min max": transformed(transformer=MinMaxScaler((-1, 3))),
    "behind others": make_pipeline(PCA(2), transformed(func=np.log1p, inverse_func=np.expm1)),
}


@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
@pytest.mark.parametrize("model", TRANSFORMED.values(), ids=TRANSFORMED)
def test_the_graph_undoes_the_transformation(model, datatype):
    found = onnx_graph.read(to_onnx(model.fit(WIDE, TARGET), 4, datatype))
    assert [spec.name for spec in found.signature.outputs] == ["prediction"]
    (got,) = found.runtime.run({"features": WIDE.astype(np.float32 if datatype == "FP32" else np.float64)})
    np.testing.assert_allclose(got.ravel(), model.predict(WIDE), rtol=1e-5 if datatype == "FP32" else 1e-12)


@pytest.mark.parametrize(
    "how",
    [
        {"func": np.cbrt, "inverse_func": lambda x: x**3},
        {"transformer": QuantileTransformer(n_quantiles=10)},
    ],
)
def test_another_transformation_is_refused(how):
    with pytest.raises(UnsupportedError, match=r"(<lambda>|QuantileTransformer) undoes it, which the graph cannot"):
        to_onnx(transformed(**how).fit(WIDE, TARGET), 4)
