"""SIGTERM under load: each call that a server had a chance to see is answered, or ends UNAVAILABLE."""

import os
import signal
import threading
from collections import Counter
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import grpc
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from penstock import inference_pb2 as pb
from tests.server.control.test_preemption import metadata  # noqa: F401 - a fixture

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
IN_FLIGHT = 32
TIMEOUT_S = 30.0


def request() -> bytes:
    asked = pb.ModelInferRequest(model_name="flag")
    asked.inputs.add(name="X", datatype="FP32", shape=[1, 2])
    asked.raw_input_contents.append(np.zeros((1, 2), np.float32).tobytes())
    encoded: bytes = asked.SerializeToString()
    return encoded


class Load:
    """Calls that follow one another until one is refused, each on a thread of its own, and how they ended."""

    def __init__(self, address: str) -> None:
        self.ends: Counter[str] = Counter()
        self._running = threading.Semaphore(0)
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.enable_retries", 0)]
        self._channels = [grpc.insecure_channel(address, options=options) for _ in range(4)]
        self._message = request()
        kinds = (self._unary, self._unary, self._unary, self._stream)
        self._threads = [
            threading.Thread(target=kinds[number // 4 % 4], args=(self._channels[number % 4],))
            for number in range(IN_FLIGHT)
        ]
        for thread in self._threads:
            thread.start()

    def wait_running(self) -> None:
        for _ in range(200):
            assert self._running.acquire(timeout=TIMEOUT_S)

    def wait_ended(self) -> None:
        for thread in self._threads:
            thread.join(TIMEOUT_S)
            assert not thread.is_alive(), "a call has no end"
        for channel in self._channels:
            channel.close()

    def _unary(self, channel: grpc.Channel) -> None:
        method = channel.unary_unary(INFER)
        while True:
            try:
                method(self._message, timeout=TIMEOUT_S)
                self._ended("OK")
            except grpc.RpcError as error:
                self._ended(error.code().name)
                return

    def _stream(self, channel: grpc.Channel) -> None:
        asked: SimpleQueue[bytes | None] = SimpleQueue()
        replies = channel.stream_stream(STREAM)(iter(asked.get, None), timeout=TIMEOUT_S)
        asked.put(self._message)
        try:
            for reply in replies:
                assert not pb.ModelStreamInferResponse.FromString(reply).error_message
                self._ended("OK")
                asked.put(self._message)
        except grpc.RpcError as error:
            self._ended(error.code().name)
        finally:
            asked.put(None)

    def _ended(self, how: str) -> None:
        self.ends[how] += 1
        self._running.release()


@pytest.mark.long  # it sends load; a drain under load of each transport alone is in tests/server/transport/test_transports.py
@pytest.mark.parametrize("options", [("--workers", "1"), ("--workers", "2"), ("--transport", "aio")])
def test_no_call_is_lost_but_unavailable(start: Any, plain_repository: Path, options: tuple[str, str]) -> None:
    server = start("--model-repository", str(plain_repository), *options).wait_ready()
    load = Load(server.grpc)
    load.wait_running()
    os.kill(server.pid, signal.SIGTERM)
    load.wait_ended()
    assert set(load.ends) == {"OK", "UNAVAILABLE"}
    assert load.ends["UNAVAILABLE"] == IN_FLIGHT
    server.wait(TIMEOUT_S)
    assert server.returncode == 0


def test_watchers_of_the_health_hear_of_the_end_first(start: Any, plain_repository: Path) -> None:
    server = start("--model-repository", str(plain_repository)).wait_ready()
    with grpc.insecure_channel(server.grpc) as channel:
        watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        assert next(watch).status == health_pb2.HealthCheckResponse.SERVING
        os.kill(server.pid, signal.SIGTERM)
        assert [reply.status for reply in watch] == [health_pb2.HealthCheckResponse.NOT_SERVING]
    server.wait(TIMEOUT_S)
    assert server.returncode == 0


def test_a_socket_file_serves_and_is_gone_afterwards(start: Any, plain_repository: Path, tmp_path: Path) -> None:
    path = tmp_path / "p.sock"
    server = start("--model-repository", str(plain_repository), "--host", f"unix://{path}").wait_ready(protocol="http")
    with grpc.insecure_channel(f"unix:{path}") as channel:
        assert channel.unary_unary(INFER)(request(), timeout=TIMEOUT_S)
    assert server.stop() == 0
    assert not path.exists()


def test_a_server_drains_when_the_cloud_takes_its_machine_away(
    start: Any,
    plain_repository: Path,
    tmp_path: Path,
    metadata: Any,  # noqa: F811 - the fixture
) -> None:
    (tmp_path / "penstock.toml").write_text(
        f'[preemption]\ncloud = "aws"\naddress = "{metadata.address}"\nevery_s = 1\n'
    )
    server = start(
        "--model-repository", str(plain_repository), "--config", str(tmp_path / "penstock.toml")
    ).wait_ready()
    load = Load(server.grpc)
    load.wait_running()
    metadata.going = True
    load.wait_ended()
    assert set(load.ends) <= {"OK", "UNAVAILABLE"}
    assert server.wait(TIMEOUT_S) == 0
    assert "the cloud takes this machine away: draining" in server.logged()
