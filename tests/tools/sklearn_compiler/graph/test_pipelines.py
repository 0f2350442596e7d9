"""Pipelines, columns apart and unions inside the graph give what scikit-learn's do."""

import numpy as np
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.pipeline import FeatureUnion, Pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from spox import Tensor, argument, build

from penstock_tools.sklearn_compiler.graph.context import Context
from penstock_tools.sklearn_compiler.graph.estimators import emit
from tests.server.compiled_models.graphs import session

ROWS = np.random.default_rng(2).normal(size=(60, 4)) + 3.0

BRANCHES = [("scaled", StandardScaler(), [0, 1]), ("kept", "passthrough", [3]), ("gone", "drop", [2])]
SIDES = [("main", PCA(2)), ("kept", "passthrough"), ("gone", "drop")]
FITTED = {
    "steps that do nothing": Pipeline([("a", "passthrough"), ("b", StandardScaler()), ("c", None), ("d", PCA(2))]),
    "columns apart": ColumnTransformer(BRANCHES),
    "columns that weigh": ColumnTransformer(BRANCHES, transformer_weights={"scaled": 3.0, "kept": 0.5}),
    "what is left passes": ColumnTransformer([("scaled", MinMaxScaler(), [1])], remainder="passthrough"),
    "side by side": FeatureUnion(SIDES),
    "sides that weigh": FeatureUnion(SIDES, transformer_weights={"main": 2.0, "kept": -1.0}),
    "one in the other": Pipeline([("columns", ColumnTransformer(BRANCHES)), ("union", FeatureUnion(SIDES[:2]))]),
}


@pytest.mark.parametrize("transformer", FITTED.values(), ids=FITTED)
@pytest.mark.parametrize(("datatype", "tolerance"), [("FP64", 1e-12), ("FP32", 1e-5)])
def test_what_comes_out_is_scikit_learns(transformer, datatype, tolerance):
    fitted = transformer.fit(ROWS)
    dtype = np.dtype(np.float32 if datatype == "FP32" else np.float64)
    x = argument(Tensor(dtype, ("rows", 4)))
    model = build({"x": x}, {"made": emit(fitted, x, Context(datatype, x, emit)).features})
    (got,) = session(model.SerializeToString()).run(["made"], {"x": ROWS.astype(dtype)})
    np.testing.assert_allclose(got, fitted.transform(ROWS), rtol=tolerance, atol=tolerance)
