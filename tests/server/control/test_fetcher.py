import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from penstock_server import leases
from penstock_server.control.fetcher import RETRY_AWAY_MOST_S, RETRY_AWAY_S, RETRY_DAMAGED_S, SHELVED, ArtifactFetcher
from penstock_server.errors import InvalidInputError, NotFoundError, UnavailableError
from penstock_server.leases import Lease
from penstock_server.sources.source import VersionFiles

ONE, TWO, THREE = ("m", "1"), ("m", "2"), ("m", "3")
TIMEOUT_S = 30.0


class FakeSource:
    """Hands out one folder, unless it is told to raise; fetches wait for `may_go`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.errors: dict[tuple[str, str], Exception] = {}
        self.fetches: list[tuple[str, str]] = []
        self.at_once = 0
        self.most_at_once = 0
        self.may_go = asyncio.Event()
        self.may_go.set()
        self.leases: list[Lease] = []

    async def fetch(self, model: str, version: str, identity: str) -> VersionFiles:
        self.fetches.append((model, version))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await asyncio.wait_for(self.may_go.wait(), TIMEOUT_S)
        finally:
            self.at_once -= 1
        if error := self.errors.get((model, version)):
            raise error
        lease = leases.take(self.folder)
        assert lease is not None
        self.leases.append(lease)
        return VersionFiles(self.folder, identity or "unknown", lease)

    @property
    def is_free(self) -> bool:
        with leases.for_deleting(self.folder) as is_free:
            return is_free


class Watched:
    """A fetcher, and a way to wait for its next change."""

    def __init__(self, source: FakeSource, clock: Any) -> None:
        self.changes = asyncio.Queue[None]()
        self.fetcher = ArtifactFetcher(source, clock=clock, changed=lambda: self.changes.put_nowait(None))

    async def require(self, *keys: tuple[str, str], changes: int = 0, identity: str = "") -> None:
        self.fetcher.require(keys, {"m": {version: identity for _, version in keys}})
        for _ in range(changes):
            await asyncio.wait_for(self.changes.get(), TIMEOUT_S)


@pytest.fixture
def source(write_onnx: Callable[..., Path]) -> FakeSource:
    path = write_onnx([("Identity", ["x"], ["y"], {})], inputs=[("x", "FP32", ["N"])], outputs=[("y", "FP32", ["N"])])
    return FakeSource(path.parent)


@pytest.fixture
def clock(fake_clock: Any) -> Any:
    return fake_clock()


@asynccontextmanager
async def watched(source: FakeSource, clock: Any) -> AsyncIterator[Watched]:
    made = Watched(source, clock)
    try:
        yield made
    finally:
        source.may_go.set()
        await made.fetcher.close()


async def test_required_versions_are_fetched_once_and_forgotten_when_they_are_not(source: Any, clock: Any) -> None:
    async with watched(source, clock) as found:
        await found.require(ONE, TWO, changes=2)
        assert found.fetcher.artifacts.keys() == {ONE, TWO}
        assert found.fetcher.artifacts[ONE].path == source.folder
        await found.require(ONE)
        assert found.fetcher.artifacts.keys() == {ONE}
        assert sorted(source.fetches) == [ONE, TWO]
        await found.require(ONE, TWO, changes=1)
        assert sorted(source.fetches) == [ONE, TWO, TWO]


async def test_a_roll_back_has_its_version_without_a_fetch(source: Any, clock: Any) -> None:
    async with watched(source, clock) as found:
        await found.require(ONE, changes=1, identity="a")
        before = found.fetcher.artifacts[ONE]
        await found.require(TWO, changes=1, identity="a")
        await found.require(changes=0)
        assert source.is_free  # nothing keeps the files of what nobody requires
        await found.require(ONE, changes=1, identity="a")
        assert found.fetcher.artifacts == {ONE: before}
        assert found.fetcher.identity(ONE) == "a"
        assert source.fetches == [ONE, TWO]
        assert not source.is_free


@pytest.mark.parametrize("what", ["changed files", "no files", "another identity", "no identity"])
async def test_what_is_not_what_it_was_is_fetched_again(source: Any, clock: Any, tmp_path: Path, what: str) -> None:
    async with watched(source, clock) as found:
        await found.require(ONE, changes=1, identity="a")
        await found.require()
        if what == "changed files":
            (source.folder / "note").write_text("somebody wrote here")
        elif what == "no files":
            source.folder = source.folder.rename(tmp_path / "elsewhere")
        identity = {"another identity": "b", "no identity": ""}.get(what, "a")
        await found.require(ONE, changes=1, identity=identity)
        assert source.fetches == [ONE, ONE]
        assert found.fetcher.identity(ONE) == (identity or "unknown")
        assert found.fetcher.artifacts[ONE].path == source.folder


async def test_only_the_last_ones_are_remembered(source: Any, clock: Any) -> None:
    async with watched(source, clock) as found:
        wanted = [("m", str(number)) for number in range(SHELVED + 1)]
        for key in wanted:
            await found.require(key, changes=1, identity="a")
        await found.require()
        await found.require(wanted[1], changes=1, identity="a")
        await found.require(wanted[0], changes=1, identity="a")
        assert source.fetches == [*wanted, wanted[0]]


async def test_what_is_being_fetched_is_not_fetched_again(source: Any, clock: Any) -> None:
    async with watched(source, clock) as found:
        source.may_go.clear()
        await found.require(ONE)
        await found.require(ONE)
        source.may_go.set()
        await found.require(ONE, changes=1)
        assert source.fetches == [ONE]


async def test_two_are_fetched_at_a_time(source: Any, clock: Any) -> None:
    async with watched(source, clock) as found:
        await found.require(ONE, TWO, THREE, ("m", "4"), ("m", "5"), changes=5)
        assert source.most_at_once <= 2
        assert len(found.fetcher.artifacts) == 5


async def test_what_comes_first_is_fetched_first(source: Any, clock: Any) -> None:
    async with watched(source, clock) as found:
        wanted = [("m", str(number)) for number in (5, 3, 8, 1, 2)]
        await found.require(*wanted, changes=len(wanted))
        assert source.fetches == wanted


async def test_doubted_files_are_fetched_again_only_if_they_have_changed(source: Any, clock: Any) -> None:
    async with watched(source, clock) as found:
        await found.require(ONE, changes=1)
        for _ in range(2):
            found.fetcher.doubt(ONE)
        await found.require(ONE, changes=1)
        assert (source.fetches, found.fetcher.artifacts.keys()) == ([ONE], {ONE})
        (source.folder / "note").write_text("somebody wrote here")
        found.fetcher.doubt(ONE)
        await asyncio.wait_for(found.changes.get(), TIMEOUT_S)
        assert not found.fetcher.artifacts
        await found.require(ONE, changes=1)
        assert (source.fetches, found.fetcher.artifacts.keys()) == ([ONE, ONE], {ONE})
        found.fetcher.doubt(TWO)  # whose files nobody has
        assert not found.fetcher.is_fetching(TWO)


@pytest.mark.parametrize(
    ("error", "reason", "retry_s"),
    [
        (UnavailableError("the registry does not answer"), "the registry does not answer", RETRY_AWAY_S),
        (InvalidInputError("its digest is wrong"), "its digest is wrong", RETRY_DAMAGED_S),
        (NotFoundError("there is no version 1"), "there is no version 1", RETRY_DAMAGED_S),
        (RuntimeError("secret"), "fetching failed: RuntimeError", RETRY_AWAY_S),
    ],
)
async def test_a_failure_is_remembered_and_tried_again_later(
    source: Any, clock: Any, error: Exception, reason: str, retry_s: float
) -> None:
    source.errors[ONE] = error
    async with watched(source, clock) as found:
        await found.require(ONE, TWO, changes=2)
        assert found.fetcher.failure(ONE) == reason
        assert found.fetcher.failure(TWO) is None
        assert found.fetcher.artifacts.keys() == {TWO}
        clock.now += retry_s - 0.1
        await found.require(ONE, TWO)
        assert not found.fetcher._running
        del source.errors[ONE]
        clock.now += 0.2
        await found.require(ONE, TWO, changes=1)
        assert found.fetcher.failure(ONE) is None
        assert found.fetcher.artifacts.keys() == {ONE, TWO}


async def test_what_goes_on_failing_is_tried_less_often(source: Any, clock: Any) -> None:
    source.errors[ONE] = UnavailableError("the store does not answer")
    async with watched(source, clock) as found:
        await found.require(ONE, changes=1)
        for pause_s in (RETRY_AWAY_S, 2 * RETRY_AWAY_S, RETRY_AWAY_MOST_S, RETRY_AWAY_MOST_S):
            clock.now += pause_s - 0.1
            await found.require(ONE)
            assert not found.fetcher._running
            clock.now += 0.1
            await found.require(ONE, changes=1)
        source.errors[ONE] = UnavailableError("its process ended")
        clock.now += RETRY_AWAY_MOST_S
        await found.require(ONE, changes=1)
        clock.now += RETRY_AWAY_S
        await found.require(ONE, changes=1)


async def test_a_failure_that_is_not_required_is_forgotten(source: Any, clock: Any) -> None:
    source.errors[ONE] = InvalidInputError("its digest is wrong")
    async with watched(source, clock) as found:
        await found.require(ONE, changes=1)
        await found.require()
        assert found.fetcher.failure(ONE) is None
        await found.require(ONE, changes=1)
        assert source.fetches == [ONE, ONE]


async def test_damaged_files_are_a_failure(source: Any, clock: Any, tmp_path: Path) -> None:
    source.folder = tmp_path
    async with watched(source, clock) as found:
        await found.require(ONE, changes=1)
        assert "model.onnx" in str(found.fetcher.failure(ONE))


async def test_another_identity_is_fetched_and_takes_the_place_of_the_first(source: Any, clock: Any) -> None:
    async with watched(source, clock) as found:
        await found.require(ONE, changes=1, identity="a")
        assert found.fetcher.identity(ONE) == "a"
        first = found.fetcher.artifacts[ONE]
        source.may_go.clear()
        await found.require(ONE, identity="b")
        assert found.fetcher.artifacts[ONE] is first  # until the new files are there
        assert found.fetcher.identity(ONE) == "a"
        source.may_go.set()
        await found.require(ONE, changes=1, identity="b")
        assert found.fetcher.artifacts[ONE] is not first
        assert found.fetcher.identity(ONE) == "b"
        await found.require(ONE)  # no identity is known: those that are there will do
        assert source.fetches == [ONE, ONE]


async def test_another_identity_that_cannot_be_fetched_leaves_the_first(source: Any, clock: Any) -> None:
    async with watched(source, clock) as found:
        await found.require(ONE, changes=1, identity="a")
        source.errors[ONE] = InvalidInputError("damaged")
        await found.require(ONE, changes=1, identity="b")
        assert found.fetcher.identity(ONE) == "a"
        assert found.fetcher.failure(ONE) == "damaged"
        await found.require(ONE, identity="b")  # not before its time
        assert source.fetches == [ONE, ONE]
        await found.require(ONE, changes=1, identity="c")  # but at once when it is another again
        assert source.fetches == [ONE, ONE, ONE]
        await found.require(ONE, identity="a")
        assert found.fetcher.failure(ONE) is None  # what is there is what is meant


async def test_files_are_leased_as_long_as_they_are_required(source: Any, clock: Any) -> None:
    async with watched(source, clock) as found:
        assert source.is_free
        await found.require(ONE, changes=1, identity="a")
        assert not source.is_free
        await found.require(ONE, changes=1, identity="b")
        assert not source.is_free
        await found.require()
        assert source.is_free


async def test_a_fetch_that_is_no_longer_required_is_ended(source: Any, clock: Any) -> None:
    async with watched(source, clock) as found:
        source.may_go.clear()
        await found.require(ONE, TWO)
        await found.require(THREE, changes=2)
        source.may_go.set()
        await found.require(THREE, changes=1)
        assert found.fetcher.artifacts.keys() == {THREE}
        assert source.at_once == 0


async def test_close_waits_for_no_reading(source: Any, clock: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    reading, may_end = threading.Event(), threading.Event()

    def hang(_: Path) -> None:
        reading.set()
        may_end.wait(TIMEOUT_S)

    monkeypatch.setattr("penstock_server.control.fetcher.read", hang)
    async with watched(source, clock) as found:
        await found.require(ONE)
        assert await asyncio.to_thread(reading.wait, TIMEOUT_S)
        await asyncio.wait_for(found.fetcher.close(), TIMEOUT_S)
        assert not may_end.is_set()
        may_end.set()


async def test_close_ends_all_fetches(source: Any, clock: Any) -> None:
    async with watched(source, clock) as found:
        source.may_go.clear()
        await found.require(ONE, TWO, THREE)
        await asyncio.wait_for(found.fetcher.close(), TIMEOUT_S)
        assert found.fetcher.artifacts == {}
