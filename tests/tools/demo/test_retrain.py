from contextlib import nullcontext
from math import nan

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from penstock_server.errors import InvalidInputError, NotFoundError
from penstock_server.models import artifact
from penstock_server.rollout.progress import SPEC_TAG
from penstock_server.rollout.spec import RolloutSpec, parse
from penstock_server.sources.mlflow_source import MlflowSource
from penstock_tools.cli.app import app
from penstock_tools.demo import flights, retrain
from penstock_tools.demo.retrain import QualityError
from penstock_tools.demo.train import Scores, train
from tests.tools.demo.conftest import made_up_flights
from tests.tools.demo.test_train import of_two_columns
from tests.tools.replay.conftest import logged

GOOD, BAD = of_two_columns("line"), of_two_columns("noise", ("temp", "humid"))


@pytest.fixture
def champion(registry, frame):
    """A champion that knows nothing of what makes flights late."""
    train(registry=registry, frame=frame, candidates=[BAD], min_auc=0.0)
    return registry


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The log of 3,000 flights in requests of two, and a file of what became of them; some have no label."""
    folder = tmp_path_factory.mktemp("served")
    frame = made_up_flights(3000)
    table = flights.table(frame)
    numbers = np.column_stack([table[name] for name in flights.NUMBERS])
    texts = [((name,), table[name]) for name in flights.STRINGS]
    blocks = [(flights.NUMBERS, numbers), *texts]
    logged(folder / "log", "flights", "1", blocks, {"label": np.zeros(3000, np.int64)})
    at = np.arange(3000)
    labels = pd.DataFrame({"id": [f"r{each // 2}" for each in at], "row": at % 2, "label": frame["late"].astype(int)})
    labels[100:].to_csv(folder / "labels.csv", index=False)
    return folder


def retrained(served, registry, **options):
    given = {"chosen": GOOD, "registry": registry, **options}
    return retrain.retrain(served / "log", served / "labels.csv", "flights", **given)


@pytest.mark.long
def test_what_is_better_than_the_champion_is_registered_with_its_rollout(champion, client, served, tmp_path):
    found = retrained(served, champion, declared={"steps": [50]}, reason="the summer")
    assert found.version == "2"
    assert found.scores.auc > 0.7 > found.champion.auc
    assert found.scores.rows == found.champion.rows == 725
    version = client.get_model_version("flights", "2")
    assert parse(version.tags[SPEC_TAG]).steps == (0.5,)
    assert client.get_registered_model("flights").aliases["champion"] == 1
    run = client.get_run(version.run_id).data
    assert (run.params["reason"], run.params["training_rows"]) == ("the summer", "2175")
    assert run.metrics["champion_auc"] == found.champion.auc
    files = artifact.read(MlflowSource(champion, cache_dir=tmp_path / "cache").fetch("flights", "2"))
    assert files.baseline.answers  # the hold-out, by which servers tell the accuracy that they expect


def test_a_wrong_declaration_is_told_before_anything_is_read(tmp_path):
    with pytest.raises(InvalidInputError, match="steps"):
        retrain.retrain(tmp_path / "nowhere", tmp_path / "labels.csv", "flights", declared={"steps": [500]})


@pytest.mark.long
def test_only_the_latest_rows_count(champion, served):
    assert retrained(served, champion, rows=2000).scores.rows == 500


@pytest.mark.long
def test_what_is_not_better_is_not_registered(champion, client, served):
    with pytest.raises(QualityError, match="noise was not registered: on 725 later flights its AUC is"):
        retrained(served, champion, chosen=BAD, min_gain=0.1)
    assert len(client.search_model_versions("name = 'flights'")) == 1


@pytest.mark.parametrize(
    ("auc", "log_loss", "is_better"),
    [(0.7, 0.4, True), (0.65, 0.5, True), (0.64, 0.4, False), (0.7, 0.51, False), (nan, 0.4, False), (0.7, nan, False)],
)
def test_better_is_larger_auc_and_no_larger_loss(auc, log_loss, is_better):
    champion = Scores(0.6, 0.5, 0.5, 10)
    with nullcontext() if is_better else pytest.raises(QualityError):
        retrain.check_better("line", Scores(auc, 0.5, log_loss, 10), champion, 0.05)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ("id,row,label\nr1,0,1\n", "1 rows of the log have a label, expected 2,000 or more"),
        ("id,row,label\nr1,0,2\n", "a label is 2, expected 1"),
    ],
)
def test_labels_that_teach_nothing_are_told(served, tmp_path, labels, words):
    path = tmp_path / "labels.csv"
    path.write_text(labels)
    with pytest.raises(InvalidInputError, match=words):
        retrain.retrain(served / "log", path, "flights", chosen=GOOD)


def test_a_log_of_another_model_is_told(tmp_path, served):
    logged(tmp_path / "log", "flights", "1", [(("age",), np.zeros(4))], {"label": np.zeros(4, np.int64)})
    with pytest.raises(InvalidInputError, match="the log lacks the columns carrier"):
        retrain.retrain(tmp_path / "log", served / "labels.csv", "flights")


def test_flights_that_are_all_on_time_teach_nothing(served, tmp_path):
    labels = pd.read_csv(served / "labels.csv").assign(label=0)
    labels.to_csv(tmp_path / "labels.csv", index=False)
    with pytest.raises(InvalidInputError, match="nothing to learn"):
        retrain.retrain(served / "log", tmp_path / "labels.csv", "flights")


def test_without_a_champion_there_is_nothing_to_beat(registry, served):
    with pytest.raises(NotFoundError):
        retrained(served, registry)


@pytest.mark.long
def test_the_command_takes_the_model_and_the_reason_of_an_action(champion, client, served, monkeypatch):
    monkeypatch.setattr(retrain, "boosted_trees", lambda: GOOD)
    arguments = [
        "demo",
        "retrain",
        "--log",
        str(served / "log"),
        "--labels",
        str(served / "labels.csv"),
        "--rollout",
        "{}",
    ]
    result = CliRunner().invoke(app, arguments, env={"PENSTOCK_MODEL": "flights", "PENSTOCK_REASON": "drift"})
    assert result.exit_code == 0, result.output
    assert "flights version 2 is registered: line, AUC 0." in result.output
    version = client.get_model_version("flights", "2")
    assert parse(version.tags[SPEC_TAG]) == RolloutSpec()
    assert client.get_run(version.run_id).data.params["reason"] == "drift"
