"""A model repository as Triton's own examples have it, served as it stands and called by Triton's client."""

import json
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
FILES: dict[str, str] = {
    "simple": """
        # As docs/examples/model_repository/simple has it, for onnxruntime.
        name: "simple"
        platform: "onnxruntime_onnx"
        max_batch_size: 8
        input [
          { name: "INPUT0" data_type: TYPE_INT32 dims: [ 16 ] },
          { name: "INPUT1" data_type: TYPE_INT32 dims: [ 16 ] }
        ]
        output [
          { name: "OUTPUT0" data_type: TYPE_INT32 dims: [ 16 ] },
          { name: "OUTPUT1" data_type: TYPE_INT32 dims: [ 16 ] }
        ]
        model_warmup { name: "zeros" batch_size: 2 inputs {
          key: "INPUT0" value { data_type: TYPE_INT32 dims: [ 16 ] zero_data: true } } inputs {
          key: "INPUT1" value { data_type: TYPE_INT32 dims: [ 16 ] random_data: true } } }
        """,
    "densenet": """
        name: "densenet"
        backend: "onnxruntime"
        default_model_filename: "densenet.onnx"
        max_batch_size: 0
        input [ { name: "data_0" data_type: TYPE_FP32 format: FORMAT_NCHW dims: [ 3, 2, 2 ]
                  reshape { shape: [ 1, 3, 2, 2 ] } } ]
        output [ { name: "fc6_1" data_type: TYPE_FP32 dims: [ 3 ] reshape { shape: [ 1, 3, 1, 1 ] }
                   label_filename: "densenet_labels.txt" } ]
        instance_group [ { count: 2 kind: KIND_CPU } ]
        parameters { key: "intra_op_thread_count" value { string_value: "2" } }
        parameters { key: "execution_mode" value { string_value: "1" } }
        """,
    "queued": """
        name: "queued"
        backend: "onnxruntime"
        max_batch_size: 64
        version_policy { all { } }
        dynamic_batching {
          preferred_batch_size: [ 4, 16 ]
          max_queue_delay_microseconds: 300
          priority_levels: 3
          default_priority_level: 2
          default_queue_policy {
            timeout_action: REJECT default_timeout_microseconds: 5000000 allow_timeout_override: false max_queue_size: 77
          }
        }
        optimization { execution_accelerators { gpu_execution_accelerator { name: "tensorrt" } } }
        """,
    "sequenced": 'backend: "onnxruntime" max_batch_size: 4 sequence_batching { max_sequence_idle_microseconds: 1000 }',
    "elsewhere": 'name: "elsewhere" platform: "tensorrt_plan" max_batch_size: 4',
    "torn": 'name: "torn" max_batch_size: [',
    "mistaken": """
        backend: "onnxruntime" max_batch_size: 8
        input { name: "X" data_type: TYPE_FP64 dims: 2 } output { name: "label" data_type: TYPE_INT64 dims: 1 }
        """,
}


def simple_model() -> bytes:
    """The sum and the difference of two rows of 16 whole numbers."""
    from onnx import TensorProto

    names = ("INPUT0", "INPUT1", "OUTPUT0", "OUTPUT1")
    specs = [value(name, TensorProto.INT32, ["N", 16]) for name in names]
    return model([("Add", names[:2], names[2:3]), ("Sub", names[:2], names[3:])], specs[:2], specs[2:])


def densenet_model() -> bytes:
    """The sums of three colours, of an image alone in its batch."""
    from onnx import TensorProto

    return model(
        [("ReduceSum", ["data_0", "axes"], ["fc6_1"])],
        [value("data_0", TensorProto.FLOAT, [1, 3, 2, 2])],
        [value("fc6_1", TensorProto.FLOAT, [1, 3, 1, 1])],
        axes=np.array([2, 3]),
    )


def value(name: str, kind: int, shape: list[Any]) -> Any:
    from onnx import helper

    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes: Any, inputs: Any, outputs: Any, **constants: np.ndarray[Any, Any]) -> bytes:
    from onnx import helper, numpy_helper

    graph = helper.make_graph(
        [helper.make_node(kind, list(takes), list(gives)) for kind, takes, gives in nodes],
        "graph",
        inputs,
        outputs,
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(made.SerializeToString())


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, flag_model: bytes, put_version: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    put_version(folder, "simple", "1", simple_model())
    shutil.move(
        put_version(folder, "densenet", "1", densenet_model()) / "model.onnx", folder / "densenet/1/densenet.onnx"
    )
    (folder / "densenet" / "densenet_labels.txt").write_text("red\ngreen\nblue\n")
    for version in ("1", "3"):
        put_version(folder, "queued", version, flag_model)
    for name in ("sequenced", "torn", "mistaken"):
        put_version(folder, name, "1", flag_model)
    (folder / "elsewhere" / "1").mkdir(parents=True)
    (folder / "elsewhere" / "1" / "model.plan").write_bytes(b"plan")
    for name, text in FILES.items():
        (folder / name / "config.pbtxt").write_text(text)
    return folder


@pytest.fixture(scope="module")
def server(environment: dict[str, str], logs: Path, repository: Path, until: Callable[..., Any]) -> Iterator[Server]:
    with starting(environment, logs) as start:
        started = start("--model-repository", str(repository)).wait_ready()
        until(lambda: sum(one["state"] == "READY" for one in started.models()) == 4, "every version is served")
        yield started


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.grpc) as opened:
        yield opened


def tensor(name: str, array: np.ndarray[Any, Any], datatype: str) -> triton.InferInput:
    made = triton.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array)
    return made


def test_the_first_example_is_answered(client: Client) -> None:
    one, two = np.arange(32, dtype=np.int32).reshape(2, 16), np.ones((2, 16), np.int32)
    result = client.infer("simple", [tensor("INPUT0", one, "INT32"), tensor("INPUT1", two, "INT32")])
    np.testing.assert_array_equal(result.as_numpy("OUTPUT0"), one + two)
    np.testing.assert_array_equal(result.as_numpy("OUTPUT1"), one - two)
    metadata = client.get_model_metadata("simple")
    assert [(each.name, each.datatype, list(each.shape)) for each in metadata.inputs] == [
        ("INPUT0", "INT32", [-1, 16]),
        ("INPUT1", "INT32", [-1, 16]),
    ]
    assert metadata.platform == "onnxruntime_onnx"


def test_images_are_reshaped_and_classes_named(client: Client) -> None:
    image = np.array([1, 5, 2], np.float32)[:, None, None] * np.ones((3, 2, 2), np.float32)
    given = [tensor("data_0", image, "FP32")]
    assert client.infer("densenet", given).as_numpy("fc6_1").tolist() == [4, 20, 8]
    wanted = [triton.InferRequestedOutput("fc6_1", class_count=2)]
    found = client.infer("densenet", given, outputs=wanted).as_numpy("fc6_1")
    assert found.tolist() == [b"20.000000:1:green", b"8.000000:2:blue"]
    metadata = client.get_model_metadata("densenet")
    assert list(metadata.inputs[0].shape) == [3, 2, 2]
    assert list(metadata.outputs[0].shape) == [3]


@pytest.mark.parametrize("name", ["simple", "densenet", "queued"])
def test_the_configuration_is_what_the_file_says(client: Client, name: str) -> None:
    from google.protobuf import text_format
    from tritonclient.grpc import model_config_pb2

    said = model_config_pb2.ModelConfig()
    text_format.Parse(FILES[name], said)
    found = client.get_model_config(name).config
    for field, value_said in said.ListFields():
        assert getattr(found, field.name) == value_said, field.name
    assert (found.platform, found.backend) == ("onnxruntime_onnx", "onnxruntime")
    assert len(found.input) > 0 < len(found.output)


def test_what_the_file_leaves_out_is_filled_in(client: Client) -> None:
    found = client.get_model_config("queued").config
    assert [(each.name, each.data_type, list(each.dims)) for each in found.input] == [("X", 11, [2])]
    # Its rows are proven to be independent, so they are joined as Triton joins what it completes.
    assert client.get_model_config("simple").config.HasField("dynamic_batching")
    assert not client.get_model_config("densenet").config.HasField("dynamic_batching")


def test_every_version_that_the_policy_names_is_served(client: Client) -> None:
    rows = [tensor("X", np.ones((1, 2), np.float32), "FP32")]
    for version, answers in (("", "3"), ("1", "1"), ("3", "3")):
        assert client.infer("queued", rows, model_version=version).get_response().model_version == answers
    assert sorted(client.get_model_metadata("queued").versions) == ["1", "3"]


def test_priorities_and_timeouts_are_the_files(client: Client) -> None:
    rows = [tensor("X", np.ones((1, 2), np.float32), "FP32")]
    # A timeout that could not be kept does not count: the file allows none.
    for options in ({"priority": 3}, {"priority": 200}, {"timeout": 1}):
        assert client.infer("queued", rows, **options).get_response().model_version == "3"


def test_what_means_nothing_here_is_told(server: Server, client: Client) -> None:
    reasons = {(one.name, one.version): one.reason for one in client.get_model_repository_index().models}
    assert reasons["simple", "1"] == ""
    for words in ("instance_group.count", "parameters 'execution_mode'"):
        assert words in reasons["densenet", "1"]
    assert "optimization.execution_accelerators" in reasons["queued", "3"]
    shown = {(one["name"], one["version"]): one["reason"] for one in server.models()}
    assert shown["queued", "3"] == reasons["queued", "3"]


def test_what_is_not_served_is_told_and_holds_up_nobody(server: Server, client: Client) -> None:
    reasons = {one.name: one.reason for one in client.get_model_repository_index().models if one.state != "READY"}
    assert set(reasons) == {"sequenced", "elsewhere", "torn", "mistaken"}
    assert "sequence_batching is not served, and without it answers would differ" in reasons["sequenced"]
    assert "platform 'tensorrt_plan' is not served, expected 'onnxruntime_onnx'" in reasons["elsewhere"]
    assert "config.pbtxt: line 1, column 30: Couldn't parse integer" in reasons["torn"]
    assert "input 'X' is TYPE_FP64, and the graph has TYPE_FP32" in reasons["mistaken"]
    with pytest.raises(InferenceServerException, match="sequence_batching"):
        client.infer("sequenced", [tensor("X", np.ones((1, 2), np.float32), "FP32")])
    assert {one["name"] for one in server.models() if one["state"] == "READY"} == {"simple", "densenet", "queued"}
    assert json.loads(server.get("/v1/models"))


def test_a_file_that_is_mended_is_served(
    server: Server, client: Client, repository: Path, until: Callable[..., Any]
) -> None:
    file = repository / "mistaken" / "config.pbtxt"
    file.write_text(FILES["mistaken"].replace("TYPE_FP64", "TYPE_FP32").replace("dims: 1", "dims: []"))
    until(lambda: state(client, "mistaken").state == "READY", "the model is served")
    file.write_text(
        FILES["mistaken"].replace("TYPE_FP64", "TYPE_FP32").replace("dims: 1", "dims: []") + "max_batch_size: 9"
    )
    # A file that came to harm takes nothing from those who are served.
    until(lambda: "config.pbtxt: " in server_reason(server, "mistaken"), "the damage is told")
    assert client.is_model_ready("mistaken")


def state(client: Client, name: str) -> Any:
    return next(one for one in client.get_model_repository_index().models if one.name == name)


def server_reason(server: Server, name: str) -> str:
    return next(str(one["reason"]) for one in server.models() if one["name"] == name)
