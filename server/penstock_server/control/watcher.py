"""Polls each source at an interval, and hands the desired state of all on when it has changed.

Polling is the truth: a webhook of a registry only wakes it. A source that does not answer is asked less and less often.
"""

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import structlog

from penstock_server.sources.combined_source import CombinedSource, Member
from penstock_server.sources.source import Desired

log = structlog.get_logger(__name__)

JITTER: Final = 0.2
"""A pause is shorter by up to this share, so that servers that started together do not go on asking together."""
AWAY_JITTER: Final = 0.5
"""The same while a source does not answer: all servers notice that together, and pauses that only double keep them together."""
LONGEST_BACKOFF_S: Final = 15.0
"""So often a source is asked at least that has not answered for long, unless the interval itself is longer."""
WAKE_PAUSE_S: Final = 0.2
"""The shortest time between two wake-ups: a job that writes a thousand tags makes a thousand webhooks."""


def pause_s(interval_s: float, failures: int, chance: float) -> float:
    """How long to wait before a source is polled again; the interval at most, while it answers.

    Args:
        interval_s: the setting.
        failures: how many polls have failed, one after the other; each doubles the pause.
        chance: 0 to 1, by chance.
    """
    grown_s = interval_s * 2.0 ** min(failures, 30)
    jitter = AWAY_JITTER if failures else JITTER
    return min(grown_s, max(interval_s, LONGEST_BACKOFF_S)) * (1.0 - jitter * chance)


async def pause(seconds: float, asked: asyncio.Event) -> None:
    """Waits before a source is polled again, unless somebody asks for it."""
    # Not wait_for, which in Python 3.11 loses a cancellation that comes together with the event.
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await asked.wait()


class Watcher:
    """Polls until cancelled, each source for itself: one that hangs holds up no other.

    The last known state is handed on at the start. The server serves what it served last until the registry answers.

    Args:
        source: all sources.
        interval_s: from the end of a source's poll to its next, at most, while it answers.
        desired: called with each desired state that differs from the one before.
        polled: called after each poll, whether it succeeded or failed, once every source has been polled.
        chance: a number from 0 to 1, by chance.
    """

    def __init__(
        self,
        source: CombinedSource,
        *,
        interval_s: float,
        desired: Callable[[Desired], None],
        polled: Callable[[], None],
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._source = source
        self._interval_s = interval_s
        self._on_desired = desired
        self._on_polled = polled
        self._chance = chance
        self._waking: asyncio.TimerHandle | None = None
        self._woken_s = float("-inf")
        self._desired: Desired | None = None
        self._polled: set[int] = set()
        self._reasons: dict[str, str] = {}
        # Per source: who waits for the next poll to begin and end, and what ends the pause before it.
        self._askers: list[list[asyncio.Future[None]]] = [[] for _ in source.members]
        self._asked = [asyncio.Event() for _ in source.members]

    async def refresh(self) -> None:
        """Has every source polled at once; returns when what they desire from now on is handed on."""
        loop = asyncio.get_running_loop()
        polls = [loop.create_future() for _ in self._askers]
        for askers, asked, poll in zip(self._askers, self._asked, polls, strict=True):
            askers.append(poll)
            asked.set()
        await asyncio.gather(*polls)

    def wake(self) -> None:
        """Has every source polled soon: at once, unless that was done a moment ago."""
        if self._waking is None:
            loop = asyncio.get_running_loop()
            in_s = max(0.0, self._woken_s + WAKE_PAUSE_S - loop.time())
            self._waking = loop.call_later(in_s, self._wake_now)

    def _wake_now(self) -> None:
        self._waking = None
        self._woken_s = asyncio.get_running_loop().time()
        for asked in self._asked:
            asked.set()

    async def run(self) -> None:
        """Hands on the last known state, then polls."""
        last_known = self._source.recall()
        if last_known.models:
            log.info("serving the last known state until the source answers", source=self._source.name)
            self._hand_on(last_known)
        async with asyncio.TaskGroup() as tasks:
            for index, member in enumerate(self._source.members):
                tasks.create_task(self._follow(index, member))

    async def _follow(self, index: int, member: Member) -> None:
        failures = 0
        while True:
            self._asked[index].clear()
            # A poll that runs already may have read before they asked.
            askers, self._askers[index] = self._askers[index], []
            try:
                await member.poll()
            except Exception:
                log.exception("polling the source failed", source=member.source.name)
            self._polled.add(index)
            # While nothing is known of any source, an empty state is the lack of an answer.
            if any(one.known is not None for one in self._source.members):
                self._hand_on(self._source.combined())
            self._log_state(member)
            if len(self._polled) == len(self._source.members):
                self._on_polled()
            for asker in askers:
                if not asker.done():
                    asker.set_result(None)
            failures = failures + 1 if member.state.state == "away" else 0
            await pause(pause_s(self._interval_s, failures, self._chance()), self._asked[index])

    def _hand_on(self, desired: Desired) -> None:
        if desired != self._desired:
            self._desired = desired
            self._on_desired(desired)

    def _log_state(self, member: Member) -> None:
        state = member.state
        if self._reasons.get(state.name) != state.reason:
            self._reasons[state.name] = state.reason
            write = log.warning if state.reason else log.info
            write("source state", name=state.name, state=state.state, reason=state.reason)
