"""What each gRPC method takes: the right to do what, and on which model its message says.

A method that is not listed takes the right to control the whole server, so that a new one is open to nobody by oversight.
Which model a message names is read as the service's own parser reads it: where two readers differ, a caller could ask for
one model and get another.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from penstock import inference_pb2 as pb
from penstock import penstock_pb2
from penstock.names import (
    CONTROL_SERVICE,
    DRIFT_STATE_METHOD,
    FEEDBACK_METHOD,
    FEEDBACK_MODEL,
    FEEDBACK_MODELS,
    FEEDBACK_STREAM_METHOD,
    HEALTH_SERVICE,
    INFER_METHOD,
    INFERENCE_SERVICE,
    LOAD_METHOD,
    PARAMETER_MODEL,
    REFLECTION_SERVICES,
    ROLLOUT_COMMAND_METHOD,
    ROLLOUT_STATE_METHOD,
    STATISTICS_METHOD,
)
from penstock.wire import BYTES, MalformedError, read_field
from penstock_server.access.policy import EVERY_MODEL, NO_MODEL
from penstock_server.access.settings import Verb
from penstock_server.parse import OPEN_INFERENCE, parse, parse_small

_FIELDS: Final = 64
"""So many fields of a message are looked at here; protobuf reads those with more, which is faster then."""


@dataclass(frozen=True, slots=True)
class Need:
    """What a call takes; nothing, if the verb is None."""

    verb: Verb | None
    model: str | None


NOTHING: Final = Need(None, NO_MODEL)
Asking = Callable[[bytes], Need]
"""From a call's message to what it takes; raises `InvalidInputError` if it cannot be read."""


def need_of(path: str, message: bytes) -> Need:
    """What a call of a method with this message takes."""
    asking = NEEDS.get(path)
    return Need("control", EVERY_MODEL) if asking is None else asking(message)


def model_of(message: bytes) -> str:
    """The model that a `ModelInferRequest` names: its first field, of which the last counts if there are several."""
    name, at, end = b"", 0, len(message)
    try:
        for _ in range(_FIELDS):
            if at >= end:
                return name.decode()
            number, kind, first, stop, at = read_field(message, at, end)
            if number == 1 and kind == BYTES:
                name = message[first:stop]
    except (MalformedError, UnicodeDecodeError):
        pass  # protobuf says whether this is a message, and what it names
    # Of any message whose first field is a text, this one keeps that and passes over the rest.
    return parse(pb.ModelReadyRequest, message, OPEN_INFERENCE).name


def _infer(message: bytes) -> Need:
    model = model_of(message)
    return Need("infer", model) if model != FEEDBACK_MODEL else _labels(message)


def _labels(message: bytes) -> Need:
    """Of a request to the reserved model that takes labels: the right to give them for the one model that it names."""
    request = parse(pb.ModelInferRequest, message, OPEN_INFERENCE)
    if any(tensor.name == FEEDBACK_MODELS for tensor in request.inputs) or PARAMETER_MODEL not in request.parameters:
        return Need("feedback", EVERY_MODEL)
    return Need("feedback", request.parameters[PARAMETER_MODEL].string_param or EVERY_MODEL)


def _feedback(message: bytes) -> Need:
    request = parse(penstock_pb2.FeedbackRequest, message, CONTROL_SERVICE)
    named = {request.model, *request.models} - {""}
    return Need("feedback", named.pop() if len(named) == 1 and not request.passed_on else EVERY_MODEL)


def _read_named(message: bytes) -> Need:
    """Of messages whose first field is the model's name, "" for all."""
    name = parse_small(pb.ModelReadyRequest, message, OPEN_INFERENCE).name
    # What takes labels is told to all who may read anything.
    return Need("read", NO_MODEL if name == FEEDBACK_MODEL else name or EVERY_MODEL)


def _read_something(_message: bytes) -> Need:
    return Need("read", NO_MODEL)


def _read_everything(_message: bytes) -> Need:
    return Need("read", EVERY_MODEL)


def _nothing(_message: bytes) -> Need:
    return NOTHING


def _health(message: bytes) -> Need:
    """Probes of the server are open; a model's name is told to those who may read it."""
    service = parse_small(pb.ModelReadyRequest, message, HEALTH_SERVICE).name
    return NOTHING if service in ("", INFERENCE_SERVICE) else Need("read", service)


def _control_named(kind: Any) -> Asking:
    def need(message: bytes) -> Need:
        request = parse_small(kind, message, OPEN_INFERENCE)
        return Need("control", request.model_name or request.repository_name or EVERY_MODEL)

    return need


def _rollout_command(message: bytes) -> Need:
    request = parse_small(penstock_pb2.RolloutCommandRequest, message, CONTROL_SERVICE)
    return Need("control", request.model or EVERY_MODEL)


def _trace(message: bytes) -> Need:
    request = parse_small(pb.TraceSettingRequest, message, OPEN_INFERENCE)
    return Need("control" if request.settings else "read", request.model_name or EVERY_MODEL)


def _log_settings(message: bytes) -> Need:
    request = parse_small(pb.LogSettingsRequest, message, OPEN_INFERENCE)
    return Need("control", EVERY_MODEL) if request.settings else Need("read", NO_MODEL)


def _paths(service: str, methods: Mapping[str, Asking]) -> dict[str, Asking]:
    return {f"/{service}/{name}": asking for name, asking in methods.items()}


NEEDS: Final[Mapping[str, Asking]] = {
    **_paths(
        INFERENCE_SERVICE,
        {
            INFER_METHOD: _infer,
            "ModelStreamInfer": _infer,
            "ServerLive": _nothing,
            "ServerReady": _nothing,
            "ServerMetadata": _read_something,
            "ModelReady": _read_named,
            "ModelMetadata": _read_named,
            "ModelConfig": _read_named,
            STATISTICS_METHOD: _read_named,
            "RepositoryIndex": _read_everything,
            LOAD_METHOD: _control_named(pb.RepositoryModelLoadRequest),
            "RepositoryModelUnload": _control_named(pb.RepositoryModelUnloadRequest),
            "TraceSetting": _trace,
            "LogSettings": _log_settings,
        },
    ),
    **_paths(
        CONTROL_SERVICE,
        {
            DRIFT_STATE_METHOD: _read_named,
            FEEDBACK_METHOD: _feedback,
            FEEDBACK_STREAM_METHOD: _feedback,
            ROLLOUT_STATE_METHOD: _read_named,
            ROLLOUT_COMMAND_METHOD: _rollout_command,
        },
    ),
    **_paths(HEALTH_SERVICE, {"Check": _health, "Watch": _health}),
    **{f"/{service}/ServerReflectionInfo": _read_something for service in REFLECTION_SERVICES},
}
CONTROLS: Final = frozenset(
    f"/{INFERENCE_SERVICE}/{name}" for name in (LOAD_METHOD, "RepositoryModelUnload", "TraceSetting", "LogSettings")
) | {f"/{CONTROL_SERVICE}/{ROLLOUT_COMMAND_METHOD}"}
"""The methods whose calls may change something, each of which leaves a line in the log then."""
