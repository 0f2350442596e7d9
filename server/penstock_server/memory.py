"""Gives freed memory back to the system, which glibc keeps: what a burst of large requests took would stay taken."""

import ctypes
import os
import threading
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Final

LOOK_S: Final = 1.0
IDLE_SHARE: Final = 0.05
"""A process that uses less of a processor than this is idle: giving memory back holds up whoever allocates meanwhile."""
GROWTH: Final = 1.03
"""Memory is given back when this many times what was left the last time is taken."""


class MemoryReturn:
    """Looks once a second whether an idle process has taken more memory, and then gives back what is free.

    A request that takes gigabytes leaves pieces in use among freed ones, so glibc by itself returns little. Under load
    nothing is returned: it would be taken again at once.
    """

    def __init__(self, *, look_s: float = LOOK_S) -> None:
        self._look_s = look_s
        self._is_stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Ends the thread; does not wait for it."""
        self._is_stopped.set()

    def _run(self) -> None:
        left = resident_bytes()
        used_s = time.process_time()
        while not self._is_stopped.wait(self._look_s):
            before_s, used_s = used_s, time.process_time()
            if used_s - before_s < IDLE_SHARE * self._look_s and resident_bytes() > GROWTH * left:
                return_memory()
                left = resident_bytes()


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL("libc.so.6")  # once: each one has classes of its own


def return_memory() -> None:
    """Gives freed memory back now; takes milliseconds per hundred MB."""
    with suppress(OSError, AttributeError):
        _libc().malloc_trim(0)


def resident_bytes(pid: int | None = None) -> int:
    """The memory of a process that is in use, of this one by default; 0 where the system does not tell, or it is gone."""
    try:
        return int(Path(f"/proc/{'self' if pid is None else pid}/statm").read_text().split()[1]) * os.sysconf(
            "SC_PAGE_SIZE"
        )
    except (OSError, ValueError, IndexError):
        return 0
