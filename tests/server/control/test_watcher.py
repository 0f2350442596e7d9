import asyncio
from typing import Any

import pytest

from penstock_server.control.watcher import Watcher
from penstock_server.errors import UnavailableError
from penstock_server.rollout.plan import TrafficPlan
from penstock_server.sources.combined_source import SourceState
from penstock_server.sources.source import Desired

TIMEOUT_S = 20.0
FIRST = Desired({"m": TrafficPlan("1")})
SECOND = Desired({"m": TrafficPlan("2")})


class ScriptedSource:
    """Answers its script, one entry per poll; an exception is raised."""

    name = "scripted"
    states = (SourceState("scripted", "answers"),)

    def __init__(self, *script: Desired | Exception, last_known: Desired | None = None) -> None:
        self.script = list(script)
        self.last_known = last_known or Desired()

    def recall(self) -> Desired:
        return self.last_known

    def poll(self) -> Desired:
        found = self.script.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


async def follow(source: ScriptedSource) -> list[Any]:
    """What is handed on, in order, until the script ends."""
    heard: list[Any] = []
    ended = asyncio.Event()

    def polled() -> None:
        heard.append("polled")
        if not source.script:
            ended.set()

    watcher = Watcher(source, interval_s=0.0, desired=heard.append, polled=polled)  # type: ignore[arg-type]
    task = asyncio.create_task(watcher.run())
    await asyncio.wait_for(ended.wait(), TIMEOUT_S)
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
        ([UnavailableError("away"), FIRST], None, ["polled", FIRST, "polled"]),
        ([UnavailableError("away")], FIRST, [FIRST, "polled"]),
        ([RuntimeError("a bug"), FIRST], None, ["polled", FIRST, "polled"]),
    ],
)
async def test_each_new_desired_state_is_handed_on_once(
    script: list[Any], last_known: Desired | None, expected: list[Any]
) -> None:
    assert await follow(ScriptedSource(*script, last_known=last_known)) == expected


async def test_polls_are_an_interval_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise asyncio.CancelledError

    monkeypatch.setattr("penstock_server.control.watcher.asyncio.sleep", pause)
    source = ScriptedSource(FIRST, UnavailableError("away"), SECOND)
    watcher = Watcher(source, interval_s=2.5, desired=lambda _: None, polled=lambda: None)  # type: ignore[arg-type]
    with pytest.raises(asyncio.CancelledError):
        await watcher.run()
    assert pauses == [2.5] * 3
