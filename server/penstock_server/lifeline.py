"""Ends processes that would not end by themselves: a child with its parent, and any process at its time.

A child ends even when it hangs and no Python code of its own runs any more.

The kernel sends a signal when the thread that started the process ends (`prctl(2)`, PR_SET_PDEATHSIG). So a child is
started from a thread that lives as long as its process does. Linux only; elsewhere nothing happens.
"""

import ctypes
import os
import select
import signal
import sys
import threading
from typing import Final, Self

_PR_SET_PDEATHSIG: Final = 1
GRACE_S: Final = int(signal.SIGUSR1)
"""The seconds that `end_after_parent` leaves a process: the number of its signal, which `alarm` takes as seconds."""


def end_with_parent(parent: int) -> None:
    """Makes the kernel kill this process as soon as its parent is gone.

    Args:
        parent: the parent's process id, which the parent passed on: it may be gone already.
    """
    _on_parents_death(signal.SIGKILL, parent)


def end_after_parent(parent: int) -> None:
    """Leaves this process `GRACE_S` seconds to end by itself when its parent is gone; then the kernel kills it.

    A process that hangs runs no Python handler. The handler is therefore the C function `alarm`, called with the number
    of the signal, SIGUSR1, as its seconds. The alarm's own signal ends the process by default.

    Args:
        parent: as for `end_with_parent`.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    libc.signal.argtypes = [ctypes.c_int, ctypes.c_void_p]
    libc.signal(int(signal.SIGUSR1), ctypes.cast(libc.alarm, ctypes.c_void_p))
    _on_parents_death(signal.SIGUSR1, parent)


def input_has_ended(timeout_s: float) -> bool:
    """Waits up to this long for standard input to end, which a parent closes to end a child; whether it did."""
    ready, _, _ = select.select([sys.stdin], [], [], timeout_s)
    return bool(ready) and not os.read(sys.stdin.fileno(), 1)


class LastResort:
    """Ends this process at a set time, whatever its threads wait for, unless the block that it guards is left before.

    The process's children end with it, where they asked for that.
    """

    def __init__(self) -> None:
        self._timer: threading.Timer | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def within(self, seconds: float) -> None:
        """Sets the time: so many seconds from now."""
        self._timer = threading.Timer(seconds, os._exit, args=(1,))
        self._timer.daemon = True
        self._timer.start()


def _on_parents_death(signal_: signal.Signals, parent: int) -> None:
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, int(signal_), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:  # it ended before the kernel was asked
        os.kill(os.getpid(), signal_)
