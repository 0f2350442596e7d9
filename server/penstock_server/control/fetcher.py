"""Gets wanted versions' files to hand: fetched and read in a thread, remembered with the reason when that fails."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import structlog

from penstock.names import VersionKey
from penstock_server.clock import Clock
from penstock_server.errors import PenstockError, UnavailableError
from penstock_server.models.artifact import Artifact, read
from penstock_server.sources.source import Source

log = structlog.get_logger(__name__)

RETRY_AWAY_S: Final = 5.0
RETRY_DAMAGED_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class _Failure:
    reason: str
    retry_at_s: float


class ArtifactFetcher:
    """Artifacts by version, for the versions that are wanted.

    Args:
        source: where they come from.
        clock: the time of retries.
        changed: called on the loop when something was fetched or failed.
    """

    def __init__(self, source: Source, *, clock: Clock, changed: Callable[[], None]) -> None:
        self._source = source
        self._clock = clock
        self._changed = changed
        self._artifacts: dict[VersionKey, Artifact] = {}
        self._failures: dict[VersionKey, _Failure] = {}
        self._running: dict[VersionKey, asyncio.Task[None]] = {}
        self._one_at_a_time = asyncio.Semaphore(2)

    @property
    def artifacts(self) -> dict[VersionKey, Artifact]:
        """What is at hand."""
        return self._artifacts

    def reason(self, key: VersionKey) -> str | None:
        """Why a version could not be had, if it could not."""
        failure = self._failures.get(key)
        return None if failure is None else failure.reason

    def want(self, keys: Iterable[VersionKey]) -> None:
        """Starts fetching what is not at hand, and forgets what is no longer wanted or loaded."""
        wanted = set(keys)
        for gone in self._artifacts.keys() - wanted:
            del self._artifacts[gone]
        for gone in self._failures.keys() - wanted:
            del self._failures[gone]
        for key in wanted - self._artifacts.keys() - self._running.keys():
            failure = self._failures.get(key)
            if failure is None or failure.retry_at_s <= self._clock():
                self._running[key] = asyncio.create_task(self._prepare(key))

    async def close(self) -> None:
        """Waits for what is being fetched, which a thread cannot abandon."""
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _prepare(self, key: VersionKey) -> None:
        try:
            async with self._one_at_a_time:
                self._artifacts[key] = await asyncio.to_thread(self._fetch, key)
            self._failures.pop(key, None)
        except PenstockError as error:
            self._fail(key, str(error), RETRY_AWAY_S if isinstance(error, UnavailableError) else RETRY_DAMAGED_S)
        except Exception as error:
            log.exception("fetch failed", model=key[0], version=key[1])
            self._fail(key, f"fetching failed: {type(error).__name__}", RETRY_AWAY_S)
        finally:
            del self._running[key]
            self._changed()

    def _fetch(self, key: VersionKey) -> Artifact:
        return read(self._source.fetch(*key))

    def _fail(self, key: VersionKey, reason: str, retry_s: float) -> None:
        known = self._failures.get(key)
        if known is None or known.reason != reason:
            log.warning("version cannot be had", model=key[0], version=key[1], reason=reason)
        self._failures[key] = _Failure(reason, self._clock() + retry_s)
