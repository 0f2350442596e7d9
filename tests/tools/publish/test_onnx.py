import importlib.metadata
import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from penstock_server.drift.fit import fit_baseline
from penstock_server.errors import InvalidInputError, UnavailableError
from penstock_server.features.spec.spec import (
    Categories,
    FeatureSpec,
    Join,
    NumberColumn,
    StringColumn,
    Take,
    Text,
)
from penstock_server.features.spec.steps import Fill, OneHot
from penstock_server.models import artifact
from penstock_server.models.golden import compare
from penstock_server.models.onnx_model import version as onnxruntime_version
from penstock_server.rollout.plan import Arm, TrafficPlan
from penstock_server.sources.mlflow_source import MlflowSource
from penstock_tools.publish.onnx import Record, publish

CITY = Text("city", Categories(("Oslo",)), (OneHot(((0, 1),), (2,)),))
SPEC = FeatureSpec((NumberColumn("age"), StringColumn("city")), Join((Take(("age",), (Fill((0.0,)),)), CITY)))
TABLE = {"age": np.array([1.0, np.nan, -3.0, 0.5]), "city": np.array(["Oslo", "", "Rome", "Oslo"], object)}


def fetched(registry: str, version: str, tmp_path: Path, name="fraud") -> artifact.Artifact:
    """The version as a server fetches and reads it."""
    return artifact.read(MlflowSource(registry, cache_dir=tmp_path / "cache").fetch(name, version))


def test_a_file_becomes_the_first_version_and_then_the_second(registry, client, onnx_file):
    assert [publish("fraud", onnx_file), publish("fraud", str(onnx_file))] == ["1", "2"]
    assert client.get_registered_model("fraud").aliases == {}


def test_mlflow_reads_what_was_published(registry, onnx_model, monkeypatch):
    import mlflow

    version = publish("fraud", onnx_model, registry=registry)
    mlflow.set_tracking_uri(registry)
    mlflow.set_registry_uri(registry)
    assert mlflow.onnx.load_model(f"models:/fraud/{version}") == onnx_model
    loaded = mlflow.pyfunc.load_model(f"models:/fraud/{version}")
    assert loaded.predict(np.array([[9, 0, 0]], np.float32))["label"].tolist() == [1]
    assert loaded.metadata.signature.inputs.input_names() == ["X"]


def test_onnxruntime_may_be_in_a_package_of_another_name(registry, onnx_model, tmp_path, monkeypatch):
    """Such as onnxruntime-gpu; what a version requires is the module."""
    installed = importlib.metadata.version

    def version(name: str) -> str:
        if name == "onnxruntime":
            raise importlib.metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    requirements = fetched(registry, publish("fraud", onnx_model), tmp_path).path / "requirements.txt"
    assert f"onnxruntime=={onnxruntime_version()}" in requirements.read_text().split()


def test_the_server_reads_what_was_published(registry, onnx_model, tmp_path):
    baseline = fit_baseline(SPEC, TABLE)
    version = publish("fraud", onnx_model, features=SPEC, baseline=baseline, sample=TABLE)
    found = fetched(registry, version, tmp_path)
    assert (found.features, found.baseline) == (SPEC, baseline)
    assert (found.manifest.class_output, found.manifest.classes) == ("label", (0, 1))
    assert found.golden.inputs == {"age": [1.0, None, -3.0, 0.5], "city": ["Oslo", "", "Rome", "Oslo"]}


def test_golden_requests_hold_what_the_model_answers(registry, onnx_model, classifier, tmp_path):
    found = fetched(registry, publish("fraud", onnx_model, features=SPEC, sample=TABLE), tmp_path)
    rows = np.array([[1, 1, 0], [0, 0, 1], [-3, 0, 1], [0.5, 1, 0]], np.float32)
    right = {"label": classifier.predict(rows), "probabilities": classifier.predict_proba(rows)}
    assert compare(found.golden, right) is None
    assert compare(found.golden, {**right, "label": 1 - right["label"]}) is not None


def test_a_plain_model_takes_a_sample_by_input(registry, onnx_model, tmp_path):
    found = fetched(registry, publish("fraud", onnx_model, sample={"X": [[1, 2, 3]]}), tmp_path)
    assert found.golden.inputs == {"X": [[1.0, 2.0, 3.0]]}
    assert found.features is None


def test_given_classes_win_over_the_graphs(registry, onnx_model, tmp_path):
    version = publish("fraud", onnx_model, classes=["honest", "fraud"], class_output="label")
    assert fetched(registry, version, tmp_path).manifest.classes == ("honest", "fraud")


def test_a_role_is_given_at_once(registry, onnx_file):
    publish("fraud", onnx_file, alias="champion")
    publish("fraud", onnx_file, alias="canary", weight=5)
    wanted = MlflowSource(registry).poll().models["fraud"]
    assert wanted == TrafficPlan("1", (Arm("2", 0.05),))


def test_the_run_records_how_the_model_was_made(client, registry, onnx_file):
    from matplotlib.figure import Figure

    record = Record("boosted", {"depth": 3}, {"auc": 0.75}, {"plot.png": Figure()})
    version = client.get_model_version("fraud", publish("fraud", onnx_file, record=record))
    run = client.get_run(version.run_id)
    assert (run.info.run_name, run.info.status) == ("boosted", "FINISHED")
    assert (run.data.params, run.data.metrics) == ({"depth": "3"}, {"auc": 0.75})
    assert {item.path for item in client.list_artifacts(version.run_id)} == {"model", "plot.png"}


def test_nothing_lands_in_the_working_directory(registry, onnx_file, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    publish("fraud", onnx_file)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_failed_upload_leaves_no_version_and_says_so_in_the_run(client, registry, onnx_file, monkeypatch):
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    def fail(*args):
        raise MlflowException("disk full")

    monkeypatch.setattr(MlflowClient, "log_artifacts", fail)
    with pytest.raises(UnavailableError, match="disk full"):
        publish("fraud", onnx_file)
    assert client.search_model_versions("name='fraud'") == []
    (run,) = client.search_runs([client.get_experiment_by_name("penstock").experiment_id])
    assert run.info.status == "FAILED"


REFUSED = {
    "a name with a slash": ({"name": "a/b"}, "the model's name is 'a/b'"),
    "no name": ({"name": ""}, "the model's name is ''"),
    "an unknown role": ({"alias": "king"}, "no role 'king'"),
    "a canary without weight": ({"alias": "canary"}, "give its weight"),
    "a weight without a role": ({"weight": 5}, "a weight without a role"),
    "a baseline without features": ({"baseline": fit_baseline(SPEC, TABLE)}, "give the feature specification"),
    "another width": (
        {"features": FeatureSpec((NumberColumn("a"),), Take(("a",)))},
        r"shape \[rows, 1\] .* shape \[-1, 3\]",
    ),
    "another datatype": (
        {"features": FeatureSpec((NumberColumn("a"),), Take(("a", "a", "a")), "FP64")},
        "type float64, but the model's input 'X' is FP32",
    ),
    "an unknown output": ({"class_output": "klass"}, "no output 'klass'; it has label, probabilities"),
    "a sample without a column": ({"features": SPEC, "sample": {"age": [1.0]}}, "lacks column 'city'"),
    "a sample without the input": ({"sample": {"x": [1.0]}}, "lacks input 'X'; expected X"),
    "classes twice": ({"classes": ["a", "a"]}, "a label twice"),
    "no model": ({"model": "/nowhere.onnx"}, "there is no file /nowhere.onnx"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_before_anything_is_written(registry, onnx_model, client, options, message):
    with pytest.raises(InvalidInputError, match=message):
        publish(**{"name": "fraud", "model": onnx_model, **options})
    assert client.search_registered_models() == []
    assert client.get_experiment_by_name("penstock") is None


def test_weights_of_a_model_with_external_data_go_along(registry, tmp_path):
    weights = onnx.helper.make_tensor("w", onnx.TensorProto.FLOAT, [3], np.ones(3, np.float32).tobytes(), raw=True)
    shape = onnx.helper.make_tensor_value_info
    inputs, outputs = shape("x", onnx.TensorProto.FLOAT, [None, 3]), shape("y", onnx.TensorProto.FLOAT, [None, 3])
    add = onnx.helper.make_node("Add", ["x", "w"], ["y"])
    model = onnx.helper.make_model(
        onnx.helper.make_graph([add], "g", [inputs], [outputs], [weights]),
        opset_imports=[onnx.helper.make_opsetid("", 18)],
        ir_version=9,
    )
    path = tmp_path / "m.onnx"
    onnx.save_model(model, str(path), save_as_external_data=True, location="m.data", size_threshold=0)
    version = publish("fraud", path, sample={"x": [[1, 2, 3]]})
    path.unlink()
    (tmp_path / "m.data").unlink()
    found = fetched(registry, version, tmp_path)
    assert found.golden.outputs == {"y": [[2.0, 3.0, 4.0]]}
    assert json.loads((found.path / artifact.MANIFEST).read_bytes())["classes"] is None


def graph_of(operator, tmp_path, **attributes):
    shape = onnx.helper.make_tensor_value_info
    inputs, outputs = shape("x", onnx.TensorProto.FLOAT, [None, 3]), shape("y", onnx.TensorProto.FLOAT, [None, 3])
    node = onnx.helper.make_node(operator, ["x"], ["y"], **attributes)
    return onnx.helper.make_model(
        onnx.helper.make_graph([node], "g", [inputs], [outputs]),
        opset_imports=[onnx.helper.make_opsetid("", 18)],
        ir_version=9,
    )


@pytest.mark.parametrize(
    ("batching", "operator", "said"),
    [
        (None, "Tanh", "requests are batched by rows: proven on 8 golden rows"),
        (None, "Softmax", "each request runs alone: a row's answer depends on the rows beside it"),
        ("rows", "Softmax", "requests are batched by rows, as its publisher says, but a row's answer depends"),
        ("request", "Tanh", "each request runs alone, as its publisher says"),
    ],
)
def test_the_publisher_learns_how_requests_are_batched(registry, tmp_path, batching, operator, said):
    model = graph_of(operator, tmp_path, **({"axis": 0} if operator == "Softmax" else {}))
    decisions = []
    sample = {"x": np.linspace(-1, 1, 24).reshape(8, 3)}
    version = publish("fraud", model, sample=sample, batching=batching, decided=decisions.append)
    (decision,) = decisions
    assert decision.startswith(said)
    assert fetched(registry, version, tmp_path).manifest.batching == batching


def test_what_a_server_would_refuse_is_not_registered(registry, client, onnx_model):
    from penstock_server.models import golden

    wrong = golden.make({"X": np.zeros((2, 3))}, {"label": np.array([7, 7])})
    with pytest.raises(InvalidInputError, match="another answer than when it was published: output 'label', row 0"):
        publish("fraud", onnx_model, golden=wrong)
    assert client.search_registered_models() == []


def test_a_model_with_maps_is_published_as_it_is_and_served_with_tensors(registry, classifier, tmp_path):
    """skl2onnx makes maps by default."""
    from skl2onnx import to_onnx

    from penstock_server.models.loader import load

    rows = np.array([[9, 0, 0], [0, 9, 1], [-3, 0, 1], [0.5, 1, 0]], np.float32)
    version = publish("fraud", to_onnx(classifier, rows[:1]), sample={"X": rows})
    folder = fetched(registry, version, tmp_path).path
    servable, _ = load(("fraud", version), folder, threads=1, max_rows=8)
    outputs = servable.predict([rows.tobytes()], 4, None, None)
    np.testing.assert_allclose(outputs.arrays[1], classifier.predict_proba(rows), atol=1e-6)
