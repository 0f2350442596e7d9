"""Takes a `ModelInfer` message to an executor: parse, route, decode, admit.

It runs on the reactor's thread and reads one routing table per request. It answers only refusals; executors answer the
rest.
"""

from math import inf
from typing import Any, Final

from penstock.inference_pb2 import ModelInferRequest
from penstock.names import PARAMETER_EXTRA_COLUMNS
from penstock_server.batching.priorities import DEFAULT, LOWEST
from penstock_server.call import Call
from penstock_server.clock import Clock
from penstock_server.errors import DeadlinePassedError, InvalidInputError, PenstockError
from penstock_server.metrics.recorder import Recorder
from penstock_server.parse import OPEN_INFERENCE, parse
from penstock_server.prediction.decode import DecodedRows
from penstock_server.prediction.encode import Choice
from penstock_server.prediction.executor import Executor, PendingRequest, refuse
from penstock_server.prediction.parse_cache import CachedRequest, ParseCache
from penstock_server.prediction.routing_table import RoutingTable

_CHOICE: Final = "parameter_choice"
_INTEGERS: Final = ("int64_param", "uint64_param")
_STRINGS: Final = ("string_param",)
_KNOWN: Final[dict[str, tuple[str, ...]]] = {
    "routing_key": _STRINGS,
    "timeout": _INTEGERS,
    "priority": _INTEGERS,
    PARAMETER_EXTRA_COLUMNS: _STRINGS,
    "triton_enable_empty_final_response": ("bool_param",),
}
"""The request parameters that mean something here, with the types that may carry them."""
_SEQUENCES: Final = frozenset({"sequence_id", "sequence_start", "sequence_end"})


class Predictor:
    """Admits requests to executors.

    Attributes:
        routing_table: what is served now; swapped by assignment.
    """

    def __init__(self, *, clock: Clock, report: Recorder) -> None:
        self.routing_table = RoutingTable()
        self._clock = clock
        self._report = report
        self._cache = ParseCache()

    def infer(self, message: bytes, call: Call) -> None:
        """Admits one request; its call is answered later, or at once with an error."""
        arrived_s = self._clock()
        report = self._report
        try:
            cached = self._cache.find(message)
            request = parse(ModelInferRequest, message, OPEN_INFERENCE) if cached is None else cached.request
            executor = self._executor(request) if cached is None else self._executor_of(cached)
            report = executor.report
            deadline_s = call.deadline_s
            priority = DEFAULT
            if deadline_s != inf or request.parameters:
                deadline_s = _deadline(request, deadline_s, arrived_s)
                priority = _priority(request)
            decoded, chosen = self._decoded(executor, message, request, cached)
            pending = PendingRequest(
                executor,
                call,
                decoded,
                arrived_s=arrived_s,
                deadline_s=deadline_s,
                request_id=request.id,
                chosen=chosen,
                priority=priority,
                size_bytes=len(message),
            )
            call.pending = pending
            executor.submit(pending)
        except PenstockError as error:
            refuse(call, report, error)

    def _executor(self, request: ModelInferRequest) -> Executor:
        key = request.id
        if request.parameters:
            key = _checked_parameters(request.parameters) or key
        return self.routing_table.model(request.model_name).resolve(request.model_version, key)

    def _executor_of(self, cached: CachedRequest) -> Executor:
        return self.routing_table.model(cached.model).resolve(cached.version, "")

    def _decoded(
        self, executor: Executor, message: bytes, request: ModelInferRequest, cached: CachedRequest | None
    ) -> tuple[DecodedRows, Choice]:
        """The request's rows and chosen outputs; decoded in full unless this version decoded one like it before."""
        if cached is None:
            cached = self._cache.put(message, request)
        elif cached.decoder is executor.decoder:
            decoded = executor.decoder.decode_like(request, cached.rows, message[cached.size :])
            if decoded is not None:
                return decoded, cached.chosen
            request = parse(ModelInferRequest, message, OPEN_INFERENCE)
        else:
            request = parse(ModelInferRequest, message, OPEN_INFERENCE)
        decoded = executor.decoder.decode(request)
        chosen = _chosen(request, executor) if request.outputs else None
        if cached is not None:
            cached.set_decoded(executor.decoder, decoded.rows, chosen)
        return decoded, chosen


def _deadline(request: ModelInferRequest, deadline_s: float, now_s: float) -> float:
    """The sooner of the call's deadline and the request's own `timeout` in microseconds."""
    if request.parameters and "timeout" in request.parameters:
        timeout_us = _value(request.parameters["timeout"])
        if timeout_us > 0:
            deadline_s = min(deadline_s, now_s + timeout_us * 1e-6)
    if deadline_s <= now_s:
        raise DeadlinePassedError("the deadline had passed when the request arrived")
    return deadline_s


def _priority(request: ModelInferRequest) -> int:
    """The request's level: 1 is served first and 9 last; 0, or none, is the middle."""
    if not request.parameters or "priority" not in request.parameters:
        return DEFAULT
    priority = _value(request.parameters["priority"])
    if not 0 <= priority <= LOWEST:
        raise InvalidInputError(f"parameter 'priority' is {priority}, expected 0 to {LOWEST}")
    return priority or DEFAULT


def _checked_parameters(parameters: Any) -> str:
    """Refuses parameters that ask for what is not served, and returns the routing key, "" for none."""
    for name, parameter in parameters.items():
        choice = parameter.WhichOneof(_CHOICE)
        if name in _KNOWN:
            if choice not in _KNOWN[name]:
                raise InvalidInputError(f"parameter {name!r} is a {choice}, expected {' or '.join(_KNOWN[name])}")
        elif name in _SEQUENCES and getattr(parameter, choice or "", None):
            raise InvalidInputError(f"parameter {name!r} asks for a stateful sequence, which is not served")
        elif name.startswith("triton_"):
            raise InvalidInputError(f"parameter {name!r} is reserved and not known here")
    return parameters["routing_key"].string_param if "routing_key" in parameters else ""


def _value(parameter: Any) -> int:
    value: int = getattr(parameter, parameter.WhichOneof(_CHOICE))
    return value


def _chosen(request: ModelInferRequest, executor: Executor) -> Choice:
    chosen = []
    for output in request.outputs:
        at = executor.output_at.get(output.name)
        if at is None:
            known = ", ".join(repr(name) for name in executor.output_at)
            raise InvalidInputError(f"unknown output {output.name!r}; expected some of {known}")
        if output.parameters and "classification" in output.parameters:
            raise InvalidInputError(
                f"output {output.name!r} asks for a classification, which is not served; read the scores"
            )
        if output.parameters and "shared_memory_region" in output.parameters:
            raise InvalidInputError(f"output {output.name!r} asks for shared memory, which is not supported")
        chosen.append(at)
    return tuple(chosen)
