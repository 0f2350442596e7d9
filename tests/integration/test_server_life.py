"""A server's life: workers that die, ports in use, files that are damaged, signals."""

import os
import signal
import socket
import threading
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from penstock_client import Client

ROWS = np.array([[1.0, 2.0], [-1.0, -3.0]], np.float32)


@pytest.fixture(scope="module")
def two_workers(start_shared: Any, plain_repository: Path) -> Any:
    return start_shared("--model-repository", str(plain_repository), "--workers", "2").wait_ready()


def test_a_killed_worker_is_replaced_and_totals_never_go_back(two_workers: Any, until: Any) -> None:
    server = two_workers
    with Client(server.grpc, timeout_s=60) as client:
        client.predict("flag", ROWS)
        before = server.total("model_predictions_total", model_name="flag")
        restarts = server.total("penstock_worker_restarts_total")
        for _ in range(20):
            client.predict("flag", ROWS)
        # A batch is counted right after it is answered.
        until(lambda: server.total("model_predictions_total", model_name="flag") == before + 40, "every row is counted")
        victim, other = server.workers()
        os.kill(victim["pid"], signal.SIGKILL)
        for _ in range(50):
            client.predict("flag", ROWS)  # retried where the connection broke
        replaced = until(
            lambda: [row for row in server.workers() if row["restarts"] > victim["restarts"] and row["listening"]],
            "the worker is replaced",
        )
    assert replaced[0]["slot"] == victim["slot"]
    assert other["pid"] in [row["pid"] for row in server.workers()]
    assert server.total("model_predictions_total", model_name="flag") >= before + 140
    assert server.total("penstock_worker_restarts_total") == restarts + 1


def test_two_workers_share_the_port(two_workers: Any, until: Any) -> None:
    server = two_workers
    before = server.total("model_predictions_total", model_name="flag")
    threads = [threading.Thread(target=_call_once, args=(server.grpc,)) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: server.total("model_predictions_total", model_name="flag") == before + 64, "every row is counted")
    assert len(server.samples("penstock_worker_resident_bytes")) == 2


def _call_once(address: str) -> None:
    with Client(address) as client:
        client.predict("flag", ROWS)


def test_stopping_lets_calls_finish_and_exits_with_zero(start: Any, plain_repository: Path) -> None:
    server = start("--model-repository", str(plain_repository)).wait_ready()
    assert "ready" in server.get("/readyz")
    assert "ok" in server.get("/healthz")
    assert server.stop() == 0


def test_the_supervisor_s_end_ends_its_workers(start: Any, plain_repository: Path, until: Any) -> None:
    server = start("--model-repository", str(plain_repository)).wait_ready()
    (worker,) = server.workers()
    with grpc.insecure_channel(server.grpc) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
        next(watch)
        os.kill(server.pid, signal.SIGKILL)
        until(lambda: not Path(f"/proc/{worker['pid']}").exists(), "the worker ends with a client connected")


@pytest.mark.parametrize("option", ["--port", "--http-port"])
def test_a_port_in_use_is_one_sentence(start: Any, plain_repository: Path, option: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = start("--model-repository", str(plain_repository), option, str(taken.getsockname()[1]))
        error = server.error()
    assert server.returncode == 1
    assert f"choose another with {option}" in error
    assert "Traceback" not in error


def test_a_second_server_cannot_share_the_port_by_mistake(start: Any, two_workers: Any, plain_repository: Path) -> None:
    second = start("--model-repository", str(plain_repository), "--port", two_workers.grpc.split(":")[1])
    assert "for gRPC" in second.error()
    assert second.returncode == 1


def test_a_damaged_model_is_reported_and_others_serve(
    start: Any, tmp_path: Path, put_version: Any, flag_model: bytes, until: Any
) -> None:
    repository = tmp_path / "repository"
    put_version(repository, "flag", "1", flag_model)
    put_version(repository, "broken", "1", b"this is no ONNX")
    server = start("--model-repository", str(repository)).wait_ready()
    with Client(server.grpc) as client:
        assert client.predict("flag", ROWS)["label"].tolist() == [1, 0]
        states = {state.name: state for state in client.index()}
    assert states["broken"].state == "UNAVAILABLE"
    assert "model.onnx is not an ONNX model" in states["broken"].reason
    put_version(repository, "broken", "2", flag_model)
    until(
        lambda: [row for row in server.models() if row["name"] == "broken" and row["state"] == "READY"],
        "a sound version",
    )


def test_a_missing_repository_is_one_sentence(start: Any, tmp_path: Path) -> None:
    error = start("--model-repository", str(tmp_path / "nothing")).error()
    assert error.startswith(f"penstock: the model repository {tmp_path}/nothing cannot be read")
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("workers = 0\n", "workers is 0, expected 1 to 256"),
        ("wrokers = 2\n", "unknown settings wrokers"),
        ("workers = [\n", "is not TOML"),
        ("[batching]\nmax_rows = 0\n", "max_rows is 0, expected at least 1"),
    ],
)
def test_wrong_settings_are_one_sentence(penstock: Any, tmp_path: Path, text: str, sentence: str) -> None:
    config = tmp_path / "penstock.toml"
    config.write_text(text)
    code, output, error = penstock("serve", "--config", config, "--model-repository", tmp_path)
    assert sentence in error
    assert (code, output, error.count("\n")) == (1, "", 1)


def test_the_portable_transport_serves_too(start: Any, plain_repository: Path) -> None:
    server = start("--model-repository", str(plain_repository), "--transport", "aio").wait_ready()
    with Client(server.grpc) as client:
        assert client.predict("flag", ROWS)["label"].tolist() == [1, 0]
    assert server.stop() == 0
