"""A process that is started before it is needed, so that nobody waits while it imports."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Generic, TypeVar

from penstock_server.errors import UnavailableError

Process = TypeVar("Process")


class Spare(Generic[Process]):
    """Keeps one process that has nothing to do yet.

    Args:
        start: starts one; `OSError`, `MemoryError` or UnavailableError when there cannot be one now.
        end: ends one that is not needed.
        is_alive: whether one can still be used.
    """

    def __init__(
        self,
        start: Callable[[], Awaitable[Process]],
        end: Callable[[Process], object],
        is_alive: Callable[[Process], bool] = lambda _: True,
    ) -> None:
        self._start = start
        self._end = end
        self._is_alive = is_alive
        self._process: Process | None = None
        self._starting: asyncio.Task[None] | None = None
        self._is_wanted = False

    @property
    def process(self) -> Process | None:
        """The one that waits; None while there is none."""
        return self._process

    def prepare(self) -> None:
        """Starts one, unless there is one or it is being started."""
        self._is_wanted = True
        if self._process is None and (self._starting is None or self._starting.done()):
            self._starting = asyncio.create_task(self._start_one())

    async def take(self) -> Process:
        """The one that waits, or one that is started now; it may raise what `start` does."""
        process, self._process = self._process, None
        if process is not None and self._is_alive(process):
            return process
        if process is not None:
            self._end(process)
        return await self._start()

    def discard(self) -> None:
        """Ends the one that waits, and the one that is being started as soon as it has."""
        self._is_wanted = False
        process, self._process = self._process, None
        if process is not None:
            self._end(process)

    async def close(self) -> None:
        """Ends it, and the start of another."""
        self.discard()
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting])

    async def _start_one(self) -> None:
        with suppress(OSError, MemoryError, UnavailableError):  # then one is started when it is needed
            self._process = await self._start()
        if not self._is_wanted:
            self.discard()
