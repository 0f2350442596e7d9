import math

import numpy as np
import pytest
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from penstock_server.models import artifact
from penstock_server.sources.mlflow_source import MlflowSource
from penstock_tools.demo import flights
from penstock_tools.demo.flights import Candidate, boosted_trees, logistic_regression
from penstock_tools.demo.train import (
    LATER_MONTHS,
    TRAINING_MONTHS,
    QualityError,
    Scores,
    check_quality,
    fit_candidate,
    plot,
    score,
    train,
)

SETTINGS = {"logistic regression": {"max_iter": 300, "C": 1.0}, "boosted trees": {"max_iter": 60, "max_leaf_nodes": 15}}


@pytest.fixture(scope="module", params=[logistic_regression(), boosted_trees()], ids=lambda each: each.title)
def trained(request, frame):
    return fit_candidate(request.param, frame)


def of_two_columns(title="line", columns=("sched_dep_minute", "wind_gust")):
    """A candidate that is compiled in a moment, for what does not depend on the model."""
    made = make_column_transformer((SimpleImputer(), list(columns)))
    return Candidate(title, {}, lambda _: make_pipeline(made, LogisticRegression()))


@pytest.mark.long
def test_a_candidate_learns_what_there_is_to_learn(frame, trained):
    assert trained.scores.auc > 0.75
    assert trained.scores.rows == frame["month"].isin(LATER_MONTHS).sum()
    assert [column.name for column in trained.prepared.features.columns] == list(flights.COLUMNS)


@pytest.mark.long
def test_what_is_logged_is_what_was_done(trained):
    record = trained.record
    assert record.title == trained.title
    assert record.params.items() >= SETTINGS[trained.title].items()
    assert record.params["training_months"] == list(TRAINING_MONTHS)
    assert record.metrics["auc"] == trained.scores.auc
    assert trained.prepared.difference < 1e-5
    assert {f"auc_month_{month}" for month in LATER_MONTHS} <= set(record.metrics)
    assert list(record.figures) == ["evaluation.png"]


@pytest.mark.long
def test_two_versions_are_registered_and_the_first_is_champion(registry, client, frame, tmp_path):
    steps = []
    registered = train(registry=registry, frame=frame, report=steps.append)
    assert [each.version for each in registered] == ["1", "2"]
    assert client.get_registered_model("flights").aliases == {"champion": 1}
    assert steps[-1] == "flights version 1 is now champion"
    source = MlflowSource(registry, cache_dir=tmp_path / "cache")
    for each in registered:
        found = artifact.read(source.fetch("flights", each.version))
        assert found.manifest.classes == (0, 1)
        assert found.golden.rows == 16
        early = frame["month"].isin(TRAINING_MONTHS).sum()
        assert [sum((*one.bins, *one.extra)) for one in found.baseline.columns] == [early] * len(flights.COLUMNS)
        assert found.baseline.predictions is not None
        run = client.get_run(client.get_model_version("flights", each.version).run_id)
        assert run.info.run_name == each.title
        assert run.data.metrics["auc"] == each.scores.auc
        assert run.data.metrics["onnx_difference"] < 1e-5
        assert run.data.params["model"] == each.title
        assert "evaluation.png" in [file.path for file in client.list_artifacts(run.info.run_id)]


@pytest.mark.long  # it trains both versions again
def test_a_champion_that_is_there_stays(registry, client, frame, monkeypatch):
    monkeypatch.setattr(flights, "load", lambda: frame)
    train(registry=registry, candidates=[of_two_columns()])
    train(registry=registry, candidates=[of_two_columns()])
    assert client.get_registered_model("flights").aliases == {"champion": 1}


def test_no_champion_on_demand(registry, client, frame):
    train(registry=registry, frame=frame, candidates=[of_two_columns()], with_champion=False)
    assert client.get_registered_model("flights").aliases == {}


@pytest.mark.long
def test_the_gate_refuses_and_registers_nothing(registry, client, frame):
    noise = frame.assign(late=np.random.default_rng(1).random(len(frame)) < 0.3)
    with pytest.raises(QualityError, match="the logistic regression was not registered: its AUC on 3000 unseen rows"):
        train(registry=registry, frame=noise, candidates=[logistic_regression()])
    assert client.search_registered_models() == []
    assert client.get_experiment_by_name("penstock") is None


@pytest.mark.long
def test_one_that_fails_the_gate_holds_the_other_back(registry, client, frame):
    weak = of_two_columns("coin", ("temp", "humid"))
    with pytest.raises(QualityError, match="the coin was not registered"):
        train(registry=registry, frame=frame, candidates=[of_two_columns(), weak])
    assert client.search_registered_models() == []


ANSWERS = np.array([0, 0, 1, 1])
PROBABILITIES = np.array([0.1, 0.6, 0.4, 0.8], np.float32)


def test_scores_by_hand():
    scores = score(ANSWERS, PROBABILITIES)
    assert scores.auc == 0.75  # three of the four pairs are in order
    assert scores.accuracy == 0.5
    assert scores.log_loss == pytest.approx(-sum(map(math.log, (0.9, 0.4, 0.4, 0.8))) / 4, rel=1e-6)
    assert scores.rows == 4


def test_metrics_carry_every_score():
    assert Scores(0.7, 0.6, 0.5, 9).as_metrics() == {"auc": 0.7, "accuracy": 0.6, "log_loss": 0.5, "rows": 9.0}


@pytest.mark.parametrize("auc", [0.65, 0.66, 1.0])
def test_the_gate_lets_good_ones_through(auc):
    check_quality("model", Scores(auc, 0.8, 0.4, 100), 0.65)


@pytest.mark.parametrize("auc", [0.649, 0.5, math.nan])
def test_the_gate_refuses_the_others(auc):
    with pytest.raises(
        QualityError, match=r"the model was not registered: its AUC on 100 unseen rows is .*, expected at least 0\.650"
    ):
        check_quality("model", Scores(auc, 0.8, 0.4, 100), 0.65)


def test_the_plot_shows_the_curve_and_every_month(tmp_path):
    figure = plot("model", ANSWERS, PROBABILITIES, {4: 0.7, 5: 0.8})
    left, right = figure.axes
    assert left.lines[0].get_xdata()[[0, -1]].tolist() == [0, 1]
    assert [bar.get_height() for bar in right.patches] == [0.7, 0.8]
    figure.savefig(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000
