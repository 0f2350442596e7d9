import asyncio
from typing import Any

import pytest

from penstock_server.control.watcher import Watcher
from penstock_server.errors import UnavailableError
from penstock_server.sources.combined_source import SourceState
from penstock_server.sources.source import Desired, WantedModel

TIMEOUT_S = 20.0
FIRST = Desired({"m": WantedModel("1")})
SECOND = Desired({"m": WantedModel("2")})


class ScriptedSource:
    """Answers its script, one entry a poll; an exception is raised."""

    name = "scripted"
    states = (SourceState("scripted", "answers"),)

    def __init__(self, *script: Desired | Exception, remembered: Desired | None = None) -> None:
        self.script = list(script)
        self.remembered = remembered or Desired()

    def recall(self) -> Desired:
        return self.remembered

    def poll(self) -> Desired:
        found = self.script.pop(0)
        if isinstance(found, Exception):
            raise found
        return found


async def follow(source: ScriptedSource) -> list[Any]:
    """What is handed on, in order, until the script ends."""
    heard: list[Any] = []
    ended = asyncio.Event()

    def asked() -> None:
        heard.append("asked")
        if not source.script:
            ended.set()

    watcher = Watcher(source, interval_s=0.0, wanted=heard.append, asked=asked)  # type: ignore[arg-type]
    task = asyncio.create_task(watcher.run())
    await asyncio.wait_for(ended.wait(), TIMEOUT_S)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return heard


@pytest.mark.parametrize(
    ("script", "remembered", "expected"),
    [
        ([FIRST], None, [FIRST, "asked"]),
        ([FIRST, FIRST], None, [FIRST, "asked", "asked"]),
        ([FIRST, SECOND, FIRST], None, [FIRST, "asked", SECOND, "asked", FIRST, "asked"]),
        ([Desired()], None, [Desired(), "asked"]),
        ([SECOND], FIRST, [FIRST, SECOND, "asked"]),
        ([FIRST], FIRST, [FIRST, "asked"]),
        ([UnavailableError("away"), FIRST], None, ["asked", FIRST, "asked"]),
        ([UnavailableError("away")], FIRST, [FIRST, "asked"]),
        ([RuntimeError("a bug"), FIRST], None, ["asked", FIRST, "asked"]),
    ],
)
async def test_each_new_wish_is_handed_on_once(
    script: list[Any], remembered: Desired | None, expected: list[Any]
) -> None:
    assert await follow(ScriptedSource(*script, remembered=remembered)) == expected


async def test_polls_are_an_interval_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise asyncio.CancelledError

    monkeypatch.setattr("penstock_server.control.watcher.asyncio.sleep", pause)
    source = ScriptedSource(FIRST, UnavailableError("away"), SECOND)
    watcher = Watcher(source, interval_s=2.5, wanted=lambda _: None, asked=lambda: None)  # type: ignore[arg-type]
    with pytest.raises(asyncio.CancelledError):
        await watcher.run()
    assert pauses == [2.5] * 3
