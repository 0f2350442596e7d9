from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from penstock import inference_pb2 as pb
from penstock_server.call import Call
from penstock_server.errors import (
    DeniedError,
    InvalidInputError,
    NotFoundError,
    NotReadyError,
    PenstockError,
    UnsupportedError,
)
from penstock_server.prediction.predictor import Predictor
from penstock_server.services.triton import triton_methods
from penstock_server.tracing import span_file
from penstock_server.tracing.layout import PLACES
from penstock_server.tracing.span_file import SpanFile

PATH = "/inference.GRPCInferenceService/"


class Supervisor:
    """Remembers what it is asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bytes, Call]] = []

    def __call__(self, method: str, message: bytes, call: Call) -> None:
        self.asked.append((method, message, call))


@pytest.fixture
def supervisor() -> Supervisor:
    return Supervisor()


@pytest.fixture
def ask(predictor: Predictor, supervisor: Supervisor, fake_call: Any) -> Callable[..., Any]:
    """Sends one message to a method, and gives the call."""

    def send(method: str, request: Any, *, allows_control: bool = True, spans: SpanFile | None = None) -> Any:
        call = fake_call()
        methods = triton_methods(
            predictor, supervisor, workers=3, allows_control=allows_control, spans=spans, sample_ratio=0.01
        )
        methods.unary[PATH + method](request if isinstance(request, bytes) else request.SerializeToString(), call)
        return call

    return send


@pytest.mark.parametrize(("wanted", "versions"), [("", [1, 2]), ("2", [1, 2]), ("@champion", [1, 2])])
def test_model_config(ask: Any, wanted: str, versions: list[int]) -> None:
    answer = ask("ModelConfig", pb.ModelConfigRequest(name="m", version=wanted)).answer
    config = pb.ModelConfigResponse.FromString(answer).config
    assert (config.name, config.platform, config.instance_group[0].count) == ("m", "onnxruntime_onnx", 3)
    assert list(config.version_policy.specific.versions) == versions


@pytest.mark.parametrize(
    ("name", "wanted", "error", "said"),
    [
        ("z", "", NotFoundError, "model 'z' is not served"),
        ("m", "7", NotFoundError, "no version '7'"),
        ("n", "", NotReadyError, "model 'n' has no version ready"),
    ],
)
def test_what_has_no_config_says_why(ask: Any, name: str, wanted: str, error: type[PenstockError], said: str) -> None:
    with pytest.raises(error, match=said):
        ask("ModelConfig", pb.ModelConfigRequest(name=name, version=wanted))


def test_the_supervisor_is_asked_for_statistics(ask: Any, supervisor: Supervisor) -> None:
    request = pb.ModelStatisticsRequest(name="m", version="1").SerializeToString()
    call = ask("ModelStatistics", request)
    assert supervisor.asked == [("ModelStatistics", request, call)]
    assert not call.is_over


@pytest.mark.parametrize(
    "method",
    ["ModelConfig", "ModelStatistics", "RepositoryModelLoad", "RepositoryModelUnload", "TraceSetting", "LogSettings"],
)
def test_what_is_no_message_is_refused(ask: Any, supervisor: Supervisor, method: str) -> None:
    with pytest.raises(InvalidInputError, match=f"the message is not a {method}Request of the Open Inference Protocol"):
        ask(method, b"\xff")
    assert supervisor.asked == []


LOAD = pb.RepositoryModelLoadRequest(model_name="m")


@pytest.mark.parametrize("request_fields", [{"model_name": "m"}, {"repository_name": "m"}])
def test_the_supervisor_is_asked_to_load(ask: Any, supervisor: Supervisor, request_fields: dict[str, str]) -> None:
    message = pb.RepositoryModelLoadRequest(**request_fields).SerializeToString()
    call = ask("RepositoryModelLoad", message)
    assert supervisor.asked == [("RepositoryModelLoad", message, call)]


@pytest.mark.parametrize("method", ["RepositoryModelLoad", "RepositoryModelUnload"])
def test_who_has_no_right_loads_nothing(ask: Any, supervisor: Supervisor, method: str) -> None:
    with pytest.raises(DeniedError, match=r"grpc\.allow_control"):
        ask(method, LOAD, allows_control=False)
    assert supervisor.asked == []


def with_parameter(name: str) -> pb.RepositoryModelLoadRequest:
    request = pb.RepositoryModelLoadRequest(model_name="m")
    request.parameters[name].string_param = "{}"
    return request


@pytest.mark.parametrize(
    ("method", "request_", "error", "said"),
    [
        ("RepositoryModelLoad", pb.RepositoryModelLoadRequest(), InvalidInputError, "names no model"),
        ("RepositoryModelLoad", with_parameter("config"), UnsupportedError, "without parameters, got 'config'"),
        ("RepositoryModelUnload", LOAD, UnsupportedError, "when its source no longer has it"),
    ],
)
def test_what_sources_decide_is_refused(
    ask: Any, supervisor: Supervisor, method: str, request_: Any, error: type[PenstockError], said: str
) -> None:
    with pytest.raises(error, match=said):
        ask(method, request_)
    assert supervisor.asked == []


def tracing(model_name: str = "", **values: str | None) -> pb.TraceSettingRequest:
    """A request to set these; None sends no value, as Triton's clients do to go back to the start's."""
    request = pb.TraceSettingRequest(model_name=model_name)
    for name, value in values.items():
        request.settings[name].value.extend([] if value is None else [value])
    return request


@pytest.fixture
def spans(tmp_path: Path) -> SpanFile:
    span_file.create(tmp_path / "spans", 1, 0.01)
    return SpanFile(tmp_path / "spans")


@pytest.mark.parametrize(
    ("before", "settings", "level", "rate"),
    [
        ({}, {}, "TIMESTAMPS", "100"),
        ({}, {"trace_rate": "1"}, "TIMESTAMPS", "1"),
        ({}, {"trace_rate": "0"}, "TIMESTAMPS", "0"),
        ({}, {"trace_level": "OFF"}, "OFF", "100"),
        ({"trace_level": "OFF"}, {"trace_rate": "7"}, "OFF", "7"),
        ({"trace_level": "OFF"}, {"trace_level": "TIMESTAMPS"}, "TIMESTAMPS", "100"),
        ({"trace_level": "OFF", "trace_rate": "7"}, {"trace_level": None, "trace_rate": None}, "TIMESTAMPS", "100"),
        ({}, {"trace_mode": "opentelemetry", "trace_count": "-1", "trace_file": None}, "TIMESTAMPS", "100"),
    ],
)
def test_what_is_traced_is_set_for_all_workers(
    ask: Any, spans: SpanFile, before: dict[str, str], settings: dict[str, str | None], level: str, rate: str
) -> None:
    ask("TraceSetting", tracing(**before), spans=spans)
    call = ask("TraceSetting", tracing(**settings), spans=spans)
    reply = pb.TraceSettingResponse.FromString(call.answer)
    assert [list(reply.settings[name].value) for name in ("trace_level", "trace_rate")] == [[level], [rate]]
    assert spans.is_on == (level == "TIMESTAMPS")
    assert spans.share == (round(PLACES / int(rate)) if int(rate) else 0)


@pytest.mark.parametrize(
    ("request_", "error", "said"),
    [
        (tracing(trace_rate="often"), InvalidInputError, "trace_rate is 'often', expected a whole number"),
        (tracing(trace_rate="-1"), InvalidInputError, "trace_rate is '-1'"),
        (tracing(trace_rate=str(1 << 40)), InvalidInputError, "trace_rate is '1099511627776'"),
        (tracing(trace_rate="\u0663"), InvalidInputError, "trace_rate is"),
        (tracing(trace_level="TENSORS"), InvalidInputError, "expected TIMESTAMPS or OFF"),
        (
            tracing(trace_file="/x"),
            UnsupportedError,
            "trace_file cannot be '/x'; trace_level and trace_rate can be set",
        ),
        (tracing(other=None), UnsupportedError, "the trace setting other cannot be"),
        (tracing("m", trace_rate="1"), UnsupportedError, "leave model_name empty"),
    ],
)
def test_what_cannot_be_set_changes_nothing(
    ask: Any, spans: SpanFile, request_: pb.TraceSettingRequest, error: type[PenstockError], said: str
) -> None:
    request_.settings["trace_level"].value[:] = request_.settings["trace_level"].value or ["OFF"]
    with pytest.raises(error, match=said):
        ask("TraceSetting", request_, spans=spans)
    assert (spans.is_on, spans.share) == (True, round(PLACES / 100))


def test_who_has_no_right_sets_nothing(ask: Any, spans: SpanFile) -> None:
    with pytest.raises(DeniedError, match=r"grpc\.allow_control"):
        ask("TraceSetting", tracing(trace_rate="1"), spans=spans, allows_control=False)
    assert spans.share == round(PLACES / 100)


@pytest.mark.parametrize("model", ["", "m"])
def test_trace_settings_are_shown_and_stay(ask: Any, model: str) -> None:
    reply = pb.TraceSettingResponse.FromString(ask("TraceSetting", pb.TraceSettingRequest(model_name=model)).answer)
    assert {name: list(one.value) for name, one in reply.settings.items()} == {
        "trace_level": ["OFF"], "trace_rate": ["0"], "trace_count": ["-1"], "log_frequency": ["0"], "trace_file": [""],
        "trace_mode": ["opentelemetry"],
    }  # fmt: skip
    with pytest.raises(InvalidInputError, match=r"without tracing\.endpoint"):
        ask("TraceSetting", tracing(trace_level="TIMESTAMPS"))
    with pytest.raises(NotFoundError, match="'z' is not served"):
        ask("TraceSetting", pb.TraceSettingRequest(model_name="z"))


def test_the_supervisor_is_asked_for_log_settings(ask: Any, supervisor: Supervisor) -> None:
    request = pb.LogSettingsRequest()
    ask("LogSettings", request, allows_control=False)
    request.settings["log_verbose_level"].uint32_param = 1
    ask("LogSettings", request)
    assert [(method, message) for method, message, _ in supervisor.asked] == [
        ("LogSettings", b""),
        ("LogSettings", request.SerializeToString()),
    ]
    with pytest.raises(DeniedError, match=r"log settings .*grpc\.allow_control"):
        ask("LogSettings", request, allows_control=False)
    assert len(supervisor.asked) == 2


@pytest.mark.parametrize("kind", ["System", "Cuda"])
@pytest.mark.parametrize("verb", ["Status", "Register", "Unregister"])
def test_shared_memory_is_refused(ask: Any, kind: str, verb: str) -> None:
    with pytest.raises(UnsupportedError, match="send tensors in messages"):
        ask(f"{kind}SharedMemory{verb}", b"\x0a\x01r")
