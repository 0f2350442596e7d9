"""Decides which workers hang: a pure step from look to look over what each shows of its life.

Time is counted in steps of the supervisor's own looks. So when the supervisor itself did not run, as in a machine that
slept, the count goes on from where it was, and no worker is blamed for the pause.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from penstock.names import VersionKey
from penstock_server.control.process_end import Cause
from penstock_server.control.settings import WatchdogSettings


@dataclass(frozen=True, slots=True)
class Pulse:
    """What one look sees of a worker.

    Attributes:
        beat_ns: when its loop last came round; 0 before the first time.
        runs: when each run began that is not finished, in nanoseconds.
        loading: the version that it loads.
        is_listening: it accepts calls.
        is_stopped: its process is stopped, as by SIGSTOP.
    """

    beat_ns: int
    runs: Mapping[VersionKey, int] = field(default_factory=dict)
    loading: VersionKey | None = None
    is_listening: bool = False
    is_stopped: bool = False


@dataclass(frozen=True, slots=True)
class Vigil:
    """What the watchdog knows of one worker process, all of it seen in its own looks.

    Attributes:
        silent_s: how long its loop has shown no sign of life.
        runs_s: how long each run has lasted.
        load_s: how long it has been loading the same version.
    """

    pulse: Pulse = field(default_factory=lambda: Pulse(0))
    silent_s: float = 0.0
    runs_s: Mapping[VersionKey, float] = field(default_factory=dict)
    load_s: float = 0.0

    def seen(self, pulse: Pulse, step_s: float) -> "Vigil":
        """What is known after another look, this many seconds after the last."""
        former = self.pulse
        same_load = pulse.loading is not None and pulse.loading == former.loading
        return replace(
            self,
            pulse=pulse,
            silent_s=self.silent_s + step_s if pulse.beat_ns == former.beat_ns else 0.0,
            runs_s={
                key: self.runs_s[key] + step_s if former.runs.get(key) == since_ns else 0.0
                for key, since_ns in pulse.runs.items()
            },
            load_s=self.load_s + step_s if same_load else 0.0,
        )

    def cause(self, limits: WatchdogSettings) -> Cause | None:
        """Why the worker is to be killed; None while it lives."""
        pulse = self.pulse
        if pulse.beat_ns == 0:
            return "never started" if self.silent_s > limits.start_s else None
        # Nobody waits for a worker that does not listen yet, and it may be loading what keeps all its threads busy.
        allowed_s = limits.silent_s if pulse.is_listening or pulse.loading is None else limits.load_s
        if self.silent_s > allowed_s:
            return "stopped" if pulse.is_stopped else "silent"
        if any(lasted_s > limits.run_s for lasted_s in self.runs_s.values()):
            return "long run"
        if self.load_s > limits.load_s:
            return "long load"
        return None
