"""A server whose rule calls for retraining once, by a command, over a restart; and what it shows of that."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from penstock_client import Client
from penstock_server.control.port import reserve
from tests.integration.conftest import Server, Starter, _put_version, _until

pytestmark = pytest.mark.slow

SETTINGS = """
[retraining]
look_s = 0.1

[retraining.actions.train]
kind = "command"
command = ["{python}", "-c", '''
import os
with open("{file}", "a") as file:
    print(os.environ["PENSTOCK_EVENT"], file=file)
''']

[retraining.rules.rows]
models = ["flag"]
rows = 3
action = "train"
"""


def call_of(server: Server) -> dict[str, object]:
    """The call that the server shows, once it is done."""

    def found() -> list[dict[str, object]]:
        models = json.loads(server.get("/v1/retraining"))["models"]
        return [call for one in models for call in one["calls"] if call["ended_s"] is not None]

    (call,) = _until(found, "the rule called")
    return dict(call)


def test_a_command_is_run_once_when_a_rule_calls(start: Starter, flag_model: bytes, tmp_path: Path) -> None:
    _put_version(tmp_path / "models", "flag", "1", flag_model)
    events, settings = tmp_path / "events", tmp_path / "penstock.toml"
    settings.write_text(SETTINGS.format(python=sys.executable, file=events))
    with reserve("127.0.0.1", 0) as free:
        port = str(free.getsockname()[1])
    arguments = ("--config", str(settings), "--model-repository", str(tmp_path / "models"), "--port", port)
    server = start(*arguments)
    server.wait_ready()
    with Client(server.grpc) as client:
        client.predict("flag", np.ones((4, 2), np.float32))
    call = call_of(server)
    assert (call["rule"], call["outcome"], call["reason"]) == ("rows", "done", "4 rows were answered")
    (line,) = events.read_text().splitlines()
    assert json.loads(line)["data"]["id"] == call["id"]
    assert 'penstock_retraining_triggers_total{model_name="flag",outcome="done",rule="rows"} 1.0' in server.get(
        "/metrics"
    )
    server.stop()
    again = start(*arguments)
    again.wait_ready()
    assert call_of(again)["id"] == call["id"]
    assert len(events.read_text().splitlines()) == 1


LABELS = """
[labels]
enabled = true
folder = "{folder}"
maturity_s = 0.5

[retraining]
look_s = 0.1

[retraining.actions.train]
kind = "command"
command = ["true"]

[retraining.rules.worse]
accuracy_below = 0.9
labels = 100
combine = "all"
action = "train"
"""


def test_labels_that_say_that_answers_were_wrong_call_for_retraining(
    start: Starter, flag_model: bytes, tmp_path: Path
) -> None:
    _put_version(tmp_path / "models", "flag", "1", flag_model)
    settings = tmp_path / "penstock.toml"
    settings.write_text(LABELS.format(folder=tmp_path / "labels"))
    server = start("--config", str(settings), "--model-repository", str(tmp_path / "models")).wait_ready()
    with Client(server.grpc) as client:
        for at in range(100):
            client.predict("flag", np.ones((1, 2), np.float32), request_id=f"r{at}")
        # All are called 1; a third was 0.
        client.feedback("flag", {f"r{at}": int(at % 3 > 0) for at in range(100)})
    call = call_of(server)
    assert (call["rule"], call["outcome"]) == ("worse", "done")
    assert "accuracy by labels is 0.66 (95 %:" in str(call["reason"])
    assert "100 labels came" in str(call["reason"])
