import json
import textwrap
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from penstock_client import ModelState
from penstock_server.errors import InvalidInputError
from penstock_tools import output
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


def row(version, role, wanted, state="READY", **more):
    return {"name": "fraud", "version": version, "role": role, "wanted": wanted, "state": state, "reason": "", **more}


def test_the_table_shows_what_is_wanted_beside_what_is_served(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    why = "the answers to its golden requests are not those of the publisher: row 3 gives 0.71, expected 0.25"
    served = [
        row("3", "champion", [], weight=None),
        row("4", "", ["champion"], "UNAVAILABLE", weight=None, reason=why),
        row("5", "canary", ["canary", "shadow"], weight=12.5),
        row("5", "shadow", ["canary", "shadow"], weight=None),
        {"name": "churn", "version": "", "role": "", "weight": None, "state": "UNAVAILABLE", "reason": "no [champion]"},
    ]
    models.show({"models": served, "sources": STATUS["sources"]})
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split() for line in lines if line.strip() and "─" not in line] == [
        ["model", "version", "wanted", "as", "serves", "as", "traffic", "state"],
        ["fraud", "3", "champion", "READY"],
        ["fraud", "4", "champion", "UNAVAILABLE"],
        ["fraud", "5", "canary,", "shadow", "canary,", "shadow", "12.5%", "READY"],
        ["churn", "UNAVAILABLE"],
        *[line.split() for line in textwrap.wrap(f"fraud 4: {why}", 80)],
        ["churn:", "no", "[champion]"],
        ["mlflow", "http://m", "is", "AWAY:", "it", "does", "not", "answer"],
    ]


ENGINES = {
    "1": "kernels: 4.1 / 5.0 / 8.9 / 9.9 times as fast as onnxruntime for 1 / 8 / 64 / 1,024 rows; 100 trees",
    "2": "kernels up to 16 rows: onnxruntime serves the others; kernels are 4.1 / 2.0 / 0.9 / 0.9 times as fast",
    "3": "onnxruntime: it has text: that is left to it",
    "4": "python: its whole pipeline, in a process of its own",
    "5": "",
}


@pytest.mark.parametrize("columns", [40, 82, 83, 200])
def test_what_runs_each_version_is_shown_in_short_where_there_is_room(capsys, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    served = [row(version, "champion", ["champion"], engine=engine) for version, engine in ENGINES.items()]
    models.show({"models": served, "sources": []})
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert max(map(len, lines)) <= columns
    if columns < 83:
        assert not any("engine" in line or "kernels" in line for line in lines)
        return
    assert [line.split("READY")[-1].strip() for line in lines if "READY" in line] == [
        "kernels",
        "kernels up to 16 rows",
        "onnxruntime",
        "python",
        "",
    ]
    assert next(line for line in lines if line).endswith("  engine")


def test_a_server_without_wanted_roles_is_shown_too(capsys):
    models.show(STATUS)
    assert [line.split() for line in capsys.readouterr().out.splitlines() if "fraud" in line] == [
        ["fraud", "3", "champion", "READY"],
        ["fraud", "4", "canary", "12.5%", "READY"],
    ]


def test_the_index_over_grpc_has_no_roles(capsys, monkeypatch):
    @contextmanager
    def answering(server, encryption):
        yield SimpleNamespace(index=lambda: (ModelState("fraud", "3", "LOADING", "fetching"),))

    monkeypatch.setattr(models, "connected", answering)
    status = models.fetch_over_grpc("models:8001")
    models.show(status)
    shown = [line.split() for line in capsys.readouterr().out.splitlines() if line.strip(" ─")]
    assert shown == [["model", "version", "state"], ["fraud", "3", "LOADING"], ["fraud", "3:", "fetching"]]


def test_no_models(capsys):
    models.show({"models": [], "sources": []})
    assert "no models are loaded" in capsys.readouterr().out


def test_json_is_the_answer():
    assert json.loads(output.as_json(STATUS)) == STATUS
