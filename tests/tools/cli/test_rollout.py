import json

import pytest
from typer.testing import CliRunner

from penstock_tools.cli.app import app
from penstock_tools.rollout import fetch
from tests.tools.rollout.served import BOTH


def run(*arguments):
    return CliRunner().invoke(app, ["rollout", "status", "fraud", *map(str, arguments)], env={"COLUMNS": "160"})


@pytest.fixture
def served(monkeypatch):
    asked = []

    def fetched(*what):
        asked.append(what[:2])
        return BOTH

    monkeypatch.setattr(fetch, "fetch", fetched)
    return asked


def test_a_server_is_asked_and_a_page_written(served, tmp_path):
    file = tmp_path / "fraud.html"
    result = run("--http", "http://models:8002", "--page", file)
    assert (result.exit_code, result.output) == (0, "")
    assert served == [("http://models:8002", "fraud")]
    assert "Version 4: running" in file.read_text(encoding="utf-8")
    assert "5 canary" in run("--http", "http://models:8002").output
    assert json.loads(run("--http", "http://models:8002", "--json").output)["experiment"]["champion"] == "3"


@pytest.mark.parametrize("arguments", [("--page", "x.html"), ("--http", "http://a", "--watch")])
def test_options_that_do_not_go_together_are_refused(served, arguments):
    assert run(*arguments).exit_code == 2
    assert served == []
