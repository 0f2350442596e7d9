"""Decides which version ended a worker, and keeps versions out that did it twice.

What a version does to a process shows in the airlock. This is for what shows only later: a request that it crashes on, or
that it never finishes. Blame is a pure function of what is known when a worker ends.
"""

import signal
from collections.abc import Collection, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Final

from penstock.names import VersionKey
from penstock_server.clock import Clock
from penstock_server.control.process_end import Cause, ending

ENDS_ALLOWED: Final = 1
"""A version may end one worker: that may have had another cause, such as a machine that is short of memory."""
FORGIVEN_S: Final = 3600.0
"""An end that lies further back does not count."""
PROCESS_ENDS_ALLOWED: Final = 4
"""So many times a version may end a process of its own in a short time: that costs nobody but its own requests."""
PROCESS_FORGIVEN_S: Final = 300.0
"""An end of a version's own process that lies further back does not count."""
SUSPICIOUS_RUN_S: Final = 1.0
"""When somebody else kills a worker, a run that had lasted less long than this was hardly the reason."""

TOGETHER_S: Final = 1.0
"""Workers that somebody else kills within this time were killed for one reason: whoever ends all workers ends each of them."""

_CRASHES: Final = frozenset(
    {
        signal.SIGSEGV,
        signal.SIGABRT,
        signal.SIGBUS,
        signal.SIGILL,
        signal.SIGFPE,
        signal.SIGTRAP,
        signal.SIGSYS,
    }
)


@dataclass(frozen=True, slots=True)
class WorkerEnd:
    """What is known when a worker's process is gone.

    Attributes:
        cause: as far as the watchdog knows.
        code: its exit code, or the negative number of the signal that ended it.
        loading: the version that it was loading.
        runs: how long, in seconds, each run had lasted that was not finished.
        champions: the versions that answered as champions in this worker.
    """

    cause: Cause
    code: int
    loading: VersionKey | None = None
    runs: Mapping[VersionKey, float] = field(default_factory=dict)
    champions: AbstractSet[VersionKey] = frozenset()


def blame(end: WorkerEnd) -> tuple[VersionKey, str] | None:
    """The version that ended the worker, and how it did, for a sentence; None when no version is to blame."""
    longest = max(end.runs, key=lambda key: end.runs[key], default=None)
    match end.cause:
        case "stopped" | "never started":
            return None
        case "long load":
            return _loading(end, "its load did not end")
        case "long run":
            return None if longest is None else (longest, f"a run had not ended after {end.runs[longest]:.0f} s")
        case "silent":
            if longest is not None:
                return longest, f"its run held up the whole worker for {end.runs[longest]:.0f} s"
            return _loading(end, "its load held up the whole worker")
        case "ended":
            return _ended(end)


def was_killed(end: WorkerEnd) -> bool:
    """Whether somebody else killed the worker, or the system when memory was short: by a signal that no crash gives."""
    return end.cause == "ended" and end.code < 0 and -end.code not in _CRASHES


def _ended(end: WorkerEnd) -> tuple[VersionKey, str] | None:
    if end.code == 0:
        return None  # it was told to end
    how = ending(end.code)
    if end.loading is not None:
        return _loading(end, f"it ended while it loaded it ({how})")
    runs = end.runs
    if was_killed(end):
        # Nearly always something runs then.
        runs = {key: lasted_s for key, lasted_s in runs.items() if lasted_s >= SUSPICIOUS_RUN_S}
    if not runs:
        return None
    # A champion has answered before: of several that ran it is the least likely.
    suspect = max(runs, key=lambda key: (key not in end.champions, runs[key]))
    return suspect, f"it ended while it ran ({how})"


def _loading(end: WorkerEnd, how: str) -> tuple[VersionKey, str] | None:
    return None if end.loading is None else (end.loading, how)


@dataclass(frozen=True, slots=True)
class _Ends:
    """The ends that a version's files are to blame for, by their times."""

    identity: str
    times_s: tuple[float, ...]
    how: str


class Quarantine:
    """Versions that ended workers, by their files' identity."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ends: dict[VersionKey, _Ends] = {}
        self._process_ends: dict[VersionKey, _Ends] = {}

    def note(self, key: VersionKey, identity: str, how: str, *, was_killed: bool = False) -> bool:
        """Notes that a version ended a worker; whether it is out from now on.

        Args:
            key: the version.
            identity: of its files.
            how: how it did, for a sentence.
            was_killed: somebody else killed the worker; what follows another end at once does not count then.
        """
        now_s = self._clock()
        known = self._ends.get(key)
        if was_killed and known is not None and known.identity == identity and now_s - known.times_s[-1] < TOGETHER_S:
            return len(known.times_s) > ENDS_ALLOWED
        self._ends[key] = _and_one(self._ends.get(key), identity, now_s, FORGIVEN_S, how)
        return len(self._ends[key].times_s) > ENDS_ALLOWED

    def note_process(self, key: VersionKey, identity: str, how: str) -> bool:
        """Notes that a version ended the process of its own in a worker; whether it is out from now on."""
        if self._is_out_for_processes(key, identity):
            return True  # it stays out, although nothing ends any more
        now_s = self._clock()
        self._process_ends[key] = _and_one(self._process_ends.get(key), identity, now_s, PROCESS_FORGIVEN_S, how)
        return self._is_out_for_processes(key, identity)

    def reason(self, key: VersionKey, identity: str) -> str | None:
        """Why a version's files are out; None while they are not."""
        ends, what = self._ends.get(key), "a worker"
        if ends is None or ends.identity != identity or len(ends.times_s) <= ENDS_ALLOWED:
            if not self._is_out_for_processes(key, identity):
                return None
            ends, what = self._process_ends[key], "its own process"
        return (
            f"is kept out until its files change: it ended {what} {len(ends.times_s)} times; the last time {ends.how}"
        )

    def _is_out_for_processes(self, key: VersionKey, identity: str) -> bool:
        ends = self._process_ends.get(key)
        return ends is not None and ends.identity == identity and len(ends.times_s) > PROCESS_ENDS_ALLOWED

    def is_doubtful(self, key: VersionKey, identity: str) -> bool:
        """Whether a version's files ended a worker: others are loaded before it."""
        ends = self._ends.get(key)
        return ends is not None and ends.identity == identity

    def keep(self, keys: Collection[VersionKey]) -> None:
        """Forgets all other versions."""
        for ends in (self._ends, self._process_ends):
            for key in ends.keys() - set(keys):
                del ends[key]


def _and_one(known: _Ends | None, identity: str, now_s: float, forgiven_s: float, how: str) -> _Ends:
    """What is known after another end, without those that are forgiven."""
    former = known.times_s if known is not None and known.identity == identity else ()
    return _Ends(identity, (*(time_s for time_s in former if now_s - time_s < forgiven_s), now_s), how)
