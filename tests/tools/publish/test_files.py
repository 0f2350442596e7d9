import joblib
import numpy as np
import pandas as pd
import pytest
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from penstock_server.errors import InvalidInputError
from penstock_server.features.pipeline import Pipeline
from penstock_server.features.spec import spec
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
from penstock_server.sources.mlflow_source import MlflowSource
from penstock_tools.publish import feature_file
from penstock_tools.publish.files import Request, publish

DRAW = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "age": DRAW.normal(40, 10, 200),
        "city": DRAW.choice(["Oslo", "Rome"], 200),
        "id": np.arange(200),
        "truth": DRAW.integers(0, 2, 200),
    }
)
BEFORE = FeatureSpec(
    (NumberColumn("age"), StringColumn("city")),
    Join((Take(("age",), (Fill((0.0,)),)), Text("city", Categories(("Oslo",)), (OneHot(((0, 1),), (2,)),)))),
)


@pytest.fixture(scope="module")
def pipeline():
    columns = ColumnTransformer([("n", StandardScaler(), ["age"]), ("s", OneHotEncoder(), ["city"])])
    return make_pipeline(columns, LogisticRegression()).fit(FRAME, FRAME["truth"])


@pytest.fixture
def files(tmp_path, pipeline, onnx_file):
    """A folder with the pipeline as skops and joblib, the sample, a specification and an ONNX model of its width."""
    skops.io.dump(pipeline, tmp_path / "p.skops")
    joblib.dump(pipeline, tmp_path / "p.joblib")
    FRAME.to_csv(tmp_path / "s.csv", index=False)
    (tmp_path / "before.yaml").write_bytes(spec.encode_yaml(BEFORE))
    (tmp_path / "before.json").write_bytes(spec.encode(BEFORE))
    return tmp_path


def fetched(registry, tmp_path):
    return artifact.read(MlflowSource(registry, cache_dir=tmp_path / "cache").fetch("fraud", "1"))


def test_a_skops_file_becomes_a_version(registry, client, files, capsys):
    publish(Request("fraud", files / "p.skops", files / "s.csv", "truth", alias="champion"))
    told = capsys.readouterr()
    assert told.out.splitlines()[-1] == "fraud version 1 is registered and is now champion"
    assert "2 (1 of numbers, 1 of text)" in told.out
    assert "id" in told.out
    assert "registering fraud" in told.err
    found = fetched(registry, files)
    assert [column.name for column in found.features.columns] == ["age", "city"]
    assert {"accuracy", "auc"} <= client.get_run(client.get_model_version("fraud", "1").run_id).data.metrics.keys()


def test_a_pickle_needs_trust_where_nobody_can_be_asked(registry, client, files, capsys):
    with pytest.raises(InvalidInputError, match="--trust agrees"):
        publish(Request("fraud", files / "p.joblib", files / "s.csv"))
    assert client.search_registered_models() == []
    publish(Request("fraud", files / "p.joblib", files / "s.csv", trust=True))
    assert "runs whatever code the file holds" in capsys.readouterr().err


@pytest.mark.parametrize(("answer", "is_loaded"), [("y\n", True), ("n\n", False)])
def test_a_person_at_the_terminal_is_asked(monkeypatch, answer, is_loaded):
    import io

    from penstock_tools.cli.consent import asker

    terminal = io.StringIO(answer)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    assert asker(trusts=False)("It may bite.") is is_loaded


@pytest.mark.parametrize("name", ["before.yaml", "before.json"])
def test_an_onnx_model_goes_behind_a_specification(registry, files, onnx_file, name):
    publish(Request("fraud", onnx_file, files / "s.csv", features=files / name))
    found = fetched(registry, files)
    assert found.features == BEFORE
    assert found.golden.rows == 16
    assert sum(found.baseline.predictions.counts) == 200


REFUSED = {
    "a pipeline without a sample": ({"file": "p.skops"}, "give --sample DATA"),
    "a specification for a pipeline": (
        {"file": "p.skops", "sample": "s.csv", "features": "before.yaml"},
        "--features is for ONNX models",
    ),
    "labels for an ONNX model": ({"file": "small.onnx", "labels": "truth"}, "--labels is for pipelines"),
    "a sample for a bare ONNX model": ({"file": "small.onnx", "sample": "s.csv"}, "needs --features"),
    "a role that is none": ({"file": "p.skops", "sample": "s.csv", "alias": "king"}, "no role 'king'"),
    "labels that are not there": (
        {"file": "p.skops", "sample": "s.csv", "labels": "answer"},
        "the sample has no column 'answer'; it has age, city, id, truth",
    ),
    "another kind of file": ({"file": "s.csv", "sample": "s.csv"}, r"s\.csv is no pipeline"),
}


@pytest.mark.parametrize(("options", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_go_together_is_refused(registry, client, files, options, message):
    paths = {key: files / value if key in ("file", "sample", "features") else value for key, value in options.items()}
    with pytest.raises(InvalidInputError, match=message):
        publish(Request("fraud", **paths))
    assert client.search_registered_models() == []


@pytest.mark.parametrize("name", ["before.yaml", "before.json"])
def test_a_specification_is_shown(files, capsys, name):
    feature_file.show(files / name, None, None, as_yaml=False, trust=False)
    told = capsys.readouterr().out
    assert "2 columns in" in told
    assert "city=Oslo" in told
    assert "mean" not in told


def test_a_specification_is_run_on_a_sample(files, capsys):
    feature_file.show(files / "before.yaml", files / "s.csv", None, as_yaml=False, trust=False)
    first = Pipeline(BEFORE).transform({"age": FRAME["age"].to_numpy()[:1], "city": ["Oslo"]})[0, 0]
    told = capsys.readouterr().out
    assert f"{first:.6g}" in told
    assert "mean" in told


def test_what_a_pipeline_becomes_is_shown_and_not_registered(registry, client, files, capsys):
    feature_file.show(files / "p.skops", files / "s.csv", None, as_yaml=False, trust=False)
    told = capsys.readouterr().out
    assert "city=Rome" in told
    assert "LogisticRegression" in told
    assert client.search_registered_models() == []


def test_the_yaml_of_a_pipeline_is_a_specification(files, capsys):
    feature_file.show(files / "p.skops", files / "s.csv", "FP64", as_yaml=True, trust=False)
    found = spec.decode_yaml(capsys.readouterr().out.encode())
    assert (found.width, found.datatype) == (3, "FP64")


NO_SPECIFICATION = {
    "gone.yaml": "cannot be read: No such file",
    "s.csv": "is no feature specification",
    "empty.yaml": "the feature specification is refused",
    "old.json": "format 1 is unknown, expected 2",
}


@pytest.mark.parametrize(("name", "message"), NO_SPECIFICATION.items())
def test_what_is_no_specification_is_refused(files, name, message):
    (files / "empty.yaml").write_text("")
    (files / "old.json").write_text('{"columns": [], "format": 1}')
    with pytest.raises(InvalidInputError, match=message):
        feature_file.read(files / name)
    if name == "s.csv":
        return
    with pytest.raises(InvalidInputError):
        feature_file.show(files / name, None, None, as_yaml=False, trust=False)


def test_a_pipeline_is_not_shown_without_rows(files):
    with pytest.raises(InvalidInputError, match="give --sample DATA"):
        feature_file.show(files / "p.skops", None, None, as_yaml=False, trust=False)
    with pytest.raises(InvalidInputError, match="--precision is for pipelines"):
        feature_file.show(files / "before.yaml", None, "FP32", as_yaml=False, trust=False)
