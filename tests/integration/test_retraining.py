"""Servers whose rule calls for retraining once, by a command, over restarts and among several; and what they show of that."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

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


SHARED = """
[retraining]
look_s = 0.2
lease_s = 2

[retraining.actions.train]
kind = "command"
command = ["{python}", "-c", '''
import os, time
with open("{file}", "a") as file:
    print(os.environ["PENSTOCK_EVENT_ID"], file=file)
while not os.path.exists("{go}"):
    time.sleep(0.02)
''']

[retraining.rules.rows]
rows = 3
action = "train"
"""


def test_of_two_servers_one_has_a_model_trained_and_the_other_knows_when_it_hangs(
    start: Starter, registry: Any, flag_model: bytes, tmp_path: Path
) -> None:
    registry.publish("m", flag_model, alias="champion")
    events, go, settings = tmp_path / "events", tmp_path / "go", tmp_path / "penstock.toml"
    settings.write_text(SHARED.format(python=sys.executable, file=events, go=go))
    arguments = ("--registry", registry.uri, "--config", str(settings), "--workers", "1")
    servers = [start(*arguments), start(*arguments)]
    for server in servers:
        server.wait_ready()
        with Client(server.grpc) as client:
            client.predict("m", np.ones((4, 2), np.float32))

    def calls(server: Server) -> list[tuple[str, str]]:
        models = json.loads(server.get("/v1/retraining"))["models"]
        return [(call["id"], call["outcome"]) for one in models for call in one["calls"]]

    called = _until(lambda: events.exists() and events.read_text().strip(), "one has begun")
    _until(lambda: all(calls(server) == [(called, "running")] for server in servers), "both know of it")
    started = 'outcome="running",rule="rows"} 1.0'
    (holder,) = [server for server in servers if started in server.get("/metrics")]
    (other,) = [server for server in servers if server is not holder]
    os.kill(holder.pid, signal.SIGSTOP)
    try:
        _until(lambda: calls(other) == [(called, "unknown")], "the other one takes over")
    finally:
        os.kill(holder.pid, signal.SIGCONT)
    go.touch()
    _until(lambda: all(calls(server) == [(called, "done")] for server in servers), "the first one tells how it ended")
    assert events.read_text().split() == [called]
