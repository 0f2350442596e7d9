"""More models than fit: a real server loads them when they are asked for, and has others leave."""

import json
import threading
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.integration.conftest import Server, starting

pytestmark = pytest.mark.slow

MODELS = [f"large-{number}" for number in range(6)]
WIDTH = 2048
BUDGET_MIB = 220
SETTINGS = f"""
[residency]
memory_budget_mib = {BUDGET_MIB}
pinned = ["pin*"]
wait_s = 20
stay_s = 0.5
"""
ROWS = np.array([[1.0, 2.0], [-1.0, -3.0]], np.float32)


def large(factor: float) -> bytes:
    """`Y = factor X` of rows of two, by way of 16 MiB of weights."""
    from onnx import TensorProto, helper, numpy_helper

    first, last = np.zeros((2, WIDTH), np.float32), np.zeros((WIDTH, 2), np.float32)
    first[0, 0] = first[1, 1] = last[0, 0] = last[1, 1] = 1
    between = np.eye(WIDTH, dtype=np.float32) * np.float32(factor)
    weights = {"a": first, "b": between, "c": last}
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["X", "a"], ["A"]),
            helper.make_node("MatMul", ["A", "b"], ["B"]),
            helper.make_node("MatMul", ["B", "c"], ["Y"]),
        ],
        "graph",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(weight, name) for name, weight in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def server(
    environment: dict[str, str],
    logs: Path,
    tmp_path_factory: pytest.TempPathFactory,
    flag_model: bytes,
    put_version: Callable[..., Path],
    until: Callable[..., Any],
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("many")
    for number, name in enumerate(MODELS):
        put_version(folder, name, "1", large(number + 1))
    put_version(folder, "pinned", "1", flag_model)
    file = tmp_path_factory.mktemp("settings") / "penstock.toml"
    file.write_text(SETTINGS)
    with starting(environment, logs) as start:
        started = start("--model-repository", str(folder), "--config", str(file), "--rest-port", "0").wait_ready()
        until(lambda: all(one["state"] in {"READY", "STANDBY"} for one in started.models()), "all are proven")
        yield started


@pytest.fixture
def client(server: Server) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(server.grpc) as opened:
        yield opened


def asked(client: triton.InferenceServerClient, model: str) -> Any:
    made = triton.InferInput("X", list(ROWS.shape), "FP32")
    made.set_data_from_numpy(ROWS)
    return client.infer(model, [made]).as_numpy("Y")


def test_models_are_loaded_when_they_are_asked_for_and_leave_for_others(
    server: Server, client: triton.InferenceServerClient
) -> None:
    states = {one["name"]: one["state"] for one in server.models()}
    assert states == {**dict.fromkeys(MODELS, "STANDBY"), "pinned": "READY"}
    for _ in range(2):
        for number, name in enumerate(MODELS):
            for _ in range(3):  # the general path, then kernels
                np.testing.assert_allclose(asked(client, name), (number + 1) * ROWS)
    assert server.total("penstock_cold_starts_total", result="loaded") > len(MODELS)
    assert server.total("penstock_cold_starts_total", result="failed") == 0
    assert server.total("penstock_evictions_total") > len(MODELS) / 2
    assert server.total("penstock_cold_start_seconds_count") > len(MODELS)
    (resident,) = server.samples("penstock_worker_resident_bytes").values()
    (budget,) = server.samples("penstock_worker_budget_bytes").values()
    assert resident <= 1.05 * budget == 1.05 * BUDGET_MIB * 2**20
    assert {one["name"]: one["state"] for one in server.models()}["pinned"] == "READY"


def test_callers_of_a_model_that_is_not_in_memory_share_its_load(
    server: Server, client: triton.InferenceServerClient, until: Callable[..., Any]
) -> None:
    cold = until(
        lambda: next((one["name"] for one in server.models() if one["state"] == "STANDBY"), ""), "one is not in memory"
    )
    loads = server.total("penstock_loads_total", result="ok")
    answers: list[Any] = []
    threads = [threading.Thread(target=lambda: answers.append(asked(client, cold))) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 16
    assert server.total("penstock_loads_total", result="ok") == loads + 1


def test_a_model_that_is_not_in_memory_is_ready(
    server: Server, client: triton.InferenceServerClient, until: Callable[..., Any]
) -> None:
    cold = until(
        lambda: next((one["name"] for one in server.models() if one["state"] == "STANDBY"), ""), "one is not in memory"
    )
    index = {one.name: (one.state, one.reason) for one in client.get_model_repository_index().models}
    assert index[cold] == ("STANDBY", "not in memory; it is loaded when it is asked for")
    assert client.is_server_ready()
    assert client.is_model_ready(cold)
    with grpc.insecure_channel(server.grpc) as channel:
        status = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=cold), timeout=10)
    assert status.status == health_pb2.HealthCheckResponse.SERVING
    # None of that has loaded it; its metadata do, which nobody knows otherwise.
    assert {one["name"]: one["state"] for one in server.models()}[cold] == "STANDBY"
    assert [one.name for one in client.get_model_metadata(cold).inputs] == ["X"]


def test_requests_over_http_wait_too(server: Server, until: Callable[..., Any]) -> None:
    cold = until(
        lambda: next((one["name"] for one in server.models() if one["state"] == "STANDBY"), ""), "one is not in memory"
    )
    factor = MODELS.index(cold) + 1
    body = json.dumps({"instances": ROWS.tolist()}).encode()
    request = urllib.request.Request(f"http://{server.rest}/v1/models/{cold}:predict", body)
    with urllib.request.urlopen(request, timeout=30) as reply:
        assert json.load(reply)["predictions"] == (factor * ROWS).tolist()
