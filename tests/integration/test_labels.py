"""Labels of a real server: by every road, joined, counted, and none lost when processes are killed."""

import json
import os
import signal
import threading
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton

from penstock import penstock_pb2
from penstock_client import Client, InvalidRequestError, ModelNotFoundError, PenstockClientError
from penstock_server.control.port import reserve
from penstock_server.labels.report import Report, ReportReader
from tests.integration.conftest import WAIT_S, Server, Starter, _put_version, _until

pytestmark = pytest.mark.slow

SETTINGS = """
[labels]
enabled = true
folder = "{folder}"
maturity_s = 1.0
wait_s = 5.0
keep_bytes = 33554432
[labels.models.silent]
enabled = false
"""
ROWS = np.array([[1.0, 1.0], [-1.0, -1.0]], np.float32)


class World:
    """A folder of labels and the servers that follow each other in it."""

    def __init__(self, folder: Path, start: Starter, onnx: bytes, settings: str = SETTINGS, rest_port: int = 0) -> None:
        self.folder = folder / "labels"
        self.repository = folder / "models"
        self.repository.mkdir()
        for model in ("flag", "silent"):
            _put_version(self.repository, model, "1", onnx)
        self.settings = folder / "penstock.toml"
        self.settings.write_text(settings.format(folder=self.folder))
        self._start = start
        self._rest_port = str(rest_port)
        self.server = self.start()
        self._reader = ReportReader(self.folder)

    def start(self) -> Server:
        self.server = self._start(
            "--model-repository",
            str(self.repository),
            "--config",
            str(self.settings),
            "--rest-port",
            self._rest_port,
            "--workers",
            "2",
        ).wait_ready()
        return self.server

    @property
    def report(self) -> Report:
        report = self._reader.report()
        assert report is not None
        return report

    def states(self) -> dict[str, int]:
        found = self.report.models.get("flag")
        return {} if found is None else found.states

    def until_joined(self, count: int) -> dict[str, int]:
        _until(lambda: sum(self.states().values()) >= count, f"{count} labels are joined, {self.states()} are")
        return self.states()


@pytest.fixture
def world(tmp_path: Path, start: Starter, flag_model: bytes) -> World:
    return World(tmp_path, start, flag_model)


def rest(server: Server, path: str, body: Any) -> Any:
    request = urllib.request.Request(f"http://{server.rest}{path}", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=WAIT_S) as reply:
        return json.loads(reply.read())


def test_labels_come_by_every_road_and_are_seen(world: World) -> None:
    server = world.server
    with (
        Client(server.grpc) as client,
        Client(f"http://{server.rest}") as by_rest,
        grpc.insecure_channel(server.grpc) as channel,
    ):
        answers = client.predict("flag", ROWS, request_id="a")
        assert answers["label"].tolist() == [1, 0]
        for identifier in "bcdef":
            client.predict("flag", ROWS[:1], request_id=identifier)
        assert client.feedback("flag", {"a": [1, 1]}, values={"a": 2.5}) == 2
        assert by_rest.feedback("flag", {"b": 1}) == 1
        assert rest(server, "/v1/feedback", {"model": "flag", "id": "c", "label": 0}) == {"taken": 1}
        body = penstock_pb2.FeedbackRequest(model="flag", ids=["d"], numbers=[1.0]).SerializeToString()
        assert channel.unary_unary("/penstock.v1.Penstock/Feedback")(body, timeout=WAIT_S) == b"\x08\x01"
        stream = channel.stream_stream("/penstock.v1.Penstock/FeedbackStream")
        bodies = [penstock_pb2.FeedbackRequest(model="flag", ids=[each], numbers=[7.0]) for each in "ef"]
        assert list(stream(iter([each.SerializeToString() for each in bodies]), timeout=WAIT_S)) == [b"\x08\x01"] * 2
        assert client.metadata("penstock.feedback").inputs[0].name == "ids"
        assert client.is_ready("penstock.feedback")
        with pytest.raises(ModelNotFoundError, match="labels of model 'silent' are not taken here"):
            client.feedback("silent", {"a": 1})
        with pytest.raises(InvalidRequestError, match="id 0 takes 1025 bytes"):
            client.feedback("flag", {"x" * 1025: 1})
    assert world.until_joined(7) == {"matched": 7}
    _until(lambda: world.report.totals.of("flag", "1").labelled == 7, "labels count")
    totals = world.report.totals.of("flag", "1")
    assert (totals.rows, totals.wrong, totals.value_sum) == (7, 4, 2.5)
    shown = json.loads(server.get("/v1/labels/flag"))
    assert shown["models"][0]["versions"][0]["quality"]["rows"] == totals.labelled
    assert server.total("model_accuracy_rolling", model_name="flag") == pytest.approx(
        1 - totals.wrong / totals.labelled
    )
    assert server.total("penstock_labels_total", model_name="flag") == 7


def test_triton_s_client_gives_labels_as_it_asks_for_predictions(world: World) -> None:
    with Client(world.server.grpc) as client:
        client.predict("flag", ROWS, request_id="a")
    ids = triton.InferInput("ids", [2], "BYTES")
    ids.set_data_from_numpy(np.array(["a", "a"], object))
    labels = triton.InferInput("labels", [2], "INT64")
    labels.set_data_from_numpy(np.array([1, 0]))
    rows = triton.InferInput("rows", [2], "INT64")
    rows.set_data_from_numpy(np.array([0, 1]))
    with triton.InferenceServerClient(world.server.grpc) as client:
        assert client.is_model_ready("penstock.feedback")
        assert client.get_model_metadata("penstock.feedback").platform == "penstock_feedback"
        answer = client.infer("penstock.feedback", [ids, labels, rows], parameters={"model": "flag"})
        assert answer.as_numpy("taken").tolist() == [2]
    assert world.until_joined(2) == {"matched": 2}


class Traffic:
    """Sends requests and their labels until it is told to stop; knows what was answered and what was taken."""

    def __init__(self, address: Callable[[], str]) -> None:
        self.answered: set[str] = set()
        self.taken: set[str] = set()
        self._address = address
        self._is_stopped = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(at,), daemon=True) for at in range(2)]
        for thread in self._threads:
            thread.start()

    def _run(self, at: int) -> None:
        turn = 0
        while not self._is_stopped.is_set():
            try:
                with Client(self._address(), timeout_s=2.0, retries=0) as client:
                    while not self._is_stopped.is_set():
                        turn += 1
                        identifier = f"{at}-{turn}"
                        client.predict("flag", ROWS[:1], request_id=identifier)
                        self.answered.add(identifier)
                        client.feedback("flag", {identifier: 1})
                        self.taken.add(identifier)
            except PenstockClientError:  # of a server that was killed; the next one is asked
                continue

    def stop(self) -> None:
        self._is_stopped.set()
        for thread in self._threads:
            thread.join(WAIT_S)


def joiner_of(server: Server) -> int | None:
    """The process that joins labels; None while it is started."""
    for task in Path(f"/proc/{server.pid}/task").iterdir():
        for child in (task / "children").read_text().split():
            if b"penstock_server.labels.process" in Path(f"/proc/{child}/cmdline").read_bytes():
                return int(child)
    return None


@pytest.mark.long  # five servers under load; tests/server/labels/test_joiner.py kills a joiner at each of its steps
@pytest.mark.parametrize("victim", ["worker", "joiner", "supervisor"])
def test_no_label_that_was_taken_is_lost_to_a_kill(world: World, victim: str) -> None:
    traffic = Traffic(lambda: world.server.grpc)
    _until(lambda: len(traffic.taken) > 200, "labels are taken")
    for _ in range(2):
        if victim == "worker":
            killed = world.server.workers()[0]["pid"]
            os.kill(killed, signal.SIGKILL)
            _until(
                lambda killed=killed: killed not in [each["pid"] for each in world.server.workers()], "a worker follows"
            )
        elif victim == "joiner":
            killed = _until(lambda: joiner_of(world.server), "the joiner runs")
            os.kill(killed, signal.SIGKILL)
            _until(lambda killed=killed: not Path(f"/proc/{killed}").exists(), "the joiner is gone")
        else:
            os.kill(world.server.pid, signal.SIGKILL)
            world.start()
        before = len(traffic.taken)
        _until(lambda before=before: len(traffic.taken) > before + 200, "labels are taken again")
    traffic.stop()
    taken = len(traffic.taken)
    states = world.until_joined(taken)
    # Each label that was taken has found its answer, once; one that had to wait for the next worker may have come too late to
    # count. Of one whose acknowledgement was lost, or whose answer was, the traffic does not know; there are as many as calls
    # that a kill ended.
    assert sum(states.values()) - taken <= 8
    assert states["matched"] + states.get("late", 0) >= taken, states
    _until(lambda: world.report.totals.of("flag", "1").labelled >= states["matched"], "all labels count")


def test_a_label_reaches_the_replica_that_has_the_answer(tmp_path: Path, start: Starter, flag_model: bytes) -> None:
    worlds = []
    reserved = [reserve("127.0.0.1", 0) for _ in "ab"]  # kept, so that nobody else gets them meanwhile
    ports = [each.getsockname()[1] for each in reserved]
    for at, name in enumerate("ab"):
        folder = tmp_path / name
        folder.mkdir()
        peers = f'peers = ["http://127.0.0.1:{ports[1 - at]}"]\n'
        settings = SETTINGS.replace("wait_s = 5.0\n", "wait_s = 5.0\n" + peers)
        worlds.append(World(folder, start, flag_model, settings, ports[at]))
    first, second = worlds
    with Client(first.server.grpc) as client:
        client.predict("flag", ROWS[:1], request_id="a")
    with Client(second.server.grpc) as client:
        client.predict("flag", ROWS[:1], request_id="b")
        assert client.feedback("flag", {"a": 1, "b": 1}) == 2
    _until(lambda: second.states().get("passed_on") == 1, "the label is passed on")
    assert second.states() == {"matched": 1, "passed_on": 1}
    assert first.report.models["flag"].from_peers == {"matched": 1}
    assert second.report.peers[f"http://127.0.0.1:{ports[0]}"].sent == 1
    for each in reserved:
        each.close()
