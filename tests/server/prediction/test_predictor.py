import gc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from penstock import inference_pb2 as pb
from penstock.tensors import NUMPY_TYPES, TYPED_FIELDS
from penstock_server import errors
from penstock_server.batching.policy import RequestPolicy
from penstock_server.models.artifact import Artifact
from penstock_server.models.onnx_model import OnnxModel
from penstock_server.models.servable import OnnxServable
from penstock_server.prediction.decode import decoder_of
from penstock_server.prediction.predictor import Predictor
from penstock_server.prediction.routing_table import RoutingTable, ServedModel
from penstock_server.prediction.waiting_room import WaitingRoom
from penstock_server.rollout.plan import Arm, TrafficPlan, VersionStatus
from tests.examples import examples

X = np.array([[1.0, 2.0]])
NEVER = float("inf")


class Server:
    """A predictor before the executors of a fake champion and canary."""

    def __init__(self, executor_of: Any, fake_servable: Any, fake_report: Any, clock: Any, **limits: Any) -> None:
        self.clock = clock
        self.unrouted = fake_report()
        self.reports = {version: fake_report() for version in "12"}
        self.executors = {
            version: executor_of(fake_servable(key=("m", version)), report=self.reports[version], clock=clock, **limits)
            for version in "12"
        }
        self.predictor = Predictor(clock=clock, report=self.unrouted)
        plan = TrafficPlan("1", (Arm("2", 0.5),))
        statuses = {"3": VersionStatus("LOADING")}
        self.predictor.routing_table = RoutingTable({"m": ServedModel("m", plan, self.executors, statuses)})

    def ask(self, request: pb.ModelInferRequest | bytes, call: Any) -> Any:
        message = request if isinstance(request, bytes) else request.SerializeToString()
        self.predictor.infer(message, call)
        return call

    def run(self) -> None:
        for executor in self.executors.values():
            while executor.due_s() != NEVER:
                executor.run(self.clock.now)

    @property
    def outcomes(self) -> int:
        reports = (self.unrouted, *self.reports.values())
        return sum(report.answered + report.refusals.total() for report in reports)


@pytest.fixture
def server(executor_of: Any, fake_servable: Any, fake_report: Any, fake_clock: Any) -> Server:
    return Server(executor_of, fake_servable, fake_report, fake_clock())


def test_an_admitted_request_is_answered_by_its_executor(
    server: Server, fake_call: Any, infer_request: Any, outputs_of: Any
) -> None:
    call = server.ask(infer_request({"x": X}, id="req-1", model_version="1"), fake_call())
    assert (call.is_over, call.pending is not None) == (False, True)
    server.run()
    assert outputs_of(call.answer)["y"].tolist() == [[2.0, 4.0]]
    assert pb.ModelInferResponse.FromString(call.answer).id == "req-1"
    assert call.pending is None


def test_outputs_are_chosen_in_the_order_asked_for(
    executor_of: Any, mixed: OnnxServable, fake_report: Any, fake_clock: Any, fake_call: Any, infer_request: Any
) -> None:
    executor = executor_of(mixed)
    predictor = Predictor(clock=fake_clock(), report=fake_report())
    predictor.routing_table = RoutingTable({"m": ServedModel("m", TrafficPlan("7"), {"7": executor})})
    arrays = {"x": np.zeros((1, 3), "f4"), "text": np.full((1, 1), "a", object)}
    call = fake_call()
    predictor.infer(infer_request(arrays, outputs=["label", "double"]).SerializeToString(), call)
    executor.run(0.0)
    assert [tensor.name for tensor in pb.ModelInferResponse.FromString(call.answer).outputs] == ["label", "double"]


@pytest.mark.parametrize("field", ["id", "routing_key"])
def test_a_key_always_meets_the_same_version(server: Server, fake_call: Any, infer_request: Any, field: str) -> None:
    def version(key: str) -> str:
        request = infer_request({"x": X}, **({"id": key} if field == "id" else {"id": f"request {key}"}))
        if field == "routing_key":
            request.parameters["routing_key"].string_param = key
        call = server.ask(request, fake_call())
        server.run()
        return str(pb.ModelInferResponse.FromString(call.answer).model_version)

    plan = TrafficPlan("1", (Arm("2", 0.5),))
    keys = [f"customer-{number}" for number in range(20)]
    assert [version(key) for key in keys] == [plan.choose("m", key)[0] for key in keys]


def parameter(name: str, **value: Any) -> Callable[[pb.ModelInferRequest], None]:
    return lambda request: request.parameters[name].CopyFrom(pb.InferParameter(**value))


def output(name: str, **value: Any) -> Callable[[pb.ModelInferRequest], None]:
    def add(request: pb.ModelInferRequest) -> None:
        made = request.outputs.add(name="y" if value else name)
        if value:
            made.parameters[name].CopyFrom(pb.InferParameter(**value))

    return add


def model(name: str) -> Callable[[pb.ModelInferRequest], None]:
    return lambda request: setattr(request, "model_name", name)


def version(name: str) -> Callable[[pb.ModelInferRequest], None]:
    return lambda request: setattr(request, "model_version", name)


REFUSALS: list[tuple[Callable[[pb.ModelInferRequest], None], type[errors.PenstockError], str]] = [
    (model("z"), errors.NotFoundError, "model 'z' is not served; served now: 'm'"),
    (version("9"), errors.NotFoundError, "has no version '9'"),
    (version("3"), errors.NotReadyError, "version 3 is loading"),
    (version("@shadow"), errors.NotFoundError, "has no shadow now"),
    (output("z"), errors.InvalidInputError, "unknown output 'z'; expected some of 'y'"),
    (
        lambda request: [output("y")(request) for _ in range(100_000)], errors.InvalidInputError,
        "output 'y' is asked for twice, expected each output once",
    ),
    (output("classification", int64_param=0), errors.InvalidInputError, "is 0, expected a whole number from 1"),
    (output("classification", string_param="3"), errors.InvalidInputError, "is '3', expected a whole number from 1"),
    (output("shared_memory_region", string_param="r"), errors.InvalidInputError, "output 'y' asks for shared memory"),
    (parameter("sequence_id", int64_param=7), errors.InvalidInputError, "'sequence_id' asks for a stateful sequence"),
    (parameter("sequence_start", bool_param=True), errors.InvalidInputError, "'sequence_start' asks for a stateful"),
    (parameter("triton_final_response", bool_param=True), errors.InvalidInputError, "is reserved and not known here"),
    (parameter("routing_key", int64_param=1), errors.InvalidInputError, "is a int64_param, expected string_param"),
    (
        parameter("timeout", string_param="5"), errors.InvalidInputError,
        "parameter 'timeout' is a string_param, expected int64_param or uint64_param",
    ),
    (parameter("timeout"), errors.InvalidInputError, "parameter 'timeout' is a None, expected int64_param"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "kind", "said"), REFUSALS)
def test_refusals_say_what_is_wrong(
    server: Server, fake_call: Any, infer_request: Any, change: Any, kind: type[errors.PenstockError], said: str
) -> None:
    request = infer_request({"x": X})
    change(request)
    call = server.ask(request, fake_call())
    assert type(call.answer) is kind
    assert said in str(call.answer)
    assert (server.outcomes, call.pending) == (1, None)


@pytest.mark.parametrize(
    "change",
    [
        parameter("priority", uint64_param=1),
        parameter("priority", int64_param=9),
        parameter("triton_enable_empty_final_response", bool_param=True),
        parameter("sequence_id", int64_param=0),
        parameter("sequence_end", bool_param=False),
        parameter("sequence_start"),
        parameter("anything", double_param=0.5),
        parameter("timeout", int64_param=0),
        parameter("timeout", int64_param=-5),
        parameter("timeout", uint64_param=2**64 - 1),
        version("@champion"),
        version("@canary"),
    ],
)
def test_harmless_parameters_pass(server: Server, fake_call: Any, infer_request: Any, change: Any) -> None:
    request = infer_request({"x": X})
    change(request)
    call = server.ask(request, fake_call())
    server.run()
    assert isinstance(call.answer, bytes)


@pytest.mark.parametrize(("count", "found"), [(1, [["2.000000:0"], ["6.000000:1"]]), (9, None)])
def test_the_largest_values_of_an_output(
    server: Server, fake_call: Any, infer_request: Any, outputs_of: Any, count: int, found: Any
) -> None:
    request = infer_request({"x": np.array([[1.0, 0.5], [2.0, 3.0]])})
    output("classification", int64_param=count)(request)
    for _ in range(2):  # the second one's head is known
        call = server.ask(request, fake_call())
        server.run()
        texts = outputs_of(call.answer)["y"]
        expected = found or [["2.000000:0", "1.000000:1"], ["6.000000:1", "4.000000:0"]]
        assert [[text.decode() for text in row] for row in texts.tolist()] == expected


@pytest.mark.parametrize("wrong", [10, -1])
def test_a_priority_out_of_range_is_refused(server: Server, fake_call: Any, infer_request: Any, wrong: int) -> None:
    request = infer_request({"x": X})
    request.parameters["priority"].int64_param = wrong
    call = server.ask(request, fake_call())
    assert str(call.answer) == f"parameter 'priority' is {wrong}, expected 0 to 9"


@pytest.mark.parametrize(("priority", "level"), [(None, 5), (0, 5), (1, 1), (9, 9)])
def test_no_priority_is_the_middle(
    server: Server, fake_call: Any, infer_request: Any, priority: int | None, level: int
) -> None:
    request = infer_request({"x": X})
    if priority is not None:
        request.parameters["priority"].uint64_param = priority
    assert server.ask(request, fake_call()).pending.priority == level


@pytest.mark.parametrize(
    ("call_deadline_s", "timeout_us", "in_time_s"),
    [(5.0, 0, 5.0), (5.0, 2_000_000, 2.0), (1.0, 2_000_000, 1.0), (NEVER, 2_000_000, 2.0)],
)
def test_the_sooner_deadline_counts(
    server: Server, fake_call: Any, infer_request: Any, call_deadline_s: float, timeout_us: int, in_time_s: float
) -> None:
    start = server.clock.now
    for elapsed_s, kind in ((in_time_s - 0.25, bytes), (in_time_s, errors.DeadlinePassedError)):
        server.clock.now = start
        request = infer_request({"x": X})
        request.parameters["timeout"].int64_param = timeout_us
        call = server.ask(request, fake_call(deadline_s=start + call_deadline_s))
        server.clock.now = start + elapsed_s
        server.run()
        assert type(call.answer) is kind


def test_a_deadline_that_passed_is_refused_at_once(server: Server, fake_call: Any, infer_request: Any) -> None:
    call = server.ask(infer_request({"x": X}), fake_call(deadline_s=server.clock.now))
    assert isinstance(call.answer, errors.DeadlinePassedError)


def test_a_full_queue_is_the_versions_refusal(
    executor_of: Any, fake_servable: Any, fake_report: Any, fake_clock: Any, fake_call: Any, infer_request: Any
) -> None:
    server = Server(executor_of, fake_servable, fake_report, fake_clock(), queue_rows=1)
    first, second = (server.ask(infer_request({"x": X}, model_version="1"), fake_call()) for _ in range(2))
    assert isinstance(second.answer, errors.OverloadedError)
    assert (server.reports["1"].refusals, server.unrouted.refusals) == ({"overloaded": 1}, {})
    second.leave()
    server.run()
    assert isinstance(first.answer, bytes)
    assert server.outcomes == 2


def test_refusals_before_a_version_is_found_count_for_the_server(server: Server, fake_call: Any) -> None:
    call = server.ask(b"\xff", fake_call())
    assert str(call.answer) == "the message is not a ModelInferRequest of the Open Inference Protocol"
    assert server.unrouted.refusals == {"invalid_input": 1}


def outcome_of(server: Server, call: Any) -> None:
    server.run()
    assert call.is_over
    assert len(call.answers) == 1
    assert isinstance(call.answer, bytes | errors.PenstockError)
    assert call.pending is None
    assert server.outcomes == 1
    if isinstance(call.answer, bytes):
        pb.ModelInferResponse.FromString(call.answer)


@examples(200)
@given(message=st.binary(max_size=60))
def test_random_bytes_end_in_one_outcome(
    executor_of: Any, fake_servable: Any, fake_report: Any, fake_clock: Any, fake_call: Any, message: bytes
) -> None:
    server = Server(executor_of, fake_servable, fake_report, fake_clock())
    outcome_of(server, server.ask(message, fake_call()))


@examples(200)
@given(data=st.data(), typed=st.booleans(), rows=st.integers(0, 3))
def test_damaged_requests_end_in_one_outcome(
    executor_of: Any, fake_servable: Any, fake_report: Any, fake_clock: Any, fake_call: Any, infer_request: Any,
    data: st.DataObject, typed: bool, rows: int,
) -> None:  # fmt: skip
    request = infer_request({"x": np.ones((rows, 2))}, typed=typed, outputs=["y"], id="id")
    request.parameters["timeout"].int64_param = 10**6
    message = bytearray(request.SerializeToString())
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(message) - 1))
        match data.draw(st.sampled_from(["set", "cut", "repeat"])):
            case "set":
                message[at] = data.draw(st.integers(0, 255))
            case "cut":
                del message[at : at + 2]
            case "repeat":
                message[at:at] = message[at : at + 8]
        if not message:
            break
    server = Server(executor_of, fake_servable, fake_report, fake_clock())
    outcome_of(server, server.ask(bytes(message), fake_call()))


VALUES: dict[str, NDArray[Any]] = {
    **{name: np.array([[0, 1], [1, 0], [1, 1]]).astype(dtype) for name, dtype in NUMPY_TYPES.items()},
    "BYTES": np.array([["", "é"], ["no", "x" * 300], ["a", "b"]], object),
}


@pytest.fixture(scope="session")
def identities(write_onnx: Callable[..., Path]) -> dict[str, OnnxServable]:
    def servable(datatype: str) -> OnnxServable:
        path = write_onnx(
            [("Identity", ["x"], ["y"], {})], inputs=[("x", datatype, ["N", 2])], outputs=[("y", datatype, ["N", 2])]
        )
        return OnnxServable(("m", "1"), Artifact(path.parent, path), OnnxModel(path), None)

    return {datatype: servable(datatype) for datatype in VALUES}


@pytest.mark.parametrize(
    ("datatype", "typed"),
    [(name, typed) for name in VALUES for typed in (False, True) if not typed or name in TYPED_FIELDS],
)
@pytest.mark.parametrize("rows", [0, 1, 3])
def test_every_datatype_goes_through_a_graph_and_back(
    identities: dict[str, OnnxServable], executor_of: Any, fake_report: Any, fake_clock: Any, fake_call: Any,
    infer_request: Any, outputs_of: Any, datatype: str, typed: bool, rows: int,
) -> None:  # fmt: skip
    executor = executor_of(identities[datatype])
    predictor = Predictor(clock=fake_clock(), report=fake_report())
    predictor.routing_table = RoutingTable({"m": ServedModel("m", TrafficPlan("1"), {"1": executor})})
    sent = VALUES[datatype][:rows]
    call = fake_call()
    predictor.infer(infer_request({"x": sent}, {"x": datatype}, typed=typed).SerializeToString(), call)
    executor.run(0.0)
    got = outputs_of(call.answer)["y"]
    assert got.shape == (rows, 2)
    expected = [[text.encode() for text in row] for row in sent] if datatype == "BYTES" else sent.tolist()
    assert got.tolist() == expected


@pytest.fixture
def apart(executor_of: Any, fake_servable: Any, fake_report: Any, fake_clock: Any, thread: Any) -> Server:
    """A server whose large messages are decoded on a thread."""
    server = Server(executor_of, fake_servable, fake_report, fake_clock(), max_rows=1 << 20)
    table = server.predictor.routing_table
    server.predictor = Predictor(clock=server.clock, report=server.unrouted, thread=thread)
    server.predictor.routing_table = table
    return server


LARGE = np.arange(20_000.0).reshape(10_000, 2)


def test_a_large_message_is_decoded_on_a_thread(
    apart: Server, fake_call: Any, infer_request: Any, outputs_of: Any, reactor: Any
) -> None:
    call = apart.ask(infer_request({"x": LARGE}, id="large", model_version="1"), fake_call())
    assert (call.is_over, call.is_watched) == (False, True)
    assert apart.executors["1"].is_idle
    reactor.act()
    apart.run()
    assert pb.ModelInferResponse.FromString(call.answer).id == "large"
    np.testing.assert_array_equal(outputs_of(call.answer)["y"], LARGE * 2)
    assert apart.predictor._decoding_bytes == 0


def test_a_large_message_is_counted_by_how_it_came(
    apart: Server, fake_call: Any, infer_request: Any, reactor: Any
) -> None:
    for executor in apart.executors.values():
        executor.set_role("champion", 0.5)
    for rows, settings in ((10_000, {}), (9_999, {"model_version": "1"}), (9_998, {}), (9_997, {"model_version": "2"})):
        apart.ask(infer_request({"x": LARGE[:rows]}, **settings), fake_call())
        assert sum(report.routed_requests for report in apart.reports.values()) == (rows < 10_000) + (rows < 9_998)
        reactor.act()
    assert sum(report.routed_requests for report in apart.reports.values()) == 2
    apart.run()
    named = [len(batch["named_s"]) for report in apart.reports.values() for batch in report.batches]
    assert sum(named) == 2


@pytest.mark.parametrize(("settings", "key"), [({"id": "seven"}, "seven"), ({}, ""), ({"model_version": "1"}, "")])
def test_a_large_message_that_fails_is_counted_by_its_key(
    apart: Server, fake_call: Any, infer_request: Any, reactor: Any, settings: dict[str, str], key: str
) -> None:
    for executor in apart.executors.values():
        executor.set_role("champion", 0.5)
    apart.ask(infer_request({"x": LARGE}, outputs=["none"], **settings), fake_call())
    reactor.act()
    ((found,),) = [report.keys for report in apart.reports.values() if report.keys]
    assert found == key


def test_a_large_message_like_one_before_is_not(
    apart: Server, fake_call: Any, infer_request: Any, outputs_of: Any, reactor: Any
) -> None:
    apart.ask(infer_request({"x": LARGE}, model_version="1"), fake_call())
    reactor.act()
    call = apart.ask(infer_request({"x": LARGE + 1}, model_version="1"), fake_call())
    apart.run()
    np.testing.assert_array_equal(outputs_of(call.answer)["y"], (LARGE + 1) * 2)


@pytest.mark.parametrize(
    ("change", "kind", "is_routed"),
    [
        (model("z"), errors.NotFoundError, False),
        (version("3"), errors.NotReadyError, False),
        (output("z"), errors.InvalidInputError, True),
        (parameter("priority", int64_param=10), errors.InvalidInputError, True),
        (lambda request: request.inputs[0].shape.append(2), errors.InvalidInputError, True),
    ],
)
def test_a_large_message_is_refused_as_others_are(
    apart: Server, fake_call: Any, infer_request: Any, reactor: Any, change: Any, kind: Any, is_routed: bool
) -> None:
    request = infer_request({"x": LARGE}, model_version="1")
    change(request)
    call = apart.ask(request, fake_call())
    reactor.act()
    assert type(call.answer) is kind
    assert call.pending is None
    assert apart.unrouted.refusals.total() == (0 if is_routed else 1)
    assert apart.outcomes == 1
    assert apart.predictor._decoding_bytes == 0


def test_a_large_message_that_is_none_is_refused(apart: Server, fake_call: Any, reactor: Any) -> None:
    call = apart.ask(b"\xff" * 1_000_000, fake_call())
    reactor.act()
    assert isinstance(call.answer, errors.InvalidInputError)


def test_who_leaves_while_a_large_message_is_decoded_is_counted_once(
    apart: Server, fake_call: Any, infer_request: Any, reactor: Any
) -> None:
    call = apart.ask(infer_request({"x": LARGE}, model_version="1"), fake_call())
    call.leave()
    reactor.act()
    assert apart.unrouted.refusals == {"cancelled": 1}
    assert apart.executors["1"].is_idle
    assert call.answers == []


def test_a_promotion_while_a_large_message_is_decoded_fails_no_call(
    apart: Server, fake_call: Any, infer_request: Any, reactor: Any
) -> None:
    predictor = apart.predictor
    predictor.routing_table = RoutingTable({"m": ServedModel("m", TrafficPlan("1"), apart.executors)})
    call = apart.ask(infer_request({"x": LARGE}), fake_call())
    predictor.routing_table = RoutingTable({"m": ServedModel("m", TrafficPlan("2"), {"2": apart.executors["2"]})})
    apart.executors["1"].drain(lambda: None)
    reactor.act()
    reactor.act()
    apart.run()
    assert pb.ModelInferResponse.FromString(call.answer).model_version == "2"


def test_a_large_message_for_a_version_that_closed_ends(
    apart: Server, fake_call: Any, infer_request: Any, reactor: Any
) -> None:
    call = apart.ask(infer_request({"x": LARGE}, model_version="1"), fake_call())
    apart.executors["1"].drain(lambda: None)
    reactor.act()
    assert isinstance(call.answer, errors.NotReadyError)


def test_large_messages_that_are_decoded_at_once_are_bounded(
    apart: Server, fake_call: Any, infer_request: Any, reactor: Any
) -> None:
    apart.predictor._most_bytes = 1_000_000
    request = infer_request({"x": np.zeros((40_000, 2))}, model_version="1")
    first, second = apart.ask(request, fake_call()), apart.ask(request, fake_call())
    assert isinstance(second.answer, errors.OverloadedError)
    reactor.act()
    apart.run()
    assert isinstance(first.answer, bytes)


@pytest.mark.parametrize("outputs", [[], ["z"], ["y", "y"]])
@pytest.mark.parametrize("size", ["small", "large"])
def test_a_refused_request_leaves_no_reference_cycle(
    apart: Server, fake_call: Any, infer_request: Any, reactor: Any, outputs: list[str], size: str
) -> None:
    class Kept(fake_call):  # type: ignore[misc]
        pass

    request = infer_request({"x": LARGE if size == "large" else X}, outputs=outputs, model_version="1")
    if not outputs:
        request.inputs[0].shape.append(2)
    gc.disable()
    try:
        call = apart.ask(request, Kept())
        if size == "large":
            reactor.act()
        assert isinstance(call.answer, errors.InvalidInputError)
        gone = weakref.ref(call)
        del call
        assert gone() is None
    finally:
        gc.enable()


@pytest.fixture(scope="session")
def scaled(write_onnx: Callable[..., Path]) -> OnnxServable:
    """`y = x * scale`, of which the scale has the default 2."""
    path = write_onnx(
        [("Mul", ["x", "scale"], ["y"], {})],
        inputs=[("x", "FP64", ["N", 2]), ("scale", "FP64", [1])],
        outputs=[("y", "FP64", ["N", 2])],
        constants={"scale": np.array([2.0])},
    )
    return OnnxServable(("m", "1"), Artifact(path.parent, path), OnnxModel(path), None)


def test_each_request_may_override_a_default_for_itself(
    scaled: OnnxServable, executor_of: Any, fake_report: Any, fake_clock: Any, fake_call: Any, infer_request: Any,
    outputs_of: Any, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    report = fake_report()
    executor = executor_of(scaled, report=report)
    executor.decoder = decoder_of(scaled)
    predictor = Predictor(clock=fake_clock(), report=fake_report())
    predictor.routing_table = RoutingTable({"m": ServedModel("m", TrafficPlan("1"), {"1": executor})})
    wanted = [None, 3.0, None, 3.0, 5.0, None]
    calls = [fake_call() for _ in wanted]
    batches: list[int] = []
    monkeypatch.setattr(report, "batch", lambda *, rows, **_: batches.append(rows))
    for scale, call in zip(wanted, calls, strict=True):
        given = {} if scale is None else {"scale": np.array([scale])}
        predictor.infer(infer_request({"x": X} | given).SerializeToString(), call)
    while executor.due_s() != NEVER:
        executor.run(0.0)
    found = [outputs_of(call.answer)["y"].tolist() for call in calls]
    assert found == [(X * (2.0 if scale is None else scale)).tolist() for scale in wanted]
    assert batches == [1] * 6  # neighbours that give the same share nothing either


def test_a_large_request_that_overrides_a_default_is_not_cut(
    scaled: OnnxServable, executor_of: Any, fake_report: Any, fake_clock: Any, fake_call: Any, infer_request: Any,
    outputs_of: Any, thread: Any, reactor: Any,
) -> None:  # fmt: skip
    executor = executor_of(scaled, large_thread=thread, slice_rows=2)
    executor.decoder = decoder_of(scaled)
    predictor = Predictor(clock=fake_clock(), report=fake_report())
    predictor.routing_table = RoutingTable({"m": ServedModel("m", TrafficPlan("1"), {"1": executor})})
    rows, call = np.arange(10.0).reshape(5, 2), fake_call()
    predictor.infer(infer_request({"x": rows, "scale": np.array([3.0])}).SerializeToString(), call)
    while not call.is_over:
        reactor.act()
    np.testing.assert_array_equal(outputs_of(call.answer)["y"], rows * 3)


@pytest.mark.parametrize(
    ("policy", "change", "priority", "deadline_s"),
    [
        (RequestPolicy(levels=3, default_level=1), None, 5, NEVER),
        (RequestPolicy(levels=3, default_level=1), parameter("priority", int64_param=3), 7, NEVER),
        (RequestPolicy(levels=3, default_level=1), parameter("priority", uint64_param=99), 5, NEVER),
        (RequestPolicy(timeout_s=2.0), None, 5, 12.0),
        (RequestPolicy(timeout_s=2.0), parameter("timeout", int64_param=1_000_000), 5, 11.0),
        (RequestPolicy(timeout_s=2.0), parameter("timeout", int64_param=3_000_000), 5, 12.0),
        (RequestPolicy(takes_timeouts=False), parameter("timeout", int64_param=1_000_000), 5, NEVER),
    ],
)
def test_a_models_own_policy_decides_priorities_and_timeouts(
    server: Server,
    fake_call: Any,
    infer_request: Any,
    policy: RequestPolicy,
    change: Any,
    priority: int,
    deadline_s: float,
) -> None:
    server.clock.now = 10.0
    server.executors["1"].policy = policy
    request = infer_request({"x": X}, model_version="1")
    if change is not None:
        change(request)
    call = server.ask(request, fake_call())
    assert (call.pending.priority, call.pending.deadline_s) == (priority, deadline_s)
    assert not server.executors["1"].can_take_plain


@pytest.fixture
def asked(server: Server) -> list[str]:
    """The models that were asked for; the server's only one is not in memory."""
    found: list[str] = []
    server.predictor.take_room(
        WaitingRoom(found.append, lambda action: None, clock=server.clock, wait_s=30, most_calls=10)
    )
    statuses = dict.fromkeys("12", VersionStatus("STANDBY"))
    server.predictor.routing_table = RoutingTable(
        {"m": ServedModel("m", None, {}, statuses, is_lazy=True, is_on_call=True)}
    )
    return found


def put_in_memory(server: Server) -> None:
    plan = TrafficPlan("1")
    server.predictor.routing_table = RoutingTable({"m": ServedModel("m", plan, server.executors, is_lazy=True)})
    server.predictor._room.routes_changed({"m"})  # type: ignore[union-attr]


def test_a_request_waits_for_its_model_and_its_time_counts(
    server: Server, asked: list[str], fake_call: Any, infer_request: Any, outputs_of: Any
) -> None:
    calls = [server.ask(infer_request({"x": X}), fake_call()) for _ in range(2)]  # the second one is known already
    assert (asked, [call.is_over for call in calls], calls[0].is_watched) == (["m"], [False, False], True)
    server.clock.now += 0.5
    put_in_memory(server)
    server.run()
    assert [outputs_of(call.answer)["y"].tolist() for call in calls] == [[[2.0, 4.0]]] * 2
    assert server.reports["1"].answered == 2
    assert server.unrouted.refusals.total() == 0


def test_a_request_that_waits_for_its_model_obeys_its_own_timeout(
    server: Server, asked: list[str], fake_call: Any, infer_request: Any
) -> None:
    request = infer_request({"x": X})
    request.parameters["timeout"].int64_param = 200_000
    call = server.ask(request, fake_call())
    server.clock.now += 0.3
    server.predictor._room.expire()  # type: ignore[union-attr]
    assert isinstance(call.answer, errors.DeadlinePassedError)
    assert server.unrouted.refusals == {"deadline": 1}
    assert asked == ["m"]


def test_a_caller_that_leaves_while_its_model_is_loaded_is_counted(
    server: Server, asked: list[str], fake_call: Any, infer_request: Any
) -> None:
    call = server.ask(infer_request({"x": X}), fake_call())
    call.leave()
    put_in_memory(server)
    server.run()
    assert (server.unrouted.refusals, server.reports["1"].answered) == ({"cancelled": 1}, 0)


def test_where_none_waits_a_model_that_is_not_there_is_refused(
    server: Server, fake_call: Any, infer_request: Any
) -> None:
    statuses = {"1": VersionStatus("LOADING")}
    server.predictor.routing_table = RoutingTable({"m": ServedModel("m", None, {}, statuses, is_lazy=True)})
    call = server.ask(infer_request({"x": X}), fake_call())
    assert isinstance(call.answer, errors.StandbyError)


def test_other_methods_wait_for_their_models_too(server: Server, asked: list[str], fake_call: Any) -> None:
    def describe(message: bytes, call: Any) -> None:
        server.predictor.routing_table.model(message.decode()).resolve("", "")
        call.finish(b"described")

    handler, call = server.predictor.when_loaded(describe), fake_call()
    handler(b"m", call)
    assert (asked, call.is_over) == (["m"], False)
    put_in_memory(server)
    assert call.answer == b"described"
    with pytest.raises(errors.NotFoundError):
        handler(b"unknown", fake_call())
