import numpy as np
import pytest
from sklearn.linear_model import LinearRegression, LogisticRegression

from penstock_server.drift.baseline import ClassBaseline, NumberBaseline
from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec.spec import FeatureSpec, NumberColumn, Take
from penstock_tools.publish import golden, onnx_graph
from penstock_tools.sklearn_compiler.graph.model import to_onnx

SPEC = FeatureSpec((NumberColumn("a"), NumberColumn("b")), Take(("a", "b")))
ROWS = np.random.default_rng(0).normal(size=(300, 2)).astype(np.float32)
TABLE = {"a": ROWS[:, 0], "b": ROWS[:, 1]}
CLASSES = np.digitize(ROWS[:, 0], [-1, 1])


def baseline_of(model):
    return golden.fit_baseline(onnx_graph.read(to_onnx(model, 2)), Pipeline(SPEC), TABLE).predictions


@pytest.mark.parametrize("names", [None, np.array(["low", "middle", "high"])])
def test_classes_are_counted_by_label(names):
    model = LogisticRegression().fit(ROWS, CLASSES if names is None else names[CLASSES])
    found = baseline_of(model)
    assert isinstance(found, ClassBaseline)
    shown = [str(label) for label in model.predict(ROWS)]
    assert found.name == "label"
    assert dict(zip(found.names, found.counts, strict=True)) == {name: shown.count(name) for name in set(shown)}


def test_one_number_is_counted_in_bins():
    found = baseline_of(LinearRegression().fit(ROWS, ROWS[:, 0]))
    assert isinstance(found, NumberBaseline)
    assert found.name == "prediction"
    assert sum(found.counts) == 300
