"""An event loop without a clock, threads or files: its time jumps to the next timer, and a seed orders what is ready.

Code of a process runs in a context that names the process. When a process is dead, nothing of it runs any more, not even
its `finally` clauses: that is what SIGKILL does.
"""

import asyncio
import heapq
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from itertools import count
from random import Random
from typing import Any


class Process:
    """A process of the simulation.

    Attributes:
        pid: above what the kernel gives, so that nothing real has it.
        children: those that it started and that live.
        leases: the leases that it holds.
        code: its exit code; None while it lives.
        is_stopped: it stands still, as by SIGSTOP or on a machine that gives it no time.
        held: what it is to run once it goes on.
        on_end: called when it ends.
        on_orphaned: called when its parent ends; None has the kernel kill it then.
    """

    def __init__(self, pid: int, name: str, parent: "Process | None") -> None:
        self.pid = pid
        self.name = name
        self.parent = parent
        self.children: dict[int, Process] = {}
        self.leases: dict[int, Any] = {}
        self.code: int | None = None
        self.is_stopped = False
        self.held: list[asyncio.Handle] = []
        self.on_end: list[Callable[[], None]] = []
        self.on_orphaned: Callable[[], None] | None = None
        self.context = copy_context()
        self.context.run(PROCESS.set, self)

    @property
    def is_dead(self) -> bool:
        return self.code is not None

    def __repr__(self) -> str:
        return f"{self.name}#{self.pid}"


PROCESS: ContextVar[Process | None] = ContextVar("process", default=None)
"""Whose code runs; None for what belongs to the world, such as the network and the callers."""


class Task(asyncio.Task):  # type: ignore[type-arg]
    """A task whose place in a set depends on its number, not on its address."""

    numbers = count()

    def __init__(self, *args: Any, **options: Any) -> None:
        self.number = next(Task.numbers)  # first, since asyncio hashes it as it begins
        super().__init__(*args, **options)
        self.process = (options.get("context") or copy_context()).get(PROCESS)
        self._log_destroy_pending = False

    def __hash__(self) -> int:
        return self.number


class Future(asyncio.Future):  # type: ignore[type-arg]
    """The same of futures."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.number = next(Task.numbers)
        super().__init__(*args, **options)

    def __hash__(self) -> int:
        return self.number


class Loop(asyncio.BaseEventLoop):
    """The loop.

    Attributes:
        steps: how many callbacks have run.
        failures: called with what asyncio would log, such as an exception that nobody awaited.
        thread_s: how long what is handed to a thread takes.
    """

    def __init__(self, random: Random, *, failures: Callable[[str], None], thread_s: Callable[[], float]) -> None:
        super().__init__()
        Task.numbers = count()
        self.now_s = 1000.0
        self.steps = 0
        self._random = random
        self._thread_s = thread_s
        self._failures = failures
        self._dead: list[asyncio.Handle] = []
        self.set_task_factory(lambda loop, coro, **options: Task(coro, loop=loop, **options))
        self.set_exception_handler(self._on_failure)

    def time(self) -> float:
        return self.now_s

    def create_future(self) -> Future:
        return Future(loop=self)

    def run_in_executor(self, _executor: object, function: Callable[..., Any], *args: Any) -> Future:  # type: ignore[override]
        """Runs what a thread would run, some time later and at once."""
        found = self.create_future()

        def run() -> None:
            try:
                result = function(*args)
            except Exception as error:  # noqa: BLE001 - raised where the result is awaited
                if not found.cancelled():
                    found.set_exception(error)
            else:
                if not found.cancelled():
                    found.set_result(result)

        self.call_later(self._thread_s(), run)
        return found

    def start(self, process: Process, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Starts a task of a process."""
        return self.create_task(work, context=process.context)

    def later(self, context: Context, delay_s: float, action: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        """Calls an action of a process, unless it is dead then."""
        return self.call_later(delay_s, action, *args, context=context)

    def go_on(self, process: Process) -> None:
        """Has a process that stood still go on, with all that it was to do meanwhile."""
        process.is_stopped = False
        self._ready.extend(process.held)
        process.held.clear()

    def skip(self, seconds: float) -> None:
        """Lets time pass in which nothing happens: every timer comes later by as much."""
        self.now_s += seconds
        for handle in self._scheduled:
            handle._when += seconds

    def _run_once(self) -> None:
        scheduled, ready = self._scheduled, self._ready
        if not ready:
            while scheduled and scheduled[0]._cancelled:
                heapq.heappop(scheduled)._scheduled = False
            if not scheduled:
                raise RuntimeError("everything waits for something that never comes")
            self.now_s = max(self.now_s, scheduled[0]._when)
        while scheduled and scheduled[0]._when <= self.now_s:
            handle = heapq.heappop(scheduled)
            handle._scheduled = False
            ready.append(handle)
        batch = list(ready)
        ready.clear()
        if len(batch) > 1:
            self._random.shuffle(batch)
        for handle in batch:
            if handle._cancelled:
                continue
            process = handle._context.get(PROCESS)
            if process is not None and (process.is_dead or process.is_stopped):
                # Whatever a dead one refers to must not be closed while others run.
                (self._dead if process.is_dead else process.held).append(handle)
                continue
            self.steps += 1
            handle._run()
            if self._stopping:
                ready.extend(one for one in batch[batch.index(handle) + 1 :] if not one._cancelled)
                break

    def _timer_handle_cancelled(self, handle: object) -> None:
        pass  # it goes when its time comes

    def _write_to_self(self) -> None:
        pass  # no other thread wakes it

    def _process_events(self, event_list: object) -> None:
        pass

    def _on_failure(self, _loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self._failures(f"{context['message']}: {error!r}")
