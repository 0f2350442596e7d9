"""Triton's extensions of the Open Inference Protocol, so that its clients and tools find what they know.

What of them is not served is refused in a sentence that says why.
"""

from typing import Final

from penstock import inference_pb2 as pb
from penstock.names import INFERENCE_SERVICE, LOAD_METHOD, LOG_SETTINGS_METHOD, STATISTICS_METHOD
from penstock_server.call import Call
from penstock_server.errors import DeniedError, InvalidInputError, UnsupportedError
from penstock_server.parse import OPEN_INFERENCE, parse_small
from penstock_server.prediction.predictor import Predictor
from penstock_server.services.forwarded import Forward, forwarded
from penstock_server.services.model_config import config_of
from penstock_server.tracing.layout import PLACES
from penstock_server.tracing.span_file import SpanFile
from penstock_server.transport.interface import Methods

EXTENSIONS: Final = ("classification", "model_configuration", "statistics", "trace")
"""What server metadata calls them; clients use what is named there."""
_SHARED_MEMORY: Final = [
    f"{kind}SharedMemory{verb}" for kind in ("System", "Cuda") for verb in ("Status", "Register", "Unregister")
]
_RATE, _LEVEL = "trace_rate", "trace_level"
_ON, _OFF = "TIMESTAMPS", "OFF"
_FIXED: Final = {"trace_count": "-1", "log_frequency": "0", "trace_file": "", "trace_mode": "opentelemetry"}
_MOST_RATE: Final = (1 << 32) - 1


def triton_methods(
    predictor: Predictor,
    forward: Forward,
    *,
    workers: int,
    allows_control: bool,
    spans: SpanFile | None = None,
    sample_ratio: float = 0.0,
) -> Methods:
    """The extensions' methods of `inference.GRPCInferenceService`.

    Args:
        predictor: knows what is served.
        forward: asks the supervisor, which knows all workers and the sources.
        workers: how many there are.
        allows_control: whether callers may have the sources read.
        spans: says which requests all workers trace; None if nothing is traced.
        sample_ratio: the share that the server was started with.
    """
    service = _Extensions(
        predictor,
        forward,
        workers=workers,
        allows_control=allows_control,
        spans=spans,
        sample_ratio=sample_ratio,
    )
    path = f"/{INFERENCE_SERVICE}/"
    asked = forwarded(
        INFERENCE_SERVICE, {STATISTICS_METHOD: pb.ModelStatisticsRequest}, forward, protocol=OPEN_INFERENCE
    )
    return Methods(
        {
            path + "ModelConfig": predictor.when_loaded(service.model_config),
            **asked,
            path + LOAD_METHOD: service.load,
            path + "RepositoryModelUnload": service.unload,
            path + "TraceSetting": service.trace_setting,
            path + LOG_SETTINGS_METHOD: service.log_settings,
            **dict.fromkeys((path + name for name in _SHARED_MEMORY), _refuse_shared_memory),
        },
        {},
    )


class _Extensions:
    def __init__(
        self,
        predictor: Predictor,
        forward: Forward,
        *,
        workers: int,
        allows_control: bool,
        spans: SpanFile | None,
        sample_ratio: float,
    ) -> None:
        self._spans = spans
        self._sample_ratio = sample_ratio
        self._predictor = predictor
        self._forward = forward
        self._workers = workers
        self._allows_control = allows_control

    def model_config(self, message: bytes, call: Call) -> None:
        request = parse_small(pb.ModelConfigRequest, message, OPEN_INFERENCE)
        model = self._predictor.routing_table.model(request.name)
        executor = model.resolve(request.version or "@champion", "")
        call.finish(pb.ModelConfigResponse(config=config_of(model, executor, self._workers)).SerializeToString())

    def load(self, message: bytes, call: Call) -> None:
        request = parse_small(pb.RepositoryModelLoadRequest, message, OPEN_INFERENCE)
        self._check_control()
        if request.parameters:
            given = ", ".join(map(repr, sorted(request.parameters)))
            raise UnsupportedError(f"a model is loaded as its source has it, without parameters, got {given}")
        if not (request.model_name or request.repository_name):
            raise InvalidInputError("the request names no model")
        self._forward(LOAD_METHOD, message, call)

    def unload(self, message: bytes, _call: Call) -> None:
        parse_small(pb.RepositoryModelUnloadRequest, message, OPEN_INFERENCE)
        self._check_control()
        raise UnsupportedError(
            "a model is unloaded when its source no longer has it: remove its alias, or its folder from the model repository"
        )

    def trace_setting(self, message: bytes, call: Call) -> None:
        request = parse_small(pb.TraceSettingRequest, message, OPEN_INFERENCE)
        if request.model_name:
            self._predictor.routing_table.model(request.model_name)
        if request.settings:
            self._set_tracing(request)
        spans = self._spans
        share = 0.0 if spans is None else spans.share / PLACES
        reply = pb.TraceSettingResponse()
        for name, value in {
            _LEVEL: _OFF if spans is None or not spans.is_on else _ON,
            _RATE: str(min(_MOST_RATE, round(1 / share)) if share else 0),
            **_FIXED,
        }.items():
            reply.settings[name].value.append(value)
        call.finish(reply.SerializeToString())

    def _set_tracing(self, request: pb.TraceSettingRequest) -> None:
        """Has all workers trace other requests from now on, until the server ends."""
        self._check_control("trace settings are not changed by calls here")
        spans = self._spans
        if spans is None:
            raise InvalidInputError("nothing is traced, since the server was started without tracing.endpoint")
        if request.model_name:
            raise UnsupportedError("all models are traced alike; leave model_name empty")
        is_on, share = spans.is_on, spans.share / PLACES
        for name, setting in request.settings.items():
            # Triton's clients send no value to go back to what the server was started with.
            value = ",".join(setting.value)
            if name == _LEVEL:
                if value not in ("", _ON, _OFF):
                    raise InvalidInputError(f"{_LEVEL} is {value!r}, expected {_ON} or {_OFF}")
                is_on = value != _OFF
            elif name == _RATE:
                share = _share_of(value) if value else self._sample_ratio
            elif name not in _FIXED or value not in ("", _FIXED[name]):
                raise UnsupportedError(f"the trace setting {name} cannot be {value!r}; {_LEVEL} and {_RATE} can be set")
        spans.set_sampling(is_on=is_on, share=share)

    def log_settings(self, message: bytes, call: Call) -> None:
        request = parse_small(pb.LogSettingsRequest, message, OPEN_INFERENCE)
        if request.settings:
            self._check_control("log settings are not changed by calls here")
        self._forward(LOG_SETTINGS_METHOD, message, call)

    def _check_control(self, what: str = "models are not loaded and unloaded by calls here") -> None:
        if not self._allows_control:
            raise DeniedError(f"{what}; the setting grpc.allow_control allows it")


def _share_of(rate: str) -> float:
    """The share of requests to trace if it is one in so many; 0 for none."""
    if not rate.isascii() or not rate.isdigit() or int(rate) > _MOST_RATE:
        raise InvalidInputError(f"{_RATE} is {rate!r}, expected a whole number: one request in so many, or 0 for none")
    return 1 / int(rate) if int(rate) else 0.0


def _refuse_shared_memory(_message: bytes, _call: Call) -> None:
    raise UnsupportedError(
        "shared memory is not served, since it lets callers read and write what is others'; send tensors in messages"
    )
