"""Keeps the worker processes alive: starts them, follows them, watches their signs of life, and replaces those that end.

What the workers serve is the supervisor's business. Here it is decided when one is started, when one hangs
(`control.watchdog`), and which version is noted for a worker's end (`control.quarantine`).
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Final

import structlog

from penstock.names import VersionKey
from penstock_server.clock import Clock
from penstock_server.control import messages
from penstock_server.control.process_end import Cause
from penstock_server.control.quarantine import Quarantine, WorkerEnd, blame, was_killed
from penstock_server.control.readiness import SILENT_S
from penstock_server.control.settings import WatchdogSettings
from penstock_server.control.spare import Spare
from penstock_server.control.watchdog import Pulse
from penstock_server.control.worker_process import WorkerProcess
from penstock_server.metrics.store import CounterStore

log = structlog.get_logger(__name__)

PAUSES_S: Final = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0)
"""The pause before a worker is replaced, by how many in its slot ended quickly in a row; the last is the longest."""
STEADY_S: Final = 60.0
"""A worker that runs longer than this did not end quickly."""
HOPELESS_ENDS: Final = 4
"""After this many quick ends in one slot, before the server was ever ready, the server gives up."""
KILL_AFTER_S: Final = 2.0
"""A worker that outlives the grace by this time is killed."""
LOOK_S: Final = 0.25
"""The pause between two looks at the workers' signs of life."""

StartWorker = Callable[[], Awaitable[WorkerProcess]]
"""Starts a worker process, which waits for its beginning. `OSError` when it cannot be started now."""


async def pause(seconds: float) -> None:
    """Waits before a worker is started again."""
    await asyncio.sleep(seconds)


class WorkerPool:
    """Owns the worker processes.

    Args:
        slots: how many workers there are to be.
        start: starts one.
        counters: where workers count and show their signs of life.
        quarantine: learns which versions end workers.
        limits: when a worker counts as hung.
        on_event: called with each event of a worker.
        changed: called when workers come, go, or fall silent.
        was_ready: whether the server has been ready; before that, workers that only end make it give up.
        fail: called with the reason when it gives up.
        look_s: the pause between two looks at the workers' signs of life.

    Attributes:
        workers: those that run, by slot.
        restarts: how often each slot's worker was replaced.
    """

    def __init__(
        self,
        slots: int,
        *,
        start: StartWorker,
        counters: CounterStore,
        quarantine: Quarantine,
        limits: WatchdogSettings,
        on_event: Callable[[WorkerProcess, messages.Event], None],
        changed: Callable[[], None],
        was_ready: Callable[[], bool],
        fail: Callable[[str], None],
        look_s: float = LOOK_S,
        clock: Clock,
    ) -> None:
        self.slots = slots
        self.workers: dict[int, WorkerProcess] = {}
        self.restarts: Counter[int] = Counter()
        self._counters = counters
        self._quarantine = quarantine
        self._limits = limits
        self._on_event = on_event
        self._changed = changed
        self._was_ready = was_ready
        self._fail = fail
        self._look_s = look_s
        self._clock = clock
        self._is_stopping = False
        self._spare = Spare(start, WorkerProcess.discard)

    def run_in(self, tasks: asyncio.TaskGroup) -> None:
        """Keeps a worker in each slot, in these tasks."""
        for slot in range(self.slots):
            tasks.create_task(self._keep_alive(slot))
        tasks.create_task(self._watch())

    async def drain(self, grace_s: float, *others: Coroutine[Any, Any, None]) -> None:
        """Lets every worker finish its calls, and kills those that take longer; starts none any more.

        Args:
            grace_s: how long they may take.
            others: what is to end in the same time.
        """
        self._is_stopping = True
        workers = list(self.workers.values())
        for worker in workers:
            if worker.may_have_calls:
                worker.send(messages.Drain(grace_s))
            else:
                worker.kill()  # it may still be importing or loading, and would hear of it seconds later
        endings = [worker.ended.wait() for worker in workers]
        tasks = {asyncio.ensure_future(one) for one in (*others, *endings)}
        _, late = await asyncio.wait(tasks, timeout=grace_s + KILL_AFTER_S)
        if late:
            log.warning("not everything ended in time; killing what is left", grace_s=grace_s)
        for task in late:
            task.cancel()
        for worker in self.workers.values():
            worker.kill()
        self._spare.discard()

    async def _keep_alive(self, slot: int) -> None:
        """Starts another worker in a slot whenever its worker ends."""
        quick_ends = 0
        while not self._is_stopping:
            started_s = self._clock()
            try:
                self._counters.still(slot)
                counters = self._counters.slot(slot)
                worker = await self._spare.take()
            except (OSError, MemoryError) as error:
                how = str(error) or "no memory"
                log.error("a worker cannot be started; trying again", slot=slot, reason=how)
                is_explained = False
            else:
                worker.begin(slot, counters)
                code = await self._follow(worker)
                if self._is_stopping:
                    return
                how = f"exit code {code}"
                self.restarts[slot] += 1
                log.error(
                    "worker ended; starting another", slot=slot, pid=worker.pid, code=code, cause=worker.kill_cause
                )
                is_explained = self._blame(worker, code) or worker.kill_cause not in {None, "never started"}
            # What a version or the watchdog did says nothing about whether workers can run.
            is_quick = not is_explained and self._clock() - started_s <= STEADY_S
            quick_ends = quick_ends + 1 if is_quick else 0
            if quick_ends >= HOPELESS_ENDS and not self._was_ready():
                self._fail(f"workers end as soon as they start ({how}); the log above says why")
            await pause(PAUSES_S[min(max(quick_ends - 1, 0), len(PAUSES_S) - 1)])

    async def _follow(self, worker: WorkerProcess) -> int:
        """Reacts to a worker's events until it ends; its exit code."""
        self.workers[worker.slot] = worker
        self._changed()
        try:
            return await worker.follow(self._on_event)
        except asyncio.CancelledError:
            worker.kill()
            raise
        finally:
            del self.workers[worker.slot]
            worker.ended.set()
            self._changed()

    def _blame(self, worker: WorkerProcess, code: int) -> bool:
        """Notes which version ended a worker; whether one did."""
        now_s = self._clock()
        runs = {key: now_s - since_ns / 1e9 for key, since_ns in self._counters.runs().get(worker.slot, {}).items()}
        end = WorkerEnd(worker.kill_cause or "ended", code, worker.loading, runs, worker.champions)
        found = blame(end)
        if found is None:
            return False
        key, how = found
        identity = worker.tried.get(key, "") if key == worker.loading else worker.identities.get(key, "")
        is_out = self._quarantine.note(key, identity, how, was_killed=was_killed(end))
        log.error(
            "version kept out: it ends workers" if is_out else "a version ended a worker",
            slot=worker.slot, model=key[0], version=key[1], how=how,
        )  # fmt: skip
        return True

    async def _watch(self) -> None:
        """Looks at the workers' signs of life at an interval."""
        last_s = self._clock()
        try:
            while True:
                await asyncio.sleep(self._look_s)
                now_s = self._clock()
                # After a pause of the supervisor's own the workers get time to show themselves.
                step_s, last_s = min(now_s - last_s, 2 * self._look_s), now_s
                try:
                    self.look(step_s)
                except Exception:
                    log.exception("the watchdog failed; looking again")
        finally:
            await self._spare.close()

    def _prepare_spare(self) -> None:
        """Keeps a spare process ready while a worker is silent: it will be needed soon, and importing takes seconds."""
        if any(worker.is_silent for worker in self.workers.values()) and not self._is_stopping:
            self._spare.prepare()
        else:
            self._spare.discard()

    def look(self, step_s: float) -> None:
        """Looks at the signs of life, this long after the last look, and kills what hangs."""
        runs = self._counters.runs()
        for worker in list(self.workers.values()):
            worker.vigil = worker.vigil.seen(self._pulse(worker, runs.get(worker.slot, {})), step_s)
            cause = worker.vigil.cause(self._limits)
            if cause is not None and worker.kill_cause is None:
                self._kill(worker, cause)
            # One that was never heard of is starting.
            is_silent = worker.vigil.silent_s > SILENT_S and worker.vigil.pulse.beat_ns != 0
            if worker.is_silent != is_silent:
                worker.is_silent = is_silent
                self._changed()
        self._prepare_spare()

    def _pulse(self, worker: WorkerProcess, runs: Mapping[VersionKey, int]) -> Pulse:
        return Pulse(
            beat_ns=self._counters.beat_ns(worker.slot),
            runs=runs,
            loading=worker.loading,
            is_listening=worker.is_listening,
            is_stopped=worker.vigil.silent_s > SILENT_S and _is_stopped(worker.pid),
        )

    def _kill(self, worker: WorkerProcess, cause: Cause) -> None:
        worker.kill_cause = cause
        log.error(
            "worker hangs; killing it", slot=worker.slot, pid=worker.pid, cause=cause,
            silent_s=round(worker.vigil.silent_s, 1), loading=worker.loading,
        )  # fmt: skip
        worker.kill()


def _is_stopped(pid: int) -> bool:
    """Whether the process is stopped, as by SIGSTOP or a debugger."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in {"T", "t"}
    except (OSError, IndexError):
        return False
