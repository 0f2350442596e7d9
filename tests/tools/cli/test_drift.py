import json

import pytest
from typer.testing import CliRunner

from penstock_server.drift.answer import DriftReport
from penstock_server.errors import InvalidInputError, NotFoundError, UnavailableError
from penstock_tools.cli.app import app
from penstock_tools.client_commands.connection import Encryption
from penstock_tools.drift import command, fetch
from tests.tools.drift.drift_records import CANARY, CHAMPION


@pytest.fixture
def asked(monkeypatch):
    """What the command asks for; the server has both versions."""
    calls = []

    def answer(server, model, encryption):
        calls.append((server, model))
        assert encryption == Encryption()
        return DriftReport((CANARY, CHAMPION))

    monkeypatch.setattr(fetch, "fetch", answer)
    monkeypatch.setenv("COLUMNS", "110")
    return calls


def run(*arguments):
    return CliRunner().invoke(app, ["drift", "flights", *arguments])


def test_the_champion_is_shown(asked):
    result = run()
    assert (result.exit_code, asked) == (0, [("127.0.0.1:8001", "flights")])
    assert "flights version 1 (champion)" in result.output
    assert "1 of 2 features drifted" in result.output


def test_another_version_of_another_server(asked):
    result = run("--version", "@canary", "--server", "http://models:8002")
    assert asked == [("http://models:8002", "flights")]
    assert "flights version 2 (canary, shadow)" in result.output


def test_one_feature(asked):
    assert "delay, a number: drifted" in run("--feature", "delay").output
    assert isinstance(run("--feature", "nothing").exception, NotFoundError)


def test_json_is_the_record(asked):
    found = json.loads(run("--json").output)
    assert (found["version"], found["drifted"], found["columns"][2]["name"]) == ("1", 1, "delay")
    assert found["columns"][0]["p_value"] is None
    assert json.loads(run("--json", "--feature", "carrier").output)["unseen_ratio"] == 0.003


@pytest.mark.parametrize(("version", "code"), [("1", command.DRIFTED), ("2", 0)])
def test_scripts_can_fail_on_drift(asked, version, code):
    assert run("--version", version).exit_code == 0
    assert run("--version", version, "--fail-on-drift").exit_code == code
    assert run("--version", version, "--fail-on-drift", "--json").exit_code == code


def test_a_page_is_written(asked, tmp_path):
    file = tmp_path / "drift.html"
    result = run("--html", str(file), "--fail-on-drift")
    assert (result.exit_code, result.output) == (command.DRIFTED, f"the page is in {file}\n")
    assert file.read_text(encoding="utf-8").startswith("<!doctype html>")
    refused = run("--html", str(tmp_path / "no" / "such.html"))
    assert isinstance(refused.exception, UnavailableError)
    assert "such.html cannot be written: No such file or directory" in str(refused.exception)


@pytest.mark.parametrize("options", [["--watch", "--json"], ["--json", "--html", "x.html"]])
def test_options_that_exclude_each_other(asked, options):
    error = run(*options).exception
    assert isinstance(error, InvalidInputError)
    assert "exclude each other; choose one" in str(error)
