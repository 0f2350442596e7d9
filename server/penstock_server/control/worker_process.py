"""One worker as the supervisor sees it: its process, its socket, and the state that its events report."""

import asyncio
import os
import socket
import sys
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

import structlog

from penstock.names import VersionKey
from penstock_server import frames
from penstock_server.capacity.estimate import BatchRuns
from penstock_server.control import messages
from penstock_server.control.messages import Command, Event, event, framed
from penstock_server.control.process_end import Cause
from penstock_server.control.reconcile import WorkerSnapshot
from penstock_server.control.watchdog import Vigil
from penstock_server.log_setup import log_level
from penstock_server.rollout.plan import ModelRoutes, TrafficPlan, VersionStatus

log = structlog.get_logger(__name__)

ENVIRONMENT: Final = {
    # Read by grpcio at process start; measured at 0.7 of its default's CPU per request, from 1 to 64 connections.
    "GRPC_POLL_STRATEGY": "poll",
    "GRPC_EXPERIMENTS": "-event_engine_listener,-event_engine_client",
    "GRPC_VERBOSITY": "NONE",
    # One thread per library: more processes, not more threads, use more cores.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # One malloc arena: with more, each break of connections with 10,000 calls in flight left 13 to 20 MB behind; with one,
    # only the first does. A request costs the same.
    "MALLOC_ARENA_MAX": "1",
}
"""A worker's environment variables, unless the server's own environment sets them."""


class WorkerProcess:
    """A worker's process, and what the supervisor knows of it.

    Attributes:
        slot: its place among the workers, kept when its process is replaced; -1 before its beginning.
        versions: the status of each version that it got a command to load.
        identities: the identity of the files of each version that it has loaded.
        tried: the identity of the files that it last got a command to load, for each of `versions`.
        loading: the version that it loads now.
        engines: what runs each version, and why.
        runs: how each version runs its batches.
        notes: for each version that answers although something is wrong with it, what: its new files cannot be loaded.
        plans: the plans in force.
        is_serve_pending: whether plans were sent that it has not confirmed.
        has_settled: whether every version that was desired at its start has been tried.
        is_listening: whether it accepts calls.
        transport: over which transport, for people; "" before.
        vigil: what the watchdog has seen of it.
        is_silent: whether its loop has not come round for long.
        kill_cause: why the watchdog killed it, if it did.
        touched: the models of which something has changed here since the last routes were sent.
        routes: the routes of each model, as they were sent last.
        ended: set when the process is gone.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.slot = -1
        self.versions: dict[VersionKey, VersionStatus] = {}
        self.identities: dict[VersionKey, str] = {}
        self.tried: dict[VersionKey, str] = {}
        self.loading: VersionKey | None = None
        self.notes: dict[VersionKey, str] = {}
        self.unbound: dict[VersionKey, str] = {}
        self.engines: dict[VersionKey, str] = {}
        self.runs: dict[VersionKey, BatchRuns] = {}
        self.plans: dict[str, TrafficPlan] = {}
        self.is_serve_pending = False
        self.has_settled = False
        self.is_listening = False
        self.transport = ""
        self.vigil = Vigil()
        self.is_silent = False
        self.kill_cause: Cause | None = None
        self.touched: set[str] = set()
        self.routes: dict[str, ModelRoutes] = {}
        self.ended = asyncio.Event()
        self._process = process
        self._reader = reader
        self._writer = writer
        self._generation = 0
        self._sent: dict[str, ModelRoutes] = {}
        self._is_sent_settled = False
        self._is_listen_sent = False
        self._is_killed = False

    def begin(self, slot: int, counters: Path) -> None:
        """Gives it a slot, and the file of the counters that are the worker's own, not a version's."""
        self.slot = slot
        # The level may have changed since a spare one was started.
        self.send(messages.Start(str(counters), slot, log_level()))
        log.info("worker begins", slot=slot, pid=self.pid)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def may_have_calls(self) -> bool:
        """Whether it was told to listen."""
        return self._is_listen_sent

    @property
    def is_ending(self) -> bool:
        """Whether it was killed, or its end was seen: what it is told now it does not do."""
        return self._is_killed or self._writer.is_closing()

    def snapshot(self) -> WorkerSnapshot:
        """What it holds, for decisions."""
        states = {key: status.state for key, status in self.versions.items()}
        return WorkerSnapshot(states, dict(self.plans), dict(self.tried), self.loading)

    @property
    def champions(self) -> frozenset[VersionKey]:
        """The versions that answer as champions in it."""
        return frozenset((model, plan.champion) for model, plan in self.plans.items() if plan.champion is not None)

    def load(self, command: messages.Load, identity: str) -> None:
        """Sends a `Load`; a version that answers goes on until its new files are loaded."""
        key = command.model, command.version
        self.touched.add(key[0])
        self.tried[key] = identity
        self.loading = key
        if key not in self.identities:
            self.versions[key] = VersionStatus("LOADING")
        self.send(command)

    def on_loaded(self, key: VersionKey, engine: str = "", runs: BatchRuns | None = None) -> str:
        """Records that it has loaded what it was told to, and what runs it and how; returns the identity of these files."""
        self.loading = None
        self.touched.add(key[0])
        identity = self.identities[key] = self.tried.get(key, "")
        self.versions[key] = VersionStatus("READY")
        self.engines[key] = engine
        if runs is not None:
            self.runs[key] = runs
        self.notes.pop(key, None)
        return identity

    def on_load_failed(self, key: VersionKey, reason: str) -> None:
        """Records that it cannot load a version; other files of the version that it has answer on."""
        self.loading = None
        self.touched.add(key[0])
        if key in self.identities:
            self.notes[key] = f"its new files cannot be loaded, and the former ones answer: {reason}"
        else:
            self.versions[key] = VersionStatus("UNAVAILABLE", reason)

    def forget_failures(self, fetched: Collection[VersionKey]) -> None:
        """Forgets that it could not load versions whose files are not there any more: those that come are others."""
        for key in [
            key for key, status in self.versions.items() if status.state == "UNAVAILABLE" and key not in fetched
        ]:
            self.on_unloaded(key)

    def on_unloading(self, key: VersionKey) -> None:
        """Records that it is to unload a version, once the routes without it are in force."""
        self.touched.add(key[0])
        self.versions[key] = VersionStatus("UNLOADING")

    def on_unloaded(self, key: VersionKey) -> None:
        """Records that it holds a version no more."""
        self.touched.add(key[0])
        for held in (self.versions, self.identities, self.tried, self.notes, self.engines, self.runs, self.unbound):
            held.pop(key, None)

    def on_bound(self, key: VersionKey, reason: str) -> None:
        """Records why an ensemble that it has loaded cannot answer; "" if it can."""
        self.touched.add(key[0])
        self.unbound.pop(key, None)
        if reason:
            self.unbound[key] = reason

    def send(self, command: Command) -> None:
        """Sends a command; it is lost when the worker is gone, whose end is noticed anyway."""
        if not self._writer.is_closing():
            self._writer.write(framed(command))

    def serve(self, models: dict[str, ModelRoutes], is_settled: bool) -> None:
        """Sends what is different from the plans and statuses that were sent last, if something is."""
        sent, self._sent = self._sent, models
        changed = {model: one for model, one in models.items() if (held := sent.get(model)) is not one and held != one}
        removed = tuple(sent.keys() - models.keys())
        if changed or removed or is_settled != self._is_sent_settled:
            self._is_sent_settled = is_settled
            self._generation += 1
            self.is_serve_pending = True
            self.send(messages.Serve(self._generation, changed, is_settled, removed))

    def on_served(self, generation: int) -> None:
        """Records that the worker confirmed plans; they are in force if they are the last that were sent."""
        if generation == self._generation:
            former = self.plans
            self.plans = {model: one.plan for model, one in self._sent.items() if one.plan is not None}
            self.touched |= {model for model, plan in self.plans.items() if former.get(model) is not plan}
            self.touched |= former.keys() - self.plans.keys()
            self.is_serve_pending = False

    def listen(self, address: str) -> None:
        """Sends `Listen` once: a second socket at the address would get calls that nothing answers."""
        if not self._is_listen_sent:
            self._is_listen_sent = True
            self.send(messages.Listen(address))

    async def follow(self, on_event: Callable[["WorkerProcess", Event], None]) -> int:
        """Hands each event on until the process ends, and returns its exit code."""
        try:
            while True:
                on_event(self, event(await frames.receive_async(self._reader)))
        except EOFError:
            pass
        except Exception:
            # What cannot be read or handled tells nothing any more of what it holds.
            log.exception("a worker's event cannot be handled; replacing the worker", slot=self.slot)
            self.kill()
        finally:
            self._writer.close()
        return await self._process.wait()

    def discard(self) -> None:
        """Ends a process that has not begun and is not needed."""
        self.kill()
        self._writer.close()

    def kill(self) -> None:
        self._is_killed = True
        _kill(self._process)


def _kill(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            process.kill()


async def start_worker(settings: str, port: Sequence[int] = (), rest: Sequence[int] = ()) -> WorkerProcess:
    """Starts a worker process, which then waits for its beginning.

    Args:
        settings: the worker's settings as JSON.
        port: the descriptors of the port that it shares; none if it binds sockets of its own.
        rest: those of the REST port; none if there is no such port.

    Raises:
        OSError: there are no descriptors or no memory for it now.
    """
    ours, theirs = socket.socketpair()
    with theirs, ExitStack() as cleanup:
        cleanup.enter_context(ours)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "penstock_server.worker",
            str(theirs.fileno()),
            settings,
            str(os.getpid()),
            ",".join(map(str, port)),
            ",".join(map(str, rest)),
            env={**ENVIRONMENT, **os.environ},
            pass_fds=(theirs.fileno(), *port, *rest),
            # Ctrl-C in a terminal reaches the whole group; the supervisor alone decides how workers end.
            start_new_session=True,
        )
        cleanup.callback(_kill, process)
        reader, writer = await asyncio.open_unix_connection(sock=ours, limit=frames.MAX_FRAME_BYTES)
        cleanup.pop_all()  # the transport owns the socket now, and the worker its process
    return WorkerProcess(process, reader, writer)
