import numpy as np
import pytest
import skops.io
from sklearn.base import clone
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.pipeline import make_pipeline

from penstock_server.errors import InvalidInputError
from penstock_server.features.pipeline import Pipeline
from penstock_server.models import artifact
from penstock_server.sources.mlflow_source import MlflowSource
from penstock_tools.publish import files as publishing
from penstock_tools.publish import onnx_graph
from penstock_tools.publish.files import Request, read_features
from penstock_tools.publish.specification import read_specification


def never(warning):
    raise AssertionError(warning)


def publish(request, agree=never):
    return publishing.publish(request, agree, lambda _: None)


def features_in(file, sample=None, precision=None):
    return read_features(file, sample, precision, never, lambda _: None)


def fetched(registry, tmp_path):
    return artifact.read(MlflowSource(registry, cache_dir=tmp_path / "cache").fetch("fraud", "1"))


def test_a_skops_file_becomes_a_version(registry, client, files):
    version, published = publish(Request("fraud", files / "p.skops", files / "s.csv", "truth", alias="champion"))
    assert (version, published.version) == ("1", "1")
    assert client.get_registered_model("fraud").aliases == {"champion": 1}
    assert published.prepared.compiled.unused == ("id", "truth")
    assert {"accuracy", "auc"} <= published.scores.keys()
    assert [column.name for column in fetched(registry, files).features.columns] == ["age", "city"]
    metrics = client.get_run(client.get_model_version("fraud", "1").run_id).data.metrics
    assert {name: metrics[name] for name in published.scores} == published.scores


@pytest.mark.long
@pytest.mark.parametrize("model", [RandomForestClassifier(3), HistGradientBoostingClassifier(max_iter=1, max_depth=2)])
def test_trees_of_a_skops_file_are_published_without_a_question(registry, files, small_frame, small_pipeline, model):
    fitted = make_pipeline(clone(small_pipeline[0]), model).fit(small_frame, small_frame["truth"])
    skops.io.dump(fitted, files / "trees.skops")
    assert publish(Request("fraud", files / "trees.skops", files / "s.csv", "truth"))[0] == "1"


def test_nothing_is_reported_before_a_file_is_agreed_to(registry, client, files):
    def refuse(warning):
        events.append(warning)
        return False

    events = []
    with pytest.raises(InvalidInputError, match="--trust agrees"):
        publishing.publish(Request("fraud", files / "p.joblib", files / "s.csv"), refuse, events.append)
    assert len(events) == 1
    assert "runs any code that the file holds" in events[0]
    assert client.search_registered_models() == []


@pytest.mark.parametrize("name", ["before.yaml", "before.json"])
def test_an_onnx_model_goes_behind_a_specification(registry, files, onnx_file, before_onnx, name):
    assert publish(Request("fraud", onnx_file, files / "s.csv", features=files / name)) == ("1", None)
    found = fetched(registry, files)
    assert found.features == before_onnx
    assert found.golden.rows == 16
    assert sum(found.baseline.predictions.counts) == 200


@pytest.mark.long
def test_a_holdout_is_kept_with_what_was_right(registry, files, onnx_file, before_onnx, small_frame, small_pipeline):
    frame = small_frame.sample(frac=1.5, replace=True, random_state=2).assign(at=np.arange(300)[::-1])
    frame.to_csv(files / "h.csv", index=False)
    sample = small_frame.assign(at=np.arange(200))
    sample.to_csv(files / "s.csv", index=False)
    sample.drop(columns="truth").to_csv(files / "unlabelled.csv", index=False)
    right = int((small_pipeline.predict(frame) == frame["truth"]).sum())
    found = []
    for file, more in (
        (files / "p.skops", {}),
        (onnx_file, {"features": files / "before.yaml"}),
        (files / "p.skops", {"sample": files / "unlabelled.csv"}),
    ):
        with_sample = {"sample": files / "s.csv", **more}
        request = Request("fraud", file, labels="truth", holdout=files / "h.csv", time="at", **with_sample)
        said = []
        version, _ = publishing.publish(request, never, lambda _: None, said.append)
        assert said[1].startswith("of the 300 rows of the hold-out")
        baseline = artifact.read(MlflowSource(registry, cache_dir=files / "cache").fetch("fraud", version)).baseline
        (answer,) = [answer for answer in baseline.answers if answer.holdout is not None]
        found.append((answer.name, sum(answer.numbers.counts), sum(answer.holdout.correct)))
    graph = onnx_graph.read(onnx_file)
    matrix = Pipeline(before_onnx).transform({"age": frame["age"], "city": frame["city"]})
    by_graph = int((graph.runtime.run({graph.signature.inputs[0].name: matrix})[0] == frame["truth"]).sum())
    assert found == [("confidence", 300, each) for each in (right, by_graph, right)]


@pytest.mark.parametrize(
    ("request_of", "said"),
    [
        (
            lambda files, onnx: Request("m", files / "p.skops", files / "s.csv", holdout=files / "s.csv"),
            "--labels COLUMN",
        ),
        (lambda files, onnx: Request("m", onnx, holdout=files / "s.csv", labels="truth"), "--sample DATA"),
        (
            lambda files, onnx: Request("m", files / "p.skops", files / "s.csv", "truth", holdout=files / "s.csv"),
            "the hold-out is the sample itself",
        ),
        (
            lambda files, onnx: Request("m", files / "p.skops", files / "s.csv", "age", holdout=files / "h.csv"),
            "the hold-out has no column 'age'",
        ),
    ],
)
def test_a_holdout_needs_labels_and_a_sample(registry, files, onnx_file, small_frame, request_of, said):
    small_frame.drop(columns="age").to_csv(files / "h.csv", index=False)
    with pytest.raises(InvalidInputError, match=said):
        publish(request_of(files, onnx_file))


def test_a_specification_without_a_sample_gives_no_baseline(registry, files, onnx_file, before_onnx):
    publish(Request("fraud", onnx_file, features=files / "before.yaml"))
    found = fetched(registry, files)
    assert (found.features, found.baseline, found.golden) == (before_onnx, None, None)


def test_the_rows_of_a_file_are_put_in_the_order_of_time(registry, files, onnx_file, small_frame):
    frame = small_frame.sort_values("age").assign(at=1.7e9 + np.arange(200) * 60.0).sample(frac=1, random_state=1)
    frame.to_csv(files / "at.csv", index=False)
    behind = {"features": files / "before.yaml"}
    for file, more in ((files / "p.skops", {"labels": "truth"}), (onnx_file, behind)):
        version, _ = publish(Request("fraud", file, files / "at.csv", time="at", **more))
        found = artifact.read(MlflowSource(registry, cache_dir=files / "cache").fetch("fraud", version)).baseline
        assert (found.order, found.ordered_by) == ("time", ("at",))
        age, _ = found.columns
        assert age.dispersion > 5


REFUSED = {
    "a pipeline without a sample": ({"file": "p.skops"}, "give --sample DATA"),
    "a specification for a pipeline": (
        {"file": "p.skops", "sample": "s.csv", "features": "before.yaml"},
        "--features is for ONNX models",
    ),
    "labels for an ONNX model": ({"file": "small.onnx", "labels": "truth"}, "--labels is for pipelines"),
    "a sample of other columns than the model's": (
        {"file": "small.onnx", "sample": "s.csv"},
        r"the sample has 4 columns \(age, city, id, truth\), and the model takes a matrix of 3",
    ),
    "a role that is none": ({"file": "p.skops", "sample": "s.csv", "alias": "king"}, "no role 'king'"),
    "times that are not there": (
        {"file": "p.skops", "sample": "s.csv", "time": "at"},
        "the sample has no column 'at'; it has age, city, id, truth",
    ),
    "texts that are no times": ({"file": "p.skops", "sample": "s.csv", "time": "city"}, "which is no time"),
    "times without a sample": ({"file": "small.onnx", "time": "at"}, "--time is a column of the sample"),
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
def test_a_specification_is_read_and_run_on_a_sample(files, before_onnx, small_frame, name):
    assert features_in(files / name) == publishing.FeaturesInFile(before_onnx)
    found = features_in(files / name, files / "s.csv")
    assert (found.features, found.prepared) == (before_onnx, None)
    expected = Pipeline(before_onnx).transform({name: small_frame[name].to_numpy() for name in ("age", "city")})
    np.testing.assert_array_equal(found.matrix, expected)


def test_a_pipeline_is_compiled_and_not_registered(registry, client, files):
    found = features_in(files / "p.skops", files / "s.csv", "FP64")
    assert (found.features.width, found.features.datatype) == (3, "FP64")
    assert found.matrix.shape == (200, 3)
    assert found.prepared.features == found.features
    assert client.search_registered_models() == []


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
        read_specification(files / name)


def test_a_pipeline_needs_rows_and_a_specification_no_precision(files):
    with pytest.raises(InvalidInputError, match="give --sample DATA"):
        features_in(files / "p.skops")
    with pytest.raises(InvalidInputError, match="--precision is for pipelines"):
        features_in(files / "before.yaml", None, "FP32")
