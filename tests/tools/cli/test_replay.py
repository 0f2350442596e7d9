import json

import pytest
from typer.testing import CliRunner

from penstock_tools.cli.app import app
from penstock_tools.publish import published
from tests.tools.replay.conftest import log, rows, versions

__all__ = ["log", "rows", "versions"]


def run(*arguments):
    return CliRunner().invoke(app, ["replay", *map(str, arguments)], env={"COLUMNS": "140"})


@pytest.mark.long
def test_a_replay_is_told_in_a_table(log, versions):
    result = run(log, versions["2"][0])
    assert result.exit_code == 0, result.output
    assert "200 rows compared" in result.output
    assert "leaves" in result.output


@pytest.mark.long
@pytest.mark.parametrize(("version", "most", "code"), [("1", "0", 0), ("2", "0.0001", 1), ("2", "1", 0), ("3", "1", 1)])
def test_the_exit_code_says_whether_too_many_disagree(log, versions, version, most, code):
    result = run(log, versions[version][0], "--max-disagreement", most, "--json")
    assert result.exit_code == code, result.output
    assert json.loads(result.output)["rows"] == 200


@pytest.mark.parametrize(
    ("arguments", "address"),
    [(["stay", "4"], "stay/4"), (["stay", "@canary"], "stay@canary"), (["stay"], "stay")],
)
def test_a_version_is_named_as_elsewhere(log, monkeypatch, arguments, address):
    def version(model, registry):
        raise ValueError(model, registry)

    monkeypatch.setattr(published, "version", version)
    result = run(log, *arguments, "--registry", "sqlite:///a.db")
    assert result.exception.args == (address, "sqlite:///a.db")


def test_a_folder_has_no_number(log, versions):
    result = run(log, versions["1"][0], "4")
    assert result.exit_code == 2
    assert "goes without a number" in result.output


@pytest.mark.parametrize(
    ("options", "count"),
    [
        (["--since", "2026-01-01T01:00"], 80),
        (["--until", "2026-01-01T02:00+01:00"], 120),
        (["--since", "2026-01-02"], 0),
    ],
)
def test_times_are_iso_8601(log, versions, options, count):
    result = run(log, versions["1"][0], *options, "--json")
    assert json.loads(result.output)["rows"] == count


def test_what_is_no_time_is_told(log, versions):
    result = run(log, versions["1"][0], "--since", "yesterday")
    assert result.exit_code == 2
    assert "no time of ISO 8601" in result.output
