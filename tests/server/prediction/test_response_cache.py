"""What is asked twice is answered once by the model: the same to the byte, and counted as if it had run."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import inference_pb2 as pb
from penstock.names import PARAMETER_BATCH_ROWS, PARAMETER_COMPUTE_US, PARAMETER_QUEUE_US
from penstock_server.errors import DeadlinePassedError, InvalidInputError, ModelFailedError, NotReadyError
from penstock_server.features.pipeline import Refusal
from penstock_server.models.servable import OnnxServable
from penstock_server.prediction.decode import decoder_of
from penstock_server.prediction.predictor import Predictor
from penstock_server.prediction.recent import RecentRequests
from penstock_server.prediction.routing_table import RoutingTable, ServedModel
from penstock_server.prediction.shadows import Shadows
from penstock_server.response_cache.responses import ResponseCache
from penstock_server.rollout.plan import TrafficPlan
from tests.examples import examples

NEVER = float("inf")
MEMORY = 1 << 20
X = np.array([[1.0, 2.0]])
TIMING = (PARAMETER_BATCH_ROWS, PARAMETER_COMPUTE_US, PARAMETER_QUEUE_US)


class World:
    """A version whose answers are kept, and a predictor in front of it."""

    def __init__(self, executor_of: Any, fake_report: Any, fake_call: Any, clock: Any) -> None:
        self._executor_of, self._call, self.clock = executor_of, fake_call, clock
        self.report = fake_report(np.zeros((1, 1), np.int64))
        self.cache = ResponseCache(MEMORY)
        self.predictor = Predictor(clock=clock, report=fake_report())

    def serve(self, servable: Any, **options: Any) -> Any:
        self.executor = self._executor_of(
            servable, report=self.report, clock=self.clock, **{"cache": self.cache} | options
        )
        if isinstance(servable, OnnxServable):
            self.executor.decoder = decoder_of(servable)
        version = servable.key[1]
        model = ServedModel("m", TrafficPlan(version), {version: self.executor})
        self.predictor.routing_table = RoutingTable({"m": model})
        return self.executor

    def ask(self, request: pb.ModelInferRequest, *, runs: bool = True, **call: Any) -> Any:
        made = self._call(**call)
        self.predictor.infer(request.SerializeToString(), made)
        while runs and self.executor.due_s() != NEVER:
            self.executor.run(self.clock.now)
        return made


@pytest.fixture
def world(executor_of: Any, fake_report: Any, fake_call: Any, fake_clock: Any) -> World:
    return World(executor_of, fake_report, fake_call, fake_clock())


@pytest.fixture
def servable(fake_servable: Any) -> Any:
    return fake_servable()


def without_timing(message: bytes) -> pb.ModelInferResponse:
    """The reply without its id and what tells about its run."""
    reply = pb.ModelInferResponse.FromString(message)
    reply.id = ""
    for name in TIMING:
        assert name in reply.parameters
        del reply.parameters[name]
    return reply


@pytest.mark.parametrize("is_batched", [True, False])
def test_the_same_rows_do_not_run_twice(world: World, fake_servable: Any, infer_request: Any, is_batched: bool) -> None:
    servable = fake_servable(is_batched=is_batched)
    world.serve(servable)
    first = world.ask(infer_request({"x": X}, id="one"))
    second = world.ask(infer_request({"x": X}, id="two"), runs=False)
    other = world.ask(infer_request({"x": X + 1}))
    assert servable.runs == [1, 1]
    assert without_timing(first.answer) == without_timing(second.answer)
    assert without_timing(other.answer) != without_timing(second.answer)
    assert [pb.ModelInferResponse.FromString(call.answer).id for call in (first, second)] == ["one", "two"]
    assert second.pending is None
    ran, kept = (pb.ModelInferResponse.FromString(call.answer).parameters for call in (first, second))
    assert [ran[name].int64_param for name in TIMING] == [1, 3000, 0]
    assert [kept[name].int64_param for name in TIMING] == [0, 0, 0]


def test_what_it_asks_for_of_the_answer_is_its_own(
    world: World, mixed: OnnxServable, infer_request: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.serve(mixed)
    arrays = {"x": np.array([[1, 3, 2]], "f4"), "text": np.array([["a"]], object)}

    def request(*outputs: str, count: int = 0) -> pb.ModelInferRequest:
        made = infer_request(arrays, outputs=outputs)
        if count:
            made.outputs[0].parameters["classification"].int64_param = count
        return made

    asked = [request(), request("label"), request("label", "double"), request("double", count=2), request("echo")]
    # Each runs once where nothing is kept, and not at all where something is.
    world.executor.responses = None
    fresh = [world.ask(each) for each in asked]
    world.serve(mixed)
    world.ask(asked[-1])
    monkeypatch.setattr(mixed, "predict", None)
    for each, call in zip(asked, fresh, strict=True):
        assert without_timing(world.ask(each).answer) == without_timing(call.answer)


def test_a_reply_names_the_role_of_now(world: World, servable: Any, infer_request: Any) -> None:
    executor = world.serve(servable)
    roles = []
    for role in ("canary", "champion"):
        executor.set_role(role)
        reply = pb.ModelInferResponse.FromString(world.ask(infer_request({"x": X})).answer)
        roles.append(reply.parameters["penstock_role"].string_param)
    assert (roles, servable.runs) == (["canary", "champion"], [1])


def test_columns_in_another_order_or_form_are_the_same_rows(
    world: World, mixed: OnnxServable, infer_request: Any
) -> None:
    world.serve(mixed)
    arrays = {"x": np.array([[1, 3, 2]], "f4"), "text": np.array([["a"]], object)}
    world.ask(infer_request(arrays))
    for other in (infer_request(dict(reversed(arrays.items()))), infer_request(arrays, typed=True)):
        world.ask(other)
    assert (world.report.misses, len(world.report.cache_hits)) == (1, 2)


def test_what_is_counted_of_a_hit_is_what_was_counted_of_the_run(
    world: World, servable: Any, infer_request: Any
) -> None:
    world.serve(servable)
    world.ask(infer_request({"x": X}))
    world.clock.now += 7
    world.ask(infer_request({"x": X}))
    assert world.report.misses == 1
    assert len(world.report.batches) == 1
    (hit,) = world.report.cache_hits
    assert (hit["rows"], hit["arrived_s"], hit["ended_s"]) == (1, world.clock.now, world.clock.now)
    # The class of each row, and its place in the drift window.
    assert world.report.labels == [1, 1]
    assert (world.report.drift_rows, world.report.cells.tolist()) == (2, [[2]])


def test_repeats_count_for_no_drift_whether_they_run_or_not(world: World, servable: Any, infer_request: Any) -> None:
    world.serve(servable, recent=RecentRequests())
    for _ in range(3):
        world.ask(infer_request({"x": X}))
    assert (len(world.report.cache_hits), world.report.drift_rows, world.report.labels) == (2, 1, [1, 1, 1])


def test_a_hit_is_logged_and_copied_to_the_shadow(world: World, servable: Any, infer_request: Any) -> None:
    executor = world.serve(servable)
    logged: list[dict[str, Any]] = []
    copied: list[Any] = []
    executor.sampler = SimpleNamespace(draw=lambda requests: [0], keep=lambda **fields: logged.append(fields))
    shadow: Any = SimpleNamespace(is_batched=True, skips_repeats=False, offer=copied.append)
    executor.shadows = Shadows([(shadow, 1.0)])
    for _ in range(2):
        world.ask(infer_request({"x": X}))
    assert [(one["rows"], one["blocks"], one["arrays"][0].tolist()) for one in logged] == [
        (1, (X.tobytes(),), [[2.0, 4.0]])
    ] * 2
    # With the time that the champion took when it ran.
    assert [(one.blocks, one.rows, one.arrays[0].tolist(), one.took_s) for one in copied] == [
        ((X.tobytes(),), 1, [[2.0, 4.0]], 0.003)
    ] * 2


def test_each_request_of_a_batch_keeps_its_own_rows(world: World, servable: Any, infer_request: Any) -> None:
    world.serve(servable)
    parts = [np.full((rows, 2), float(rows)) for rows in (1, 3, 2)]
    for part in parts:
        world.ask(infer_request({"x": part}), runs=False)
    world.executor.run(0.0)
    assert servable.runs == [6]
    for part in parts:
        reply = pb.ModelInferResponse.FromString(world.ask(infer_request({"x": part}), runs=False).answer)
        assert reply.raw_output_contents[0] == (part * 2).tobytes()
    (kept,) = (world.executor.responses.get(world.executor.responses.key((parts[1].tobytes(),), 3, None, ())),)
    assert kept.arrays[0].base is None
    assert (kept.features_s, kept.infer_s) == (0.0005, 0.001)


def test_a_hit_waits_for_nobody(world: World, servable: Any, infer_request: Any) -> None:
    world.serve(servable, queue_requests=1)
    world.ask(infer_request({"x": X}))
    waits = world.ask(infer_request({"x": X + 1}), runs=False)
    hit = world.ask(infer_request({"x": X}), runs=False)
    assert (waits.is_over, hit.is_over) == (False, True)
    request = infer_request({"x": X})
    request.parameters["priority"].int64_param = 9
    request.parameters["timeout"].int64_param = 1
    assert isinstance(world.ask(request, runs=False).answer, bytes)


def test_a_hit_that_comes_too_late_is_refused_as_a_miss_is(world: World, servable: Any, infer_request: Any) -> None:
    world.serve(servable)
    world.ask(infer_request({"x": X}))
    late = world.ask(infer_request({"x": X}), deadline_s=world.clock.now - 1)
    assert isinstance(late.answer, DeadlinePassedError)
    assert world.report.cache_hits == []


def test_nothing_is_kept_of_a_failure(world: World, servable: Any, infer_request: Any) -> None:
    world.serve(servable)
    servable.fails = lambda rows: ModelFailedError("no")
    for _ in range(2):
        assert isinstance(world.ask(infer_request({"x": X})).answer, ModelFailedError)
    assert (len(servable.runs), world.cache.size_bytes, world.report.misses) == (2, 0, 2)


def test_nothing_is_kept_of_refused_rows(
    world: World, servable: Any, infer_request: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    world.serve(servable)
    predict = servable.predict

    def refusing(blocks: Any, rows: int, *rest: Any) -> Any:
        numbers = np.frombuffer(blocks[0], "<f8").reshape(rows, 2)[:, 0]
        refusal = Refusal(np.where(numbers == 5, 0, -1), ("has an x that is not known",))
        return replace(predict(blocks, rows, *rest), refusal=refusal)

    monkeypatch.setattr(servable, "predict", refusing)
    for _ in range(2):
        bad, good = (world.ask(infer_request({"x": np.full((1, 2), value)}), runs=False) for value in (5.0, 1.0))
        while world.executor.due_s() != NEVER:
            world.executor.run(0.0)
        assert isinstance(bad.answer, InvalidInputError)
        assert isinstance(good.answer, bytes)
    assert (world.report.misses, len(world.report.cache_hits)) == (3, 1)


def test_a_bug_ends_the_call(world: World, servable: Any, infer_request: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    world.serve(servable)
    world.ask(infer_request({"x": X}))

    def fail(**_: Any) -> None:
        raise RuntimeError

    monkeypatch.setattr(world.report, "hit", fail)
    monkeypatch.setattr(servable, "count", lambda *_: fail())
    call = world.ask(infer_request({"x": X}), runs=False)
    assert str(call.answer) == "the batch failed"
    assert world.report.refusals.total() == 1


def test_files_registered_anew_under_a_number_never_answer_with_the_former_ones_answers(
    world: World, fake_servable: Any, infer_request: Any
) -> None:
    old = fake_servable()
    former = world.serve(old)
    asked = infer_request({"x": X})
    world.ask(asked)
    late = world.ask(infer_request({"x": X + 5}), runs=False)
    new = fake_servable()
    world.serve(new)
    former.drain(lambda: None)
    assert world.cache.size_bytes == 0
    former.run(0.0)
    assert isinstance(late.answer, bytes)
    world.ask(asked)
    assert (len(old.runs), len(new.runs)) == (2, 1)
    # What the former version answered after its end was kept by nobody.
    assert world.report.cached_bytes == world.cache.size_bytes == len(new.runs) * world.cache.size_bytes


def test_a_version_that_ends_refuses_what_it_has_an_answer_for(world: World, servable: Any, infer_request: Any) -> None:
    world.serve(servable)
    world.ask(infer_request({"x": X}))
    world.executor.close()
    assert (world.cache.size_bytes, world.report.cached_bytes) == (0, 0)
    assert isinstance(world.ask(infer_request({"x": X})).answer, NotReadyError)


def test_texts_go_the_general_way(world: World, servable: Any, mixed: OnnxServable) -> None:
    assert world.serve(servable).can_take_plain
    assert world.serve(mixed, cache=None).can_take_plain
    assert not world.serve(mixed).can_take_plain


def test_a_large_request_is_neither_looked_for_nor_kept(
    world: World, servable: Any, infer_request: Any, thread: Any, reactor: Any
) -> None:
    world.serve(servable, large_thread=thread, slice_rows=2)
    for _ in range(2):
        call = world.ask(infer_request({"x": np.ones((5, 2))}), runs=False)
        while not call.is_over:
            reactor.act()
    assert (world.report.misses, world.cache.size_bytes, sum(servable.runs)) == (0, 0, 10)


def test_a_large_message_is_hashed_where_it_is_decoded(
    world: World,
    servable: Any,
    infer_request: Any,
    fake_report: Any,
    thread: Any,
    reactor: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import threading

    world.predictor = Predictor(clock=world.clock, report=fake_report(), thread=thread)
    world.serve(servable, queue_rows=100_000, max_rows=100_000)
    hashed_on: list[bool] = []
    key: Callable[..., bytes] = world.executor.responses.key

    def told(*asked: Any) -> bytes:
        hashed_on.append(threading.current_thread() is threading.main_thread())
        return key(*asked)

    monkeypatch.setattr(world.executor, "responses", SimpleNamespace(key=told, get=world.executor.responses.get,
                                                                     put=world.executor.responses.put))  # fmt: skip
    request = infer_request({"x": np.ones((10_000, 2))})
    calls = []
    for _ in range(2):
        calls.append(world.ask(request, runs=False))
        reactor.act()
        while world.executor.due_s() != NEVER:
            world.executor.run(0.0)
    assert without_timing(calls[0].answer) == without_timing(calls[1].answer)
    assert (hashed_on, servable.runs, len(world.report.cache_hits)) == ([False, False], [10_000], 1)


def test_what_a_request_gives_in_place_of_a_default_is_a_part_of_what_it_asks(
    world: World, write_onnx: Any, infer_request: Any, outputs_of: Any
) -> None:
    from penstock_server.models.artifact import Artifact
    from penstock_server.models.onnx_model import OnnxModel

    path = write_onnx(
        [("Mul", ["x", "scale"], ["y"], {})],
        inputs=[("x", "FP64", ["N", 2]), ("scale", "FP64", [1])],
        outputs=[("y", "FP64", ["N", 2])],
        constants={"scale": np.array([2.0])},
    )
    world.serve(OnnxServable(("m", "1"), Artifact(path.parent, path), OnnxModel(path), None))
    found = []
    for scale in (None, 3.0, 4.0, 3.0, None):
        given_values = {} if scale is None else {"scale": np.array([scale])}
        found.append(outputs_of(world.ask(infer_request({"x": X} | given_values)).answer)["y"].tolist())
    assert found == [(X * scale).tolist() for scale in (2, 3, 4, 3, 2)]
    assert (world.report.misses, len(world.report.cache_hits)) == (3, 2)


@examples(40)
@given(st.data())
def test_whatever_is_asked_is_answered_as_without_a_cache(
    executor_of: Any,
    fake_servable: Any,
    fake_report: Any,
    fake_call: Any,
    fake_clock: Any,
    infer_request: Any,
    data: Any,
) -> None:
    """Also where there is memory for two answers alone, and requests share batches."""
    worlds = [World(executor_of, fake_report, fake_call, fake_clock()) for _ in range(2)]
    worlds[0].cache = ResponseCache(2_000)
    worlds[0].serve(fake_servable(), max_rows=4)
    worlds[1].serve(fake_servable(), max_rows=4, cache=None)
    values = st.lists(st.sampled_from([1.0, 2.0, 3.0]), min_size=1, max_size=3)
    calls: tuple[list[Any], list[Any]] = ([], [])
    for at, rows in enumerate(data.draw(st.lists(values, max_size=12))):
        request = infer_request({"x": np.array([[value, -value] for value in rows])}, id=f"request {at}")
        runs = data.draw(st.booleans())
        for one, world in zip(calls, worlds, strict=True):
            one.append(world.ask(request, runs=runs))
    for world in worlds:
        while world.executor.due_s() != NEVER:
            world.executor.run(0.0)
    for cached, plain in zip(*calls, strict=True):
        assert without_timing(cached.answer) == without_timing(plain.answer)
    assert sorted(worlds[0].report.labels) == sorted(worlds[1].report.labels)
    assert worlds[0].report.drift_rows == worlds[1].report.drift_rows
    assert worlds[0].cache.size_bytes == worlds[0].report.cached_bytes <= 2_000
    assert len(worlds[0].report.cache_hits) + worlds[0].report.misses == len(calls[0])
