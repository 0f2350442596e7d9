import sys

import numpy as np
import pytest
from lightgbm import LGBMClassifier
from sklearn.ensemble import VotingRegressor
from sklearn.linear_model import LinearRegression
from xgboost import XGBRegressor

from penstock_server.errors import UnsupportedError
from penstock_tools.publish import foreign_estimators
from penstock_tools.publish import onnx_graph as graph
from penstock_tools.publish import to_onnx as convert

ROWS = np.random.default_rng(0).normal(size=(100, 3))


def test_estimators_within_others_are_found():
    model = VotingRegressor([("a", LinearRegression()), ("b", XGBRegressor(n_estimators=3))]).fit(ROWS, ROWS[:, 0])
    found = graph.read(convert.to_onnx(model, 3))
    got = found.runtime.run({"features": ROWS.astype(np.float32)})[0]
    np.testing.assert_allclose(np.ravel(got), model.predict(ROWS), atol=1e-4)


def test_without_onnxmltools_it_says_what_to_install(monkeypatch):
    foreign_estimators._register_package.cache_clear()
    for name in [name for name in sys.modules if name.startswith("onnxmltools")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnxmltools", None)
    model = LGBMClassifier(n_estimators=1, verbose=-1).fit(ROWS, ROWS[:, 0] > 0)
    with pytest.raises(UnsupportedError, match=r"estimators of lightgbm need onnxmltools, .* pip install onnxmltools"):
        convert.to_onnx(model, 3)
