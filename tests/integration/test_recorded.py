"""Answers to requests with ids are written down for labels, whichever road they take; and they stay when a worker is killed."""

import json
import os
import signal
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import numpy as np
import pytest

from penstock import inference_pb2 as pb
from penstock_client import Client
from penstock_server.labels.keys import key_of
from penstock_server.labels.prediction_file import KIND, PREDICTION, ROLES, ROW, SCORE, WEIGHT, read_table
from penstock_server.labels.ring import Ring, rings_in
from tests.integration.conftest import Server, starting
from tests.integration.test_ensembles import TENSORS

pytestmark = pytest.mark.slow

INFER = "/inference.GRPCInferenceService/ModelInfer"
STREAM = "/inference.GRPCInferenceService/ModelStreamInfer"
TIMEOUT_S = 20.0
CHAIN = (
    TENSORS.replace("2]", "1]")
    + """
    [[steps]]
    model = "twice"
    inputs = { X = "x" }
    outputs = { Y = "y" }
    """
)


class Found(NamedTuple):
    """A record."""

    version: str
    role: str
    row: int
    prediction: float
    score: float
    weight: float


def twice() -> bytes:
    """`Y = X * 2` of rows of one number."""
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node("Mul", ["X", "c"], ["Y"])],
        "graph",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["N", 1])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["N", 1])],
        [numpy_helper.from_array(np.array([2.0], np.float32), "c")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("labels")


@pytest.fixture(scope="module")
def server(
    environment: dict[str, str],
    logs: Path,
    folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
    shared_registry: Any,
    flag_model: bytes,
    opposite_model: bytes,
    put_version: Callable[..., Path],
    until: Callable[..., Any],
) -> Iterator[Server]:
    """Model `flag` with a canary and a shadow; `twice`, an ensemble `chain` of it, and `silent`, which is not recorded."""
    shared_registry.publish("flag", flag_model, "champion")
    shared_registry.publish("flag", opposite_model, "canary", 25)
    shared_registry.publish("flag", flag_model, "shadow")
    shared_registry.publish("silent", flag_model, "champion")
    settings = tmp_path_factory.mktemp("settings")
    put_version(settings / "models", "twice", "1", twice())
    (settings / "models" / "chain" / "1").mkdir(parents=True)
    (settings / "models" / "chain" / "1" / "pipeline.toml").write_text(CHAIN)
    file = settings / "penstock.toml"
    file.write_text(
        f"[labels]\nenabled = true\nfolder = {str(folder)!r}\n[labels.models.silent]\nenabled = false\n"
        "[batching]\nmax_rows = 64\n"
    )
    with starting(environment, logs) as start:
        started = start(
            *("--registry", shared_registry.uri, "--model-repository", str(settings / "models")),
            *("--rest-port", "0", "--config", str(file)),
        ).wait_ready()
        until(lambda: sum(each["state"] == "READY" for each in started.models()) == 6, "every version is served")
        yield started


def request(request_id: str, rows: Sequence[Sequence[float]], model: str = "flag", version: str = "") -> bytes:
    made = pb.ModelInferRequest(model_name=model, model_version=version, id=request_id)
    name = "x" if model == "chain" else "X"
    made.inputs.add(name=name, datatype="FP32", shape=np.shape(rows))
    made.raw_input_contents.append(np.array(rows, "<f4").tobytes())
    return bytes(made.SerializeToString())


@pytest.fixture
def call(server: Server) -> Iterator[Callable[[bytes], pb.ModelInferResponse]]:
    with grpc.insecure_channel(server.grpc) as channel:
        method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(INFER)
        yield lambda message: pb.ModelInferResponse.FromString(method(message, timeout=TIMEOUT_S))


@pytest.fixture
def recorded(folder: Path, until: Callable[..., Any]) -> Callable[..., list[Found]]:
    """So many records of a request, awaited: they are written right after the answer has left."""

    def find(request_id: str, count: int, model: str = "flag") -> list[Found]:
        key = key_of(model, request_id.encode())

        def found() -> list[Found]:
            return [each for path in rings_in(folder, KIND) for each in _records(path, key)]

        until(lambda: len(found()) >= count, f"{count} records of {request_id}")
        made = found()
        assert len(made) == count
        return made

    return find


def _records(path: Path, key: int) -> Iterator[Found]:
    ring, table = Ring(path), read_table(path)
    words = ring.read(max(0, ring.written - len(ring.records)), len(ring.records))
    for record in words[words[:, 0].view(np.uint64) == key]:
        subject, numbers = int(record[2]), record.view(np.float64)
        version = table[subject & (1 << 32) - 1].version
        yield Found(version, ROLES[subject >> 32], int(record[ROW]), *map(float, numbers[[PREDICTION, SCORE, WEIGHT]]))


def by_role(found: Sequence[Found], *, of_shadow: bool = False) -> list[Found]:
    return [each for each in found if (each.role == "shadow") == of_shadow]


def test_unary_calls_are_recorded_with_what_was_answered(
    call: Callable[[bytes], pb.ModelInferResponse], recorded: Callable[..., list[Found]]
) -> None:
    rows = [[1.0, 2.0], [-1.0, -3.0]]
    roles = set()
    for at in range(40):  # the first takes the general path, the others kernels answer
        reply = call(request(f"unary-{at}", rows))
        is_canary = reply.model_version == "2"
        found = recorded(f"unary-{at}", 2 if is_canary else 4)  # what the champion answers the shadow gets too
        answers = by_role(found)
        assert {(each.version, each.role, each.weight) for each in answers} == {
            ("2", "canary", 0.25) if is_canary else ("1", "champion", 0.75)
        }
        roles.add(answers[0].role)
        labels = np.frombuffer(reply.raw_output_contents[0], np.int64).tolist()
        scores = np.frombuffer(reply.raw_output_contents[1], np.float32).reshape(2, 2)[:, 1].astype(float).tolist()
        assert [(each.row, each.prediction, each.score) for each in answers] == [
            (row, labels[row], scores[row]) for row in range(2)
        ]
        shadows = [each._replace(version="1", role="champion", weight=0.75) for each in by_role(found, of_shadow=True)]
        assert is_canary or shadows == answers
    assert roles == {"champion", "canary"}


def test_a_request_that_names_a_version_has_no_probability(
    call: Callable[[bytes], pb.ModelInferResponse], recorded: Callable[..., list[Found]]
) -> None:
    for at, version in enumerate(["2", "2", "@canary", "@canary"]):
        call(request(f"named-{at}", [[1.0, 2.0]], version=version))
        (found,) = recorded(f"named-{at}", 1)
        assert (found.version, found.role) == ("2", "named")
        assert np.isnan(found.weight)


def test_streamed_requests_are_recorded(server: Server, recorded: Callable[..., list[Found]]) -> None:
    messages = [request(f"streamed-{at}", [[1.0, 2.0]], version="2") for at in range(3)]
    with grpc.insecure_channel(server.grpc) as channel:
        stream: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(STREAM)
        replies = [*stream(iter(messages), timeout=TIMEOUT_S)]
    assert not any(pb.ModelStreamInferResponse.FromString(reply).error_message for reply in replies)
    assert [recorded(f"streamed-{at}", 1)[0].prediction for at in range(3)] == [0.0] * 3


def test_requests_over_http_are_recorded(server: Server, recorded: Callable[..., list[Found]]) -> None:
    for at in range(3):  # the first are Python's
        body = {
            "id": f"http-{at}",
            "inputs": [{"name": "X", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0 + at]}],
        }
        url = f"http://{server.rest}/v2/models/flag/versions/2/infer"
        with urllib.request.urlopen(url, json.dumps(body).encode(), timeout=TIMEOUT_S) as reply:
            assert json.load(reply)["model_version"] == "2"
        assert recorded(f"http-{at}", 1)[0].prediction == 0.0


@pytest.mark.parametrize("rows", [300, 20_000])
def test_of_a_large_request_the_first_rows_are_recorded(
    call: Callable[[bytes], pb.ModelInferResponse], recorded: Callable[..., list[Found]], rows: int
) -> None:
    """The larger is decoded and run apart."""
    call(request(f"large-{rows}", [[1.0, float(row)] for row in range(rows)], version="2"))
    assert [each.row for each in recorded(f"large-{rows}", 256)] == [*range(256)]


def test_an_ensemble_is_recorded_with_its_own_answer(
    call: Callable[[bytes], pb.ModelInferResponse], recorded: Callable[..., list[Found]]
) -> None:
    for at in range(2):
        call(request(f"chain-{at}", [[3.0], [4.0]], model="chain"))
        found = recorded(f"chain-{at}", 2, "chain")
        assert [(each.role, each.prediction, each.weight) for each in found] == [
            ("champion", float(2 * x), 1.0) for x in (3, 4)
        ]
        assert recorded(f"chain-{at}", 0, "twice") == []


def test_what_is_refused_or_not_to_be_recorded_is_not(
    call: Callable[[bytes], pb.ModelInferResponse], recorded: Callable[..., list[Found]]
) -> None:
    with pytest.raises(grpc.RpcError):
        call(request("refused", [[1.0, 2.0, 3.0]]))
    call(request("silent", [[1.0, 2.0]], model="silent"))
    call(request("", [[1.0, 2.0]]))
    call(request("last", [[1.0, 2.0]], version="2"))
    assert len(recorded("last", 1)) == 1
    assert recorded("refused", 0) == recorded("silent", 0, "silent") == recorded("", 0) == []


def test_the_next_worker_goes_on_in_the_same_file(
    server: Server,
    folder: Path,
    call: Callable[[bytes], pb.ModelInferResponse],
    recorded: Callable[..., list[Found]],
    until: Callable[..., Any],
) -> None:
    call(request("before", [[1.0, 2.0]], version="2"))
    before, files = recorded("before", 1), rings_in(folder, KIND)
    (victim,) = server.workers()
    os.kill(victim["pid"], signal.SIGKILL)
    until(
        lambda: [each for each in server.workers() if each["restarts"] > victim["restarts"] and each["listening"]],
        "the worker is replaced",
    )
    with Client(server.grpc, timeout_s=60) as client:
        client.predict("flag", np.array([[1.0, 2.0]], np.float32), request_id="after", version="2")
    assert [each[:-1] for each in recorded("after", 1)] == [each[:-1] for each in before]
    assert len(recorded("before", 1)) == 1
    assert rings_in(folder, KIND) == files
