"""One seed: a server, its registries and its callers, through times of faults and of calm; and what must be true of them.

Faults come at random moments of a time of chaos. Then everything is mended, and within `CALM_S` all must be served that the
registries say and that can be served.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from penstock_server.control.fetcher import RETRY_DAMAGED_S
from penstock_server.control.reconcile import plan_keys
from penstock_server.control.residency import LOW_SHARE
from penstock_server.control.residents import ROOM_SHARE
from penstock_server.control.settings import ResidencySettings
from penstock_server.rollout.plan import TrafficPlan
from penstock_server.sources.combined_source import combine
from penstock_server.sources.source import Desired
from tests.simulation.environment import hushed, run, surroundings
from tests.simulation.processes import Troubles
from tests.simulation.quiet import QUIET_S, standing, under_way
from tests.simulation.registry import (
    DANGEROUS,
    SERVABLE,
    Database,
    FakeRegistry,
    Registration,
    SimulatedSource,
    Store,
    drawn_kind,
)
from tests.simulation.server import BASE_BYTES, Pace, Server, Starts
from tests.simulation.worker import FakeWorker
from tests.simulation.world import World, damage

CALM_S: Final = 900.0
"""All is served within this time once nothing is wrong any more: several trials and loads may have to hang first, one after
the other, before they are known to."""
PACES: Final = (Pace(1.0, 1.0, 0.25), Pace(5.0, 5.0, 1.0), Pace(10.0, 5.0, 1.0), Pace(30.0, 5.0, 1.0))
WALL_STEPS_S: Final = (-86_400.0, -4000.0, -5.0, 0.0, 5.0, 4000.0, 60 * 86_400.0)
MODELS: Final = ("churn", "fares", "fraud", "taxi")


@dataclass
class Result:
    """What came of a seed.

    Attributes:
        hours: the simulated time.
        lived_hours: the part of it that was lived through event by event: the machine did not sleep, and no quiet was skipped.
    """

    seed: str
    hours: float
    lived_hours: float
    events: int
    steps: int
    requests: int
    digest: str
    violations: list[str]
    faults: Counter[str]
    seen: Counter[str]
    lines: list[str] = field(repr=False, default_factory=list)


class Simulation:
    """Plays one seed."""

    def __init__(self, world: World, hours: float) -> None:
        self.world = world
        self._until_s = world.loop.now_s + hours * 3600
        self._serials = count(1)
        self._names = MODELS[: world.random.randint(1, len(MODELS))]
        self.registries = {
            name: FakeRegistry(name, Database(self._names, self._serials))
            for name in ["one", "two"][: 1 + world.chance(0.2)]
        }
        self.store = Store()
        self.troubles = Troubles()
        self.starts = Starts()
        self._slots = world.random.choice([1, 2, 2, 3])
        self._pace = world.random.choice(PACES)
        self._passed: set[int] = set()
        self._told: set[tuple[str, str, str]] = set()
        self._damaged: set[str] = set()
        self._cache = world.folder / "cache"
        self._requests = count()
        self.answers: Counter[str] = Counter()
        self._open: dict[int, str] = {}
        self._is_over = False
        self._is_quiet = False
        self._lasting = 0
        self._has_webhooks = world.chance(0.5)
        self._probed: set[tuple[int, str, str]] = set()
        self._residency = ResidencySettings()
        if world.chance(0.3):
            pinned = tuple(name for name in self._names if world.chance(0.1))
            budget_mib = world.random.choice([200, 260, 400])
            self._residency = ResidencySettings(budget_mib, pinned, stay_s=world.random.choice([1.0, 10.0]))
        self.server = self._new_server()

    def _new_server(self) -> Server:
        return Server(
            self.world,
            self.registries,
            self.store,
            self.troubles,
            self.starts,
            cache=self._cache,
            slots=self._slots,
            pace=self._pace,
            passed=self._passed,
            told=self._told,
            damaged=self._damaged,
            restart=self._restart,
            residency=self._residency,
        )

    async def play(self) -> None:
        """Plays until the time is over."""
        world = self.world
        for name in self._names:
            self._publish(name, aliases=["champion"] if world.chance(0.9) else [])
        self.server.start()
        callers = asyncio.create_task(self._call())
        while world.loop.now_s - world.skipped_s < self._until_s and not world.violations:
            world.say("--- faults")
            await self._chaos(world.random.choice([20.0, 60.0, 60.0, 300.0, 900.0]))
            world.say("--- calm")
            await self._heal()
            await self._calm()
            await self._quiet(world.random.choice(QUIET_S))
        callers.cancel()
        self._is_over = True
        if not world.violations:
            await self.server.stop()
            await asyncio.sleep(60.0)
            self._check_nothing_is_left()

    # --- callers

    async def _call(self) -> None:
        world = self.world
        while True:
            await asyncio.sleep(world.random.expovariate(1 / 1.5))
            if self._is_quiet:
                continue
            workers = [
                one for one in self.server.living if one.is_listening and not one.is_draining and not one.is_hung
            ]
            if not workers:
                continue
            worker = world.random.choice(workers)
            model = world.random.choice(self._names)
            version = ""
            if world.chance(0.2):
                version = world.random.choice(
                    ["@champion", "@canary", *self.registries["one"].database.models[model].versions]
                )
            key = world.random.choice(["", "ann", "bob", "cleo"])
            self._ask(worker, model, version, key)

    def _ask(
        self, worker: FakeWorker, model: str, version: str, key: str, then: Callable[[str], None] = lambda _: None
    ) -> None:
        number = next(self._requests)
        self._open[number] = repr(worker)

        def told(answer: str) -> None:
            then(answer)
            if self._open.pop(number, None) is None:
                self.world.violate(f"request {number} is answered twice")
            self.answers[answer.partition(":")[0] if answer.startswith(("refused", "gone")) else "answered"] += 1

        worker.ask(number, model, version, key, told)

    # --- faults

    async def _chaos(self, seconds: float) -> None:
        world, until_s = self.world, self.world.loop.now_s + seconds
        pace_s = world.random.choice([0.5, 2.0, 10.0, 30.0])
        while world.loop.now_s < until_s and not world.violations:
            await asyncio.sleep(world.random.expovariate(1 / pace_s))
            (name,) = world.random.choices([*FAULTS], [weight for weight, _ in FAULTS.values()])
            world.faults[name] += 1
            world.say(f"fault: {name}")
            FAULTS[name][1](self)
            if self._has_webhooks and name in CHANGES and world.chance(0.9):
                world.loop.later(world.network, world.delay_s(0.01, 2.0), self._wake)

    def _for_a_while(self, name: str, begin: Callable[[], object], end: Callable[[], object]) -> None:
        """A fault that ends by itself."""
        world = self.world
        begin()

        def over() -> None:
            end()
            world.say(f"over: {name}")

        self._afterwards(world.delay_s(0.5, 90.0), over)

    def _afterwards(self, delay_s: float, action: Callable[[], object]) -> None:
        """What is still to come of a fault."""

        def come() -> None:
            self._lasting -= 1
            action()

        self._lasting += 1
        self.world.loop.later(self.world.network, delay_s, come)

    async def _heal(self) -> None:
        for registry in self.registries.values():
            registry.is_down = registry.is_refusing = False
            registry.lie = ""
        self.store.is_down = self.store.is_cut = self.store.is_disk_full = False
        self.troubles.slow_s = 0.0
        self._unhang_sources()
        self.world.loop.go_on(self.server.process)
        self.starts.failing.clear()
        for worker in self.server.living:
            worker.is_slow = False
        if self.server.process.is_dead:
            self._restart()

    def _unhang_sources(self) -> None:
        self.troubles.is_hung = False
        for source in self.server.sources:
            source.unhang()

    def _restart(self) -> None:
        if self.server.process.is_dead and not self._is_over:
            self.server = self._new_server()
            self.world.say("a new server starts")
            self.server.start()

    # --- quiet

    async def _quiet(self, seconds: float) -> None:
        """Has nothing happen for so long: lives through the beginning and the end, and skips what is between."""
        world = self.world
        if not seconds or world.violations:
            return
        self._is_quiet = True
        for _ in range(5):
            before = await self._still()
            # What cannot be fetched is tried again, which may succeed.
            retry_s = RETRY_DAMAGED_S if self.server.supervisor._fetcher._failures else 0.0
            watched_s = 2 * self._pace.poll_s + 10.0 + retry_s
            await asyncio.sleep(watched_s)
            if before == await self._still():
                world.say(f"nothing happens for {seconds:g} s")
                world.loop.skip(seconds)
                world.skipped_s += seconds
                await asyncio.sleep(watched_s)
                if before != (after := await self._still()):
                    world.violate(f"nothing happened, and {before} became {after}")
                await self._calm()
                break
        self._is_quiet = False

    async def _still(self) -> object:
        """How the server stands, once nothing is under way."""
        world, until_s = self.world, self.world.loop.now_s + 300.0
        while (doing := under_way(self.server)) or self._lasting or self._open:
            if world.loop.now_s > until_s:
                world.violate(f"although nothing happens, it is never still: {doing}, {self._open}")
                break
            await asyncio.sleep(world.delay_s(0.1, 0.5))
        return standing(self.server)

    # --- what must be true

    async def _calm(self) -> None:
        """Waits until all is as it should be."""
        world, until_s = self.world, self.world.loop.now_s + CALM_S
        begun_s = world.loop.now_s
        in_a_row = 0
        self._probed.clear()
        while not world.violations:
            await asyncio.sleep(5.0)
            missing = next(self._missing(), "")
            in_a_row = 0 if missing else in_a_row + 1
            if in_a_row >= 2:
                world.say(f"all is served, {world.loop.now_s - begun_s:.0f} s after the last fault")
                self._check_counts()
                return
            if world.loop.now_s > until_s:
                world.violate(f"{CALM_S:g} s after the last fault: {missing}")

    def _missing(self) -> Iterator[str]:
        """What is not yet as it should be."""
        server = self.server
        if not server.is_running:
            yield "the server is not running"
            return
        truth, followed = self._truth(), server.supervisor._desired
        if (followed.models, followed.identities) != (truth.models, truth.identities):
            yield f"it follows {followed}, and the registries say {truth}"
        workers = [worker for worker in server.living if worker.slot is not None and not worker.is_draining]
        if len(workers) != self._slots or not all(worker.is_listening for worker in workers):
            yield f"{sum(worker.is_listening for worker in workers)} of {self._slots} workers accept calls"
        if hanging := [worker for worker in workers if worker.is_hung]:
            yield f"{hanging} hang"
        for worker in workers:
            for model, plan in truth.models.items():
                if self._residency.is_on and (model not in worker.table.models or not worker.table.models[model].plan):
                    yield from self._missing_on_call(worker, model, plan, truth)
                else:
                    yield from self._missing_of(worker, model, plan, truth)
            yield from self._too_much(worker, truth)
        can_answer = any(model.is_ready for worker in workers for model in worker.table.models.values())
        reason = server.supervisor.view().not_ready_reason
        if can_answer and reason:
            yield f"it can answer and says {reason}"
        if not can_answer and not reason and truth.models:
            yield "nothing can be answered, and it says that it is ready"

    def _too_much(self, worker: FakeWorker, truth: Desired) -> Iterator[str]:
        """What a worker holds or answers for without need."""
        answering = {
            (name, version)
            for name, one in worker.table.models.items()
            if one.plan is not None
            for version in one.plan.versions
        }
        needed = {*plan_keys(truth.models), *answering, *self.server.supervisor._fallbacks.versions.items()}
        # Where nothing answers, what is there stays: it may be wanted again.
        waiting = {model for model, plan in truth.models.items() if plan.champion is not None}
        waiting -= {name for name, _ in answering}
        if extra := [key for key in worker.executors if key not in needed and key[0] not in waiting]:
            yield f"{worker} holds {extra}, which nobody needs"
        for name, one in worker.table.models.items():
            if one.is_ready and name not in truth.models:
                yield f"{worker} answers for {name}, which is not registered any more"

    def _missing_of(self, worker: FakeWorker, model: str, plan: TrafficPlan, truth: Desired) -> Iterator[str]:
        """What a worker does not serve of a model as it should."""
        champion, served = plan.champion, worker.table.models.get(model)
        present = None if served is None else served.plan
        if champion is None:
            if present is not None:
                yield f"{worker} answers for {model}, which has no champion"
            return
        found = self._registration(model, champion)
        if found is None:
            return  # it may have its files, or not
        executor = worker.executors.get((model, champion))
        is_right = (
            present is not None
            and present.champion == champion
            and executor is not None
            and executor.identity == truth.identity(model, champion)
        )
        is_out = self.server.may_be_out((model, champion), truth.identity(model, champion))
        if found.kind in SERVABLE and not is_right and not is_out:
            yield f"{worker} answers for {model} with {present}, expected {champion} of {found}"
        if found.kind not in SERVABLE and found.kind not in DANGEROUS:
            if is_right:
                yield f"{worker} answers for {model} with {champion} of {found}"
            fallbacks = self.server.supervisor._fallbacks
            fallback = fallbacks.versions.get(model, "")
            former = self._registration(model, fallback)
            # Under its number there may be other files by now, which have never answered.
            is_there = former is not None and former.identity == fallbacks.identities[model]
            is_out = former is not None and self.server.may_be_out((model, fallback), former.identity)
            if present is None and former is not None and is_there and former.kind in SERVABLE and not is_out:
                yield f"{worker} does not answer for {model}, and {fallback} could"
        if present is not None:
            yield from self._missing_beside(worker, model, plan, present)

    def _missing_on_call(self, worker: FakeWorker, model: str, plan: TrafficPlan, truth: Desired) -> Iterator[str]:
        """Asks a worker for a model that is not in its memory; what it has not answered as it should since all is calm."""
        server, champion = self.server, plan.champion
        found = None if champion is None else self._registration(model, champion)
        if champion is None or found is None or found.kind not in SERVABLE:
            return
        identity = truth.identity(model, champion)
        if server.may_be_out((model, champion), identity):
            return
        if server.supervisor.residents.why_not(model):
            yield from self._left_out_without_need(worker, model, TrafficPlan(champion))
            return
        probe = worker.process.pid, model, identity
        if probe not in self._probed:

            def told(answer: str) -> None:
                if answer == identity:
                    self._probed.add(probe)

            self._ask(worker, model, "@champion", "", told)
            yield f"{worker} does not answer for {model}, which is to be loaded when it is asked for"

    def _missing_beside(self, worker: FakeWorker, model: str, plan: TrafficPlan, present: TrafficPlan) -> Iterator[str]:
        """The canaries and shadows that are not served as they should."""
        if self._residency.is_on and model in self.server.supervisor.residents.alone(worker.slot):
            yield from self._left_out_without_need(worker, model, plan)
            return
        for arm in (*plan.canaries, *plan.shadows):
            found, held = self._registration(model, arm.version), worker.executors.get((model, arm.version))
            if found is None or found.kind not in SERVABLE or arm.version == present.champion:
                continue
            if self.server.may_be_out((model, arm.version), found.identity):
                continue
            if held is None or held.identity != found.identity or arm not in (*present.canaries, *present.shadows):
                yield f"{worker} serves {model} with {present}, expected {arm} of {found} in it"

    def _left_out_without_need(self, worker: FakeWorker, model: str, plan: TrafficPlan) -> Iterator[str]:
        """Versions that are said not to fit, and do without all that may leave."""
        server, stay_bytes = self.server, BASE_BYTES
        for (name, _), executor in worker.executors.items():
            champion = self.server.supervisor._desired.models.get(name, TrafficPlan()).champion or ""
            found = self._registration(name, champion)
            may_leave = found is not None and found.kind in SERVABLE and not self._residency.is_pinned(name)
            if name != model and (not may_leave or server.may_be_out((name, champion), executor.identity)):
                stay_bytes += executor.content.size_bytes
        whole = [self._registration(model, version) for version in plan.versions]
        whole_bytes = sum(one.content.size_bytes for one in whole if one is not None)
        # What answers instead of a champion that cannot be loaded.
        others = (one for key, one in worker.executors.items() if key[0] == model and key[1] not in plan.versions)
        whole_bytes += sum(one.content.size_bytes for one in others)
        if stay_bytes + whole_bytes <= LOW_SHARE * ROOM_SHARE * ((self._residency.memory_budget_mib or 0) << 20):
            yield f"{worker} leaves out some of {plan.versions} of {model}, and {(stay_bytes + whole_bytes) >> 20} MiB fit"

    def _registration(self, model: str, version: str) -> Registration | None:
        for registry in self.registries.values():
            found = registry.database.models.get(model)
            if found is not None and found.aliases.get("champion") is not None:
                return found.versions.get(version)
        return None

    def _truth(self) -> Desired:
        """What the registries say, read by the real source."""
        states = [
            (name, SimulatedSource(registry, self.store, self._cache).poll())
            for name, registry in self.registries.items()
        ]
        return combine(states)[0]

    def _check_counts(self) -> None:
        world, server = self.world, self.server
        for worker in server.living:
            for key, executor in worker.executors.items():
                held = server.counters._versions.get(key, {}).get(worker.slot)
                if held is None or held.path != executor.path:
                    world.violate(f"{worker} counts {key} in {executor.path}, and {held} is read")
        tasks = len(world.tasks(server.process))
        most = 8 + 2 * self._slots + 2 * len(self.registries) + 20
        if tasks > most:
            world.violate(f"the server has {tasks} tasks, expected at most {most}")
        if len(server.process.children) > self._slots + len(self.registries) + 6:
            world.violate(f"the server has the processes {[*server.process.children.values()]}")
        if late := [number for number in self._open if number < next(self._requests) - 200]:
            world.violate(f"requests {late} were never answered")

    def _check_nothing_is_left(self) -> None:
        world = self.world
        if world.processes:
            world.violate(f"processes are left: {[*world.processes.values()]}")
        if self._open:
            world.violate(f"requests are left: {self._open}")

    # --- what people do to the registry

    def _publish(self, name: str, aliases: Sequence[str]) -> None:
        world = self.world
        registry = world.random.choice([*self.registries.values()])
        weight = world.random.choice(["", "10", "50", "100", "nonsense"])
        number = registry.database.publish(name, drawn_kind(world.random), weight=weight)
        for alias in aliases:
            registry.database.alias(name, alias, number)
        world.say(f"{registry.name}: {name} {number} is {registry.database.models[name].versions[number]} {aliases}")

    def model(self) -> tuple[FakeRegistry, str]:
        registry = self.world.random.choice([*self.registries.values()])
        return registry, self.world.random.choice(self._names)

    def publish(self) -> None:
        alias = self.world.random.choice(["champion", "champion", "champion", "canary", "canary-b", "shadow", ""])
        self._publish(self.world.random.choice(self._names), [alias] if alias else [])

    def move_alias(self) -> None:
        registry, name = self.model()
        versions = [*registry.database.models[name].versions]
        if versions:
            alias = self.world.random.choice(["champion", "champion", "canary", "canary-b", "shadow"])
            number = self.world.random.choice(versions)
            registry.database.alias(name, alias, number)
            self.world.say(f"{registry.name}: {name} {alias} is {number}")

    def swap_aliases(self) -> None:
        registry, name = self.model()
        aliases = registry.database.models[name].aliases
        if "champion" in aliases and "canary" in aliases:
            champion, canary = aliases["champion"], aliases["canary"]
            registry.database.alias(name, "champion", canary)
            registry.database.alias(name, "canary", champion)
            self.world.say(f"{registry.name}: {name} champion is {canary}, canary is {champion}")

    def drop_alias(self) -> None:
        registry, name = self.model()
        aliases = [*registry.database.models[name].aliases]
        if aliases:
            alias = self.world.random.choice(aliases)
            registry.database.alias(name, alias, None)
            self.world.say(f"{registry.name}: {name} has no {alias}")

    def delete_version(self) -> None:
        registry, name = self.model()
        versions = [*registry.database.models[name].versions]
        if versions:
            number = self.world.random.choice(versions)
            registry.database.delete(name, number, with_aliases=self.world.chance(0.7))
            self.world.say(f"{registry.name}: {name} {number} is deleted")

    def register_anew(self) -> None:
        registry, name = self.model()
        model = registry.database.models[name]
        if model.versions:
            # Mostly the champion, as when somebody mends what does not work.
            number = model.aliases.get("champion") if self.world.chance(0.6) else None
            if number not in model.versions:
                number = self.world.random.choice([*model.versions])
            weight = model.versions[number].tags.get("penstock.weight", "")
            registry.database.publish(name, drawn_kind(self.world.random), number, weight)
            self.world.say(f"{registry.name}: {name} {number} is {registry.database.models[name].versions[number]} now")

    def mend_champion(self) -> None:
        for registry in self.registries.values():
            for name, model in registry.database.models.items():
                number = model.aliases.get("champion", "")
                if number in model.versions and model.versions[number].kind in DANGEROUS:
                    registry.database.publish(name, "good", number)
                    self.world.say(f"{registry.name}: {name} {number} is good now")
                    return

    def delete_model(self) -> None:
        registry, name = self.model()
        registry.database.models[name] = type(registry.database.models[name])()
        self.world.say(f"{registry.name}: {name} is deleted")

    # --- what befalls the machine

    def registry_down(self) -> None:
        registry, _ = self.model()
        self._for_a_while(
            "registry down", lambda: setattr(registry, "is_down", True), lambda: setattr(registry, "is_down", False)
        )

    def registry_lies(self) -> None:
        registry, _ = self.model()
        registry.stale = dict(registry.database.models)
        lie = self.world.random.choice(["empty", "partial", "stale"])
        self.world.faults[f"registry lies: {lie}"] += 1
        self._for_a_while(
            f"registry lies: {lie}", lambda: setattr(registry, "lie", lie), lambda: setattr(registry, "lie", "")
        )

    def registry_refuses(self) -> None:
        registry, _ = self.model()
        self._for_a_while(
            "registry refuses",
            lambda: setattr(registry, "is_refusing", True),
            lambda: setattr(registry, "is_refusing", False),
        )

    def other_database(self) -> None:
        registry, _ = self.model()
        own, other = registry.database, Database(self._names, self._serials)
        for name in self._names:
            for _ in own.models[name].versions:
                number = other.publish(name, drawn_kind(self.world.random), weight="20")
                other.alias(name, self.world.random.choice(["champion", "canary", "shadow"]), number)
        registry.database = other
        if self.world.chance(0.7):

            def back() -> None:
                registry.database = own
                self.world.say(f"{registry.name}: its own database is back")

            self._afterwards(self.world.delay_s(0.5, 60.0), back)

    def sources_slow(self) -> None:
        slow_s = self.world.random.choice([5.0, 20.0, 60.0])
        self._for_a_while(
            "sources slow",
            lambda: setattr(self.troubles, "slow_s", slow_s),
            lambda: setattr(self.troubles, "slow_s", 0.0),
        )

    def sources_hang(self) -> None:
        self._for_a_while("sources hang", lambda: setattr(self.troubles, "is_hung", True), self._unhang_sources)

    def kill_source(self) -> None:
        living = [one for one in self.server.sources if not one.process.is_dead]
        if living:
            self.world.end(self.world.random.choice(living).process, self.world.random.choice([-9, 1]))

    def store_down(self) -> None:
        self._for_a_while(
            "store down", lambda: setattr(self.store, "is_down", True), lambda: setattr(self.store, "is_down", False)
        )

    def store_cut(self) -> None:
        self._for_a_while(
            "store cut", lambda: setattr(self.store, "is_cut", True), lambda: setattr(self.store, "is_cut", False)
        )

    def disk_full(self) -> None:
        self._for_a_while(
            "disk full",
            lambda: setattr(self.store, "is_disk_full", True),
            lambda: setattr(self.store, "is_disk_full", False),
        )

    def damage_copy(self) -> None:
        damaged = damage(self._cache, self.world.random)
        if damaged is not None:
            self._damaged.add(damaged)
            self.world.say(f"{damaged} is cut short")

    def worker(self) -> FakeWorker | None:
        living = self.server.living
        return self.world.random.choice(living) if living else None

    def end_worker(self) -> None:
        worker = self.worker()
        if worker is not None:
            worker.die(self.world.random.choice([-9, -9, -11, -6, 1, 0]))

    def end_all_workers(self) -> None:
        for worker in [*self.server.living]:
            worker.die(-9)

    def hang_worker(self) -> None:
        worker = self.worker()
        if worker is not None:
            self._for_a_while("worker hangs", worker.hang, worker.unhang)

    def slow_worker(self) -> None:
        worker = self.worker()
        if worker is not None:
            self._for_a_while(
                "worker slow", lambda: setattr(worker, "is_slow", True), lambda: setattr(worker, "is_slow", False)
            )

    def garbage(self) -> None:
        worker = self.worker()
        if worker is not None:
            worker.say_garbage()

    def starts_fail(self) -> None:
        kind = self.world.random.choice(["worker", "source", "airlock"])
        self._for_a_while(
            f"no {kind} can be started",
            lambda: self.starts.failing.add(kind),
            lambda: self.starts.failing.discard(kind),
        )

    def kill_server(self) -> None:
        self.server.kill()
        self._afterwards(self.world.delay_s(0.01, 30.0), self._restart)

    def stop_supervisor(self) -> None:
        process = self.server.process
        if not self.server.is_stopped:
            self._for_a_while(
                "supervisor stands still",
                lambda: setattr(process, "is_stopped", True),
                lambda: self.world.loop.go_on(process),
            )

    def restart_server(self) -> None:
        server = self.server
        if server.is_running and not (server.is_stopped or server.process.is_stopped):
            server.is_stopped = True

            async def restart() -> None:
                await server.stop()
                self._restart()

            self._restarting = asyncio.create_task(restart())

    def pause_machine(self) -> None:
        seconds = self.world.random.choice([1.0, 5.0, 30.0, 600.0])
        self.world.say(f"the machine sleeps for {seconds:g} s")
        self.world.loop.now_s += seconds
        self.world.slept_s += seconds

    def jump_wall_clock(self) -> None:
        """Sets the time of day, as when a clock is set right; files have the times of a clock that is right."""
        self.world.wall_ahead_s = self.world.random.choice(WALL_STEPS_S)
        self.world.say(f"the wall clock is ahead by {self.world.wall_ahead_s:g} s")

    def _wake(self) -> None:
        self.server.wake()

    def flood_of_webhooks(self) -> None:
        """A job writes hundreds of tags."""
        for _ in range(200):
            self.world.loop.later(self.world.network, self.world.delay_s(0.001, 3.0), self._wake)

    def refresh(self) -> None:
        self.server.refresh()


FAULTS: Final[dict[str, tuple[int, Callable[[Simulation], object]]]] = {
    "a version is published": (20, Simulation.publish),
    "an alias is moved": (20, Simulation.move_alias),
    "aliases are swapped": (6, Simulation.swap_aliases),
    "an alias is dropped": (5, Simulation.drop_alias),
    "a version is deleted": (6, Simulation.delete_version),
    "a version is registered anew": (8, Simulation.register_anew),
    "champions that end workers are registered anew": (3, Simulation.mend_champion),
    "a model is deleted": (2, Simulation.delete_model),
    "the registry is down": (5, Simulation.registry_down),
    "the registry lies": (6, Simulation.registry_lies),
    "the registry refuses": (3, Simulation.registry_refuses),
    "the registry has another database": (2, Simulation.other_database),
    "sources are slow": (5, Simulation.sources_slow),
    "sources hang": (4, Simulation.sources_hang),
    "a source's process ends": (5, Simulation.kill_source),
    "the store is down": (4, Simulation.store_down),
    "the store goes away midway": (4, Simulation.store_cut),
    "the disk is full": (4, Simulation.disk_full),
    "a copy is damaged": (3, Simulation.damage_copy),
    "a worker ends": (8, Simulation.end_worker),
    "all workers end": (2, Simulation.end_all_workers),
    "a worker hangs": (5, Simulation.hang_worker),
    "a worker loads slowly": (4, Simulation.slow_worker),
    "a worker says garbage": (2, Simulation.garbage),
    "processes cannot be started": (5, Simulation.starts_fail),
    "the supervisor is killed": (3, Simulation.kill_server),
    "the supervisor stands still": (4, Simulation.stop_supervisor),
    "the server is restarted": (2, Simulation.restart_server),
    "the machine sleeps": (3, Simulation.pause_machine),
    "somebody asks for a poll": (4, Simulation.refresh),
    "the wall clock jumps": (4, Simulation.jump_wall_clock),
    "a flood of webhooks comes": (2, Simulation.flood_of_webhooks),
}
"""What befalls the server and its surroundings: how often, relative to the others, and what it is."""
CHANGES: Final = frozenset(
    {
        "a version is published",
        "an alias is moved",
        "aliases are swapped",
        "an alias is dropped",
        "a version is deleted",
        "a version is registered anew",
        "champions that end workers are registered anew",
        "a model is deleted",
    }
)
"""What a registry tells by webhooks, where it has some; one of ten is lost."""


def play(seed: str, hours: float, *, keep_lines: int | None = 400, echo: Callable[[str], None] | None = None) -> Result:
    """Plays a seed until so many hours have passed in the simulation besides those that are skipped, or something is wrong."""
    with hushed():
        return _play(seed, hours, keep_lines, echo)


def _play(seed: str, hours: float, keep_lines: int | None, echo: Callable[[str], None] | None) -> Result:
    with surroundings(seed, keep_lines=keep_lines, echo=echo) as world:
        started_s = world.loop.now_s
        simulation = Simulation(world, hours)
        run(world, simulation.play)
        world.seen.update({f"requests {what}": many for what, many in simulation.answers.items()})
        passed_s = world.loop.now_s - started_s
        return Result(
            seed,
            passed_s / 3600,
            (passed_s - world.slept_s - world.skipped_s) / 3600,
            world.events,
            world.loop.steps,
            simulation.answers.total(),
            world.digest,
            [*world.violations],
            world.faults,
            world.seen,
            [*world.kept],
        )
