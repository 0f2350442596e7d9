from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from penstock_server.models import artifact
from penstock_server.sources.mlflow_source import MlflowSource
from penstock_tools.demo import flights
from penstock_tools.demo.candidates import boosted_trees, logistic_regression
from penstock_tools.demo.evaluate import QualityError
from penstock_tools.demo.train import LATER_MONTHS, TRAINING_MONTHS, fit_candidate, train


@pytest.fixture(scope="module")
def frame():
    """Six months of made-up flights that are late on windy evenings."""
    draw = np.random.default_rng(0)
    rows = 6000
    made = {name: draw.normal(50, 10, rows) for name in flights.NUMBERS}
    made["wind_gust"] = np.where(draw.random(rows) < 0.7, np.nan, draw.uniform(16, 60, rows))
    made["sched_dep_minute"] = draw.integers(300, 1440, rows).astype(float)
    made |= {name: draw.choice(["A", "B", "", "C"], rows) for name in flights.STRINGS}
    risk = 0.1 + 0.4 * (made["sched_dep_minute"] > 1000) + 0.4 * (np.nan_to_num(made["wind_gust"]) > 30)
    made["late"] = draw.random(rows) < risk
    made["month"] = np.arange(rows) % 6 + 1
    return pd.DataFrame(made)


@pytest.mark.parametrize("candidate", [logistic_regression(), boosted_trees()], ids=lambda each: each.title)
def test_a_candidate_learns_what_there_is_to_learn(frame, candidate):
    trained = fit_candidate(candidate, frame)
    assert trained.scores.auc > 0.75
    assert trained.scores.rows == frame["month"].isin(LATER_MONTHS).sum()
    assert trained.pipeline.columns == tuple(flights.COLUMNS)


def test_what_is_logged_is_what_was_done(frame):
    trained = fit_candidate(boosted_trees(), frame)
    record = trained.record
    assert record.title == "boosted trees"
    assert record.params["max_leaf_nodes"] == 15
    assert record.params["training_months"] == list(TRAINING_MONTHS)
    assert record.metrics["auc"] == trained.scores.auc
    assert record.metrics["onnx_difference"] < 1e-5
    assert {f"auc_month_{month}" for month in LATER_MONTHS} <= set(record.metrics)
    assert list(record.figures) == ["evaluation.png"]


def test_the_baseline_is_of_the_training_months(frame):
    trained = fit_candidate(logistic_regression(), frame)
    early = frame["month"].isin(TRAINING_MONTHS).sum()
    assert trained.baseline.reference.sum(axis=1).tolist() == [early] * len(flights.COLUMNS)


def test_two_versions_are_registered_and_the_first_is_champion(registry, client, frame, tmp_path):
    told = []
    registered = train(registry=registry, frame=frame, report=told.append)
    assert [each.version for each in registered] == ["1", "2"]
    assert client.get_registered_model("flights").aliases == {"champion": 1}
    assert told[-1] == "flights version 1 is now champion"
    source = MlflowSource(registry, cache_dir=tmp_path / "cache")
    for each in registered:
        found = artifact.read(source.fetch("flights", each.version))
        assert found.manifest.classes == (0, 1)
        assert found.golden.rows == 16
        assert found.baseline.spec_digest


def test_a_champion_that_is_there_stays(registry, client, frame):
    train(registry=registry, frame=frame, candidates=[boosted_trees()])
    train(registry=registry, frame=frame, candidates=[boosted_trees()])
    assert client.get_registered_model("flights").aliases == {"champion": 1}


def test_no_champion_on_demand(registry, client, frame):
    train(registry=registry, frame=frame, candidates=[boosted_trees()], with_champion=False)
    assert client.get_registered_model("flights").aliases == {}


def test_the_gate_refuses_and_registers_nothing(registry, client, frame):
    noise = frame.assign(late=np.random.default_rng(1).random(len(frame)) < 0.3)
    with pytest.raises(QualityError, match="the logistic regression was not registered: its AUC on 3000 rows"):
        train(registry=registry, frame=noise)
    assert client.search_registered_models() == []
    assert client.get_experiment_by_name("penstock") is None


def test_one_that_fails_the_gate_holds_the_other_back(registry, client, frame):
    weak = replace(logistic_regression(), recipes=logistic_regression().recipes[:4])
    with pytest.raises(QualityError):
        train(registry=registry, frame=frame, candidates=[boosted_trees(), weak])
    assert client.search_registered_models() == []


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_real_flights_pass_the_gate(registry):
    first, second = train(registry=registry)
    assert 0.65 < first.scores.auc < second.scores.auc < 0.8
