"""Polls each source at an interval, and hands the desired state of all on when it has changed."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

import structlog

from penstock_server.sources.combined_source import CombinedSource, Member
from penstock_server.sources.source import Desired

log = structlog.get_logger(__name__)


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
        interval_s: from the end of a source's poll to its next.
        desired: called with each desired state that differs from the one before.
        polled: called after each poll, whether it succeeded or failed, once every source has been polled.
    """

    def __init__(
        self,
        source: CombinedSource,
        *,
        interval_s: float,
        desired: Callable[[Desired], None],
        polled: Callable[[], None],
    ) -> None:
        self._source = source
        self._interval_s = interval_s
        self._on_desired = desired
        self._on_polled = polled
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
            await pause(self._interval_s, self._asked[index])

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
