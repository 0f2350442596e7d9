"""The life of plain requests: whatever happens to their callers and versions, each call ends once, and nothing is left."""

import mmap
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest

from penstock import inference_pb2 as pb
from penstock_server.batching.cost import Cost
from penstock_server.errors import (
    DeadlinePassedError,
    InvalidInputError,
    ModelFailedError,
    NotReadyError,
    OverloadedError,
    PenstockError,
    UnavailableError,
)
from penstock_server.features.pipeline import Refusal
from penstock_server.metrics.counters import REFUSALS
from penstock_server.metrics.failed_keys import TABLE_BYTES, FailedKeys
from penstock_server.metrics.recorder import Recorder
from penstock_server.metrics.routed import totals
from penstock_server.models.servable import Outputs
from penstock_server.plain import lane, layout
from penstock_server.prediction.shadows import Shadows
from penstock_server.rollout.plan import Arm, ShadowArm, TrafficPlan
from tests.server.prediction.plain_world import HeldThread, World, message, values

Make = Callable[..., World]


@pytest.fixture
def report_of(new_counters: Any) -> Callable[[], Any]:
    def new() -> Any:
        counters = new_counters()
        recorder: Any = Recorder(counters)
        recorder.counters = counters
        return recorder

    return new


@pytest.fixture
def world(fake_servable: Any, fake_clock: Any, report_of: Any) -> Make:
    """A world of two versions, with the forms of one and of two rows known."""

    def make(
        kind: type | None = None,
        *,
        forms: tuple[bytes, ...] = (message([0, 0]), message([0, 0], [0, 0])),
        **settings: Any,
    ) -> World:
        versions = settings.pop("versions", None) or {
            version: (kind or fake_servable)(key=("m", version)) for version in "12"
        }
        made = World(versions, report_of=report_of, clock=fake_clock(), **settings)
        made.warm(*forms)
        return made

    return make


@pytest.fixture(params=["inline", "threaded"])
def either(request: pytest.FixtureRequest, world: Make) -> Make:
    """The same, with the version's batches on the reactor or on a thread."""

    def make(*arguments: Any, **settings: Any) -> World:
        thread = HeldThread() if request.param == "threaded" else None
        return world(*arguments, thread=thread, **settings)

    return make


def refusals(world: World, version: str = "1") -> dict[str, int]:
    counts = world.reports[version].counters.refusals.tolist()
    return {reason: count for reason, count in zip(REFUSALS, counts, strict=True) if count}


def answered(world: World, version: str = "1") -> int:
    return int(world.reports[version].counters.requests[0]) - 2  # without those that made the forms known


def test_requests_of_one_turn_are_one_batch(either: Make) -> None:
    world = either()
    runs = world.executors["1"].servable.runs
    runs.clear()
    slots = world.send(*(message([at, -at]) for at in range(5)), message([7, 8], [9, 10], id="two"))
    assert (world.taken, world.executors["1"].plain_batches.lane.rows) == (6, 7)
    world.run()
    assert runs == [7]
    assert [values(world.port.ends[slot]) for slot in slots[:5]] == [[2.0 * at, -2.0 * at] for at in range(5)]
    assert values(world.port.ends[slots[5]]) == [14.0, 16.0, 18.0, 20.0]
    reply = pb.ModelInferResponse.FromString(world.port.ends[slots[5]])
    assert (reply.id, reply.parameters["penstock_role"].string_param) == ("two", "champion")
    assert (answered(world), refusals(world), world.port.replies) == (6, {}, 6)
    assert world.port.is_shared == (world.thread is not None)  # the thread may begin the next batch meanwhile
    world.check_clean()


def test_a_caller_that_leaves_while_it_waits_has_no_row_in_the_batch(either: Make) -> None:
    world = either()
    servable = world.executors["1"].servable
    servable.runs.clear()
    slots = world.send(*(message([at, at]) for at in range(4)))
    world.leave(slots[0], slots[2])
    assert world.executors["1"].plain_batches.lane.requests == 2
    world.run()
    assert servable.runs == [2]
    assert [values(world.port.ends[slot])[0] for slot in (slots[1], slots[3])] == [2.0, 6.0]
    assert refusals(world) == {"cancelled": 2}
    world.check_clean()


def test_callers_that_all_leave_leave_nothing(either: Make) -> None:
    world = either()
    for _ in range(3):
        world.leave(*world.send(*[message([1, 1])] * 4096))
    assert world.requests.is_idle
    world.check_clean()
    assert refusals(world) == {"cancelled": 3 * 4096}
    world.send(message([1, 1]))
    assert world.taken == 3 * 4096 + 1
    world.run()
    world.check_clean()


def test_a_caller_that_leaves_while_its_batch_runs_takes_nothing_from_the_others(world: Make) -> None:
    world_ = world(thread=HeldThread())
    slots = world_.send(*(message([at, at]) for at in range(3)))
    world_.step()
    world_.leave(slots[1])
    world_.run()
    assert [values(world_.port.ends[slot])[0] for slot in (slots[0], slots[2])] == [0.0, 4.0]
    assert (answered(world_), refusals(world_)) == (2, {"cancelled": 1})
    world_.check_clean()


def test_the_slot_of_a_call_that_was_refused_as_late_is_the_next_callers(either: Make) -> None:
    """Its place was given back: what becomes of the next call of this number must not touch another's request."""
    world = either(cost=Cost(0.010, 0.0))
    (late,) = world.send(message([1, 1]), deadline_s=world.clock.now + 0.030)
    assert world.taken == 1
    world.clock.now += 0.025
    world.run()
    assert isinstance(world.port.ends[late], DeadlinePassedError)
    assert refusals(world) == {"deadline": 1}
    world.check_clean()
    (other,) = world.send(message([3, 3]))
    world.leave(late)
    world.run()
    assert values(world.port.ends[other]) == [6.0, 6.0]
    assert refusals(world) == {"deadline": 1}
    world.check_clean()


def test_a_deadline_that_the_transport_sees_pass_is_counted_as_in_the_general_path(either: Make) -> None:
    world = either()
    slots = world.send(message([1, 1]), message([2, 2]), deadline_s=world.clock.now + 1.0)
    world.clock.now += 1.0
    world.expire(slots[0])
    assert isinstance(world.port.ends[slots[0]], DeadlinePassedError)
    world.clock.now -= 0.5
    world.run()
    assert values(world.port.ends[slots[1]]) == [4.0, 4.0]
    assert refusals(world) == {"cancelled": 1}
    assert not world.unrouted.counters.refusals.any()
    world.check_clean()


def test_a_batch_is_no_larger_than_its_nearest_deadline_allows(world: Make) -> None:
    made = world(cost=Cost(0.0, 0.001), max_rows=64)
    servable = made.executors["1"].servable
    servable.runs.clear()
    made.send(message([1, 1]), deadline_s=made.clock.now + 0.0045)
    made.send(*[message([2, 2])] * 10)
    made.step()
    assert servable.runs[0] == 4
    assert sum(servable.runs) == 11
    made.check_clean()


def test_requests_that_would_come_too_late_are_refused_at_once(either: Make) -> None:
    world = either(cost=Cost(1.0, 0.0))
    world.send(message([0, 0]))  # something waits, so that no probe runs
    (slot,) = world.send(message([1, 1]), deadline_s=world.clock.now + 0.5)
    assert (world.taken, world.port.refused) == (2, 1)
    assert str(world.port.ends[slot]) == "the answer would come after the deadline"
    assert refusals(world) == {"deadline": 1}
    world.run()
    world.check_clean()


@pytest.mark.parametrize(
    ("rows", "most", "limits"),
    [
        (1, 6, {"queue_requests": 6}),
        (2, 6, {"queue_rows": 12}),
        (8000, 8, {"queue_mib": 1, "max_rows": 100_000, "queue_rows": 1_000_000}),
    ],
)
def test_the_queue_and_the_lane_respect_its_limits_together(
    world: Make, rows: int, most: int, limits: dict[str, int]
) -> None:
    """Plain and other requests, in both orders."""
    plain, other = message(*[[1, 1]] * rows), message(*[[1, 1]] * rows, id="ü")
    made = world(thread=HeldThread(), **limits)
    executor = made.executors["1"]
    for first, second in ((other, plain), (plain, other)):
        made.send(plain)
        made.step()  # it runs: what comes now waits
        ends = len(made.port.ends)
        made.send(*[first] * 3)
        made.send(*[second] * 9)
        assert executor._queue.requests + executor.plain_batches.lane.requests == most
        refused = [end for end in made.port.ends.values() if isinstance(end, OverloadedError)]
        assert len(made.port.ends) - ends == 12 - most
        assert str(refused[-1]) == str(executor.full())
        made.run()
    assert refusals(made) == {"overloaded": 2 * (12 - most)}
    made.check_clean()


def test_what_waits_is_answered_when_its_version_is_unloaded(either: Make) -> None:
    world = either()
    slots = world.send(message([1, 1]), message([2, 2]))
    closed: list[int] = []
    world.route(TrafficPlan("2"), ["2"])
    world.executors["1"].drain(lambda: closed.append(1))
    assert not closed
    world.run()
    assert closed == [1]
    assert [values(world.port.ends[slot])[0] for slot in slots] == [2.0, 4.0]
    (slot,) = world.send(message([3, 3]))
    world.run()
    assert pb.ModelInferResponse.FromString(world.port.ends[slot]).model_version == "2"
    world.check_clean()


def test_a_version_whose_last_callers_leave_is_closed(either: Make) -> None:
    for end in ("leave", "expire"):
        world = either()
        slots = world.send(message([1, 1]), message([2, 2]))
        closed: list[int] = []
        world.executors["1"].drain(lambda closed=closed: closed.append(1))
        getattr(world, end)(*slots)
        world.step()
        assert closed == [1]
        world.run()
        world.check_clean()


def test_a_version_drains_while_its_batch_runs_and_the_next_one_is_late(world: Make) -> None:
    """The batch that came back is answered after the next is taken, which holds nothing: the version closes after that."""
    made = world(thread=HeldThread(), cost=Cost(0.010, 0.0))
    (first,) = made.send(message([1, 1]))
    made.step()
    (late,) = made.send(message([2, 2]), deadline_s=made.clock.now + 0.050)
    assert made.taken == 2
    closed: list[int] = []
    made.executors["1"].drain(lambda: closed.append(len(made.port.ends)))
    made.clock.now += 0.045
    made.run()
    assert values(made.port.ends[first]) == [2.0, 2.0]
    assert isinstance(made.port.ends[late], DeadlinePassedError)
    assert closed == [len(made.port.ends)]
    made.check_clean()


@pytest.mark.parametrize("runs", [False, True])
def test_a_version_that_is_closed_by_force_refuses_what_waits_and_runs(world: Make, runs: bool) -> None:
    made = world(thread=HeldThread())
    slots = made.send(message([1, 1]), message([2, 2]))
    if runs:
        made.step()
        slots += made.send(message([3, 3]), message([4, 4]), deadline_s=made.clock.now + 0.001)
        made.clock.now += 1.0
    made.executors["1"].close()
    assert all(isinstance(made.port.ends[slot], NotReadyError) for slot in slots)
    assert refusals(made) == {"not_ready": len(slots)}
    made.check_clean()
    made.run()  # the thread comes back, to nobody
    made.route(TrafficPlan("2"), ["2"])
    made.send(message([5, 5]), message([6, 6]))
    made.run()
    made.send(message([7, 7]))
    made.run()
    assert refusals(made) == {"not_ready": len(slots)}
    made.check_clean()


def test_more_than_a_batch_holds_is_refused_when_a_version_is_closed(world: Make) -> None:
    made = world(thread=HeldThread(), queue_requests=20_000)
    made.send(message([0, 0]))
    made.step()
    slots = made.send(*[message([1, 1])] * (layout.MOST_REQUESTS + 1))
    made.executors["1"].close()
    assert all(isinstance(made.port.ends[slot], NotReadyError) for slot in slots)
    made.check_clean()


def test_replies_name_the_role_in_which_they_were_routed(world: Make) -> None:
    made = world(thread=HeldThread(), plan=TrafficPlan("1"))
    slots = made.send(message([1, 1]))
    made.step()
    slots += made.send(message([2, 2]))
    made.route(TrafficPlan("2", shadows=(ShadowArm("1"),)))
    slots += made.send(message([3, 3], model_version="1"))
    made.run()
    slots += made.send(message([4, 4], model_version="1"))
    made.run()
    roles = [
        pb.ModelInferResponse.FromString(made.port.ends[slot]).parameters["penstock_role"].string_param
        for slot in slots
    ]
    assert roles == ["champion", "champion", "shadow", "shadow"]
    made.check_clean()


def test_a_canary_takes_its_share_as_soon_as_it_is_there(either: Make) -> None:
    world = either()
    world.route(TrafficPlan("1", (Arm("2", 1.0),)))
    for taken in (0, 1, 2):
        (slot,) = world.send(message([1, 1]))
        world.run()
        assert version_of(world, slot) == "2"
        assert world.taken == taken
    world.route(TrafficPlan("1", (Arm("2", 0.0),)))
    world.send(message([1, 1]))
    world.send(message([1, 1]))
    assert world.taken == 3
    world.run()
    world.check_clean()


def version_of(world: World, slot: int) -> str:
    end = world.port.ends[slot]
    assert isinstance(end, bytes), end
    return pb.ModelInferResponse.FromString(end).model_version


def test_keys_reach_the_version_that_the_plan_chooses(either: Make) -> None:
    plan = TrafficPlan("1", (Arm("2", 0.3),))
    world = either(plan=plan)
    keys = [f"customer-{at}" * (1 + at % 20) for at in range(200)]
    keyed = world.send(*(message([1, 1], parameters={"routing_key": key}, id="other") for key in keys))
    named = world.send(*(message([1, 1], parameters={"routing_key": ""}, id=key) for key in keys))
    (given,) = world.send(message([1, 1], id=keys[0], model_version="2"))
    world.run()
    assert world.taken == 400
    for slots in (keyed, named):
        assert [version_of(world, slot) for slot in slots] == [plan.choose("m", key)[0] for key in keys]
    assert version_of(world, given) == "2"
    assert 30 < sum(version_of(world, slot) == "2" for slot in keyed) < 90
    world.check_clean()


def test_keys_reach_each_of_several_canaries(fake_servable: Any, either: Make) -> None:
    arms = (Arm("2", 0.2), Arm("3", 0.3, "canary-b"), Arm("4", 0.25, "canary-c"), Arm("5", 0.0, "canary-d"))
    plan = TrafficPlan("1", arms)
    world = either(plan=plan, versions={version: fake_servable(key=("m", version)) for version in "12345"})
    keys = [f"customer-{at}" for at in range(300)]
    slots = world.send(*(message([1, 1], id=key) for key in keys))
    others = world.send(*[message([1, 1])] * 600)
    world.run()
    assert world.taken == 900
    assert [version_of(world, slot) for slot in slots] == [plan.choose("m", key)[0] for key in keys]
    drawn = Counter(version_of(world, slot) for slot in others)
    assert drawn.keys() == {"1", "2", "3", "4"}
    assert 85 < drawn["2"] < 160
    assert 130 < drawn["3"] < 235
    world.check_clean()


def test_a_canary_gets_its_share_of_those_without_a_key(either: Make) -> None:
    world = either(plan=TrafficPlan("1", (Arm("2", 0.25),)))
    slots = world.send(*[message([1, 1])] * 2000)
    world.run()
    assert world.taken == 2000
    assert 380 < sum(version_of(world, slot) == "2" for slot in slots) < 620
    world.check_clean()


def test_what_only_one_of_two_versions_takes_is_drawn_once(fake_servable: Any, world: Make) -> None:
    """One that the canary cannot take takes the general path before it is drawn: else it would be drawn there again."""
    made = world(plan=TrafficPlan("1", (Arm("2", 0.5),)))
    made.send(message([1, 1]))
    made.executors["2"].plain_batches.lane.shut()
    made.taken = 0
    slots = made.send(*[message([1, 1])] * 400)
    made.run()
    assert made.taken == 0
    assert 120 < sum(version_of(made, slot) == "2" for slot in slots) < 280
    other = fake_servable(key=("m", "2"))
    other.inputs = (replace(other.inputs[0], name="z"),)
    made = world(
        versions={"1": fake_servable(key=("m", "1")), "2": other},
        plan=TrafficPlan("1", (Arm("2", 0.5),)),
        forms=(),
    )
    slots = made.send(*[message([1, 1])] * 200)
    made.run()
    assert made.taken == 0
    ends = [type(made.port.ends[slot]) for slot in slots]
    assert set(ends) == {bytes, InvalidInputError}
    made.check_clean()


class Offered:
    """A shadow that keeps what it is offered."""

    skips_repeats = False

    def __init__(self, *, is_batched: bool) -> None:
        self.is_batched = is_batched
        self.batches: list[Any] = []
        self.rows_left_out = 0

    def left_out(self, rows: int) -> None:
        self.rows_left_out += rows

    def offer(self, batch: Any) -> None:
        self.batches.append(batch)


def shadows(*offered: Any, share: float = 1.0) -> Shadows:
    return Shadows([(each, share) for each in offered])


def test_a_shadow_gets_what_was_answered(either: Make) -> None:
    world = either()
    world.executors["1"].set_shadows(shadows(shadow := Offered(is_batched=True)))
    world.send(message([1, 2]), message([3, 4], [5, 6]))
    world.run()
    (copy,) = shadow.batches
    assert (copy.rows, copy.requests, [*copy.counts]) == (3, (), [1, 2])
    assert np.frombuffer(copy.blocks[0]).tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    assert copy.arrays[0].tolist() == [[2.0, 4.0], [6.0, 8.0], [10.0, 12.0]]


def test_shadows_get_their_shares_of_the_batches(either: Make) -> None:
    world = either()
    few, many = Offered(is_batched=True), Offered(is_batched=True)
    draws = Random(7).random
    world.executors["1"].set_shadows(Shadows([(few, 0.1), (many, 0.5)], draws))
    for number in range(400):
        world.send(*[message([1, number])] * (1 + number % 3))
        world.run()
    rows = sum(1 + number % 3 for number in range(400))
    for shadow, share in ((few, 0.1), (many, 0.5)):
        assert abs(len(shadow.batches) - 400 * share) < 4 * (400 * share * (1 - share)) ** 0.5
        copied = sum(copy.rows for copy in shadow.batches)
        # What has passed since the last copy of any shadow is counted with the next.
        passed = int(world.executors["1"].shadows.passing[1])
        assert copied + shadow.rows_left_out + passed == rows
    world.check_clean()


def test_a_shadow_that_comes_later_and_takes_requests_alone_gets_them_so(either: Make) -> None:
    world = either()
    world.send(message([1, 2]), message([3, 4], [5, 6]))
    world.executors["1"].set_shadows(shadows(shadow := Offered(is_batched=False)))
    world.run()
    (copy,) = shadow.batches
    assert [(one.rows, np.frombuffer(one.blocks[0]).tolist()) for one in copy.requests] == [
        (1, [1.0, 2.0]),
        (2, [3.0, 4.0, 5.0, 6.0]),
    ]
    world.route(TrafficPlan("1", shadows=(ShadowArm("2"),)))
    world.executors["1"].set_shadows(shadows(shadow))
    for _ in range(2):
        world.send(message([1, 2]))
        world.run()
    assert (world.taken, len(shadow.batches)) == (2, 3)
    world.check_clean()


def test_one_rows_failure_leaves_the_others_their_answers(either: Make) -> None:
    world = either()
    servable = world.executors["1"].servable
    servable.fails = lambda rows: ModelFailedError("13 fails") if (rows == 13).any() else None
    servable.runs.clear()
    slots = world.send(message([1, 1]), message([13, 1], id="bad"), message([3, 3], [4, 4], id="good"))
    world.run()
    assert servable.runs == [4, 1, 1, 2]
    assert values(world.port.ends[slots[0]]) == [2.0, 2.0]
    assert isinstance(world.port.ends[slots[1]], ModelFailedError)
    assert pb.ModelInferResponse.FromString(world.port.ends[slots[2]]).id == "good"
    assert (answered(world), refusals(world)) == (2, {"model_failed": 1})
    world.check_clean()


def test_one_that_failed_alone_does_not_run_again(either: Make) -> None:
    world = either()
    servable = world.executors["1"].servable
    servable.fails = lambda rows: ModelFailedError("no")
    servable.runs.clear()
    (slot,) = world.send(message([1, 1]))
    world.run()
    assert (servable.runs, isinstance(world.port.ends[slot], ModelFailedError)) == ([1], True)
    world.check_clean()


def test_callers_leave_while_the_requests_of_a_failed_batch_run_alone(world: Make) -> None:
    made = world(thread=HeldThread())
    servable = made.executors["1"].servable
    servable.fails = lambda rows: ModelFailedError("13 fails") if (rows == 13).any() else None
    slots = made.send(message([13, 1]), message([2, 2]), message([3, 3]))
    made.step()
    made.leave(slots[2])
    made.thread.act()
    made.leave(slots[1])
    made.run()
    assert isinstance(made.port.ends[slots[0]], ModelFailedError)
    assert refusals(made) == {"model_failed": 1, "cancelled": 2}
    made.check_clean()


def test_refused_rows_refuse_their_requests(either: Make, fake_servable: Any) -> None:
    class Refusing(fake_servable):  # type: ignore[misc]
        def predict(self, blocks: Any, rows: int, *rest: Any) -> Outputs:
            found = np.where(np.frombuffer(blocks[0], "<f8").reshape(rows, 2)[:, 0] == 13, 0, -1)
            outputs = super().predict(blocks, rows, *rest)
            return replace(outputs, refusal=Refusal(found, ("is 13",)) if (found >= 0).any() else None)

    world = either(Refusing)
    servable = world.executors["1"].servable
    servable.runs.clear()
    slots = world.send(message([1, 1]), message([2, 2], [13, 2]), message([3, 3]))
    world.run()
    assert servable.runs == [4]
    assert [values(world.port.ends[slots[at]])[0] for at in (0, 2)] == [2.0, 6.0]
    assert isinstance(world.port.ends[slots[1]], InvalidInputError)
    assert str(world.port.ends[slots[1]]) == "row 1 is 13"
    assert (answered(world), refusals(world)) == (2, {"invalid_input": 1})
    world.check_clean()


@pytest.mark.parametrize("is_plain", [True, False])
@pytest.mark.parametrize("how", ["refused", "failed", "too large"])
def test_failures_are_counted_by_the_key_that_drew_the_version(
    either: Make, fake_servable: Any, is_plain: bool, how: str
) -> None:
    """However a request of a key fails, whichever version it meets; what names its version is nobody's draw."""

    class Failing(fake_servable):  # type: ignore[misc]
        def predict(self, blocks: Any, rows: int, *rest: Any) -> Outputs:
            is_bad = np.frombuffer(blocks[0], "<f8").reshape(rows, 2)[:, 0] == 13
            if how == "failed" and is_bad.any():
                raise ModelFailedError("13 fails")
            outputs = super().predict(blocks, rows, *rest)
            found = np.where(is_bad, 0, -1)
            is_refused = how == "refused" and is_bad.any()
            return replace(outputs, refusal=Refusal(found, ("is 13",)) if is_refused else None)

    keys = ["", "seven", "seven", "a" * 300, "seven", "other", "", "seven", "seven"]
    rows, reply_bytes = ([[13.0, 1.0]] * 70, 1000) if how == "too large" else ([[13.0, 1.0]], 1 << 20)
    plan = TrafficPlan("1", (Arm("2", 0.5),))
    world = either(Failing, plan=plan, reply_bytes=reply_bytes, is_plain=is_plain)
    table = FailedKeys(mmap.mmap(-1, TABLE_BYTES), 1)
    for report in world.reports.values():
        report.failed_keys = table
    for key in keys:
        world.send(message(*rows, parameters={"routing_key": key} if key else {}))
        world.run()
    world.send(message(*rows, parameters={"routing_key": "named"}, model_version="2"), message([1, 1], id="fine"))
    world.run()
    found = totals([report.counters for report in world.reports.values()])
    assert (found.failed, found.by_key) == (len(keys), (5, 3, len(keys)))
    world.check_clean()


def test_a_reply_that_is_too_large_is_refused_once(either: Make) -> None:
    def request(rows: int) -> bytes:
        return message(*[[1.0, 1.0]] * rows, id="x" * 100)

    (reply, larger) = (len(either(forms=(request(rows),)).port.ends[0]) for rows in (1, 2))
    world = either(forms=(request(1), request(1)), reply_bytes=(reply + larger) // 2 + 16)
    slots = world.send(request(1), request(2), request(1))
    world.run()
    assert isinstance(world.port.ends[slots[1]], InvalidInputError)
    assert "the reply to 2 rows takes" in str(world.port.ends[slots[1]])
    assert (answered(world), refusals(world)) == (2, {"invalid_input": 1})
    world.check_clean()


class BrokenError(Exception):
    """A bug."""


def test_a_version_that_drains_closes_after_a_bug(either: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    world = either()
    executor = world.executors["1"]
    closed: list[int] = []
    monkeypatch.setattr(executor.plain_batches.lane, "blocks", lambda: 1 / 0)
    (slot,) = world.send(message([1, 1]))
    executor.drain(lambda: closed.append(1))
    world.run()
    assert isinstance(world.port.ends[slot], PenstockError)
    assert closed == [1]
    world.check_clean()


@pytest.mark.parametrize(
    "where", ["lane.answer", "lane.finish", "lane.blocks", "executor.observe", "port.send_replies", "_read"]
)
def test_a_bug_leaves_no_call_without_an_end(either: Make, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    world = either()
    executor = world.executors["1"]
    plain = executor.plain_batches
    if where == "_read":
        executor.servable.fails = lambda rows: ModelFailedError("no")
    if where == "lane.finish":  # which answers once the constant part of replies is known
        world.send(message([0, 0]))
        world.run()
    owner, _, name = where.rpartition(".")
    owners = {"lane": plain.lane, "executor": executor, "port": world.port, "": plain}

    def breaks(*_arguments: Any, **_settings: Any) -> Any:
        raise BrokenError

    with monkeypatch.context() as patch:
        patch.setattr(owners[owner], name, breaks)
        slots = world.send(message([1, 1]), message([2, 2]))
        world.run()
    if where not in ("executor.observe", "port.send_replies"):
        assert [type(world.port.ends[slot]) for slot in slots] == [PenstockError] * 2
        assert refusals(world) == {"internal": 2}
    if where != "port.send_replies":  # the transport itself has those calls
        assert set(world.sent) == set(world.port.ends)
    assert world.requests.is_idle
    executor.servable.fails = lambda rows: None
    (slot,) = world.send(message([3, 3]))
    world.run()
    assert values(world.port.ends[slot]) == [6.0, 6.0]
    assert executor.is_idle


def test_the_end_of_the_grace_ends_what_waits_and_runs_once(world: Make) -> None:
    made = world(thread=HeldThread())
    slots = made.send(message([1, 1]), message([2, 2]))
    made.step()
    slots += made.send(message([3, 3]), message([4, 4], id="ü"))
    made.end_of_grace()
    made.end_of_grace()
    assert all(isinstance(made.port.ends[slot], UnavailableError) for slot in slots)
    made.run()
    assert refusals(made) == {"cancelled": 4}
    made.check_clean()


def test_a_server_that_drains_takes_no_more(either: Make) -> None:
    world = either()
    (before,) = world.send(message([1, 1]))
    world.drain()
    slots = world.send(message([2, 2]), b"no message")
    assert (world.taken, world.port.refused) == (3, 2)
    world.run()
    assert values(world.port.ends[before]) == [2.0, 2.0]
    assert all(isinstance(world.port.ends[slot], UnavailableError) for slot in slots)
    assert int(world.unrouted.counters.refusals.sum()) == 2
    world.check_clean()


def test_a_batch_is_answered_while_the_next_one_runs(world: Make) -> None:
    made = world(thread=HeldThread(), max_rows=4)
    slots = [
        *made.send(*(message([at, at]) for at in range(3))),
        *made.send(*(message([at, at]) for at in range(3, 11))),
    ]
    made.step()
    while made.thread.jobs:
        made.thread.act()
    assert [values(made.port.ends[slot])[0] for slot in slots] == [2.0 * at for at in range(11)]
    assert made.executors["1"].servable.runs[-3:] == [4, 4, 3]
    made.check_clean()


def test_more_numbers_of_rows_than_layouts_are_kept(world: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane, "MAX_LAYOUTS", 8)
    made = world(max_rows=1000)
    for turn in range(4):
        sizes = [1 + (7 * at + turn) % 40 for at in range(40)]
        slots = made.send(*(message(*[[rows, turn]] * rows, outputs=["y"] * (rows % 2)) for rows in sizes))
        made.run()
        for slot, rows in zip(slots, sizes, strict=True):
            reply = pb.ModelInferResponse.FromString(made.port.ends[slot])
            assert list(reply.outputs[0].shape) == [rows, 2]
            assert values(made.port.ends[slot]) == [2.0 * rows, 2.0 * turn] * rows
    assert made.taken > 100
    made.check_clean()


def test_a_version_with_a_full_lane_leaves_another_its_turns(world: Make) -> None:
    """Each step runs a batch of both, however much waits for one of them."""
    made = world(max_rows=4, queue_requests=40)
    other = message([3, 3], model_version="2")
    made.warm(message([0, 0], model_version="1"), other)
    for _ in range(20):
        flood = made.send(*[message([1, 1], model_version="1")] * 60)
        (slot,) = made.send(other)
        made.scheduler.step()
        assert values(made.port.ends[slot]) == [6.0, 6.0]
        assert sum(isinstance(made.port.ends.get(at), bytes) for at in flood) <= 4
    assert made.executors["1"].plain_batches.lane.requests == 36
    assert refusals(made) == {"overloaded": 60 * 20 - 40 - 19 * 4}
    assert refusals(made, "2") == {}
    made.run()
    made.check_clean()


def test_two_hundred_models_in_turn(fake_servable: Any, fake_clock: Any, report_of: Any) -> None:
    made = World(
        {str(number): fake_servable(key=("m", str(number))) for number in range(1, 201)},
        report_of=report_of,
        clock=fake_clock(),
    )
    versions = list(made.executors)
    made.warm(*(message([0, 0], model_version=version) for version in versions))
    for turn in range(3):
        slots = made.send(*(message([turn, int(version)], model_version=version) for version in versions))
        made.run()
        for slot, version in zip(slots, versions, strict=True):
            reply = pb.ModelInferResponse.FromString(made.port.ends[slot])
            assert (reply.model_version, values(made.port.ends[slot])[1]) == (version, 2.0 * int(version))
    assert made.taken == 600
    made.check_clean()
    for version in versions:
        made.executors[version].drain(lambda: None)
    assert len(made.requests._free_lanes) == layout.MAX_LANES


@pytest.mark.long
def test_forms_beyond_the_table_of_plans_are_forgotten_and_learnt_again(world: Make) -> None:
    made = world()
    for number in range(layout.MAX_PLANS + 50):
        made.send(message([number, 0], outputs=["y"] if number % 2 else [], model_version="" if number < 9 else "1"))
        made.send(message(*[[number, 0]] * (1 + number % 3), parameters={"extra_columns": "refuse"}))
        made.run()
    for version in range(2 * layout.MAX_PLANS):
        # A form of its own each time: an output's name that differs by a parameter.
        request = pb.ModelInferRequest.FromString(message([1, 1]))
        request.outputs.add(name="y").parameters["a"].int64_param = version
        made.send(request.SerializeToString(deterministic=True))
        made.run()
    taken = made.taken
    made.send(message([1, 1]))
    made.run()
    made.send(message([1, 1]))
    assert made.taken > taken
    made.run()
    made.check_clean()
