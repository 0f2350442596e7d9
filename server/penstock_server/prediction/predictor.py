"""Takes a `ModelInfer` message to an executor: parse, route, decode, admit.

It runs on the reactor's thread and reads one routing table per request. It answers only refusals; executors answer the
rest. A large message is parsed and decoded on a model thread, since that takes as long as a batch or longer.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import Any, Final

import structlog

from penstock.inference_pb2 import ModelInferRequest
from penstock.names import ATTRIBUTIONS, PARAMETER_CLASSIFICATION, PARAMETER_EXPLAIN, PARAMETER_EXTRA_COLUMNS
from penstock_server.batching.policy import RequestPolicy
from penstock_server.batching.priorities import DEFAULT, LOWEST
from penstock_server.call import Call
from penstock_server.clock import Clock
from penstock_server.errors import (
    DeadlinePassedError,
    InvalidInputError,
    OverloadedError,
    PenstockError,
    StandbyError,
    UnsupportedError,
)
from penstock_server.labels.prediction_file import NAMED, Route
from penstock_server.metrics.recorder import Recorder
from penstock_server.parse import OPEN_INFERENCE, parse
from penstock_server.plain.lane import Form, Lane
from penstock_server.plain.requests import MAX_BYTES, Canaries, PlainRequests, Target
from penstock_server.prediction.answerer import PASSED, PendingRequest, refuse
from penstock_server.prediction.classification import TopClasses
from penstock_server.prediction.decode import DecodedRows
from penstock_server.prediction.encode import Choice
from penstock_server.prediction.executor import LARGE_BYTES, Executor
from penstock_server.prediction.kept_batches import KeptBatches
from penstock_server.prediction.model_thread import ModelThread
from penstock_server.prediction.parse_cache import CachedRequest, ParseCache
from penstock_server.prediction.plain_batches import PlainBatches, ReadRequest
from penstock_server.prediction.routing_table import RoutingTable, ServedModel
from penstock_server.prediction.waiting_room import WaitingRoom
from penstock_server.rollout.plan import TrafficPlan, salt_of
from penstock_server.tracing.tracer import Trace, Tracer
from penstock_server.transport.interface import PlainPort, UnaryHandler

log = structlog.get_logger(__name__)

_CHOICE: Final = "parameter_choice"
_INTEGERS: Final = ("int64_param", "uint64_param")
_STRINGS: Final = ("string_param",)
_KNOWN: Final[dict[str, tuple[str, ...]]] = {
    "routing_key": _STRINGS,
    "timeout": _INTEGERS,
    "priority": _INTEGERS,
    PARAMETER_EXTRA_COLUMNS: _STRINGS,
    PARAMETER_EXPLAIN: ("bool_param",),
    "triton_enable_empty_final_response": ("bool_param",),
}
"""The request parameters that mean something here, with the types that may carry them."""
MOST_BYTES: Final = 1 << 28
"""Large messages that may be decoded at once; each of them takes its size again as rows."""
QUICK_BYTES: Final = 1 << 20
"""A message up to this size that is like one before is not handed to the thread: its rows are copied in 100 us."""
_SEQUENCES: Final = frozenset({"sequence_id", "sequence_start", "sequence_end"})


class HeldMessage:
    """A call whose message is decoded on a thread, or waits for its model: it can be cancelled meanwhile."""

    __slots__ = ("arrived_s", "call", "is_left", "message", "report", "trace")

    def __init__(
        self, message: bytes, call: Call, report: Recorder, arrived_s: float, trace: Trace | None = None
    ) -> None:
        self.trace = trace
        self.message = message
        self.call = call
        self.report = report
        self.arrived_s = arrived_s
        self.is_left = False

    def cancelled(self) -> None:
        """Gives the request up: its caller left."""
        self.is_left = True
        self.report.refused("cancelled")
        if self.trace is not None:
            self.trace.cancelled(0)


@dataclass(frozen=True, slots=True)
class Decoded:
    """A large message as the thread gives it back.

    Attributes:
        routing_table: by which it was routed.
        executor: of the version that it asks for.
        routing_key: by which it was routed; "" for none.
        outcome: its rows and chosen outputs, or why it is refused.
        cache_key: under which its answer is kept; empty where none is kept.
    """

    routing_table: RoutingTable
    request: ModelInferRequest
    executor: Executor
    routing_key: str
    outcome: tuple[DecodedRows, Choice] | PenstockError
    cache_key: bytes = b""


class Predictor:
    """Admits requests to executors.

    Args:
        thread: decodes large messages, and posts to the reactor; None decodes them on the reactor.
        most_bytes: of large messages that may be decoded at once.
        tracer: decides which requests are traced; None where none is.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        report: Recorder,
        thread: ModelThread | None = None,
        most_bytes: int = MOST_BYTES,
        tracer: Tracer | None = None,
    ) -> None:
        self._tracer = tracer
        self._routing_table = RoutingTable()
        self._clock = clock
        self._report = report
        self._cache = ParseCache()
        self._thread = thread
        self._most_bytes = most_bytes
        self._decoding_bytes = 0
        self._plain: PlainForms | None = None
        self._room: WaitingRoom | None = None

    @property
    def routing_table(self) -> RoutingTable:
        """What is served now; swapped by assignment. What is known of requests is kept for models that it routes as before."""
        return self._routing_table

    @routing_table.setter
    def routing_table(self, routing_table: RoutingTable) -> None:
        rerouted = routing_table.rerouted(self._routing_table)
        self._routing_table = routing_table
        # Its entries would keep decoders of versions that are no longer loaded.
        self._cache.forget(rerouted)
        if self._plain is not None:
            self._plain.forget(rerouted)

    def infer(self, message: bytes, call: Call) -> None:
        """Admits one request; its call is answered later, or at once with an error."""
        arrived_s = self._clock()
        self._infer(message, call, arrived_s, None if self._tracer is None else self._tracer.begin(call, arrived_s))

    def _infer(self, message: bytes, call: Call, arrived_s: float, trace: Trace | None) -> None:
        if len(message) > LARGE_BYTES and self._thread is not None and not self._is_quick(message):
            self._infer_large(self._thread, HeldMessage(message, call, self._report, arrived_s, trace))
            return
        report, subject, is_named, key = self._report, 0, False, ""
        try:
            cached = self._cache.find(message)
            request = parse(ModelInferRequest, message, OPEN_INFERENCE) if cached is None else cached.request
            if cached is None:
                key = _routing_key(request)
                executor = _executor(request, key, self._routing_table)
            else:
                executor = self._executor_of(cached)
            report, subject = executor.report, executor.subject
            route = _route(request, executor)
            is_named = route.is_named
            if not is_named:
                report.routed()
            deadline_s = call.deadline_s
            priority = DEFAULT
            if deadline_s != inf or request.parameters or executor.policy is not None:
                deadline_s = _deadline(request, deadline_s, arrived_s, executor.policy)
                priority = _priority(request, executor.policy)
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
                trace=trace,
                route=route,
                routing_key=key,
            )
            call.pending = pending
            executor.submit(pending)
            if self._plain is not None and len(message) <= MAX_BYTES:
                self._plain.learn(message, executor, self._routing_table, chosen)
        except StandbyError as error:
            self._wait(error, HeldMessage(message, call, self._report, arrived_s, trace), request)
        except PenstockError as error:
            refuse(call, report, error, trace, subject, is_named=is_named, key=key)

    def take_plain(self, plain: "PlainForms") -> None:
        """Has requests that are like one before them taken by kernels from now on."""
        self._plain = plain

    def take_room(self, room: WaitingRoom) -> None:
        """Has calls wait for models that are not in memory."""
        self._room = room

    def when_loaded(self, handler: UnaryHandler) -> UnaryHandler:
        """A handler that waits for its model as requests do, where they do."""

        def handle(message: bytes, call: Call, since_s: float | None = None) -> None:
            try:
                handler(message, call)
            except StandbyError as error:
                if self._room is None:
                    raise
                error.__traceback__ = None
                since_s = self._clock() if since_s is None else since_s
                self._room.admit(
                    error,
                    call,
                    retry=partial(self._again, handle, message, call, since_s),
                    refuse=call.fail,
                    left=_nothing,
                    since_s=since_s,
                    deadline_s=call.deadline_s,
                    size_bytes=len(message),
                )

        return handle

    def _again(self, handle: Callable[[bytes, Call, float], None], message: bytes, call: Call, since_s: float) -> None:
        try:
            handle(message, call, since_s)
        except PenstockError as error:
            call.fail(error)

    def _wait(self, standby: StandbyError, waiting: HeldMessage, request: ModelInferRequest | None = None) -> None:
        """Has a request wait until its model is in memory; refuses it where none waits."""
        call, arrived_s, trace = waiting.call, waiting.arrived_s, waiting.trace
        if self._room is None:
            refuse(call, self._report, standby, trace)
            return
        deadline_s = call.deadline_s
        if request is not None:
            try:
                deadline_s = _deadline(request, deadline_s, arrived_s, None)
            except DeadlinePassedError:
                deadline_s = arrived_s  # the room refuses it
        standby.__traceback__ = None  # its frames hold the request
        self._room.admit(
            standby,
            call,
            retry=partial(self._infer, waiting.message, call, arrived_s, trace),
            refuse=lambda error: refuse(call, self._report, error, trace),
            left=waiting.cancelled,
            since_s=arrived_s,
            deadline_s=deadline_s,
            size_bytes=len(waiting.message),
        )

    def _is_quick(self, message: bytes) -> bool:
        """Whether a large message is like one before it: then its contents need no parsing, and nobody hashes them."""
        cached = self._cache.find(message) if len(message) <= QUICK_BYTES else None
        model = None if cached is None else self._routing_table.models.get(cached.model)
        return cached is not None and (model is None or not model.keeps_answers)

    def _infer_large(self, thread: ModelThread, large: HeldMessage) -> None:
        """Decodes a large message on the thread; `_admit_large` takes what comes back."""
        call = large.call
        size = len(large.message)
        if self._decoding_bytes + size > self._most_bytes and self._decoding_bytes:
            waiting = f"{self._decoding_bytes:,} bytes of large messages are being decoded"
            refuse(call, self._report, OverloadedError(f"{waiting}; try again later"), large.trace)
            return
        self._decoding_bytes += size
        call.pending = large
        call.watch()
        # The routing table never changes, and decoders keep no state: both may be read there.
        thread.start(partial(_decoded, large.message, self._routing_table), partial(self._admit_large, thread, large))

    def _admit_large(self, thread: ModelThread, large: HeldMessage, decoded: Decoded | PenstockError) -> None:
        self._decoding_bytes -= len(large.message)
        call = large.call
        if large.is_left or call.is_over:
            return
        # An error that came in a value is never raised: its traceback would hold the frame that holds the value.
        if isinstance(decoded, StandbyError):
            self._wait(decoded, large)
            return
        if isinstance(decoded, PenstockError):
            refuse(call, self._report, decoded, large.trace)
            return
        executor, is_refused = decoded.executor, isinstance(decoded.outcome, PenstockError)
        if not is_refused and executor.is_ending and decoded.routing_table is not self._routing_table:
            # A promotion came between: another version answers, and may take its rows in another form.
            self._infer_large(thread, large)
            return
        is_named = _route(decoded.request, executor).is_named
        if not is_named:
            executor.report.routed()
        refused = decoded.outcome
        if not isinstance(refused, PenstockError):
            try:
                call.pending = pending = self._pending(large, decoded, *refused)
                executor.submit(pending)
                return
            except PenstockError as error:
                refused = error
        executor.refuse_call(call, refused, large.trace, is_named=is_named, key=decoded.routing_key)

    def _pending(self, large: HeldMessage, decoded: Decoded, rows: DecodedRows, chosen: Choice) -> PendingRequest:
        request, executor = decoded.request, decoded.executor
        if len(large.message) <= QUICK_BYTES and (cached := self._cache.put(large.message, request)) is not None:
            cached.set_decoded(executor.decoder, rows.rows, chosen)
        return PendingRequest(
            executor,
            large.call,
            rows,
            arrived_s=large.arrived_s,
            deadline_s=_deadline(request, large.call.deadline_s, large.arrived_s, executor.policy),
            request_id=request.id,
            chosen=chosen,
            priority=_priority(request, executor.policy),
            size_bytes=len(large.message),
            cache_key=decoded.cache_key,
            trace=large.trace,
            route=_route(request, executor),
            routing_key=decoded.routing_key,
        )

    def _executor_of(self, cached: CachedRequest) -> Executor:
        executor = self._routing_table.model(cached.model).resolve(cached.version, "")
        return _explaining(executor) if cached.explains else executor

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


class PlainForms:
    """Finds out which requests are plain, and has kernels take those that follow.

    Args:
        requests: the plans and lanes of this worker.
        port: the transport.
    """

    def __init__(self, requests: PlainRequests, port: PlainPort) -> None:
        self._requests = requests
        self._port = port

    def forget(self, models: Collection[str]) -> None:
        """Forgets the forms of requests for these models: other versions answer from now on."""
        self._requests.forget(models)

    def learn(self, message: bytes, executor: Executor, routing_table: RoutingTable, chosen: Choice) -> None:
        """Keeps the form of a request that was admitted."""
        if not executor.can_take_plain or not self._requests.is_new(message):
            return
        request = parse(ModelInferRequest, message, OPEN_INFERENCE)
        plan = _drawn_plan(request, routing_table)
        if plan is not None:
            self._learn_drawn(message, request, routing_table, plan)
        elif (columns := executor.decoder.plain_columns(request)) is None or (
            form := _form(request, chosen, executor)
        ) is None:
            self._requests.learn(message, (), None, None, model=request.model_name)
        elif (lane := self._lane_of(executor)) is not None:
            self._requests.learn(message, columns, lane, form, model=request.model_name)

    def _learn_drawn(
        self, message: bytes, request: ModelInferRequest, routing_table: RoutingTable, plan: TrafficPlan
    ) -> None:
        """Keeps the form of requests of which canaries answer shares: they are plain if they are for all these versions."""
        model = routing_table.model(request.model_name)
        versions = (plan.champion, *(arm.version for arm in plan.weighed))
        targets = [target for version in versions if (target := self._target(request, model, version)) is not None]
        if len(targets) < len(versions):
            self._requests.learn(message, (), None, None, model=model.name)
            return
        shares = [(places.end, versions.index(places.version)) for places in plan.places]
        canaries = Canaries(targets[1:], shares, salt_of(model.name))
        self._requests.learn(message, *targets[0], canaries, model=model.name)

    def _target(self, request: ModelInferRequest, model: ServedModel, version: str | None) -> Target | None:
        """How a version takes requests of a form; None if it takes none that are plain."""
        executor = model.executors.get(version or "")
        if executor is None or not executor.can_take_plain:
            return None
        columns = executor.decoder.plain_columns(request)
        try:
            chosen = _chosen(request, executor) if request.outputs else None
        except PenstockError:
            return None  # the general path says why
        form = _form(request, chosen, executor)
        lane = None if columns is None or form is None else self._lane_of(executor)
        return None if columns is None or form is None or lane is None else Target(columns, lane, form)

    def _lane_of(self, executor: Executor) -> Lane | None:
        """The executor's lane, which is opened for the first form; None if there are too many."""
        if executor.plain_batches is not None:
            return (executor.kept_batches or executor.plain_batches).lane
        sizes, read, give_back = executor.decoder.plain_row_bytes(), partial(_read, executor), self._requests.close_lane
        lane = self._requests.open_lane(sizes, executor.plain_changed)
        if lane is None:
            return None
        plain = PlainBatches(
            executor,
            lane,
            self._port,
            read=read,
            key_of=_key_of,
            run_alone=executor.run_alone,
            give_back=give_back,
            is_threaded=not executor.is_inline,
        )
        if executor.responses is None:
            executor.take_plain(plain)
            return lane
        first = self._requests.open_lane(sizes, executor.plain_came)
        if first is None:
            give_back(lane)
            return None
        kept = KeptBatches(
            executor,
            first,
            self._port,
            read=read,
            key_of=_key_of,
            queue=executor.queue_up,
            give_back=give_back,
            onward=plain,
            responses=executor.responses,
            recent=lambda: executor.recent,
        )
        executor.take_plain(plain, kept)
        return first


def _nothing() -> None:
    """Nobody counts the callers of these methods."""


def _drawn_plan(request: ModelInferRequest, routing_table: RoutingTable) -> TrafficPlan | None:
    """By which plan canaries may answer such a request, by its key or by chance; None if none may."""
    plan = routing_table.model(request.model_name).plan
    return plan if not request.model_version and plan is not None and plan.weighed else None


def _form(request: ModelInferRequest, chosen: Choice, executor: Executor) -> Form | None:
    """What plain requests like this one share, which asks for these outputs; None if one is not to be answered as it is."""
    route = _route(request, executor)
    if chosen is None:
        return Form(None, executor.encoder, route)
    places = tuple(place for place in chosen if isinstance(place, int))
    return Form(places, executor.encoder, route) if len(places) == len(chosen) else None


def _route(request: ModelInferRequest, executor: Executor) -> Route:
    """How a request came to the version of this executor."""
    return NAMED if request.model_version else executor.route


def _read(executor: Executor, message: bytes) -> ReadRequest:
    """A request of a plain form, as the general path reads it."""
    request = parse(ModelInferRequest, message, OPEN_INFERENCE)
    return ReadRequest(request.id, _routing_key(request), executor.decoder.decode(request))


def _key_of(message: bytes) -> str:
    """The routing key of a request of a plain form."""
    return _routing_key(parse(ModelInferRequest, message, OPEN_INFERENCE))


def _routing_key(request: ModelInferRequest) -> str:
    """By what a request is routed: its key, else its id, "" for none; refuses parameters that ask for what is not served."""
    return (_checked_parameters(request.parameters) if request.parameters else "") or request.id


def _executor(request: ModelInferRequest, key: str, routing_table: RoutingTable) -> Executor:
    executor = routing_table.model(request.model_name).resolve(request.model_version, key)
    return _explaining(executor) if _explains(request) else executor


def _explains(request: ModelInferRequest) -> bool:
    """Whether a request wants attributions: by its parameter, or as one of its outputs."""
    parameters = request.parameters
    is_asked = bool(parameters) and PARAMETER_EXPLAIN in parameters and parameters[PARAMETER_EXPLAIN].bool_param
    return is_asked or any(output.name == ATTRIBUTIONS for output in request.outputs)


def _explaining(executor: Executor) -> Executor:
    """The executor of the same version that gives attributions too."""
    if executor.explaining is None:
        model, version = executor.servable.key
        raise UnsupportedError(
            f"model {model!r} version {version} gives no attributions: {executor.servable.unexplained}"
        )
    return executor.explaining


def _decoded(message: bytes, routing_table: RoutingTable) -> Decoded | PenstockError:
    """What a large message asks for, on a thread; raises nothing."""
    try:
        request = parse(ModelInferRequest, message, OPEN_INFERENCE)
        routing_key = _routing_key(request)
        executor = _executor(request, routing_key, routing_table)
        try:
            chosen = _chosen(request, executor) if request.outputs else None
            rows, responses = executor.decoder.decode(request), executor.responses
            key = b"" if responses is None else responses.key(*rows)
            return Decoded(routing_table, request, executor, routing_key, (rows, chosen), key)
        except PenstockError as error:
            return Decoded(routing_table, request, executor, routing_key, error)
    except PenstockError as error:
        return error
    except Exception:
        log.exception("large message failed")
        return PenstockError()


def _deadline(request: ModelInferRequest, deadline_s: float, now_s: float, policy: RequestPolicy | None) -> float:
    """The sooner of the call's deadline and the request's own `timeout` in microseconds, as far as the model takes it."""
    timeout_s = inf
    if request.parameters and "timeout" in request.parameters:
        timeout_us = _value(request.parameters["timeout"])
        if timeout_us > 0:
            timeout_s = timeout_us * 1e-6
    if policy is not None:
        timeout_s = policy.timeout_s_of(timeout_s)
    deadline_s = min(deadline_s, now_s + timeout_s)
    if deadline_s <= now_s:
        raise DeadlinePassedError(PASSED)
    return deadline_s


def _priority(request: ModelInferRequest, policy: RequestPolicy | None) -> int:
    """The request's level: 1 is served first and 9 last; 0, or none, is the middle."""
    if not request.parameters or "priority" not in request.parameters:
        return DEFAULT
    priority = _value(request.parameters["priority"])
    if policy is not None and policy.levels:
        return policy.priority(priority)
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
    chosen: dict[int, int | TopClasses] = {}
    for output in request.outputs:
        at = executor.output_at.get(output.name)
        if at is None:
            known = ", ".join(repr(name) for name in executor.output_at)
            raise InvalidInputError(f"unknown output {output.name!r}; expected some of {known}")
        if output.parameters and "shared_memory_region" in output.parameters:
            raise InvalidInputError(f"output {output.name!r} asks for shared memory, which is not supported")
        if at in chosen:
            raise InvalidInputError(f"output {output.name!r} is asked for twice, expected each output once")
        is_classified = output.parameters and PARAMETER_CLASSIFICATION in output.parameters
        chosen[at] = _top_classes(output, at, executor) if is_classified else at
    if ATTRIBUTIONS in executor.output_at:
        at = executor.output_at[ATTRIBUTIONS]
        chosen[at] = at
    return tuple(chosen.values())


def _top_classes(output: ModelInferRequest.InferRequestedOutputTensor, at: int, executor: Executor) -> TopClasses:
    """The largest values of an output, as the request asks for them."""
    spec, parameter = executor.servable.outputs[at], output.parameters[PARAMETER_CLASSIFICATION]
    choice = parameter.WhichOneof(_CHOICE)
    if choice not in _INTEGERS or (count := _value(parameter)) < 1:
        shown = "empty" if choice is None else f"{getattr(parameter, choice)!r}"
        raise InvalidInputError(
            f"parameter {PARAMETER_CLASSIFICATION!r} of output {output.name!r} is {shown}, expected a whole number from 1"
        )
    if spec.datatype in {"BYTES", "BOOL"}:
        raise InvalidInputError(f"output {output.name!r} is {spec.datatype}, expected numbers for a classification")
    return TopClasses(at, count, is_by_row=executor.servable.is_batched or len(spec.shape) > 1)
