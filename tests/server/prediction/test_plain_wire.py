"""Plain requests over the native transport: callers that leave, deadlines, drains and changes of versions, over sockets."""

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from penstock import inference_pb2 as pb
from penstock_server.access.gate import AccessGate
from penstock_server.access.guard import Guard
from penstock_server.batching.limits import BatchLimits
from penstock_server.clock import monotonic
from penstock_server.errors import PenstockError
from penstock_server.kernels import compiled
from penstock_server.metrics.counters import REFUSALS
from penstock_server.metrics.recorder import Recorder
from penstock_server.models.signature import Signature
from penstock_server.plain.kernel_set import KERNELS
from penstock_server.plain.requests import PlainRequests
from penstock_server.prediction.decode import TensorDecoder
from penstock_server.prediction.executor import Executor
from penstock_server.prediction.model_thread import ModelThread
from penstock_server.prediction.predictor import PlainForms, Predictor
from penstock_server.prediction.routing_table import RoutingTable, ServedModel
from penstock_server.prediction.scheduler import BatchScheduler
from penstock_server.rollout.plan import Arm, ShadowArm, TrafficPlan
from penstock_server.services.known_callers import KnownCallers
from penstock_server.transport import layout
from penstock_server.transport.choose import native_transport
from penstock_server.transport.interface import Methods
from penstock_server.transport.kernel_set import KERNELS as TRANSPORT_KERNELS
from penstock_server.transport.settings import TransportSettings
from tests.server.prediction.conftest import reader_of
from tests.server.prediction.plain_world import message, values

INFER = "/inference.GRPCInferenceService/ModelInfer"
TIMEOUT_S = 20.0


class Counting:
    """Plain requests, and how many calls they took."""

    def __init__(self, requests: PlainRequests) -> None:
        self.requests = requests
        self.taken = 0

    def sift(self, events: int, count: int, now_ns: int) -> int:
        left = self.requests.sift(events, count, now_ns)
        self.taken += count - left
        return left

    def stop(self, error: PenstockError, count: Callable[[], None]) -> None:
        self.requests.stop(error, count)

    def give_up(self) -> list[int]:
        return self.requests.give_up()


class Server:
    """A native transport with versions of model m; their batches wait at `gate`, on a thread of each version's own."""

    def __init__(
        self,
        fake_servable: Any,
        new_counters: Any,
        settings: TransportSettings,
        *,
        gate: AccessGate | None = None,
        **limits: Any,
    ) -> None:
        self._fake_servable = fake_servable
        self._new_counters = new_counters
        self._limits = BatchLimits(**limits)
        self.gate = threading.Event()
        self.gate.set()
        self.running = threading.Semaphore(0)
        self.scheduler = BatchScheduler(monotonic)
        self.counters = new_counters()
        self.predictor = Predictor(clock=monotonic, report=Recorder(self.counters))
        guard = Guard(gate)
        methods = guard.guarded(Methods({INFER: self.predictor.infer}, {}))
        self.transport: Any = native_transport(methods, self.scheduler, settings)
        requests = PlainRequests(compiled.library(KERNELS), self.transport.number_of(INFER), self.transport)
        if gate is not None:
            self.asks, self.known = gate, KnownCallers(gate, requests, self.transport)
            guard.admitted = self.known.admitted
        self.transport.sifter = self.plain = Counting(requests)
        self.scheduler.take_plain(requests)
        self.predictor.take_plain(PlainForms(requests, self.transport))
        self.executors: dict[str, Executor] = {}
        self.reports: dict[str, Any] = {}
        self.threads: list[ModelThread] = []
        self.address = f"127.0.0.1:{self.transport.listen_anywhere()}"
        self._thread = threading.Thread(target=self.transport.run)
        self._thread.start()

    def load(self, version: str, *, is_inline: bool = False) -> Executor:
        servable = self._fake_servable(key=("m", version))
        if not is_inline:
            servable.on_run = self._wait
            self.threads.append(ModelThread(f"model-{version}", self.transport.post))
        self.reports[version] = counters = self._new_counters()
        self.executors[version] = executor = Executor(
            servable,
            TensorDecoder(Signature(servable.inputs, servable.outputs, True)),
            limits=self._limits,
            report=Recorder(counters),
            reader=reader_of(servable),
            clock=monotonic,
            activate=self.scheduler.activate,
            thread=None if is_inline else self.threads[-1],
        )
        return executor

    def _wait(self) -> None:
        self.running.release()
        assert self.gate.wait(TIMEOUT_S)

    def on_reactor(self, action: Callable[[], Any]) -> None:
        done = threading.Event()

        def act() -> None:
            try:
                action()
            finally:
                done.set()

        self.transport.post(act)
        assert done.wait(TIMEOUT_S)

    def route(self, plan: TrafficPlan, *versions: str) -> None:
        """Puts a plan in force; those that are served no longer drain."""
        served = {version: self.executors[version] for version in versions}
        gone = [self.executors.pop(version) for version in tuple(self.executors) if version not in served]
        model = ServedModel("m", plan, served)

        def swap() -> None:
            for version, executor in served.items():
                executor.set_role(model.role(version))
            self.predictor.routing_table = RoutingTable({"m": model})
            for executor in gone:
                executor.drain(lambda: None)

        self.on_reactor(swap)

    def refusals(self, version: str = "1") -> dict[str, int]:
        counts = self.reports[version].refusals.tolist()
        return {reason: count for reason, count in zip(REFUSALS, counts, strict=True) if count}

    @property
    def is_clean(self) -> bool:
        """Whether no call waits, and nothing of a plain request is left."""
        tables = self.plain.requests.tables
        return self.plain.requests.is_idle and not tables.entry_of.any() and not self.transport._calls

    def become_clean(self) -> None:
        """Ends of streams come a moment after their callers know of them."""
        until = time.monotonic() + TIMEOUT_S
        while not self.is_clean:
            assert time.monotonic() < until
            time.sleep(0.005)

    def close(self, grace_s: float = 0.0) -> None:
        self.gate.set()
        self.transport.drain(grace_s)
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive()
        for thread in self.threads:
            thread.close()


@pytest.fixture
def serving(fake_servable: Any, new_counters: Any) -> Callable[..., Any]:
    compiled.ensure_compiled(TRANSPORT_KERNELS)

    @contextmanager
    def start(*, is_inline: bool = False, tls: Path | None = None, **limits: Any) -> Iterator[tuple[Server, Any]]:
        settings = TransportSettings()
        if tls is not None:
            settings = TransportSettings(tls_certificate=tls / "server.pem", tls_key=tls / "server.key")
        server = Server(fake_servable, new_counters, settings, **limits)
        server.load("1", is_inline=is_inline)
        server.route(TrafficPlan("1"), "1")
        with _channel(server.address, tls) as channel:
            call = channel.unary_unary(INFER, request_serializer=bytes, response_deserializer=bytes)
            call(message([0, 0]), timeout=TIMEOUT_S)  # its form is known now
            server.running.acquire(timeout=0)
            try:
                yield server, call
            finally:
                server.close()

    return start


def _channel(address: str, tls: Path | None) -> Any:
    if tls is None:
        return grpc.insecure_channel(address)
    return grpc.secure_channel(address, grpc.ssl_channel_credentials((tls / "server.pem").read_bytes()))


def code_of(future: Any) -> Any:
    with pytest.raises((grpc.RpcError, grpc.FutureCancelledError)):
        future.result(TIMEOUT_S)
    return future.code()


@pytest.mark.long
@pytest.mark.parametrize("is_inline", [True, False])
def test_many_callers_get_their_own_answers(serving: Any, is_inline: bool) -> None:
    with serving(is_inline=is_inline) as (server, call), ThreadPoolExecutor(16) as pool:

        def ask(number: int) -> None:
            reply = call(message(*[[number, -number]] * (1 + number % 3), id=str(number)), timeout=TIMEOUT_S)
            assert values(reply) == [2.0 * number, -2.0 * number] * (1 + number % 3)
            assert pb.ModelInferResponse.FromString(reply).id == str(number)

        list(pool.map(ask, range(1000)))
        assert server.plain.taken == 1000
        assert int(server.reports["1"].requests[0]) == 1001
        server.become_clean()


def test_callers_that_leave_take_nothing_from_those_that_stay(serving: Any) -> None:
    with serving() as (server, call):
        server.gate.clear()
        first = [call.future(message([at, at])) for at in range(5)]
        assert server.running.acquire(timeout=TIMEOUT_S)
        others = [call.future(message([at, at])) for at in range(5, 45)]
        server.on_reactor(lambda: None)
        for future in (*first[1:2], *others[::2]):
            assert future.cancel()
        server.on_reactor(lambda: None)
        server.gate.set()
        for at, future in enumerate((*first, *others)):
            if not future.cancelled():
                assert values(future.result(TIMEOUT_S)) == [2.0 * at, 2.0 * at]
        server.become_clean()
        # A caller may have left before its request was read.
        assert server.refusals().get("cancelled", 0) <= 21
        assert int(server.reports["1"].requests[0]) + server.refusals().get("cancelled", 0) <= 46


def test_deadlines_pass_while_requests_wait_and_run(serving: Any) -> None:
    with serving() as (server, call):
        server.gate.clear()
        running = call.future(message([1, 1]), timeout=0.3)
        assert server.running.acquire(timeout=TIMEOUT_S)
        waiting = [call.future(message([2, 2]), timeout=0.3) for _ in range(20)]
        patient = [call.future(message([at, at])) for at in range(20)]
        for future in (running, *waiting):
            assert code_of(future) is grpc.StatusCode.DEADLINE_EXCEEDED
        server.gate.set()
        for at, future in enumerate(patient):
            assert values(future.result(TIMEOUT_S)) == [2.0 * at, 2.0 * at]
        server.become_clean()
        assert sum(server.refusals().values()) <= 21
        assert not server.counters.refusals.any()


@pytest.mark.long
@pytest.mark.parametrize("is_tls", [False, True])
def test_what_does_not_fit_is_refused_and_counted_and_its_connection_read_less(
    serving: Any, tls: Path, is_tls: bool
) -> None:
    with serving(queue_requests=4, tls=tls if is_tls else None) as (server, call):
        server.gate.clear()
        running = call.future(message([1, 1]))
        assert server.running.acquire(timeout=TIMEOUT_S)
        waiting = [call.future(message([2, 2])) for _ in range(4)]
        while server.plain.taken < 5:
            time.sleep(0.005)
        refused = []
        pauses = 0
        for _ in range(3000):
            refused.append(call.future(message([3, 3])))
            pauses += int(server.transport._state[layout.READ_AT // 8]) != layout.NEVER
        for future in refused:
            assert code_of(future) is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refused[0].details() == str(server.executors["1"].full())
        assert ("grpc-retry-pushback-ms", "-1") in refused[0].trailing_metadata()
        assert pauses
        pause = server.transport._tables.connections[:, layout.C_PAUSE // 8]
        assert pause.max() == layout.MOST_READ_PAUSE
        assert waiting[1].cancel()  # it is read soon all the same
        server.on_reactor(lambda: None)
        while server.refusals() != {"overloaded": 3000, "cancelled": 1}:
            time.sleep(0.005)
        server.gate.set()
        assert values(running.result(TIMEOUT_S)) == [2.0, 2.0]
        assert [values(future.result(TIMEOUT_S)) for future in waiting if future is not waiting[1]] == [[4.0, 4.0]] * 3
        assert server.plain.taken == 3005
        assert not pause.any()
        assert not server.counters.refusals.any()
        server.become_clean()


@pytest.mark.long
def test_a_flooded_version_takes_nothing_from_another(serving: Any) -> None:
    """Callers of the other one are answered, on a connection of their own and on the flooded one."""
    with serving(queue_requests=4) as (server, flooded_call), grpc.insecure_channel(server.address) as channel:
        server.load("2", is_inline=True)
        server.route(TrafficPlan("1", shadows=(ShadowArm("2"),)), "1", "2")
        own_call = channel.unary_unary(INFER, request_serializer=bytes, response_deserializer=bytes)
        server.gate.clear()
        waiting = [flooded_call.future(message([1, 1], model_version="1"))]
        assert server.running.acquire(timeout=TIMEOUT_S)
        waiting += [flooded_call.future(message([1, 1], model_version="1")) for _ in range(4)]
        while server.executors["1"]._waiting[1] + server.executors["1"].plain_batches.lane.requests < 4:
            time.sleep(0.005)
        is_over = threading.Event()

        def flood() -> int:
            refused = 0
            while not is_over.is_set():
                futures = [flooded_call.future(message([1, 1], model_version="1")) for _ in range(200)]
                refused += sum(code_of(future) is grpc.StatusCode.RESOURCE_EXHAUSTED for future in futures)
            return refused

        with ThreadPoolExecutor(1) as pool:
            flooding = pool.submit(flood)
            while not server.refusals().get("overloaded", 0) > 1000:
                time.sleep(0.005)
            for at in range(100):
                for call in (own_call, flooded_call):
                    reply = call(message([at, at], model_version="2"), timeout=TIMEOUT_S)
                    assert values(reply) == [2.0 * at, 2.0 * at]
            is_over.set()
            assert flooding.result(TIMEOUT_S) == server.refusals()["overloaded"] > 1000
        assert server.refusals("2") == {}
        server.gate.set()
        assert [values(future.result(TIMEOUT_S)) for future in waiting] == [[2.0, 2.0]] * 5
        server.become_clean()


def test_what_comes_while_the_server_drains_is_refused_in_words(serving: Any) -> None:
    with serving() as (server, call):
        server.gate.clear()
        running = call.future(message([1, 1]))
        assert server.running.acquire(timeout=TIMEOUT_S)
        server.on_reactor(lambda: server.transport._begin_drain(10.0))
        late = [call.future(message([2, 2])) for _ in range(20)]
        assert {code_of(future) for future in late} == {grpc.StatusCode.UNAVAILABLE}
        assert {future.details() for future in late} == {"the server is shutting down"}
        server.gate.set()
        assert values(running.result(TIMEOUT_S)) == [2.0, 2.0]


@pytest.mark.parametrize("grace_s", [10.0, 0.3])
def test_a_drain_answers_what_it_can_and_ends_the_rest(serving: Any, grace_s: float) -> None:
    with serving() as (server, call):
        server.gate.clear()
        futures = [call.future(message([at, at])) for at in range(3)]
        assert server.running.acquire(timeout=TIMEOUT_S)
        futures += [call.future(message([at, at])) for at in range(3, 9)]
        while server.plain.taken < 9:
            time.sleep(0.005)
        server.transport.drain(grace_s)
        if grace_s > 1:
            server.gate.set()
            assert [values(future.result(TIMEOUT_S))[0] for future in futures] == [2.0 * at for at in range(9)]
        else:
            assert {code_of(future) for future in futures} == {grpc.StatusCode.UNAVAILABLE}
            assert server.refusals() == {"cancelled": 9}
        server._thread.join(TIMEOUT_S)
        server.gate.set()
        if grace_s > 1:
            assert server.is_clean


def test_a_version_that_is_closed_by_force_tells_its_callers(serving: Any) -> None:
    with serving() as (server, call):
        server.gate.clear()
        futures = [call.future(message([at, at])) for at in range(3)]
        assert server.running.acquire(timeout=TIMEOUT_S)
        futures += [call.future(message([at, at])) for at in range(3, 9)]
        while server.plain.taken < 9:
            time.sleep(0.005)
        server.on_reactor(server.executors["1"].close)
        assert {code_of(future) for future in futures} == {grpc.StatusCode.UNAVAILABLE}
        assert server.refusals() == {"not_ready": 9}
        server.become_clean()
        server.load("2", is_inline=True)
        server.route(TrafficPlan("2"), "2")
        server.gate.set()
        for at in range(50):
            assert values(call(message([at, at]), timeout=TIMEOUT_S)) == [2.0 * at, 2.0 * at]
        assert server.plain.taken == 9 + 49
        server.become_clean()


def ask_at_random(address: str, seed: int, is_over: threading.Event) -> Counter[str]:
    """Asks by several calls at once until it is over; how they ended."""
    rng = random.Random(seed)
    ends: Counter[str] = Counter()
    with grpc.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        call = channel.unary_unary(INFER, request_serializer=bytes, response_deserializer=bytes)
        while not is_over.is_set():
            batch = []
            for _ in range(rng.randint(1, 16)):
                rows = [[rng.randint(0, 1000), rng.randint(0, 1000)] for _ in range(rng.randint(1, 4))]
                asked = message(
                    *rows,
                    id=str(rng.random()) if rng.random() < 0.5 else "",
                    parameters={"routing_key": "k"} if rng.random() < 0.3 else {},
                    model_version=rng.choice(["", "", "@champion"]),
                )
                batch.append((rows, call.future(asked, timeout=rng.choice([TIMEOUT_S, TIMEOUT_S, 0.001, 0.02]))))
            for _, future in batch[3::7]:
                future.cancel()
            ends.update(end_of(future, rows) for rows, future in batch)
    return ends


def end_of(future: Any, rows: Any) -> str:
    try:
        reply = future.result(TIMEOUT_S)
    except (grpc.RpcError, grpc.FutureCancelledError):
        return str(future.code().name)
    return "OK" if values(reply) == (np.array(rows) * 2.0).ravel().tolist() else "WRONG"


@pytest.mark.long
def test_nothing_is_lost_wrong_or_left_while_versions_come_and_go(serving: Any) -> None:
    """Callers with deadlines, of which some leave, while roles change and versions are loaded, drained and closed."""
    ends: Counter[str] = Counter()
    is_over = threading.Event()
    with serving() as (server, _), ThreadPoolExecutor(4) as pool:
        callers = [pool.submit(ask_at_random, server.address, seed, is_over) for seed in range(4)]
        until = time.monotonic() + 2
        number = 1
        while time.monotonic() < until:
            number += 1
            former = str(number - 1)
            server.load(str(number), is_inline=number % 2 == 0)
            server.route(TrafficPlan(former, (Arm(str(number), 0.5),)), former, str(number))
            time.sleep(0.05)
            server.route(TrafficPlan(str(number), shadows=(ShadowArm(former),)), former, str(number))
            time.sleep(0.02)
            closing = server.executors[former]
            server.route(TrafficPlan(str(number)), str(number))
            if number % 3 == 0:
                server.on_reactor(lambda closing=closing: None if closing.is_closed else closing.close())
        is_over.set()
        for caller in callers:
            ends += caller.result(TIMEOUT_S)
        server.become_clean()
        assert server.plain.taken > 200
    assert ends.pop("OK") > 200
    assert ends.keys() <= {"CANCELLED", "DEADLINE_EXCEEDED", "UNAVAILABLE"}
