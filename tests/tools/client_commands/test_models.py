import json

import pytest

from penstock_server.errors import InvalidInputError
from penstock_tools.client_commands import models

STATUS = {
    "models": [
        {"name": "fraud", "version": "3", "role": "champion", "weight": None, "state": "READY", "reason": ""},
        {"name": "fraud", "version": "4", "role": "canary", "weight": 12.5, "state": "READY", "reason": ""},
        {"name": "churn", "version": "", "role": "", "weight": None, "state": "UNAVAILABLE", "reason": "no [champion]"},
    ],
    "sources": [
        {"name": "mlflow http://m", "state": "AWAY", "reason": "it does not answer"},
        {"name": "directory /d", "state": "READY", "reason": ""},
    ],
}


@pytest.mark.parametrize("slash", ["", "/"])
def test_fetch_asks_for_the_models(serving, slash):
    serving.body = json.dumps(STATUS).encode()
    assert models.fetch(serving.url + slash) == STATUS
    assert serving.asked == ["/v1/models"]


@pytest.mark.parametrize(
    "body",
    [b"", b"<html>", b"[]", b"{}", b'{"models": 3, "sources": []}', b'{"models": ["a"], "sources": []}', b"\xff"],
)
def test_another_service_is_recognised(serving, body):
    serving.body = body
    with pytest.raises(InvalidInputError, match="is not that of a Penstock server; is it the --http-port"):
        models.fetch(serving.url)


@pytest.mark.parametrize("url", ["127.0.0.1:8002", "file:///etc/passwd", ""])
def test_other_addresses_are_refused(url):
    with pytest.raises(InvalidInputError, match="expected an address such as"):
        models.fetch(url)


def test_the_table_shows_every_version_and_why(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    models.show(STATUS)
    text = capsys.readouterr().out
    rows = [line.strip("│┃ ").replace("│", " ").split() for line in text.splitlines() if "│" in line]
    assert rows == [
        ["fraud", "3", "champion", "READY"],
        ["fraud", "4", "canary", "12.5%", "READY"],
        ["churn", "UNAVAILABLE", "no", "[champion]"],
    ]
    assert text.rstrip().endswith("mlflow http://m is AWAY: it does not answer")


def test_no_models(capsys):
    models.show({"models": [], "sources": []})
    assert "no models are loaded" in capsys.readouterr().out


def test_json_is_the_answer():
    assert json.loads(models.as_json(STATUS)) == STATUS
