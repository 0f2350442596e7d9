"""Triton's extensions, asked by its own client of a server of two workers."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc as triton
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import InferenceServerException

import penstock_client
from tests.integration.conftest import Server, starting

pytestmark = pytest.mark.slow

ROWS = np.array([[1.0, 2.0], [-1.0, -3.0], [0.5, 0.25]], np.float32)
WORKERS = 2
Client = triton.InferenceServerClient


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("repository")


@pytest.fixture(scope="module")
def server(
    environment: dict[str, str],
    logs: Path,
    repository: Path,
    tmp_path_factory: pytest.TempPathFactory,
    flag_model: bytes,
    strings_model: bytes,
    put_version: Callable[..., Path],
) -> Iterator[Server]:
    for version in ("1", "2"):
        put_version(repository, "flag", version, flag_model)
    put_version(repository, "counted", "2", flag_model)
    put_version(repository, "halves", "1", halves_model())
    put_version(repository, "strings", "3", strings_model)
    put_version(repository, "scaled", "1", scaled_model())
    (repository / "damaged" / "1").mkdir(parents=True)
    (repository / "damaged" / "1" / "model.onnx").write_bytes(b"no graph")
    file = tmp_path_factory.mktemp("settings") / "penstock.toml"
    file.write_text(
        "poll_interval_s = 1000\n[grpc]\nallow_control = true\n[batching.models.flag]\nmax_rows = 64\nqueue_requests = 1000\n"
    )
    with starting(environment, logs) as start:
        yield start(
            "--model-repository", str(repository), "--config", str(file), "--workers", str(WORKERS)
        ).wait_ready()  # fmt: skip


@pytest.fixture
def client(server: Server) -> Iterator[Client]:
    with Client(server.grpc) as opened:
        yield opened


def scaled_model() -> bytes:
    """`Y = X * scale`, of which the scale is 2 where a request does not give it."""
    from onnx import TensorProto, helper, numpy_helper

    def value(name: str, shape: list[Any]) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    scale = numpy_helper.from_array(np.array([2], np.float32), "scale")
    graph = helper.make_graph(
        [helper.make_node("Mul", ["X", "scale"], ["Y"])],
        "graph", [value("X", ["N", 2]), value("scale", [1])], [value("Y", ["N", 2])], [scale],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def tensor(rows: np.ndarray[Any, Any] = ROWS) -> list[triton.InferInput]:
    made = triton.InferInput("X", list(rows.shape), "FP32")
    made.set_data_from_numpy(rows)
    return [made]


def texts() -> list[triton.InferInput]:
    text = triton.InferInput("text", [1, 2], "BYTES")
    text.set_data_from_numpy(np.array([["a", "b"]], object))
    x = triton.InferInput("x", [1, 2], "FP32")
    x.set_data_from_numpy(ROWS[:1])
    return [text, x]


def test_the_configuration(client: Client) -> None:
    config = client.get_model_config("flag").config
    assert (config.name, config.platform, config.backend) == ("flag", "onnxruntime_onnx", "onnxruntime")
    assert (config.max_batch_size, list(config.version_policy.specific.versions)) == (64, [2])
    (one,) = config.input
    assert (one.name, one.data_type, list(one.dims)) == ("X", model_config_pb2.TYPE_FP32, [2])
    assert config.dynamic_batching.default_queue_policy.max_queue_size == 1000
    assert [(group.count, group.kind) for group in config.instance_group] == [
        (WORKERS, model_config_pb2.ModelInstanceGroup.KIND_CPU)
    ]
    assert not config.model_transaction_policy.decoupled
    types = {one.name: one.data_type for one in client.get_model_config("strings").config.input}
    assert types == {"text": model_config_pb2.TYPE_STRING, "x": model_config_pb2.TYPE_FP32}
    with pytest.raises(InferenceServerException, match="'nothing' is not served"):
        client.get_model_config("nothing")


def test_metadata_name_the_extensions(client: Client) -> None:
    extensions = {*client.get_server_metadata().extensions}
    assert {"statistics", "model_configuration", "classification"} <= extensions
    assert not any("shared_memory" in name for name in extensions)


def halves_model() -> bytes:
    """Doubles BF16 [N, 2], and gives it as floats too."""
    from onnx import TensorProto, helper

    kinds = {"x": TensorProto.BFLOAT16, "y": TensorProto.BFLOAT16, "f": TensorProto.FLOAT}
    x, y, f = (helper.make_tensor_value_info(name, kind, ["N", 2]) for name, kind in kinds.items())
    nodes = [
        helper.make_node("Cast", ["x"], ["wide"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["wide", "wide"], ["f"]),
        helper.make_node("Cast", ["f"], ["y"], to=TensorProto.BFLOAT16),
    ]
    graph = helper.make_graph(nodes, "halves", [x], [y, f])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return bytes(model.SerializeToString())


def test_bfloat16_goes_in_and_out(server: Server, client: Client) -> None:
    (described,) = client.get_model_metadata("halves").inputs
    assert (described.datatype, list(described.shape)) == ("BF16", [-1, 2])
    assert client.get_model_config("halves").config.input[0].data_type == model_config_pb2.TYPE_BF16
    made = triton.InferInput("x", [3, 2], "BF16")
    made.set_data_from_numpy(ROWS.astype(ml_dtypes.bfloat16))
    for _ in range(3):  # the second one is like the first
        result = client.infer("halves", [made])
        for name in "yf":
            assert result.as_numpy(name).astype(np.float32).tolist() == (2 * ROWS).tolist()
    with penstock_client.Client(server.grpc) as own:
        for rows in (ROWS, ROWS.tolist(), ROWS):
            prediction = own.predict("halves", np.array(rows, np.float32))
            assert prediction["y"].tolist() == prediction["f"].tolist() == (2 * ROWS).tolist()


def test_the_largest_scores_with_their_classes(client: Client) -> None:
    output = "probabilities"
    scores = client.infer("flag", tensor()).as_numpy(output)
    wanted = [triton.InferRequestedOutput("label"), triton.InferRequestedOutput(output, class_count=1)]
    for _ in range(3):
        result = client.infer("flag", tensor(), outputs=wanted)
        found = [text.decode().split(":") for (text,) in result.as_numpy(output)]
        assert [int(place) for _, place in found] == scores.argmax(axis=1).tolist() == result.as_numpy("label").tolist()
        assert [float(value) for value, _ in found] == pytest.approx(scores.max(axis=1).tolist(), abs=1e-6)
    with pytest.raises(InferenceServerException, match="is BYTES, expected numbers for a classification"):
        client.infer("strings", texts(), outputs=[triton.InferRequestedOutput("text_out", class_count=1)])


def test_the_index_says_why(client: Client) -> None:
    index = {(one.name, one.version): one for one in client.get_model_repository_index().models}
    assert index["flag", "2"].state == "READY"
    assert index["damaged", "1"].state == "UNAVAILABLE"
    assert "model.onnx" in index["damaged", "1"].reason


def test_statistics_are_of_the_whole_server(server: Server, client: Client, until: Callable[..., Any]) -> None:
    requests, clients = 50, 4

    def ask() -> None:
        with Client(server.grpc) as own:
            for _ in range(requests):
                own.infer("counted", tensor())

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    began_s = time.time()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with pytest.raises(InferenceServerException):
        client.infer("counted", tensor(np.zeros((1, 3), np.float32)))

    def found() -> Any:
        (one,) = client.get_inference_statistics("counted").model_stats
        return one

    until(lambda: found().inference_stats.success.count == requests * clients, "all workers' answers are counted")
    stats = found()
    times = stats.inference_stats
    assert (stats.name, stats.version) == ("counted", "2")
    assert stats.inference_count == requests * clients * len(ROWS)
    assert 0 < stats.execution_count <= requests * clients
    assert times.fail.count == 1
    assert abs(stats.last_inference / 1000 - began_s) < 60
    parts = (times.queue, times.compute_input, times.compute_infer, times.compute_output)
    assert [part.count for part in parts] == [requests * clients] * 4
    assert times.compute_infer.ns > 0
    assert sum(part.ns for part in parts) == pytest.approx(times.success.ns, rel=1e-6)
    assert sum(one.compute_infer.count for one in stats.batch_stats) == stats.execution_count
    assert all(size.bit_count() == 1 for size in (one.batch_size for one in stats.batch_stats))


def test_statistics_of_what_is_not_loaded(client: Client) -> None:
    assert {one.name for one in client.get_inference_statistics().model_stats} == {
        "counted",
        "flag",
        "halves",
        "scaled",
        "strings",
    }
    with pytest.raises(InferenceServerException, match="no version of model 'nothing' is loaded"):
        client.get_inference_statistics("nothing")


def test_a_load_reads_the_source_at_once(
    server: Server, client: Client, repository: Path, flag_model: bytes, put_version: Callable[..., Path]
) -> None:
    """The server polls every thousand seconds."""
    with pytest.raises(InferenceServerException, match="no source has a champion of model 'late'"):
        client.load_model("late")
    put_version(repository, "late", "1", flag_model)
    client.load_model("late")
    for _ in range(20):  # each worker has it
        with Client(server.grpc) as other:
            assert other.infer("late", tensor()).as_numpy("label").tolist() == [1, 0, 1]
    put_version(repository, "late", "2", b"no graph")
    with pytest.raises(InferenceServerException, match=r"model 'late' version 2 cannot be served: .*onnx"):
        client.load_model("late")
    assert client.infer("late", tensor()).get_response().model_version == "1"
    with pytest.raises(InferenceServerException, match=r"UNIMPLEMENTED.*its source no longer has it"):
        client.unload_model("late")
    with pytest.raises(InferenceServerException, match=r"UNIMPLEMENTED.*without parameters, got 'config'"):
        client.load_model("late", config="{}")


def test_what_is_refused_says_so(client: Client) -> None:
    with pytest.raises(InferenceServerException, match=r"UNIMPLEMENTED.*shared memory is not served"):
        client.get_system_shared_memory_status()
    with pytest.raises(InferenceServerException, match=r"UNIMPLEMENTED.*shared memory is not served"):
        client.register_cuda_shared_memory("r", b"aGFuZGxl", 0, 64)
    shared = triton.InferInput("X", [1, 2], "FP32")
    shared.set_shared_memory("r", 8)
    with pytest.raises(InferenceServerException, match=r"INVALID_ARGUMENT.*shared memory"):
        client.infer("flag", [shared])
    with pytest.raises(
        InferenceServerException, match=r"INVALID_ARGUMENT.*'sequence_(id|start)' asks for a stateful sequence"
    ):
        client.infer("flag", tensor(), sequence_id=7, sequence_start=True)


def test_log_settings_hold_from_now_on(
    client: Client, server: Server, repository: Path, flag_model: bytes, put_version: Callable[..., Path], until: Any
) -> None:
    assert client.get_log_settings().settings["log_error"].bool_param
    assert not client.update_log_settings({"log_info": False}).settings["log_info"].bool_param
    put_version(repository, "quiet", "1", flag_model)
    client.load_model("quiet")
    found = client.update_log_settings({"log_verbose_level": 1}).settings
    assert (found["log_info"].bool_param, found["log_verbose_level"].uint32_param) == (True, 1)
    put_version(repository, "loud", "1", flag_model)
    client.load_model("loud")
    until(lambda: '"loud"' in server.logged(), "what is loaded is logged again")
    assert '"quiet"' not in server.logged()
    client.update_log_settings({"log_verbose_level": 0})
    with pytest.raises(InferenceServerException, match=r"UNIMPLEMENTED.*log_file"):
        client.update_log_settings({"log_file": "/tmp/x"})


def test_settings_of_traces_need_a_collector(client: Client) -> None:
    assert client.get_trace_settings().settings["trace_level"].value == ["OFF"]
    with pytest.raises(InferenceServerException, match=r"INVALID_ARGUMENT.*without tracing\.endpoint"):
        client.update_trace_settings(settings={"trace_level": "TIMESTAMPS"})


def test_an_input_with_a_default(server: Server, client: Client) -> None:
    config = client.get_model_config("scaled").config
    assert [(each.name, each.optional, list(each.dims)) for each in config.input] == [
        ("X", False, [2]),
        ("scale", True, [1]),
    ]
    assert config.max_batch_size > 1  # the rows are independent with the default
    scale = triton.InferInput("scale", [1], "FP32")
    scale.set_data_from_numpy(np.array([5], np.float32))
    np.testing.assert_array_equal(client.infer("scaled", tensor()).as_numpy("Y"), ROWS * 2)
    np.testing.assert_array_equal(client.infer("scaled", [*tensor(), scale]).as_numpy("Y"), ROWS * 5)
    with penstock_client.Client(server.grpc) as ours:
        spec = ours.metadata("scaled").inputs[1]
        assert (spec.name, spec.is_optional, spec.is_column) == ("scale", True, False)
        np.testing.assert_array_equal(ours.predict("scaled", ROWS)["Y"], ROWS * 2)
        for factor in (3, 4):  # of the same form
            given = ours.predict("scaled", {"X": ROWS, "scale": [factor]})
            np.testing.assert_array_equal(given["Y"], ROWS * factor)
        np.testing.assert_array_equal(ours.predict("scaled", {"X": ROWS})["Y"], ROWS * 2)
