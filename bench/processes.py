"""CPU seconds and memory of a process and all its descendants, read from /proc. Linux only.

Source: proc(5), /proc/PID/stat and /proc/PID/smaps_rollup.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PARENT, _RESIDENT_PAGES = 1, 21
_CPU_FIELDS = (11, 12, 13, 14)  # user and system, its own and of its children that ended


@dataclass(frozen=True, slots=True)
class ProcessMemory:
    """One process's memory.

    Attributes:
        pid: its id.
        command: its name in the kernel.
        rss_bytes: resident, with shared pages counted in full.
        pss_bytes: resident, with each shared page divided by its sharers; None if the kernel does not say.
    """

    pid: int
    command: str
    rss_bytes: int
    pss_bytes: int | None


def parse_stat(text: str) -> tuple[str, list[int]]:
    """The command and the numbers after the state of a /proc/PID/stat line; a command may hold spaces and brackets."""
    head, _, tail = text.rpartition(")")
    return head.partition("(")[2], [0, *map(int, tail.split()[1:])]


def tree(pid: int) -> list[int]:
    """The process and its living descendants; empty if it has ended."""
    children: dict[int, list[int]] = {}
    alive = set()
    for entry in _PROC.iterdir():
        if entry.name.isdigit() and (stat := _stat(int(entry.name))):
            alive.add(int(entry.name))
            children.setdefault(stat[1][_PARENT], []).append(int(entry.name))
    found = [pid] if pid in alive else []
    for each in found:
        found.extend(children.get(each, ()))
    return found


def cpu_reader(pid: int) -> Callable[[], float]:
    """Reads user and system seconds of the process and its current descendants, in steps of a clock tick (10 ms).

    Descendants that ended count through the parent that waited for them.
    """
    # To find descendants takes milliseconds, since all of /proc is read, and the load generator could do nothing
    # meanwhile. To read known processes takes microseconds.
    pids = tree(pid)

    def read() -> float:
        stats = [stat for each in pids if (stat := _stat(each))]
        return sum(numbers[field] for _, numbers in stats for field in _CPU_FIELDS) / _TICKS_PER_S

    return read


def memory_of(pid: int) -> list[ProcessMemory]:
    """The memory of the process and of each living descendant, the process first."""
    found = []
    for each in tree(pid):
        if stat := _stat(each):
            command, numbers = stat
            found.append(ProcessMemory(each, command, numbers[_RESIDENT_PAGES] * _PAGE_BYTES, _pss_bytes(each)))
    return found


def _stat(pid: int) -> tuple[str, list[int]] | None:
    try:
        return parse_stat((_PROC / str(pid) / "stat").read_text(errors="replace"))
    except OSError:  # it has ended
        return None


def _pss_bytes(pid: int) -> int | None:
    try:
        lines = (_PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), None)
