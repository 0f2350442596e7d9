"""Many servers on one registry: what they ask of it, how soon all of them follow it, and whether they share traffic alike.

The servers are those of `tests.simulation.server`, each with a cache of its own. They start at the same moment, which is the
worst for their registry: all of them poll together then, and only by chance they move apart.
"""

import asyncio
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from statistics import median
from typing import Any, Final

from penstock_server.rollout.plan import TrafficPlan
from penstock_server.sources.source import Desired
from tests.simulation.environment import hushed, run, surroundings
from tests.simulation.processes import Troubles
from tests.simulation.registry import Database, FakeRegistry, Store
from tests.simulation.server import Pace, Server, Starts
from tests.simulation.world import World

MODEL: Final = "fares"
PACE: Final = Pace(poll_s=1.0, reconcile_s=5.0, look_s=1.0)
WORKERS: Final = 2
PATIENCE_S: Final = 120.0
"""A fleet that has not followed its registry after this time is told of as it is."""
KEYS: Final = tuple(f"key-{number}" for number in range(1000))


@dataclass(frozen=True)
class Load:
    """What a registry was asked for some time.

    Attributes:
        mean_hz: requests per second.
        busiest_hz: those of the busiest second.
        burst: those of the busiest tenth of a second.
    """

    mean_hz: float
    busiest_hz: int
    burst: int


@dataclass(frozen=True)
class Following:
    """How long after an alias was written the servers knew of it, and all of their workers answered by it, in seconds."""

    known_s: Sequence[float]
    answered_s: Sequence[float]


@dataclass(frozen=True)
class Convergence:
    """What came of a fleet.

    Attributes:
        loads: what the registry was asked, by the time of the fleet's life.
        following: by what told the servers of a change.
        shares: of the keys that the canary answers, one for each different split that a worker has: one if all are alike.
    """

    replicas: int
    loads: dict[str, Load]
    following: dict[str, Following]
    shares: list[float]
    violations: list[str]


class CountedRegistry(FakeRegistry):
    """A registry that notes when it was asked something."""

    def __init__(self, name: str, database: Database, now_s: Callable[[], float]) -> None:
        super().__init__(name, database)
        self.asked_s: list[float] = []
        self._now_s = now_s

    def _answer(self) -> None:
        self.asked_s.append(self._now_s())
        super()._answer()

    def load(self, from_s: float, to_s: float) -> Load:
        """What it was asked between two moments."""
        times_s = self.asked_s[bisect_left(self.asked_s, from_s) : bisect_left(self.asked_s, to_s)]
        return Load(len(times_s) / (to_s - from_s), _most_within(times_s, 1.0), _most_within(times_s, 0.1))


def _most_within(times_s: Sequence[float], seconds: float) -> int:
    """The most of these times, in their order, that lie within so many seconds."""
    return max((bisect_left(times_s, first + seconds) - index for index, first in enumerate(times_s)), default=0)


class Replica(Server):
    """A server that notes when it knew of each champion."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.known_s: dict[str, float] = {}

    def _on_desired(self, desired: Desired) -> None:
        plan = desired.models.get(MODEL, TrafficPlan())
        if plan.champion is not None:
            self.known_s.setdefault(plan.champion, self.world.loop.now_s)
        super()._on_desired(desired)

    def answers_with(self, champion: str) -> bool:
        """Whether all of its workers answer with a version."""
        workers = [worker for worker in self.living if worker.is_listening]
        plans = [worker.table.models[MODEL].plan for worker in workers if MODEL in worker.table.models]
        return len(plans) == self.slots and all(plan is not None and plan.champion == champion for plan in plans)

    def split(self) -> set[tuple[str, ...]]:
        """The version that each key goes to, for each different split of a worker."""
        return {
            tuple(worker.table.model(MODEL).resolve("", key).key[1] for key in KEYS)  # type: ignore[attr-defined]
            for worker in self.living
        }


class Fleet:
    """Servers on one registry, from their start on."""

    def __init__(self, world: World, replicas: int) -> None:
        self.world = world
        self.registry = CountedRegistry("one", Database([MODEL], count(1)), lambda: world.loop.now_s)
        self.loads: dict[str, Load] = {}
        self.following: dict[str, Following] = {}
        self.shares: list[float] = []
        store, troubles, starts = Store(), Troubles(), Starts()
        self.replicas = [
            Replica(
                world, {"one": self.registry}, store, troubles, starts,
                cache=world.folder / f"cache-{number}", slots=WORKERS, pace=PACE,
                passed=set(), told=set(), damaged=set(), restart=lambda: None,
            )
            for number in range(replicas)
        ]  # fmt: skip

    async def play(self) -> None:
        """Starts, changes an alias in three ways, and ends."""
        loop = self.world.loop
        self._promote()
        began_s = loop.now_s
        for replica in self.replicas:
            replica.start()
        await self._followed("start", "1", began_s)
        self._loaded("while all start", began_s, began_s + 10.0)
        await asyncio.sleep(began_s + 60.0 - loop.now_s)
        self._loaded("steady", began_s + 30.0, began_s + 60.0)

        await self._followed("poll", self._promote(), loop.now_s)

        await asyncio.sleep(5.0)
        webhook_s = loop.now_s
        champion = self._promote()
        for replica in self.replicas:
            loop.later(self.world.network, self.world.delay_s(0.005, 0.2), replica.wake)
        await self._followed("webhook", champion, webhook_s)
        self._loaded("a webhook to all", webhook_s, webhook_s + 5.0)

        await asyncio.sleep(5.0)
        await self._outage(90.0)
        await self._canary()
        for replica in self.replicas:
            await replica.stop()

    async def _outage(self, seconds: float) -> None:
        loop, away_s = self.world.loop, self.world.loop.now_s
        self.registry.is_down = True
        champion = self._promote()
        await asyncio.sleep(seconds)
        self.registry.is_down = False
        back_s = loop.now_s
        await self._followed("return of the registry", champion, back_s)
        await asyncio.sleep(max(0.0, back_s + 20.0 - loop.now_s))
        self._loaded("registry away", away_s + 30.0, back_s)
        self._loaded("registry back", back_s, back_s + 20.0)

    async def _canary(self) -> None:
        database = self.registry.database
        canary = database.publish(MODEL, "good", weight="20")
        database.alias(MODEL, "canary", canary)
        await asyncio.sleep(30.0)
        splits = set[tuple[str, ...]]().union(*(replica.split() for replica in self.replicas))
        self.shares = [split.count(canary) / len(KEYS) for split in splits]

    def _promote(self) -> str:
        database = self.registry.database
        version = database.publish(MODEL, "good")
        database.alias(MODEL, "champion", version)
        return version

    async def _followed(self, told_by: str, champion: str, since_s: float) -> None:
        """Waits until all servers answer with a champion, and notes how long that took."""
        loop, answered_s = self.world.loop, dict[int, float]()
        while len(answered_s) < len(self.replicas) and loop.now_s < since_s + PATIENCE_S:
            await asyncio.sleep(0.05)
            for number, replica in enumerate(self.replicas):
                if number not in answered_s and replica.answers_with(champion):
                    answered_s[number] = loop.now_s - since_s
        if len(answered_s) < len(self.replicas):
            self.world.violate(f"{len(self.replicas) - len(answered_s)} servers do not follow after {PATIENCE_S:g} s")
        known_s = [replica.known_s[champion] - since_s for replica in self.replicas if champion in replica.known_s]
        self.following[told_by] = Following(known_s, [*answered_s.values()])

    def _loaded(self, when: str, from_s: float, to_s: float) -> None:
        self.loads[when] = self.registry.load(from_s, to_s)


def converge(seed: str, replicas: int) -> Convergence:
    """Has so many servers live on one registry."""
    with hushed():
        return _converge(seed, replicas)


def _converge(seed: str, replicas: int) -> Convergence:
    with surroundings(seed, keep_lines=100, echo=None) as world:
        fleet = Fleet(world, replicas)
        run(world, fleet.play)
        return Convergence(replicas, fleet.loads, fleet.following, fleet.shares, [*world.violations])


def told(found: Convergence) -> str:
    """What came of a fleet, as tables."""
    lines = [
        f"{found.replicas} servers of {WORKERS} workers, one registry, a poll every {PACE.poll_s:g} s",
        "",
        "| requests to the registry | per second | in the busiest second | in the busiest 0.1 s |",
        "|---|---|---|---|",
        *(f"| {when} | {one.mean_hz:.1f} | {one.busiest_hz} | {one.burst} |" for when, one in found.loads.items()),
        "",
        "| servers learn by | known after: median | last | answered by all workers after: median | last |",
        "|---|---|---|---|---|",
        *(
            f"| {by} | {_span(one.known_s)} | {_span(one.answered_s)} |"
            for by, one in found.following.items()
            if one.known_s and one.answered_s
        ),
        "",
        f"different splits of {len(KEYS):,} keys: {len(found.shares)}, of which the canary answers "
        + ", ".join(f"{share:.1%}" for share in found.shares),
    ]
    return "\n".join([*lines, *found.violations])


def _span(times_s: Sequence[float]) -> str:
    return f"{median(times_s):.2f} s | {max(times_s):.2f} s"
