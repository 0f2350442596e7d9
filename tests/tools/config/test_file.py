"""Settings as TOML are read again as they were."""

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock_server.settings import ServerSettings, read_settings
from penstock_tools.config.file import as_mapping, as_toml

SETTINGS = """
registry = "http://mlflow:5000"
models = ["a", "b\\"c"]
model_repository = "/srv/mod els"
rest_port = 8003
[batching]
objective_ms = 20.0
[batching.models."a.b"]
max_rows = 7
batching = "request"
[execution.options.cuda]
gpu_mem_limit = 1024
[access.rules."every one"]
who = ["*"]
may = ["infer", "read"]
requests_per_s = 2.5
[access.issuers.corp]
issuer = "https://corp"
audience = "penstock"
jwks = "/etc/keys.json"
[retraining.actions.hook]
kind = "command"
command = ["run", "it \\\\ now"]
[retraining.rules.old]
action = "hook"
age_days = 30.0
"""


@pytest.mark.parametrize("only_changed", [True, False])
@pytest.mark.parametrize("text", ["", SETTINGS])
def test_what_is_shown_is_read_as_the_same_settings(text: str, only_changed: bool, tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text(text)
    settings = read_settings(file)
    file.write_text(as_toml(settings, only_changed=only_changed))
    assert read_settings(file) == settings


def test_what_is_changed_is_what_was_written(tmp_path: Path) -> None:
    file = tmp_path / "penstock.toml"
    file.write_text(SETTINGS)
    assert tomllib.loads(as_toml(read_settings(file), only_changed=True)) == tomllib.loads(SETTINGS)
    assert as_toml(ServerSettings(), only_changed=True) == ""


def test_all_settings_are_shown_with_what_they_mean() -> None:
    text = as_toml(ServerSettings())
    assert "# How old the rows in a window may be.\nwindow_hours = 168.0\n" in text
    assert "# objective_ms =  # number\n" in text  # it is not set
    assert "# [drift.models.NAME]\n" in text
    assert max(map(len, text.splitlines())) <= 120


@given(name=st.text(min_size=1), models=st.lists(st.text(max_size=5), max_size=3))
def test_any_name_is_written_so_that_it_is_read(
    name: str, models: list[str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("settings") / "penstock.toml"
    settings = read_settings(None, models=tuple(models), serving={"models": {name: {"threads": 2}}})
    file.write_text(as_toml(settings), encoding="utf-8")
    assert read_settings(file) == settings


def test_json_has_all_settings_too() -> None:
    found = as_mapping(ServerSettings(model_repository=Path("models")))
    assert found["model_repository"] == "models"
    assert found["drift"]["window_rows"] == 10_000
    assert found["batching"]["models"] == {}
