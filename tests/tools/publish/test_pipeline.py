"""Pipelines prepared and registered: what goes into the graph, which datatype, and what a server fetches."""

import numpy as np
import pandas as pd
import pytest
from lightgbm import LGBMClassifier, LGBMRegressor
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.feature_selection import SelectKBest
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, RidgeClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import LinearSVC
from xgboost import XGBClassifier

from penstock_server.drift.expected_accuracy import fit_holdout
from penstock_server.errors import InvalidInputError, ModelFailedError, UnsupportedError
from penstock_server.features.pipeline import Pipeline as Features
from penstock_server.models import artifact
from penstock_server.models.golden import compare
from penstock_server.models.onnx_model import OnnxModel
from penstock_server.sources.mlflow_source import MlflowSource
from penstock_tools.publish.pipeline import prepare, publish_pipeline
from penstock_tools.sklearn_compiler import precision, walk
from penstock_tools.sklearn_compiler.graph import model as graph_model

COLUMNS = ["age", "fare", "class", "sex", "city"]


def columns(numbers=None):
    numbers = numbers or make_pipeline(SimpleImputer(add_indicator=True), StandardScaler())
    text = OneHotEncoder(handle_unknown="ignore")
    return ColumnTransformer([("num", numbers, ["age", "fare", "class"]), ("text", text, ["sex", "city"])])


@pytest.fixture(scope="session")
def pipeline(frame, answers):
    return Pipeline([("preprocess", columns()), ("model", LogisticRegression())]).fit(frame[COLUMNS], answers["binary"])


MODELS = {
    "linear": (make_pipeline(columns(), LogisticRegression()), "three"),
    "trees": (make_pipeline(columns(SimpleImputer()), HistGradientBoostingClassifier(max_iter=5)), "binary"),
    "forest": (make_pipeline(columns(SimpleImputer()), RandomForestClassifier(5, random_state=0)), "three"),
    "without probabilities": (make_pipeline(columns(), RidgeClassifier()), "binary"),
    "without probabilities, three": (make_pipeline(columns(), LinearSVC()), "three"),
    "a number": (make_pipeline(columns(), Ridge()), "number"),
    "a number, trees": (make_pipeline(columns(SimpleImputer()), HistGradientBoostingRegressor(max_iter=5)), "number"),
    "in place": (
        make_pipeline(
            columns(make_pipeline(SimpleImputer(copy=False), StandardScaler(copy=False))), LogisticRegression()
        ),
        "boolean",
    ),
    "labels that are floats": (make_pipeline(columns(), LogisticRegression()), "float"),
    "labels that are text": (make_pipeline(columns(), LogisticRegression()), "text"),
    "a transformed number": (
        make_pipeline(columns(), TransformedTargetRegressor(Ridge(), func=np.log1p, inverse_func=np.expm1)),
        "number",
    ),
    "a transformed number around a pipeline": (
        TransformedTargetRegressor(make_pipeline(columns(), Ridge()), transformer=StandardScaler()),
        "number",
    ),
    "clusters": (make_pipeline(columns(), KMeans(3, n_init=1, random_state=0)), "binary"),
    "LightGBM": (make_pipeline(columns(SimpleImputer()), LGBMClassifier(n_estimators=5, verbose=-1)), "binary"),
    "LightGBM, a number": (
        make_pipeline(columns(SimpleImputer()), LGBMRegressor(n_estimators=5, verbose=-1)),
        "number",
    ),
    "XGBoost": (make_pipeline(columns(SimpleImputer()), XGBClassifier(n_estimators=5)), "binary"),
}


@pytest.mark.long
@pytest.mark.parametrize(("model", "answer"), MODELS.values(), ids=MODELS)
def test_models_answer_as_they_did(frame, answers, model, answer):
    prepared = prepare(model.fit(frame[COLUMNS], answers[answer]), frame)
    assert prepared.features.datatype == precision.datatypes(model)[0]
    assert prepared.difference <= 1e-5
    assert prepared.compiled.in_graph == ()


IN_GRAPH = {
    "components": (
        make_pipeline(columns(), PCA(3), LogisticRegression()),
        ("PCA",),
    ),
    "components, scaled again": (
        make_pipeline(columns(), PCA(3), StandardScaler(), LogisticRegression()),
        ("PCA", "StandardScaler"),
    ),
    "a branch": (
        make_pipeline(columns(make_pipeline(KNNImputer(), StandardScaler())), LogisticRegression()),
        ("columntransformer → num → KNNImputer", "columntransformer → num → StandardScaler"),
    ),
    "a branch, and a choice of what it makes": (
        make_pipeline(columns(make_pipeline(SimpleImputer(), PCA(3))), SelectKBest(k=4), LogisticRegression()),
        ("columntransformer → num → PCA", "SelectKBest"),
    ),
    "two branches": (
        make_pipeline(
            ColumnTransformer(
                [
                    ("a", make_pipeline(SimpleImputer(), PCA(1)), ["age", "fare"]),
                    ("b", OneHotEncoder(), ["sex"]),
                    ("c", make_pipeline(StandardScaler(), PCA(1)), ["fare", "class"]),
                ]
            ),
            LogisticRegression(),
        ),
        ("columntransformer → a → PCA", "columntransformer → c → PCA"),
    ),
}


@pytest.mark.long
@pytest.mark.parametrize(("model", "places"), IN_GRAPH.values(), ids=IN_GRAPH)
def test_what_is_not_compiled_goes_into_the_graph(frame, answers, model, places):
    prepared = prepare(model.fit(frame[COLUMNS], answers["binary"]), frame)
    assert prepared.compiled.in_graph == places
    assert prepared.difference <= 1e-5


def test_the_wide_datatype_is_taken_where_the_narrow_one_does_not_do():
    rows = pd.DataFrame({"at": 1.7e9 + np.arange(50.0), "x": np.arange(50.0) % 7})
    model = LinearRegression().fit(rows, rows["at"] - 1.7e9)
    prepared = prepare(model, rows)
    assert prepared.features.datatype == "FP64"
    assert "differs from the pipeline by" in prepared.refused
    with pytest.raises(ModelFailedError, match=r"differs from the pipeline by .* in a prediction, .* row"):
        prepare(model, rows, datatype="FP32")


def test_the_datatype_that_is_asked_for_is_taken(pipeline, frame):
    prepared = prepare(pipeline, frame, datatype="FP64")
    assert prepared.graph.signature.inputs[0].datatype == "FP64"
    assert prepared.difference < 1e-14


def test_a_difference_names_the_step_and_the_column(pipeline, frame, monkeypatch):
    original = walk.rules.of

    def bent(transformer):
        rule = original(transformer)
        if not isinstance(transformer, StandardScaler):
            return rule
        scaled = StandardScaler()
        scaled.mean_, scaled.scale_ = transformer.mean_, transformer.scale_ * [1, 1 + 1e-6, 1, 1]
        return lambda _, parts: rule(scaled, parts)

    monkeypatch.setattr(walk.rules, "of", bent)
    with pytest.raises(
        ModelFailedError, match="preprocess → num → StandardScaler differs from scikit-learn's in 'fare', row"
    ):
        prepare(pipeline, frame)


def test_another_model_does_not_pass(pipeline, frame, answers, monkeypatch):
    other = Pipeline([("preprocess", columns()), ("model", LogisticRegression())])
    other.fit(frame[COLUMNS], 1 - answers["binary"])
    monkeypatch.setattr(graph_model, "planned", lambda _, *form: graph_model.to_onnx(other[-1], *form))
    with pytest.raises(ModelFailedError, match=r"differs from the pipeline by .* in a probability"):
        prepare(pipeline, frame)


def test_scikit_learns_own_refusal_is_passed_on(frame, answers):
    rows = frame[["class", "sex"]]
    model = make_pipeline(ColumnTransformer([("s", OrdinalEncoder(), ["sex"])]), LogisticRegression())
    model.fit(rows, answers["binary"])
    with pytest.raises(InvalidInputError, match=r"columntransformer → s \(OrdinalEncoder\) itself refuses the sample"):
        prepare(model, rows.assign(sex="x"))


def test_transformers_alone_are_a_model_that_gives_features(frame):
    fitted = make_pipeline(columns()).fit(frame[COLUMNS])
    prepared = prepare(fitted, frame)
    signature = prepared.graph.signature
    assert [spec.name for spec in signature.outputs] == ["features"]
    assert prepared.difference <= 1e-6


def test_a_model_without_a_converter(frame, answers):
    from sklearn.semi_supervised import LabelSpreading

    model = LabelSpreading().fit(frame[["fare"]], answers["binary"])
    with pytest.raises(UnsupportedError, match="LabelSpreading does not become ONNX: skl2onnx has no converter"):
        prepare(model, frame[["fare"]])


def test_a_server_reads_what_was_published(registry, client, pipeline, frame, answers, tmp_path):
    published = publish_pipeline("fraud", pipeline, frame, answers["binary"], alias="canary", weight=5)
    found = artifact.read(MlflowSource(registry, cache_dir=tmp_path / "cache").fetch("fraud", published.version))
    assert found.features == published.prepared.features
    assert found.baseline.predictions.counts == tuple(np.bincount(pipeline.predict(frame)).tolist())
    assert (found.manifest.class_output, found.manifest.classes) == ("label", (0, 1))
    sample = frame.iloc[np.linspace(0, len(frame) - 1, 16).astype(int)]
    right = {"label": pipeline.predict(sample), "probabilities": pipeline.predict_proba(sample)}
    assert compare(found.golden, right) is None
    run = client.get_run(client.get_model_version("fraud", published.version).run_id).data
    assert run.metrics["accuracy"] == pytest.approx(pipeline.score(frame, answers["binary"]))
    assert {"auc", "log_loss", "onnx_difference"} <= run.metrics.keys()
    assert run.params["estimator"] == "LogisticRegression"


def test_graph_and_specification_are_opened_once_here_and_once_as_a_server_does(
    registry, pipeline, frame, answers, monkeypatch
):
    """Counts of what is expensive: an onnxruntime session, and a compiled specification of each kind."""
    opened, compiled = [], []
    open_model, compile_features = OnnxModel.__init__, Features.__init__

    def count_opened(self, *arguments, **options):
        opened.append(arguments)
        open_model(self, *arguments, **options)

    def count_compiled(self, spec, *arguments):
        compiled.append(spec)
        compile_features(self, spec, *arguments)

    monkeypatch.setattr(OnnxModel, "__init__", count_opened)
    monkeypatch.setattr(Features, "__init__", count_compiled)
    published = publish_pipeline("fraud", pipeline, frame, answers["binary"])
    # The third computes what the model's own operator gets, for the proof of the attributions.
    assert len(opened) == 3
    assert compiled.count(published.prepared.features) == 2
    # The proof compares each transformer that was compiled with scikit-learn's, once. Before it says what it accepts the
    # specification is another one, and what reaches the graph is looked at in float64 then and after.
    assert len(compiled) == 2 + 3 + len(published.prepared.compiled.stages)


def test_numbers_are_scored_as_numbers(registry, client, frame, answers):
    model = make_pipeline(columns(), Ridge()).fit(frame[COLUMNS], answers["number"])
    published = publish_pipeline("price", model, frame, answers["number"])
    assert published.scores["r2"] == pytest.approx(model.score(frame[COLUMNS], answers["number"]))


LABELS = {
    "too few": (lambda truth: truth[:-1], "there are 239 labels for 240 rows"),
    "a class that the model does not know": (lambda truth: truth + 1, "the label 2 is none of the model's classes"),
    "one missing": (lambda truth: np.where(np.arange(len(truth)) == 3, np.nan, truth), "the label of row 3 is missing"),
}


@pytest.mark.long
@pytest.mark.parametrize(("change", "message"), LABELS.values(), ids=LABELS)
def test_labels_that_are_not_the_samples(registry, client, pipeline, frame, answers, change, message):
    with pytest.raises(InvalidInputError, match=message):
        publish_pipeline("fraud", pipeline, frame, change(answers["binary"]))
    assert client.search_registered_models() == []


@pytest.mark.long
def test_the_baseline_is_in_the_order_of_the_times(registry, pipeline, frame, answers, tmp_path):
    """The fares rise with time, which is in a column that the pipeline does not read."""
    in_time = frame.sort_values("fare", kind="stable").reset_index(drop=True)
    labels = pd.Series(answers["binary"])
    shuffled = in_time.assign(day=pd.date_range("2024-01-01", periods=len(frame)).strftime("%Y-%m-%d"))
    shuffled = shuffled.sample(frac=1, random_state=0)

    def baseline(sample, time):
        published = publish_pipeline("fraud", pipeline, sample, labels, time=time, report=lambda _: None, explain=False)
        folder = MlflowSource(registry, cache_dir=tmp_path / "cache").fetch("fraud", published.version)
        return artifact.read(folder).baseline

    given = baseline(in_time, None)
    assert (given.order, given.ordered_by) == ("sorted", ("fare",))
    by_column, by_values = baseline(shuffled, "day"), baseline(shuffled[COLUMNS], shuffled["day"])
    assert (by_column.columns, by_column.predictions) == (given.columns, given.predictions)
    assert (by_column.order, by_column.ordered_by) == ("time", ("day",))
    assert (by_values.columns, by_values.ordered_by) == (given.columns, ("time",))
    # In another order the fares would not rise from block to block.
    fares = {column.name: column.dispersion for column in given.columns}["fare"]
    assert fares > 5 > {column.name: column.dispersion for column in baseline(shuffled, None).columns}["fare"]


def test_a_holdout_is_kept_in_the_order_of_the_times_and_is_not_the_sample(
    registry, pipeline, frame, answers, tmp_path
):
    days = pd.date_range("2024-01-01", periods=len(frame)).strftime("%Y-%m-%d")
    later = frame.assign(day=days).sample(frac=1, random_state=0)
    truth = answers["binary"][later.index]
    published = publish_pipeline(
        "fraud", pipeline, frame.assign(day=days), answers["binary"], time="day", holdout=(later, truth), explain=False
    )
    folder = MlflowSource(registry, cache_dir=tmp_path / "cache").fetch("fraud", published.version)
    (confidence,) = artifact.read(folder).baseline.answers
    right = pipeline.predict(frame) == answers["binary"]
    expected = fit_holdout("confidence", pipeline.predict_proba(frame).max(axis=1), right)[1]
    assert sum(confidence.holdout.correct) == right.sum()
    assert confidence.holdout.variance == pytest.approx(expected.variance, rel=0.05)
    with pytest.raises(InvalidInputError, match="the hold-out is the sample itself"):
        publish_pipeline("fraud", pipeline, frame, answers["binary"], holdout=(frame, answers["binary"]))


def test_a_pipeline_without_names_is_published_by_a_frame_with_times(registry):
    rows = np.random.default_rng(0).normal(size=(200, 2))
    model = LinearRegression().fit(rows, rows[:, 0])
    sample = pd.DataFrame(rows, columns=["a", "b"]).assign(at=np.arange(200)[::-1])
    said = []
    publish_pipeline("trips", model, sample, rows[:, 0], time="at", report=lambda _: None, decided=said.append)
    assert said[0].startswith("drift of 2 columns and of the predictions is watched")
    assert said[-1].startswith("requests are batched")
