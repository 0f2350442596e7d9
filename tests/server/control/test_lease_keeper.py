"""Leases in a registry that is read only once in a while, as a server polls it."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from penstock_server.control.lease_keeper import LeaseKeeper
from penstock_server.errors import UnavailableError
from penstock_server.rollout.lease import LEASE_S
from penstock_server.rollout.registered import Change, DeleteTag, Expected, SetTag
from tests.server.conftest import FakeClock

TAG = "penstock.lease"


@dataclass
class PolledRegistry:
    """A model's tags, and what was polled of them last."""

    tags: dict[str, str] = field(default_factory=dict)
    polled: dict[str, str] = field(default_factory=dict)
    writes: int = 0

    async def write(self, _model: str, expected: Expected, changes: Sequence[Change]) -> None:
        if unmet := expected.unmet(self.tags, {}, {}):
            raise UnavailableError(unmet)
        self.writes += 1
        for change in changes:
            match change:
                case SetTag("", key, value):
                    self.tags[key] = value
                case DeleteTag("", key):
                    del self.tags[key]

    async def refresh(self) -> None:
        self.polled = dict(self.tags)


@dataclass
class Server:
    registry: PolledRegistry
    clock: FakeClock
    keeper: LeaseKeeper

    @classmethod
    def named(cls, name: str, registry: PolledRegistry, clock: FakeClock) -> "Server":
        keeper = LeaseKeeper(
            holder=name, tag=TAG, registry=registry, refresh=registry.refresh, lease_s=LEASE_S, clock=clock
        )
        return cls(registry, clock, keeper)

    def look(self) -> bool:
        self.keeper.seen("m", self.registry.polled.get(TAG, ""))
        return asyncio.run(self.keeper.hold("m"))


def test_a_server_takes_and_keeps_its_lease_though_it_polls_less_often_than_it_looks() -> None:
    registry, clock = PolledRegistry(), FakeClock()
    server = Server.named("a", registry, clock)
    acted = []
    for _ in range(40):  # nobody else polls
        acted.append(server.look())
        clock.now += 5
    assert acted == [False] * 3 + [True] * 37
    assert registry.writes == pytest.approx(200 / (LEASE_S / 5), abs=4)
    assert server.keeper.others("m") == ""


def test_a_lease_that_is_given_back_is_free_at_once() -> None:
    registry, clock = PolledRegistry(), FakeClock()
    first, second = (Server.named(name, registry, clock) for name in ("a", "b"))
    while not first.look():
        clock.now += 5
    assert not second.look()
    assert second.keeper.others("m") == "a"
    asyncio.run(first.keeper.release("m"))
    assert TAG not in registry.tags
    assert not first.keeper.is_held("m")
    asyncio.run(registry.refresh())
    began_s = clock()
    while not second.look():
        clock.now += 5
    assert clock() - began_s <= LEASE_S / 4 + 5


def test_one_that_hangs_holds_it_no_more_though_its_name_stands_there() -> None:
    registry, clock = PolledRegistry(), FakeClock()
    server = Server.named("a", registry, clock)
    while not server.look():
        clock.now += 5
    assert server.keeper.is_held("m")
    clock.now += LEASE_S / 2 + 1
    assert not server.keeper.is_held("m")
    asyncio.run(server.keeper.release("m"))  # which is not its any more
    assert registry.tags[TAG].startswith("a ")


def test_of_two_that_take_it_the_one_that_writes_last_is_told() -> None:
    registry, clock = PolledRegistry(), FakeClock()
    first, second = (Server.named(name, registry, clock) for name in ("a", "b"))
    for each in (first, second):
        each.keeper.seen("m", "")
    assert not asyncio.run(first.keeper.hold("m"))
    with pytest.raises(UnavailableError, match="is another one"):
        asyncio.run(second.keeper.hold("m"))
