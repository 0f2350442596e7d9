"""Plain requests of a version whose answers are kept: what kernels take is answered, refused and counted as without."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock import inference_pb2 as pb
from penstock.names import PARAMETER_BATCH_ROWS
from penstock_server.batching.cost import Cost
from penstock_server.errors import (
    DeadlinePassedError,
    InvalidInputError,
    ModelFailedError,
    NotReadyError,
    OverloadedError,
    PenstockError,
)
from penstock_server.metrics import counters as shared
from penstock_server.metrics.counters import CACHE_CELLS, REFUSALS, CountersShape
from penstock_server.metrics.recorder import Recorder
from penstock_server.models.servable import Outputs
from penstock_server.models.signature import ANY, TensorInfo
from penstock_server.plain.lane import Lane
from penstock_server.prediction.shadows import Shadows
from penstock_server.response_cache.responses import ResponseCache
from penstock_server.rollout.plan import Arm, TrafficPlan
from tests.examples import examples
from tests.server.prediction.plain_world import HeldThread, World, asked, message, values, without_times

Make = Callable[..., World]
FORMS = (message([0, 0]), message([0, 0], [0, 0]))
MEMORY = 1 << 20


@pytest.fixture
def report_of(new_counters: Any) -> Callable[[], Recorder]:
    return lambda: Recorder(new_counters(CountersShape(1, 12)))


@pytest.fixture
def world(fake_servable: Any, fake_clock: Any, report_of: Any) -> Make:
    """A world whose first version keeps answers; both forms, and so the answers to zeros, are known."""

    def make(servable: Any = None, **settings: Any) -> World:
        made = World(
            {"1": servable or fake_servable()},
            report_of=report_of,
            clock=fake_clock(),
            **{"cache": ResponseCache(MEMORY)} | settings,
        )
        made.warm(*FORMS)
        return made

    return make


@pytest.fixture(params=["inline", "threaded"])
def either(request: pytest.FixtureRequest, world: Make) -> Make:
    """The same, with the version's batches on the reactor or on a thread."""
    return lambda *arguments, **settings: world(
        *arguments, thread=HeldThread() if request.param == "threaded" else None, **settings
    )


def counts(world: World) -> dict[str, int]:
    return dict(zip(CACHE_CELLS, world.reports["1"].counters.cache.tolist(), strict=True))


def refusals(world: World) -> dict[str, int]:
    found = world.reports["1"].counters.refusals.tolist()
    return {reason: count for reason, count in zip(REFUSALS, found, strict=True) if count}


def never_probes(world: World) -> None:
    """No request runs to find out what a batch costs, as if the last one that did were still fresh."""
    executor = world.executors["1"]
    assert executor.plain_batches is not None
    executor._queue._probe_at_s = float("inf")
    executor._tell_cost(executor.plain_batches.lane)


def is_hit(reply: Any) -> bool:
    return pb.ModelInferResponse.FromString(reply).parameters[PARAMETER_BATCH_ROWS].int64_param == 0


def test_hits_and_misses_of_one_turn_have_their_own_answers(either: Make) -> None:
    world = either()
    servable = world.executors["1"].servable
    world.send(message([1, 2], id="first"), message([3, 4], [5, 6]))
    world.run()
    runs = len(servable.runs)
    before = counts(world)
    slots = world.send(
        message([1, 2], id="again"), message([7, 8]), message([3, 4], [5, 6]), message([1, 2]), message([9, 0], [1, 2])
    )
    world.run()
    replies = [world.port.ends[slot] for slot in slots]
    assert [values(reply) for reply in replies] == [[2, 4], [14, 16], [6, 8, 10, 12], [2, 4], [18, 0, 2, 4]]
    assert [is_hit(reply) for reply in replies] == [True, False, True, True, False]
    assert [pb.ModelInferResponse.FromString(reply).id for reply in replies] == ["again", "", "", "", ""]  # type: ignore[arg-type]
    assert servable.runs[runs:] == [3]
    after = counts(world)
    assert [after[name] - before[name] for name in ("hits", "hit_rows", "misses")] == [3, 4, 2]
    assert world.taken == 7
    world.check_clean()


def test_replies_are_those_of_the_general_path_to_the_byte(either: Make) -> None:
    world, general = either(), either(is_plain=False, cache=None)
    rows = [message([1, 2], id="one"), message([1, 2], id="two"), asked({"x": np.ones((2, 2))}, outputs=["y"])]
    for _ in range(2):
        pairs = list(zip(world.send(*rows), general.send(*rows), strict=True))
        world.run()
        general.run()
        for mine, theirs in pairs:
            assert without_times(world.port.ends[mine]) == without_times(general.port.ends[theirs])  # type: ignore[arg-type]
    assert counts(world)["hits"] >= 3


def test_a_hit_does_not_wait_for_the_thread(world: Make) -> None:
    thread = HeldThread()
    made = world(thread=thread)
    (runs,) = made.send(message([1, 2]))
    made.step()
    assert len(thread.jobs) == 1
    hit, waits = made.send(message([0, 0]), message([3, 4]))
    made.step()
    assert is_hit(made.port.ends[hit])
    assert not {runs, waits} & made.port.ends.keys()
    made.run()
    assert [values(made.port.ends[slot]) for slot in (runs, waits)] == [[2, 4], [6, 8]]
    made.check_clean()


def test_a_full_queue_refuses_what_is_to_run(world: Make) -> None:
    thread = HeldThread()
    made = world(thread=thread, queue_requests=2)
    made.send(message([1, 2]))
    made.step()
    slots = made.send(message([3, 4]), message([0, 0]), message([5, 6]), message([7, 8]), message([0, 0], [0, 0]))
    made.step()
    assert isinstance(made.port.ends[slots[3]], OverloadedError)
    assert [is_hit(made.port.ends[slots[at]]) for at in (1, 4)] == [True, True]
    made.run()
    assert [values(made.port.ends[slots[at]]) for at in (0, 2)] == [[6, 8], [10, 12]]
    assert refusals(made) == {"overloaded": 1}
    made.check_clean()


def test_deadlines_hold_for_what_is_to_run(either: Make) -> None:
    world = either(cost=Cost(1.0, 0.0))
    never_probes(world)
    hit, late = world.send(message([0, 0]), message([1, 2]), deadline_s=world.clock.now + 0.5)
    (passed,) = world.send(message([0, 0]), deadline_s=world.clock.now - 1)
    (soon,) = world.send(message([1, 2]), deadline_s=world.clock.now + 5)
    world.run()
    assert is_hit(world.port.ends[hit])
    assert isinstance(world.port.ends[late], DeadlinePassedError)
    assert isinstance(world.port.ends[passed], DeadlinePassedError)
    assert values(world.port.ends[soon]) == [2, 4]
    assert refusals(world) == {"deadline": 2}
    world.check_clean()


def test_what_would_miss_the_objective_is_refused(either: Make) -> None:
    world = either(cost=Cost(1.0, 0.0), objective_ms=100.0)
    never_probes(world)
    hit, late = world.send(message([0, 0]), message([1, 2]))
    world.run()
    assert is_hit(world.port.ends[hit])
    assert isinstance(world.port.ends[late], OverloadedError)
    world.check_clean()


def test_a_request_that_runs_to_find_out_what_a_batch_costs_is_kept_too(either: Make) -> None:
    world = either(cost=Cost(1.0, 0.0))
    (probe,) = world.send(message([1, 2]), deadline_s=world.clock.now + 0.5)
    world.run()
    assert values(world.port.ends[probe]) == [2, 4]
    (hit,) = world.send(message([1, 2]))
    world.run()
    assert is_hit(world.port.ends[hit])
    world.check_clean()


def test_priorities_hold_among_those_that_run(world: Make) -> None:
    def at(priority: int) -> bytes:
        return asked({"x": np.full((1, 2), float(priority))}, parameters={"priority": priority})

    thread = HeldThread()
    made = world(thread=thread, max_rows=1)
    made.warm(at(5))
    order: list[int] = []
    servable: Any = made.executors["1"].servable
    servable.fails = lambda rows: order.append(int(rows[0, 0]))
    made.send(message([100, 0]))
    made.step()
    made.send(at(9), at(1), at(4))
    made.run()
    assert order == [100, 1, 4, 9]
    made.check_clean()


def test_callers_leave_wherever_their_requests_are(world: Make) -> None:
    thread = HeldThread()
    made = world(thread=thread)
    (runs,) = made.send(message([1, 2]))
    made.step()
    comes, hit, waits = made.send(message([3, 4]), message([0, 0]), message([5, 6]))
    made.leave(comes, hit)
    made.step()
    made.leave(waits, runs)
    made.run()
    assert not {comes, hit, waits, runs} & made.port.ends.keys()
    assert refusals(made) == {"cancelled": 4}
    (again,) = made.send(message([1, 2]))
    made.run()
    assert is_hit(made.port.ends[again])  # its row had run
    made.check_clean()


def test_a_version_that_drains_answers_what_came(either: Make) -> None:
    world = either()
    closed: list[bool] = []
    hit, miss = world.send(message([0, 0]), message([1, 2]))
    world.executors["1"].drain(lambda: closed.append(True))
    world.run()
    assert [values(world.port.ends[slot]) for slot in (hit, miss)] == [[0, 0], [2, 4]]
    assert closed == [True]
    assert counts(world)["bytes"] == 0
    world.check_clean()


def test_a_version_that_is_closed_by_force_refuses_what_came(either: Make) -> None:
    world = either()
    slots = world.send(message([0, 0]), message([1, 2]))
    world.executors["1"].close()
    world.run()
    assert all(isinstance(world.port.ends[slot], NotReadyError) for slot in slots)
    world.check_clean()


def test_a_canary_and_a_champion_keep_their_own(fake_servable: Any, fake_clock: Any, report_of: Any) -> None:
    versions = {version: fake_servable(key=("m", version)) for version in "12"}
    cache = ResponseCache(MEMORY)
    world = World(versions, report_of=report_of, clock=fake_clock(), cache=cache)
    world.route(TrafficPlan("1", (Arm("2", 0.5),)))
    rows = [message([1, 2], id=f"customer {at}") for at in range(20)]
    world.warm(rows[0])
    replies = []
    for _ in range(2):
        slots = world.send(*rows)
        world.run()
        replies.append([pb.ModelInferResponse.FromString(world.port.ends[slot]) for slot in slots])  # type: ignore[arg-type]
    assert [each.model_version for each in replies[0]] == [each.model_version for each in replies[1]]
    assert {each.model_version for each in replies[0]} == {"1", "2"}
    for each in replies[1]:
        assert each.parameters[PARAMETER_BATCH_ROWS].int64_param == 0
        assert each.parameters["penstock_role"].string_param == {"1": "champion", "2": "canary"}[each.model_version]
    # Another one answers for the number from now on: it has nothing.
    world.route(TrafficPlan("2"))
    slots = world.send(message([1, 2]), message([1, 2]))
    world.run()
    assert {pb.ModelInferResponse.FromString(world.port.ends[slot]).model_version for slot in slots} == {"2"}  # type: ignore[arg-type]
    world.check_clean()


def test_one_rows_failure_leaves_the_others_their_answers(either: Make) -> None:
    world = either()
    servable: Any = world.executors["1"].servable
    servable.fails = lambda rows: ModelFailedError("no") if 13.0 in rows else None
    slots = world.send(message([0, 0]), message([1, 2]), message([13, 0]))
    world.run()
    assert [values(world.port.ends[slot]) for slot in slots[:2]] == [[0, 0], [2, 4]]
    assert isinstance(world.port.ends[slots[2]], ModelFailedError)
    (again,) = world.send(message([13, 0]))
    world.run()
    assert isinstance(world.port.ends[again], ModelFailedError)
    world.check_clean()


@pytest.mark.parametrize("where", ["get", "key", "count", "hits", "pass_on", "keep", "observe"])
def test_a_bug_leaves_no_call_without_an_end(either: Make, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    world = either()
    executor = world.executors["1"]

    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError(where)

    executor.report.drift_counted(0)
    owner: Any = {
        "get": executor.responses, "key": executor.responses, "count": executor.servable, "hits": executor.report,
        "pass_on": Lane, "keep": executor, "observe": executor,
    }[where]  # fmt: skip
    monkeypatch.setattr(owner, where, fail)
    slots = world.send(message([0, 0]), message([1, 2]))
    world.run()
    assert all(isinstance(world.port.ends[slot], bytes | PenstockError) for slot in slots)
    monkeypatch.undo()
    (after,) = world.send(message([0, 0]))
    world.run()
    assert values(world.port.ends[after]) == [0, 0]
    world.check_clean()


def test_a_reply_that_is_too_large_is_refused_each_time(either: Make) -> None:
    world = either(reply_bytes=400)
    ids = ["short", "x" * 300]
    for _ in range(2):
        slots = world.send(*(message([1, 2], id=name) for name in ids))
        world.run()
        assert values(world.port.ends[slots[0]]) == [2, 4]
        assert isinstance(world.port.ends[slots[1]], InvalidInputError)
    assert refusals(world) == {"invalid_input": 2}
    world.check_clean()


def test_answers_of_different_widths_are_no_batch(fake_servable: Any, world: Make) -> None:
    class Growing(fake_servable):  # type: ignore[misc]
        """Its answers become wider once."""

        def predict(self, blocks: Any, rows: int, *_: Any) -> Outputs:
            self.runs.append(rows)
            x = np.frombuffer(blocks[0], "<f8").reshape(rows, 2)
            return Outputs([np.tile(x, 2 if len(self.runs) > 3 else 1)], 0.0, 0.0)

    servable = Growing()
    servable.outputs = (TensorInfo("y", "FP64", (ANY, ANY)),)
    made = world(servable)
    for rows in ([1, 2], [3, 4]):
        made.send(message(rows))
        made.run()
    slots = made.send(message([1, 2]), message([3, 4]), message([1, 2]))
    made.run()
    assert [values(made.port.ends[slot]) for slot in slots] == [[1, 2], [3, 4, 3, 4], [1, 2]]
    made.check_clean()


def test_a_hit_is_counted_logged_and_copied_as_its_run_was(either: Make) -> None:
    world = either()
    executor: Any = world.executors["1"]
    counters = world.reports["1"].counters
    drift = int(counters.drift_rows.sum())
    classes = int(counters.classes.sum())
    logged: list[dict[str, Any]] = []
    copied: list[Any] = []
    executor.sampler = SimpleNamespace(
        draw=lambda requests: [*range(requests)], keep=lambda **kept: logged.append(kept)
    )
    shadow: Any = SimpleNamespace(is_batched=True, skips_repeats=False, offer=copied.append)
    executor.shadows = Shadows([(shadow, 1.0)])
    world.send(message([1, 2], id="a"))
    world.run()
    world.send(message([1, 2], id="b"), message([0, 0], [0, 0], id="c"))
    world.run()
    assert int(counters.drift_rows.sum()) - drift == 4
    assert int(counters.classes.sum()) - classes == 4
    assert [(one["rows"], one["arrays"][0].tolist()) for one in logged] == [
        (1, [[2, 4]]), (1, [[2, 4]]), (2, [[0, 0], [0, 0]]),
    ]  # fmt: skip
    assert [(one.rows, one.arrays[0].tolist()) for one in copied] == [(1, [[2, 4]]), (3, [[2, 4], [0, 0], [0, 0]])]
    assert copied[1].took_s == pytest.approx(0.006)


def test_repeats_count_for_no_drift_whether_they_run_or_not(either: Make) -> None:
    world = either(skips_repeats=True)
    counters = world.reports["1"].counters
    before = int(counters.drift_rows.sum())
    for _ in range(3):
        world.send(message([1, 2]), message([1, 2]))
        world.run()
    # Both came at once, before either was kept, and only the first says something new; so the batch counts.
    assert int(counters.drift_rows.sum()) - before == 2
    assert counts(world)["hits"] >= 4


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("send"), st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=2), min_size=1, max_size=5)
        ),
        st.tuples(st.just("step"), st.just(0)),
        st.tuples(st.just("act"), st.just(0)),
        st.tuples(st.just("leave"), st.integers(0, 40)),
    ),
    max_size=25,
)


@examples(60)
@given(steps=STEPS, is_threaded=st.booleans(), memory=st.sampled_from([1_500, MEMORY]))
def test_whatever_comes_each_call_ends_once_with_its_own_answer(
    fake_servable: Any, fake_clock: Any, steps: Any, is_threaded: bool, memory: int
) -> None:
    thread = HeldThread() if is_threaded else None
    cache = ResponseCache(memory)
    world = World(
        {"1": fake_servable()},
        report_of=lambda: Recorder(shared.new_counters(CountersShape())),
        clock=fake_clock(),
        thread=thread,
        cache=cache,
        max_rows=4,
    )
    world.warm(*FORMS)
    warmed = len(world.sent)
    sent: dict[int, list[int]] = {}
    for what, argument in steps:
        if what == "send":
            rows = [[[value, -value] for value in one] for one in argument]
            sent.update(zip(world.send(*(message(*each) for each in rows)), argument, strict=True))
        elif what == "step":
            world.step()
        elif what == "act" and thread is not None and thread.jobs:
            thread.act()
        elif what == "leave" and (slot := warmed + argument) in sent.keys() - world.port.ends.keys() - world.left:
            world.leave(slot)
    world.run()
    for slot, one in sent.items():
        if slot not in world.left:
            assert values(world.port.ends[slot]) == [number for value in one for number in (2 * value, -2 * value)]
    found = counts(world)
    assert found["bytes"] == cache.size_bytes <= memory
    world.check_clean()
    world.executors["1"].close()
    assert counts(world)["bytes"] == cache.size_bytes == 0
