"""What the page on retraining says of settings, events and signatures holds."""

import json
import re
from pathlib import Path
from typing import get_args

import msgspec
import pytest

from penstock_server.retraining.event import TYPE, Event
from penstock_server.retraining.requests import Secrets, request_of
from penstock_server.retraining.settings import ActionSettings, Kind
from penstock_server.settings import read_settings

TEXT = (Path(__file__).parents[3] / "tools" / "docs" / "retraining.md").read_text()
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
NOW = 1_800_000_000.0


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(scope="module")
def actions(tmp_path_factory):
    path = tmp_path_factory.mktemp("settings") / "penstock.toml"
    path.write_text("\n".join(blocks("toml")))
    return read_settings(path).retraining.actions


@pytest.fixture(scope="module")
def event():
    (text,) = blocks("json")
    told = json.loads(text)
    assert told.keys() == {"type", "timestamp", "data"}
    assert (told["type"], told["timestamp"]) == (TYPE, told["data"]["time"])
    made = msgspec.convert(told["data"], Event)
    assert made.to_builtins() == told["data"]
    return made


def test_every_kind_has_its_settings(actions):
    assert {action.kind for action in actions.values()} == set(get_args(Kind))


def test_the_webhook_is_verified_as_the_page_says(actions, event, monkeypatch):
    (code,) = blocks("python")
    names: dict = {}
    exec(code, names)
    call = request_of(actions["webhook"], event, Secrets("", SECRET), NOW)
    monkeypatch.setattr("time.time", lambda: NOW + 60)
    assert names["verified"](SECRET, call.headers, call.body)
    assert not names["verified"](SECRET, call.headers, call.body + b" ")
    monkeypatch.setattr("time.time", lambda: NOW + 600)
    assert not names["verified"](SECRET, call.headers, call.body)


def test_parameters_are_those_that_the_page_names(actions, event):
    argo = json.loads(request_of(actions["argo"], event, Secrets(), NOW).body)
    kubeflow = json.loads(request_of(actions["kubeflow"], event, Secrets(), NOW).body)
    names = [one.partition("=")[0] for one in argo["submitOptions"]["parameters"]]
    assert names == re.findall(r"\{name: (\w+)\}", TEXT) == list(kubeflow["runtime_config"]["parameters"])
    github = json.loads(request_of(actions["github"], event, Secrets(), NOW).body)
    assert (github["event_type"], github["client_payload"]["model"]) == ("retrain", "fraud")
    assert github["client_payload"]["event"]["id"] == event.id


def test_the_command_is_one_that_there_is(actions):
    action: ActionSettings = actions["command"]
    assert action.command[:3] == ("penstock", "demo", "retrain")
