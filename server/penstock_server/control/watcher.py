"""Polls the sources at an interval, and hands the desired state on when it has changed."""

import asyncio
from collections.abc import Callable

import structlog

from penstock_server.errors import UnavailableError
from penstock_server.sources.combined_source import CombinedSource
from penstock_server.sources.source import Desired

log = structlog.get_logger(__name__)


class Watcher:
    """Polls until cancelled.

    The last known state is handed on at the start, since a registry's client takes seconds to import. The server serves
    what it served last until the registry answers.

    Args:
        source: polled on a thread.
        interval_s: from the end of a poll to the next.
        desired: called on the loop with each desired state that differs from the one before.
        polled: called on the loop after each poll, whether it succeeded or failed.
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
        self._reasons: tuple[str, ...] = ()

    async def run(self) -> None:
        """Hands on the last known state, then polls."""
        last_known = self._source.recall()
        if last_known.models:
            log.info("serving the last known state until the source answers", source=self._source.name)
            self._hand_on(last_known)
        while True:
            await self._poll()
            await asyncio.sleep(self._interval_s)

    async def _poll(self) -> None:
        try:
            self._hand_on(await asyncio.to_thread(self._source.poll))
        except UnavailableError:
            pass  # the source's own state says why, and is logged below
        except Exception:
            log.exception("polling the source failed", source=self._source.name)
        self._log_states()
        self._on_polled()

    def _hand_on(self, desired: Desired) -> None:
        if desired != self._desired:
            self._desired = desired
            self._on_desired(desired)

    def _log_states(self) -> None:
        states = self._source.states
        reasons = tuple(state.reason for state in states)
        if reasons != self._reasons:
            self._reasons = reasons
            for state in states:
                write = log.warning if state.reason else log.info
                write("source state", name=state.name, state=state.state, reason=state.reason)
