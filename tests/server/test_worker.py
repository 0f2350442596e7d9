"""A worker over a real socket, with a real model, and a transport whose reactor only the test's calls reach."""

import gc
import queue
import socket
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from penstock import inference_pb2 as pb
from penstock import penstock_pb2
from penstock_server import worker as workers
from penstock_server.batching.limits import DEVICE_ROWS, BatchLimits, ModelLimits
from penstock_server.control import messages
from penstock_server.control.messages import Command, Event, framed
from penstock_server.control.worker_link import WorkerLink
from penstock_server.errors import InvalidInputError, NotFoundError, NotReadyError, PenstockError, UnavailableError
from penstock_server.frames import HEAD
from penstock_server.kernels import compiled
from penstock_server.log_setup import LEVEL_VARIABLE, log_level
from penstock_server.metrics.counters import CountersShape, SharedCounters, create_counters
from penstock_server.models.execution import PROVIDERS, ExecutionSettings, OwnExecutionSettings
from penstock_server.plain.kernel_set import KERNELS
from penstock_server.python.settings import PythonSettings
from penstock_server.request_log.settings import RequestLogSettings
from penstock_server.rollout.plan import Arm, ModelRoutes, ShadowArm, TrafficPlan, VersionStatus
from penstock_server.settings import ModelSettings, OwnModelSettings, ServerSettings
from penstock_server.worker import ORPHAN_GRACE_S, Worker

TIMEOUT_S = 20.0
INFER = "/inference.GRPCInferenceService/ModelInfer"
CHECK = "/grpc.health.v1.Health/Check"
DRIFT = "/penstock.v1.Penstock/DriftState"


class FakeTransport:
    """Runs what is posted, and the reactor, on the thread that calls `run`; accepts no connections."""

    def __init__(self, methods: Any, reactor: Any) -> None:
        self.methods = methods
        self.reactor = reactor
        self.actions: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self.addresses: list[str] = []
        self.graces_s: list[float] = []
        self.error: PenstockError | None = None
        self.sifter: Any = None

    def number_of(self, path: str) -> int:
        return list(self.methods.unary).index(path)

    def ending(self, error: PenstockError) -> bytes:
        return str(error).encode()

    def run(self) -> None:
        while (action := self.actions.get()) is not None:
            action()
            del action  # as transports do
            while self.reactor.is_due:
                self.reactor.step()

    def post(self, action: Callable[[], None]) -> None:
        self.actions.put(action)

    described = "fake"

    def listen(self, address: str) -> None:
        if self.error is not None:
            raise self.error
        self.addresses.append(address)

    def drain(self, grace_s: float) -> None:
        self.graces_s.append(grace_s)
        self.actions.put(None)


class Supervised:
    """A worker on a thread, and the supervisor's end of its socket."""

    def __init__(self, settings: ServerSettings, folder: Path, monkeypatch: pytest.MonkeyPatch, call: Any) -> None:
        self.folder = folder
        self.new_call = call
        self.counters: dict[str, SharedCounters] = {}

        def choose(_name: str, methods: Any, reactor: Any, *_settings: Any, port: Any) -> FakeTransport:
            self.port = port
            self.transport = FakeTransport(methods, reactor)
            return self.transport

        monkeypatch.setattr(workers, "choose_transport", choose)
        shared_port: Any = "the port"
        self.connection, theirs = socket.socketpair()
        self.connection.settimeout(TIMEOUT_S)
        self.events = self.connection.makefile("rb")
        self.worker = Worker(WorkerLink(theirs), settings.of_worker, self.counters_file("own"), shared_port)
        self.thread = threading.Thread(target=self.worker.run)
        self.thread.start()

    def counters_file(self, name: str) -> Path:
        path = self.folder / f"counters-{name}"
        if name not in self.counters:
            self.counters[name] = create_counters(path, CountersShape())
        return path

    def send(self, *commands: Command) -> None:
        self.connection.sendall(b"".join(map(framed, commands)))

    def event(self) -> Event:
        (size,) = HEAD.unpack(self.events.read(HEAD.size))
        return messages.event(self.events.read(size))

    def load(self, folder: Path, version: str = "1", model: str = "m") -> Event:
        path = self.counters_file(f"{model}-{version}")
        self.send(messages.Load(model, version, str(folder), str(path), 0, 0))
        return self.event()

    def serve(self, *plans: TrafficPlan, **statuses: VersionStatus) -> None:
        """Serves model m by this plan, or without one."""
        known = {version.removeprefix("v"): status for version, status in statuses.items()}
        self.send(messages.Serve(7, {"m": ModelRoutes(plans[0] if plans else None, known)}, True))
        assert self.event() == messages.Served(7)

    def call(self, method: str, message: bytes) -> Any:
        """A call of a caller: answered, failed, or pending."""
        call = self.new_call()

        def handle() -> None:
            try:
                self.transport.methods.unary[method](message, call)
            except PenstockError as error:
                call.fail(error)

        self.transport.post(handle)
        return call

    def infer(self, version: str = "") -> pb.ModelInferResponse | PenstockError:
        call = self.call(INFER, infer_message(version))
        assert call.is_answered.wait(TIMEOUT_S)
        if isinstance(call.answer, PenstockError):
            return call.answer
        return pb.ModelInferResponse.FromString(call.answer)

    def ends(self) -> bool:
        self.thread.join(TIMEOUT_S)
        return not self.thread.is_alive()

    def close(self) -> None:
        self.connection.close()
        self.events.close()
        assert self.ends()


def infer_message(version: str = "") -> bytes:
    request = pb.ModelInferRequest(model_name="m", model_version=version)
    request.inputs.add(name="x", datatype="FP32", shape=[1, 2])
    request.raw_input_contents.append(np.array([3.0, 4.0], np.float32).tobytes())
    message: bytes = request.SerializeToString()
    return message


@pytest.fixture(scope="module")
def model(write_onnx: Callable[..., Path]) -> Path:
    path = write_onnx(
        [("Identity", ["x"], ["y"], {})], inputs=[("x", "FP32", ["N", 2])], outputs=[("y", "FP32", ["N", 2])]
    )
    return path.parent


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fake_call: Any) -> Iterator[Callable[..., Supervised]]:
    started: list[Supervised] = []

    def make(**settings: Any) -> Supervised:
        started.append(Supervised(ServerSettings(**settings), tmp_path, monkeypatch, fake_call))
        return started[-1]

    yield make
    for one in started:
        one.close()


def test_a_version_is_loaded_served_and_unloaded(start: Any, model: Path) -> None:
    supervised = start()
    loaded = supervised.load(model)
    assert isinstance(loaded, messages.Loaded)
    assert (loaded.model, loaded.version, loaded.is_inline) == ("m", "1", True)
    assert loaded.took_s > 0
    assert loaded.base_us > 0
    assert isinstance(supervised.infer(), NotFoundError)  # loaded, not yet served
    supervised.serve(TrafficPlan("1"), v1=VersionStatus("READY"))
    reply = supervised.infer()
    assert (reply.model_version, reply.parameters["penstock_role"].string_param) == ("1", "champion")
    assert np.frombuffer(reply.raw_output_contents[0], np.float32).tolist() == [3.0, 4.0]
    assert int(supervised.counters["m-1"].requests[0]) == 1
    supervised.serve()
    supervised.send(messages.Unload("m", "1"))
    assert supervised.event() == messages.Unloaded("m", "1")
    assert isinstance(supervised.infer("1"), NotFoundError)


@pytest.mark.parametrize("is_on", [True, False])
def test_plain_requests_are_taken_unless_they_are_switched_off(
    start: Any, monkeypatch: pytest.MonkeyPatch, is_on: bool
) -> None:
    compiled.ensure_compiled(KERNELS)
    monkeypatch.setattr(workers, "NativeTransport", FakeTransport)
    supervised = start(serving=ModelSettings(plain_requests=is_on))
    assert (supervised.transport.sifter is not None) == is_on


def test_it_logs_as_it_is_told(start: Any, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LEVEL_VARIABLE, "info")
    supervised = start()
    supervised.send(messages.SetLogLevel("error"))
    supervised.load(model)  # the command after it was handled
    assert log_level() == "error"
    supervised.send(messages.SetLogLevel("info"))
    supervised.load(model)
    assert log_level() == "info"


def test_plans_give_versions_their_roles(start: Any, model: Path) -> None:
    supervised = start()
    for version in "12":
        supervised.load(model, version)
    supervised.serve(TrafficPlan("1", (Arm("2", 1.0),)))
    reply = supervised.infer()
    assert (reply.model_version, reply.parameters["penstock_role"].string_param) == ("2", "canary")
    champion, shadow = (supervised.worker._executors["m", version] for version in "12")
    supervised.serve(TrafficPlan("1", shadows=(ShadowArm("2"),)))
    assert supervised.infer().model_version == "1"
    assert champion.shadows is not None
    assert shadow.shadows is None
    supervised.serve(TrafficPlan("2"))
    assert champion.shadows is None
    assert supervised.infer().parameters["penstock_role"].string_param == "champion"


def test_statuses_reach_callers(start: Any, model: Path) -> None:
    supervised = start()
    supervised.serve(v1=VersionStatus("UNAVAILABLE", "its digest is wrong"))
    error = supervised.infer()
    assert isinstance(error, NotReadyError)
    assert str(error) == "model 'm' has no version ready (version 1: its digest is wrong)"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (InvalidInputError("its digest is wrong"), "its digest is wrong"),
        (UnavailableError("no room"), "no room"),
        (RuntimeError("secret"), "loading failed: RuntimeError"),
    ],
)
def test_a_load_that_fails_names_the_reason_and_no_internals(
    start: Any, model: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, reason: str
) -> None:
    def load(*_: Any, **__: Any) -> Any:
        raise error

    supervised = start()
    with monkeypatch.context() as patched:
        patched.setattr(workers, "load", load)
        assert supervised.load(model) == messages.LoadFailed("m", "1", reason)
    assert isinstance(supervised.load(model), messages.Loaded)  # and the next command is handled


def test_a_model_is_loaded_by_its_own_settings(start: Any, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []

    def load(key: Any, folder: Path, **settings: Any) -> Any:
        given.append((key, folder, settings))
        raise InvalidInputError("enough")

    monkeypatch.setattr(workers, "load", load)
    supervised = start(
        serving=ModelSettings(threads=2, models={"n": OwnModelSettings(4)}, compiled_models=False),
        batching=BatchLimits(max_rows=8, models={"n": ModelLimits(max_rows=16)}),
        execution=ExecutionSettings(("cuda",), models={"n": OwnExecutionSettings(("cpu",))}),
    )
    supervised.load(model)
    supervised.load(model, model="n")
    common = {"batching": None, "python": PythonSettings(), "compiled_models": False, "proven": None}
    cuda, cpu = ExecutionSettings(("cuda",)), ExecutionSettings(("cpu",))
    assert given == [
        (("m", "1"), model, {"threads": 2, "max_rows": 8, "execution": cuda, **common}),
        (("n", "1"), model, {"threads": 4, "max_rows": 16, "execution": cpu, **common}),
    ]


@pytest.mark.filterwarnings("ignore:Duplicate provider")
def test_a_version_on_a_device_runs_on_its_own_thread_in_large_batches(
    start: Any, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However brief its batches are: the reactor reads requests while the device computes."""
    monkeypatch.setitem(PROVIDERS, "cuda", PROVIDERS["cpu"])  # a real session, which says that it runs elsewhere
    supervised = start(execution=ExecutionSettings(("cuda",)), serving=ModelSettings(inline_budget_ms=1000.0))
    loaded = supervised.load(model)
    assert loaded.engine.startswith("onnxruntime on cuda and cpu: the CPU runs 1 of 1 nodes; ")
    assert loaded.is_inline is False
    executor = supervised.worker._executors["m", "1"]
    assert (executor._short_s, executor._slice_rows, executor._queue.max_rows) == (0.0, DEVICE_ROWS, DEVICE_ROWS)
    supervised.serve(TrafficPlan("1"))
    assert supervised.infer().model_version == "1"


def test_a_slow_version_runs_on_its_own_thread(start: Any, model: Path) -> None:
    supervised = start(serving=ModelSettings(inline_budget_ms=0.0))
    assert supervised.load(model).is_inline is False
    assert not supervised.worker._executors["m", "1"].is_inline
    supervised.serve(TrafficPlan("1"))
    assert supervised.infer().model_version == "1"
    supervised.serve(v1=VersionStatus("UNLOADING"))
    supervised.send(messages.Unload("m", "1"))
    assert supervised.event() == messages.Unloaded("m", "1")
    assert (
        str(supervised.infer("1")) == "model 'm' version 1 is unloading"
    )  # and no request waits for a thread that ended


@pytest.mark.parametrize("inline_budget_ms", [0.0, 1000.0])
def test_an_unloaded_version_frees_its_session_whatever_still_knows_the_version(
    start: Any, model: Path, inline_budget_ms: float
) -> None:
    """On a device the next version needs that memory."""
    supervised = start(serving=ModelSettings(inline_budget_ms=inline_budget_ms, compiled_models=False))
    supervised.load(model)
    supervised.serve(TrafficPlan("1"))
    assert supervised.infer().model_version == "1"
    executor = supervised.worker._executors["m", "1"]
    session = weakref.ref(executor.servable.model._session)
    supervised.serve(v1=VersionStatus("UNLOADING"))
    supervised.send(messages.Unload("m", "1"))
    assert supervised.event() == messages.Unloaded("m", "1")
    assert session() is None


@pytest.mark.parametrize("inline_budget_ms", [0.0, 1000.0])
def test_an_unloaded_version_is_freed_without_the_collector(
    start: Any, model: Path, inline_budget_ms: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It walks over all other models, and no request is answered meanwhile."""
    collected: list[Any] = []
    monkeypatch.setattr(workers, "gc", SimpleNamespace(collect=lambda: collected.append(servable())))
    monkeypatch.setattr(workers, "FREED_S", TIMEOUT_S)
    supervised = start(serving=ModelSettings(inline_budget_ms=inline_budget_ms))
    supervised.load(model)
    supervised.serve(TrafficPlan("1"))
    assert supervised.infer().model_version == "1"
    servable = weakref.ref(supervised.worker._executors["m", "1"].servable)
    gc.disable()
    try:
        supervised.serve(v1=VersionStatus("UNLOADING"))
        supervised.send(messages.Unload("m", "1"))
        assert supervised.event() == messages.Unloaded("m", "1")
    finally:
        gc.enable()
    assert (collected, servable()) == ([], None)


@pytest.mark.parametrize("inline_budget_ms", [0.0, 1000.0])
def test_a_version_that_is_unloaded_while_routes_name_it_leaves_no_call_without_an_end(
    start: Any, model: Path, inline_budget_ms: float
) -> None:
    supervised = start(serving=ModelSettings(inline_budget_ms=inline_budget_ms))
    supervised.load(model)
    supervised.serve(TrafficPlan("1"))
    supervised.send(messages.Unload("m", "1"))
    assert supervised.event() == messages.Unloaded("m", "1")
    for version in ("", "1", "@champion"):
        assert isinstance(supervised.infer(version), NotReadyError | NotFoundError)


def test_a_version_that_closed_refuses_whom_a_late_route_leads_there(start: Any, model: Path) -> None:
    supervised = start()
    supervised.load(model)
    supervised.serve(TrafficPlan("1"))
    table = supervised.worker._predictor.routing_table
    supervised.send(messages.Unload("m", "1"))
    supervised.event()
    supervised.worker._predictor.routing_table = table
    assert str(supervised.infer("1")) == "model 'm' version 1 is being unloaded"


def test_an_unload_waits_for_what_was_taken_and_keeps_no_other_command_waiting(start: Any, model: Path) -> None:
    supervised = start(serving=ModelSettings(inline_budget_ms=0.0))
    supervised.load(model)
    supervised.serve(TrafficPlan("1"))
    executor = supervised.worker._executors["m", "1"]
    runs, may_end = threading.Event(), threading.Event()
    predict = executor.servable.predict

    def hold(*work: Any) -> Any:
        runs.set()
        assert may_end.wait(TIMEOUT_S)
        return predict(*work)

    executor.servable.predict = hold
    call = supervised.call(INFER, infer_message())
    assert runs.wait(TIMEOUT_S)
    supervised.send(messages.Unload("m", "1"), messages.Listen("a"))
    assert supervised.event() == messages.Listening("fake")
    may_end.set()
    assert supervised.event() == messages.Unloaded("m", "1")
    assert isinstance(call.answer, bytes)


def test_a_model_that_hangs_is_unloaded_all_the_same(start: Any, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "DRAIN_S", 0.05)
    monkeypatch.setattr("penstock_server.prediction.model_thread.JOIN_S", 0.05)
    supervised = start(serving=ModelSettings(inline_budget_ms=0.0))
    supervised.load(model)
    supervised.serve(TrafficPlan("1"))
    executor = supervised.worker._executors["m", "1"]
    runs, may_end = threading.Event(), threading.Event()
    executor.servable.predict = lambda *_: (runs.set(), may_end.wait(TIMEOUT_S), 1 / 0)
    call = supervised.call(INFER, infer_message())
    assert runs.wait(TIMEOUT_S)
    supervised.send(messages.Unload("m", "1"))
    assert supervised.event() == messages.Unloaded("m", "1")
    assert isinstance(call.answer, NotReadyError)
    may_end.set()


def test_an_unload_of_what_is_not_loaded_is_confirmed(start: Any) -> None:
    supervised = start()
    supervised.send(messages.Unload("m", "1"))
    assert supervised.event() == messages.Unloaded("m", "1")


def test_a_worker_says_whether_it_listens(start: Any) -> None:
    supervised = start()
    assert supervised.port == "the port"
    supervised.send(messages.Listen("127.0.0.1:8001"))
    assert supervised.event() == messages.Listening("fake")
    assert supervised.transport.addresses == ["127.0.0.1:8001"]
    supervised.transport.error = UnavailableError("the port is in use")
    supervised.send(messages.Listen("127.0.0.1:8001"))
    assert supervised.event() == messages.ListenFailed("the port is in use")


def test_a_worker_says_that_its_rest_port_is_taken(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    class Taken:
        def listen(self) -> None:
            raise UnavailableError("cannot listen on the REST port 8000")

    supervised = start()
    monkeypatch.setattr(supervised.worker, "_rest", Taken())
    supervised.send(messages.Listen("127.0.0.1:8001"))
    assert supervised.event() == messages.ListenFailed("cannot listen on the REST port 8000")


def test_a_command_that_fails_does_not_stop_the_next(start: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("a bug")

    supervised = start()
    monkeypatch.setattr(workers, "RoutingTable", broken)
    supervised.send(messages.Serve(1, {}, True), messages.Listen("a"))
    assert supervised.event() == messages.Listening("fake")


def test_a_drain_ends_the_worker_and_its_health(start: Any) -> None:
    supervised = start()
    supervised.send(messages.Drain(2.5))
    assert supervised.ends()
    assert supervised.transport.graces_s[0] == 2.5
    assert supervised.worker._health._is_draining


def test_a_worker_whose_supervisor_is_gone_drains(start: Any) -> None:
    supervised = start()
    supervised.connection.shutdown(socket.SHUT_RDWR)
    assert supervised.ends()
    assert supervised.transport.graces_s == [ORPHAN_GRACE_S]


def test_calls_about_the_whole_server_are_forwarded(start: Any) -> None:
    supervised = start()
    message = penstock_pb2.DriftStateRequest(model="m").SerializeToString()
    answered, failed = supervised.call(DRIFT, message), supervised.call(DRIFT, message)
    assert [supervised.event(), supervised.event()] == [
        messages.ControlRequest(number, "DriftState", message) for number in (1, 2)
    ]
    supervised.send(messages.ControlError(2, "NotFoundError", "no model 'm'"), messages.ControlReply(1, b"drift"))
    for call in (answered, failed):
        assert call.is_answered.wait(TIMEOUT_S)
    assert answered.answer == b"drift"
    assert (type(failed.answer), str(failed.answer)) == (NotFoundError, "no model 'm'")


def test_requests_are_logged_where_the_settings_say(start: Any, model: Path, tmp_path: Path) -> None:
    settings = RequestLogSettings(tmp_path / "log", sample_ratio=1.0)
    supervised = start(request_log=settings)
    supervised.load(model)
    supervised.serve(TrafficPlan("1"))
    supervised.infer()
    supervised.send(messages.Drain(0.0))
    assert supervised.ends()
    assert settings.spool is not None
    (segment,) = settings.spool.iterdir()
    assert segment.suffix == ".segment"
    assert segment.stat().st_size > 0


def test_without_a_directory_nothing_is_logged(start: Any, model: Path) -> None:
    supervised = start()
    supervised.load(model)
    assert supervised.worker._executors["m", "1"].sampler is None


class SlowLoad:
    """A load that waits in its process until the test lets it go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begins, self.goes_on = threading.Event(), threading.Event()
        load = workers.load

        def wait(*arguments: Any, **settings: Any) -> Any:
            self.begins.set()
            assert self.goes_on.wait(TIMEOUT_S)
            return load(*arguments, **settings)

        monkeypatch.setattr(workers, "load", wait)


def test_a_load_holds_up_no_other_command(start: Any, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    supervised = start()
    supervised.load(model, "1")
    slow = SlowLoad(monkeypatch)
    path = supervised.counters_file("m-2")
    supervised.send(messages.Load("m", "2", str(model), str(path), 0, 0))
    assert slow.begins.wait(TIMEOUT_S)
    supervised.serve(TrafficPlan("1"))
    assert supervised.infer().model_version == "1"
    supervised.send(messages.Listen("127.0.0.1:8001"))
    assert supervised.event() == messages.Listening("fake")
    slow.goes_on.set()
    assert isinstance(supervised.event(), messages.Loaded)


def test_a_worker_drains_though_a_load_does_not_end(start: Any, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    supervised = start()
    slow = SlowLoad(monkeypatch)
    supervised.send(messages.Load("m", "1", str(model), str(supervised.counters_file("m-1")), 0, 0))
    assert slow.begins.wait(TIMEOUT_S)
    supervised.send(messages.Drain(1.0))
    assert supervised.ends()
    slow.goes_on.set()


def test_other_files_of_a_version_take_its_place_without_a_gap(
    start: Any, model: Path, write_onnx: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    supervised = start()
    supervised.load(model)
    supervised.serve(TrafficPlan("1"), v1=VersionStatus("READY"))
    former = supervised.worker._executors["m", "1"]
    doubles = write_onnx(
        [("Add", ["x", "x"], ["y"], {})], inputs=[("x", "FP32", ["N", 2])], outputs=[("y", "FP32", ["N", 2])]
    ).parent
    slow = SlowLoad(monkeypatch)
    path = supervised.counters_file("m-1-new")
    supervised.send(messages.Load("m", "1", str(doubles), str(path), 0, 0))
    assert slow.begins.wait(TIMEOUT_S)
    assert np.frombuffer(supervised.infer().raw_output_contents[0], np.float32).tolist() == [3.0, 4.0]
    slow.goes_on.set()
    assert isinstance(supervised.event(), messages.Loaded)
    reply = supervised.infer()
    assert np.frombuffer(reply.raw_output_contents[0], np.float32).tolist() == [6.0, 8.0]
    assert reply.parameters["penstock_role"].string_param == "champion"
    assert supervised.worker._executors["m", "1"] is not former
    assert [int(supervised.counters[name].requests[0]) for name in ("m-1", "m-1-new")] == [1, 1]


def test_files_that_cannot_be_loaded_leave_the_former_ones(start: Any, model: Path, tmp_path: Path) -> None:
    supervised = start()
    supervised.load(model)
    supervised.serve(TrafficPlan("1"))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "model.onnx").write_bytes(b"no")
    path = supervised.counters_file("m-1-new")
    supervised.send(messages.Load("m", "1", str(tmp_path / "bad"), str(path), 0, 0))
    assert isinstance(supervised.event(), messages.LoadFailed)
    assert supervised.infer().model_version == "1"


def test_the_supervisor_sees_the_loop_and_the_runs(start: Any, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    supervised = start(serving=ModelSettings(compiled_models=False))
    supervised.load(model)
    supervised.serve(TrafficPlan("1"))
    servable = supervised.worker._executors["m", "1"].servable
    cells: list[list[int]] = []
    run = servable.model.run

    def watched(feeds: Any) -> Any:
        cells.append(supervised.counters["m-1"].running_since_ns.tolist())
        return run(feeds)

    monkeypatch.setattr(servable.model, "run", watched)
    supervised.infer()
    assert max(cells[0]) > 0
    assert not supervised.counters["m-1"].running_since_ns.any()
    assert supervised.counters["own"].beat_ns[0] >= max(cells[0]) - 1e9


def test_it_imports_nothing_that_most_servers_do_without() -> None:
    """Each would be 15 to 80 ms of a worker's start, and up to 8 MB."""
    code = (
        "import penstock_server.worker, sys;"
        "sys.exit(', '.join({'grpc', 'yaml', 'mlflow', 'pydantic', 'rich', 'numba', 'cryptography'} & sys.modules.keys()) or 0)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")
