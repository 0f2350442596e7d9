"""The priorities of a server's processes: those that answer calls get the processor first."""

import os
from contextlib import suppress
from typing import Final

NICENESS: Final = 10
"""A tenth of a worker's share when all cores are busy; at the lowest priority they could wait for minutes."""
_MOST: Final = 19


def to_background(pid: int) -> None:
    """Has a process that was just started leave the processor to this one and its workers.

    From here, and not from its own first line: imports are most of what a process does that fetches or tries one version.
    """
    with suppress(OSError):  # it is gone already, or the system knows no priorities
        os.setpriority(os.PRIO_PROCESS, pid, min(_MOST, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS))
