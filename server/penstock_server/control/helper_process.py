"""Keeps a helper process running that serves no calls: restarts it when it ends, and ends it with the server.

The process gets two arguments: its own, and the process id of the server, with which it ends (`lifeline`). It must end
too when its standard input does.
"""

import asyncio
import os
import sys
from typing import Final

import structlog

from penstock_server.priority import to_background

log = structlog.get_logger(__name__)

RESTART_AFTER_S: Final = 5.0
GRACE_S: Final = 20.0


class HelperProcess:
    """Runs `python -m MODULE ARGUMENT PARENT` until it is closed.

    Args:
        module: what to run.
        argument: its own argument.
        restart_after_s: the pause before it is started again.
    """

    def __init__(self, module: str, argument: str, *, restart_after_s: float = RESTART_AFTER_S) -> None:
        self._module = module
        self._argument = argument
        self._restart_after_s = restart_after_s
        self._process: asyncio.subprocess.Process | None = None
        self._keeping_alive: asyncio.Task[None] | None = None
        self._is_closing = asyncio.Event()

    def start(self) -> None:
        """Starts it, and again whenever it ends."""
        self._keeping_alive = asyncio.create_task(self._keep_alive())

    async def close(self) -> None:
        """Closes its input and waits for its end; it is killed if it does not end in time."""
        self._is_closing.set()
        self._end_input()
        if self._keeping_alive is None:
            return
        try:
            await asyncio.wait_for(asyncio.shield(self._keeping_alive), GRACE_S)
        except TimeoutError:
            log.warning("helper did not end in time; killing it", module=self._module)
            if self._process is not None:
                self._process.kill()
            await self._keeping_alive

    def _end_input(self) -> None:
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    async def _keep_alive(self) -> None:
        while not self._is_closing.is_set():
            try:
                self._process = await self._start_process()
            except OSError as error:
                log.error("helper cannot be started; trying again", module=self._module, reason=str(error))
            else:
                if self._is_closing.is_set():
                    self._end_input()  # closed while it was being started
                code = await self._process.wait()
                if self._is_closing.is_set():
                    return
                log.error("helper ended; starting it again", module=self._module, code=code)
            try:
                await asyncio.wait_for(self._is_closing.wait(), self._restart_after_s)
            except TimeoutError:
                continue

    async def _start_process(self) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            self._module,
            self._argument,
            str(os.getpid()),
            stdin=asyncio.subprocess.PIPE,
            # Ctrl-C in a terminal reaches the whole group; the supervisor alone decides how its helpers end.
            start_new_session=True,
        )
        to_background(process.pid)
        return process
