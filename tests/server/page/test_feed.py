import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from penstock_server.errors import OverloadedError
from penstock_server.page import feed as feed_module
from penstock_server.page.feed import VIEWERS, Feed, event

TIMEOUT_S = 10.0


@dataclass
class Where:
    """A viewer's end of its stream; one that does not read takes no chunk."""

    reads: bool = True
    chunks: list[bytes] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def write(self, chunk: bytes) -> bool:
        if self.reads:
            self.chunks.append(chunk)
            self.came.set()
        return self.reads

    def end(self) -> None:
        self.ended.set()

    async def next(self) -> bytes:
        await asyncio.wait_for(self.came.wait(), TIMEOUT_S)
        self.came.clear()
        return self.chunks[-1]


@dataclass
class World:
    feed: Feed
    shown: dict[str, bytes]
    looks: list[int]
    looked: list[asyncio.Semaphore]


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(feed_module, "PERIOD_S", 0.001)
    shown, looks, looked = {"a": b"1", "b": b"1"}, [0], list[asyncio.Semaphore]()
    loop = asyncio.get_running_loop()

    def sections() -> dict[str, bytes]:
        looks[0] += 1
        for each in looked:
            loop.call_soon_threadsafe(each.release)
        if "fails" in shown:
            raise ValueError("a bug")
        return dict(shown)

    with ThreadPoolExecutor(1) as threads:
        made = Feed(sections, threads)
        yield World(made, shown, looks, looked)
        await made.close()


def anybody() -> bool:
    return True


async def looks_again(world: World, times: int = 3) -> None:
    """Returns once it was looked so often more."""
    world.looked.append(more := asyncio.Semaphore(0))
    for _ in range(times):
        await asyncio.wait_for(more.acquire(), TIMEOUT_S)


async def test_first_everything_is_told_and_then_what_has_changed(world: World) -> None:
    where = Where()
    world.feed.open(where, anybody)
    assert await where.next() == event("a", b"1") + event("b", b"1")
    await looks_again(world)
    assert len(where.chunks) == 1
    world.shown["b"] = b"2"
    assert await where.next() == event("b", b"2")
    other = Where()
    world.feed.open(other, anybody)
    assert await other.next() == event("a", b"1") + event("b", b"2")


async def test_who_does_not_read_gets_the_latest_once_it_does(world: World) -> None:
    slow, fast = Where(reads=False), Where()
    world.feed.open(slow, anybody)
    world.feed.open(fast, anybody)
    await fast.next()
    for step in (b"2", b"3"):
        world.shown["a"] = step
        assert await fast.next() == event("a", step)
    slow.reads = True
    assert await slow.next() == event("a", b"3") + event("b", b"1")
    assert len(slow.chunks) == 1


async def test_nothing_is_computed_while_nobody_looks(world: World) -> None:
    leave = world.feed.open(where := Where(), anybody)
    await where.next()
    leave()
    assert world.feed._task is not None
    await asyncio.wait({world.feed._task}, timeout=TIMEOUT_S)
    looks = world.looks[0]
    await asyncio.sleep(0.02)
    assert world.looks[0] == looks
    world.shown["a"] = b"9"
    world.feed.open(other := Where(), anybody)
    assert await other.next() == event("a", b"9") + event("b", b"1")


async def test_a_stream_ends_when_its_caller_may_no_longer_look(world: World) -> None:
    rights = [True]
    world.feed.open(where := Where(), lambda: rights[0])
    await where.next()
    rights[0] = False
    await asyncio.wait_for(where.ended.wait(), TIMEOUT_S)
    assert len(where.chunks) == 1


async def test_a_bug_is_logged_once_and_ends_nothing(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    world.shown["fails"] = b""
    world.feed.open(where := Where(), anybody)
    await looks_again(world)
    assert not where.chunks
    del world.shown["fails"]
    assert await where.next() == event("a", b"1") + event("b", b"1")
    assert capsys.readouterr().out.count("cannot be told what is new") == 1


async def test_so_many_may_look_at_once_and_no_more(world: World) -> None:
    leave = [world.feed.open(Where(), anybody) for _ in range(VIEWERS)]
    with pytest.raises(OverloadedError, match=f"{VIEWERS} look at this server already"):
        world.feed.check_room()
    leave[0]()
    world.feed.check_room()
