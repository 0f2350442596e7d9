"""A worker's process as `penstock_server.worker` behaves: commands on a thread, loads on others, requests on the reactor.

It keeps the real routing table, and checks what the supervisor must never ask of it.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from penstock.names import VersionKey
from penstock_server import frames
from penstock_server.control import messages
from penstock_server.errors import PenstockError, StandbyError
from penstock_server.metrics.counters import CountersShape, SharedCounters, open_counters
from penstock_server.prediction.routing_table import RoutingTable, ServedModel
from penstock_server.rollout.plan import ModelRoutes
from tests.simulation.loop import Process
from tests.simulation.processes import reading
from tests.simulation.registry import DANGEROUS, Content, content_of
from tests.simulation.world import Wire, World

if TYPE_CHECKING:
    from tests.simulation.server import Server

DRAIN_S: Final = 30.0
ORPHAN_GRACE_S: Final = 5.0


class FakeExecutor:
    """A loaded version, as far as routing asks of it."""

    by_key = None
    responses = None

    def __init__(self, key: VersionKey, identity: str, content: Content, counters: SharedCounters, path: Path) -> None:
        self.key = key
        self.path = path
        self.identity = identity
        self.content = content
        self.counters = counters
        self.in_flight = 0
        self.is_draining = False
        self.is_closed = False


@dataclass(frozen=True)
class Loaded:
    """What a load made, for the commands' thread."""

    executor: FakeExecutor


class FakeWorker:
    """The worker's end.

    Attributes:
        process: its process.
        table: what its reactor routes by.
        slot: None before its beginning.
        is_hung: its reactor stands still.
        answered: by version and files, how many requests it has answered.
    """

    def __init__(self, world: World, server: "Server", reader: Any) -> None:
        self.process: Process = world.process("worker")
        self.table = RoutingTable()
        self.slot: int | None = None
        self.is_listening = False
        self.is_draining = False
        self.is_hung = False
        self.is_slow = False
        self.executors: dict[VersionKey, FakeExecutor] = {}
        self.commands = Wire(world, self._on_frame)
        self._world = world
        self._server = server
        self._events = reading(world, reader)
        self._inbox: deque[tuple[float, messages.Command | Loaded]] = deque()
        self._is_busy = False
        self._has_begun = False
        self._beat_s = 0.0
        self._loading: VersionKey | None = None
        self._routes: dict[str, ModelRoutes] = {}
        self._is_settled = False
        self._in_flight = 0
        self._calls: dict[int, Callable[[str], None]] = {}
        self._since_s: dict[int, float] = {}
        self._wanted_s: dict[str, float] = {}
        self.process.on_end.append(self._on_end)
        self.process.on_orphaned = self._on_orphaned

    # --- its life

    def beat_ns(self) -> int:
        """When its reactor last came round."""
        if self._has_begun and not self.is_hung and not self.process.is_dead:
            self._beat_s = self._world.loop.now_s
        return int(self._beat_s * 1e9)

    @property
    def is_idle(self) -> bool:
        """Whether it has begun, and neither loads nor answers nor has commands left."""
        return self._has_begun and self._loading is None and not (self._in_flight or self._inbox or self._is_busy)

    def die(self, code: int) -> None:
        self._world.end(self.process, code)

    def hang(self) -> None:
        self.beat_ns()
        self.is_hung = True

    def unhang(self) -> None:
        if self.is_hung and not self.process.is_dead:
            self.is_hung = False
            self._next()

    def say_garbage(self) -> None:
        """Its memory is damaged, and so is what it says."""
        self._events.send(frames.framed(b"\xc1garbage"))

    def _on_end(self) -> None:
        running = [one.content.serial for one in self.executors.values() if one.in_flight]
        self._server.on_ended(self, running)
        for told in [*self._calls.values()]:
            told("gone")
        self._calls.clear()
        self._events.end()

    def _on_orphaned(self) -> None:
        if not self.process.is_dead:
            self._world.loop.later(self.process.context, 0.01, self._drain, ORPHAN_GRACE_S)
            if self.is_hung:  # the kernel ends it
                self._world.loop.later(self.process.context, 10.0, self.die, -14)

    def _later(self, delay_s: float, action: Callable[..., object], *args: Any) -> None:
        self._world.loop.later(self.process.context, delay_s, action, *args)

    def _send(self, event: messages.Event) -> None:
        self._world.say(f"{self} says {_short(event)}")
        self._events.send(messages.framed(event))

    def __repr__(self) -> str:
        return f"worker {self.slot}#{self.process.pid}"

    # --- commands

    def _on_frame(self, body: bytes | None) -> None:
        if self.process.is_dead:
            return
        if body is None:  # the supervisor closed the socket
            self._later(0.01, self._drain, ORPHAN_GRACE_S)
            return
        command = messages.command(body)
        match command:
            case messages.Start():
                self.slot = command.slot
                self._counters = open_counters(Path(command.counters), CountersShape())
                self._later(self._world.delay_s(0.2, 3.0), self._begin)
            case messages.Drain(grace_s):
                self._later(0.001, self._drain, grace_s)
            case messages.SetLogLevel():
                pass
            case _:
                self._inbox.append((self.commands.sent_s, command))
                self._next()

    def _begin(self) -> None:
        self._has_begun = True
        self._next()

    def _next(self) -> None:
        if self._has_begun and not self._is_busy and not self.is_hung and self._inbox:
            self._is_busy = True
            self._later(self._world.delay_s(0.0001, 0.01), self._handle)

    def _handle(self) -> None:
        if self.is_hung:  # it waits for the reactor
            self._is_busy = False
            return
        sent_s, item = self._inbox.popleft()
        match item:
            case messages.Load():
                self._load(item)
            case Loaded(executor):
                self._take_in(executor)
            case messages.Serve():
                self._routes = item.applied(self._routes)
                self._is_settled = item.is_settled
                self._swap(sent_s)
                self._send(messages.Served(item.generation))
            case messages.Unload(model, version):
                self._unload((model, version), sent_s)
            case messages.Listen():
                self._listen()
        self._is_busy = False
        self._next()

    def _listen(self) -> None:
        if self._server.is_ready and self._world.chance(0.002):
            self._send(messages.ListenFailed("the address is in use"))
            return
        self.is_listening = True
        self._send(messages.Listening("simulated"))

    def _drain(self, grace_s: float) -> None:
        if not self.is_draining:
            self.is_draining = True
            self._later(grace_s, self.die, 0)
        if not self._in_flight:
            self.die(0)

    # --- versions

    def _load(self, command: messages.Load) -> None:
        key, violate = (command.model, command.version), self._world.violate
        if self._loading is not None:
            violate(f"{self} is to load {key} while it loads {self._loading}")
        self._loading = key
        try:
            content = content_of(Path(command.folder))
        except (OSError, ValueError) as error:
            # A worker that starts reads its commands late: others may have been registered anew and fetched since it was sent.
            # This load fails then, and the next one is of those.
            is_replaced = self._server.supervisor._fetcher.identity(key) != command.identity
            if not (is_replaced or self._server.is_damaged(command.folder)):
                violate(f"{self} is to load {key}, whose files are not there: {error!r}")
            self._later(0.01, self._fail, key, "its files are damaged")
            return
        if content.identity != command.identity:
            violate(f"{self} is to load {key} as {command.identity} from the files of {content.identity}")
        if content.serial not in self._server.passed:
            violate(f"{self} is to load {key} of {content}, which has not passed the airlock")
        self._server.on_load(self, key, content)
        least_s, most_s = (2.0, 20.0) if content.kind == "slow" or self.is_slow else (0.01, 2.0)
        match content.kind:
            case "load fails":
                self._later(self._world.delay_s(0.01, 1.0), self._fail, key, "its golden answers differ")
            case "load kills":
                self._later(self._world.delay_s(0.01, 1.0), self.die, -11)
            case _:
                self._later(self._world.delay_s(least_s, most_s), self._loaded, command, content)

    def _fail(self, key: VersionKey, reason: str) -> None:
        self._loading = None
        self._send(messages.LoadFailed(*key, reason))

    def _loaded(self, command: messages.Load, content: Content) -> None:
        counters = open_counters(Path(command.counters), CountersShape())
        key = command.model, command.version
        executor = FakeExecutor(key, command.identity, content, counters, Path(command.counters))
        self._inbox.append((self._world.loop.now_s, Loaded(executor)))
        self._next()

    def _take_in(self, executor: FakeExecutor) -> None:
        self._loading = None
        self._server.loaded.add(executor.content.serial)
        former = self.executors.get(executor.key)
        self.executors[executor.key] = executor
        if former is not None:
            self._swap(self._world.loop.now_s)
            self._retire(former, None)
        self._send(messages.Loaded(*executor.key, 0.1, True, 1.0, 0.1))

    def _swap(self, sent_s: float) -> None:
        former = self.table
        models = {name: self._served(name, routes) for name, routes in self._routes.items()}
        self.table = RoutingTable(models, self._is_settled)
        for name, model in former.models.items():
            if model.is_ready and (name not in models or not models[name].is_ready):
                self._server.on_lost(self, model, sent_s)
        for name, model in models.items():
            if model.plan is not None:
                for version in model.plan.versions:
                    if version not in model.executors:
                        self._world.violate(f"{self} is to serve {name} {version}, which it has not loaded")

    def _served(self, name: str, routes: Any) -> ServedModel:
        executors: Any = {version: one for (model, version), one in self.executors.items() if model == name}
        return ServedModel(
            name, routes.plan, executors, routes.statuses, routes.problem,
            is_lazy=self._server.residency.is_on, is_on_call=routes.is_on_call,
        )  # fmt: skip

    def _unload(self, key: VersionKey, sent_s: float) -> None:
        model, version = key
        plan = self.table.models[model].plan if model in self.table.models else None
        if plan is not None and version in plan.versions:
            self._world.violate(f"{self} is to unload {key}, which its plan uses: {plan}")
        executor = self.executors.pop(key, None)
        if executor is None:
            self._send(messages.Unloaded(*key))
            return
        self._swap(sent_s)
        self._retire(executor, messages.Unloaded(*key))

    def _retire(self, executor: FakeExecutor, then: messages.Unloaded | None) -> None:
        executor.is_draining = True
        self._end(executor, then, self._world.loop.now_s + DRAIN_S)

    def _end(self, executor: FakeExecutor, then: messages.Unloaded | None, until_s: float) -> None:
        if executor.in_flight and self._world.loop.now_s < until_s:
            self._later(0.05, self._end, executor, then, until_s)
            return
        executor.is_closed = True
        if then is not None:
            self._send(then)

    # --- requests

    def ask(self, number: int, model: str, version: str, key: str, told: Callable[[str], None]) -> None:
        """Answers a request some time later, by calling `told` with the files that answered, "refused" or "gone"."""
        try:
            found: Any = self.table.model(model).resolve(version, key)
        except StandbyError:
            self._wait(number, model, version, key, told)
            return
        except PenstockError as error:
            self._refuse(number, told, str(error))
            return
        executor: FakeExecutor = found
        if executor.is_draining:
            self._world.violate(f"{self} routes a request to {executor.key}, which is ending")
        if executor.identity != executor.content.identity:
            self._world.violate(f"{self} answers as {executor.identity} with the files of {executor.content.identity}")
        self._server.on_answering(self, executor, version)
        executor.in_flight += 1
        self._in_flight += 1
        self._calls[number] = told
        executor.counters.running_since_ns[0] = int(self._world.loop.now_s * 1e9)
        kind = executor.content.kind
        if kind in DANGEROUS and self._world.chance(0.3):
            if kind == "run kills":
                self._later(0.01, self.die, -11)
                return
            if kind == "run hangs":
                self.hang()  # the run ends when the worker goes on, if it ever does
        self._later(self._world.delay_s(0.0005, 0.5), self._finish, number, executor)

    def _refuse(self, number: int, told: Callable[[str], None], why: str) -> None:
        self._calls.pop(number, None)
        self._since_s.pop(number, None)
        told(f"refused: {why}")

    def _wait(self, number: int, model: str, version: str, key: str, told: Callable[[str], None]) -> None:
        """Has a request wait for its model, which is not in memory."""
        now_s = self._world.loop.now_s
        if now_s - self._since_s.setdefault(number, now_s) > self._server.residency.wait_s:
            self._refuse(number, told, "it was not loaded in time")
            return
        self._calls[number] = told
        if now_s - self._wanted_s.get(model, float("-inf")) >= 1.0:
            self._wanted_s[model] = now_s
            self._send(messages.Wanted(model))
        self._later(0.25, self._again, number, model, version, key, told)

    def _again(self, number: int, model: str, version: str, key: str, told: Callable[[str], None]) -> None:
        if self.is_hung:
            self._later(1.0, self._again, number, model, version, key, told)
        else:
            self.ask(number, model, version, key, told)

    def _finish(self, number: int, executor: FakeExecutor) -> None:
        if self.is_hung:
            self._later(1.0, self._finish, number, executor)
            return
        executor.in_flight -= 1
        self._in_flight -= 1
        if not executor.in_flight:
            executor.counters.running_since_ns[0] = 0
        told = self._calls.pop(number)
        self._since_s.pop(number, None)
        if executor.is_closed:
            told("refused: the version was closed")
            self._world.violate(f"{self} closed {executor.key} under a request")
        else:
            executor.counters.requests[0] += 1
            executor.counters.answered_ns[0] = int(self._world.loop.now_s * 1e9)
            self._server.on_answered(self, executor)
            told(executor.identity)
        if self.is_draining and not self._in_flight:
            self.die(0)


def _short(event: messages.Event) -> str:
    fields = [
        str(getattr(event, name)) for name in ("model", "version", "generation", "reason") if hasattr(event, name)
    ]
    return " ".join([type(event).__name__, *fields])
