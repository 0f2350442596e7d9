"""Fetches and reads the files of required versions on threads, and remembers why a fetch failed."""

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
FETCHES_AT_ONCE: Final = 2


@dataclass(frozen=True, slots=True)
class _Failure:
    reason: str
    retry_at_s: float


class ArtifactFetcher:
    """Holds the artifacts of the required versions, and fetches those that are missing.

    Args:
        source: hands out their files.
        clock: the time of retries.
        changed: called on the loop after each fetch, whether it succeeded or failed.
    """

    def __init__(self, source: Source, *, clock: Clock, changed: Callable[[], None]) -> None:
        self._source = source
        self._clock = clock
        self._changed = changed
        self._artifacts: dict[VersionKey, Artifact] = {}
        self._identities: dict[VersionKey, str] = {}
        self._failures: dict[VersionKey, _Failure] = {}
        self._running: dict[VersionKey, asyncio.Task[None]] = {}
        self._permits = asyncio.Semaphore(FETCHES_AT_ONCE)

    @property
    def artifacts(self) -> dict[VersionKey, Artifact]:
        """What has been fetched and read."""
        return self._artifacts

    def identity(self, key: VersionKey) -> str:
        """The identity of a version's files in `artifacts`; "" if it is unknown."""
        return self._identities.get(key, "")

    def failure(self, key: VersionKey) -> str | None:
        """Why the last fetch of a version failed; None if it did not."""
        failure = self._failures.get(key)
        return None if failure is None else failure.reason

    def require(self, keys: Iterable[VersionKey]) -> None:
        """Starts to fetch those of these versions that are missing, and forgets all others."""
        required = set(keys)
        for gone in self._artifacts.keys() - required:
            del self._artifacts[gone]
        for gone in self._failures.keys() - required:
            del self._failures[gone]
        for key in required - self._artifacts.keys() - self._running.keys():
            failure = self._failures.get(key)
            if failure is None or failure.retry_at_s <= self._clock():
                self._running[key] = asyncio.create_task(self._fetch(key))

    async def close(self) -> None:
        """Cancels all fetches; the result of a thread that still reads is dropped."""
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _fetch(self, key: VersionKey) -> None:
        try:
            async with self._permits:
                self._artifacts[key] = await asyncio.to_thread(self._read, key)
            self._failures.pop(key, None)
        except PenstockError as error:
            self._fail(key, str(error), RETRY_AWAY_S if isinstance(error, UnavailableError) else RETRY_DAMAGED_S)
        except Exception as error:
            log.exception("fetch failed", model=key[0], version=key[1])
            self._fail(key, f"fetching failed: {type(error).__name__}", RETRY_AWAY_S)
        finally:
            del self._running[key]
            self._changed()

    def _read(self, key: VersionKey) -> Artifact:
        return read(self._source.fetch(*key))

    def _fail(self, key: VersionKey, reason: str, retry_s: float) -> None:
        known = self._failures.get(key)
        if known is None or known.reason != reason:
            log.warning("version cannot be fetched", model=key[0], version=key[1], reason=reason)
        self._failures[key] = _Failure(reason, self._clock() + retry_s)
