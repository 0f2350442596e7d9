import json

import pytest
from typer.testing import CliRunner

from penstock_server.errors import InvalidInputError, NotFoundError, UnavailableError
from penstock_server.retraining.requests import signature
from penstock_server.retraining.retrainer import ModelStatus, RetrainingStatus
from penstock_server.retraining.rules import RuleDecision
from penstock_server.retraining.state import ModelState, RetrainingCall
from penstock_tools.cli.app import app
from penstock_tools.client_commands import http
from tests.server.retraining.conftest import receiver

__all__ = ["receiver"]

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
CALL = RetrainingCall(
    "a", "drift", "train", "3", "abc", ("3",), "since", 1_800_000_000.0, "failed", "it answers 401", ended_s=1.0
)
STATUS = RetrainingStatus(
    {
        "fraud": ModelStatus(
            (RuleDecision("drift", "fraud", True, "'age' has drifted for 2.0 h", "it failed 1.0 min ago"),),
            ModelState("3", "abc", calls=(CALL,)),
        )
    },
    {},
)


def run(*arguments):
    return CliRunner().invoke(app, ["retraining", *map(str, arguments)], env={"COLUMNS": "160"})


@pytest.fixture
def served(monkeypatch):
    asked = []

    def get(url, encryption):
        asked.append(url)
        return STATUS.to_json()

    monkeypatch.setattr(http, "get", get)
    return asked


def test_rules_and_calls_are_shown(served):
    result = run("--http", "http://models:8002/")
    assert result.exit_code == 0, result.output
    assert served == ["http://models:8002/v1/retraining"]
    for words in (
        "fraud 3",
        "held",
        "'age' has drifted for 2.0 h; it failed",
        "2027-01-15 08:00:00Z",
        "it answers 401",
    ):
        assert words in result.output
    assert json.loads(run("--json").output)["models"][0]["calls"][0]["outcome"] == "failed"


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (RetrainingStatus({}, {}), "no rule of [retraining] is about a model"),
        (RetrainingStatus(STATUS.models, {}, enabled=False), "enabled is false"),
    ],
)
def test_what_is_off_is_told(monkeypatch, status, words):
    monkeypatch.setattr(http, "get", lambda *_: status.to_json())
    assert words in run().output


def test_another_service_is_told(monkeypatch):
    monkeypatch.setattr(http, "get", lambda *_: b"[]")
    assert isinstance(run().exception, InvalidInputError)


@pytest.fixture
def config(tmp_path, receiver, monkeypatch):
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    monkeypatch.setenv("HOOK_TOKEN", "t0ken")
    file = tmp_path / "penstock.toml"
    file.write_text(
        f"""
        [retraining.actions.hook]
        kind = "webhook"
        url = "{receiver.url}/hook"
        secret_env = "HOOK_SECRET"
        token_env = "HOOK_TOKEN"
        [retraining.actions.train]
        kind = "command"
        command = ["sh", "-c", "cat; exit $CODE"]
        """
    )
    return file


def test_an_action_is_tried_with_an_example(config, receiver):
    result = run("--config", config, "--test", "hook", "--model", "fraud")
    assert result.output == "it answers 204\n"
    ((_, headers, body),) = receiver.got
    assert headers["webhook-signature"] == signature(SECRET, headers["webhook-id"], headers["webhook-timestamp"], body)
    data = json.loads(body)["data"]
    assert (data["model"], data["rule"]) == ("fraud", "test")


def test_a_dry_run_sends_nothing_and_shows_no_secret(config, receiver, monkeypatch):
    monkeypatch.delenv("HOOK_SECRET")
    result = run("--config", config, "--test", "hook", "--dry-run")
    assert f"POST {receiver.url}/hook" in result.output
    assert "Authorization: Bearer ***" in result.output
    assert "webhook-signature: v1,***" in result.output
    assert receiver.got == []
    assert "standard input: {" in run("--config", config, "--test", "train", "--dry-run").output


def test_a_command_is_tried_too(config, monkeypatch):
    monkeypatch.setenv("CODE", "0")
    assert "it ended with 0: {" in run("--config", config, "--test", "train").output
    monkeypatch.setenv("CODE", "3")
    result = run("--config", config, "--test", "train")
    assert isinstance(result.exception, InvalidInputError)
    assert "it ended with 3" in str(result.exception)


def test_what_cannot_be_tried_is_told(config, receiver):
    assert isinstance(run("--config", config, "--test", "other").exception, NotFoundError)
    assert run("--test", "hook").exit_code == 2
    assert run("--dry-run").exit_code == 2
    receiver.answers = [(503, b"later", {})]
    assert isinstance(run("--config", config, "--test", "hook").exception, UnavailableError)
