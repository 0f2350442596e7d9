import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from penstock_server.control.fetcher import RETRY_AWAY_S, RETRY_DAMAGED_S, ArtifactFetcher
from penstock_server.errors import InvalidInputError, NotFoundError, UnavailableError
from penstock_server.sources.source import Desired

ONE, TWO, THREE = ("m", "1"), ("m", "2"), ("m", "3")
TIMEOUT_S = 20.0


class FakeSource:
    """Hands out one folder, unless it is told to raise; `held` makes fetches wait."""

    name = "fake"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.errors: dict[tuple[str, str], Exception] = {}
        self.fetches: list[tuple[str, str]] = []
        self.at_once = 0
        self.most_at_once = 0
        self.may_go = threading.Event()
        self.may_go.set()

    def poll(self) -> Desired:
        return Desired()

    def fetch(self, model: str, version: str) -> Path:
        self.fetches.append((model, version))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        assert self.may_go.wait(TIMEOUT_S)
        self.at_once -= 1
        if error := self.errors.get((model, version)):
            raise error
        return self.folder


class Watched:
    """A preparation, and a way to wait for its next change."""

    def __init__(self, source: FakeSource, clock: Any) -> None:
        self.changes = asyncio.Queue[None]()
        self.preparation = ArtifactFetcher(source, clock=clock, changed=lambda: self.changes.put_nowait(None))

    async def want(self, *keys: tuple[str, str], changes: int = 0) -> None:
        self.preparation.want(keys)
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
        await made.preparation.close()


async def test_wanted_versions_are_fetched_once_and_forgotten_when_nobody_wants_them(source: Any, clock: Any) -> None:
    async with watched(source, clock) as found:
        await found.want(ONE, TWO, changes=2)
        assert found.preparation.artifacts.keys() == {ONE, TWO}
        assert found.preparation.artifacts[ONE].path == source.folder
        await found.want(ONE)
        assert found.preparation.artifacts.keys() == {ONE}
        assert sorted(source.fetches) == [ONE, TWO]
        await found.want(ONE, TWO, changes=1)
        assert sorted(source.fetches) == [ONE, TWO, TWO]


async def test_what_is_being_fetched_is_not_fetched_again(source: Any, clock: Any) -> None:
    async with watched(source, clock) as found:
        source.may_go.clear()
        await found.want(ONE)
        await found.want(ONE)
        source.may_go.set()
        await found.want(ONE, changes=1)
        assert source.fetches == [ONE]


async def test_two_are_fetched_at_a_time(source: Any, clock: Any) -> None:
    async with watched(source, clock) as found:
        await found.want(ONE, TWO, THREE, ("m", "4"), ("m", "5"), changes=5)
        assert source.most_at_once <= 2
        assert len(found.preparation.artifacts) == 5


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
        await found.want(ONE, TWO, changes=2)
        assert found.preparation.reason(ONE) == reason
        assert found.preparation.reason(TWO) is None
        assert found.preparation.artifacts.keys() == {TWO}
        clock.now += retry_s - 0.1
        await found.want(ONE, TWO)
        assert not found.preparation._running
        del source.errors[ONE]
        clock.now += 0.2
        await found.want(ONE, TWO, changes=1)
        assert found.preparation.reason(ONE) is None
        assert found.preparation.artifacts.keys() == {ONE, TWO}


async def test_a_failure_that_nobody_wants_is_forgotten(source: Any, clock: Any) -> None:
    source.errors[ONE] = InvalidInputError("its digest is wrong")
    async with watched(source, clock) as found:
        await found.want(ONE, changes=1)
        await found.want()
        assert found.preparation.reason(ONE) is None
        await found.want(ONE, changes=1)
        assert source.fetches == [ONE, ONE]


async def test_damaged_files_are_a_failure(source: Any, clock: Any, tmp_path: Path) -> None:
    source.folder = tmp_path
    async with watched(source, clock) as found:
        await found.want(ONE, changes=1)
        assert "model.onnx" in str(found.preparation.reason(ONE))


async def test_close_ends_what_waits(source: Any, clock: Any) -> None:
    async with watched(source, clock) as found:
        source.may_go.clear()
        await found.want(ONE, TWO, THREE)
        await asyncio.wait_for(found.preparation.close(), TIMEOUT_S)
        assert found.preparation.artifacts == {}
