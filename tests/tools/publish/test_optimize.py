from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bench.models import mlp
from penstock_server.drift.baseline import AnswerBaseline, Baseline, HoldOut
from penstock_server.drift.fit import fit_number
from penstock_server.errors import InvalidInputError, NotFoundError, UnsupportedError
from penstock_server.models import artifact
from penstock_server.sources.mlflow_source import MlflowSource
from penstock_tools import publish_pipeline
from penstock_tools.publish import onnx, optimize
from penstock_tools.publish.optimize import Form, Optimized, decide

COLUMNS = [f"c{at}" for at in range(8)]


@pytest.fixture(scope="module")
def frame():
    random = np.random.default_rng(0)
    rows = pd.DataFrame(random.normal(size=(900, 8)), columns=COLUMNS)
    score = rows["c0"] + rows["c1"] * rows["c2"] + random.normal(0, 0.3, 900)
    return rows.assign(risk=score, fraud=np.where(score > 0.2, "yes", "no"))


@pytest.fixture
def data(frame, tmp_path: Path) -> Path:
    frame.to_csv(tmp_path / "rows.csv", index=False)
    return tmp_path / "rows.csv"


@pytest.fixture(scope="module")
def perceptron(frame):
    estimator = MLPClassifier((256, 256), max_iter=15, random_state=0)
    return make_pipeline(StandardScaler(), estimator).fit(frame[COLUMNS], frame["fraud"])


@pytest.fixture
def fraud(registry, perceptron, frame) -> str:
    publish_pipeline("fraud", perceptron, frame[COLUMNS], frame["fraud"], alias="champion", registry=registry)
    return registry


@pytest.fixture(autouse=True)
def _brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optimize, "_TIMED_S", 0.01)


def times(**each_s: float):
    """Forms take so long, whatever the machine does meanwhile."""
    return lambda servables, *_: [
        (1e-5, each_s.get(servable.key[0].replace(" ", "_"), 1.0), 1e-3) for servable in servables
    ]


@pytest.mark.long
def test_a_faster_form_becomes_the_next_version_with_all_that_belongs_to_it(
    fraud, data, frame, perceptron, client, tmp_path, monkeypatch
):
    monkeypatch.setattr(optimize, "_times_s", times(as_it_is=4e-4, int8=1e-4, fp16=5e-4))
    found = optimize.optimize("fraud", data, labels="fraud", max_loss=0.01, register=True)
    assert (found.address, found.measure, found.registered) == ("models:/fraud/1", "AUC", "2")
    assert [form.kind for form in found.forms] == [
        *("as it is", "int8", "int8, dynamic", "fp16", "basic rewriting", "extended rewriting")
    ]
    assert found.forms[2].refusal.startswith("requests could no longer share batches: each request runs alone: a row's")
    assert found.chosen is found.forms[1]
    assert not found.chosen.refusal
    judged = np.random.default_rng(0).permutation(len(frame))[len(frame) // 2 :]
    scores = perceptron.predict_proba(frame[COLUMNS])[judged, 1]
    assert found.forms[0].accuracy == pytest.approx(roc_auc_score(frame["fraud"][judged] == "yes", scores), abs=1e-6)
    assert 0 < abs(found.chosen.accuracy - found.forms[0].accuracy) < 0.01
    source = MlflowSource(fraud, cache_dir=tmp_path / "cache")
    before, after = (artifact.read(source.fetch("fraud", version)) for version in ("1", "2"))
    assert (after.features, after.baseline, after.importance) == (before.features, before.baseline, before.importance)
    assert (after.manifest.classes, after.manifest.class_output) == (
        before.manifest.classes,
        before.manifest.class_output,
    )
    assert after.golden.inputs == before.golden.inputs
    assert after.golden.outputs != before.golden.outputs, "its own answers, which servers must get again"
    aliases = client.get_registered_model("fraud").aliases
    assert {role: str(version) for role, version in aliases.items()} == {"champion": "1"}, "it has no role"
    run = client.get_run(client.get_model_version("fraud", "2").run_id).data
    assert run.params == {"optimized_from": "models:/fraud/1", "form": "int8", "measure": "AUC"}
    assert run.metrics["speedup"] == pytest.approx(4)
    assert run.metrics["accuracy"] == pytest.approx(found.chosen.accuracy)


@pytest.mark.long
def test_a_version_remembers_the_threads_and_the_rewriting_that_were_best(fraud, data, client, tmp_path, monkeypatch):
    monkeypatch.setattr(optimize, "_times_s", times(as_it_is=4e-4, **{"as_it_is,_2_threads": 1e-4}))
    found = optimize.optimize("fraud", data, threads=2, register=True)
    assert [form.kind for form in found.forms[6:]] == [
        *("as it is, 2 threads", "int8, 2 threads", "int8, dynamic, 2 threads", "fp16, 2 threads")
    ]
    assert "it runs in 2 threads" in found.forms[6].engine, "no kernels"
    assert found.registered == "2"
    source = MlflowSource(fraud, cache_dir=tmp_path / "cache")
    second = artifact.read(source.fetch("fraud", "2"))
    assert (second.threads, second.graph_optimization, second.manifest.graph_optimization) == (2, "all", None)
    monkeypatch.setattr(optimize, "_times_s", times(as_it_is=4e-4, basic_rewriting=1e-4))
    again = optimize.optimize("fraud", data, version="2", threads=2, register=True)
    assert len(again.forms) == 6, "it has two threads as it is"
    third = artifact.read(source.fetch("fraud", "3"))
    assert (third.threads, third.graph_optimization) == (2, "basic")


@pytest.mark.long
def test_nothing_is_registered_unasked_or_where_too_much_is_lost(fraud, data, client, monkeypatch):
    monkeypatch.setattr(optimize, "_times_s", times(as_it_is=4e-4, int8=1e-4, fp16=5e-4))
    assert optimize.optimize("fraud", data, labels="fraud", max_loss=0.01).registered == ""
    found = optimize.optimize("fraud", data, max_loss=0.0, register=True)
    assert (found.chosen, found.registered) == (None, "")
    assert found.reason == "each faster form loses more than 0 accuracy against its own answers"
    assert len(client.search_model_versions("name='fraud'")) == 1


@pytest.mark.long
def test_without_labels_a_version_is_its_own_measure(fraud, data):
    found = optimize.optimize("fraud", data, version="1")
    assert found.measure == "accuracy against its own answers"
    assert found.forms[0].accuracy == 1
    assert 0.95 < found.forms[1].accuracy <= 1
    for form in (each for each in found.forms if not each.refusal):
        assert len(form.times_s) == len(optimize.SIZES)
        assert form.times_s[0] < form.times_s[2] < 1


@pytest.mark.long
def test_trees_stay_as_they_are(registry, data, frame, monkeypatch):
    monkeypatch.setattr(optimize, "_times_s", times(as_it_is=1.0))
    trees = make_pipeline(StandardScaler(), HistGradientBoostingClassifier(max_iter=5)).fit(
        frame[COLUMNS], frame["fraud"]
    )
    publish_pipeline("trees", trees, frame[COLUMNS], alias="champion", explain=False)
    found = optimize.optimize("trees", data, labels="fraud")
    assert (found.chosen, found.reason) == (None, "no other form is 1.1 times as fast")
    assert found.forms[1].refusal == "it has no product with weights"
    assert found.forms[3].refusal.startswith("it has no weights of 32 bits")


def test_numbers_are_judged_by_r2(registry, data, frame):
    estimator = MLPRegressor(hidden_layer_sizes=(64,), max_iter=30, random_state=0)
    regression = make_pipeline(StandardScaler(), estimator).fit(frame[COLUMNS], frame["risk"])
    publish_pipeline("risk", regression, frame[COLUMNS], alias="champion", datatype="FP32", explain=False)
    found = optimize.optimize("risk", data, labels="risk")
    judged = np.random.default_rng(0).permutation(len(frame))[len(frame) // 2 :]
    expected = regression.score(frame[COLUMNS].iloc[judged], frame["risk"].iloc[judged])
    assert found.measure == "R2"
    assert found.forms[0].accuracy == pytest.approx(expected, abs=1e-4)
    assert found.forms[1].accuracy == pytest.approx(expected, abs=0.05)
    assert found.forms[1].accuracy != found.forms[0].accuracy


def test_a_plain_graph_has_forms_too(registry, data, frame, tmp_path):
    (tmp_path / "plain.onnx").write_bytes(mlp(layers=(8, 64, 1)))
    onnx.publish("plain", tmp_path / "plain.onnx", alias="champion")
    frame[COLUMNS].to_csv(data, index=False)
    found = optimize.optimize("plain", data)
    assert found.measure == "R2 against its own answers"
    assert (found.forms[0].accuracy, found.forms[1].refusal) == (1, "")
    assert 0.9 < found.forms[1].accuracy < 1


@pytest.mark.parametrize("labels", [[0, 1], [False, True], [0.0, 1.0], ["0", "1"]])
def test_labels_are_found_among_the_classes_however_pandas_reads_them(labels):
    assert [optimize._text(value) for value in np.array(labels).tolist()] == ["0", "1"]


@pytest.mark.long
def test_whole_labels_that_a_graph_answers_itself_are_judged_as_classes(registry, frame, tmp_path):
    """Classes 1, 2 and 4: neither their places nor two columns of scores."""
    truth = np.select([frame["risk"] > 0.8, frame["risk"] > -0.2], [4, 2], 1)
    estimator = MLPClassifier((16,), max_iter=30, random_state=0)
    fitted = make_pipeline(StandardScaler(), estimator).fit(frame[COLUMNS], truth)
    publish_pipeline("three", fitted, frame[COLUMNS], alias="champion", explain=False)
    frame[COLUMNS].assign(y=truth).to_parquet(tmp_path / "rows.parquet")
    found = optimize.optimize("three", tmp_path / "rows.parquet", labels="y")
    judged = np.random.default_rng(0).permutation(len(frame))[len(frame) // 2 :]
    assert found.measure == "accuracy"
    assert found.forms[0].accuracy == pytest.approx(fitted.score(frame[COLUMNS].iloc[judged], truth[judged]), abs=0.005)


def test_what_cannot_be_measured_is_refused(fraud, data):
    with pytest.raises(InvalidInputError, match="the loss is nan, expected 0 or more"):
        optimize.optimize("fraud", data, max_loss=float("nan"))
    with pytest.raises(InvalidInputError, match="has 'gpu'; expected some of"):
        optimize.optimize("fraud", data, provider="gpu")
    with pytest.raises(InvalidInputError, match="there are 1 threads to be tried, expected 2 to 1024"):
        optimize.optimize("fraud", data, threads=1)
    with pytest.raises(NotFoundError):
        optimize.optimize("nobody", data)


@pytest.mark.long
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda rows: rows.assign(fraud="maybe"), "the label maybe is none of the model's classes; expected no, yes"),
        (lambda rows: rows.assign(fraud="yes"), "all labels are the same; expected both classes"),
        (lambda rows: rows[:100], "has 100 rows, which say too little; expected at least 200"),
    ],
)
def test_rows_that_say_nothing_are_refused(fraud, frame, tmp_path, change, said):
    change(frame).to_csv(tmp_path / "odd.csv", index=False)
    with pytest.raises(InvalidInputError, match=said):
        optimize.optimize("fraud", tmp_path / "odd.csv", labels="fraud")


BASE = Form("as it is", (1e-5, 4e-4, 1e-3), 0.9)
FAST = Form("int8", (1e-5, 1e-4, 3e-4), 0.8985)
FASTER = Form("fp16", (1e-5, 5e-5, 3e-4), 0.89)
SLOW = Form("fp16", (1e-5, 3.9e-4, 3e-4), 0.9)
REFUSED = Form("fp16", refusal="no")


@pytest.mark.parametrize(
    ("others", "max_loss", "chosen", "reason"),
    [
        ((FAST, FASTER), 0.002, FAST, ""),
        ((FAST, FASTER), 0.02, FASTER, ""),
        ((FAST, FASTER), 0.001, None, "each faster form loses more than 0.001 AUC"),
        ((FAST, REFUSED), 0.002, FAST, ""),
        ((SLOW, REFUSED), 0.002, None, "no other form is 1.1 times as fast"),
        ((REFUSED,), 0.002, None, "no other form can be used"),
        ((replace(FAST, accuracy=float("nan")),), 0.002, None, "each faster form loses more than 0.002 AUC"),
    ],
)
def test_the_fastest_form_within_the_budget_is_taken(others, max_loss, chosen, reason):
    assert decide((BASE, *others), max_loss, "AUC") == (chosen, reason)


def test_findings_are_told():
    found = Optimized("models:/fraud/1", "AUC", (BASE, FAST, REFUSED), FAST, "")
    head, columns, base, fast, refused, end = optimize.lines(found)
    assert head == "models:/fraud/1, microseconds per batch"
    assert columns.split() == ["1", "rows", "64", "rows", "256", "rows", "AUC"]
    assert base.split() == ["as", "it", "is", "10", "400", "1,000", "0.900000"]
    assert fast.split() == ["int8", "10", "100", "300", "0.898500"]
    assert refused.strip() == "fp16      cannot be used: no"
    assert end == "int8 is 4.0 times as fast, and changes AUC by -0.001500"
    nothing = replace(found, chosen=None, reason="no other form can be used")
    assert optimize.lines(nothing)[-1] == "the version stays as it is: no other form can be used"


@pytest.mark.long
def test_a_form_whose_rows_depend_on_each_other_is_refused(fraud, data, monkeypatch):
    load = optimize.load

    def loaded(key, *given, **how):
        servable, cost = load(key, *given, **how)
        if key[0] == "int8":
            servable.is_batched = False
        return servable, cost

    monkeypatch.setattr(optimize, "load", loaded)
    assert optimize.optimize("fraud", data).forms[1].refusal.startswith("requests could no longer share batches")


@pytest.mark.long
def test_what_runs_as_python_has_no_forms(registry, data, monkeypatch, fraud):
    from penstock_tools.publish import logged

    described = logged.described
    monkeypatch.setattr(logged, "described", lambda *given: replace(described(*given), flavour="sklearn"))
    with pytest.raises(UnsupportedError, match="models:/fraud/1 runs as Python; only graphs have other forms"):
        optimize.optimize("fraud", data)


def test_a_form_has_no_hold_out_of_another_model():
    numbers = fit_number("confidence", np.linspace(0.5, 1.0, 1000))
    answers = (AnswerBaseline("probabilities", "largest", numbers, HoldOut(numbers.counts)),)
    found = optimize.without_holdout(Baseline((), "digest", answers=answers))
    assert found == Baseline((), "digest", answers=(AnswerBaseline("probabilities", "largest", numbers),))
