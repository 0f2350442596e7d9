"""The server under the demo: a process of its own, ready when it says so, asked to stop as an operator would.

Decides how it is started, heard and ended; its log goes to a file, for when something fails. What it serves and what is
sent to it is the business of others.
"""

import asyncio
import os
import re
import signal
import sys
import urllib.request
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from penstock_server.errors import UnavailableError
from penstock_tools.demo.plan import Plan

READY_TIMEOUT_S: Final = 120.0
"""A machine that has never run the server reads its libraries from disk first."""

STOP_TIMEOUT_S: Final = 40.0
"""Above the server's own grace."""

_READY: Final = re.compile(r"penstock is ready: grpc (\S+)\s+http (\S+)")
_SCRAPE_TIMEOUT_S: Final = 5.0
_LINE_CHARACTERS: Final = 1000
"""A line holds a whole traceback."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where the server listens, each `host:port`."""

    grpc: str
    http: str


class ServerProcess:
    """A server that is ready.

    Attributes:
        addresses: where it listens.
    """

    def __init__(self, process: asyncio.subprocess.Process, addresses: Addresses) -> None:
        self._process = process
        self.addresses = addresses

    async def stop(self) -> int:
        """Sends SIGTERM and waits until it has drained; a second call only tells the exit code.

        Returns:
            The exit code; negative for the signal that killed it.
        """
        return await _ended(self._process)

    async def metrics(self) -> str:
        """The text of /metrics.

        Raises:
            UnavailableError: it does not answer.
        """
        return await asyncio.to_thread(fetch, f"http://{self.addresses.http}/metrics")


def command(plan: Plan, *, registry: str, config: Path) -> list[str]:
    """The command line of the server."""
    return [
        *(sys.executable, "-m", "penstock_tools.cli.main", "serve"),
        *("--registry", registry, "--config", str(config)),
        *("--port", str(plan.port), "--http-port", "0", "--workers", str(plan.workers)),
    ]


@asynccontextmanager
async def running(
    line: list[str], *, environment: Mapping[str, str], log: Path, timeout_s: float = READY_TIMEOUT_S
) -> AsyncIterator[ServerProcess]:
    """A server that is ready; ended on leaving, however that comes.

    Args:
        line: its command line.
        environment: variables beside those of this process.
        log: where its standard error goes.
        timeout_s: how long it may take to be ready.

    Raises:
        UnavailableError: it ended or was not ready in time.
    """
    with log.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *line,
            env={**os.environ, **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            # Ctrl-C at the terminal is for the demo, which then stops the server in order.
            start_new_session=True,
        )
    try:
        addresses = await _ready(process, timeout_s)
        # What it still prints is read too: a full pipe would stop it.
        reading = asyncio.create_task(_read_out(process))
        try:
            yield ServerProcess(process, addresses)
        finally:
            await _ended(process)
            await reading
    finally:
        await _ended(process)


def tail(log: Path, lines: int = 10) -> str:
    """The last lines of a log, long ones cut; empty if there is none."""
    try:
        with log.open(errors="replace") as file:
            last = deque(file, maxlen=lines)
    except OSError:
        return ""
    return "".join(line if len(line) <= _LINE_CHARACTERS else f"{line[:_LINE_CHARACTERS]} ...\n" for line in last)


def fetch(url: str) -> str:
    """What a page of the server holds.

    Raises:
        UnavailableError: it does not answer.
    """
    try:
        with urllib.request.urlopen(url, timeout=_SCRAPE_TIMEOUT_S) as reply:  # noqa: S310 - a http address of our own
            body: bytes = reply.read()
    except OSError as error:
        raise UnavailableError(f"{url} does not answer: {error}") from error
    return body.decode()


async def _ready(process: asyncio.subprocess.Process, timeout_s: float) -> Addresses:
    assert process.stdout is not None
    try:
        async with asyncio.timeout(timeout_s):
            async for line in process.stdout:
                if found := _READY.search(line.decode(errors="replace")):
                    return Addresses(*found.groups())
            code = await process.wait()
    except TimeoutError:
        raise UnavailableError(f"the server was not ready within {timeout_s:g} seconds") from None
    raise UnavailableError(f"the server ended with exit code {code} before it was ready")


async def _read_out(process: asyncio.subprocess.Process) -> None:
    assert process.stdout is not None
    async for _ in process.stdout:
        pass


async def _ended(process: asyncio.subprocess.Process) -> int:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            _kill(process)
    return await process.wait()


def _kill(process: asyncio.subprocess.Process) -> None:
    """Ends it and its workers, which are in its session."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
