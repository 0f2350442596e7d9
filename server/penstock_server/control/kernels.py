"""Compiles a set of kernels in a process of its own, for servers that need it: the feature kernels, if a model has features.

With the kernels of a release, versions load at once and this machine's own are compiled behind, for the next start. Without
them, versions with features wait until they are compiled; all others are served meanwhile.
"""

import asyncio
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Callable
from typing import Final

import structlog

from penstock_server.clock import Clock, monotonic
from penstock_server.errors import UnavailableError
from penstock_server.kernels import compiled, kept
from penstock_server.kernels.kernel_set import KernelSet
from penstock_server.priority import to_background

log = structlog.get_logger(__name__)

RETRY_S: Final = 60.0
"""The pause after a compilation that failed."""
_PROGRESS_STEPS: Final = 4
"""How often progress is logged."""


class KernelCompiler:
    """Has the kernels compiled once they are required.

    Args:
        kernels: which.
        changed: called on the loop when `is_ready` or `failure` has changed.
        clock: the time of retries.
        is_waited_for: whether anything waits for them; else they are for the next start, and what serves goes on.

    Attributes:
        is_ready: whether a worker can load kernels now.
        failure: why they could not be compiled, in one sentence; "" if they are being compiled or need not be.
    """

    def __init__(
        self,
        kernels: KernelSet,
        changed: Callable[[], None],
        *,
        clock: Clock = monotonic,
        is_waited_for: bool = True,
    ) -> None:
        self._kernels = kernels
        self._changed = changed
        self._clock = clock
        self._is_waited_for = is_waited_for
        self.is_ready = False
        self.failure = ""
        self._is_settled = False
        self._retry_at_s = clock()
        self._functions = 0
        self._compiling: asyncio.Task[None] | None = None

    @property
    def reason(self) -> str:
        """Why those who need the kernels wait, in one sentence; "" when they need not, or when nobody needs them."""
        if self.is_ready or (self._compiling is None and not self.failure):
            return ""
        return (
            self.failure
            or f"the {self._kernels.title} are being compiled for this machine, which takes a minute or more"
        )

    @property
    def _is_behind(self) -> bool:
        return self.is_ready or not self._is_waited_for

    @property
    def progress(self) -> float:
        """How much is compiled, 0 to 1."""
        return min(self._functions / self._kernels.functions, 1.0)

    def require(self) -> None:
        """Finds the kernels, and starts to compile them if this machine's own are not there; to be called again and again."""
        if self._is_settled or self._compiling is not None or self._clock() < self._retry_at_s:
            return
        if (own := compiled.find_own(self._kernels)) is not None:
            kept.keep(own[0])
            self.is_ready = self._is_settled = True
            return
        self.is_ready = compiled.find_shipped(self._kernels) is not None
        try:
            compiled.check_can_build(self._kernels, compiled.own_path(self._kernels))
        except UnavailableError as error:
            self._fail(str(error))
        else:
            self._compiling = asyncio.create_task(self._compile())

    async def close(self) -> None:
        """Ends the compiler, if it runs."""
        if self._compiling is not None:
            self._compiling.cancel()
            await asyncio.gather(self._compiling, return_exceptions=True)

    async def _compile(self) -> None:
        title = self._kernels.title
        log.info(
            f"compiling the {title} of this machine; the next start uses them"
            if self._is_behind
            else f"compiling the {title}, which takes a minute or more; {self._kernels.users} wait for them"
        )
        try:
            failure = await self._run()
        except OSError as error:
            failure = f"the {title} cannot be compiled: {error}"
        finally:
            self._compiling = None
        if not failure and compiled.find_own(self._kernels) is None:
            failure = f"the {title} were compiled, but {compiled.own_path(self._kernels)} does not hold them"
        if failure:
            self._fail(failure)
        else:
            self.failure = ""
            self.is_ready = self._is_settled = True
            log.info(f"the {title} are compiled")
        self._changed()

    async def _run(self) -> str:
        """Runs the compiler; why it failed, or "" if it did not."""
        # Where versions wait for it, it competes with other processes as any does.
        options = ["--progress", "--behind"] if self._is_behind else ["--progress"]
        command, environment = compiled.build_command(self._kernels, compiled.own_path(self._kernels), *options)
        process = await asyncio.create_subprocess_exec(
            *command,
            env=environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=PIPE,
            stderr=PIPE,
            # Ctrl-C in a terminal reaches the whole group; `close` ends it, and the kernel when this process is killed.
            start_new_session=True,
        )
        if self._is_behind:
            to_background(process.pid)
        try:
            async with asyncio.timeout(compiled.BUILD_TIMEOUT_S):
                _, said = await asyncio.gather(self._count(process), _last_lines(process))
                code = await process.wait()
        except TimeoutError:
            return f"the {self._kernels.title} cannot be compiled: it took longer than {compiled.BUILD_TIMEOUT_S:.0f} s"
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return "" if code == 0 else compiled.build_failure(self._kernels, code, said)

    async def _count(self, process: Process) -> None:
        """Counts the functions that are compiled, and logs how far it is now and then."""
        assert process.stdout is not None
        self._functions, functions = 0, self._kernels.functions
        async for _ in process.stdout:
            self._functions += 1
            if self._functions < functions and self._functions % max(functions // _PROGRESS_STEPS, 1) == 0:
                log.info(f"compiling the {self._kernels.title}", done=f"{self.progress:.0%}")

    def _fail(self, reason: str) -> None:
        self._retry_at_s = self._clock() + RETRY_S
        if self._is_behind:
            # The kernels of the release serve; what was tried behind is not needed.
            if "numba" not in reason:
                log.warning(f"no {self._kernels.title} of this machine; what serves now goes on", reason=reason)
            self._is_settled = True
        elif reason != self.failure:
            log.error(f"{self._kernels.users} cannot be served", reason=reason)
            self.failure = reason


async def _last_lines(process: Process) -> str:
    assert process.stderr is not None
    lines = deque([line.decode(errors="replace") async for line in process.stderr], maxlen=50)
    return "".join(lines)
