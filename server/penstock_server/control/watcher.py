"""Follows the source: asks it again and again, and hands on what it wants when that changed."""

import asyncio
from collections.abc import Callable

import structlog

from penstock_server.errors import UnavailableError
from penstock_server.sources.combined_source import CombinedSource
from penstock_server.sources.source import Desired

log = structlog.get_logger(__name__)


class Watcher:
    """Polls until cancelled.

    At start the remembered wish is handed on at once, since a registry's client takes seconds to import: the server is
    ready with what it served last, and converges on what the registry says when it answers.

    Args:
        source: asked on a thread.
        interval_s: between two polls.
        wanted: called on the loop with each wish that differs from the one before.
        asked: called on the loop after each poll, whether it was answered or not.
    """

    def __init__(
        self,
        source: CombinedSource,
        *,
        interval_s: float,
        wanted: Callable[[Desired], None],
        asked: Callable[[], None],
    ) -> None:
        self._source = source
        self._interval_s = interval_s
        self._wanted = wanted
        self._asked = asked
        self._desired: Desired | None = None
        self._reasons: tuple[str, ...] = ()

    async def run(self) -> None:
        """Polls, and waits the interval between."""
        remembered = self._source.recall()
        if remembered.models:
            log.info("serving what was served last until the source answers", source=self._source.name)
            self._take(remembered)
        while True:
            await self._poll()
            await asyncio.sleep(self._interval_s)

    async def _poll(self) -> None:
        try:
            self._take(await asyncio.to_thread(self._source.poll))
        except UnavailableError:
            pass  # the source's own state says so, and is told below
        except Exception:
            log.exception("asking the source failed", source=self._source.name)
        reasons = tuple(state.reason for state in self._source.states)
        if reasons != self._reasons:
            self._reasons = reasons
            for state in self._source.states:
                log.log(30 if state.reason else 20, "source", name=state.name, state=state.state, reason=state.reason)
        self._asked()

    def _take(self, desired: Desired) -> None:
        if desired != self._desired:
            self._desired = desired
            self._wanted(desired)
