"""How long a process's main thread has been busy: it ran on a core, or waited for one, which others had. Linux only.

Source: proc_pid_schedstat(5); Documentation/scheduler/sched-stats.rst of Linux.
"""

import os
from pathlib import Path
from typing import Final

_PROC: Final = Path("/proc")
_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
_USER, _SYSTEM = 11, 12


def busy_s(pid: int) -> float | None:
    """Seconds since the process began; None if it is gone.

    Kernels without statistics of their scheduler tell only how long it ran, in steps of a clock tick (10 ms).
    """
    thread = _PROC / str(pid) / "task" / str(pid)
    try:
        ran_ns, waited_ns, _ = map(int, (thread / "schedstat").read_text().split())
        if ran_ns:
            return (ran_ns + waited_ns) / 1e9
    except (OSError, ValueError):
        pass
    try:
        fields = (thread / "stat").read_text(errors="replace").rpartition(")")[2].split()
        return (int(fields[_USER]) + int(fields[_SYSTEM])) / _TICKS_PER_S
    except (OSError, ValueError, IndexError):
        return None
