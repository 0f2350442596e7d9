"""Chains of models: as Triton describes them, and as a pipeline of Penstock's own, on a real server."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from tests.integration.conftest import Server, starting

pytestmark = pytest.mark.slow

Client = triton.InferenceServerClient
ROWS = np.array([[1.0, 2.0], [-1.0, -3.0], [4.0, 0.25]], np.float32)
TRITON = """
    name: "chain" platform: "ensemble" max_batch_size: 16
    input { name: "IN" data_type: TYPE_FP32 dims: 2 }
    output { name: "OUT" data_type: TYPE_FP32 dims: 2 }
    ensemble_scheduling { step [
      { model_name: "plus" model_version: -1 input_map { key: "X" value: "doubled" } output_map { key: "Y" value: "OUT" } },
      { model_name: "twice" model_version: -1 input_map { key: "X" value: "IN" } output_map { key: "Y" value: "doubled" } }
    ] }
    """
TENSORS = """
    [inputs.x]
    datatype = "FP32"
    shape = [-1, 2]
    [outputs.y]
    datatype = "FP32"
    shape = [-1, 2]
    """
BRANCHES = (
    TENSORS
    + """
    [outputs.kind]
    datatype = "INT64"
    shape = [-1]
    [[steps]]
    model = "kinds"
    inputs = { X = "x" }
    outputs = { label = "kind" }
    [[steps]]
    model = "twice"
    inputs = { X = "x" }
    outputs = { Y = "y" }
    when = { kind = 1 }
    [[steps]]
    model = "plus"
    inputs = { X = "x" }
    outputs = { Y = "y" }
    when = { kind = 0 }
    """
)
AVERAGE = (
    TENSORS
    + """
    [[steps]]
    model = "twice"
    inputs = { X = "x" }
    outputs = { Y = "a" }
    [[steps]]
    model = "plus"
    version = 1
    inputs = { X = "x" }
    outputs = { Y = "b" }
    [[steps]]
    mean = ["a", "b"]
    weights = [3, 1]
    output = "y"
    """
)
MISSING = TENSORS + '[[steps]]\nmodel = "later"\ninputs = { X = "x" }\noutputs = { Y = "y" }\n'
CIRCLE = (
    TENSORS
    + """
    [[steps]]
    model = "twice"
    inputs = { X = "b" }
    outputs = { Y = "a" }
    [[steps]]
    model = "plus"
    inputs = { X = "a" }
    outputs = { Y = "b" }
    [[steps]]
    mean = ["a", "x"]
    output = "y"
    """
)
UNFIT = TENSORS.replace("[-1, 2]", "[-1, 3]") + MISSING.removeprefix(TENSORS).replace("later", "twice")


def small(operator: str, constant: float) -> bytes:
    """`Y = X <operator> constant` of rows of two."""
    from onnx import TensorProto, helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node(operator, ["X", "c"], ["Y"])],
        "graph",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, ["N", 2])],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, ["N", 2])],
        [numpy_helper.from_array(np.array([constant], np.float32), "c")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, flag_model: bytes, put_version: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    put_version(folder, "twice", "1", small("Mul", 2))
    put_version(folder, "plus", "1", small("Add", 100))
    put_version(folder, "kinds", "1", flag_model)
    (folder / "chain" / "1").mkdir(parents=True)
    (folder / "chain" / "config.pbtxt").write_text(TRITON)
    pipelines = {"branches": BRANCHES, "average": AVERAGE, "missing": MISSING, "circle": CIRCLE, "unfit": UNFIT}
    for name, text in pipelines.items():
        (folder / name / "1").mkdir(parents=True)
        (folder / name / "1" / "pipeline.toml").write_text(text)
    return folder


@pytest.fixture(scope="module")
def server(
    environment: dict[str, str],
    logs: Path,
    repository: Path,
    until: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("settings")
    (folder / "penstock.toml").write_text(
        f"[request_log]\ndirectory = {str(folder / 'log')!r}\nsample_ratio = 1.0\nrotate_s = 0.2\n"
    )
    with starting(environment, logs) as start:
        options = ("--model-repository", str(repository), "--config", str(folder / "penstock.toml"))
        started = start(*options).wait_ready()
        until(lambda: sum(one["state"] == "READY" for one in started.models()) == 6, "every version is served")
        yield started


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.grpc) as opened:
        yield opened


def rows(name: str, array: np.ndarray[Any, Any] = ROWS) -> list[triton.InferInput]:
    made = triton.InferInput(name, list(array.shape), "FP32")
    made.set_data_from_numpy(array)
    return [made]


def test_a_chain_of_tritons(server: Server, client: Client, until: Callable[..., Any]) -> None:
    for _ in range(3):  # the general path, then kernels that gather and answer
        np.testing.assert_array_equal(client.infer("chain", rows("IN")).as_numpy("OUT"), ROWS * 2 + 100)
    found = client.get_model_config("chain").config
    assert (found.platform, found.backend, found.max_batch_size) == ("ensemble", "", 16)
    assert [step.model_name for step in found.ensemble_scheduling.step] == ["plus", "twice"]
    # Asked on the same connection, so of what was answered before all is counted after it.
    metadata = client.get_model_metadata("chain")
    assert (metadata.platform, list(metadata.inputs[0].shape)) == ("ensemble", [-1, 2])
    counted = {
        name: server.total("penstock_step_rows_total", model_name="chain", step=name) for name in ("plus", "twice")
    }
    assert counted == {"plus": 9, "twice": 9}
    assert server.total("penstock_requests_total", model_name="chain") == 3
    assert server.total("penstock_step_seconds_total", model_name="chain") > 0
    # The chain's requests are logged, and not as requests of its models.
    until(lambda: server.total("penstock_request_log_rows_total", model_name="chain") == 9, "the log is written")
    assert server.total("penstock_request_log_rows_total", model_name="twice") == 0


def test_branches_run_for_their_rows_alone(server: Server, client: Client, until: Callable[..., Any]) -> None:
    result = client.infer("branches", rows("x"))
    kind = result.as_numpy("kind")
    assert sorted(set(kind.tolist())) == [0, 1]
    np.testing.assert_array_equal(result.as_numpy("y"), np.where(kind[:, None] == 1, ROWS * 2, ROWS + 100))
    one_kind = ROWS[kind == 1]
    np.testing.assert_array_equal(client.infer("branches", rows("x", one_kind)).as_numpy("y"), one_kind * 2)
    assert client.is_server_live()  # all that was answered is counted
    for name, count in (("kinds", 3), ("twice", 1), ("plus", 1)):
        others = len(one_kind) if name != "plus" else 0
        of_first = 3 if name == "kinds" else int((kind == (1 if name == "twice" else 0)).sum())
        assert server.total("penstock_step_rows_total", model_name="branches", step=name) == of_first + others, count
    described = client.get_model_config("branches").config
    assert [step.model_name for step in described.ensemble_scheduling.step] == ["kinds", "twice", "plus"]


def test_answers_of_several_are_averaged(client: Client) -> None:
    found = client.infer("average", rows("x")).as_numpy("y")
    np.testing.assert_allclose(found, (3 * ROWS * 2 + ROWS + 100) / 4, rtol=1e-6)


def test_what_does_not_fit_is_said(server: Server, client: Client) -> None:
    reasons = {one.name: one.reason for one in client.get_model_repository_index().models if one.state != "READY"}
    assert set(reasons) == {"missing", "circle", "unfit"}
    assert reasons["missing"] == "the ensemble cannot answer: model 'later' is not there"
    assert "its steps wait for each other in a circle: 'twice', 'plus'" in reasons["circle"]
    assert (
        "step 'twice': tensor 'x' is FP32 of shape [-1, 3], input 'X' of model 'twice' is FP32 of shape [-1, 2]"
        in reasons["unfit"]
    )
    with pytest.raises(InferenceServerException, match="model 'later' is not there"):
        client.infer("missing", rows("x"))
    shown = {one["name"]: (one["state"], one["reason"]) for one in server.models()}
    assert shown["missing"] == ("UNAVAILABLE", reasons["missing"])


def test_it_heals_and_follows_its_models(
    server: Server, client: Client, repository: Path, put_version: Callable[..., Path], until: Callable[..., Any]
) -> None:
    put_version(repository, "later", "1", small("Add", 1))

    def answer(expected: np.ndarray[Any, Any]) -> bool:
        try:
            return bool(np.array_equal(client.infer("missing", rows("x")).as_numpy("y"), expected))
        except InferenceServerException:
            return False

    until(lambda: answer(ROWS + 1), "the model is there")
    assert {one["name"]: one["state"] for one in server.models()}["missing"] == "READY"
    put_version(repository, "later", "2", small("Add", 2))
    until(lambda: answer(ROWS + 2), "the new version answers in the chain too")
    shutil.rmtree(repository / "later")
    until(lambda: "is not there" in state(server, "missing")["reason"], "the loss is told")
    assert state(server, "missing")["state"] == "UNAVAILABLE"


def state(server: Server, name: str) -> dict[str, Any]:
    return next(one for one in server.models() if one["name"] == name)
