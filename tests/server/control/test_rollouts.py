"""The controller against a registry in memory, on a fake clock: ramps, restarts, two controllers, registries that fail."""

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pytest
import structlog

from penstock.names import VersionKey
from penstock_server.control.rollout_gauges import RolloutCollector
from penstock_server.control.rollouts import RolloutController, RolloutView
from penstock_server.errors import UnavailableError
from penstock_server.metrics.counters import LATENCY_EDGES_S
from penstock_server.rollout.decision import VersionHealth
from penstock_server.rollout.evidence import Snapshot, VersionTotals, read_evidence
from penstock_server.rollout.lease import LEASE_S
from penstock_server.rollout.progress import COMMAND_TAG, EVIDENCE_TAG, LEASE_TAG, SPEC_TAG
from penstock_server.rollout.registered import Change, Expected, RegisteredRollout
from tests.server.conftest import FakeClock
from tests.server.rollout.tagged import TaggedModel

CELLS = len(LATENCY_EDGES_S) + 1
SPEC = '{"steps": [10, 50, 100], "hold": "2m", "requests": 500, "gates": {"errors": 1.5, "p99": 2}, "deadline": "6h"}'
LOOK_S = 5.0
RATE = 100.0
"""Requests per second."""


@dataclass
class Registry:
    """One model `m`; what is written may fail, or stop midway."""

    model: TaggedModel = field(default_factory=lambda: TaggedModel(tags={SPEC_TAG: SPEC}))
    fails: bool = False
    stops_after: int | None = None
    writes: list[Sequence[Change]] = field(default_factory=list)

    async def write(self, model: str, expected: Expected, changes: Sequence[Change]) -> None:
        assert model == "m"
        if self.fails:
            raise UnavailableError("the registry is away")
        unmet = expected.unmet(self.model.model_tags, self.model.aliases, self.model.tags)
        if unmet:
            raise UnavailableError(f"changed: {unmet}")
        self.writes.append(changes)
        if self.stops_after is not None:
            self.model.make(changes[: self.stops_after])
            raise UnavailableError("it stopped midway")
        self.model.make(changes)


@dataclass
class Traffic:
    """A server's counters, fed by chance: the version fails and is slow by its own probabilities."""

    registry: Registry
    instance: str = "a"
    since_s: float = 0.0
    errors: float = 0.01
    slow: float = 0.01
    chance: random.Random = field(init=False)
    counted: list[list[int]] = field(default_factory=lambda: [[0, 0, 0], [0, 0, 0]])

    def __post_init__(self) -> None:
        self.chance = random.Random(self.instance)  # servers that err at the same moments would be no servers

    def pass_s(self, seconds: float) -> None:
        weight = float(self.registry.model.weight or 0) / 100
        version = sum(self.chance.random() < weight for _ in range(int(RATE * seconds)))
        for at, requests, errors, slow in (
            (0, version, self.errors, self.slow),
            (1, int(RATE * seconds) - version, 0.01, 0.01),
        ):
            own = self.counted[at]
            own[0] += requests
            own[1] += sum(self.chance.random() < errors for _ in range(requests))
            own[2] += sum(self.chance.random() < slow for _ in range(requests))

    @property
    def snapshot(self) -> Snapshot:
        totals = [
            VersionTotals(requests, errors, (0,) * 10 + (requests - slow,) + (0,) * 5 + (slow,) + (0,) * (CELLS - 17))
            for requests, errors, slow in self.counted
        ]
        return Snapshot(self.instance, self.registry.model.weight or "", self.since_s, *totals)


@dataclass
class World:
    """A registry, servers that count, and controllers."""

    registry: Registry = field(default_factory=Registry)
    clock: FakeClock = field(default_factory=FakeClock)
    servers: dict[str, Traffic] = field(default_factory=dict)
    controllers: list[RolloutController] = field(default_factory=list)
    health: VersionHealth = field(default_factory=VersionHealth)

    def server(self, name: str, **how: float) -> Traffic:
        self.servers[name] = Traffic(self.registry, name, self.clock(), **how)  # type: ignore[arg-type]
        return self.servers[name]

    def controller(self, holder: str, health: Callable[[VersionKey], VersionHealth] | None = None) -> RolloutController:
        seen: dict[str, RegisteredRollout] = {}

        async def refresh() -> None:
            seen["m"] = self.registry.model.found

        async def look(model: str, version: str, champion: str) -> Mapping[str, Snapshot]:
            assert (model, version) == ("m", "2")
            return {name: server.snapshot for name, server in self.servers.items()}

        def rollouts() -> Mapping[str, RegisteredRollout]:
            seen["m"] = self.registry.model.found
            return seen

        controller = RolloutController(
            holder=holder, rollouts=rollouts, registry=self.registry, refresh=refresh, look=look,
            health=health or (lambda _: self.health), wall=self.clock, clock=self.clock,
        )  # fmt: skip
        self.controllers.append(controller)
        return controller

    async def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> float:
        """Lets time pass; returns how long it took."""
        began = self.clock()
        while self.clock() - began < seconds and not until():
            for server in self.servers.values():
                server.pass_s(LOOK_S)
            self.clock.now += LOOK_S
            for controller in self.controllers:
                await controller.look()
        return self.clock() - began

    @property
    def view(self) -> RolloutView:
        (found,) = self.controllers[0].views()
        return found

    @property
    def status(self) -> str:
        progress = self.view.progress
        return "" if progress is None else progress.status


async def test_a_good_version_is_promoted_and_the_history_says_how() -> None:
    world = World()
    world.server("a")
    world.controller("one")
    took_s = await world.run(7200, until=lambda: world.status == "promoted")
    assert world.registry.model.aliases == {"champion": "2"}
    assert world.registry.model.champions == ["1", "2"]
    assert 240 < took_s < 3600
    lines = [str(entry) for entry in world.view.history]
    assert [line.partition("Z ")[2].partition(":")[0] for line in lines] == ["10 %", "50 %", "promoting", "promoted"]
    assert world.view.evidence.total("requests")[0] > 500


async def test_metrics_tell_since_when_a_rollout_waits_and_until_when_it_may() -> None:
    def shown() -> dict[str, float]:
        (view,) = world.controllers[0].views()
        families = RolloutCollector(lambda: [view]).collect()
        return {each.name: each.value for family in families for each in family.samples}

    world = World()
    world.server("a")
    world.controller("one")
    await world.run(60, until=lambda: world.status == "running")
    found, began_s = shown(), world.clock()
    assert found["penstock_rollout_stage_since_timestamp_seconds"] == began_s
    assert found["penstock_rollout_deadline_timestamp_seconds"] == began_s + 6 * 3600
    await world.run(7200, until=lambda: "50 %" in world.view.history[-1].text)
    assert shown()["penstock_rollout_stage_since_timestamp_seconds"] == world.clock()
    await world.run(7200, until=lambda: world.status == "promoted")
    assert "penstock_rollout_stage_weight_ratio" in shown()
    assert not any("timestamp" in name for name in shown())


@pytest.mark.parametrize(("errors", "slow"), [(0.05, 0.01), (0.01, 0.05)])
async def test_a_bad_version_is_rolled_back_soon(errors: float, slow: float) -> None:
    world = World()
    world.server("a", errors=errors, slow=slow)
    world.controller("one")
    took_s = await world.run(7200, until=lambda: world.status == "rolled_back")
    assert took_s < 400
    assert world.registry.model.aliases == {"champion": "1"}
    assert "proven worse" in world.view.history[-1].text


async def test_a_version_that_no_server_can_load_is_rolled_back() -> None:
    world = World()
    world.server("a")
    world.controller("one")
    await world.run(60, until=lambda: world.status == "running")
    world.health = VersionHealth(is_ready=False, is_refused=True, reason="golden rows differ")
    await world.run(60, until=lambda: world.status == "rolled_back")
    assert "golden rows differ" in world.view.history[-1].text


async def test_what_several_servers_count_is_added_up() -> None:
    world = World()
    for name in "abc":
        world.server(name)
    world.controller("one")
    await world.run(100)
    before = sum(world.view.evidence.total("requests"))
    await world.run(2 * LOOK_S)
    assert sum(world.view.evidence.total("requests")) - before == 3 * RATE * 2 * LOOK_S


async def test_a_restart_of_everything_goes_on_with_the_evidence_and_promotes_once() -> None:
    world = World()
    world.registry.model.tags[SPEC_TAG] = SPEC.replace("2m", "10m")
    world.server("a")
    world.controller("one")
    await world.run(180)
    before = read_evidence(world.registry.model.tags[EVIDENCE_TAG])
    assert before.total("requests")[0] > 0
    world.controllers.clear()
    world.servers.clear()
    world.clock.now += 300
    world.server("a2")
    world.controller("two")
    await world.run(LOOK_S)
    assert not world.view.is_acting  # nobody knows yet that the first has ended
    assert world.view.evidence == before
    await world.run(LEASE_S + LEASE_S / 4 + 4 * LOOK_S)
    assert world.view.is_acting
    # What the new server has counted since it started is all there, from before it might act too.
    grown = sum(world.view.evidence.total("requests")) - sum(before.total("requests"))
    assert grown == sum(totals[0] for totals in world.servers["a2"].counted)
    await world.run(7200, until=lambda: world.status == "promoted")
    assert world.registry.model.champions == ["1", "2"]


async def test_one_that_ends_loses_nothing_and_another_acts_soon() -> None:
    world = World()
    world.registry.model.tags[SPEC_TAG] = SPEC.replace("2m", "10m")
    server = world.server("a")
    one, two = world.controller("one"), world.controller("two")
    await world.run(200)
    known, counted = world.view.evidence.total("requests")[0], server.counted[0][0]
    server.pass_s(LOOK_S)
    world.controllers.remove(one)
    await one.leave()
    assert not one.views()[0].is_acting
    assert LEASE_TAG not in world.registry.model.model_tags
    saved = read_evidence(world.registry.model.tags[EVIDENCE_TAG])
    assert saved.total("requests")[0] - known == server.counted[0][0] - counted > 0
    await world.run(LEASE_S / 4 + 2 * LOOK_S)
    assert two.views()[0].is_acting
    await two.leave()
    assert read_evidence(world.registry.model.tags[EVIDENCE_TAG]).total("requests")[0] > saved.total("requests")[0]
    writes = len(world.registry.writes)
    await two.leave()
    assert len(world.registry.writes) == writes


async def test_one_that_ends_while_the_registry_is_away_says_so_and_ends() -> None:
    world = World()
    world.server("a")
    controller = world.controller("one")
    await world.run(60)
    world.registry.fails = True
    running = asyncio.create_task(controller.run(3600))
    await asyncio.sleep(0)
    with structlog.testing.capture_logs() as logs:
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert [line["event"] for line in logs][-1:] == ["a rollout could not be left"]


async def test_a_controller_that_takes_over_counts_nothing_twice() -> None:
    world = World()
    world.registry.model.tags[SPEC_TAG] = SPEC.replace("2m", "10m")
    server = world.server("a")
    world.controller("one")
    world.controller("two")
    await world.run(120)
    assert [each.views()[0].is_acting for each in world.controllers] == [True, False]
    del world.controllers[0]
    await world.run(200)
    (found,) = world.controllers[0].views()
    assert found.is_acting
    assert sum(found.evidence.total("requests")) < sum(totals[0] for totals in server.counted)


async def test_of_two_controllers_one_acts_also_when_it_was_frozen() -> None:
    world = World()
    world.server("a")
    one, two = world.controller("one"), world.controller("two")
    await world.run(60)
    assert (one.views()[0].is_acting, two.views()[0].is_acting) == (True, False)
    world.controllers.remove(one)  # it is frozen
    await world.run(LEASE_S + LEASE_S / 4 + 2 * LOOK_S)
    assert two.views()[0].is_acting
    writes = len(world.registry.writes)
    await one.look()  # it wakes, and has not seen yet what happened
    assert not one.views()[0].is_acting
    assert len(world.registry.writes) == writes
    assert world.registry.model.model_tags[LEASE_TAG].startswith("two ")


async def test_a_registry_that_is_away_freezes_the_ramp() -> None:
    world = World()
    world.server("a")
    world.controller("one")
    await world.run(60)
    stage = world.registry.model.progress.stage
    world.registry.fails = True
    await world.run(1200)
    assert world.registry.model.progress.stage == stage
    assert world.view.problem == "the registry is away"
    world.registry.fails = False
    await world.run(7200, until=lambda: world.status == "promoted")
    assert world.view.problem == ""


@pytest.mark.parametrize("stops_after", [0, 1, 2, 3])
async def test_writes_that_stop_midway_are_made_good(stops_after: int) -> None:
    world = World()
    world.server("a")
    world.controller("one")
    for _ in range(40):
        world.registry.stops_after = stops_after
        await world.run(LOOK_S)
        world.registry.stops_after = None
        await world.run(4 * LOOK_S)
    await world.run(7200, until=lambda: world.status == "promoted")
    assert world.registry.model.champions == ["1", "2"]
    assert world.registry.model.aliases == {"champion": "2"}


async def test_somebody_commands_through_the_registry() -> None:
    world = World()
    world.server("a")
    world.controller("one")
    await world.run(60)
    world.registry.model.tags[COMMAND_TAG] = "abort  ann"
    await world.run(2 * LOOK_S)
    assert (world.status, world.registry.model.aliases) == ("aborted", {"champion": "1"})


async def test_the_lease_is_left_alone_once_nothing_is_left_to_do() -> None:
    world = World()
    world.server("a")
    world.controller("one")
    await world.run(7200, until=lambda: world.status == "promoted")
    await world.run(60)
    writes = len(world.registry.writes)
    await world.run(600)
    assert len(world.registry.writes) == writes
