"""A client of several real servers: one is stopped and started again under load, and no call fails."""

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from penstock_client import Balancing, Client, PenstockClientError
from penstock_conformance.contract import MODELS, SUM, graph
from tests.integration.conftest import Server, _until

pytestmark = pytest.mark.slow

ROWS = {"A": np.ones((1, 4), np.float32), "B": np.full((1, 4), 2, np.float32)}
OFTEN = Balancing(check_every_s=0.2)
WAIT_S = 30.0


class Started:
    """Servers of one model on ports that they keep."""

    def __init__(self, environment: dict[str, str], folder: Path) -> None:
        self._environment, self._folder = environment, folder
        file = folder / "models" / SUM / "1" / "model.onnx"
        file.parent.mkdir(parents=True)
        file.write_bytes(graph(MODELS[SUM], "1"))
        self.servers: list[Server] = []

    def start(self, port: str = "0") -> Server:
        arguments = [
            "--registry",
            "",
            "--model-repository",
            str(self._folder / "models"),
            "--port",
            port,
            "--http-port",
            "0",
        ]
        log = self._folder / f"server-{len(self.servers)}.log"
        self.servers.append(Server(arguments, self._environment, log).wait_ready())
        return self.servers[-1]


@pytest.fixture
def started(environment: dict[str, str], tmp_path: Path) -> Iterator[Started]:
    found = Started(environment, tmp_path)
    yield found
    for server in found.servers:
        server.kill()


@pytest.mark.long  # it sends load to three servers
def test_a_restart_under_load_costs_no_call(started: Started) -> None:
    first, second = started.start(), started.start()
    ends: Counter[str] = Counter()
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.is_set():
            try:
                answer = client.predict(SUM, ROWS)
                ends["right" if answer["SUM"].tolist() == [[3.0] * 4] else "wrong"] += 1
            except PenstockClientError as error:
                ends[repr(error)] += 1

    with Client([first.grpc, second.grpc], balancing=OFTEN, timeout_s=WAIT_S) as client:
        client.wait_ready(SUM)
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        _until(lambda: ends["right"] > 200, "both servers answer")
        place = client._calls._places.all[0]  # type: ignore[attr-defined]
        assert first.stop() == 0
        _until(lambda: place.failures > 0, "the client leaves the server out")
        answered = ends["right"]
        _until(lambda: ends["right"] > answered + 200, "the other server answers")
        started.start(first.grpc.rpartition(":")[2])
        _until(lambda: place.failures == 0, "the client has found the server again")
        answered = ends["right"]
        _until(lambda: ends["right"] > answered + 200, "both servers answer again")
        is_over.set()
        for thread in threads:
            thread.join(WAIT_S)
    assert set(ends) == {"right"}, ends


def test_a_stream_is_answered_by_a_real_server(started: Started) -> None:
    server = started.start()
    rows = [{name: values * at for name, values in ROWS.items()} for at in range(20)]
    with Client(server.grpc) as client:
        ids = [str(at) for at in range(20)]
        answers = {each.request_id: each for each in client.predict_stream(SUM, rows, request_ids=ids)}
    assert {at: answer["SUM"][0, 0].item() for at, answer in answers.items()} == {str(at): 3.0 * at for at in range(20)}
