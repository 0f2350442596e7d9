"""Runs trials, each in its process: starts it, watches its memory and its time, and says what came of it.

The process can do nothing but end. It is killed when it takes too much, and it ends with the supervisor.
"""

import asyncio
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import structlog

from penstock_server.control.process_end import ending
from penstock_server.control.spare import Spare
from penstock_server.control.verdict import MAX_VERDICT_BYTES, Task, Trial, TrialLimits, Verdict, out_of_memory
from penstock_server.control.worker_process import ENVIRONMENT
from penstock_server.priority import to_background

log = structlog.get_logger(__name__)

LOOK_S: Final = 0.02
"""The pause between two looks at its memory. In that time a process fills some hundred MiB."""
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class TrialRunner:
    """Runs trials within limits.

    Args:
        limits: what each may take.
        has_spare: whether a process that has imported what it needs waits for the next version.
    """

    def __init__(self, limits: TrialLimits, *, has_spare: bool = True) -> None:
        self._limits = limits
        self._has_spare = has_spare
        self._spare = Spare(_start_process, _kill, lambda process: process.returncode is None)

    async def run(self, trial: Trial) -> Verdict:
        """Tries a version; when cancelled, its process is gone.

        Raises:
            OSError: the process cannot be started now, which says nothing about the version.
        """
        process = await self._spare.take()
        try:
            return await _run(process, trial, self._limits)
        finally:
            # Not sooner: the start of another would take the cores from this one.
            if self._has_spare:
                self._spare.prepare()

    async def close(self) -> None:
        """Ends the process that waits."""
        self._has_spare = False
        await self._spare.close()


async def _start_process() -> asyncio.subprocess.Process:
    """A process that waits for a trial."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "penstock_server.airlock",
        str(os.getpid()),
        env={**ENVIRONMENT, **os.environ},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    to_background(process.pid)
    return process


async def _run(process: asyncio.subprocess.Process, trial: Trial, limits: TrialLimits) -> Verdict:
    log.info("trying a version", model=trial.model, version=trial.version, pid=process.pid)
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode(Task(trial, limits)))
    process.stdin.close()
    watching = asyncio.create_task(_outgrows(process.pid, limits))
    answering = asyncio.create_task(_answer(process))
    try:
        done, _ = await asyncio.wait(
            {watching, answering}, timeout=limits.timeout_s, return_when=asyncio.FIRST_COMPLETED
        )
        if answering in done:
            return verdict_of(answering.result(), await process.wait(), limits)
        return Verdict(out_of_memory(limits) if watching in done else too_slow(limits))
    finally:
        watching.cancel()
        answering.cancel()
        _kill(process)
        await asyncio.gather(watching, answering, return_exceptions=True)
        await process.wait()


def _kill(process: asyncio.subprocess.Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()


_verdicts: Final = msgspec.json.Decoder(Verdict)


def verdict_of(answer: bytes, code: int, limits: TrialLimits) -> Verdict:
    """What the process said, or what its end says when it could not."""
    if code == 0:
        with suppress(msgspec.DecodeError):
            return _verdicts.decode(answer)
    if code == -signal.SIGXCPU:
        return Verdict(too_slow(limits))
    if code == -signal.SIGKILL:
        return Verdict(
            "the process that tried it was killed (signal 9), which the system does when the machine runs out of memory"
        )
    return Verdict(f"ended the process that tried it ({ending(code)})")


def too_slow(limits: TrialLimits) -> str:
    """The reason of a version that takes too long."""
    return f"did not finish loading within {limits.timeout_s:g} s (the limit is the setting airlock.timeout_s)"


async def _answer(process: asyncio.subprocess.Process) -> bytes:
    """All that it says until it ends."""
    assert process.stdout is not None
    answer = b""
    while (part := await process.stdout.read(MAX_VERDICT_BYTES)) and len(answer) <= MAX_VERDICT_BYTES:
        answer += part
    await process.wait()
    return answer


async def _outgrows(pid: int, limits: TrialLimits) -> None:
    """Ends once it takes more memory than it may."""
    most_pages = limits.memory_mib * (1 << 20) // _PAGE_BYTES
    while _resident_pages(pid) <= most_pages:  # noqa: ASYNC110 - another process's memory can only be polled
        await asyncio.sleep(LOOK_S)


def _resident_pages(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
