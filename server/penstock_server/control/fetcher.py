"""Fetches and reads the files of required versions, and remembers why a fetch failed.

A version that the source registers anew, under the same name and number, is fetched again: its identity differs. The
files that are there stay until the new ones are read. What is no longer required is not forgotten at once: a roll-back has it
without a fetch, if its files are still what they were.
"""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import structlog

from penstock.names import VersionKey
from penstock_server import leases
from penstock_server.clock import Clock
from penstock_server.errors import PenstockError, UnavailableError
from penstock_server.models.artifact import Artifact, read
from penstock_server.models.version_folder import FileStates, file_states
from penstock_server.sources.source import VersionFiles

log = structlog.get_logger(__name__)

RETRY_AWAY_S: Final = 5.0
RETRY_AWAY_MOST_S: Final = 15.0
"""The pause doubles up to this while the same files fail for the same reason: each try takes a process."""
RETRY_DAMAGED_S: Final = 60.0
FETCHES_AT_ONCE: Final = 2
SHELVED: Final = 8
"""So many versions that are no longer required are remembered; nothing keeps their files from being swept."""
_NO_IDENTITIES: Final[Mapping[str, Mapping[str, str]]] = {}


class FetchesFiles(Protocol):
    """What the fetcher needs of a source."""

    async def fetch(self, model: str, version: str, identity: str) -> VersionFiles: ...


ReadFiles = Callable[[Path], Awaitable[Artifact]]
"""Reads and verifies a version's files, and holds up nothing meanwhile; `InvalidInputError` when they are not sound."""


@dataclass(frozen=True, slots=True)
class _Failure:
    reason: str
    retry_s: float
    retry_at_s: float
    identity: str
    is_damaged: bool


@dataclass(frozen=True, slots=True)
class _Shelved:
    """A version that is no longer required; its files had a lease or not, and have none now."""

    artifact: Artifact
    files: VersionFiles
    states: FileStates
    had_lease: bool


class ArtifactFetcher:
    """Holds the artifacts of the required versions, and fetches those that are missing or have another identity now.

    Args:
        source: hands out their files.
        clock: the time of retries.
        changed: called on the loop after each fetch, whether it succeeded or failed.
        read_files: reads what was fetched; None reads it on a thread.
    """

    def __init__(
        self,
        source: FetchesFiles,
        *,
        clock: Clock,
        changed: Callable[[], None],
        read_files: ReadFiles | None = None,
    ) -> None:
        self._source = source
        self._read_files = read_files or _read_on_thread
        self._clock = clock
        self._changed = changed
        self._artifacts: dict[VersionKey, Artifact] = {}
        self._files: dict[VersionKey, VersionFiles] = {}
        self._failures: dict[VersionKey, _Failure] = {}
        self._running: dict[VersionKey, asyncio.Task[None]] = {}
        # The size and time of each file of an artifact, as they were just before it was read.
        self._states: dict[VersionKey, FileStates] = {}
        self._shelf: dict[VersionKey, _Shelved] = {}
        self._permits = asyncio.Semaphore(FETCHES_AT_ONCE)

    @property
    def artifacts(self) -> dict[VersionKey, Artifact]:
        """What has been fetched and read."""
        return self._artifacts

    def identity(self, key: VersionKey) -> str:
        """The identity of a version's artifact; "" if there is none, or the source cannot tell."""
        files = self._files.get(key)
        return "" if files is None else files.identity

    def is_fetching(self, key: VersionKey) -> bool:
        """Whether a version's files are being fetched now."""
        return key in self._running

    def failure(self, key: VersionKey) -> str | None:
        """Why the last fetch of a version failed; None if it did not."""
        failure = self._failures.get(key)
        return None if failure is None else failure.reason

    def is_damaged_or_here(self, key: VersionKey) -> bool:
        """Whether something is known of a version's files: they are there, or they are such that nobody can use them."""
        failure = self._failures.get(key)
        return key in self._artifacts if failure is None else failure.is_damaged

    def require(self, keys: Iterable[VersionKey], identities: Mapping[str, Mapping[str, str]] = _NO_IDENTITIES) -> None:
        """Starts to fetch those of these versions that are missing, in this order, and forgets all others.

        Args:
            keys: the versions, the most important first.
            identities: which files are meant, by model and version; without one, those that are there.
        """
        required = dict.fromkeys(keys)
        for gone in self._artifacts.keys() - required.keys():
            self._shelve(gone)
        for gone in self._failures.keys() - required.keys():
            del self._failures[gone]
        for gone in sorted(self._running.keys() - required.keys()):
            self._running[gone].cancel()  # its process ends, and the next one has its turn
        for key in required:
            if key in self._running:
                continue
            identity = identities.get(key[0], {}).get(key[1], "")
            if self._is_there(key, identity):
                self._failures.pop(key, None)
                continue
            failure = self._failures.get(key)
            if failure is None or failure.retry_at_s <= self._clock() or failure.identity != identity:
                self._running[key] = asyncio.create_task(self._fetch(key, identity))
                self._running[key].add_done_callback(partial(self._on_fetched, key))

    def doubt(self, key: VersionKey) -> None:
        """Looks at the files of an artifact that could not be loaded, and has them fetched again if they have changed.

        Somebody may have emptied the cache folder, and a disk may fail.
        """
        if key in self._artifacts and key not in self._running:
            self._running[key] = asyncio.create_task(self._look_at(key))
            self._running[key].add_done_callback(partial(self._on_fetched, key))

    async def close(self) -> None:
        """Cancels all fetches; a thread that still reads holds up nothing, and its result is dropped."""
        for task in self._running.values():
            task.cancel()
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    def _is_there(self, key: VersionKey, identity: str) -> bool:
        return key in self._artifacts and (not identity or identity == self._files[key].identity)

    async def _fetch(self, key: VersionKey, identity: str) -> None:
        try:
            if await self._take_back(key, identity):
                return
            async with self._permits:
                files = await self._source.fetch(*key, identity)
                states = await asyncio.to_thread(file_states, files.folder)
                artifact = await self._read_files(files.folder)
            self._forget(key)
            self._artifacts[key], self._files[key], self._states[key] = artifact, files, states
            self._failures.pop(key, None)
        except PenstockError as error:
            self._fail(key, identity, str(error), is_damaged=not isinstance(error, UnavailableError))
        except Exception as error:
            log.exception("fetch failed", model=key[0], version=key[1])
            self._fail(key, identity, f"fetching failed: {type(error).__name__}", is_damaged=False)

    def _shelve(self, key: VersionKey) -> None:
        files = self._files[key]
        shelved = _Shelved(self._artifacts[key], replace(files, lease=None), self._states[key], files.lease is not None)
        self._forget(key)
        if files.identity:
            self._shelf[key] = shelved
            while len(self._shelf) > SHELVED:
                del self._shelf[next(iter(self._shelf))]

    async def _take_back(self, key: VersionKey, identity: str) -> bool:
        """Takes a version from the shelf, whether it is the one that is meant and its files are what they were."""
        shelved = self._shelf.pop(key, None)
        if shelved is None or shelved.files.identity != identity:
            return False
        folder = shelved.files.folder
        lease = await asyncio.to_thread(leases.take, folder) if shelved.had_lease else None
        if lease is None and shelved.had_lease:
            return False
        try:
            states = await asyncio.to_thread(file_states, folder)
        except OSError:
            states = []
        if states != shelved.states:
            return False  # the lease ends with its last reference
        self._forget(key)
        files = replace(shelved.files, lease=lease)
        self._artifacts[key], self._files[key], self._states[key] = shelved.artifact, files, states
        self._failures.pop(key, None)
        return True

    async def _look_at(self, key: VersionKey) -> None:
        states: FileStates = []
        with suppress(OSError):  # what is deleted while it is looked at has changed too
            states = await asyncio.to_thread(file_states, self._files[key].folder)
        if states != self._states[key]:
            log.warning(
                "a version's files have changed on this disk; fetching them again", model=key[0], version=key[1]
            )
            self._forget(key)

    def _on_fetched(self, key: VersionKey, _: asyncio.Task[None]) -> None:
        del self._running[key]
        self._changed()

    def _forget(self, key: VersionKey) -> None:
        self._artifacts.pop(key, None)
        self._states.pop(key, None)
        files = self._files.pop(key, None)
        if files is not None and files.lease is not None:
            files.lease.close()

    def _fail(self, key: VersionKey, identity: str, reason: str, *, is_damaged: bool) -> None:
        known = self._failures.get(key)
        if known is None or known.reason != reason:
            log.warning("version cannot be fetched", model=key[0], version=key[1], reason=reason)
        retry_s = RETRY_DAMAGED_S if is_damaged else RETRY_AWAY_S
        if not is_damaged and known is not None and (known.reason, known.identity) == (reason, identity):
            retry_s = min(2 * known.retry_s, RETRY_AWAY_MOST_S)
        self._failures[key] = _Failure(reason, retry_s, self._clock() + retry_s, identity, is_damaged)


async def _read_on_thread(folder: Path) -> Artifact:
    """Reads and verifies a version on a thread that ends with the process: gigabytes of digests hold up no stop.

    `asyncio.to_thread` would: the end of the event loop waits for its threads.
    """
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Artifact] = loop.create_future()

    def settle(artifact: Artifact | None, error: Exception | None) -> None:
        if result.cancelled():
            return
        if artifact is None:
            result.set_exception(error or RuntimeError("reading gave nothing"))
        else:
            result.set_result(artifact)

    def run() -> None:
        found: tuple[Artifact | None, Exception | None]
        try:
            found = read(folder), None
        except Exception as error:  # noqa: BLE001 - raised where the result is awaited
            found = None, error
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(settle, *found)

    threading.Thread(target=run, name=f"read {folder.name}", daemon=True).start()
    return await result
