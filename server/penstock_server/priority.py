"""The priorities of a server's processes: those that answer calls get the processor first."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

NICENESS: Final = 10
"""A tenth of a worker's share when all cores are busy; at the lowest priority they could wait for minutes."""
_MOST: Final = 19


def to_background(pid: int) -> None:
    """Has a process that was just started leave the processor to this one and its workers.

    From here, and not from its own first line: imports are most of what a process does that fetches or tries one version.
    A process that leads a session leaves it to all others only if the session does: where Linux has autogroups (sched(7)),
    sessions share the processor, and a process's niceness counts within its own.
    """
    with suppress(OSError):  # it is gone already, or the system knows no priorities
        niceness = min(_MOST, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)
        os.setpriority(os.PRIO_PROCESS, pid, niceness)
        if os.getsid(pid) == pid:
            Path(f"/proc/{pid}/autogroup").write_text(str(niceness))
