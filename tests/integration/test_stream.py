"""`penstock stream` as people run it, with a registry and a broker: versions change under it, and no message is lost."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest

from tests.tools.stream.broker import Broker, properties

pytestmark = pytest.mark.slow


class Stream:
    """The command, and what it shows."""

    def __init__(self, broker: Broker, registry: str, folder: Path, *arguments: str) -> None:
        self._log = folder / "stream.log"
        command = [sys.executable, "-m", "penstock_tools.cli.main", "--debug", "stream", "adder", "--keep", "id"]
        topics = ["--brokers", broker.address, "--in", "rows", "--out", "answers", "--dead-letters", "dead"]
        more = ["--registry", registry, "--http-port", "0", "--kafka-config", str(properties(folder)), *arguments]
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [*command, *topics, *more],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, "PENSTOCK_LOG_FORMAT": "json"},
            )
        line = self.process.stdout.readline()
        found = re.search(r"metrics (http://\S+)/metrics", line)
        assert found is not None, self._log.read_text()
        self.line, self.http = line, found[1]

    def ask(self, path: str) -> str:
        with urllib.request.urlopen(self.http + path, timeout=10) as reply:
            return reply.read().decode()

    def until_logged(self, *texts: str) -> None:
        deadline = time.monotonic() + 40
        while not all(text in self._log.read_text() for text in texts):
            assert time.monotonic() < deadline, self._log.read_text()
            time.sleep(0.05)

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(30)
        self.process.stdout.close()
        return code


def adder(times: float) -> bytes:
    """A graph that takes x, FP32 [rows], and gives so many times x."""
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "times"], ["y"])],
        "adder",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None])],
        [helper.make_tensor("times", TensorProto.FLOAT, [], [times])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.mark.timeout(180)
def test_follows_the_registry_and_answers_each_message_once(broker, registry, tmp_path):
    registry.publish("adder", adder(2), alias="champion")
    second = registry.publish("adder", adder(3))
    broker.make("rows", "answers", "dead")
    stream = Stream(broker, registry.uri, tmp_path)
    sent = 0

    def send(count):
        nonlocal sent
        values = [(f"key-{at}", json.dumps({"id": at, "x": at}).encode()) for at in range(sent, sent + count)]
        broker.send("rows", values)
        sent += count

    try:
        assert "streams adder version 1: rows -> answers" in stream.line
        send(500)
        broker.send("rows", [("bad", b'{"id": "bad"}')])
        assert len(broker.read("answers", 500)) == 500
        (dead,) = broker.read("dead", 1)
        assert b"missing required field `x`" in dict(dead.headers())["penstock.error"]
        # A canary gets the keys that a server's canary gets, and a shadow copies of what the champion answers.
        registry.promote("adder", second, alias="canary", weight=30)
        stream.until_logged('"canaries": {"2": 0.3}')
        send(500)
        broker.read("answers", 1000)
        registry.forget("adder", "canary")
        registry.promote("adder", second, alias="shadow")
        stream.until_logged('"shadows": {"2": 1.0}')
        send(500)
        broker.read("answers", 1500)
        metrics = stream.ask("/metrics")
        assert (
            'penstock_stream_messages_total{model_name="adder",model_version="1",outcome="unreadable"} 1.0' in metrics
        )
        # A new champion takes over between two batches, while messages come.
        registry.promote("adder", second)
        while 'champion": "2' not in (tmp_path / "stream.log").read_text():
            send(50)
        send(200)
        answers = [json.loads(message.value()) for message in broker.read("answers", sent)]
        assert stream.ask("/healthz") == stream.ask("/readyz") == "ok\n"
    finally:
        code = stream.end()
    assert code == 0
    assert sorted(each["id"] for each in answers) == list(range(sent))
    times = {"1": 2.0, "2": 3.0}
    assert all(each["y"] == times[each["model_version"]] * each["id"] for each in answers)
    assert sum(broker.positions("penstock-adder", "rows").values()) == sent + 1
    by = {each["id"]: each["model_version"] for each in answers}
    from penstock_server.rollout.plan import Arm, TrafficPlan

    plan = TrafficPlan("1", (Arm(second, 0.3),))
    assert [by[at] for at in range(500, 1000)] == [plan.choose("adder", f"key-{at}")[0] for at in range(500, 1000)]
    assert {by[at] for at in [*range(500), *range(1000, 1500)]} == {"1"}
    assert by[sent - 1] == second
    compared = re.findall(r"penstock_shadow_comparisons_total\{.*?\} (\S+)", metrics)
    assert np.sum([float(each) for each in compared]) > 0, metrics


def test_says_what_is_missing(broker, registry, penstock, tmp_path):
    registry.publish("adder", adder(2), alias="champion")
    topics = ["--brokers", broker.address, "--in", "absent", "--out", "answers"]
    code, _, errors = penstock("stream", "adder", *topics, "--registry", registry.uri, "--http-port", "0")
    assert (code, "there is no topic 'absent'" in errors) == (1, True)
    code, _, errors = penstock("stream", "adder", "--brokers", "b:1", "--in", "t", "--out", "t")
    assert (code, "expected three topics" in errors) == (1, True)
    code, _, errors = penstock("stream", "adder", "--brokers", "b:1", "--in", "t", "--out", "o", "--format", "avro")
    assert (code, "--schema or --schema-registry" in errors) == (1, True)


@pytest.fixture(scope="module")
def broker():
    with Broker() as started:
        yield started
