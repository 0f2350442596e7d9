"""`penstock config`."""

import json
import tomllib
from pathlib import Path

import pytest


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "penstock.toml"
    (tmp_path / "models").mkdir()
    file.write_text(f'model_repository = "{tmp_path}/models"\nport = 0\nhttp_port = 0\n[drift]\nseries = 3\n')
    return file


def test_settings_are_checked(run, capsys, config: Path) -> None:
    assert run("config", "check", str(config)) == 0
    assert "a server can start" in capsys.readouterr().out
    config.write_text(config.read_text().replace("series", "seires"))
    assert run("config", "check", str(config)) == 1
    assert "did you mean drift.series?" in capsys.readouterr().err
    assert run("config", "check", str(config.with_name("nothing"))) == 1


def test_settings_are_shown(run, capsys, config: Path) -> None:
    assert run("config", "show", str(config), "--changed") == 0
    assert tomllib.loads(capsys.readouterr().out)["drift"] == {"series": 3}
    assert run("config", "show") == 0
    assert tomllib.loads(capsys.readouterr().out)["drift"]["series"] == 50
    assert run("config", "show", str(config), "--json") == 0
    assert json.loads(capsys.readouterr().out)["drift"]["series"] == 3
    assert run("config", "show", "--json", "--changed") == 1


def test_no_password_is_shown(run, capsys, config: Path) -> None:
    config.write_text('registry = "postgresql://penstock:geheim@db/mlflow"\n')
    assert run("config", "show", str(config)) == 0
    out = capsys.readouterr().out
    assert "geheim" not in out
    assert 'registry = "postgresql://db/mlflow"' in out


def test_the_schema_is_printed(run, capsys) -> None:
    assert run("config", "schema") == 0
    assert json.loads(capsys.readouterr().out)["properties"]["port"]["default"] == 8001
