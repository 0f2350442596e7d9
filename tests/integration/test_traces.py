"""Traces, from a caller's `traceparent` to what a collector is sent."""

import http.client
import json
import secrets
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from tritonclient.utils import InferenceServerException

from penstock import inference_pb2 as pb
from penstock_client import Client
from tests.integration.conftest import Server, starting
from tests.server.tracing.receivers import TIMEOUT_S, Received, grpc_collector, http_collector

pytestmark = pytest.mark.slow

ROW = np.array([[1.0, 2.0]], np.float32)
WORKERS = 2
INFER = "/inference.GRPCInferenceService/ModelInfer"


@pytest.fixture(scope="module")
def received() -> Iterator[Received]:
    with http_collector() as made:
        yield made


@pytest.fixture(scope="module")
def server(
    environment: dict[str, str],
    logs: Path,
    tmp_path_factory: pytest.TempPathFactory,
    shared_registry: Any,
    flag_model: bytes,
    opposite_model: bytes,
    received: Received,
) -> Iterator[Server]:
    """Model `flag`, and `watched`, which has a shadow."""
    shared_registry.publish("flag", flag_model, "champion")
    shared_registry.publish("watched", flag_model, "champion")
    shared_registry.publish("watched", opposite_model, "shadow")
    file = tmp_path_factory.mktemp("settings") / "penstock.toml"
    file.write_text(
        f"[tracing]\nendpoint = {received.address!r}\nsample_ratio = 0\nservice = 'churn'\n"
        "[grpc]\nallow_control = true\n"
    )
    with starting(environment | {"OTEL_EXPORTER_OTLP_HEADERS": "api-key=secret"}, logs) as start:
        yield start(
            *("--registry", shared_registry.uri, "--rest-port", "0"),
            *("--config", str(file), "--workers", str(WORKERS)),
        ).wait_ready()


@pytest.fixture
def ask(server: Server) -> Iterator[Callable[..., pb.ModelInferResponse]]:
    """Calls of one connection, each with its `traceparent`."""
    with grpc.insecure_channel(server.grpc) as channel:
        method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(INFER)

        def call(model: str = "flag", parent: str = "") -> pb.ModelInferResponse:
            request = pb.ModelInferRequest(model_name=model)
            request.inputs.add(name="X", datatype="FP32", shape=[1, 2])
            request.raw_input_contents.append(ROW.tobytes())
            metadata = (("traceparent", parent),) if parent else ()
            reply = method(request.SerializeToString(), timeout=TIMEOUT_S, metadata=metadata)
            return pb.ModelInferResponse.FromString(reply)

        yield call


class Caller:
    """A span of a caller's."""

    def __init__(self, flags: str = "01") -> None:
        self.trace = secrets.token_hex(16)
        self.span = secrets.token_hex(8)
        self.parent = f"00-{self.trace}-{self.span}-{flags}"


def spans_of(received: Received, caller: Caller, count: int) -> list[Span]:
    """So many spans of a caller's trace, awaited, in the order of their beginnings; others are passed over."""
    found: list[Span] = []
    while len(found) < count:
        found += [span for span in received.spans(1) if span.trace_id.hex() == caller.trace]
    assert len(found) == count
    return sorted(found, key=lambda span: (span.start_time_unix_nano, span.name))


def attributes(span: Any) -> dict[str, Any]:
    return {
        pair.key: pair.value.string_value if pair.value.HasField("string_value") else pair.value.int_value
        for pair in span.attributes
    }


def test_a_request_has_spans_of_its_stages_below_the_callers(
    ask: Callable[..., pb.ModelInferResponse], received: Received, server: Server
) -> None:
    host, _, port = server.grpc.rpartition(":")
    for _ in range(3):  # the first takes the general path, the others kernels answer
        caller = Caller()
        ask(parent=caller.parent)
        spans = {span.name: span for span in spans_of(received, caller, 3)}
        root = spans.pop("inference.GRPCInferenceService/ModelInfer")
        assert root.parent_span_id.hex() == caller.span
        assert root.kind == Span.SPAN_KIND_SERVER
        found = attributes(root)
        assert found["rpc.response.status_code"] == "OK"
        assert (found["server.address"], found["server.port"]) == (host, int(port))
        assert [found[f"penstock.model.{part}"] for part in ("name", "version", "role")] == ["flag", "1", "champion"]
        assert sorted(spans) == ["model", "queue"]
        for span in spans.values():
            assert span.parent_span_id == root.span_id
            assert root.start_time_unix_nano <= span.start_time_unix_nano <= span.end_time_unix_nano


def test_the_service_is_named_and_the_key_is_sent(
    ask: Callable[..., pb.ModelInferResponse], received: Received
) -> None:
    ask(parent=Caller().parent)
    request, headers = received.next()
    (resource,) = request.resource_spans
    assert attributes(resource.resource)["service.name"] == "churn"
    assert {name.lower(): value for name, value in headers.items()}["api-key"] == "secret"


def test_what_its_caller_does_not_trace_is_not_traced(
    ask: Callable[..., pb.ModelInferResponse], received: Received
) -> None:
    untraced, last = Caller("00"), Caller()
    ask(parent=untraced.parent)
    ask()
    ask(parent=last.parent)
    seen: list[Span] = []
    while not any(span.trace_id.hex() == last.trace for span in seen):
        seen += received.spans(1)
    assert untraced.trace not in {span.trace_id.hex() for span in seen}
    assert {span.trace_id.hex() for span in seen} == {last.trace}


def test_rest_and_streams_are_traced_too(server: Server, received: Received) -> None:
    host, _, port = server.rest.rpartition(":")
    body = json.dumps({"inputs": [{"name": "X", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}]})
    connection = http.client.HTTPConnection(host, int(port), timeout=TIMEOUT_S)
    # What comes after the first is answered by kernels, with and without a trace.
    for caller in (Caller(), Caller(), Caller("00"), None, Caller()):
        connection.request(
            "POST", "/v2/models/flag/infer", body, {} if caller is None else {"traceparent": caller.parent}
        )
        reply = connection.getresponse()
        assert (reply.status, reply.read() != b"") == (200, True)
        if caller is not None and caller.parent.endswith("01"):
            first, *_ = spans_of(received, caller, 3)
            assert (first.name, first.parent_span_id.hex()) == ("POST", caller.span)
    connection.close()
    by_stream = Caller()
    with grpc.insecure_channel(server.grpc) as channel:
        stream: grpc.StreamStreamMultiCallable[bytes, bytes] = channel.stream_stream(
            "/inference.GRPCInferenceService/ModelStreamInfer"
        )
        request = pb.ModelInferRequest(model_name="flag")
        request.inputs.add(name="X", datatype="FP32", shape=[1, 2])
        request.raw_input_contents.append(ROW.tobytes())
        messages = [request.SerializeToString()] * 2
        metadata = (("traceparent", by_stream.parent),)
        assert len(list(stream(iter(messages), timeout=TIMEOUT_S, metadata=metadata))) == 2
    names = [span.name for span in spans_of(received, by_stream, 6)]
    assert names.count("inference.GRPCInferenceService/ModelStreamInfer") == 2


def test_the_shadow_has_a_span_below_the_request(
    ask: Callable[..., pb.ModelInferResponse], received: Received, server: Server, until: Any
) -> None:
    until(lambda: sum(row["state"] == "READY" for row in server.models()) == 3, "the shadow is loaded")
    for _ in range(2):
        caller = Caller()
        ask("watched", caller.parent)
        spans = spans_of(received, caller, 5)
        root = next(span for span in spans if span.kind == Span.SPAN_KIND_SERVER)
        shadow = next(span for span in spans if span.name == "shadow")
        assert shadow.parent_span_id == root.span_id
        assert [attributes(span)["penstock.model.version"] for span in (root, shadow)] == ["1", "2"]
        assert attributes(shadow)["penstock.model.role"] == "shadow"
        assert shadow.start_time_unix_nano >= root.start_time_unix_nano
        assert sorted(span.name for span in spans if span.name not in (root.name, "shadow")) == [
            "model",
            "model",
            "queue",
        ]


def test_a_refused_request_has_a_span_that_says_so(
    ask: Callable[..., pb.ModelInferResponse], received: Received
) -> None:
    caller = Caller()
    with pytest.raises(grpc.RpcError):
        ask("nobody", caller.parent)
    (span,) = spans_of(received, caller, 1)
    assert attributes(span)["rpc.response.status_code"] == "NOT_FOUND"


def test_what_is_traced_can_be_set_while_the_server_runs(
    server: Server, received: Received, ask: Callable[..., pb.ModelInferResponse]
) -> None:
    with triton.InferenceServerClient(server.grpc) as client:
        assert client.get_trace_settings(as_json=True)["settings"]["trace_rate"]["value"] == ["0"]
        client.update_trace_settings(settings={"trace_rate": "1"})
        # All workers see it: there is a connection for each.
        for _ in range(4 * WORKERS):
            with Client(server.grpc, timeout_s=TIMEOUT_S) as one:
                one.predict("flag", ROW)
        roots = [span for span in received.spans(3 * 4 * WORKERS) if span.kind == Span.SPAN_KIND_SERVER]
        assert len(roots) == 4 * WORKERS
        assert {span.parent_span_id for span in roots} == {b""}
        found = client.update_trace_settings(settings={"trace_level": "OFF"}, as_json=True)["settings"]
        assert (found["trace_level"]["value"], found["trace_rate"]["value"]) == (["OFF"], ["1"])
        caller = Caller()
        ask(parent=caller.parent)
        # Nothing goes back to what the server was started with.
        found = client.update_trace_settings(settings={"trace_level": None, "trace_rate": None}, as_json=True)[
            "settings"
        ]
        assert (found["trace_level"]["value"], found["trace_rate"]["value"]) == (["TIMESTAMPS"], ["0"])
        last = Caller()
        ask(parent=last.parent)
        assert len(spans_of(received, last, 3)) == 3
        for wrong, said in (
            ({"trace_rate": "often"}, "trace_rate is 'often'"),
            ({"trace_level": "TENSORS"}, "trace_level is 'TENSORS'"),
            ({"trace_file": "/tmp/x"}, "trace_file cannot be"),
        ):
            with pytest.raises(InferenceServerException, match=said):
                client.update_trace_settings(settings=wrong)
        with pytest.raises(InferenceServerException, match="all models are traced alike"):
            client.update_trace_settings(model_name="flag", settings={"trace_rate": "1"})


def test_histograms_show_traces_as_openmetrics_has_it(
    server: Server, ask: Callable[..., pb.ModelInferResponse], received: Received
) -> None:
    callers = [Caller() for _ in range(4 * WORKERS)]
    for caller in callers:
        ask(parent=caller.parent)
    spans_of(received, callers[-1], 3)
    request = urllib.request.Request(
        f"http://{server.http}/metrics", headers={"accept": "application/openmetrics-text; version=1.0.0"}
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as reply:
        text = reply.read().decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    shown = {
        (sample.labels["stage"], sample.exemplar.labels["trace_id"]): (sample, sample.exemplar)
        for sample in families["model_prediction_latency_seconds"].samples
        if sample.exemplar is not None and sample.labels["model_name"] == "flag"
    }
    assert {stage for stage, _ in shown} == {"total", "queue", "features", "infer"}
    assert {trace for _, trace in shown} & {caller.trace for caller in callers}
    for sample, exemplar in shown.values():
        assert exemplar.value <= float(sample.labels["le"])
    assert {sample.labels["result"] for sample in families["penstock_spans"].samples} == {"sent", "failed"}
    assert "trace_id" not in server.get("/metrics")


def test_a_collector_over_grpc_gets_all_before_the_server_ends_and_the_log_has_the_trace(
    environment: dict[str, str], logs: Path, plain_repository: Path, tmp_path: Path
) -> None:
    import pyarrow.dataset

    file = tmp_path / "penstock.toml"
    with grpc_collector() as received, starting(environment, logs) as start:
        file.write_text(
            f"[tracing]\nendpoint = {received.address!r}\nprotocol = 'grpc'\n"
            f"[request_log]\ndirectory = {str(tmp_path / 'log')!r}\nsample_ratio = 1.0\n"
        )
        server = start("--model-repository", str(plain_repository), "--config", str(file)).wait_ready()
        callers = [Caller(), Caller(), Caller("00")]
        with grpc.insecure_channel(server.grpc) as channel:
            method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(INFER)
            for caller in callers:
                request = pb.ModelInferRequest(model_name="flag", id=caller.span)
                request.inputs.add(name="X", datatype="FP32", shape=[1, 2])
                request.raw_input_contents.append(ROW.tobytes())
                method(request.SerializeToString(), metadata=(("traceparent", caller.parent),), timeout=TIMEOUT_S)
        assert server.stop() == 0
        spans = received.spans(6)
    assert {span.trace_id.hex() for span in spans} == {caller.trace for caller in callers[:2]}
    rows = pyarrow.dataset.dataset(tmp_path / "log", exclude_invalid_files=True).to_table().to_pylist()
    assert {(row["request_id"], row["trace_id"]) for row in rows} == {(caller.span, caller.trace) for caller in callers}


@pytest.mark.parametrize("transport", ["completion-queue", "aio"])
def test_other_transports_trace_too(
    environment: dict[str, str], logs: Path, plain_repository: Path, received: Received, transport: str
) -> None:
    with starting(environment, logs) as start:
        server = start(
            *("--model-repository", str(plain_repository), "--transport", transport),
            *("--trace-endpoint", received.address),
        ).wait_ready()
        request = pb.ModelInferRequest(model_name="flag")
        request.inputs.add(name="X", datatype="FP32", shape=[1, 2])
        request.raw_input_contents.append(ROW.tobytes())
        with grpc.insecure_channel(server.grpc) as channel:
            method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(INFER)
            for _ in range(2):
                caller = Caller()
                method(request.SerializeToString(), metadata=(("traceparent", caller.parent),), timeout=TIMEOUT_S)
                first, *_ = spans_of(received, caller, 3)
                assert first.parent_span_id.hex() == caller.span


@contextmanager
def mlflow_collector(registry: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """MLflow's own endpoint of OpenTelemetry, over a test's registry; on a thread of this process."""
    uvicorn, fastapi = pytest.importorskip("uvicorn"), pytest.importorskip("fastapi")
    import mlflow.server as settings
    from mlflow.server import handlers
    from mlflow.server.otel_api import otel_router

    monkeypatch.setenv(settings.BACKEND_STORE_URI_ENV_VAR, registry.uri)
    monkeypatch.setattr(handlers, "_tracking_store", None)
    app = fastapi.FastAPI()
    app.include_router(otel_router)
    running = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    is_up = threading.Event()
    startup = running.startup

    async def started(*arguments: Any, **named: Any) -> None:
        await startup(*arguments, **named)
        is_up.set()

    running.startup = started
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    assert is_up.wait(TIMEOUT_S)
    yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}"
    running.should_exit = True
    thread.join(TIMEOUT_S)


def test_mlflow_takes_the_spans(
    environment: dict[str, str],
    logs: Path,
    plain_repository: Path,
    registry: Any,
    until: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(registry.uri, registry.uri)
    experiment = client.create_experiment("traces")
    headers = {"OTEL_EXPORTER_OTLP_HEADERS": f"x-mlflow-experiment-id={experiment}"}
    with mlflow_collector(registry, monkeypatch) as address, starting(environment | headers, logs) as start:
        server = start("--model-repository", str(plain_repository), "--trace-endpoint", address).wait_ready()
        caller = Caller()
        request = pb.ModelInferRequest(model_name="flag")
        request.inputs.add(name="X", datatype="FP32", shape=[1, 2])
        request.raw_input_contents.append(ROW.tobytes())
        with grpc.insecure_channel(server.grpc) as channel:
            method: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(INFER)
            method(request.SerializeToString(), metadata=(("traceparent", caller.parent),), timeout=TIMEOUT_S)
        until(lambda: server.total("penstock_spans_total", result="sent") == 3, "the spans are sent")
        (trace,) = client.search_traces(locations=[experiment])
    assert trace.info.trace_id.removeprefix("tr-") == caller.trace
    assert sorted(span.name for span in trace.data.spans) == [
        "inference.GRPCInferenceService/ModelInfer",
        "model",
        "queue",
    ]
