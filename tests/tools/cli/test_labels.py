import json

import msgspec
import pytest
from typer.testing import CliRunner

from penstock_server.errors import InvalidInputError, NotFoundError
from penstock_server.labels.answer import as_json
from penstock_server.labels.report import Report
from penstock_tools.cli.app import app
from penstock_tools.client_commands import http
from tests.server.labels.test_report import REPORT


def run(*arguments):
    return CliRunner().invoke(app, ["labels", *map(str, arguments)], env={"COLUMNS": "160"})


@pytest.fixture
def served(monkeypatch):
    asked = []

    def get(url, _encryption):
        asked.append(url)
        return as_json(REPORT, "", lambda: {("fraud", "1"): 0.88})

    monkeypatch.setattr(http, "get", get)
    return asked


def test_labels_and_versions_are_shown(served):
    result = run("fraud", "--http", "http://models:8002/")
    assert result.exit_code == 0, result.output
    assert served == ["http://models:8002/v1/labels/fraud"]
    for words in (
        "9 matched, 1 unknown, 2 matched of peers",
        "0.9 (0.8 to 0.95)",
        "0.880",
        "0.030",
        "1,000 answers are kept",
        "2 labels wait",
        "1 answers found no room, 4 were deleted before they counted",
    ):
        assert words in result.output
    assert json.loads(run("--json").output)["models"][0]["name"] == "fraud"


def test_without_labels_that_is_told(monkeypatch):
    monkeypatch.setattr(http, "get", lambda *_: as_json(Report(), "", dict))
    assert "no label of any model has come yet" in run().output


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (404, msgspec.json.encode({"error": "labels are not taken here"}), NotFoundError, "labels are not taken here"),
        (404, b"no such page", InvalidInputError, "it answers 404"),
        (403, b"", InvalidInputError, "it answers 403"),
    ],
)
def test_what_a_server_refuses_is_told(monkeypatch, status, body, kind, words):
    def get(*_):
        raise http.StatusError(f"it answers {status}", status, body)

    monkeypatch.setattr(http, "get", get)
    error = run("x").exception
    assert isinstance(error, kind)
    assert words in str(error)


def test_another_service_is_told(monkeypatch):
    monkeypatch.setattr(http, "get", lambda *_: b"[]")
    assert isinstance(run().exception, InvalidInputError)
