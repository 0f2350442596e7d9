"""What all parts of a simulation share: the loop, the seed's random numbers, the trace, and what went wrong."""

import asyncio
import hashlib
import os
import shutil
import tempfile
from collections import Counter, deque
from collections.abc import Callable
from contextvars import copy_context
from itertools import count
from pathlib import Path
from random import Random
from typing import Any

from penstock_server import leases
from tests.simulation.loop import PROCESS, Loop, Process

FIRST_PID = 10_000_000
_MEMORY = Path("/dev/shm")


class World:
    """One seed's.

    Attributes:
        random: for what happens; `delays` for how long it takes, so that a change of one does not change the other.
        violations: what must not be and was.
        faults: how often each fault was played.
        kept: the last lines of the trace, or all.
        wall_ahead_s: by how much the wall clock is ahead of the true time.
        slept_s: how long the machine slept.
        skipped_s: how much time was skipped, since nothing happened.
    """

    def __init__(self, seed: str, *, keep_lines: int | None = 200, echo: Callable[[str], None] | None = None) -> None:
        self.seed = seed
        self.random = Random(f"{seed} what")
        self.delays = Random(f"{seed} when")
        self.loop = Loop(Random(f"{seed} order"), failures=self.violate, thread_s=lambda: self.delay_s(0.001, 0.02))
        self.network = copy_context()  # of no process
        self.violations: list[str] = []
        self.faults: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.events = 0
        self.wall_ahead_s = 0.0
        self.slept_s = 0.0
        self.skipped_s = 0.0
        self.kept: deque[str] = deque(maxlen=keep_lines)
        self.processes: dict[int, Process] = {}
        self.folder = Path(tempfile.mkdtemp(prefix="penstock-simulation-", dir=_MEMORY if _MEMORY.is_dir() else None))
        self._echo = echo
        self._digest = hashlib.blake2b(digest_size=16)
        self._pids = count(FIRST_PID)
        self._remains: list[object] = []

    @property
    def digest(self) -> str:
        """Of all that has happened: equal for equal seeds."""
        return self._digest.hexdigest()

    def say(self, what: str) -> None:
        """Adds an event to the trace."""
        self.events += 1
        line = f"{self.loop.now_s:12.3f} {what}".replace(str(self.folder), "")
        self._digest.update(line.encode())
        self.kept.append(line)
        if self._echo is not None:
            self._echo(line)

    def violate(self, what: str) -> None:
        self.violations.append(f"at {self.loop.now_s:.3f}: {what}".replace(str(self.folder), ""))
        self.say(f"VIOLATION {what}")

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def delay_s(self, least_s: float, most_s: float) -> float:
        """Mostly short, seldom long."""
        return least_s + (most_s - least_s) * self.delays.random() ** 3

    def process(self, name: str) -> Process:
        """Starts a process, whose parent is the one that runs now."""
        parent = PROCESS.get()
        found = Process(next(self._pids), name, parent)
        self.processes[found.pid] = found
        if parent is not None:
            parent.children[found.pid] = found
        return found

    def end(self, process: Process, code: int) -> None:
        """Ends a process: nothing of it runs any more, what it held is free, and its children learn of it."""
        if process.is_dead:
            return
        self.say(f"{process} ends with {code}")
        # Kept, since Python would run their `finally` clauses where it frees them.
        self._remains += [task for task in _tasks_of(self.loop, process) if not task.done()]
        process.code = code
        self.loop.go_on(process)  # so that what it held is kept with the rest of what is dead
        del self.processes[process.pid]
        if process.parent is not None:
            process.parent.children.pop(process.pid, None)
        for lease in [*process.leases.values()]:
            lease.close()
        for action in process.on_end:
            action()
        for child in [*process.children.values()]:
            if child.on_orphaned is None:
                self.end(child, -9)
            else:
                child.on_orphaned()

    def tasks(self, process: Process) -> list[Any]:
        """The tasks of a process that are not done."""
        return [task for task in _tasks_of(self.loop, process) if not task.done()]

    def close(self) -> None:
        self._remains.clear()
        shutil.rmtree(self.folder, ignore_errors=True)


def _tasks_of(loop: Loop, process: Process) -> list[Any]:
    return sorted((task for task in asyncio.all_tasks(loop) if task.process is process), key=lambda task: task.number)  # type: ignore[attr-defined]


class Wire:
    """One direction of a socket: what is sent arrives later, in its order, also when the sender is gone.

    Attributes:
        sent_s: when what is delivered now was sent.
    """

    def __init__(self, world: World, deliver: Callable[[Any], None]) -> None:
        self._world = world
        self._deliver = deliver
        self._waiting: deque[tuple[Any, float]] = deque()
        self.is_ended = False
        self.sent_s = 0.0

    def send(self, item: Any) -> None:
        if not self.is_ended:
            self._put(item)

    def end(self) -> None:
        """The last that the other end gets is None."""
        if not self.is_ended:
            self._put(None)
            self.is_ended = True

    def _put(self, item: Any) -> None:
        world = self._world
        self._waiting.append((item, world.loop.now_s))
        world.loop.later(world.network, world.delay_s(0.0001, 0.01), self._pop)

    def _pop(self) -> None:
        item, self.sent_s = self._waiting.popleft()
        self._deliver(item)


class HeldLease(leases.Lease):
    """A lease that its process is known to hold."""

    def __init__(self, path: Path, descriptor: int) -> None:
        super().__init__(path, descriptor)
        self._process = PROCESS.get()
        if self._process is not None:
            self._process.leases[id(self)] = self

    def close(self) -> None:
        if self._descriptor >= 0 and self._process is not None:
            self._process.leases.pop(id(self), None)
        super().close()


def damage(folder: Path, random: Random) -> str | None:
    """Cuts a file of some copy in the cache short; its name."""
    files = sorted(folder.glob("models/*/*/*/[!.]*/model.onnx"))
    if not files:
        return None
    chosen = random.choice(files)
    os.truncate(chosen, 0)
    return str(chosen)
