"""One worker as the supervisor holds it: the process, its socket, and what it is known to hold."""

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import structlog

from penstock.names import VersionKey
from penstock_server.control.messages import HEAD, MAX_FRAME_BYTES, Command, Event, WorkerSettings, event, framed
from penstock_server.control.reconcile import LoadState, WorkerSnapshot
from penstock_server.rollout.plan import TrafficPlan

log = structlog.get_logger(__name__)

POLLER: Final = {
    # Read by grpcio at process start; measured at 0.7 of the CPU a request of its default, from 1 to 64 connections.
    "GRPC_POLL_STRATEGY": "poll",
    "GRPC_EXPERIMENTS": "-event_engine_listener,-event_engine_client",
    "GRPC_VERBOSITY": "NONE",
    # One thread a library: cores are used by processes.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # One arena of memory: connections that broke with 10,000 calls in flight left 13 to 20 MB more each time, now nothing
    # after the first, and a request costs the same.
    "MALLOC_ARENA_MAX": "1",
}


class WorkerProcess:
    """A worker's process and the supervisor's view of it.

    Attributes:
        slot: its place among the workers, kept when its process is replaced.
        versions, reasons, plans: what it holds, as far as its facts tell.
        has_settled: everything that was wanted at its start has been tried.
        is_listening: whether it accepts calls.
        ended: the process is gone.
    """

    def __init__(
        self,
        slot: int,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.slot = slot
        self.versions: dict[VersionKey, LoadState] = {}
        self.reasons: dict[VersionKey, str] = {}
        self.plans: dict[str, TrafficPlan] = {}
        self.has_settled = False
        self.is_listening = False
        self.transport = ""
        self.ended = asyncio.Event()
        self._process = process
        self._reader = reader
        self._writer = writer

    @property
    def pid(self) -> int:
        """The process's id."""
        return self._process.pid

    def snapshot(self) -> WorkerSnapshot:
        """What it holds, for decisions."""
        return WorkerSnapshot(dict(self.versions), dict(self.plans))

    def tell(self, command: Command) -> None:
        """Sends a command; lost when the worker is gone, as its end is noticed anyway."""
        if not self._writer.is_closing():
            self._writer.write(framed(command))

    async def listen(self, on_event: Callable[["WorkerProcess", Event], None]) -> int:
        """Hands on each event until the process ends; its exit code."""
        try:
            while True:
                (size,) = HEAD.unpack(await self._reader.readexactly(HEAD.size))
                on_event(self, event(await self._reader.readexactly(size)))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writer.close()
        return await self._process.wait()

    def kill(self) -> None:
        """Ends the process at once."""
        if self._process.returncode is None:
            self._process.kill()


async def start_worker(slot: int, settings: WorkerSettings, board: Path) -> WorkerProcess:
    """Starts a worker process in a slot."""
    ours, theirs = socket.socketpair()
    with theirs:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "penstock_server.worker",
            str(theirs.fileno()),
            msgspec.json.encode(settings).decode(),
            str(board),
            env={**POLLER, **os.environ},
            pass_fds=(theirs.fileno(),),
            # Ctrl-C in a terminal reaches the whole group; the supervisor alone decides how workers end.
            start_new_session=True,
        )
    log.info("worker started", slot=slot, pid=process.pid)
    reader, writer = await asyncio.open_unix_connection(sock=ours, limit=MAX_FRAME_BYTES)
    return WorkerProcess(slot, process, reader, writer)
