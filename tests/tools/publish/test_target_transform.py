import numpy as np
import pytest
from sklearn.compose import TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, QuantileTransformer, StandardScaler

from penstock_server.errors import UnsupportedError
from penstock_tools.publish import onnx_graph as graph
from penstock_tools.publish import to_onnx as convert

ROWS = np.random.default_rng(0).normal(size=(100, 3))
TARGET = np.exp(ROWS @ [0.5, -0.2, 0.1]) + 1.0


def transformed(**how):
    return TransformedTargetRegressor(LinearRegression(), **how)


KNOWN = {
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
@pytest.mark.parametrize("model", KNOWN.values(), ids=KNOWN)
def test_the_graph_undoes_the_transformation(model, datatype):
    found = graph.read(convert.to_onnx(model.fit(ROWS, TARGET), 3, datatype))
    assert [spec.name for spec in found.signature.outputs] == ["prediction"]
    (got,) = found.runtime.run({"features": ROWS.astype(np.float32 if datatype == "FP32" else np.float64)})
    np.testing.assert_allclose(got.ravel(), model.predict(ROWS), rtol=1e-5 if datatype == "FP32" else 1e-12)


@pytest.mark.parametrize(
    "how",
    [
        {"func": np.cbrt, "inverse_func": lambda x: x**3},
        {"transformer": QuantileTransformer(n_quantiles=10)},
    ],
)
def test_another_transformation_is_refused(how):
    with pytest.raises(UnsupportedError, match=r"(<lambda>|QuantileTransformer) undoes it, which the graph cannot"):
        convert.to_onnx(transformed(**how).fit(ROWS, TARGET), 3)
