import pytest
from typer.testing import CliRunner

from penstock_server.errors import InvalidInputError
from penstock_tools.cli.app import app
from penstock_tools.demo import run as demo_run
from penstock_tools.demo import train as demo_train
from penstock_tools.demo.plan import DemoPlan
from penstock_tools.demo.train import Registered, Scores


@pytest.fixture
def plans(monkeypatch):
    """The plans that the demo was run with."""
    found = []
    monkeypatch.setattr(demo_run, "run", lambda plan: found.append(plan) or 3)
    return found


@pytest.fixture
def trainings(monkeypatch):
    """The arguments of each training."""
    found = []

    def train(name, *, report, **settings):
        found.append((name, settings))
        report("fitting")
        return Registered("7", "trees", Scores(0.7, 0.8, 0.5, 10)), Registered("8", "more trees", Scores(0.8, 0, 0, 1))

    monkeypatch.setattr(demo_train, "train", train)
    return found


def test_the_group_itself_runs_the_demo(plans, tmp_path):
    result = CliRunner().invoke(app, ["demo", "--keep", "--rows", "5000", "--folder", str(tmp_path)])
    assert result.exit_code == 3
    assert plans == [DemoPlan(rows=5000, keep=True, folder=tmp_path)]


def test_the_defaults_are_the_plans(plans):
    assert CliRunner().invoke(app, ["demo"]).exit_code == 3
    assert plans == [DemoPlan()]


def test_training_runs_no_demo(plans, trainings):
    result = CliRunner().invoke(app, ["demo", "train", "--name", "late", "--min-auc", "0.5", "--no-champion"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert trainings == [("late", {"registry": None, "min_auc": 0.5, "with_champion": False})]
    assert plans == []
    assert result.stdout.splitlines() == [
        "  fitting",
        "late version 7 is registered: trees, AUC 0.700",
        "late version 8 is registered: more trees, AUC 0.800",
        "next: penstock serve, then penstock promote late 8 --alias canary --weight 10",
    ]


def test_the_former_name_works_and_names_the_new_one(trainings):
    options = ["--name", "late", "--registry", "sqlite:///r.db"]
    former, now = (CliRunner().invoke(app, [*name, *options]) for name in (["train"], ["demo", "train"]))
    assert (former.exit_code, former.stdout) == (0, now.stdout)
    assert former.stderr.startswith("penstock train is now penstock demo train")
    assert (
        trainings[0] == trainings[1] == ("late", {"registry": "sqlite:///r.db", "min_auc": 0.65, "with_champion": True})
    )


@pytest.mark.parametrize(("option", "value"), [("--rows", "5"), ("--workers", "0"), ("--port", "70000")])
def test_an_option_out_of_range_is_named(plans, option, value):
    result = CliRunner().invoke(app, ["demo", option, value])
    assert isinstance(result.exception, InvalidInputError)
    assert str(result.exception).startswith(f"{option} is {value}; expected")
    assert plans == []
