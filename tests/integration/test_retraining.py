"""A server whose rule calls for retraining once, by a command, over a restart; and what it shows of that."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from penstock_client import Client
from penstock_server.control.port import reserve
from tests.integration.conftest import Server, Starter, _until

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
    folder = tmp_path / "models" / "flag" / "1"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(flag_model)
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
