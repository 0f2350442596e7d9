"""The target of a regressor is transformed back in the graph: by known transformers, and by functions as people write them."""

import numpy as np
import pytest
from scipy import special
from sklearn.compose import TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    MaxAbsScaler,
    MinMaxScaler,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)

from penstock_server.errors import UnsupportedError
from penstock_tools.publish import onnx_graph
from penstock_tools.sklearn_compiler.graph.model import to_onnx

WIDE = np.random.default_rng(0).normal(size=(300, 4))
TARGET = np.exp(WIDE @ [0.5, -0.2, 0.1, 0.0]) + 1.0


def transformed(**how):
    return TransformedTargetRegressor(LinearRegression(), **how, check_inverse=False)


def undone(inverse, function=np.log1p, **how):
    return transformed(func=function, inverse_func=inverse, **how)


def of_thousands(values):
    kept = np.clip(np.expm1(values), 0.0, 4.0)
    return np.where(kept > 3.9, 3.9, kept) * 1000 + 1


TRANSFORMED = {
    "expm1": undone(np.expm1),
    "exp": undone(np.exp, np.log),
    "square": undone(np.square, np.sqrt),
    "none": transformed(),
    "standard": transformed(transformer=StandardScaler()),
    "standard, scale alone": transformed(transformer=StandardScaler(with_mean=False)),
    "standard, neither": transformed(transformer=StandardScaler(with_mean=False, with_std=False)),
    "robust": transformed(transformer=RobustScaler()),
    "largest": transformed(transformer=MaxAbsScaler()),
    "min max": transformed(transformer=MinMaxScaler((-1, 3))),
    "min max, clipped": transformed(transformer=MinMaxScaler(clip=True)),
    "Yeo-Johnson": transformed(transformer=PowerTransformer()),
    "Box-Cox": transformed(transformer=PowerTransformer("box-cox", standardize=False)),
    "quantiles": transformed(transformer=QuantileTransformer(n_quantiles=10)),
    "one after another": transformed(
        transformer=make_pipeline(FunctionTransformer(np.log1p, np.expm1), StandardScaler())
    ),
    "behind others": make_pipeline(PCA(2), undone(np.expm1)),
    "a lambda": undone(lambda y: y**3, np.cbrt),
    "a power of ten": undone(lambda y: 10**y - 1, lambda y: np.log10(y + 1)),
    "a function of several steps": undone(of_thousands),
    "scipy's": undone(lambda y: special.inv_boxcox(y, 0.3), lambda y: special.boxcox(y, 0.3)),
    "a method": undone(lambda y: np.expm1(y).clip(1.0, 2.0).round(2)),
    "a minimum": undone(lambda y: np.maximum(np.minimum(np.exp(y) - 1.0, 5.0), 1.2)),
}


@pytest.mark.long
@pytest.mark.parametrize("datatype", ["FP32", "FP64"])
@pytest.mark.parametrize("model", TRANSFORMED.values(), ids=TRANSFORMED)
def test_the_graph_undoes_the_transformation(model, datatype):
    found = onnx_graph.read(to_onnx(model.fit(WIDE, TARGET), 4, datatype))
    assert [spec.name for spec in found.signature.outputs] == ["prediction"]
    (got,) = found.runtime.run({"features": WIDE.astype(np.float32 if datatype == "FP32" else np.float64)})
    expected = model.predict(WIDE)
    if isinstance(model, TransformedTargetRegressor) and model.inverse_func is TRANSFORMED["a method"].inverse_func:
        # What is rounded may fall either way.
        np.testing.assert_allclose(got.ravel(), expected, atol=0.0101)
    else:
        np.testing.assert_allclose(got.ravel(), expected, rtol=1e-5 if datatype == "FP32" else 1e-12)


REFUSED = {
    "a function that the graph lacks": (undone(lambda y: np.interp(y, [0, 1], [2, 3])), "<lambda> .*interp"),
    "a loop over the values": (undone(lambda y: np.array([each + 1 for each in y])), "<lambda> undoes it"),
    "a constant": (undone(lambda y: np.zeros(len(TARGET))), "<lambda> .* gives ndarray, whatever the value"),
    "a transformer": (
        transformed(transformer=KBinsDiscretizer(3, encode="ordinal")),
        "transformed by KBinsDiscretizer",
    ),
}


@pytest.mark.parametrize(("model", "message"), REFUSED.values(), ids=REFUSED)
def test_another_transformation_is_refused(model, message):
    with pytest.raises(UnsupportedError, match=message):
        to_onnx(model.fit(WIDE, TARGET), 4)
