from collections.abc import Callable
from typing import Any

import pytest

from penstock import inference_pb2 as pb
from penstock_server.call import Call
from penstock_server.errors import InvalidInputError, NotFoundError, NotReadyError, PenstockError
from penstock_server.prediction.predictor import Predictor
from penstock_server.services.triton import triton_methods

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

    def send(method: str, request: Any) -> Any:
        call = fake_call()
        methods = triton_methods(predictor, supervisor, workers=3)
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


@pytest.mark.parametrize("method", ["ModelConfig", "ModelStatistics"])
def test_what_is_no_message_is_refused(ask: Any, supervisor: Supervisor, method: str) -> None:
    with pytest.raises(InvalidInputError, match=f"the message is not a {method}Request of the Open Inference Protocol"):
        ask(method, b"\xff")
    assert supervisor.asked == []
