"""Runs load in processes of their own, so that the bench's own work never delays a request.

A process is started once and gets plan after plan through a pipe.
"""

import multiprocessing
import os
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

from bench.load import generator
from bench.load.generator import LoadError
from bench.load.plan import LoadPlan, LoadResult, merge, split
from bench.processes import cpu_reader

_SPARE_S = 30.0
_STOP = "stop"


def _serve(pipe: Connection) -> None:
    """The child: runs each plan that it receives. Any message during a run stops the run; None ends the process."""
    os.setsid()  # a share of the processor of its own, where Linux shares it among sessions
    while (task := _next_task(pipe)) is not None:
        if task == _STOP:  # meant for a run that has just ended by itself
            continue
        plan, pid = task
        probe = None if pid is None else cpu_reader(pid)
        try:
            answer: LoadResult | LoadError = generator.run(plan, probe=probe, should_stop=pipe.poll)
        except LoadError as error:
            answer = error
        pipe.send(answer)


def _next_task(pipe: Connection) -> Any:
    try:
        return pipe.recv()
    except EOFError:  # the bench has ended
        return None


class LoadProcess:
    """One process that sends load; a context manager."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self._limit_s = 0.0

    def start(self, plan: LoadPlan, *, server_pid: int | None = None) -> None:
        """Begins a run; with a server's process id, its CPU seconds over the window are the result's `probed`."""
        self._limit_s = plan.warmup_s + plan.duration_s + plan.grace_s + _SPARE_S
        self._pipe.send((plan, server_pid))

    def stop(self) -> None:
        """Ends the sending of the current run; its result is still to be fetched."""
        self._pipe.send(_STOP)

    def result(self) -> LoadResult:
        """Waits for the run's end.

        Raises:
            LoadError: the run could not be done, or its process ended.
        """
        if not self._pipe.poll(self._limit_s):
            raise LoadError(f"the load generator did not finish within {self._limit_s:.0f} s")
        try:
            answer: LoadResult | LoadError = self._pipe.recv()
        except EOFError as error:
            raise LoadError("the load generator's process ended before its run") from error
        if isinstance(answer, LoadError):
            raise answer
        return answer

    def close(self) -> None:
        """Ends the process."""
        with suppress(OSError):  # it may have ended already
            self._pipe.send(None)
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class LoadPool:
    """Several load processes that act as one; a pool that raised cannot be used again."""

    def __init__(self, processes: int = 1) -> None:
        self._stack = ExitStack()
        self._processes: Sequence[LoadProcess] = [self._stack.enter_context(LoadProcess()) for _ in range(processes)]

    def run(self, plan: LoadPlan, *, server_pid: int | None = None) -> LoadResult:
        """Sends a plan's load from all processes, or from as many as it has connections.

        Raises:
            LoadError: a run could not be done.
        """
        used = self._processes[: plan.connections]
        for process, part in zip(used, split(plan, len(used)), strict=True):
            process.start(part, server_pid=server_pid)
        return merge([process.result() for process in used])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
