"""A server that keeps answers: hits are what was answered before, of the version that answers now, for those who may ask."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from penstock import inference_pb2 as pb
from penstock.names import INFERENCE_SERVICE, PARAMETER_BATCH_ROWS, PARAMETER_COMPUTE_US, PARAMETER_QUEUE_US
from penstock_server.access.tokens import line_of
from tests.integration.conftest import WAIT_S, Registry, Server

pytestmark = pytest.mark.slow

MAX_BYTES = 1 << 16
SETTINGS = """
poll_interval_s = 0.1
[grpc]
allow_control = true
[response_cache]
max_mib = 0.0625
[response_cache.models.times]
enable = true
[response_cache.models.many]
enable = true
[response_cache.models.noise]
enable = true
[response_cache.models.promoted]
enable = true
[access]
tokens = "{folder}/tokens"
metrics = "open"
[access.rules.all]
who = ["token:all"]
may = ["infer", "read", "control"]
[access.rules.open]
who = ["anybody"]
may = ["read"]
[access.rules.few]
who = ["token:few"]
may = ["infer"]
models = ["plain"]
"""
TIMING = (PARAMETER_BATCH_ROWS, PARAMETER_COMPUTE_US, PARAMETER_QUEUE_US)
X = np.array([[1.0, 2.0]], np.float32)
ROWS = iter(range(1, 1_000_000))


def times(factor: float) -> bytes:
    """`Y = X * factor`, and what it is called."""
    from onnx import TensorProto, helper, numpy_helper

    nodes = [helper.make_node("Mul", ["X", "factor"], ["Y"])]
    constants = [numpy_helper.from_array(np.array([factor], np.float32), "factor")]
    return graph(nodes, constants, TensorProto.FLOAT)


def noise() -> bytes:
    from onnx import TensorProto, helper

    return graph([helper.make_node("RandomNormalLike", ["X"], ["Y"])], [], TensorProto.FLOAT)


def graph(nodes: list[Any], constants: list[Any], kind: int) -> bytes:
    from onnx import helper

    tensors = [helper.make_tensor_value_info(name, kind, ["N", 2]) for name in "XY"]
    made = helper.make_model(
        helper.make_graph(nodes, "graph", tensors[:1], tensors[1:], constants),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    return bytes(made.SerializeToString())


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory, put_version: Callable[..., Path]) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    for model, onnx in (("times", times(2)), ("many", times(3)), ("plain", times(4)), ("noise", noise())):
        put_version(folder, model, "1", onnx)
    put_version(folder, "declared", "1", times(5))
    (folder / "declared" / "config.pbtxt").write_text("response_cache { enable: true }")
    return folder


@pytest.fixture(scope="module")
def server(
    start_shared: Any, repository: Path, shared_registry: Registry, tmp_path_factory: pytest.TempPathFactory
) -> Server:
    folder = tmp_path_factory.mktemp("settings")
    (folder / "tokens").write_text("\n".join(line_of(name, f"{name}-secret") for name in ("all", "few")))
    (folder / "penstock.toml").write_text(SETTINGS.format(folder=folder))
    shared_registry.publish("promoted", times(10), alias="champion")
    made: Server = start_shared(
        "--model-repository", str(repository), "--registry", shared_registry.uri, "--config",
        str(folder / "penstock.toml"),
    ).wait_ready()  # fmt: skip
    return made


class Asker:
    """Sends encoded messages as a caller with a token."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._channel = channel

    def call(self, method: str, message: Any, kind: Any, token: str = "all-secret") -> Any:
        ask = self._channel.unary_unary(
            f"/{INFERENCE_SERVICE}/{method}", request_serializer=bytes, response_deserializer=kind.FromString
        )
        metadata = (("authorization", f"Bearer {token}"),)
        return ask(message.SerializeToString(), metadata=metadata, timeout=WAIT_S, wait_for_ready=True)

    def infer(self, model: str, rows: Any = X, token: str = "all-secret", **fields: Any) -> pb.ModelInferResponse:
        tensor = pb.ModelInferRequest.InferInputTensor(name="X", datatype="FP32", shape=rows.shape)
        request = pb.ModelInferRequest(
            model_name=model, inputs=[tensor], raw_input_contents=[rows.astype(np.float32).tobytes()], **fields
        )
        return self.call("ModelInfer", request, pb.ModelInferResponse, token)


@pytest.fixture
def ask(server: Server) -> Iterator[Asker]:
    with grpc.insecure_channel(server.grpc) as channel:
        yield Asker(channel)


def is_hit(reply: pb.ModelInferResponse) -> bool:
    return reply.parameters[PARAMETER_BATCH_ROWS].int64_param == 0


def answered(reply: pb.ModelInferResponse) -> bytes:
    """The reply's bytes without its id and what tells about its run."""
    made = pb.ModelInferResponse()
    made.CopyFrom(reply)
    made.id = ""
    for name in TIMING:
        del made.parameters[name]
    return bytes(made.SerializeToString(deterministic=True))


def new_rows(count: int = 1) -> np.ndarray[Any, Any]:
    """Rows that nobody has asked for."""
    return np.array([[next(ROWS), 0.5] for _ in range(count)], np.float32)


def test_a_hit_is_the_answer_that_was_given(ask: Asker) -> None:
    for rows in (new_rows(), new_rows(7)):
        missed, hit, plain = (ask.infer("times", rows, id=name) for name in ("one", "two", ""))
        assert [is_hit(each) for each in (missed, hit, plain)] == [False, True, True]
        assert [each.id for each in (missed, hit, plain)] == ["one", "two", ""]
        assert answered(missed) == answered(hit) == answered(plain)
        assert hit.raw_output_contents[0] == (rows * 2).tobytes()


def test_nothing_is_kept_where_nobody_has_said_so(ask: Asker, server: Server) -> None:
    rows = new_rows()
    assert not any(is_hit(ask.infer("plain", rows)) for _ in range(3))
    assert server.samples("penstock_response_cache_hits_total").keys().isdisjoint(
        {(("model_name", "plain"), ("model_version", "1"))}
    )  # fmt: skip
    config = ask.call("ModelConfig", pb.ModelConfigRequest(name="plain"), pb.ModelConfigResponse).config
    assert not config.response_cache.enable


def test_a_configuration_of_tritons_says_so_too(ask: Asker) -> None:
    rows = new_rows()
    assert [is_hit(ask.infer("declared", rows)) for _ in range(2)] == [False, True]
    config = ask.call("ModelConfig", pb.ModelConfigRequest(name="declared"), pb.ModelConfigResponse).config
    assert config.response_cache.enable


def test_hits_are_counted(ask: Asker, server: Server) -> None:
    def counts() -> list[float]:
        names = [
            "penstock_response_cache_hits_total", "penstock_response_cache_misses_total", "penstock_requests_total",
            "model_predictions_total", "penstock_batch_rows_count",
        ]  # fmt: skip
        latency = server.total("model_prediction_latency_seconds_count", model_name="times", stage="total")
        return [*(server.total(name, model_name="times") for name in names), latency]

    before, rows = counts(), new_rows(3)
    for _ in range(4):
        ask.infer("times", rows)
    assert [after - old for after, old in zip(counts(), before, strict=True)] == [3, 1, 4, 12, 1, 4]
    statistics = ask.call(
        "ModelStatistics", pb.ModelStatisticsRequest(name="times"), pb.ModelStatisticsResponse
    ).model_stats[0]
    times = statistics.inference_stats
    assert (times.cache_hit.count, times.cache_miss.count) == tuple(counts()[:2])
    assert times.success.count == counts()[2]
    assert times.cache_hit.ns > 0 < times.cache_miss.ns


def test_bytes_are_bounded(ask: Asker, server: Server) -> None:
    most = 200
    for _ in range(most):
        ask.infer("many", new_rows())
    kept = sum(server.samples("penstock_response_cache_bytes").values())
    assert 0.9 * MAX_BYTES < kept <= MAX_BYTES
    assert 0 < server.total("penstock_response_cache_evictions_total", model_name="many") < most


def test_what_draws_random_numbers_is_not_kept_and_says_so(ask: Asker, server: Server) -> None:
    rows = new_rows()
    first, second = (ask.infer("noise", rows) for _ in range(2))
    assert not is_hit(second)
    assert answered(first) != answered(second)
    (reason,) = (row["reason"] for row in server.models() if row["name"] == "noise")
    assert "its answers are not kept in the response cache: its graph draws random numbers (RandomNormalLike)" in reason


def test_an_answer_that_is_kept_is_given_to_those_who_may_ask(ask: Asker) -> None:
    rows = new_rows()
    ask.infer("times", rows)
    assert is_hit(ask.infer("times", rows))
    for token, code in (
        ("few-secret", grpc.StatusCode.PERMISSION_DENIED),
        ("nobody's", grpc.StatusCode.UNAUTHENTICATED),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            ask.infer("times", rows, token)
        assert refused.value.code() == code


def test_a_promotion_is_never_answered_by_the_version_before(ask: Asker, shared_registry: Registry, until: Any) -> None:
    second = shared_registry.publish("promoted", times(20))
    factors = {"1": 10, second: 20}
    for version in (second, "1", second):
        for _ in range(2):
            ask.infer("promoted")
        shared_registry.promote("promoted", version)
        until(lambda version=version: ask.infer("promoted").model_version == version, "the promotion")
        replies = [ask.infer("promoted") for _ in range(3)]
        assert is_hit(replies[-1])
        for reply in replies:
            assert reply.model_version == version
            assert reply.raw_output_contents[0] == (X * factors[version]).tobytes()


def test_other_files_under_a_number_answer_for_themselves(
    ask: Asker, server: Server, repository: Path, put_version: Any, until: Any
) -> None:
    put_version(repository, "anew", "1", times(6))
    (repository / "anew" / "config.pbtxt").write_text("response_cache { enable: true }")

    def value() -> float | None:
        try:
            return float(np.frombuffer(ask.infer("anew").raw_output_contents[0], np.float32)[0])
        except grpc.RpcError:
            return None

    until(lambda: value() == 6, "the first files answer")
    assert is_hit(ask.infer("anew"))
    (repository / "anew" / "1").rename(repository / ".former")
    put_version(repository, "anew", "1", times(7))
    until(lambda: value() == 7, "the new files answer")
    assert is_hit(ask.infer("anew"))
    ends_s = time.monotonic() + 0.5
    while time.monotonic() < ends_s:
        assert value() == 7
    # Those of the former files are gone at once.
    assert server.total("penstock_response_cache_bytes", model_name="anew") < 1000
