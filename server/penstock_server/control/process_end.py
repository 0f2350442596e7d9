"""Why a worker's process ended, and how the end of a process is told."""

import signal
from typing import Literal

Cause = Literal["ended", "silent", "stopped", "long run", "long load", "never started"]
"""It ended by itself or by somebody else's signal; or the watchdog killed it: its loop was silent, the process was stopped,
a run or a load took too long, or it never showed a sign of life."""


def ending(code: int) -> str:
    """How a process ended, in words: its exit code, or the signal whose negative number it is."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {-code}, {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
