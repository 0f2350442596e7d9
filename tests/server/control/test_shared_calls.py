"""Several servers with rules for one model, on one registry and a fake clock: whoever acts, hangs or ends, all call as one.

The retrainers are real; what they send, the clock and the registry are not. Each server polls the registry by itself.
"""

import asyncio
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_server.control.shared_calls import SharedCalls, run_on
from penstock_server.errors import InvalidInputError, UnavailableError, UnsupportedError
from penstock_server.retraining.actions import Ended
from penstock_server.retraining.event import Event
from penstock_server.retraining.record import CALLS_TAG, LEASE_TAG, MAX_TAG_BYTES, MAX_TEXT, read_calls
from penstock_server.retraining.retrainer import Retrainer
from penstock_server.retraining.settings import DAY_S, ActionSettings, RetrainingRuleSettings, RetrainingSettings
from penstock_server.retraining.signals import Signals
from penstock_server.retraining.state import RetrainingCall
from tests.server.conftest import FakeClock
from tests.server.control.test_lease_keeper import PolledRegistry

LEASE_S, FLIGHT_S, PER_DAY = 45.0, 3600.0, 3


ACTIONS = {
    "webhook": ActionSettings("webhook", url="https://a", secret_env="S"),
    "github": ActionSettings("github", repository="a/b"),
    "command": ActionSettings("command", command=("train",)),
}


@dataclass
class Command:
    """A training that ends when it is told."""

    ended: Ended | None = None

    def poll(self) -> Ended | None:
        return self.ended

    def close(self) -> None:
        self.ended = self.ended or Ended(False, "killed")


@dataclass
class World:
    """One model `m`, whose rule always holds, its registry, and what was sent by whom."""

    kind: str = "webhook"
    clock: FakeClock = field(default_factory=lambda: FakeClock(1_800_000_000.0))
    registry: PolledRegistry = field(default_factory=PolledRegistry)
    versions: tuple[str, ...] = ("1",)
    sent: list[tuple[float, str, str]] = field(default_factory=list)
    commands: list[Command] = field(default_factory=list)
    fails: bool = False
    servers: int = 0

    def server(self) -> "Server":
        self.servers += 1
        return Server(self, f"server-{self.servers}")

    def calls(self) -> tuple[RetrainingCall, ...]:
        return read_calls(self.registry.tags.get(CALLS_TAG, ""))


class Server:
    """A retrainer with its fleet. What it knows of the registry is what it polled."""

    def __init__(self, world: World, name: str, file: Path | None = None) -> None:
        self.name = name
        self._world = world
        self._seen = PolledRegistry()
        self.retrainer = Retrainer(
            RetrainingSettings(
                {"always": RetrainingRuleSettings("act", rows=1)}, {"act": ACTIONS[world.kind]},
                cooldown_s=0, flight_s=FLIGHT_S, per_day=PER_DAY,
            ),
            lambda: [Signals("m", "1", "abc", world.versions, rows=5)],
            file,
            fleet=SharedCalls(
                holder=name, lease_tag=LEASE_TAG, calls_tag=CALLS_TAG, tags=lambda: {"m": self._seen.polled},
                registry=self, refresh=self.poll, lease_s=LEASE_S, max_bytes=MAX_TAG_BYTES, run=run, clock=world.clock,
            ),
            clock=world.clock,
            send=self.send,
            start=self.start,
        )  # fmt: skip

    async def poll(self) -> None:
        self._seen.polled = dict(self._world.registry.tags)

    async def write(self, *what: Any) -> None:
        await self._world.registry.write(*what)

    def send(self, _: ActionSettings, event: Event, now_s: float) -> str:
        if self._world.fails:
            raise UnavailableError("it answers 503")
        self._world.sent.append((now_s, event.id, self.name))
        return "204"

    def start(self, _: ActionSettings, event: Event) -> Command:
        self._world.sent.append((self._world.clock(), event.id, self.name))
        self._world.commands.append(Command())
        return self._world.commands[-1]

    def look(self, later_s: float = 5.0) -> None:
        self._world.clock.now += later_s
        run(self.poll())
        self.retrainer.look()

    @property
    def held(self) -> str:
        return self.retrainer.status().models["m"].decisions[0].held


LOOPS: list[asyncio.AbstractEventLoop] = []


@pytest.fixture(scope="module", autouse=True)
def _loop() -> Iterator[None]:
    """A loop for as long as the module's tests run one after the other; a process may come back to the module."""
    LOOPS.append(asyncio.new_event_loop())
    yield
    LOOPS.pop().close()


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    return LOOPS[-1].run_until_complete(coroutine)


def test_one_of_two_calls_and_the_other_says_who_acts() -> None:
    world = World()
    first, second = world.server(), world.server()
    for _ in range(20):
        first.look()
        second.look()
    ((_, call, sender),) = world.sent
    assert sender == "server-1"
    assert [each.outcome for each in world.calls()] == ["sent"]
    for server in (first, second):
        (known,) = server.retrainer.status().models["m"].state.calls
        assert known.id == call
        assert "under way" in server.held
    assert LEASE_TAG not in world.registry.tags  # nobody needs it while all wait for the version
    world.versions = ("1", "2")
    for _ in range(20):
        second.look()
        first.look()
    assert [each.outcome for each in world.calls()] == ["done", "sent"]
    assert len(world.sent) == 2


@pytest.mark.parametrize("kind", ["webhook", "github", "command"])
def test_another_server_goes_on_with_what_one_that_hangs_had_begun(kind: str) -> None:
    world = World(kind, fails=kind == "webhook")
    first, second = world.server(), world.server()
    while not world.calls():
        first.look()
        second.look(0)
    world.fails = False
    if kind == "github":  # it hangs before it says that it has sent it
        world.registry.tags[CALLS_TAG] = world.registry.tags[CALLS_TAG].replace('"sent"', '"sending"')
    for _ in range(30):
        second.look()
    (call,) = world.calls()
    assert call.outcome == ("sent" if kind == "webhook" else "unknown")
    assert call.is_open
    assert [sender for _, _, sender in world.sent] == ["server-2" if kind == "webhook" else "server-1"]
    first.look()  # it wakes
    if kind == "command":
        world.commands[0].ended = Ended(True, "trained")
    for _ in range(30):
        first.look()
        second.look()
    # It told how its command ended, so the rule may call again.
    assert world.calls()[0].outcome == ("done" if kind == "command" else "sent")
    assert len(world.calls()) == len(world.sent) == (2 if kind == "command" else 1)


def test_the_server_that_ran_a_command_shows_all_that_it_wrote() -> None:
    world = World("command")
    server = world.server()
    while not world.commands:
        server.look()
    world.commands[0].ended = Ended(True, "a" * 300)
    for _ in range(5):
        server.look()
    assert len(world.calls()[0].detail) == MAX_TEXT
    assert server.retrainer.status().models["m"].state.calls[0].detail == "a" * 300


def test_a_registry_that_cannot_be_written_calls_for_nothing_and_a_folder_is_nobody_elses() -> None:
    world = World()
    server = world.server()

    async def refuse(*_: Any) -> None:
        raise error

    server.write = refuse  # type: ignore[method-assign]
    for error in (UnavailableError("it is read only"), InvalidInputError("it refuses")):
        for _ in range(20):
            server.look()
        assert (server.held, world.sent) == (str(error), [])
    error = UnsupportedError("a folder has no tags")
    server.look()
    assert len(world.sent) == 1


def test_what_is_no_record_is_named_and_nothing_is_called_for() -> None:
    world = World()
    world.registry.tags[CALLS_TAG] = "nonsense"
    server = world.server()
    for _ in range(20):
        server.look()
    assert CALLS_TAG in server.held
    assert world.sent == []
    assert world.registry.tags[CALLS_TAG] == "nonsense"


steps = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from([0.5, 3.0, 5.0, 12.0, 30.0, 100.0, 2000.0, 20_000.0]),
        st.sampled_from(["look"] * 12 + ["restart", "version", "fail", "well", "end", "unread"]),
    ),
    min_size=40,
    max_size=160,
)


@pytest.mark.long
@settings(max_examples=40, deadline=None)
@given(steps, st.sampled_from(["webhook", "github", "command"]))
def test_servers_that_hang_restart_and_fail_call_as_one(plan: list[tuple[int, float, str]], kind: str) -> None:
    """A server that is not drawn for long hangs: one that hangs between two looks acts at once when it wakes.

    However that goes, one retraining is under way at a time, a day has no more calls than it may, and an event that its other
    side cannot tell from its repetition is sent once.
    """
    world = World(kind)
    servers = [world.server() for _ in range(3)]
    for who, pause_s, what in plan:
        match what:
            case "restart":
                servers[who] = world.server()
            case "version":
                world.versions = (*world.versions, str(len(world.versions) + 1))
            case "fail" | "well":
                world.fails = what == "fail"
            case "end" if world.commands:
                world.commands[-1].ended = Ended(True, "trained")
        if what == "unread":  # the registry does not answer this server's poll
            world.clock.now += pause_s
            servers[who].retrainer.look()
        else:
            servers[who].look(pause_s)
        calls = world.calls()
        assert sum(each.is_open for each in calls) <= 1
        assert all(sum(0 <= each.at_s - one.at_s < DAY_S for each in calls) <= PER_DAY for one in calls)
        assert {call for _, call, _ in world.sent} <= {each.id for each in calls}
        if kind != "webhook":
            assert len({call for _, call, _ in world.sent}) == len(world.sent)


def test_a_thread_is_told_when_the_loop_ends_or_has_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock_server.control.shared_calls.ANSWER_S", 0.01)

    async def slow() -> None:
        await asyncio.Event().wait()

    async def quick() -> int:
        return 3

    async def main() -> None:
        on_loop = run_on(asyncio.get_running_loop())
        assert await asyncio.to_thread(lambda: on_loop(quick())) == 3
        with pytest.raises(UnavailableError, match="has no time"):
            await asyncio.to_thread(lambda: on_loop(slow()))

    asyncio.run(main())
