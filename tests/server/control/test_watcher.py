import asyncio
from pathlib import Path
from typing import Any

import pytest

from penstock_server.control.watcher import AWAY_JITTER, JITTER, LONGEST_BACKOFF_S, WAKE_PAUSE_S, Watcher, pause_s
from penstock_server.errors import UnavailableError
from penstock_server.rollout.plan import TrafficPlan
from penstock_server.sources.combined_source import CombinedSource, LastKnownState, SourceState
from penstock_server.sources.source import Desired, VersionFiles

TIMEOUT_S = 20.0
FIRST = Desired({"m": TrafficPlan("1")})
SECOND = Desired({"m": TrafficPlan("2")})


class ScriptedSource:
    """Answers its script, one entry per poll, and then never again; an exception is raised."""

    def __init__(self, *script: Desired | Exception, name: str = "scripted") -> None:
        self.name = name
        self.script = list(script)
        self.is_over = asyncio.Event()

    async def poll(self) -> Desired:
        if not self.script:
            self.is_over.set()
            await asyncio.Event().wait()
        found = self.script.pop(0)
        if isinstance(found, Exception):
            raise found
        return found

    async def fetch(self, model: str, version: str, identity: str) -> VersionFiles:
        raise NotImplementedError

    async def close(self) -> None:
        pass


async def follow(
    *sources: ScriptedSource, last_known: LastKnownState | None = None, interval_s: float = 0.0
) -> list[Any]:
    """What is handed on, in order, until every script has ended."""
    heard: list[Any] = []
    watcher = Watcher(
        CombinedSource(sources, last_known=last_known),
        interval_s=interval_s,
        desired=heard.append,
        polled=lambda: heard.append("polled"),
    )
    task = asyncio.create_task(watcher.run())
    async with asyncio.timeout(TIMEOUT_S):
        for source in sources:
            await source.is_over.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return heard


@pytest.mark.parametrize(
    ("script", "last_known", "expected"),
    [
        ([FIRST], None, [FIRST, "polled"]),
        ([FIRST, FIRST], None, [FIRST, "polled", "polled"]),
        ([FIRST, SECOND, FIRST], None, [FIRST, "polled", SECOND, "polled", FIRST, "polled"]),
        ([Desired()], None, [Desired(), "polled"]),
        ([SECOND], FIRST, [FIRST, SECOND, "polled"]),
        ([FIRST], FIRST, [FIRST, "polled"]),
        ([Desired(), Desired()], FIRST, [FIRST, "polled", Desired(), "polled"]),  # believed the second time
        ([Desired(), FIRST], FIRST, [FIRST, "polled", "polled"]),
        ([UnavailableError("away"), FIRST], None, ["polled", FIRST, "polled"]),
        ([UnavailableError("away")], FIRST, [FIRST, "polled"]),
        ([RuntimeError("a bug"), FIRST], None, ["polled", FIRST, "polled"]),
    ],
)
async def test_each_new_desired_state_is_handed_on_once(
    script: list[Any], last_known: Desired | None, expected: list[Any], tmp_path: Path
) -> None:
    remembered = LastKnownState(tmp_path)
    if last_known is not None:
        remembered.remember("scripted", last_known)
    assert await follow(ScriptedSource(*script), last_known=remembered) == expected


async def test_a_source_that_hangs_holds_up_no_other() -> None:
    hanging, other = ScriptedSource(name="hanging"), ScriptedSource(FIRST, SECOND, name="other")
    assert await follow(hanging, other) == [FIRST, SECOND]  # and nobody says that all were polled


async def test_all_were_polled_once_each_has_answered_or_failed() -> None:
    away, other = ScriptedSource(UnavailableError("away"), name="away"), ScriptedSource(FIRST, name="other")
    assert sorted(map(str, await follow(away, other))) == sorted(map(str, [FIRST, "polled"]))


async def test_a_bug_of_one_source_is_shown_and_hurts_no_other() -> None:
    source = ScriptedSource(RuntimeError("a bug"))
    combined = CombinedSource([source])
    watcher = Watcher(combined, interval_s=0.0, desired=lambda _: None, polled=lambda: None)
    task = asyncio.create_task(watcher.run())
    await asyncio.wait_for(source.is_over.wait(), TIMEOUT_S)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert combined.states == (SourceState("scripted", "away", "polling it failed: RuntimeError"),)


class EnoughError(Exception):
    pass


async def test_polls_are_an_interval_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def pause(seconds: float, _asked: asyncio.Event) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise EnoughError

    monkeypatch.setattr("penstock_server.control.watcher.pause", pause)
    source = ScriptedSource(FIRST, UnavailableError("away"), SECOND)
    watcher = Watcher(
        CombinedSource([source]), interval_s=2.5, desired=lambda _: None, polled=lambda: None, chance=lambda: 0.5
    )
    with pytest.raises(ExceptionGroup):
        await watcher.run()
    half = 1 - JITTER / 2
    assert pauses == [2.5 * half, 5.0 * (1 - AWAY_JITTER / 2), 2.5 * half]


@pytest.mark.parametrize(
    ("interval_s", "failures", "expected"),
    [
        (1.0, 0, 1.0),
        (1.0, 1, 2.0),
        (1.0, 3, 8.0),
        (1.0, 4, LONGEST_BACKOFF_S),
        (1.0, 10**6, LONGEST_BACKOFF_S),
        (100.0, 5, 100.0),  # never more often than the setting says
        (0.0, 5, 0.0),
    ],
)
def test_a_source_that_does_not_answer_is_asked_less_often(interval_s: float, failures: int, expected: float) -> None:
    assert pause_s(interval_s, failures, 0.0) == expected
    jitter = AWAY_JITTER if failures else JITTER
    assert pause_s(interval_s, failures, 1.0) == pytest.approx(expected * (1 - jitter))


async def test_a_wake_up_polls_at_once_and_many_poll_once() -> None:
    source = ScriptedSource(FIRST, SECOND, FIRST, SECOND)
    heard: asyncio.Queue[float] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    watcher = Watcher(
        CombinedSource([source]),
        interval_s=1000.0,
        desired=lambda _: heard.put_nowait(loop.time()),
        polled=lambda: None,
    )
    task = asyncio.create_task(watcher.run())
    async with asyncio.timeout(TIMEOUT_S):
        await heard.get()
        for _ in range(1000):
            watcher.wake()
        first_s = await heard.get()
        for _ in range(1000):
            watcher.wake()
        second_s = await heard.get()
    assert second_s - first_s > WAKE_PAUSE_S * 0.9
    assert len(source.script) == 1
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class GatedSource(ScriptedSource):
    """Each poll waits for the test, and answers what is desired when it began."""

    def __init__(self) -> None:
        super().__init__()
        self.now = FIRST
        self.began: asyncio.Queue[None] = asyncio.Queue()
        self.may_end: asyncio.Queue[None] = asyncio.Queue()

    async def poll(self) -> Desired:
        read = self.now
        self.began.put_nowait(None)
        await self.may_end.get()
        return read


async def test_who_asks_for_a_poll_gets_one_that_begins_afterwards() -> None:
    source, heard = GatedSource(), list[Desired]()
    watcher = Watcher(CombinedSource([source]), interval_s=1e6, desired=heard.append, polled=lambda: None)
    task = asyncio.create_task(watcher.run())
    async with asyncio.timeout(TIMEOUT_S):
        await source.began.get()
        source.now = SECOND  # the poll that runs has not seen it
        asked = [asyncio.create_task(watcher.refresh()) for _ in range(3)]
        await asyncio.sleep(0)
        source.may_end.put_nowait(None)
        await source.began.get()  # at once, though the interval is long
        assert (heard, [one.done() for one in asked]) == ([FIRST], [False] * 3)
        source.may_end.put_nowait(None)
        await asyncio.gather(*asked)
        assert heard == [FIRST, SECOND]
        await asyncio.sleep(0)
        assert source.began.empty()  # one poll was for all of them
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_poll_is_over_for_who_asked_although_its_source_is_away_or_the_caller_left() -> None:
    source = ScriptedSource(FIRST, UnavailableError("away"), RuntimeError("a bug"), SECOND)
    heard: asyncio.Queue[Desired] = asyncio.Queue()
    watcher = Watcher(CombinedSource([source]), interval_s=1e6, desired=heard.put_nowait, polled=lambda: None)
    task = asyncio.create_task(watcher.run())
    async with asyncio.timeout(TIMEOUT_S):
        assert await heard.get() == FIRST
        for _ in range(2):
            await watcher.refresh()
        left = asyncio.create_task(watcher.refresh())
        await asyncio.sleep(0)
        left.cancel()
        assert await heard.get() == SECOND
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
