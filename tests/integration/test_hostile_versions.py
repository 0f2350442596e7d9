"""Versions that eat memory, crash, loop or hang, and processes that are killed or stopped: nobody else notices."""

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penstock_client import Client
from penstock_server.lifeline import GRACE_S

ROWS = np.array([[1.0, 2.0], [-1.0, -3.0]], np.float32)
SETTINGS = """
poll_interval_s = 0.2
watchdog_s = 3.0
grace_s = 2.0
[airlock]
memory_mib = 1024
timeout_s = 6.0
"""


def looping(times: int | None) -> bytes:
    """A graph that loops so many times per run, or as often as its largest input says."""
    from onnx import TensorProto, helper, numpy_helper

    value = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["go_on"]), helper.make_node("Add", ["sum", "one"], ["next"])],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("sum", TensorProto.FLOAT, ["N", 2]),
        ],
        [value("go_on", TensorProto.BOOL, []), value("next", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(np.ones(1, np.float32), "one")],
    )
    nodes = [helper.make_node("Loop", ["times", "yes", "x"], ["y"], body=body)]
    constants = [numpy_helper.from_array(np.array(True), "yes")]
    if times is None:
        nodes[:0] = [
            helper.make_node("ReduceMax", ["x"], ["largest"], keepdims=0),
            helper.make_node("Cast", ["largest"], ["times"], to=TensorProto.INT64),
        ]
    else:
        constants.append(numpy_helper.from_array(np.array(times, np.int64), "times"))
    return graph_bytes(nodes, constants)


def hungry(gib: float) -> bytes:
    """A graph whose run fills so much memory."""
    from onnx import helper, numpy_helper

    nodes = [
        helper.make_node("ReduceMax", ["x"], ["one"], keepdims=0),
        helper.make_node("Expand", ["one", "shape"], ["large"]),
        helper.make_node("ReduceMax", ["large"], ["most"], keepdims=0),
        helper.make_node("Add", ["x", "most"], ["y"]),
    ]
    return graph_bytes(nodes, [numpy_helper.from_array(np.array([int(gib * 2**28)], np.int64), "shape")])


def graph_bytes(nodes: list[Any], constants: list[Any]) -> bytes:
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "graph", [value("x", TensorProto.FLOAT, ["N", 2])], [value("y", TensorProto.FLOAT, ["N", 2])], constants
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "penstock.toml"
    path.write_text(SETTINGS)
    return str(path)


@pytest.fixture
def repository(tmp_path: Path, flag_model: bytes, put_version: Any) -> Path:
    put_version(tmp_path / "repository", "flag", "1", flag_model)
    return tmp_path / "repository"


class Callers:
    """Callers of one model, some at a time, until they are told to stop.

    Attributes:
        answers: how many answers were right.
        failures: what the other calls ended with.
    """

    def __init__(self, address: str) -> None:
        self.answers = 0
        self.failures: list[str] = []
        self._address = address
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._call) for _ in range(3)]
        for thread in self._threads:
            thread.start()

    def _call(self) -> None:
        with Client(self._address, timeout_s=30) as client:
            while not self._stop.wait(0.005):
                try:
                    assert client.predict("flag", ROWS)["label"].tolist() == [1, 0]
                    self.answers += 1
                except Exception as error:  # noqa: BLE001 - each one fails the test
                    self.failures.append(repr(error))

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@contextmanager
def calling(server: Any) -> Iterator[Callers]:
    """None of the calls made meanwhile may fail."""
    callers = Callers(server.grpc)
    try:
        yield callers
    finally:
        callers.stop()
    assert callers.failures == []
    assert callers.answers > 50


def reason_of(server: Any, model: str, version: str) -> str:
    """Why a version is not served; "" while that is not known."""
    rows = [row for row in server.models() if (row["name"], row["version"]) == (model, version)]
    return next((str(row["reason"]) for row in rows if row["state"] == "UNAVAILABLE"), "")


def log_lines(server: Any, event: str) -> list[dict[str, Any]]:
    lines = [line for line in server._log.read_text().splitlines() if line.startswith("{")]
    return [found for found in map(json.loads, lines) if found["event"] == event]


@pytest.mark.long  # until its limit ends, a version that never ends computes
def test_candidates_that_eat_memory_crash_or_never_end_cost_nobody_anything(
    start: Any, repository: Path, config: str, put_version: Any, until: Callable[..., Any]
) -> None:
    server = start("--model-repository", str(repository), "--config", config).wait_ready()
    (worker,) = server.workers()
    with calling(server):
        put_version(repository, "flag", "2", hungry(8))
        reason = until(lambda: reason_of(server, "flag", "2"), "the hungry version is told")
        assert reason.startswith("used more than 1,024 MiB while it was loaded and was stopped")
        put_version(repository, "flag", "3", looping(2**62))
        trial = until(
            lambda: [line for line in log_lines(server, "trying a version") if line["version"] == "3"], "a trial begins"
        )
        os.kill(trial[0]["pid"], signal.SIGSEGV)
        reason = until(lambda: reason_of(server, "flag", "3"), "the version that crashes is told")
        assert reason == "ended the process that tried it (signal 11, SIGSEGV)"
        put_version(repository, "flag", "4", looping(2**62))
        reason = until(lambda: reason_of(server, "flag", "4"), "the version that never ends is told", 60)
        assert reason.startswith("did not finish loading within 6 s")
    (same,) = server.workers()
    assert (same["pid"], same["restarts"]) == (worker["pid"], worker["restarts"])
    assert server.total("penstock_quarantined_versions") == 1
    assert "ready" in server.get("/readyz")


def test_what_passed_is_not_tried_again_after_a_restart(
    start: Any, repository: Path, config: str, until: Callable[..., Any]
) -> None:
    for restart in range(2):
        server = start("--model-repository", str(repository), "--config", config).wait_ready()
        until(server.models, "the models are known")
        assert len(log_lines(server, "trying a version")) == (0 if restart else 1)
        assert server.stop() == 0


@pytest.mark.long  # two workers compute until the watchdog ends them, under load
def test_a_model_that_hangs_workers_is_kept_out_and_others_answer(
    start: Any, repository: Path, config: str, put_version: Any, until: Callable[..., Any]
) -> None:
    put_version(repository, "evil", "1", looping(None))
    server = start("--model-repository", str(repository), "--config", config, "--workers", "2").wait_ready()
    with calling(server), Client(server.grpc, timeout_s=3) as client:
        for time_ in (1, 2):
            restarts = server.total("penstock_worker_restarts_total")
            with pytest.raises(Exception, match="evil"):
                client.predict("evil", np.full((1, 2), 1e15, np.float32))
            until(lambda: server.total("penstock_worker_restarts_total") > restarts, f"worker {time_} is killed")  # noqa: B023
            until(lambda: all(row["listening"] for row in server.workers()) and len(server.workers()) == 2, "a new one")
        reason = until(lambda: reason_of(server, "evil", "1"), "the version is kept out")
    assert "it ended a worker 2 times; the last time its run held up the whole worker for 3 s" in reason
    with Client(server.grpc) as client:
        assert client.predict("flag", ROWS)["label"].tolist() == [1, 0]


def test_a_stopped_worker_is_replaced_and_readiness_says_so(
    start: Any, repository: Path, config: str, until: Callable[..., Any]
) -> None:
    server = start("--model-repository", str(repository), "--config", config).wait_ready()
    (victim,) = server.workers()
    os.kill(victim["pid"], signal.SIGSTOP)
    until(lambda: not json.loads(server.get("/v1/models"))["ready"], "it is not ready")
    until(lambda: json.loads(server.get("/v1/models"))["ready"], "it is ready again", 60)
    (row,) = server.workers()
    assert row["pid"] != victim["pid"]
    assert reason_of(server, "flag", "1") == ""
    with Client(server.grpc) as client:
        assert client.predict("flag", ROWS)["label"].tolist() == [1, 0]


def hang_the_worker(server: Any) -> int:
    """Makes the only worker hang in a run; its process id."""
    (worker,) = server.workers()
    with Client(server.grpc, timeout_s=1) as client, pytest.raises(Exception, match="evil"):
        client.predict("evil", np.full((1, 2), 1e15, np.float32))
    return int(worker["pid"])


@pytest.mark.long  # a worker and a trial compute until they are ended
def test_a_server_ends_in_time_though_its_worker_and_a_trial_hang(
    start: Any, repository: Path, config: str, put_version: Any, until: Callable[..., Any]
) -> None:
    put_version(repository, "evil", "1", looping(None))
    server = start("--model-repository", str(repository), "--config", config).wait_ready()
    put_version(repository, "flag", "2", looping(2**62))
    (trial,) = until(
        lambda: [line for line in log_lines(server, "trying a version") if line["version"] == "2"], "a trial begins"
    )
    worker = hang_the_worker(server)
    started = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - started < 15
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in (worker, trial["pid"])), "its processes end")


def test_what_hangs_ends_with_a_supervisor_that_is_killed_and_the_next_one_sweeps(
    start: Any, repository: Path, config: str, put_version: Any, until: Callable[..., Any]
) -> None:
    put_version(repository, "evil", "1", looping(None))
    server = start("--model-repository", str(repository), "--config", config).wait_ready()
    worker = hang_the_worker(server)
    mapped = Path(f"/proc/{worker}/maps").read_text()
    (folder,) = {Path(line.split()[-1]).parent for line in mapped.splitlines() if "/penstock-counters-" in line}
    os.setpriority(os.PRIO_PGRP, server.pid, 19)  # it computes until it is ended, where others have no use for a core
    os.kill(server.pid, signal.SIGKILL)
    until(lambda: not Path(f"/proc/{worker}").exists(), "the worker that hangs ends", GRACE_S + 20)
    # Any server of this machine sweeps it at its start, this one at the latest.
    start("--model-repository", str(repository), "--config", config).wait_ready()
    assert not folder.exists()
