"""A source as the supervisor sees it: polled and fetched from in processes of its own, which are killed when they hang.

`source_process` is the other end. Nothing here blocks, and nothing waits longer than its deadline.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog

from penstock_server import errors, frames, leases
from penstock_server.clock import Clock, monotonic
from penstock_server.control.spare import Spare
from penstock_server.errors import PenstockError, UnavailableError
from penstock_server.priority import to_background
from penstock_server.rollout.registered import Change, Expected
from penstock_server.sources import messages
from penstock_server.sources.source import Desired, VersionFiles

log = structlog.get_logger(__name__)

POLL_TIMEOUT_S: Final = 30.0
"""A poll that takes longer is one of a process that hangs. A registry that does not answer is noticed in 10 s by the process
itself; mlflow, where it is needed, takes seconds to import."""
PAUSES_S: Final = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)
"""The pause before a process is started again, by how many ended or hung in a row; the last is the longest."""
SWEEP_TIMEOUT_S: Final = 60.0
KILLED_S: Final = 2.0
"""Nobody waits longer than this for a process that was killed."""


class SourceProcess:
    """One process and the socket to it."""

    def __init__(
        self, process: asyncio.subprocess.Process, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def is_alive(self) -> bool:
        return self._process.returncode is None

    def send(self, request: messages.Request) -> None:
        self._writer.write(frames.framed(messages.encode(request)))

    def finish(self, request: messages.Request) -> None:
        """Sends the last request, after which the process ends by itself."""
        self.send(request)
        self._writer.write_eof()

    async def ask(self, request: messages.Request) -> messages.Answer:
        """The answer to a request; `EOFError` when the process is gone. Waits as long as it takes."""
        self.send(request)
        return messages.answer(await frames.receive_async(self._reader))

    async def wait(self) -> int:
        return await self._process.wait()

    async def kill(self) -> int:
        """Ends it at once, and returns its exit code."""
        self._writer.close()
        if self.is_alive:
            # Not by the process's own method, which may take the exit code away from whoever waits for it.
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)
        with suppress(TimeoutError):
            async with asyncio.timeout(KILLED_S):
                return await self._process.wait()
        return -signal.SIGKILL  # it will end when the kernel lets it, as on a network folder that is away


StartProcess = Callable[[messages.Open], Awaitable[SourceProcess]]


async def start_process(opening: messages.Open) -> SourceProcess:
    """Starts a source's process, for the source that `opening` names."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "penstock_server.source_process",
            str(theirs.fileno()),
            str(os.getpid()),
            env={"MALLOC_ARENA_MAX": "1", **os.environ},
            pass_fds=(theirs.fileno(),),
            # Ctrl-C in a terminal reaches the whole group; the supervisor alone decides how its processes end.
            start_new_session=True,
        )
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    started = SourceProcess(process, reader, writer)
    started.send(opening)
    return started


class SourceClient:
    """A source in processes of its own: one for polls, which stays, and one for each fetch, the next of which waits for it.

    Args:
        name: its name in logs and in /v1/models; holds no secrets.
        opening: which source it is.
        fetch_timeout_s: the longest that a fetch may take.
        poll_timeout_s: the longest that a poll may take.
        has_spare: whether a process waits for the next fetch.
        start: starts a process.
        clock: the time of restarts.
    """

    def __init__(
        self,
        name: str,
        opening: messages.Open,
        *,
        fetch_timeout_s: float,
        poll_timeout_s: float = POLL_TIMEOUT_S,
        has_spare: bool = True,
        start: StartProcess = start_process,
        clock: Clock = monotonic,
    ) -> None:
        self.name = name
        self._opening = opening
        self._fetch_timeout_s = fetch_timeout_s
        self._poll_timeout_s = poll_timeout_s
        self._start = start
        self._clock = clock
        self._polling: SourceProcess | None = None
        self._turn = asyncio.Lock()
        self._failures = 0
        self._start_at_s = 0.0
        self._running: set[SourceProcess] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self._has_spare = has_spare
        self._spare = Spare(
            self._started_to_fetch,
            lambda process: self._in_background(self._end(process)),
            lambda process: process.is_alive,
        )

    async def poll(self) -> Desired:
        """What the source desires; see `Source.poll`."""
        answer = await self._ask_polling(messages.Poll(), self._poll_timeout_s)
        if isinstance(answer, messages.Polled):
            return answer.desired
        raise self._unexpected(answer)

    async def fetch(self, model: str, version: str, identity: str) -> VersionFiles:
        """The version's files; see `Source.fetch`. A folder's are used where they are, which the polling process says."""
        request = messages.Fetch(model, version, identity)
        if isinstance(self._opening.source, messages.Directory):
            return self._files(await self._ask_polling(request, self._poll_timeout_s))
        what = f"fetching version {version} of model {model!r} from {self.name}"
        async with self._process() as process:
            found = self._files(
                await self._in_time(process, request, self._fetch_timeout_s, what, " (fetch.timeout_s)")
            )
            # Taken before the process gives up its own, so that no other server's sweep comes between.
            return replace(found, lease=leases.take(found.folder))

    async def write(self, model: str, expected: Expected, changes: Sequence[Change]) -> None:
        """Makes changes in the registry; see `Source.write`."""
        answer = await self._ask_polling(messages.Write(model, expected, tuple(changes)), self._poll_timeout_s)
        if not isinstance(answer, messages.Written):
            raise self._unexpected(answer)

    async def close(self) -> None:
        """Kills every process, whatever it does."""
        self._is_closed = True
        for task in self._tasks:
            task.cancel()
        await self._spare.close()
        await asyncio.gather(*self._tasks, *(process.kill() for process in self._running), return_exceptions=True)

    @asynccontextmanager
    async def _process(self) -> AsyncIterator[SourceProcess]:
        """A process for one fetch. It sweeps the cache afterwards if all went well, and is killed if not."""
        process = await self._spare.take()
        try:
            yield process
        except BaseException:
            await self._end(process)
            raise
        finally:
            if self._has_spare and not self._is_closed:
                self._spare.prepare()
        self._in_background(self._sweep(process))

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _sweep(self, process: SourceProcess) -> None:
        try:
            process.finish(messages.Sweep())
            async with asyncio.timeout(SWEEP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            log.warning("sweeping the cache takes too long; ending it", source=self.name)
        except (OSError, RuntimeError):
            pass  # it has ended already
        finally:
            await self._end(process)

    async def _ask_polling(self, request: messages.Request, timeout_s: float) -> messages.Answer:
        async with self._turn:
            if self._polling is None:
                wait_s = self._start_at_s - self._clock()
                if wait_s > 0:
                    raise UnavailableError(f"the process of {self.name} ended; it is started again in {wait_s:.0f} s")
                self._polling = await self._started()
            process = self._polling
            try:
                answer = await self._in_time(process, request, timeout_s, self.name, "")
            except BaseException:
                self._polling = None
                self._failures += 1
                self._start_at_s = self._clock() + PAUSES_S[min(self._failures, len(PAUSES_S)) - 1]
                await self._end(process)
                raise
            self._failures = 0
            return answer

    async def _in_time(
        self, process: SourceProcess, request: messages.Request, timeout_s: float, what: str, setting: str
    ) -> messages.Answer:
        try:
            async with asyncio.timeout(timeout_s):
                return await process.ask(request)
        except TimeoutError:
            raise UnavailableError(f"{what} took longer than {timeout_s:g} s{setting}; its process was ended") from None
        except EOFError:
            code = await process.kill()
            raise UnavailableError(f"{what}: its process ended ({_ending(code)})") from None

    async def _started(self) -> SourceProcess:
        if self._is_closed:
            raise UnavailableError("the server is stopping")
        try:
            process = await self._start(self._opening)
        except OSError as error:
            raise UnavailableError(f"the process of {self.name} cannot be started: {error.strerror}") from error
        self._running.add(process)
        if self._is_closed:  # while it was being started
            await self._end(process)
            raise UnavailableError("the server is stopping")
        return process

    async def _started_to_fetch(self) -> SourceProcess:
        process = await self._started()
        to_background(process.pid)
        return process

    async def _end(self, process: SourceProcess) -> None:
        await process.kill()
        self._running.discard(process)

    def _files(self, answer: messages.Answer) -> VersionFiles:
        if isinstance(answer, messages.Fetched):
            return VersionFiles(Path(answer.folder), answer.identity)
        raise self._unexpected(answer)

    def _unexpected(self, answer: messages.Answer) -> PenstockError:
        """The error that an answer tells of."""
        if not isinstance(answer, messages.Failed):
            return UnavailableError(f"{self.name} gave an answer to something else")
        kind = getattr(errors, answer.kind, UnavailableError)
        found: PenstockError = kind(answer.reason)
        return found


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"
