"""One seed: three servers on one registry roll a version out, through faults; and what must be true of what they write.

The controllers, their leases and the way from them into the registry are the real ones. Traffic is made up: requests fail by
the rates of the version and its champion, and are counted where all workers of a server route by the same weight.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import Any, Final

from penstock.names import CHAMPION
from penstock_server.control.rollouts import RolloutController
from penstock_server.rollout.evidence import Snapshot, VersionTotals, read_evidence, weight_key
from penstock_server.rollout.lease import LEASE_S
from penstock_server.rollout.progress import EVIDENCE_TAG, PROGRESS_TAG, SPEC_TAG, Progress, read_progress
from penstock_server.rollout.registered import Change, SetAlias, SetTag
from tests.simulation.environment import hushed, run, surroundings
from tests.simulation.processes import Troubles
from tests.simulation.registry import Database, Store, WrittenRegistry
from tests.simulation.replicas import MODEL, PACE, Replica
from tests.simulation.server import Starts
from tests.simulation.world import World

SPEC: Final = '{"steps": [10, 50, 100], "hold": "2m", "requests": 500, "gates": {"errors": 1.5}, "deadline": "12h"}'
SERVERS: Final = 3
RATE_HZ: Final = 20.0
LOOK_S: Final = 5.0
ENDS_S: Final = 3600.0
"""Once nothing is wrong any more, a rollout has ended after this time."""
ERRORS: Final = {"good": 0.0, "bad": 0.15}
"""The share of requests that fail, by what the version is. The champion's is between them, so that no chance decides."""
CHAMPIONS_ERRORS: Final = 0.05
SLOWEST_S: Final = 2.0
"""The longest that one change takes beyond its usual time: a write must come within a quarter of a lease after its read."""


@dataclass
class RolloutResult:
    """What came of a seed.

    Attributes:
        outcome: the status in which the rollout ended.
    """

    seed: str
    hours: float
    kind: str
    outcome: str
    writes: int
    violations: list[str]
    faults: Counter[str]
    lines: list[str] = field(repr=False, default_factory=list)


class Traffic:
    """What one run of a server has counted."""

    def __init__(self, random: Random, instance: str, since_s: float, errors: float) -> None:
        self._random = random
        self._instance = instance
        self._since_s = since_s
        self._errors = errors
        self._version = [0, 0]
        self._champion = [0, 0]

    @property
    def requests(self) -> int:
        return self._version[0] + self._champion[0]

    def pass_s(self, seconds: float, share: float) -> None:
        """Has the version answer a share of the requests of so many seconds."""
        for _ in range(int(seconds * RATE_HZ)):
            is_version = self._random.random() < share
            counted, errors = (self._version, self._errors) if is_version else (self._champion, CHAMPIONS_ERRORS)
            counted[0] += 1
            counted[1] += self._random.random() < errors

    def snapshot(self, weights: tuple[float, float] | None) -> Snapshot:
        weight = weight_key(*weights) if weights is not None and min(weights) > 0 else ""
        return Snapshot(
            self._instance, weight, self._since_s, VersionTotals(*self._version), VersionTotals(*self._champion)
        )


class RollingServer(Replica):
    """A server that acts on rollouts.

    Args:
        name: its name in leases, which no other run of a server has.
        skew_s: by how much its wall clock is ahead.
        errors: the share of the version's requests that fail.
        look: what all servers have counted, this one first.
    """

    def __init__(
        self, world: World, *args: Any, name: str, skew_s: float, errors: float, look: "Look", **options: Any
    ) -> None:
        super().__init__(world, *args, **options)
        self.name = name
        self.controller: RolloutController | None = None
        self.traffic = Traffic(Random(f"{world.seed} {name}"), name, world.loop.now_s + skew_s, errors)
        self._skew_s = skew_s
        self._look = look

    def _wall_s(self) -> float:
        return self.world.loop.now_s + self._skew_s

    def weights(self, version: str) -> tuple[float, float] | None:
        found: tuple[float, float] | None = self.supervisor.weights_in_force(MODEL, version)
        return found

    @property
    def can_be_asked(self) -> bool:
        return self.is_running and not self.process.is_stopped

    def _beside(self) -> Sequence[Coroutine[Any, Any, None]]:
        async def look(_model: str, version: str, _champion: str) -> Mapping[str, Snapshot]:
            await asyncio.sleep(self.world.delay_s(0.001, 0.5))
            return self._look(self, version)

        self.controller = RolloutController(
            holder=self.name,
            rollouts=lambda: self.source.combined().rollouts,
            registry=self.source,
            refresh=lambda: self.watcher.refresh(),  # noqa: PLW0108 - another one after a restart
            look=look,
            health=self.supervisor.health,
            wall=self._wall_s,
            clock=self.world.loop.time,
        )
        return [self.controller.run(LOOK_S), self._answer()]

    async def _answer(self) -> None:
        """Answers requests."""
        while True:
            await asyncio.sleep(1.0)
            weights = self.weights("2")
            self.traffic.pass_s(1.0, 0.0 if weights is None else weights[0])


Look = Callable[[RollingServer, str], Mapping[str, Snapshot]]


class Rollout:
    """Plays one seed."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.kind = world.random.choice([*ERRORS])
        self.writes = 0
        self._names = count(1)
        self._serials = count(1)
        database = Database([MODEL], self._serials)
        self.registry = WrittenRegistry("one", database, is_atomic=world.chance(0.3), made=self._on_made)
        self._store, self._troubles, self._starts = Store(), Troubles(), Starts()
        self._known: Progress | None = None
        self._counted: list[Traffic] = []
        self._passed: list[set[int]] = [set() for _ in range(SERVERS)]
        database.alias(MODEL, CHAMPION, database.publish(MODEL, "good"))
        self.servers = [self._new_server(place) for place in range(SERVERS)]
        self._is_over = False

    def _new_server(self, place: int) -> RollingServer:
        server = RollingServer(
            self.world, {"one": self.registry}, self._store, self._troubles, self._starts,
            name=f"server-{place} {next(self._names)}", skew_s=self.world.random.uniform(-1.0, 1.0),
            errors=ERRORS[self.kind], look=self._look, cache=self.world.folder / f"cache-{place}", slots=1, pace=PACE,
            passed=self._passed[place], told=set(), damaged=set(), restart=lambda: None,
        )  # fmt: skip
        self._counted.append(server.traffic)
        return server

    def _look(self, asking: RollingServer, version: str) -> Mapping[str, Snapshot]:
        others = [server for server in self.servers if server is not asking and server.can_be_asked]
        return {
            "" if server is asking else f"place {self.servers.index(server)}": server.traffic.snapshot(
                server.weights(version)
            )
            for server in (asking, *others)
        }

    async def play(self) -> None:
        """Rolls version 2 out, for some time with faults, until it has ended."""
        world = self.world
        for server in self.servers:
            server.start()
        await asyncio.sleep(30.0)
        database = self.registry.database
        version = database.publish(MODEL, "good")
        database.tag(MODEL, version, SPEC_TAG, SPEC)
        watching = asyncio.create_task(self._watch())
        await self._chaos(world.random.choice([120.0, 600.0, 1800.0]))
        self._heal()
        until_s = world.loop.now_s + ENDS_S
        while not self._has_ended and not world.violations:
            await asyncio.sleep(10.0)
            if world.loop.now_s > until_s:
                world.violate(f"the rollout has not ended: {self._views()}")
        await asyncio.sleep(60.0)
        if not world.violations:
            self._check_end()
        self._is_over = True
        watching.cancel()
        for server in self.servers:
            await server.stop()

    @property
    def _has_ended(self) -> bool:
        return self._known is not None and self._known.has_ended

    # --- faults

    async def _chaos(self, seconds: float) -> None:
        world, until_s = self.world, self.world.loop.now_s + seconds
        pace_s = world.random.choice([10.0, 30.0, 90.0])
        faults: dict[str, tuple[int, Callable[[int], object]]] = {
            "the registry is away": (3, self._registry_away),
            "sources are slow": (2, self._sources_slow),
            "a source's process ends": (5, self._kill_source),
            "a server is killed": (4, self._kill),
            "a server is restarted": (3, self._restart),
            "a supervisor stands still": (5, self._stand_still),
        }
        while world.loop.now_s < until_s and not (world.violations or self._has_ended):
            await asyncio.sleep(world.random.expovariate(1 / pace_s))
            (name,) = world.random.choices([*faults], [weight for weight, _ in faults.values()])
            world.faults[name] += 1
            world.say(f"fault: {name}")
            faults[name][1](world.random.randrange(SERVERS))

    def _later(self, seconds: float, action: Callable[..., object], *args: Any) -> None:
        self.world.loop.later(self.world.network, seconds, action, *args)

    def _registry_away(self, _place: int) -> None:
        self.registry.is_down = True
        self._later(self.world.delay_s(0.2, 120.0), setattr, self.registry, "is_down", False)

    def _sources_slow(self, _place: int) -> None:
        self._troubles.slow_s = SLOWEST_S
        self._later(self.world.delay_s(1.0, 60.0), setattr, self._troubles, "slow_s", 0.0)

    def _kill_source(self, place: int) -> None:
        for source in self.servers[place].sources:
            self.world.end(source.process, -9)

    def _kill(self, place: int) -> None:
        self.servers[place].kill()
        self._later(self.world.delay_s(0.1, 120.0), self._start, place)

    def _restart(self, place: int) -> None:
        server = self.servers[place]
        if server.is_running and not (server.is_stopped or server.process.is_stopped):
            server.is_stopped = True

            async def restart() -> None:
                await server.stop()
                self._start(place)

            self._restarting = asyncio.create_task(restart())

    def _start(self, place: int) -> None:
        if self.servers[place].process.is_dead and not self._is_over:
            self.servers[place] = self._new_server(place)
            self.servers[place].start()

    def _stand_still(self, place: int) -> None:
        process = self.servers[place].process
        if not self.servers[place].is_stopped:
            process.is_stopped = True
            self._later(self.world.delay_s(1.0, 4 * LEASE_S), self.world.loop.go_on, process)

    def _heal(self) -> None:
        self.registry.is_down = False
        self._troubles.slow_s = 0.0
        for place, server in enumerate(self.servers):
            self.world.loop.go_on(server.process)
            self._start(place)

    # --- what must be true

    async def _watch(self) -> None:
        """Looks at who may act."""
        while True:
            await asyncio.sleep(1.0)
            if len(acting := self._acting()) > 1:
                self.world.violate(f"{acting} act at once")

    def _acting(self) -> list[str]:
        """The servers that would act now; one that stands still would find out that it slept."""
        return [
            server.name
            for server in self.servers
            if server.can_be_asked and server.controller is not None and server.controller._leases.is_held(MODEL)
        ]

    def _on_made(self, change: Change) -> None:
        """Somebody has written."""
        self.writes += 1
        self.world.say(f"written: {change}")
        match change:
            case SetTag("2", key, value) if key == PROGRESS_TAG:
                self._on_progress(read_progress(value))
            case SetTag("2", key, value) if key == EVIDENCE_TAG:
                seen, counted = sum(read_evidence(value).total("requests")), sum(one.requests for one in self._counted)
                if seen > counted:
                    self.world.violate(f"the evidence has {seen} requests, and {counted} were counted")
            case SetAlias(alias, "2") if alias == CHAMPION:
                if self._known is None or self._known.status != "promoting" or self.kind == "bad":
                    self.world.violate(f"a {self.kind} version becomes champion: {self._known}")

    def _on_progress(self, progress: Progress) -> None:
        known, self._known = self._known, progress
        if known is None:
            return
        is_back = progress.stage < known.stage or (known.status == "promoting" and progress.status == "running")
        if is_back or (known.has_ended and progress != known) or progress.began_s != known.began_s:
            self.world.violate(f"the rollout goes back from {known} to {progress}")

    def _views(self) -> list[str]:
        """What each server says of it."""
        views = [
            (server.name, view)
            for server in self.servers
            if server.controller is not None
            for view in server.controller.views()
        ]
        return [f"{name}: {view.is_acting} {view.decision} {view.problem} {view.evidence}" for name, view in views]

    def _check_end(self) -> None:
        world, known = self.world, self._known
        assert known is not None
        champion = self.registry.database.models[MODEL].aliases.get(CHAMPION, "")
        status, expected = ("promoted", "2") if self.kind == "good" else ("rolled_back", "1")
        if (known.status, champion) != (status, expected):
            world.violate(f"a {self.kind} version is {known.status}, and {champion} is champion: {known.reason}")
        for server in self.servers:
            if not server.answers_with(expected):
                world.violate(f"{server.name} does not answer with {expected}")


def roll(seed: str, *, keep_lines: int | None = 400, echo: Callable[[str], None] | None = None) -> RolloutResult:
    """Plays a seed until its rollout has ended, or something is wrong."""
    with hushed():
        return _roll(seed, keep_lines, echo)


def _roll(seed: str, keep_lines: int | None, echo: Callable[[str], None] | None) -> RolloutResult:
    with surroundings(f"rollout {seed}", keep_lines=keep_lines, echo=echo) as world:
        began_s, rollout = world.loop.now_s, Rollout(world)
        run(world, rollout.play)
        return RolloutResult(
            seed,
            (world.loop.now_s - began_s) / 3600,
            rollout.kind,
            "" if rollout._known is None else rollout._known.status,
            rollout.writes,
            [*world.violations],
            world.faults,
            [*world.kept],
        )
